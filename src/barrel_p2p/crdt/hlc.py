"""The hybrid logical clock: stamps that follow wall time and still grow with every cause.

A stamp is wall-clock milliseconds with a counter for what happens within one of them (Kulkarni, Demirbas et al.,
"Logical Physical Clocks", OPODIS 2014). Here it is one integer, ``wall << 32 | logical``, the form that upstream calls
packed: two stamps compare as integers do, and a map entry keeps one object instead of a tuple of two. On the wire it is
``{timestamp, Wall, Logical}``.

Departures from upstream, whose nodes accept what we send:

- A remote stamp more than ``max_ahead_ms`` ahead of our wall clock doesn't move the clock (upstream has no bound: one
  bad wall clock drags every clock of the cluster along for good). A write that replaces an entry from such a future
  is still stamped above it (``over``), else it would be lost.
- A counter that is full carries over into the next millisecond instead of raising.
"""

from __future__ import annotations

from typing import Any, Final

from barrel_p2p.term.types import Atom

MAX_WALL_MS: Final = 253_402_300_799_999  # the last millisecond of year 9999; what is later is no time
MAX_LOGICAL: Final = 2**31 - 2  # upstream's clocks fail when they count past it
CARRY_LOGICAL: Final = (
    2**20
)  # our own counter stays this far below; a guess: no node writes a thousand times that in a ms
MAX_AHEAD_MS: Final = 60_000  # a guess: honest clocks differ by seconds, a broken one by hours

TIMESTAMP: Final = Atom("timestamp")


def pack(wall_ms: int, logical: int = 0) -> int:
    """The stamp of a wall time and a counter.

    >>> pack(1795337344000, 7)
    7710915177767501824007
    """
    return (wall_ms << 32) | logical


def wall_ms(stamp: int) -> int:
    """The Unix milliseconds of a stamp."""
    return stamp >> 32


def logical(stamp: int) -> int:
    """The counter of a stamp."""
    return stamp & 0xFFFFFFFF


def successor(stamp: int) -> int:
    """The smallest stamp we would make after ``stamp``."""
    if stamp & 0xFFFFFFFF >= CARRY_LOGICAL:
        return ((stamp >> 32) + 1) << 32
    return stamp + 1


def to_term(stamp: int) -> tuple[Atom, int, int]:
    """``{timestamp, Wall, Logical}``."""
    return (TIMESTAMP, stamp >> 32, stamp & 0xFFFFFFFF)


def from_term(term: Any) -> int | None:
    """The stamp of ``{timestamp, Wall, Logical}``, or None for anything else, such as numbers out of range."""
    if term.__class__ is not tuple or len(term) != 3:
        return None
    tag, wall, count = term
    if tag.__class__ is not Atom or tag != "timestamp" or wall.__class__ is not int or count.__class__ is not int:
        return None
    if not (0 <= wall <= MAX_WALL_MS and 0 <= count <= MAX_LOGICAL):
        return None
    return (wall << 32) | count


class Clock:
    """The clock of one node::

        stamp = clock.now(wall_ms)
        clock.update(remote, wall_ms)

    Args:
        max_ahead_ms: a remote stamp further ahead of the wall clock is not followed.
    """

    __slots__ = ("_last", "_max_ahead", "not_followed")

    def __init__(self, *, max_ahead_ms: int = MAX_AHEAD_MS) -> None:
        self._last = 0
        self._max_ahead = max_ahead_ms
        self.not_followed = 0  # stamps that ``update`` refused to follow

    @property
    def last(self) -> int:
        """The greatest stamp that was made or followed."""
        return self._last

    def now(self, wall: int) -> int:
        """A stamp greater than any before; ``wall`` in Unix milliseconds may stand still or go back."""
        floor = min(max(wall, 0), MAX_WALL_MS) << 32
        self._last = floor if floor > self._last else successor(self._last)
        return self._last

    def over(self, stamp: int, wall: int) -> int:
        """A stamp for a write that replaces an entry of ``stamp``: greater than it, wherever the clock stands."""
        self.update(stamp, wall)
        fresh = self.now(wall)
        return fresh if fresh > stamp else successor(stamp)

    def update(self, remote: int, wall: int) -> bool:
        """Follow a remote stamp; False if it is too far ahead, and the clock stays where it was."""
        if remote <= self._last:
            return True
        if remote >> 32 > wall + self._max_ahead:
            self.not_followed += 1
            return False
        self._last = remote
        return True

    def restore(self, stamp: int) -> None:
        """Never stamp below ``stamp``, one of our own that a disk or a peer remembers."""
        if stamp > self._last and stamp >> 32 <= MAX_WALL_MS:
            self._last = stamp


__all__ = [
    "CARRY_LOGICAL",
    "MAX_AHEAD_MS",
    "MAX_LOGICAL",
    "MAX_WALL_MS",
    "Clock",
    "from_term",
    "logical",
    "pack",
    "successor",
    "to_term",
    "wall_ms",
]
