"""A last-write-wins map with dots and tombstones, which merges with its like in any order.

The name is upstream's (``ormap``), and so is the outcome of every merge; see ``entry`` for the rule. What is kept here
is the whole state of one replica: live entries, tombstones, and per bucket of keys the sum (xor) of the digests of its
live entries, so that two replicas can find out where they differ without sending all they have. Every operation costs
what it touches, never the size of the map; only ``collect``, which looks at the tombstones, and ``entries_in`` do more.

Tombstones are left out of the sums. Two replicas that show their users the same map are equal, whether or not each has
already collected a tombstone; who lacks one whose key he still has differs, and gets it. See ``seen`` for why a
collected tombstone doesn't let the removed value come back.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from barrel_p2p.crdt.entry import BUCKET_SHIFT, Entry, entry_digest, join, put_over
from barrel_p2p.crdt.hlc import successor
from barrel_p2p.crdt.keys import key_hash, term_key
from barrel_p2p.crdt.seen import Seen
from barrel_p2p.term.types import Atom

BUCKETS: Final = 1024


class Change(NamedTuple):
    """What an operation did to one key: the entry before (None if there was none) and after (None if dropped)."""

    old: Entry | None
    new: Entry | None

    @property
    def key(self) -> Any:
        entry = self.new if self.new is not None else self.old
        assert entry is not None
        return entry.key

    @property
    def put(self) -> bool:
        """Whether the key has a value now that it didn't have under this stamp before."""
        old, new = self.old, self.new
        return new is not None and new.live and (old is None or old.node != new.node or old.stamp != new.stamp)

    @property
    def removed(self) -> bool:
        """Whether the key had a value and has none any more."""
        return self.old is not None and self.old.live and not (self.new is not None and self.new.live)


@dataclass(slots=True)
class Merged:
    """The outcome of a merge.

    ``changes`` are in the order of the entries. ``revenants`` are tombstones for values that were offered although
    they are known to have been removed: whoever offered them should get these.
    """

    changes: list[Change]
    revenants: list[Entry]
    refused: int = 0  # entries of new keys, past ``max_entries``


