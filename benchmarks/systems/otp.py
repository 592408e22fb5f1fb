"""Two stock Erlang nodes on loopback: distribution over TCP, and over TLS with certificates on both sides."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certificates import write_certificates
from child import Child
from plan import PAIR_WORKS
from systems.epmd import Epmd
from systems.pair import Pair
from systems.star import StarSession

SOURCE: Final = Path(__file__).parent.parent / "erlang" / "bench_peer.erl"
COOKIE: Final = "bench-cookie"


@dataclass(frozen=True, slots=True)
class Otp:
    name: str
    tls: bool
    works = PAIR_WORKS
    alone = False

    def missing(self) -> str | None:
        for program in ("erl", "erlc", "epmd"):
            if shutil.which(program) is None:
                return f"no {program} on this machine (Debian: apt-get install erlang-base erlang-ssl)"
        if self.tls and "ssl" not in _ask_erl("code:lib_dir(ssl)"):
            return "Erlang's ssl application is not installed (Debian: erlang-ssl)"
        return None

    def versions(self) -> dict[str, str]:
        return {"otp": _ask_erl("{erlang:system_info(otp_release), erlang:system_info(version)}")}

    def start(self, directory: Path) -> Pair:
        nodes = Nodes(self.name, directory, tls=self.tls)
        try:
            names = [f"bench_{self.name}_{side}@127.0.0.1" for side in "ab"]
            children = [nodes.start(name, peer) for name, peer in (names, names[::-1])]
            for child in children:
                child.wait_ready()
            return Pair(*children, (nodes.epmd,))
        except BaseException:
            nodes.close()
            raise


@dataclass(frozen=True, slots=True)
class OtpStar(Otp):
    """One Erlang node with peers, each of them a VM of its own: Erlang has one node in an OS process."""

    works = ("peers",)

    def start(self, directory: Path) -> StarSession:
        return StarSession(OtpLayout(self.tls), directory)


@dataclass(frozen=True, slots=True)
class OtpLayout:
    tls: bool

    def start(self, directory: Path) -> OtpRim:
        return OtpRim(Nodes("star", directory, tls=self.tls))

    def most(self, peers: int) -> int:
        """A VM takes half a second of a core to start, and some 50 MB."""
        return peers * 2 // 5


class OtpRim:
    HUB: Final = "bench_hub@127.0.0.1"

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        try:
            self.hub = nodes.start(self.HUB, "none")
            self.hub.wait_ready()
        except BaseException:
            nodes.close()
            raise
        self._peers: list[Child] = []

    def grow(self, how: str, peers: int) -> None:
        """Erlang has one way to be a peer, so ``how`` says nothing."""
        fresh = [self._nodes.start(f"bench_{n}@127.0.0.1", self.HUB) for n in range(len(self._peers), peers)]
        for child in fresh:
            child.wait_ready(120)
            child.ask("attach", 30)
        self._peers += fresh

    def close(self) -> None:
        self._nodes.close()


class Nodes:
    """Erlang VMs that share an epmd, a compiled program and, over TLS, certificates."""

    def __init__(self, name: str, directory: Path, *, tls: bool) -> None:
        subprocess.run(["erlc", "-o", str(directory), str(SOURCE)], check=True)
        self._directory = directory
        self._options = _tls_options(directory) if tls else []
        self.epmd = Epmd()
        self._started: list[Child] = [self.epmd]

    def start(self, name: str, peer: str) -> Child:
        command = _command(name, peer, self._directory, self._options)
        child = Child(name, command, env={"ERL_EPMD_PORT": str(self.epmd.port)})
        self._started.append(child)
        return child

    def close(self) -> None:
        for child in reversed(self._started):
            child.stop()


def systems() -> list[Otp]:
    return [Otp("otp_tcp", tls=False), Otp("otp_tls", tls=True), OtpStar("otp_tls", tls=True)]


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
