"""The service registry of one node: what each node offers, who may say so, and whose word still counts.

A replicated map of ``{Name, Node} => {service_entry, Name, Pid, Node, Meta}``, as upstream has it; operations and
events are in ``registry_events``. It is a ``Replicated``.

Who may write what. A node offers services in its own name only: key, value and all dots must name the same node, else
the entry is refused. A tombstone names nobody, and may come from anybody: it answers an old copy (``crdt.seen``). About
our own services we know best: a tombstone or another value for one that we offer is overruled by a newer write, and an
entry in our name that we don't have is left over from before our last start and gets a tombstone.

Whose entries count. Those of a node whose lease has run out are *hidden*: not found, but kept, so that they are back at
once when the node is. After ``KEEP_DEAD_MS`` they are dropped, and refused until the node is back, when it is asked for
them. A node that never had a lease is given ``PATIENCE_MS`` to show one. Leaving the view, for which upstream drops a
node's services, means nothing here.

Erlang nodes are sent our services and those of nodes that live: what they once have of a dead node they keep.

Why a service ended. A tombstone doesn't tell. When its process died, the delta carries the reason in one part more,
``{'$down', '$reason'} => {'$down', Reason}``, which Erlang nodes leave out because it is no entry. Who hears of the end
by a comparison of copies instead is told ``ServiceUnregistered``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Final

from barrel_p2p.crdt.entry import Entry
from barrel_p2p.crdt.hlc import Clock
from barrel_p2p.crdt.keys import term_key
from barrel_p2p.crdt.ormap import Change
from barrel_p2p.crdt.wire import Rules, delta_parts, fits
from barrel_p2p.errors import EncodeError, NameTaken
from barrel_p2p.proto.map_state import MapState
from barrel_p2p.proto.registry_events import (
    NodeAlive,
    NodeDead,
    ProcessDown,
    Register,
    Service,
    ServiceDown,
    ServiceRegistered,
    ServiceUnregistered,
    Unregister,
)
from barrel_p2p.proto.replicated import Applied
from barrel_p2p.term.codec import encode
from barrel_p2p.term.types import Atom, Pid

PATIENCE_MS: Final = 20_000  # a guess: ten heartbeats
KEEP_DEAD_MS: Final = 3_600_000  # a guess: longer than most partitions and restarts
MAX_GONE: Final = 4096  # dead nodes whose entries were dropped; a guess. Past it the first is forgotten.
MAX_SERVICES: Final = 200_000  # of all nodes, with tombstones; a guess: 20 times the largest cluster we know of
MAX_OVERRULED: Final = 1000  # of our services, in one go of ``tidy``: two nodes of one name must not fight for ever

MAX_REASON: Final = 1024  # bytes of an exit reason that other nodes are told, roughly; a guess
REASON_KEY: Final = (Atom("$down"), Atom("$reason"))

SERVICE_ENTRY: Final = Atom("service_entry")
NODEDOWN: Final = Atom("nodedown")
UNKNOWN: Final = Atom("unknown")

_Disputed = tuple[Any, int]  # a name of ours and the stamp to write above


class RegistryState:
    """The registry as one node knows it::

        applied = registry.write(Register("db", pid, {"shard": 1}), wall_ms)
        registry.lookup("db")

    Args:
        node: our node name.
        wall_ms: the time now, in Unix milliseconds.
        clock: the node's clock.
    """

    def __init__(
        self, node: Atom, wall_ms: int, *, clock: Clock | None = None, max_services: int = MAX_SERVICES
    ) -> None:
        self._node = node
        rules = Rules(check=self._check, max_value_bytes=1 << 16)
        self._state = MapState(node, wall_ms, clock=clock, rules=rules, max_entries=max_services, writer=_writer)
        self._nodes_of: dict[Hashable, dict[Atom, Entry]] = {}  # term_key of a name -> node -> entry
        self._services_of: dict[Atom, dict[Hashable, Entry]] = {}  # node -> term_key of a name -> entry
        self._alive: dict[Atom, None] = {node: None}
        self._awaited: dict[Atom, int] = {}  # nodes without a lease so far, and until when they count
        self._hidden: dict[Atom, int] = {}  # and since when
        self._gone: dict[Atom, None] = {}  # nodes whose entries were dropped
        self._disputed: list[_Disputed] = []
        self._overruled = 0

    # --- looking up ---------------------------------------------------------------------------------------------------

    def lookup(self, name: Any) -> list[Service]:
        """The services of a name: ours first, then by node name; none of nodes known to be dead."""
        found = self._nodes_of.get(term_key(name))
        if not found:
            return []
        shown = [node for node in found if node not in self._hidden]
        shown.sort(key=lambda node: (node != self._node, node))
        return [_service(found[node]) for node in shown]

    def lookup_local(self, name: Any) -> Service | None:
        """Our service of that name."""
        entry = self._nodes_of.get(term_key(name), {}).get(self._node)
        return None if entry is None else _service(entry)

    def keys_of(self, node: Atom) -> list[Hashable]:
        """The keys (``term_key``) of the names that a node offers."""
        return list(self._services_of.get(node, ()))

    def names(self) -> list[Any]:
        """The names of all services that ``lookup`` finds."""
        return [
            next(iter(found.values())).key[0]
            for found in self._nodes_of.values()
            if any(node not in self._hidden for node in found)
        ]

    def __len__(self) -> int:
        return len(self._state.map)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, operation: Any, wall_ms: int) -> Applied:
        """Apply one of the operations of ``registry_events``.

        Raises:
            NameTaken: this node has a service of that name.
            ValueError: the name is no ``Atom``, ``str`` or bytes, ``meta`` no mapping, or something is too large.
        """
        if isinstance(operation, Register):
            return self._register(operation, wall_ms)
        if isinstance(operation, Unregister):
            return self._end(operation.name, ServiceUnregistered(operation.name, self._node), wall_ms)
        if isinstance(operation, ProcessDown):
            applied = self._end(operation.name, ServiceDown(operation.name, self._node, operation.reason), wall_ms)
            applied.broadcast = [_with_reason(delta, operation.reason) for delta in applied.broadcast]
            return applied
        if isinstance(operation, NodeAlive):
            return self._node_alive(operation.node)
        if isinstance(operation, NodeDead):
            return Applied(changes=self._hide(operation.node, wall_ms))
        raise TypeError(f"{type(operation).__name__} is no operation of the registry")

    def _register(self, operation: Register, wall_ms: int) -> Applied:
        name, pid, meta = operation.name, operation.pid, operation.meta
        if not isinstance(name, (Atom, str, bytes)) or not isinstance(pid, Pid) or not isinstance(meta, Mapping):
            raise ValueError("a service needs an Atom, str or bytes as name, a Pid, and a mapping as meta")
        if self.lookup_local(name) is not None:
            raise NameTaken(f"this node has a service {name!r}")
        applied = self._state.put((name, self._node), (SERVICE_ENTRY, name, pid, self._node, meta), wall_ms)
        applied.changes = self._indexed(applied.changes, wall_ms)
        return applied

    def _end(self, name: Any, event: Any, wall_ms: int) -> Applied:
        if self.lookup_local(name) is None:
            return Applied()
        applied = self._state.remove((name, self._node), wall_ms)
        self._indexed(applied.changes, wall_ms)
        applied.changes = [event]
        return applied

    # --- merging ------------------------------------------------------------------------------------------------------

    def merge(self, delta: Any, wall_ms: int) -> Applied:
        """Merge what another node knows, whatever the term is."""
        self._disputed = []
        delta, reason = _without_reason(delta)
        applied = self._state.merge(delta, wall_ms)
        applied.changes = self._indexed(applied.changes, wall_ms)
        if reason is not None:
            applied.changes = [
                ServiceDown(event.name, event.node, reason[0]) if isinstance(event, ServiceUnregistered) else event
                for event in applied.changes
            ]
        for name, stamp in self._disputed:
            if self._overruled >= MAX_OVERRULED:
                break
            self._overruled += 1
            self._overrule(name, stamp, applied, wall_ms)
        return applied

    def _overrule(self, name: Any, stamp: int, applied: Applied, wall_ms: int) -> None:
        """Write our own word about a name of ours above ``stamp``; users see no change."""
        key = (name, self._node)
        mine = self._state.map.entry(key)
        over = stamp if mine is None else max(mine.stamp, stamp)
        fresh = self._state.stamp_over(over, wall_ms)
        if mine is not None and mine.live:
            change = self._state.map.put(key, mine.value, self._node, fresh)
        else:
            change = self._state.map.remove(key, fresh)
        self._indexed([change], wall_ms)
        assert change.new is not None
        delta = next(delta_parts([change.new]))
        applied.broadcast.append(delta)
        applied.merged.append(delta)

    def _check(self, entry: Entry) -> str | None:
        key, value = entry.key, entry.value
        if key.__class__ is not tuple or len(key) != 2 or key[1].__class__ is not Atom:
            return "bad_key"
        name, node = key
        if name.__class__ not in (Atom, bytes, str):
            return "bad_key"
        if node == self._node:
            return self._check_ours(entry, name)
        if entry.node is None:
            return None
        if value.__class__ is not tuple or len(value) != 5 or value[0].__class__ is not Atom:
            return "invalid_value"
        if value[0] != "service_entry" or value[2].__class__ is not Pid or not isinstance(value[4], Mapping):
            return "invalid_value"
        if value[3].__class__ is not Atom or value[3] != node or term_key(value[1]) != term_key(name):
            return "invalid_value"
        if entry.node != node or entry.more:
            return "foreign_dot"
        return "dead_node" if node in self._gone else None

    def _check_ours(self, entry: Entry, name: Any) -> str | None:
        """An entry in our name: an echo, a removal that we know, or something to be overruled."""
        mine = self._state.map.find(entry.index)
        if mine is not None:
            if entry.stamp < mine.stamp and not entry.more:
                # Another node's would lose but leave its dot beside ours, and such an entry is refused elsewhere.
                return None if entry.node is None or entry.node == self._node else "foreign_dot"
            if entry.stamp == mine.stamp and entry.node == mine.node and entry.value == mine.value and not entry.more:
                return None
        if entry.node is None and (mine is None or mine.node is None):
            return None
        self._disputed.append((name, entry.stamp))
        return "own_entry"

    def _indexed(self, changes: list[Change], wall_ms: int) -> list[Any]:
        """Bring the indexes up to date; the events that the changes mean."""
        events: list[Any] = []
        for change in changes:
            name, node = change.key
            index = term_key(name)
            new = change.new
            if new is not None and new.node is not None:
                self._nodes_of.setdefault(index, {})[node] = new
                self._services_of.setdefault(node, {})[index] = new
                if node not in self._alive and node not in self._hidden:
                    self._awaited.setdefault(node, wall_ms + PATIENCE_MS)
                old = change.old.value if change.old is not None else None
                if node not in self._hidden and old != new.value:
                    events.append(ServiceRegistered(name, node))
            elif change.removed:
                self._unindex(index, node)
                if node not in self._hidden:
                    events.append(ServiceUnregistered(name, node))
        return events

    def _unindex(self, index: Hashable, node: Atom) -> None:
        for table, outer, inner in ((self._nodes_of, index, node), (self._services_of, node, index)):
            table[outer].pop(inner, None)  # type: ignore[index, call-overload]
            if not table[outer]:  # type: ignore[index]
                del table[outer]  # type: ignore[arg-type]

    # --- the life of nodes --------------------------------------------------------------------------------------------

    def _node_alive(self, node: Atom) -> Applied:
        self._alive[node] = None
        self._awaited.pop(node, None)
        applied = Applied()
        if self._hidden.pop(node, None) is not None:
            applied.changes = [ServiceRegistered(e.key[0], node) for e in self._services_of.get(node, {}).values()]
        if node in self._gone:
            del self._gone[node]
            applied.ask = [node]
        return applied

    def _hide(self, node: Atom, wall_ms: int) -> list[Any]:
        if node == self._node or node in self._hidden:
            return []
        self._alive.pop(node, None)
        self._awaited.pop(node, None)
        services = self._services_of.get(node)
        if not services:
            return []  # should entries come later, it is awaited
        self._hidden[node] = wall_ms
        return [ServiceDown(entry.key[0], node, NODEDOWN) for entry in services.values()]

    def tidy(self, wall_ms: int) -> Applied:
        """Collect tombstones, hide nodes that never showed a lease, drop those that were dead for long."""
        self._overruled = 0
        applied = self._state.tidy(wall_ms)
        for node in [node for node, until in self._awaited.items() if wall_ms >= until]:
            applied.changes += self._hide(node, wall_ms)
        for node in [node for node, since in self._hidden.items() if wall_ms - since >= KEEP_DEAD_MS]:
            entries = self._services_of.pop(node, {})
            for index in entries:
                self._nodes_of[index].pop(node, None)
                if not self._nodes_of[index]:
                    del self._nodes_of[index]
            dropped = self._state.drop(entries.values(), node)
            applied.dropped = applied.dropped or dropped.dropped
            del self._hidden[node]
            self._gone[node] = None
            if len(self._gone) > MAX_GONE:
                del self._gone[next(iter(self._gone))]
        return applied

    # --- copies -------------------------------------------------------------------------------------------------------

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        """The registry has none."""
        return self._state.merge_custom(term, wall_ms)

    def snapshot(self, wall_ms: int, *, python: bool) -> Iterator[Any]:
        """All entries for a Python node; those of living nodes for an Erlang one."""
        if python:
            return self._state.snapshot(wall_ms, python=True)
        return delta_parts([entry for entry in self._state.map.entries() if entry.key[1] in self._alive])

    def comparable(self) -> MapState:
        """The map beneath."""
        return self._state


def _writer(key: Any) -> Atom:
    return key[1]  # type: ignore[no-any-return]


def _with_reason(delta: Mapping[Any, Any], reason: Any) -> Mapping[Any, Any]:
    try:
        told = reason if fits(reason, MAX_REASON) and encode(reason) else UNKNOWN
    except EncodeError:  # a Python object that is no term
        told = UNKNOWN
    return {**delta, REASON_KEY: (REASON_KEY[0], told)}


def _without_reason(delta: Any) -> tuple[Any, tuple[Any] | None]:
    """The delta, and the reason that it carries, if it is the end of one service."""
    if delta.__class__ is not dict or len(delta) != 2:
        return delta, None
    part = delta.get(REASON_KEY)
    if part.__class__ is not tuple or len(part) != 2 or part[0] != REASON_KEY[0] or not fits(part[1], 4 * MAX_REASON):
        return delta, None
    return {key: entry for key, entry in delta.items() if key != REASON_KEY}, (part[1],)


def _service(entry: Entry) -> Service:
    _, name, pid, node, meta = entry.value
    return Service(name, pid, node, meta)


__all__ = ["KEEP_DEAD_MS", "PATIENCE_MS", "RegistryState"]
