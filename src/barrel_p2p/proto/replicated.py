"""What a data type must offer to be replicated: a user's own CRDT as well as the maps of this library.

The least is a state whose deltas merge in any order, any number of times (``Replicated``). A type that can also say
where two copies differ (``Comparable``) is compared by digests between Python nodes, so that equal copies exchange a
few bytes and others only what they lack; without, copies are pulled whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from barrel_p2p.term.types import Atom


@dataclass(slots=True)
class Applied:
    """What came of a write or a merge.

    Args:
        changes: what the user is told, in order.
        broadcast: deltas that all nodes must hear of.
        custom: terms that go to all nodes beside the deltas, as ``{custom, Node, Term}``.
        answers: deltas for whoever offered what was merged: it is out of date.
        ask: nodes to be asked for their whole state.
        dropped: parts were dropped here without a trace that other copies could see.
        merged: deltas that bring a copy on disk up to date.
        forgotten: keys, or whatever names a part, of what is gone here and can go from a copy on disk.
        refused: how many parts of the input were refused, by reason.
    """

    changes: list[Any] = field(default_factory=list)
    broadcast: list[Any] = field(default_factory=list)
    custom: list[Any] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    ask: list[Atom] = field(default_factory=list)
    dropped: bool = False
    merged: list[Any] = field(default_factory=list)
    forgotten: list[Any] = field(default_factory=list)
    refused: Mapping[str, int] = field(default_factory=dict)


class Comparable(Protocol):
    """Where two copies differ, asked in three steps: a root, sums of buckets, versions in a bucket.

    A version is 64 bits that stand for one part of the state in one revision; ``count`` (a power of two from 1 to 1024)
    is into how many buckets all parts are filed.
    """

    def root(self) -> bytes:
        """At most 16 bytes that are equal for two copies when these are."""
        ...

    def size(self) -> int:
        """About how many parts there are."""
        ...

    def sums(self, count: int) -> list[int]:
        """64 bits for each bucket, equal when its parts are; 0 for an empty one."""
        ...

    def versions(self, buckets: Collection[int], count: int) -> dict[int, Any]:
        """The parts in some buckets by version; what they are is known to ``deltas`` alone."""
        ...

    def bucket_of(self, version: int, count: int) -> int:
        """The bucket of a version."""
        ...

    def deltas(self, parts: Iterable[Any]) -> Iterator[Any]:
        """Parts as deltas of a moderate size each."""
        ...

    def meet(self, node: Atom, wall_ms: int) -> None:
        """``node`` lives, and may write."""
        ...

    def testimony(self, wall_ms: int) -> Any:
        """A term that tells an equal copy what this one has seen; None if there is nothing to tell."""
        ...

    def heed(self, testimony: Any, wall_ms: int) -> Applied:
        """Another replica testifies, equal or not: what it says of *us* may be more than we remember."""
        ...

    def believe(self, testimony: Any, wall_ms: int) -> None:
        """Take over what an equal copy has seen; the term may be anything."""
        ...


class Replicated(Protocol):
    """A state that merges; ``wall_ms`` is Unix milliseconds. Nothing that comes from other nodes may raise."""

    def write(self, operation: Any, wall_ms: int) -> Applied:
        """Apply a write of the user's; what it raises reaches the user, and then nothing has changed."""
        ...

    def merge(self, delta: Any, wall_ms: int) -> Applied:
        """Merge a delta, or a part of a copy, that another node sent."""
        ...

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        """Take a ``{custom, ...}`` broadcast."""
        ...

    def snapshot(self, wall_ms: int, *, python: bool) -> Iterator[Any]:
        """The whole state as deltas, for a Python node or an Erlang one."""
        ...

    def tidy(self, wall_ms: int) -> Applied:
        """Called every few seconds: forget what is old."""
        ...

    def comparable(self) -> Comparable | None:
        """None: copies of this type can't be compared and are pulled whole."""
        ...


__all__ = ["Applied", "Comparable", "Replicated"]
