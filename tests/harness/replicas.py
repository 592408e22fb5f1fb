"""A few replicas of one map and a network between them that loses, doubles, reorders and splits.

Everything follows from a seed. ``World.run`` plays a schedule, heals the network, lets the replicas compare and checks
that all are equal and hold, for each key, what was written last: no write is lost and none comes back.
"""

from __future__ import annotations

import random
from typing import Any

from barrel_p2p.proto.map_state import HARD_HORIZONS, MapState, Put, Remove
from barrel_p2p.proto.replica import Replica
from barrel_p2p.proto.replica_events import (
    AwaitDrain,
    Broadcast,
    BroadcastReceived,
    DirectReceived,
    Drained,
    Fact,
    PeerDown,
    PeerUp,
    SendTo,
    TimerFired,
    WriteAsked,
)
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom

TTL_MS = 1000
KEYS: list[Any] = [1, 1.0, True, "k", Atom("k"), (1, [2.0])]


class World:
    """``nodes`` replicas; ``lossy`` of 100 messages vanish; of 100 messages ``doubled`` come twice."""

    def __init__(self, seed: int, *, nodes: int = 3, lossy: int = 20, doubled: int = 10, steps: int = 120) -> None:
        self.rng = random.Random(seed)
        self.wall = 1_795_337_344_000
        self.steps, self.lossy, self.doubled = steps, lossy, doubled
        self.names = [Atom(f"n{number}@h") for number in range(nodes)]
        self.skew = {name: self.rng.randrange(-100, 100) for name in self.names}
        self.states: dict[Atom, MapState] = {}
        self.replicas: dict[Atom, Replica] = {}
        self.collected = 0
        self.story: list[str] = []
        self.wire: list[tuple[Atom, Fact, str]] = []
        self.links: set[tuple[Atom, Atom]] = set()
        self.writes: dict[int, list[tuple[int, bool, str, Any]]] = {number: [] for number in range(len(KEYS))}
        for name in self.names:
            self.states[name] = MapState(name, self.time(name), tombstone_ttl_ms=TTL_MS)
            self.replicas[name] = Replica(name, self.states[name], rng=self.rng)
        self.wall += HARD_HORIZONS * TTL_MS + 1000  # by now nobody is too young to be believed
        self.begun = self.wall
        self.now = 0.0
        for one in self.names:  # a removal waits for those one has heard of; all have
            for other in self.names:
                if one < other:
                    self.join(one, other)

    def time(self, name: Atom) -> int:
        return self.wall + self.skew[name]

    def tell(self, name: Atom, fact: Fact) -> None:
        if isinstance(fact, (BroadcastReceived, DirectReceived)):
            fact = decode_fact(fact)
        for order in self.replicas[name].handle(fact, now=self.now, wall_ms=self.time(name)):
            if isinstance(order, Broadcast):
                for other in self.names:
                    if other != name:
                        self.post(name, other, BroadcastReceived(order.payload))
            elif isinstance(order, SendTo):
                self.post(name, order.peer, DirectReceived(name, order.message))
            elif isinstance(order, AwaitDrain):
                self.wire.append((name, Drained(order.peer), "drained"))

    def post(self, name: Atom, other: Atom, fact: Fact) -> None:
        if (name, other) in self.links:
            self.wire.append((other, fact, f"{name} -> {other}: {fact!r:.150}"))

    # --- what may happen ----------------------------------------------------------------------------------------------

    def write(self) -> None:
        name = self.rng.choice(self.names)
        number = self.rng.randrange(len(KEYS))
        key = KEYS[number]
        put = self.rng.random() < 0.5
        value = len(self.story)
        self.tell(name, WriteAsked(Put(key, value) if put else Remove(key)))
        stamp = self.states[name].map.stamp_of(key)
        assert self.states[name].map.get(key) == (value if put else None), f"{name} wrote {key!r} in vain"
        self.writes[number].append((stamp, put, name if put else "", value if put else None))
        self.story.append(f"{name} {'puts' if put else 'removes'} {key!r} {value} at {stamp >> 32}.{stamp & 0xFFFF}")

    def deliver(self) -> None:
        if not self.wire:
            return
        number = self.rng.randrange(min(len(self.wire), 5))
        name, fact, text = self.wire[number]
        chance = self.rng.randrange(100)
        if isinstance(fact, Drained) or chance >= self.doubled:
            del self.wire[number]
        if not isinstance(fact, Drained) and chance >= 100 - self.lossy:
            self.story.append(f"lost {text}")
            return
        self.story.append(text)
        self.tell(name, fact)

    def link(self) -> None:
        one, other = self.rng.sample(self.names, 2)
        if (one, other) in self.links:
            self.links -= {(one, other), (other, one)}
            self.story.append(f"{one} and {other} part")
            self.tell(one, PeerDown(other))
            self.tell(other, PeerDown(one))
        else:
            self.join(one, other)

    def join(self, one: Atom, other: Atom) -> None:
        self.links |= {(one, other), (other, one)}
        self.story.append(f"{one} and {other} meet")
        self.tell(one, PeerUp(other, python=True))
        self.tell(other, PeerUp(one, python=True))

    def tick(self) -> None:
        self.tell(self.rng.choice(self.names), TimerFired("anti_entropy"))

    def tidy(self) -> None:
        for name in self.names:
            before = self.states[name].map.tombstones
            self.tell(name, TimerFired("tidy"))
            self.collected += before - self.states[name].map.tombstones
            self.story.append(f"{name} tidies {before} -> {self.states[name].map.tombstones}")

    def settle(self) -> None:
        """For once all goes well between those that are connected."""
        lossy, doubled, self.lossy, self.doubled = self.lossy, self.doubled, 0, 0
        self.story.append("--- settling")
        for _ in range(2):
            for one, other in sorted(self.links):
                self.tell(one, PeerUp(other, python=True))
                self.drain()
        self.lossy, self.doubled = lossy, doubled

    def wait(self) -> None:
        if self.wall - self.begun < (HARD_HORIZONS - 3) * TTL_MS:
            span = self.rng.choice([1, 10, 400, 1500])
            self.wall += span
            self.now += span / 5  # faster than the wall, for tombstones live for a second here

    # --- the play -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        for _ in range(self.steps):
            act = self.rng.choices(
                [self.write, self.deliver, self.link, self.tick, self.tidy, self.wait, self.settle],
                [20, 60, 4, 8, 6, 6, 3],
            )[0]
            act()
        self.heal()
        self.check()

    def heal(self) -> None:
        self.lossy = self.doubled = 0
        self.story.append("--- healed")
        for one in self.names:
            for other in self.names:
                if one < other and (one, other) not in self.links:
                    self.join(one, other)
        for _ in range(len(self.names)):
            self.now += 60
            for name in self.names:
                for other in self.names:
                    if name != other:
                        self.tell(name, PeerUp(other, python=True))
                        self.drain()

    def drain(self) -> None:
        for _ in range(10_000):
            if not self.wire:
                return
            name, fact, text = self.wire.pop(0)
            self.story.append(text)
            self.tell(name, fact)
        raise AssertionError("the replicas never stop talking")

    def check(self) -> None:
        roots = {name: state.root() for name, state in self.states.items()}
        assert len(set(roots.values())) == 1, f"not equal: {roots}"
        for number, key in enumerate(KEYS):
            last = max(self.writes[number], default=(0, False, "", None))
            for name, state in self.states.items():
                found = state.map.get(key)
                assert found == last[3], f"{name} has {found!r} for {key!r}, last written was {last}"


def decode_fact(fact: Any) -> Fact:
    """The fact after its term went over the wire."""
    if isinstance(fact, BroadcastReceived):
        return BroadcastReceived(decode(encode(fact.payload)))
    return DirectReceived(fact.peer, decode(encode(fact.message)))
