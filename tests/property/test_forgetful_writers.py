"""A node that forgot what it wrote, and whose clock is earlier than before: what it writes now is new, and stays.

The others have seen its writes up to a time that is still to come, by its clock. What bears an earlier stamp is to them
an old write that was removed.
"""

from __future__ import annotations

import pytest

from barrel_p2p.proto.map_state import MapState, Put
from barrel_p2p.proto.replica import TESTIMONY_S, Replica
from barrel_p2p.proto.replica_events import PeerDown, WriteAsked
from barrel_p2p.term.types import Atom
from harness.replicas import World

HOUR_MS = 3_600_000


class Restarts(World):
    """All that is sent arrives; nodes restart without a disk."""

    def __init__(self, seed: int, nodes: int) -> None:
        super().__init__(seed, nodes=nodes, lossy=0, doubled=0)
        self.expected: dict[str, str] = {}

    def put(self, name: Atom, key: str) -> None:
        self.wall += 10
        value = f"{key} of {name}"
        self.tell(name, WriteAsked(Put(key, value)))
        self.expected[key] = value

    def meet_again(self) -> None:
        """All compare, and testify."""
        for _ in range(2):
            self.now += TESTIMONY_S + 1
            self.heal()

    def stop(self, name: Atom) -> None:
        self.drain()
        for other in self.names:
            if (name, other) in self.links:
                self.links -= {(name, other), (other, name)}
                self.tell(other, PeerDown(name))

    def start(self, name: Atom, *, ahead_ms: int) -> None:
        self.skew[name] = ahead_ms
        self.states[name] = MapState(name, self.time(name))
        self.replicas[name] = Replica(name, self.states[name], rng=self.rng)

    def join_one_by_one(self, name: Atom, key: str) -> None:
        for number, other in enumerate(self.rng.sample(self.names, len(self.names))):
            if other != name and (name, other) not in self.links:
                self.join(name, other)
                if self.rng.random() < 0.5:
                    self.drain()
                if self.rng.random() < 0.2:
                    self.put(name, f"{key}.{number}")
        self.drain()


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(40))
def test_what_a_forgetful_node_writes_stays_although_its_clock_went_back(seed: int, nodes: int) -> None:
    world = Restarts(seed, nodes)
    forgetful = world.rng.choice(world.names)
    for restart in range(3):
        world.stop(forgetful)
        world.wall += world.rng.choice([1000, 60_000])
        world.start(forgetful, ahead_ms=world.rng.choice([0, 10_000, HOUR_MS, 5 * HOUR_MS, 20 * HOUR_MS]))
        world.wall += world.rng.choice([0, 5000])
        if world.rng.random() < 0.5:
            world.put(forgetful, f"at start {restart}")
        world.join_one_by_one(forgetful, f"joining {restart}")
        for count in range(3):
            world.put(forgetful, f"soon {restart}.{count}")
        world.drain()
        if world.rng.random() < 0.7:
            world.meet_again()
        world.put(forgetful, f"later {restart}")
        world.put(world.rng.choice(world.names), f"of any {restart}")
        world.drain()
    world.meet_again()
    for name, state in world.states.items():
        assert dict(state.map.items()) == world.expected, name
