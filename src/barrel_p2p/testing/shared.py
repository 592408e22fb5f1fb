"""What one member of a simulated cluster has beside the overlay, and how large its tables may get.

Bounds that a real node has as options are small here, so that a day is enough to reach them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from barrel_p2p.crdt import hlc, seen
from barrel_p2p.node.lives import OURS, UPSTREAMS
from barrel_p2p.proto import outflows, retiring, routing
from barrel_p2p.proto.hyparview_config import HyParViewConfig
from barrel_p2p.proto.leases import Leases
from barrel_p2p.proto.map_state import MapState
from barrel_p2p.proto.node_leases import NodeLeases
from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.proto.registry_state import MAX_GONE, RegistryState
from barrel_p2p.proto.replica import Replica
from barrel_p2p.proto.replicated import Replicated
from barrel_p2p.services.maps import PREFIX
from barrel_p2p.services.registry import REPLICA as REGISTRY
from barrel_p2p.term.types import Atom, Pid, Reference

WALL_MS: Final = 1_795_337_344_000  # Unix time at the beginning
SKEW_MS: Final = 200  # that a wall clock is wrong at most
SHARED: Final = Atom(f"{PREFIX}shared")  # a map with room for all
TIGHT: Final = Atom(f"{PREFIX}tight")  # a map that is full soon
SHARED_ENTRIES: Final = 20_000
TIGHT_ENTRIES: Final = 100
LEASE_MS: Final = 30_000
MAX_NODES: Final = 256  # that have a lease: fewer than the names that a malicious member makes up
MAX_SERVICES: Final = 5000
INSTANCES: Final = (SHARED, TIGHT, REGISTRY, OURS, UPSTREAMS)
ANSWERS: Final = Atom("answers")  # a real node has a process for the answers of searches, without a name
KEYS: Final = tuple(range(16))  # of the shared map, which users write
REWRITTEN_S: Final = 300  # between two writes of each of them


@dataclass(slots=True)
class Shared:
    """What one member has of it all."""

    pid: Pid
    skew: int
    clock: hlc.Clock
    leases: NodeLeases
    members: Leases
    registry: RegistryState
    maps: dict[Atom, MapState]
    routing: routing.Routing
    retiring: retiring.Retiring
    replicas: dict[Atom, Replica] = field(default_factory=dict)
    alive: dict[Atom, None] = field(default_factory=dict)
    held: dict[str, list[tuple[Atom, Any]]] = field(default_factory=dict)  # back, for channels that are being closed
    asks: dict[Reference, int] = field(default_factory=dict)
    refs: dict[int, Reference] = field(default_factory=dict)
    numbers: int = 0

    def state(self, name: Atom) -> Replicated:
        """What the instance of that name replicates."""
        states: dict[Atom, Replicated] = {OURS: self.leases, UPSTREAMS: self.members, REGISTRY: self.registry}
        return states[name] if name in states else self.maps[name]

    @classmethod
    def make(cls, node: Atom, number: int, skew: int, wall_ms: int, rng: Random) -> Shared:
        """Of a new member, the ``number``th, whose wall clock is wrong by ``skew`` and shows ``wall_ms``."""
        clock = hlc.Clock()
        return cls(
            pid=Pid(node, 1, 0, number + 1),
            skew=skew,
            clock=clock,
            leases=NodeLeases(node, lease_ms=LEASE_MS, max_nodes=MAX_NODES),
            members=Leases(node, clock=clock, member=False, max_members=MAX_NODES),
            registry=RegistryState(node, wall_ms, clock=clock, max_services=MAX_SERVICES),
            maps={
                SHARED: MapState(node, wall_ms, clock=clock, max_entries=SHARED_ENTRIES),
                TIGHT: MapState(node, wall_ms, clock=clock, max_entries=TIGHT_ENTRIES),
            },
            routing=routing.Routing(node, rng=rng),
            retiring=retiring.Retiring(),
        )


def bounds_of_overlay(view: HyParViewConfig, tree: PlumtreeConfig) -> dict[str, int]:
    """The most that the tables of the overlay may hold, as ``docs/reference/limits.md`` has it, by their paths."""
    return {
        "hyparview._active": view.active_size,
        "hyparview._passive.names": view.passive_size,
        "hyparview._passive._faults": view.passive_size,
        "hyparview._pending": 3 * view.active_size,
        "plumtree._eager": view.active_size + tree.max_strangers,
        "plumtree._lazy": view.active_size + tree.max_strangers,
        "plumtree._missing": tree.max_missing,
        "plumtree._cache.seen": tree.max_ids,
        "plumtree._cache._gossips": tree.max_cached,
    }


def bounds_of_services() -> dict[str, int]:
    """Likewise, of what nodes share."""
    tables = {
        "shared.leases._leases": MAX_NODES,
        "shared.leases._near": MAX_NODES + 1,
        "shared.leases._news": MAX_NODES + 1,
        "shared.members._emitted": MAX_NODES,
        "shared.routing._searches": routing.MAX_SEARCHES + len(KEYS),
        "shared.alive": 2 * MAX_NODES,
        "shared.registry._alive": 2 * MAX_NODES + 1,
    }
    for name in (SHARED, TIGHT, REGISTRY, OURS, UPSTREAMS):
        flows = f"shared.replicas[{name}]._outflows._outflows"
        tables[flows] = outflows.MAX_OUTFLOWS
        tables[f"{flows}[].queue"] = outflows.MAX_QUEUED
    for path in (f"shared.maps[{SHARED}]", f"shared.maps[{TIGHT}]", "shared.registry._state"):
        tables[f"{path}.seen._spans"] = tables[f"{path}.seen._heard"] = seen.MAX_WRITERS
    for name, most in ((SHARED, SHARED_ENTRIES), (TIGHT, TIGHT_ENTRIES)):
        tables[f"shared.maps[{name}].map._live"] = tables[f"shared.maps[{name}].map._dead"] = most
    for path in ("_state.map._live", "_state.map._dead", "_nodes_of", "_services_of", "_awaited", "_hidden"):
        tables[f"shared.registry.{path}"] = MAX_SERVICES
    return {**tables, "shared.registry._gone": MAX_GONE}


def service_of(node: str) -> Atom:
    """The name of the service that a node offers."""
    return Atom(f"service of {node}")
