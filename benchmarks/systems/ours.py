"""Our own nodes: a pair in two OS processes over QUIC and over TCP, a star, and the works that stay in one process."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from child import Child
from plan import LOCAL_WORKS, PAIR_WORKS
from systems.epmd import Epmd
from systems.pair import Pair
from systems.program import PROGRAMS, Programs
from systems.star import StarSession

COOKIE: Final = "bench-cookie"
NAMES: Final = ("bench_a@127.0.0.1", "bench_b@127.0.0.1")


class Ours:
    name: str
    works: tuple[str, ...]
    alone = False

    def missing(self) -> str | None:
        return import_fault("barrel_p2p")

    def versions(self) -> dict[str, str]:
        return {"barrel_p2p": _version()}


class OursQuic(Ours):
    name = "ours_quic"
    works = (*PAIR_WORKS, "stream")

    def start(self, directory: Path) -> Pair:
        return start_pair(directory, "barrel_p2p", free_udp_ports(2), ())


class OursTcp(Ours):
    """The carrier that stock Erlang nodes speak, with an epmd of its own: beside `otp_tcp`, the same protocol."""

    name = "ours_tcp"
    works = PAIR_WORKS

    def missing(self) -> str | None:
        return super().missing() or (None if shutil.which("epmd") else "no epmd on this machine (Debian: erlang-base)")

    def start(self, directory: Path) -> Pair:
        epmd = Epmd()
        return start_pair(directory, "inet_tcp", [epmd.port, epmd.port], (epmd,))


class OursLocal(Ours):
    name = "ours_local"
    works = LOCAL_WORKS

    def start(self, directory: Path) -> Programs:
        return Programs(self.name, PROGRAMS / "ours" / "local.py", str(directory))


class OursStar(Ours):
    name = "ours_quic"
    works = ("peers",)

    def start(self, directory: Path) -> StarSession:
        return StarSession(OursLayout(), directory)


def systems() -> list[OursQuic | OursTcp | OursLocal | OursStar]:
    return [OursQuic(), OursTcp(), OursLocal(), OursStar()]


def start_pair(directory: Path, carrier: str, ports: Sequence[int], extra: tuple[Child, ...]) -> Pair:
    """``ports`` are those of the two nodes, or over TCP the one of their epmd, twice."""
    started = list(extra)
    try:
        for me, other in ((0, 1), (1, 0)):
            argv = [
                sys.executable, str(PROGRAMS / "ours" / "peer.py"), carrier, NAMES[me], str(ports[me]),
                NAMES[other], str(ports[other]), str(directory / "ab"[me]), COOKIE,
            ]  # fmt: skip
            started.append(Child(NAMES[me], argv))
            started[-1].wait_ready()
        return Pair(started[-2], started[-1], extra)
    except BaseException:
        for child in started:
            child.stop()
        raise


class OursLayout:
    def start(self, directory: Path) -> OursRim:
        return OursRim(directory)

    def most(self, peers: int) -> int:
        return peers


@dataclass(slots=True, init=False)
class OursRim:
    """The hub is an OS process, its peers are another."""

    hub: Child
    _rim: Child

    def __init__(self, directory: Path) -> None:
        program = [sys.executable, str(PROGRAMS / "ours" / "star.py")]
        self.hub = Child("hub", [*program, "hub", str(directory), COOKIE])
        try:
            port = self.hub.wait_ready()[0]
            self._rim = Child("rim", [*program, "rim", str(directory), COOKIE, port])
            self._rim.wait_ready()
        except BaseException:
            self.hub.stop()
            raise

    def grow(self, how: str, peers: int) -> None:
        self._rim.ask(f"{how} {peers}", 300)

    def close(self) -> None:
        self.hub.stop()
        self._rim.stop()


def import_fault(module: str) -> str | None:
    """Why the module can't be imported by the Python that runs the benchmark."""
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    return None if done.returncode == 0 else f"cannot import {module}: {done.stderr.strip().splitlines()[-1]}"


def free_udp_ports(count: int) -> list[int]:
    probes = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("barrel-p2p")
    except PackageNotFoundError:
        return "not installed (run from the source tree)"
