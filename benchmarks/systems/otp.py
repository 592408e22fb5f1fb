"""Two stock Erlang nodes on loopback: distribution over TCP, and over TLS with certificates on both sides.

They get an epmd of their own on a free loopback port, so that one that already runs here is left alone.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from certificates import write_certificates
from child import Child
from plan import PAIR_WORKS
from systems.pair import Pair

SOURCE: Final = Path(__file__).parent.parent / "erlang" / "bench_peer.erl"
COOKIE: Final = "bench-cookie"


class Otp:
    works = PAIR_WORKS

    def __init__(self, name: str, *, tls: bool) -> None:
        self.name = name
        self._tls = tls

    def missing(self) -> str | None:
        for program in ("erl", "erlc", "epmd"):
            if shutil.which(program) is None:
                return f"no {program} on this machine (Debian: apt-get install erlang-base erlang-ssl)"
        if self._tls and "ssl" not in _ask_erl("code:lib_dir(ssl)"):
            return "Erlang's ssl application is not installed (Debian: erlang-ssl)"
        return None

    def versions(self) -> dict[str, str]:
        return {"otp": _ask_erl("{erlang:system_info(otp_release), erlang:system_info(version)}")}

    def start(self, directory: Path) -> Pair:
        subprocess.run(["erlc", "-o", str(directory), str(SOURCE)], check=True)
        port = free_tcp_port()
        epmd = Child("epmd", ["epmd", "-address", "127.0.0.1", "-port", str(port)])
        started = [epmd]
        try:
            _wait_listening(port)
            options = _tls_options(directory) if self._tls else []
            names = [f"bench_{self.name}_{side}@127.0.0.1" for side in "ab"]
            for name, peer in (names, names[::-1]):
                child = Child(name, _command(name, peer, directory, options), env={"ERL_EPMD_PORT": str(port)})
                started.append(child)
                child.wait_ready()
            return Pair(started[1], started[2], (epmd,))
        except BaseException:
            for child in reversed(started):
                child.stop()
            raise


def systems() -> list[Otp]:
    return [Otp("otp_tcp", tls=False), Otp("otp_tls", tls=True)]


def _command(name: str, peer: str, beams: Path, options: list[str]) -> list[str]:
    """Stock settings, but nothing connects by itself: it would re-open what `setup` just closed."""
    return [
        "erl", "-noshell", "-name", name, "-setcookie", COOKIE,
        "-start_epmd", "false", "-connect_all", "false",
        "-kernel", "inet_dist_use_interface", "{127,0,0,1}",
        "-kernel", "prevent_overlapping_partitions", "false",
        "-kernel", "dist_auto_connect", "never",
        *options, "-pa", str(beams), "-s", "bench_peer", "main", "-extra", peer,
    ]  # fmt: skip


def _tls_options(directory: Path) -> list[str]:
    authority, certificate, key = (directory / name for name in ("ca.crt", "node.crt", "node.key"))
    write_certificates(authority, certificate, key)
    files = f'{{certfile, "{certificate}"}}, {{keyfile, "{key}"}}, {{cacertfile, "{authority}"}}'
    files += ", {verify, verify_peer}"
    conf = directory / "ssl.conf"
    conf.write_text(f"[{{server, [{files}, {{fail_if_no_peer_cert, true}}]}}, {{client, [{files}]}}].\n")
    return ["-proto_dist", "inet_tls", "-ssl_dist_optfile", str(conf)]


def _ask_erl(expression: str) -> str:
    done = subprocess.run(
        ["erl", "-noshell", "-eval", f'io:format("~0p", [{expression}]), halt().'],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.strip()


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_listening(port: int, timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"epmd does not listen on 127.0.0.1:{port}")
        time.sleep(0.02)