class ORMap:
    """One replica's map::

        change = ormap.put(key, value, node, clock.over(ormap.stamp_of(key), wall))

    Args:
        max_entries: live entries and tombstones together; a merge takes no new keys past it.
    """

    __slots__ = ("_dead", "_live", "_max", "_root", "_sums")

    def __init__(self, *, max_entries: int = 1_000_000) -> None:
        self._live: dict[Hashable, Entry] = {}
        self._dead: dict[Hashable, Entry] = {}
        self._sums = [0] * BUCKETS
        self._root = 0
        self._max = max_entries

    # --- reading ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: object) -> bool:
        return term_key(key) in self._live

    def __iter__(self) -> Iterator[Any]:
        return (entry.key for entry in self._live.values())

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key."""
        entry = self._live.get(term_key(key))
        return default if entry is None else entry.value

    def items(self) -> Iterator[tuple[Any, Any]]:
        """The live pairs, oldest key first."""
        return ((entry.key, entry.value) for entry in self._live.values())

    def entry(self, key: Any) -> Entry | None:
        """The live entry or the tombstone of a key."""
        return self.find(term_key(key))

    def find(self, index: Hashable) -> Entry | None:
        """As ``entry``, for the ``term_key`` of the key."""
        return self._live.get(index) or self._dead.get(index)

    @property
    def view(self) -> Mapping[Hashable, Entry]:
        """The live entries by the ``term_key`` of their keys: always the same object, which shows every change."""
        return self._live

    def stamp_of(self, key: Any) -> int:
        """The stamp that a write of the key must exceed; 0 if there is nothing."""
        entry = self.entry(key)
        return 0 if entry is None else entry.stamp

    def live(self) -> Iterator[Entry]:
        """Every live entry."""
        return iter(self._live.values())

    def entries(self) -> Iterator[Entry]:
        """Every entry, the tombstones first: who applies them in this order shows nothing that is gone."""
        yield from self._dead.values()
        yield from self._live.values()

    @property
    def tombstones(self) -> int:
        return len(self._dead)

    # --- writing ------------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        return len(self._live) + len(self._dead) >= self._max

    def put(self, key: Any, value: Any, node: Atom, stamp: int) -> Change:
        """Put a value; ``stamp`` must exceed ``stamp_of(key)``."""
        old = self.entry(key)
        return self._store(old, put_over(old, key, value, node, stamp))

    def remove(self, key: Any, stamp: int) -> Change:
        """Remove a key, also one that isn't there: it may be on its way. ``stamp`` must exceed ``stamp_of(key)``."""
        old = self.entry(key)
        return self._store(old, Entry(key, term_key(key), None, None, stamp))

    def store(self, entry: Entry) -> Change:
        """Put an entry in the place of the one that it was made from."""
        return self._store(self.find(entry.index), entry)

    def merge(self, entries: Iterable[Entry], *, seen: Seen | None = None, oldest: int = 0) -> Merged:
        """Merge entries of another replica, in time proportional to their number.

        Args:
            entries: they must not be changed afterwards.
            seen: what this replica has seen; None accepts everything.
            oldest: tombstones of smaller stamps are not taken in for keys that have nothing to remove.
        """
        merged = Merged([], [])
        for entry in entries:
            mine = self._live.get(entry.index) or self._dead.get(entry.index)
            if mine is None or mine.node is None:
                if entry.node is not None:
                    if mine is not None and entry.stamp < mine.stamp:
                        continue
                    if seen is not None and seen.covers(entry.node, entry.stamp):
                        merged.revenants.append(Entry(entry.key, entry.index, None, None, successor(entry.stamp)))
                        continue
                elif entry.stamp < oldest:
                    continue
            if mine is None:
                if self.full:
                    merged.refused += 1
                    continue
                merged.changes.append(self._store(None, entry))
            else:
                joined = join(mine, entry)
                if joined is not mine:
                    merged.changes.append(self._store(mine, joined))
        return merged

    def collect(self, before: int, stable: int | Callable[[Entry], int], hard: int) -> list[Entry]:
        """Forget tombstones: those under ``before`` that nothing unseen can precede, and all those under ``hard``.

        Args:
            before: the stamp of the horizon.
            stable: every write below this stamp has been seen (``Seen.stable``); or a function of the tombstone.
            hard: the stamp under which tombstones go in any case.
        """
        if isinstance(stable, int):
            limit = max(min(before, stable), hard)
            old = [entry for entry in self._dead.values() if entry.stamp < limit]
        else:
            old = [e for e in self._dead.values() if e.stamp < hard or (e.stamp < before and e.stamp < stable(e))]
        for entry in old:
            del self._dead[entry.index]
        return old

    def tombstone_stamp(self, count: int) -> int:
        """The stamp under which the ``count`` oldest tombstones lie."""
        stamps = sorted(entry.stamp for entry in self._dead.values())
        return stamps[min(count, len(stamps)) - 1] + 1 if stamps else 0

    def drop(self, index: Hashable) -> Change | None:
        """Forget a live entry without a trace, here only: another replica's may come back."""
        entry = self._live.pop(index, None)
        if entry is None:
            return None
        self._toggle(entry)
        return Change(entry, None)

    def _store(self, old: Entry | None, new: Entry) -> Change:
        new.hash = key_hash(new.index) if old is None else old.hash
        if old is not None and old.node is not None:
            self._toggle(old)
            if new.node is None:
                del self._live[old.index]
        elif old is not None and new.node is not None:
            del self._dead[old.index]
        if new.node is None:
            self._dead[new.index] = new
        else:
            self._live[new.index] = new
            self._toggle(new)
        return Change(old, new)

    # --- digests ------------------------------------------------------------------------------------------------------

    def _toggle(self, entry: Entry) -> None:
        digest = entry_digest(entry)
        self._sums[entry.hash >> BUCKET_SHIFT] ^= digest
        self._root ^= digest

    @property
    def root(self) -> int:
        """64 bits that are equal for two replicas when their live entries are."""
        return self._root

    def sums(self, count: int) -> list[int]:
        """The sums of the buckets, folded into ``count`` of them (a power of two up to ``BUCKETS``)."""
        width = BUCKETS // count
        if width == 1:
            return list(self._sums)
        folded = []
        for start in range(0, BUCKETS, width):
            total = 0
            for one in self._sums[start : start + width]:
                total ^= one
            folded.append(total)
        return folded

    def entries_in(self, buckets: Container[int], count: int, *, dead: bool = True) -> list[Entry]:
        """The entries of some of ``count`` buckets, tombstones first."""
        shift = BUCKET_SHIFT + (BUCKETS // count).bit_length() - 1
        found = [entry for entry in self._dead.values() if entry.hash >> shift in buckets] if dead else []
        found += [entry for entry in self._live.values() if entry.hash >> shift in buckets]
        return found


__all__ = ["BUCKETS", "Change", "Merged", "ORMap"]
