"""Who is a member: every node renews a lease, and is dead when the lease has run out.

A node that merely leaves the view of another is not dead; a node whose heartbeats no longer reach anybody is, whatever
its channels look like. Each node broadcasts a heartbeat every two seconds, and each keeps the latest one of every node;
Gray and Cheriton, "Leases", SOSP 1989, without the server. Numbers, messages and the judgement are upstream's, since
who is a member decides who owns which partition, and all must decide alike:

- a heartbeat is ``#{Node => {value, {alive, EmitMs}, #{{Node, Stamp} => true}}}``, a copy ``#{Node => EmitMs}``;
- a node is a member while ``now - EmitMs <= ttl`` by the wall clock of the one who judges, so clocks must agree within
  the ttl less a few heartbeats;
- a heartbeat from further ahead than ``skew`` is refused.

It is a ``Replicated``. Its changes are ``MemberUp`` and ``MemberDown``. Departures from upstream: keys must be node
names, a heartbeat must bear the dot of the node it speaks for, and the number of members is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.crdt.entry import Entry, live_entry
from barrel_p2p.crdt.hlc import Clock
from barrel_p2p.crdt.wire import Rules, delta_term, read_entries
from barrel_p2p.proto.names import is_node_name
from barrel_p2p.proto.replicated import Applied
from barrel_p2p.term.types import Atom

HEARTBEAT_MS: Final = 2000  # upstream's member_heartbeat_ms
TTL_MS: Final = 6000  # upstream's member_ttl_ms
SKEW_MS: Final = 5000  # upstream's member_skew_ms
MAX_MEMBERS: Final = 4096  # a guess, well above what gossip of heartbeats can carry

_ALIVE: Final = Atom("alive")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Renew our lease; to be written every ``HEARTBEAT_MS`` and when a neighbour appears."""


@dataclass(frozen=True, slots=True)
class MemberUp:
    """A node has a lease now."""

    node: Atom


@dataclass(frozen=True, slots=True)
class MemberDown:
    """The lease of a node has run out."""

    node: Atom


class Leases:
    """The members that one node knows::

        applied = leases.write(Heartbeat(), wall_ms)
        leases.members()

    Args:
        node: our node name; we are a member from the start.
        clock: the node's clock, which stamps heartbeats.
        member: false for a node that only listens: it is no member, and in no copy that it gives.
    """

    def __init__(
        self,
        node: Atom,
        *,
        clock: Clock | None = None,
        ttl_ms: int = TTL_MS,
        skew_ms: int = SKEW_MS,
        max_members: int = MAX_MEMBERS,
        member: bool = True,
    ) -> None:
        self._node = node
        self._member = member
        self._clock = clock or Clock()
        self._ttl = ttl_ms
        self._skew = skew_ms
        self._max = max_members
        self._emitted: dict[Atom, int] = {}  # of the others
        self._rules = Rules(check=_check, max_key_bytes=1100, max_value_bytes=100, max_entries=max_members)

    def members(self) -> list[Atom]:
        """The members, sorted; we are one of them, unless we only listen."""
        return sorted([self._node, *self._emitted] if self._member else self._emitted)

    def alive(self, node: Atom) -> bool:
        """Whether a node is a member."""
        return node in self._emitted or (node == self._node and self._member)

    def write(self, operation: Any, wall_ms: int) -> Applied:
        """Apply a ``Heartbeat``; leases that have run out end."""
        if not isinstance(operation, Heartbeat):
            raise TypeError(f"{type(operation).__name__} is no operation of leases")
        beat = live_entry(self._node, (_ALIVE, wall_ms), self._node, self._clock.now(wall_ms))
        return Applied(changes=self._expire(wall_ms), broadcast=[delta_term([beat])])

    def merge(self, delta: Any, wall_ms: int) -> Applied:
        """Take heartbeats, or the copy of another node, whatever the term is."""
        copy: dict[Any, Any] = {}
        beats: dict[Any, Any] = {}
        if not isinstance(delta, Mapping):
            return Applied(refused={"no_map": 1})
        if len(delta) > self._max:
            return Applied(refused={"too_many": len(delta)})
        refused: dict[str, int] = {}
        for key, value in delta.items():
            if key.__class__ is not Atom or not is_node_name(key):
                refused["bad_key"] = refused.get("bad_key", 0) + 1
            elif value.__class__ is int:
                copy[key] = value
            else:
                beats[key] = value
        read = read_entries(beats, self._rules, wall_ms)
        for entry in read.entries:
            self._clock.update(entry.stamp, wall_ms)
            copy[entry.key] = entry.value[1]
        changes: list[Any] = []
        for node, emitted in copy.items():
            if emitted > wall_ms + self._skew:
                read.refuse("future")
            elif node != self._node and emitted >= wall_ms - self._ttl:
                changes += self._renew(node, emitted, read.refused)
        for reason, count in refused.items():
            read.refuse(reason, count)
        return Applied(changes=changes + self._expire(wall_ms), refused=read.refused)

    def _renew(self, node: Atom, emitted: int, refused: dict[str, int]) -> list[Any]:
        known = self._emitted.get(node)
        if known is None:
            if len(self._emitted) >= self._max:
                refused["too_many"] = refused.get("too_many", 0) + 1
                return []
            self._emitted[node] = emitted
            return [MemberUp(node)]
        if emitted > known:
            self._emitted[node] = emitted
        return []

    def _expire(self, wall_ms: int) -> list[Any]:
        dead = [node for node, emitted in self._emitted.items() if wall_ms - emitted > self._ttl]
        for node in dead:
            del self._emitted[node]
        return [MemberDown(node) for node in dead]

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        """Leases have none."""
        return Applied(refused={"unknown_broadcast": 1})

    def snapshot(self, wall_ms: int, *, python: bool) -> Iterator[Any]:
        """``#{Node => EmitMs}``; ours counts as renewed now."""
        copy = {self._node: wall_ms} if self._member else {}
        copy.update({node: ms for node, ms in self._emitted.items() if wall_ms - ms <= self._ttl})
        if copy:
            yield copy

    def tidy(self, wall_ms: int) -> Applied:
        """End leases that have run out."""
        return Applied(changes=self._expire(wall_ms))

    def comparable(self) -> None:
        """A copy is small and never older than a few seconds: it is pulled whole."""
        return None


def _check(entry: Entry) -> str | None:
    if entry.node is None:
        return "tombstone"  # a lease ends by itself
    if entry.node != entry.key or entry.more:
        return "foreign_dot"
    value = entry.value
    if value.__class__ is not tuple or len(value) != 2 or value[1].__class__ is not int:
        return "invalid_value"
    return None if value[0].__class__ is Atom and value[0] == "alive" else "invalid_value"


__all__ = ["HEARTBEAT_MS", "SKEW_MS", "TTL_MS", "Heartbeat", "Leases", "MemberDown", "MemberUp"]
