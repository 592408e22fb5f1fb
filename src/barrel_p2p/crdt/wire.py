"""Entries and maps of entries as terms, and the check of those that come from other nodes.

Upstream's shapes: a delta and a whole state are both ``#{Key => Entry}``; an entry is ``{value, V, #{Dot => true}}``
with at least one dot ``{Node, {timestamp, W, L}}``, or ``{tombstone, {timestamp, W, L}}``.

What comes in is checked entry by entry, and nothing in it raises: a bad entry is refused under a reason that is
counted, the others count. Beyond upstream's check of the shape, whose holes stop its nodes, this looks at the numbers
in the stamps, at sizes, and at keys and writers, where the instance has a rule for them (``Rules.check``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from barrel_p2p.crdt.entry import MAX_NODES, Entry, keep_greatest
from barrel_p2p.crdt.hlc import from_term, to_term
from barrel_p2p.crdt.keys import term_key, term_map
from barrel_p2p.term.types import Atom, BitString, Fun, ImproperList

VALUE: Final = Atom("value")
TOMBSTONE: Final = Atom("tombstone")

MAX_AHEAD_MS: Final = 86_400_000  # a day: what is stamped later than that by our clock is refused; a guess
PART_ENTRIES: Final = 1000  # of one message of a sync; a guess: a few milliseconds of work for who reads it
PART_BYTES: Final = 1 << 18  # of one message, roughly; one large value may exceed it


@dataclass(frozen=True, slots=True)
class Rules:
    """What one instance takes in.

    Args:
        check: looks at an entry whose shape is right; a short reason refuses it. An exception refuses it too.
        max_ahead_ms: entries stamped later than this after our wall clock are refused.
        max_key_bytes, max_value_bytes: roughly, as terms.
        max_entries: of one message; those behind are refused.
    """

    check: Callable[[Entry], str | None] | None = None
    max_ahead_ms: int = MAX_AHEAD_MS
    max_key_bytes: int = 4096
    max_value_bytes: int = 1 << 20
    max_entries: int = 1 << 20


@dataclass(slots=True)
class Read:
    """The entries of a message that passed, and how many were refused for which reason."""

    entries: list[Entry] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str, count: int = 1) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + count


def read_entries(term: Any, rules: Rules, wall_ms: int) -> Read:
    """The entries of a map that another node sent; whatever the term is, this returns."""
    read = Read()
    if not isinstance(term, Mapping):
        read.refuse("no_map")
        return read
    latest = wall_ms + rules.max_ahead_ms
    entries = read.entries
    for count, (key, shape) in enumerate(term.items()):
        if count >= rules.max_entries:
            read.refuse("too_many", len(term) - count)
            break
        try:
            entry = _entry(key, shape, rules, latest)
        except (ValueError, RecursionError):
            entry = "bad_key"
        if entry.__class__ is str:
            read.refuse(entry)
        else:
            entries.append(entry)  # type: ignore[arg-type]  # mypy doesn't narrow by class
    return read


def _entry(key: Any, shape: Any, rules: Rules, latest: int) -> Entry | str:
    """The entry, or why it is refused."""
    if shape.__class__ is not tuple:
        return "bad_shape"
    index = term_key(key)
    value: Any = None
    node: Atom | None = None
    more: dict[Atom, int] | None = None
    if len(shape) == 3 and shape[0].__class__ is Atom and shape[0] == "value":
        value = shape[1]
        dots = _dots(shape[2])
        if dots is None:
            return "bad_dots"
        stamp, node = max((stamp, node) for node, stamp in dots.items())
        if len(dots) > 1:
            del dots[node]
            more = keep_greatest(dots, MAX_NODES - 1)
        if not fits(value, rules.max_value_bytes):
            return "value_too_large"
    elif len(shape) == 2 and shape[0].__class__ is Atom and shape[0] == "tombstone":
        read = from_term(shape[1])
        if read is None:
            return "bad_stamp"
        stamp = read
    else:
        return "bad_shape"
    if stamp >> 32 > latest:
        return "future"
    if not fits(key, rules.max_key_bytes):
        return "key_too_large"
    entry = Entry(key, index, value, node, stamp, more)
    if rules.check is not None:
        try:
            reason = rules.check(entry)
        except Exception:  # a validator of the user's, given what it never expected
            reason = "check_failed"
        if reason is not None:
            return reason
    return entry


def _dots(term: Any) -> dict[Atom, int] | None:
    """The greatest stamp of each node; None if one is wrong. Upstream keeps every dot, and sends them all."""
    if not isinstance(term, Mapping) or not term:
        return None
    dots: dict[Atom, int] = {}
    for dot in term:
        if dot.__class__ is not tuple or len(dot) != 2 or dot[0].__class__ is not Atom:
            return None
        stamp = from_term(dot[1])
        if stamp is None:
            return None
        node = dot[0]
        if stamp > dots.get(node, -1):
            dots[node] = stamp
    return dots


def fits(term: Any, limit: int) -> bool:
    """Whether a term takes at most about ``limit`` bytes."""
    return weigh(term, limit) <= limit


def weigh(term: Any, limit: int) -> int:
    """About how many bytes a term takes; past ``limit`` it is not looked at any further."""
    left = limit
    todo = [term]
    while todo and left >= 0:
        term = todo.pop()
        kind = term.__class__
        if kind is bytes or kind is str or kind is Atom:
            left -= len(term) + 5
        elif kind is int:
            left -= 5 + (term.bit_length() >> 3)
        elif kind is tuple or kind is list:
            left -= 5 + len(term)
            if left >= 0:
                todo.extend(term)
        elif isinstance(term, Mapping):
            left -= 5 + 2 * len(term)
            if left >= 0:
                todo.extend(term.keys())
                todo.extend(term.values())
        elif kind is ImproperList:
            left -= 5 + len(term.elements)
            if left >= 0:
                todo.extend(term.elements)
                todo.append(term.tail)
        elif kind is Fun or kind is BitString:
            left -= 5 + len(term.data)
        else:
            left -= 9
    return limit - left


def entry_term(entry: Entry) -> tuple[Any, ...]:
    """An entry as other nodes read it."""
    if entry.node is None:
        return (TOMBSTONE, to_term(entry.stamp))
    if entry.more is None:
        return (VALUE, entry.value, {(entry.node, to_term(entry.stamp)): True})
    return (VALUE, entry.value, {(node, to_term(stamp)): True for node, stamp in entry.dots().items()})


def delta_term(entries: Iterable[Entry]) -> Mapping[Any, Any]:
    """Entries of different keys as a delta, or as a part of a full sync."""
    return term_map([(entry.key, entry_term(entry)) for entry in entries])


def delta_parts(entries: Iterable[Entry]) -> Iterator[Mapping[Any, Any]]:
    """Entries of different keys as deltas of a moderate size each."""
    part: list[Entry] = []
    left = PART_BYTES
    for entry in entries:
        part.append(entry)
        left -= 80 + weigh(entry.key, PART_BYTES) + weigh(entry.value, PART_BYTES)
        if left <= 0 or len(part) >= PART_ENTRIES:
            yield delta_term(part)
            part = []
            left = PART_BYTES
    if part:
        yield delta_term(part)


__all__ = [
    "MAX_AHEAD_MS",
    "PART_BYTES",
    "PART_ENTRIES",
    "Read",
    "Rules",
    "delta_parts",
    "delta_term",
    "entry_term",
    "fits",
    "read_entries",
    "weigh",
]
