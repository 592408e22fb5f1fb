"""The state of a replicated map on one node: the map, its clock, what it has seen, and the rules of what it lets in.

It is a ``Replicated``: ``proto.replica`` drives it. Operations are ``Put``, ``Remove`` and ``Prune``; and ``Commit``,
for who wants a write on disk before anybody sees it (``prepare`` makes the entry and changes nothing yet), followed by
``Announce``, for who tells the others of many writes at once.

The life of a tombstone: for ``tombstone_ttl_ms`` it is kept in any case. Then it is collected as soon as it is stable,
that is as soon as no value that it would have to remove can still be under way (see ``crdt.seen``); at the latest after
``HARD_HORIZONS`` times that, or when there are more than a quarter of ``max_entries``. Times are compared with our wall
clock; a stamp is a wall time, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from barrel_p2p.crdt.entry import BUCKET_SHIFT, Entry, entry_digest, put_over, tombstone
from barrel_p2p.crdt.hlc import Clock, from_term, pack, successor, to_term
from barrel_p2p.crdt.ormap import Change, ORMap
from barrel_p2p.crdt.seen import MAX_WRITERS, NOTHING, Seen, Span
from barrel_p2p.crdt.wire import Rules, delta_parts, delta_term, fits, read_entries
from barrel_p2p.proto.replicated import Applied
from barrel_p2p.term.codec import encode
from barrel_p2p.term.types import Atom

TOMBSTONE_TTL_MS: Final = 3_600_000  # upstream's barrel_p2p_map_tombstone_ttl_ms
HARD_HORIZONS: Final = 24  # a day by default; a guess: who was away for longer is rare
MARGIN_MS: Final = 3_600_000  # within what others refuse as too far ahead; a guess: their clocks may be behind ours
NO_DOTS: Final[Mapping[Atom, int]] = {}
MAX_RAISED: Final = 16  # times that others may make us put again what we have put; a guess: one for each that knows
YOUNG_MS: Final = 3_600_000  # after its start a node may have to; a guess: by then it has met somebody who knows
MAX_YOUNG: Final = 10_000  # keys; a guess
MAX_ENTRIES: Final = 1_000_000  # a guess: some 300 MB with small keys and values


@dataclass(frozen=True, slots=True)
class Put:
    """Set a key."""

    key: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a key; also one that isn't there, since its value may be on the way."""

    key: Any


@dataclass(frozen=True, slots=True)
class Prune:
    """Forget the entries that only ``node`` wrote, here and without a tombstone: copies elsewhere may come back."""

    node: Atom


