"""Our own nodes: a pair over QUIC in two OS processes, and the works that stay in one."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from child import Child
from plan import LOCAL_WORKS, PAIR_WORKS
from systems.pair import Pair
from systems.program import PROGRAMS, Programs

COOKIE: Final = "bench-cookie"


class OursQuic:
    name = "ours_quic"
    works = PAIR_WORKS

    def missing(self) -> str | None:
        return import_fault("barrel_p2p")

    def versions(self) -> dict[str, str]:
        return {"barrel_p2p": _version()}

    def start(self, directory: Path) -> Pair:
        names = ["bench_a@127.0.0.1", "bench_b@127.0.0.1"]
        ports = free_udp_ports(2)
        started: list[Child] = []
        try:
            for me, other in ((0, 1), (1, 0)):
                data = directory / "ab"[me]
                argv = [
                    sys.executable, str(PROGRAMS / "ours" / "peer.py"), names[me], str(ports[me]),
                    names[other], str(ports[other]), str(data), COOKIE,
                ]  # fmt: skip
                started.append(Child(names[me], argv))
                started[-1].wait_ready()
            return Pair(started[0], started[1])
        except BaseException:
            for child in started:
                child.stop()
            raise


class OursLocal:
    name = "ours_local"
    works = LOCAL_WORKS

    def missing(self) -> str | None:
        return import_fault("barrel_p2p")

    def versions(self) -> dict[str, str]:
        return {"barrel_p2p": _version()}

    def start(self, directory: Path) -> Programs:
        return Programs(self.name, PROGRAMS / "ours" / "local.py", str(directory))


def systems() -> list[OursQuic | OursLocal]:
    return [OursQuic(), OursLocal()]


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
