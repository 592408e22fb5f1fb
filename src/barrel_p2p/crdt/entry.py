"""One entry of a replicated map, and the rule by which two of them become one.

An entry is live (a value and its *dots*: which node wrote it, at which stamp) or a tombstone (a stamp). The last writer
wins, as upstream has it; the rule is a choice of the greater by

    stamp, then live above tombstone, then the node name, then the value's encoding

so it commutes, associates and repeats without effect. Upstream takes the incoming value where one dot carries two
values, which depends on the order; honest nodes never write that, and the last criterion settles it for the others.

Of its dots an entry keeps the greatest per node, which merges to the same winner; the winner's dot stands in the entry
itself and most entries have no other. The others only say who else wrote to the key since it was last removed.
"""

from __future__ import annotations

from collections.abc import Hashable
from hashlib import blake2b
from typing import Any, Final

from barrel_p2p.crdt.keys import canonical, term_key
from barrel_p2p.term.types import Atom

MAX_NODES: Final = 64  # whose dots an entry keeps, the greatest; a guess: more than these never share a key in practice


class Entry:
    """An entry; never changed once it is in a map.

    ``index`` is the ``term_key`` of ``key``. ``node`` and ``stamp`` are the winning dot; a tombstone has no node.
    ``more`` has the dots of other nodes, or is None. ``hash`` is set by the map that holds it.
    """

    __slots__ = ("hash", "index", "key", "more", "node", "stamp", "value")

    def __init__(
        self,
        key: Any,
        index: Hashable,
        value: Any,
        node: Atom | None,
        stamp: int,
        more: dict[Atom, int] | None = None,
    ) -> None:
        self.key = key
        self.index = index
        self.value = value
        self.node = node
        self.stamp = stamp
        self.more = more
        self.hash = 0

    @property
    def live(self) -> bool:
        return self.node is not None

    def dots(self) -> dict[Atom, int]:
        """The greatest stamp of each node that wrote the value or one that it replaced; empty for a tombstone."""
        if self.node is None:
            return {}
        return {self.node: self.stamp, **self.more} if self.more else {self.node: self.stamp}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        mine, theirs = (self.index, self.stamp, self.dots()), (other.index, other.stamp, other.dots())
        return mine == theirs and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]  # the value may be anything

    def __repr__(self) -> str:
        if self.node is None:
            return f"Tombstone({self.key!r}, {self.stamp >> 32}.{self.stamp & 0xFFFFFFFF})"
        return f"Entry({self.key!r}, {self.value!r:.80}, {self.dots()!r})"


def live_entry(key: Any, value: Any, node: Atom, stamp: int) -> Entry:
    """A value written by ``node``."""
    return Entry(key, term_key(key), value, node, stamp)


def tombstone(key: Any, stamp: int) -> Entry:
    """What removes the key's values of stamps below ``stamp``."""
    return Entry(key, term_key(key), None, None, stamp)


def join(mine: Entry, other: Entry) -> Entry:
    """The merge of two entries of one key; ``mine`` itself if nothing in it changes."""
    if mine.node is None:
        if other.node is None:
            return other if other.stamp > mine.stamp else mine
        return other if other.stamp >= mine.stamp else mine
    if other.node is None:
        return other if other.stamp > mine.stamp else mine
    if other.stamp == mine.stamp and other.node == mine.node:
        winner = other if _greater(other.value, mine.value) else mine
        if winner is mine and other.more is None:
            return mine
    else:
        winner = other if (other.stamp, other.node) > (mine.stamp, mine.node) else mine
    dots = mine.dots()
    for node, stamp in other.dots().items():
        if stamp > dots.get(node, -1):
            dots[node] = stamp
    assert winner.node is not None
    del dots[winner.node]
    more = keep_greatest(dots, MAX_NODES - 1) or None
    if winner is mine and more == mine.more:
        return mine
    return Entry(mine.key, mine.index, winner.value, winner.node, winner.stamp, more)


def put_over(mine: Entry | None, key: Any, value: Any, node: Atom, stamp: int) -> Entry:
    """The entry after ``node`` put a value with a stamp above ``mine``."""
    if mine is None:
        return live_entry(key, value, node, stamp)
    return join(mine, Entry(mine.key, mine.index, value, node, stamp))


def keep_greatest(dots: dict[Atom, int], limit: int) -> dict[Atom, int]:
    """At most ``limit`` of the dots: those of the greatest stamps."""
    if len(dots) <= limit:
        return dots
    ranked = sorted(dots.items(), key=lambda dot: (dot[1], dot[0]), reverse=True)
    return dict(ranked[:limit])


def _greater(one: Any, other: Any) -> bool:
    """Whether ``one`` wins over ``other``, both written under the same dot."""
    if one is other or (one.__class__ is other.__class__ and one == other):
        return False
    try:
        return canonical(term_key(one, 512)) > canonical(term_key(other, 512))
    except (ValueError, RecursionError):
        return False  # values that only a faulty node writes, and nested so that there is no order to be had


def entry_digest(entry: Entry) -> int:
    """64 bits that tell this version of this key from others; equal on every node.

    The upper bits are those of the key's hash (``buckets`` files entries by them); dots beside the winner's don't
    count, since they may differ between replicas that agree.
    """
    node = b"" if entry.node is None else entry.node.encode()
    data = entry.hash.to_bytes(8, "big") + entry.stamp.to_bytes(12, "big") + node
    mixed = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
    return entry.hash & _BUCKET_BITS | mixed & ~_BUCKET_BITS


BUCKET_SHIFT: Final = 54  # 64 bits of hash, the upper 10 of which number the bucket
_BUCKET_BITS: Final = 0x3FF << BUCKET_SHIFT

__all__ = [
    "BUCKET_SHIFT",
    "MAX_NODES",
    "Entry",
    "entry_digest",
    "join",
    "keep_greatest",
    "live_entry",
    "put_over",
    "tombstone",
]
