"""One replicated map on one node: a mapping whose reads are local and whose writes reach every node that opened it.

The state that merges is ``proto.map_state``; this is its face. Reads look straight into the dict of live entries. A key
is found by its ``term_key``, which for the usual kinds costs little: an int, bytes and an Atom stand for themselves, a
str for its UTF-8 bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.crdt.entry import Entry
from barrel_p2p.crdt.keys import term_key
from barrel_p2p.crdt.ormap import Change
from barrel_p2p.crdt.wire import PART_ENTRIES
from barrel_p2p.errors import MapClosed
from barrel_p2p.node.replication import Instance, wall_ms
from barrel_p2p.process.current import current_process
from barrel_p2p.process.subscribers import Subscribers
from barrel_p2p.proto.map_state import Announce, Commit, MapState, Prune, Put, Remove
from barrel_p2p.services.map_disk import KeptMap
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, Pid, Port, Reference

EVENT: Final = Atom("barrel_p2p_map")
_PUT: Final = Atom("put")
_REMOVE: Final = Atom("remove")

#: Values that nobody can change: they need no copy.
_FIXED: Final = frozenset({int, str, bytes, Atom, float, bool, type(None), Pid, Reference, Port})


@dataclass(frozen=True, slots=True)
class MapStatistics:
    """A replicated map at one moment, on one node.

    Attributes:
        entries: Keys that have a value.
        tombstones: Removals that are remembered.
        refused: What came from other nodes and was not taken in, by reason; see ``docs/reference/maps.md``.
    """

    entries: int
    tombstones: int
    refused: dict[str, int]


class ReplicatedMap(MutableMapping[Any, Any]):
    """A map that all nodes share which opened it; ``node.maps.open`` makes one.

    ::

        m = node.maps.open("prices")
        m["apple"] = 3
        m.get("pear", 0)

    It is a dict in all but these: keys are compared as Erlang terms (``1``, ``1.0`` and ``True`` are three keys,
    ``"a"`` and ``b"a"`` are one); a value is copied when it is put and when it is read, so ``m["k"].append(1)`` changes
    nothing; what other nodes write appears while this one awaits something. The last writer of a key wins.
    """

    __hash__ = object.__hash__

    def __init__(self, name: Atom, state: MapState, codec: Codec) -> None:
        self.name = name
        self._state = state
        self._codec = codec
        self._view: Mapping[Hashable, Entry] = state.map.view
        self._subscribers = Subscribers()
        self._instance: Instance | None = None
        self._kept: KeptMap | None = None
        self._loop = asyncio.get_running_loop()
        self._unsent: dict[Hashable, None] = {}  # what was written and not told yet

    # --- reading ------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        kind = key.__class__
        if kind is str:
            index: Hashable = key.encode()
        elif kind is int or kind is Atom or kind is bytes:
            index = key
        else:
            index = term_key(key)
        try:
            value = self._view[index].value
        except KeyError:
            raise KeyError(key) from None
        return value if value.__class__ in _FIXED else self._copy(value)

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, or ``default``."""
        entry = self._view.get(term_key(key))
        if entry is None:
            self._check_open()
            return default
        return self._copy(entry.value)

    def __contains__(self, key: object) -> bool:
        return term_key(key) in self._view or self._check_open()

    def __len__(self) -> int:
        return len(self._view) or self._check_open()

    def __iter__(self) -> Iterator[Any]:
        """The keys, in the order in which this node learned of them. As with a dict, the map must not change meanwhile;
        so take ``list(m)`` where the loop awaits."""
        self._check_open()
        return (self._copy(entry.key) for entry in self._view.values())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        absent = object()
        return len(self) == len(other) and all(self.get(key, absent) == value for key, value in other.items())

    def __repr__(self) -> str:
        state = f"{len(self._view)} entries" if self._instance is not None else "closed"
        return f"<ReplicatedMap {self.name!s}, {state}>"

    # --- writing ------------------------------------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        """Set a key: on disk (if the map is kept), here, and soon on all nodes.

        Raises:
            ValueError: The validator refuses the value, the key or the value is no term (``EncodeError``) or too large,
                or the map is full.
            StoreError: The disk did not take it.
            MapClosed: The map is not open any more.
            RuntimeError: The validator itself writes to the map.

        After an error nothing has changed anywhere.
        """
        self._write(Put(self._copy(key), self._copy(value)))

    def __delitem__(self, key: Any) -> None:
        """Remove a key; KeyError if it has no value here."""
        if key not in self:
            raise KeyError(key)
        self._write(Remove(self._copy(key)))

    def discard(self, key: Any) -> None:
        """Remove a key, whether or not it has a value here: one on its way from another node is removed, too."""
        self._write(Remove(self._copy(key)))

    def popitem(self) -> tuple[Any, Any]:
        """Remove the pair that came last to this node, and return it."""
        self._check_open()
        for entry in reversed(self._view.values()):  # type: ignore[call-overload]  # it is a dict
            pair = self._copy(entry.key), self._copy(entry.value)
            self._write(Remove(entry.key))
            return pair
        raise KeyError("the map is empty")

    def clear(self) -> None:
        """Remove every key that has a value here."""
        for key in list(self):
            self._write(Remove(key))

    def _write(self, operation: Put | Remove) -> None:
        instance = self._instance
        if instance is None:
            raise MapClosed(f"the map {self.name} is closed")
        instance.check_idle()
        entry = self._state.prepare(operation, wall_ms())
        if self._kept is not None:
            self._kept.save(entry)
        instance.write(Commit(entry))
        self._unsent[entry.index] = None
        if len(self._unsent) == 1:
            self._loop.call_soon(self._announce)
        elif len(self._unsent) >= PART_ENTRIES:
            self._announce()

    def _announce(self) -> None:
        """Tell all nodes what was written in this turn of the event loop: many entries cost little more than one."""
        if self._unsent and self._instance is not None:
            unsent, self._unsent = self._unsent, {}
            self._instance.write(Announce(unsent))

    def _copy(self, term: Any) -> Any:
        return term if term.__class__ in _FIXED else self._codec.decode(self._codec.encode(term))

    # --- events -------------------------------------------------------------------------------------------------------

    def subscribe(self) -> None:
        """The current process gets ``(barrel_p2p_map, name, What)`` from now on, for writes of any node: ``(put, key,
        value)``, ``(remove, key)``.

        What is in the map already is not told; there is no gap if the map is read before the next ``await``.
        """
        self._check_open()
        self._subscribers.add(current_process())

    def unsubscribe(self) -> None:
        """The current process gets them no longer."""
        self._subscribers.remove(current_process())

    def _changed(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.put:
                assert change.new is not None
                self._tell((_PUT, self._copy(change.key), self._copy(change.new.value)))
            elif change.removed:
                self._tell((_REMOVE, self._copy(change.key)))

    def _tell(self, what: tuple[Any, ...]) -> None:
        self._subscribers.tell((EVENT, self.name, what))

    # --- life ---------------------------------------------------------------------------------------------------------

    def statistics(self) -> MapStatistics:
        """Counts of this moment."""
        self._check_open()
        assert self._instance is not None
        return MapStatistics(len(self._view), self._state.map.tombstones, self._instance.refused)

    def _opened(self, instance: Instance, kept: KeptMap | None) -> None:
        self._instance = instance
        self._kept = kept

    def _prune(self, node: Atom) -> None:
        if self._instance is not None:
            self._instance.write(Prune(node))

    def _close(self, stop: Callable[[], None]) -> None:
        self._announce()
        stop()
        self._instance = None
        self._view = _Closed()
        self._subscribers = Subscribers()
        if self._kept is not None:
            self._kept.close()

    def _check_open(self) -> bool:
        if self._instance is None:
            raise MapClosed(f"the map {self.name} is closed")
        return False


class _Closed(dict[Hashable, Entry]):
    """The view of a map that is closed: empty, and every look at a key of it says why."""

    def __missing__(self, key: Hashable) -> Entry:
        raise MapClosed("the map is closed")


__all__ = ["EVENT", "MapStatistics", "ReplicatedMap"]
