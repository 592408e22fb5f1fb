"""Python replicas and a model of an Erlang one agree, over a network that loses and reorders."""

from __future__ import annotations

import random
from typing import Any

from barrel_p2p.proto.map_state import MapState, Put, Remove
from barrel_p2p.proto.replica import Replica
from barrel_p2p.proto.replica_events import (
    AwaitDrain,
    Broadcast,
    BroadcastReceived,
    DirectReceived,
    Drained,
    Fact,
    PeerUp,
    SendTo,
    TimerFired,
    WriteAsked,
)
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom
from harness.upstream import Upstream

E, P, Q = Atom("e@h"), Atom("p@h"), Atom("q@h")
KEYS: list[Any] = ["k", Atom("k"), 1, (1, [2.5])]


class Mixed:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.wall = 1_795_337_344_000
        self.now = 0.0
        self.erlang = Upstream(E)
        self.states = {name: MapState(name, self.wall) for name in (P, Q)}
        self.replicas = {name: Replica(name, state, rng=self.rng) for name, state in self.states.items()}
        self.wire: list[tuple[Atom, Fact]] = []
        self.lossy = 30

    def tell(self, name: Atom, fact: Fact) -> None:
        for order in self.replicas[name].handle(fact, now=self.now, wall_ms=self.wall):
            if isinstance(order, Broadcast):
                self.post_all(name, order.payload)
            elif isinstance(order, SendTo):
                self.wire.append((order.peer, DirectReceived(name, order.message)))
            elif isinstance(order, AwaitDrain):
                self.wire.append((name, Drained(order.peer)))

    def post_all(self, name: Atom, payload: Any) -> None:
        self.wire += [(other, BroadcastReceived(payload)) for other in (E, P, Q) if other != name]

    def erlang_says(self) -> None:
        for payload in self.erlang.broadcasts:
            self.post_all(E, payload)
        self.wire += [(peer, DirectReceived(E, message)) for peer, message in self.erlang.sends]
        self.erlang.broadcasts, self.erlang.sends = [], []

    def deliver(self, number: int) -> None:
        name, fact = self.wire.pop(number)
        if isinstance(fact, Drained):
            self.tell(name, fact)
            return
        if self.rng.randrange(100) < self.lossy:
            return
        term = decode(encode(fact.payload if isinstance(fact, BroadcastReceived) else fact.message))  # type: ignore[union-attr]
        if name != E:
            self.tell(
                name,
                BroadcastReceived(term) if isinstance(fact, BroadcastReceived) else DirectReceived(fact.peer, term),
            )  # type: ignore[union-attr]
        elif isinstance(fact, BroadcastReceived):
            self.erlang.merge(term[2])
        else:
            self.erlang.message(term)
            self.erlang_says()

    def write(self) -> None:
        name, key, value = self.rng.choice([E, P, Q]), self.rng.choice(KEYS), self.rng.randrange(1000)
        put = self.rng.random() < 0.6
        if name != E:
            self.tell(name, WriteAsked(Put(key, value) if put else Remove(key)))
            return
        if put:
            self.erlang.put(key, value, self.wall)
        else:
            self.erlang.remove(key, self.wall)
        self.erlang_says()

    def drain(self) -> None:
        for _ in range(10_000):
            if not self.wire:
                return
            self.deliver(0)
        raise AssertionError("they never stop talking")

    def meet(self) -> None:
        for name, other in ((P, Q), (Q, P), (P, E), (Q, E)):
            self.tell(name, PeerUp(other, python=other != E))

    def run(self) -> None:
        self.meet()
        for _ in range(100):
            act = self.rng.choice(
                [self.write, self.write, lambda: self.tick(P), lambda: self.tick(Q), None, None, None]
            )
            if act is not None:
                act()
            elif self.wire:
                self.deliver(self.rng.randrange(min(4, len(self.wire))))
        self.lossy = 0
        self.erlang.put(Atom("last"), 1, self.wall)  # an Erlang node where nothing lives doesn't answer
        self.erlang_says()
        for _ in range(3):
            self.now += 60
            self.meet()
            self.drain()

    def tick(self, name: Atom) -> None:
        self.wall += self.rng.randrange(20)
        self.tell(name, TimerFired("anti_entropy"))


def test_mixed_replicas_agree() -> None:
    for seed in range(400):
        mixed = Mixed(seed)
        mixed.run()
        theirs = sorted((repr(_plain(key)), value) for key, value in mixed.erlang.live())
        for name, state in mixed.states.items():
            assert sorted((repr(_plain(key)), value) for key, value in state.map.items()) == theirs, (seed, name)


def _plain(key: Any) -> Any:
    """A str and its bytes are one key to Erlang."""
    return key.encode() if type(key) is str else key