@dataclass(frozen=True, slots=True)
class Commit:
    """Take in an entry of ``MapState.prepare``; nothing was written to its key since, and a disk has it if need be.
    Nobody is told yet."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Announce:
    """Broadcast what stands under some keys by now; ``indices`` are their ``term_key``."""

    indices: Iterable[Hashable]


class MapState:
    """A map that merges::

        applied = state.write(Put("key", 1), wall_ms)

    Args:
        node: our node name, which signs what we write.
        wall_ms: the time now, in Unix milliseconds.
        clock: the node's clock; all maps of a node may share one.
        validator: whether a value may stand in the map; asked for ours and for those that come in.
        rules: what else is checked in what comes in; its ``check`` is asked after the validator.
        tombstone_ttl_ms: how long a removal is remembered, at least.
        max_entries: live entries and tombstones together.
        writer: the only node that ever puts a key, where there is one; then a tombstone need only wait for that node.
    """

    def __init__(
        self,
        node: Atom,
        wall_ms: int,
        *,
        clock: Clock | None = None,
        validator: Callable[[Any], bool] | None = None,
        rules: Rules | None = None,
        tombstone_ttl_ms: int = TOMBSTONE_TTL_MS,
        max_entries: int = MAX_ENTRIES,
        writer: Callable[[Any], Atom] | None = None,
    ) -> None:
        self.node = node
        self.clock = clock or Clock()
        self.map = ORMap(max_entries=max_entries)
        self.seen = Seen()
        self._validator = validator
        self._inner_check = None if rules is None else rules.check
        self._rules = replace(rules or Rules(), check=self._check)
        self._writer = writer
        self._ttl = tombstone_ttl_ms
        self._max_tombstones = max(max_entries // 4, 1)
        self._begun_ms = wall_ms
        self._since = self.clock.now(wall_ms)  # we have seen all our writes from here on
        self._claimed = self._since  # the latest stamp up to which others may take our writes for seen
        self._latest = self._since  # the greatest stamp of a write of ours that we know of
        self._floor = 0  # up to this stamp others have seen writes of ours that we have forgotten; our next is above
        self._young: dict[Hashable, None] = {}  # what we put since we began, which may have to be put again above it
        self._raised = 0
        self.seen.advance(node, self._since, self._since)

    # --- writes -------------------------------------------------------------------------------------------------------

    def write(self, operation: Any, wall_ms: int) -> Applied:
        """Apply a ``Put``, ``Remove``, ``Commit``, ``Announce`` or ``Prune``.

        Raises:
            ValueError: the key or the value is no term, the value is not valid, one is too large, or the map is full.
        """
        if isinstance(operation, Commit):
            return Applied(changes=[self.map.store(operation.entry)])
        if isinstance(operation, Announce):
            found = [self.map.find(index) for index in operation.indices]
            return Applied(broadcast=list(delta_parts([entry for entry in found if entry is not None])))
        if isinstance(operation, (Put, Remove)):
            change = self.map.store(self.prepare(operation, wall_ms))
            return self._written(change)
        if isinstance(operation, Prune):
            return self._prune(operation.node)
        raise TypeError(f"{type(operation).__name__} is no operation of a map")

    def put(self, key: Any, value: Any, wall_ms: int) -> Applied:
        """As ``write(Put(key, value), wall_ms)``."""
        return self.write(Put(key, value), wall_ms)

    def remove(self, key: Any, wall_ms: int) -> Applied:
        """As ``write(Remove(key), wall_ms)``."""
        return self.write(Remove(key), wall_ms)

    def prepare(self, operation: Put | Remove, wall_ms: int) -> Entry:
        """The entry that a write makes; it raises as ``write`` does."""
        key = operation.key
        if not fits(key, self._rules.max_key_bytes):
            raise ValueError(f"a key of more than {self._rules.max_key_bytes} bytes")
        if isinstance(operation, Remove):
            return tombstone(key, self.stamp_over(self.map.stamp_of(key), wall_ms))
        value = operation.value
        try:
            valid = self._validator is None or self._validator(value) is True
        except Exception as error:  # the user's, given what it never expected
            raise ValueError(f"the map's validator failed on the value: {error!r:.200}") from error
        if not valid:
            raise ValueError("the map's validator refuses the value")
        if len(encode(value)) > self._rules.max_value_bytes:
            raise ValueError(f"a value of more than {self._rules.max_value_bytes} bytes")
        old = self.map.entry(key)
        if old is None and self.map.full:
            raise ValueError("the map is full")
        stamp = self.stamp_over(0 if old is None else old.stamp, wall_ms)
        entry = put_over(old, key, value, self.node, stamp)
        if wall_ms - self._begun_ms >= YOUNG_MS:
            self._young.clear()
        elif len(self._young) < MAX_YOUNG:
            self._young[entry.index] = None
        return entry

    def stamp_over(self, stamp: int, wall_ms: int) -> int:
        """A stamp for a write of ours that replaces an entry of ``stamp``."""
        fresh = self.clock.over(stamp, wall_ms)
        if fresh <= self._floor:
            fresh = self._floor = successor(self._floor)
        elif self.clock.last > self._floor:
            self._floor = 0
        self._latest = max(self._latest, fresh)
        return fresh

    def _written(self, change: Change) -> Applied:
        assert change.new is not None
        delta = delta_term([change.new])
        return Applied(changes=[change], broadcast=[delta], merged=[delta])

    def _prune(self, node: Atom) -> Applied:
        return self.drop([entry for entry in self.map.live() if entry.node == node and not entry.more], node)

    def drop(self, entries: Iterable[Entry], node: Atom) -> Applied:
        """Forget entries of one writer without a trace."""
        changes = [change for change in [self.map.drop(entry.index) for entry in entries] if change is not None]
        if node != self.node:
            self.seen.forget(node)
        return Applied(changes=changes, dropped=bool(changes), forgotten=[change.key for change in changes])

    # --- merges -------------------------------------------------------------------------------------------------------

    def merge(self, delta: Any, wall_ms: int) -> Applied:
        """Merge a delta of another node, whatever it is."""
        read = read_entries(delta, self._rules, wall_ms)
        forgotten = 0
        for entry in read.entries:
            self.clock.update(entry.stamp, wall_ms)
            if entry.node is not None:
                self.seen.meet(entry.node, entry.stamp)
                for node, stamp in (entry.more or {}).items():
                    self.seen.meet(node, stamp)
                own = entry.stamp if entry.node == self.node else (entry.more or NO_DOTS).get(self.node, 0)
                forgotten = max(forgotten, own)
        again = self._remember(forgotten, wall_ms) if forgotten > self._latest else Applied()
        merged = self.map.merge(read.entries, seen=self.seen, oldest=pack(max(wall_ms - self._ttl, 0)))
        if merged.refused:
            read.refuse("full", merged.refused)
        applied = Applied(
            changes=merged.changes, refused=read.refused, broadcast=again.broadcast, merged=list(again.broadcast)
        )
        if merged.revenants:
            read.refuse("removed_before", len(merged.revenants))
            applied.answers = list(delta_parts(merged.revenants))
        if merged.changes:
            applied.merged.append(delta_term([change.new for change in merged.changes if change.new is not None]))
        return applied

    def _remember(self, stamp: int, wall_ms: int) -> Applied:
        """``stamp`` is of a write of ours from before we lost our memory: we have not seen all up to there."""
        self._latest = stamp
        beyond = pack((stamp >> 32) + 1)
        self._since = max(self._since, beyond)
        self.seen.forget(self.node)
        return self._raise_floor(beyond, wall_ms)

    def _raise_floor(self, stamp: int, wall_ms: int) -> Applied:
        """Stamp above what others know of ours, and put again what we have put below that.

        The clock is not set to it: anybody can tell of us, and it stamps for all maps of this node.
        """
        stamp = min(stamp, self._highest_floor(wall_ms))
        if stamp <= self._floor:
            return Applied()
        self._floor = stamp
        found = [entry for entry in map(self.map.find, self._young) if entry is not None]
        below = [entry for entry in found if entry.node == self.node and entry.stamp <= stamp]
        if not below or self._raised >= MAX_RAISED:
            return Applied()
        self._raised += 1
        again = [
            put_over(entry, entry.key, entry.value, self.node, self.stamp_over(entry.stamp, wall_ms)) for entry in below
        ]
        for entry in again:
            self.map.store(entry)
        parts = list(delta_parts(again))
        return Applied(broadcast=parts, merged=list(parts))

    def _highest_floor(self, wall_ms: int) -> int:
        """Anybody can say what we wrote once; what we write above it must be taken in by clocks behind ours."""
        return pack(wall_ms + self._rules.max_ahead_ms - MARGIN_MS)

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        """Maps have none."""
        return Applied(refused={"unknown_broadcast": 1})

    def _check(self, entry: Entry) -> str | None:
        if entry.node is not None and self._validator is not None and self._validator(entry.value) is not True:
            return "invalid_value"
        return None if self._inner_check is None else self._inner_check(entry)

    def restore(self, deltas: Iterable[Any], testimony: Any, wall_ms: int) -> dict[str, int]:
        """Take back what a disk kept: ``merged`` deltas, and the last ``testimony`` from before or with them.

        A testimony is only given if every write since then was persisted. Returns what was refused, by reason.
        """
        refused: dict[str, int] = {}
        rules = Rules(max_ahead_ms=1 << 48, max_value_bytes=1 << 62, max_key_bytes=1 << 62)
        for delta in deltas:
            read = read_entries(delta, rules, wall_ms)
            self.map.merge(read.entries)
            for entry in read.entries:
                own = entry.dots().get(self.node)
                if own is not None:
                    self.clock.restore(own)
                    self._latest = max(self._latest, own)
                self.clock.update(entry.stamp, wall_ms)
                for node, stamp in entry.dots().items():
                    self.seen.meet(node, stamp)
            for reason, count in read.refused.items():
                refused[reason] = refused.get(reason, 0) + count
        for node, span, heard in _spans(testimony, wall_ms):
            if node == self.node and span != NOTHING:
                self._since = min(self._since, span[0])
                self._floor = max(self._floor, span[1])
                self._claimed = max(self._claimed, span[1])
            self.seen.advance(node, *span)
            self.seen.meet(node, heard)
        if max(self.clock.last, self._floor) >= self._since:
            self.seen.advance(self.node, self._since, max(self.clock.last, self._floor))
        return refused

    # --- keeping, comparing -------------------------------------------------------------------------------------------

    def tidy(self, wall_ms: int) -> Applied:
        """Collect tombstones."""
        self._advance(wall_ms)
        hard = pack(max(wall_ms - HARD_HORIZONS * self._ttl, 0))
        everyone = self.seen.stable(hard)
        excess = self.map.tombstones - self._max_tombstones
        if excess > 0:
            hard = max(hard, self.map.tombstone_stamp(excess + self._max_tombstones // 10))
        writer, until = self._writer, self.seen.until
        stable = everyone if writer is None else lambda entry: until(writer(entry.key), hard)
        collected = self.map.collect(pack(max(wall_ms - self._ttl, 0)), stable, hard)
        return Applied(forgotten=[entry.key for entry in collected])

    def snapshot(self, wall_ms: int, *, python: bool) -> Iterator[Any]:
        """All entries, tombstones too."""
        return delta_parts(list(self.map.entries()))

    def comparable(self) -> MapState:
        return self

    def root(self) -> bytes:
        return self.map.root.to_bytes(8, "big")

    def size(self) -> int:
        return len(self.map) + self.map.tombstones

    def sums(self, count: int) -> list[int]:
        return self.map.sums(count)

    def versions(self, buckets: Collection[int], count: int) -> dict[int, Any]:
        return {entry_digest(entry): entry for entry in self.map.entries_in(buckets, count)}

    def bucket_of(self, version: int, count: int) -> int:
        return version >> BUCKET_SHIFT + 10 - count.bit_length() + 1

    def deltas(self, parts: Iterable[Any]) -> Iterator[Any]:
        return delta_parts(parts)

    def meet(self, node: Atom, wall_ms: int) -> None:
        self.seen.meet(node, pack(wall_ms))

    def testimony(self, wall_ms: int) -> Any:
        """``#{Node => {Heard, From, To}}``, three timestamps; ``{Heard}`` for a writer of whom nothing was seen."""
        self._advance(wall_ms)
        return {
            node: (to_term(heard),) if span == NOTHING else (to_term(heard), to_term(span[0]), to_term(span[1]))
            for node, span, heard in self.seen.items()
        }

    def heed(self, testimony: Any, wall_ms: int) -> Applied:
        """Somebody may have seen writes of ours with later stamps than we would make now: we lost our memory, and our
        clock went back since. To it, what we write below are old writes that were removed."""
        latest = wall_ms + self._rules.max_ahead_ms
        told = max((span[1] for node, span, _ in _spans(testimony, latest) if node == self.node), default=0)
        if told <= self._claimed:
            return Applied()
        told = pack((told >> 32) + 1)  # stamps above a floor hardly grow: what followed it is in that millisecond
        self._since = max(self._since, told)  # of what we wrote up to there we may have forgotten some
        return self._raise_floor(told, wall_ms)

    def believe(self, testimony: Any, wall_ms: int) -> None:
        for node, span, heard in _spans(testimony, wall_ms + self._rules.max_ahead_ms):
            if node != self.node:  # ours was heeded
                self.seen.advance(node, *span)
                self.seen.meet(node, heard)

    def _advance(self, wall_ms: int) -> None:
        """Whatever we write from now on is stamped above this: all that is below has been seen."""
        until = max(self.clock.now(wall_ms), self._floor)
        self._claimed = max(self._claimed, until)
        if until >= self._since:
            self.seen.advance(self.node, self._since, until)
        else:
            self.seen.meet(self.node, until)


def _spans(testimony: Any, latest_ms: int) -> Iterator[tuple[Atom, Span, int]]:
    """The writers of a testimony; what is wrong in it is left out."""
    if not isinstance(testimony, Mapping) or len(testimony) > MAX_WRITERS:
        return
    for node, terms in testimony.items():
        if node.__class__ is not Atom or terms.__class__ is not tuple or len(terms) not in (1, 3):
            continue
        stamps = [from_term(term) for term in terms]
        if all(stamp is not None and stamp >> 32 <= latest_ms for stamp in stamps):
            heard, *span = stamps
            yield node, (span[0], span[1]) if span else NOTHING, heard  # type: ignore[misc]  # none is None


__all__ = [
    "HARD_HORIZONS",
    "MAX_ENTRIES",
    "TOMBSTONE_TTL_MS",
    "Announce",
    "Commit",
    "MapState",
    "Prune",
    "Put",
    "Remove",
]
