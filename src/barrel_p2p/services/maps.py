"""``node.maps``: the replicated maps that a node has opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from barrel_p2p.crdt.wire import Rules
from barrel_p2p.disk.checkpoints import Checkpoints
from barrel_p2p.disk.store import delete_files
from barrel_p2p.errors import ConfigError
from barrel_p2p.node.replication import Replication, wall_ms
from barrel_p2p.proto.map_state import MAX_ENTRIES, TOMBSTONE_TTL_MS, MapState
from barrel_p2p.proto.registry_events import NodeAlive, NodeDead
from barrel_p2p.services.map import ReplicatedMap
from barrel_p2p.services.map_disk import KeptMap
from barrel_p2p.term.types import Atom

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node

PREFIX: Final = "barrel_p2p_map_replica$"  # upstream's, of the replica's name
ANTI_ENTROPY_MS: Final = 30_000  # upstream's
MAX_VALUE_BYTES: Final = 1 << 20  # a guess: each value travels through every node whole

Validator = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class _Options:
    validator: Validator | None
    persist: bool
    prune_on_peer_down: bool
    tombstone_ttl_ms: int
    anti_entropy_ms: int
    max_entries: int
    max_value_bytes: int

    def __post_init__(self) -> None:
        if self.validator is not None and not callable(self.validator):  # else each write would be refused later
            raise ConfigError(f"validator must be a function of a value, not {self.validator!r}", "validator")
        for name in ("persist", "prune_on_peer_down"):
            if getattr(self, name).__class__ is not bool:
                raise ConfigError(f"{name} must be True or False, not {getattr(self, name)!r}", name)
        for name in ("tombstone_ttl_ms", "max_entries", "max_value_bytes"):
            value = getattr(self, name)
            if value.__class__ is not int or value <= 0:
                raise ConfigError(f"{name} must be a whole number above 0, not {value!r}", name)
        if self.anti_entropy_ms.__class__ is not int or self.anti_entropy_ms < 0:
            raise ConfigError(
                f"anti_entropy_ms must be a whole number, 0 for never, not {self.anti_entropy_ms!r}", "anti_entropy_ms"
            )


class Maps:
    """``node.maps``: maps that all nodes share which open them, Erlang nodes among them.

    ::

        prices = node.maps.open("prices")
        prices["apple"] = 3
    """

    def __init__(self, node: Node, replication: Replication, directory: Path) -> None:
        self._node = node.name
        self._replication = replication
        self._directory = directory
        self._codec = node.options.codec(exact_empty_str=True)
        self._checkpoints = Checkpoints()
        self._open: dict[Atom, tuple[ReplicatedMap, _Options]] = {}
        node.overlay.lives.watch(self._life_changed)

    def open(
        self,
        name: str,
        *,
        validator: Validator | None = None,
        persist: bool = False,
        prune_on_peer_down: bool = False,
        tombstone_ttl_ms: int = TOMBSTONE_TTL_MS,
        anti_entropy_ms: int = ANTI_ENTROPY_MS,
        max_entries: int = MAX_ENTRIES,
        max_value_bytes: int = MAX_VALUE_BYTES,
    ) -> ReplicatedMap:
        """Open a map on this node. It is there at once, with what is on disk; what other nodes have comes by itself.

        ::

            sessions = node.maps.open("sessions", persist=True, validator=lambda value: isinstance(value, dict))

        A map that is open is returned as it is.

        Args:
            name: An atom on the wire; nodes that open the same name share the map. At most 232 characters.
            validator: Whether a value may stand in the map: called with each value, of ours and of other nodes; only
                True lets it in. It must be quick and always say the same.
            persist: Keep the map on disk, in ``data_dir/maps``: a write that returned survives the death of the
                process.
            prune_on_peer_down: When a node is dead (its lease ends), forget here the keys that only it wrote. The
                copies on other nodes stay, unless these do the same.
            tombstone_ttl_ms: How long a removal is remembered at least (upstream's default: an hour).
            anti_entropy_ms: Time between two comparisons with some neighbour, give or take a quarter; 0: never
                (upstream's default: 30 s).
            max_entries: Keys and remembered removals together; past it new keys are refused.
            max_value_bytes: Largest value, encoded.

        Raises:
            ConfigError: The name or an option can't be used, the map is open with other options, or its file can't be
                opened.
        """
        atom = _map_name(name)
        options = _Options(
            validator, persist, prune_on_peer_down, tombstone_ttl_ms, anti_entropy_ms, max_entries, max_value_bytes
        )
        known = self._open.get(atom)
        if known is not None:
            if options not in (known[1], _DEFAULTS):
                raise ConfigError(f"the map {atom} is open with other options: close it first")
            return known[0]
        state = MapState(
            self._node,
            wall_ms(),
            clock=self._replication.clock,
            validator=validator,
            rules=Rules(max_value_bytes=max_value_bytes, max_entries=max_entries),
            tombstone_ttl_ms=tombstone_ttl_ms,
            max_entries=max_entries,
        )
        opened = ReplicatedMap(atom, state, self._codec)
        kept = None
        if persist:
            kept = KeptMap(self._path(atom), state, self._codec, self._checkpoints)
            try:
                kept.load()
            except BaseException:
                kept.close()
                raise
        instance = self._replication.open(
            Atom(PREFIX + atom),
            state,
            notify=opened._changed,
            persist=None if kept is None else kept.merged,
            forget=None if kept is None else kept.forget,
            anti_entropy_s=anti_entropy_ms / 1000,
        )
        opened._opened(instance, kept)
        self._open[atom] = opened, options
        return opened

    def close(self, name: str) -> None:
        """Close a map here: it is replicated no longer, and forgotten if it isn't kept on disk. Other nodes go on.

        Nothing happens if it is not open.
        """
        known = self._open.pop(_map_name(name), None)
        if known is not None:
            known[0]._close(lambda: self._replication.close(Atom(PREFIX + known[0].name)))

    def delete(self, name: str) -> bool:
        """Close a map here and delete its file; False if there was none.

        The keys are not removed from the map: other nodes keep them, and bring them back when it is opened again.
        """
        self.close(name)
        return delete_files(self._path(_map_name(name)))

    def names(self) -> list[Atom]:
        """The maps that are open on this node."""
        return list(self._open)

    def _life_changed(self, what: NodeAlive | NodeDead) -> None:
        """A node is dead: maps with ``prune_on_peer_down`` forget what only it wrote."""
        if isinstance(what, NodeDead):
            for opened, options in list(self._open.values()):
                if options.prune_on_peer_down:
                    opened._prune(what.node)

    def stop(self) -> None:
        """The node stops."""
        for name in self.names():
            self.close(name)
        self._checkpoints.stop()

    def _path(self, name: Atom) -> Path:
        safe = quote(name, safe="")
        if len(safe) > 200:  # a file name has at most 255 bytes
            safe = f"{safe[:100]}-{sha256(name.encode()).hexdigest()}"
        return self._directory / f"{safe}.db"


def _map_name(name: str) -> Atom:
    if not isinstance(name, str) or not 0 < len(name) <= 255 - len(PREFIX):
        raise ConfigError(f"the name of a map is a text of 1 to {255 - len(PREFIX)} characters, not {name!r:.300}")
    return Atom(name)


_DEFAULTS: Final = _Options(None, False, False, TOMBSTONE_TTL_MS, ANTI_ENTROPY_MS, MAX_ENTRIES, MAX_VALUE_BYTES)

__all__ = ["Maps"]
