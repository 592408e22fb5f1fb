"""One node with many peers, seen from outside: its resident memory, its CPU time, what a message costs it.

It is started for its work alone and ended after it: neither its peers nor its idle ticks belong beside other works.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from child import Child
from plan import Sizes

IDLE_PEERS: Final = 5
SETTLE_S: Final = 1.0


class Star(Protocol):
    """A hub and its rim."""

    hub: Child

    def grow(self, how: str, peers: int) -> None:
        """Starts peers until the hub has so many; ``how`` is ``join`` or ``connect``."""

    def close(self) -> None: ...


class Layout(Protocol):
    """Knows how to start a star, and how many peers this machine bears."""

    def start(self, directory: Path) -> Star: ...

    def most(self, peers: int) -> int: ...


@dataclass(slots=True)
class StarSession:
    layout: Layout
    directory: Path

    def run(self, work: str, sizes: Sizes) -> list[float]:
        """Idle CPU with five peers, in percent of a core; resident bytes for each peer from the sixth on.

        What the first ones load isn't theirs, and a VM gives memory of its start back while it is quiet.
        """
        many = self.layout.most(sizes.peers)
        with started(self.layout, self.directory) as star:
            star.grow("join", IDLE_PEERS)
            time.sleep(SETTLE_S)
            busy = cpu_seconds(star.hub.pid)
            time.sleep(sizes.quiet_s)
            busy = cpu_seconds(star.hub.pid) - busy
            before = resident_bytes(star.hub.pid)
            star.grow("connect", many)
            time.sleep(SETTLE_S)
            return [busy / sizes.quiet_s * 100, (resident_bytes(star.hub.pid) - before) / (many - IDLE_PEERS)]

    def close(self) -> None:
        """Nothing stays between two works."""


@contextmanager
def started(layout: Layout, directory: Path) -> Iterator[Star]:
    star = layout.start(directory)
    try:
        yield star
    finally:
        star.close()


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of another process: its clock as clock_getcpuclockid(3) numbers it on Linux."""
    return time.clock_gettime((~pid << 3) | 2)
