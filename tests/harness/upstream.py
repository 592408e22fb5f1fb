"""A model of a replica on an Erlang node: upstream's rules and messages, in their simplest form.

It keeps entries as terms and every dot, takes the incoming value where one dot carries two, answers ``request_sync``
only if something lives, and writes with two stamps, of which it broadcasts the second. It keeps its tombstones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from barrel_p2p.crdt.keys import term_key, term_map
from barrel_p2p.term.types import Atom

VALUE, TOMBSTONE, TIMESTAMP = Atom("value"), Atom("tombstone"), Atom("timestamp")


class Upstream:
    """One replica; ``broadcasts`` and ``sends`` collect what it says."""

    def __init__(self, name: Atom) -> None:
        self.name = name
        self.entries: dict[Any, tuple[Any, Any]] = {}  # term_key -> key, entry
        self.clock = (0, 0)
        self.broadcasts: list[Any] = []
        self.sends: list[tuple[Atom, Any]] = []

    def stamp(self, wall: int) -> Any:
        self.clock = (wall, 0) if wall > self.clock[0] else (self.clock[0], self.clock[1] + 1)
        return (TIMESTAMP, *self.clock)

    def put(self, key: Any, value: Any, wall: int) -> None:
        for _ in range(2):
            delta = term_map([(key, (VALUE, value, {(self.name, self.stamp(wall)): True}))])
            self.merge(delta)
        self.broadcasts.append((Atom("delta"), self.name, delta))

    def remove(self, key: Any, wall: int) -> None:
        delta = term_map([(key, (TOMBSTONE, self.stamp(wall)))])
        self.merge(delta)
        self.broadcasts.append((Atom("delta"), self.name, delta))

    def merge(self, delta: Any) -> None:
        for key, entry in delta.items():
            for stamp in [entry[1]] if len(entry) == 2 else [dot[1] for dot in entry[2]]:
                self.clock = max(self.clock, stamp[1:])
            mine = self.entries.get(term_key(key))
            self.entries[term_key(key)] = (key, entry if mine is None else joined(mine[1], entry))

    def message(self, message: Any) -> None:
        if message[0] == "full_sync":
            self.merge(message[2])
        elif message[0] == "request_sync" and any(len(entry) == 3 for _, entry in self.entries.values()):
            self.sends.append((message[1], (Atom("full_sync"), self.name, self.snapshot())))

    def snapshot(self) -> Mapping[Any, Any]:
        return term_map(list(self.entries.values()))

    def live(self) -> Iterator[tuple[Any, Any]]:
        return ((key, entry[1]) for key, entry in self.entries.values() if len(entry) == 3)


def joined(one: Any, other: Any) -> Any:
    if len(one) == 2 and len(other) == 2:
        return max(one, other, key=lambda entry: entry[1])
    if len(one) == 3 and len(other) == 3:
        value = other[1] if greatest(other) >= greatest(one) else one[1]
        return (VALUE, value, {**one[2], **other[2]})
    tomb, live = (one, other) if len(one) == 2 else (other, one)
    return tomb if tomb[1] > greatest(live)[0] else live


def greatest(entry: Any) -> Any:
    return max((stamp, node) for node, stamp in entry[2])
