"""What a replica has seen of each writer, so that what was removed stays removed after its tombstone is collected.

A tombstone can't be kept for ever. Once it is collected, a replica that was away since before the removal offers the
old value, and a last-write-wins map can't tell it from a new one. So each replica keeps a vector: for a writer N a
stamp S that promises

    every write of N up to S has found its way into my map: it is there, or replaced, or removed.

A value (N, s) for a key that the map doesn't have, although s <= S, was removed; it is refused, and whoever offers it
gets a tombstone. This is the version vector of the optimised OR-set (Bieniusa et al., "An Optimized Conflict-free
Replicated Set", INRIA RR-8083, 2012), with stamps where it has counters. Stamps have gaps, so hearing S does not prove
that nothing before it is missing. Two facts do:

- a writer has seen all its own writes;
- when two replicas are found equal, what one has seen the other has seen too: they take the greater of each.

A tombstone is *stable* when the stamp of every known writer has passed it: any value it could remove has been seen, so
it may be collected. A writer that is gone, or an Erlang node, which doesn't tell how far it is, holds this up; hence
the second, hard horizon, past which tombstones go in any case, and with them the promise for what was never seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from barrel_p2p.term.types import Atom

MAX_WRITERS: Final = 4096  # names; a guess, well above the nodes of a cluster. Past it the oldest stamp is forgotten.


class Seen:
    """The vector of one replica."""

    __slots__ = ("_stamps",)

    def __init__(self) -> None:
        self._stamps: dict[Atom, int] = {}

    def covers(self, node: Atom, stamp: int) -> bool:
        """Whether the write is known to have been in the map."""
        return stamp <= self._stamps.get(node, -1)

    def meet(self, node: Atom) -> None:
        """A writer exists: until more is known, nothing of it has been seen."""
        if node not in self._stamps:
            self._advance(node, 0)

    def advance(self, node: Atom, stamp: int) -> None:
        """Every write of ``node`` up to ``stamp`` is in the map."""
        if stamp > self._stamps.get(node, -1):
            self._advance(node, stamp)

    def forget(self, node: Atom) -> None:
        """Entries of ``node`` were dropped without a tombstone: they are to be let in again."""
        self._stamps.pop(node, None)

    def stable(self) -> int:
        """The stamp below which every known writer's writes have been seen."""
        return min(self._stamps.values(), default=0)

    def items(self) -> Iterator[tuple[Atom, int]]:
        return iter(self._stamps.items())

    def __len__(self) -> int:
        return len(self._stamps)

    def _advance(self, node: Atom, stamp: int) -> None:
        if node not in self._stamps and len(self._stamps) >= MAX_WRITERS:
            del self._stamps[min(self._stamps, key=lambda name: (self._stamps[name], name))]
        self._stamps[node] = stamp


__all__ = ["MAX_WRITERS", "Seen"]
