"""What a Python user would pick instead: two OS processes, one program of benchmarks/rivals/ on both sides.

``share`` is the part of the work that a slower system gets: every row of theirs is a rate or a percentile, and five
rounds have to end. One that isn't installed is left out by name (``make bench`` installs them).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from child import Child
from plan import Sizes
from systems.ours import import_fault
from systems.pair import Pair
from systems.program import PROGRAMS

MESSAGES: Final = ("oneway_1", "oneway_10", "pingpong", "call_1", "call_50", "message_1mib")
# Ray binds to every address of the machine; where loopback is the only one, it can't. What it started ends with it.
NAMESPACES: Final = ("--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
ONLY_LOOPBACK: Final = ["unshare", *NAMESPACES, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@dataclass(frozen=True, slots=True)
class Rival:
    name: str
    program: str
    packages: tuple[tuple[str, str], ...]  # distribution and module
    works: tuple[str, ...]
    share: float = 1.0
    share_big: float = 1.0  # of the messages of 1 MiB
    alone: bool = False

    def missing(self) -> str | None:
        faults = (import_fault(module) for _, module in self.packages)
        return next((fault for fault in faults if fault), None) or self._unconfined()

    def _unconfined(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        found = {}
        for package, _ in self.packages:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                found[package] = "unknown"
        return found

    def start(self, directory: Path) -> Pair:
        server = Child(f"{self.name} serve", [*self._command(), "serve"])
        started = [server]
        try:
            address = server.wait_ready()
            started.insert(0, driver := Child(f"{self.name} drive", [*self._command(), "drive", *address]))
            driver.wait_ready()
            return Pair(driver, server, smaller=self.smaller)
        except BaseException:
            for child in started:
                child.stop()
            raise

    def _command(self) -> list[str]:
        return [sys.executable, str(PROGRAMS / "rivals" / self.program)]

    def smaller(self, sizes: Sizes) -> Sizes:
        return sizes.part(self.share, self.share_big)


class RayActors(Rival):
    """Ray starts its own processes, so there is one program to start, and it ends them."""

    def _unconfined(self) -> str | None:
        if not (shutil.which("unshare") and shutil.which("ip")):
            return "Ray listens on every address of a machine, and unshare and ip, which would confine it, are missing"
        tried = subprocess.run([*ONLY_LOOPBACK, "true"], capture_output=True, text=True)
        return None if tried.returncode == 0 else f"no network namespace to confine Ray: {tried.stderr.strip()}"

    def start(self, directory: Path) -> Pair:
        # a short path: Ray puts Unix sockets below it, whose names have at most 107 bytes
        command = [*ONLY_LOOPBACK, *self._command(), "drive", str(directory)]
        driver = Child(self.name, command, env={"RAY_TMPDIR": str(directory)})
        try:
            driver.wait_ready(60)
        except BaseException:
            driver.stop()
            raise
        return Pair(driver, driver, smaller=self.smaller)


def systems() -> list[Rival]:
    msgpack = ("msgpack", "msgpack")
    return [
        Rival("asyncio_msgpack", "asyncio_msgpack.py", (msgpack,), MESSAGES),
        Rival("zmq_aio", "zmq_aio.py", (("pyzmq", "zmq.asyncio"), msgpack), MESSAGES, share=0.2),
        Rival("grpc_aio", "grpc_aio.py", (("grpcio", "grpc"), msgpack), MESSAGES, share=0.1, share_big=0.5),
        RayActors(
            "ray", "ray_actors.py", (("ray", "ray"),), tuple(work for work in MESSAGES if work != "oneway_10"),
            share=0.04, share_big=0.2, alone=True,
        ),
        Rival("aioquic", "aioquic_stream.py", (("aioquic", "aioquic.asyncio"),), ("stream",), share_big=1 / 16),
    ]  # fmt: skip
