"""What a replica has seen of each writer, so that what was removed stays removed after its tombstone is collected.

A tombstone can't be kept for ever. Once it is collected, a replica that was away since before the removal offers the
old value, and a last-write-wins map can't tell it from a new one. So each replica keeps a vector: for a writer N a span
of stamps that promises

    every write of N stamped within the span has found its way into my map: it is there, or replaced, or removed.

A value (N, s) for a key that the map doesn't have, although s lies in the span, was removed; it is refused, and whoever
offers it gets a tombstone. This is the version vector of the optimised OR-set (Bieniusa et al., "An Optimized
Conflict-free Replicated Set", INRIA RR-8083, 2012), with stamps where it has counters. Stamps have gaps, so hearing of
s does not prove that nothing before it is missing. Two facts prove it:

- a writer has seen all its own writes since it started (or since its first start, if it keeps them on disk);
- when two replicas are found equal, what one has seen the other has seen too: they take the union of each span. Of
  two spans with a gap between them the later one is kept, for what a node wrote before it lost its memory may be
  unknown to itself.

A tombstone is *stable* when the span of every known writer has passed it: any value it could remove has been seen, so
it may be collected. A writer that fell silent, one that started a short while ago, and an Erlang node, which doesn't
tell what it has seen, hold this up; hence the second, hard horizon, past which tombstones go in any case, and a writer
that was not heard of since then is waited for no longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from barrel_p2p.term.types import Atom

MAX_WRITERS: Final = 4096  # names; a guess, well above the nodes of a cluster. Past it the longest silent are forgotten
FORGOTTEN: Final = MAX_WRITERS // 8  # so many at once: to look for each alone lets a message of many names take minutes

Span = tuple[int, int]  # from and to, both included
NOTHING: Final[Span] = (0, -1)


class Seen:
    """The vector of one replica."""

    __slots__ = ("_heard", "_spans")

    def __init__(self) -> None:
        self._spans: dict[Atom, Span] = {}
        self._heard: dict[Atom, int] = {}  # of the same nodes: the greatest stamp at which each is known to have lived

    def covers(self, node: Atom, stamp: int) -> bool:
        """Whether the write is known to have been in the map."""
        span = self._spans.get(node)
        return span is not None and span[0] <= stamp <= span[1]

    def meet(self, node: Atom, stamp: int) -> None:
        """A writer lived at ``stamp``; what it wrote need not have been seen."""
        if node not in self._spans:
            self.advance(node, *NOTHING)
        if stamp > self._heard[node]:
            self._heard[node] = stamp

    def advance(self, node: Atom, since: int, until: int) -> None:
        """Every write of ``node`` stamped from ``since`` to ``until`` is in the map."""
        mine = self._spans.get(node)
        if mine is None:
            if len(self._spans) >= MAX_WRITERS:
                for oldest in sorted(self._heard, key=lambda name: (self._heard[name], name))[:FORGOTTEN]:
                    del self._spans[oldest], self._heard[oldest]
        elif since <= mine[1] and mine[0] <= until:
            since, until = min(since, mine[0]), max(until, mine[1])
        elif until <= mine[1]:
            return
        self._spans[node] = (since, until)
        self._heard[node] = max(until, self._heard.get(node, 0))

    def forget(self, node: Atom) -> None:
        """Entries of ``node`` were dropped without a tombstone: they are to be let in again."""
        if node in self._spans:
            self._spans[node] = NOTHING

    def stable(self, hard: int) -> int:
        """The stamp below which the writes of every writer heard of since ``hard`` have been seen, back to ``hard``."""
        return min((self.until(node, hard) for node, heard in self._heard.items() if heard >= hard), default=0)

    def until(self, node: Atom, hard: int) -> int:
        """As ``stable``, for one writer, whenever it was heard of."""
        since, until = self._spans.get(node, NOTHING)
        return until if since <= hard else -1

    def items(self) -> Iterator[tuple[Atom, Span, int]]:
        """Each writer with its span, which may be ``NOTHING``, and when it was last heard of."""
        return ((node, span, self._heard[node]) for node, span in self._spans.items())

    def __len__(self) -> int:
        return len(self._spans)


__all__ = ["MAX_WRITERS", "NOTHING", "Seen", "Span"]
