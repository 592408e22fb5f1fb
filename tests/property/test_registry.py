"""The registry, the leases and the router among simulated nodes: splits, deaths, returns, lost messages."""

from __future__ import annotations

import random
from typing import Any

from barrel_p2p.proto import routing
from barrel_p2p.proto.leases import MemberDown, MemberUp
from barrel_p2p.proto.node_leases import REMEMBER_MS, Heard, NodeLeases, Tick
from barrel_p2p.proto.registry_events import NodeAlive, NodeDead, ProcessDown, Register, Unregister
from barrel_p2p.proto.registry_state import PATIENCE_MS, RegistryState
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
from barrel_p2p.term.types import Atom, Pid

NAMES = ["db", Atom("queue"), "cache"]
LEASE = 1000


class Node:
    def __init__(self, world: World, name: Atom) -> None:
        self.name = name
        self.registry = RegistryState(name, world.wall)
        self.replica = Replica(name, self.registry, rng=world.rng)
        self.leases = NodeLeases(name, lease_ms=LEASE)
        self.offers: dict[Any, Pid] = {}


class World:
    """Registry and leases of some nodes, each linked with each unless they are split or dead."""

    def __init__(self, seed: int, nodes: int = 4) -> None:
        self.rng = random.Random(seed)
        self.wall = 1_795_337_344_000
        self.number = 0
        self.names = [Atom(f"n{number}@h") for number in range(nodes)]
        self.nodes = {name: Node(self, name) for name in self.names}
        self.cut: set[tuple[Atom, Atom]] = set()
        self.wire: list[tuple[Atom, Atom, Fact]] = []
        self.lossy = 20

    def linked(self, one: Atom, other: Atom) -> bool:
        return (one, other) not in self.cut and one in self.nodes and other in self.nodes

    def tell(self, name: Atom, fact: Fact) -> None:
        if name not in self.nodes:
            return
        if isinstance(fact, BroadcastReceived):
            fact = BroadcastReceived(decode(encode(fact.payload)))
        elif isinstance(fact, DirectReceived):
            fact = DirectReceived(fact.peer, decode(encode(fact.message)))
        node = self.nodes[name]
        for order in node.replica.handle(fact, now=self.wall / 1000, wall_ms=self.wall):
            if isinstance(order, Broadcast):
                self.wire += [(name, to, BroadcastReceived(order.payload)) for to in self.names if to != name]
            elif isinstance(order, SendTo):
                self.wire.append((name, order.peer, DirectReceived(name, order.message)))
            elif isinstance(order, AwaitDrain):
                self.wire.append((name, name, Drained(order.peer)))

    def deliver(self, number: int = 0) -> None:
        sender, to, fact = self.wire.pop(number)
        if not isinstance(fact, Drained) and (not self.linked(sender, to) or self.rng.randrange(100) < self.lossy):
            return
        self.tell(to, fact)

    def drain(self) -> None:
        for _ in range(20_000):
            if not self.wire:
                return
            self.deliver()
        raise AssertionError("they never stop talking")

    # --- what may happen ----------------------------------------------------------------------------------------------

    def write(self) -> None:
        name = self.rng.choice([*self.nodes])
        node, service = self.nodes[name], self.rng.choice(NAMES)
        if service not in node.offers:
            self.number += 1
            node.offers[service] = Pid(name, self.number, 0, 1)
            self.tell(name, WriteAsked(Register(service, node.offers[service], {})))
        else:
            del node.offers[service]
            self.tell(name, WriteAsked(self.rng.choice([Unregister(service), ProcessDown(service, Atom("boom"))])))

    def split(self) -> None:
        half = set(self.rng.sample(self.names, len(self.names) // 2))
        self.cut = {(a, b) for a in self.names for b in self.names if (a in half) != (b in half)}

    def heal(self) -> None:
        self.cut = set()
        for one in self.nodes:
            for other in self.nodes:
                if one != other:
                    self.tell(one, PeerUp(other, python=True))

    def die(self) -> None:
        if len(self.nodes) > 2:
            del self.nodes[self.rng.choice([*self.nodes])]

    def restart(self) -> None:
        dead = [name for name in self.names if name not in self.nodes]
        if dead:
            name = self.rng.choice(dead)
            self.wall += 50  # a start takes longer than the millisecond in which the node may have died
            self.nodes[name] = Node(self, name)
            self.heal()

    def tick(self) -> None:
        """Time passes; heartbeats travel; who has no lease is dead for the registry."""
        self.wall += 100
        for name, node in self.nodes.items():
            changes = list(node.leases.write(Tick(100, beat=True), self.wall).changes)
            news = decode(encode(node.leases.news()))
            for to, other in self.nodes.items():
                if to != name and self.linked(name, to) and self.rng.randrange(100) >= self.lossy:
                    self.judge(to, other.leases.write(Heard(news), self.wall).changes)
            self.judge(name, changes)

    def judge(self, name: Atom, changes: list[Any]) -> None:
        for change in changes:
            event = NodeAlive(change.node) if isinstance(change, MemberUp) else NodeDead(change.node)
            self.tell(name, WriteAsked(event))

    def run(self) -> None:
        for _ in range(150):
            act = self.rng.choices(
                [self.write, self.tick, self.split, self.heal, self.die, self.restart, None], [20, 30, 3, 5, 2, 4, 60]
            )[0]
            if act is not None:
                act()
            elif self.wire:
                self.deliver(self.rng.randrange(min(4, len(self.wire))))
        self.lossy = 0
        self.heal()
        self.drain()
        for _ in range(25):  # longer than two leases
            self.tick()
            self.drain()
        for _ in range(3):
            self.wall += PATIENCE_MS  # what a copy brought of a node that never showed a lease is hidden after that
            self.heal()
            self.drain()
            for name in self.nodes:
                self.tell(name, TimerFired("tidy"))

    def check(self, seed: int) -> None:
        for name, node in self.nodes.items():
            assert node.leases.nodes() == sorted(self.nodes), (seed, name)
            for service in NAMES:
                expected = {other: n.offers[service] for other, n in self.nodes.items() if service in n.offers}
                found = {entry.node: entry.pid for entry in node.registry.lookup(service)}
                assert found == expected, (seed, name, service)


def test_after_splits_deaths_and_returns_all_nodes_know_what_is_offered_and_nothing_else() -> None:
    for seed in range(150):
        world = World(seed)
        world.run()
        world.check(seed)


# --- leases -----------------------------------------------------------------------------------------------------------

A, B, C = Atom("a@h"), Atom("b@h"), Atom("c@h")
NOW = 1_795_337_344_000


def test_a_dead_node_is_not_woken_by_old_words_and_comes_back_with_a_new_one() -> None:
    alice, bob = NodeLeases(A, lease_ms=LEASE), NodeLeases(B, lease_ms=LEASE)
    bob.write(Tick(0, beat=True), NOW)
    word = bob.news()
    assert alice.write(Heard(word), NOW).changes == [MemberUp(B)]
    downs = [change for _ in range(10) for change in alice.write(Tick(100, beat=False), NOW).changes]
    assert downs == [MemberDown(B)] and not alice.alive(B)
    assert alice.write(Heard(word), NOW).changes == [] and not alice.alive(B)
    bob.write(Tick(0, beat=True), NOW)
    assert alice.write(Heard(bob.news()), NOW).changes == [MemberUp(B)]
    for _ in range(REMEMBER_MS // 500 + 3):
        alice.write(Tick(500, beat=False), NOW)
    assert alice.write(Heard(word), NOW).changes == [MemberUp(B)], "long forgotten, and what says it is as old"


def test_who_slept_takes_nobody_for_dead() -> None:
    alice, bob = NodeLeases(A, lease_ms=LEASE), NodeLeases(B, lease_ms=LEASE)
    bob.write(Tick(0, beat=True), NOW)
    alice.write(Heard(bob.news()), NOW)
    assert alice.write(Tick(3_600_000, beat=True), NOW + 3_600_000).changes == [] and alice.alive(B)


def test_a_wall_clock_that_went_back_costs_nothing() -> None:
    alice, bob = NodeLeases(A, lease_ms=LEASE), NodeLeases(B, lease_ms=LEASE)
    bob.write(Tick(0, beat=True), NOW)
    alice.write(Heard(bob.news()), NOW)
    again = NodeLeases(B, lease_ms=LEASE)  # bob restarts, an hour earlier
    [copy] = alice.snapshot(NOW, python=True)
    again.merge(copy, NOW - 3_600_000)
    again.write(Tick(0, beat=True), NOW - 3_600_000)
    alice.write(Tick(500, beat=False), NOW)
    alice.write(Heard(again.news()), NOW)
    assert alice.write(Tick(500, beat=False), NOW).changes == [] and alice.alive(B)


def test_who_has_an_erlang_neighbour_broadcasts_what_the_others_told() -> None:
    alice, bob, carol = (NodeLeases(name, lease_ms=LEASE) for name in (A, B, C))
    alice.write(Tick(0, beat=True), NOW)
    bob.write(Heard(alice.news()), NOW)
    [delta] = bob.write(Tick(0, beat=True, spread=True), NOW).broadcast
    assert carol.merge(decode(encode(delta)), NOW).changes == [MemberUp(B), MemberUp(A)]
    [delta] = carol.write(Tick(0, beat=True, spread=True), NOW).broadcast
    assert list(delta) == [C], "what a broadcast told is not told again by one"
    assert bob.write(Tick(0, beat=True), NOW).broadcast == []


# --- the router -------------------------------------------------------------------------------------------------------


def search(seed: int, nodes: int = 30, silent: int = 0, lossy: int = 0) -> tuple[list[Any], int]:
    """One user of a random graph looks for what one node of it has: what was found, and how many asked."""
    rng = random.Random(seed)
    names = [Atom(f"n{number:02}@h") for number in range(nodes)]
    graph: dict[Atom, set[Atom]] = {name: set() for name in names}
    for number, name in enumerate(names[1:], 1):
        for other in rng.sample(names[:number], min(3, number)):
            graph[name].add(other)
            graph[other].add(name)
    machines = {name: routing.Routing(name, rng=rng) for name in names}
    owner = names[-1]
    pid = Pid(owner, 1, 0, 1)
    mute = set(rng.sample(names[1:-1], silent))
    wire: list[tuple[Atom, Any]] = [(names[0], routing.Sought(1, "db", sorted(graph[names[0]])))]
    timers: dict[tuple[Atom, int], float] = {}
    found: list[Any] = []
    now, asks = 0.0, 0
    while wire or timers:
        if wire:
            name, fact = wire.pop(rng.randrange(min(3, len(wire))))
        else:
            (name, number), now = min(timers.items(), key=lambda item: item[1])
            del timers[name, number]
            fact = routing.TimerFired(number)
        if name in mute:
            continue
        for order in machines[name].handle(fact, now=now):
            match order:
                case routing.Ask(ask, peer, request):
                    asks += 1
                    here = (owner, pid) if peer == owner else None
                    reply_to = (name, ask)
                    wire.append((peer, routing.Requested(name, request, reply_to, here, sorted(graph[peer]))))
                case routing.Reply((to, ask), answer):
                    if rng.randrange(100) >= lossy:
                        wire.append((to, routing.Answered(ask, None if isinstance(answer, str) else answer)))
                case routing.Found(_, where):
                    found.append(where)
                case routing.StartTimer(number, at):
                    timers[name, number] = at
                case routing.StopTimer(number):
                    timers.pop((name, number), None)
    assert all(machine.serving == 0 and not machine._searches and not machine._of_ask for machine in machines.values())
    return found, asks


def test_a_search_ends_once_and_mostly_finds_what_is_near() -> None:
    hits = 0
    for seed in range(200):
        found, asks = search(seed)
        assert len(found) == 1 and asks <= 30 * 12, seed
        hits += found[0] is not None
    assert hits > 190


def test_a_search_ends_whoever_is_silent_and_whatever_is_lost() -> None:
    hits = 0
    for seed in range(200):
        found, _ = search(seed, silent=6, lossy=20)
        assert len(found) == 1, seed
        hits += found[0] is not None
    assert hits > 120


def test_users_who_look_for_one_name_share_a_search() -> None:
    machine = routing.Routing(A, rng=random.Random(1))
    first = machine.handle(routing.Sought(1, "db", [B]), now=0)
    assert machine.handle(routing.Sought(2, b"db", [B]), now=0) == []
    [ask] = [order for order in first if isinstance(order, routing.Ask)]
    assert ask.request == routing.Request("db", 4, A, (A,))
    assert machine.handle(routing.Abandoned(1), now=0) == []
    where = (B, Pid(B, 1, 0, 1))
    assert routing.Found(2, where) in machine.handle(routing.Answered(ask.ask, where), now=0)
    assert machine.handle(routing.Answered(ask.ask, where), now=0) == [], "too late"


def test_a_node_serves_a_bounded_number_of_searches() -> None:
    machine = routing.Routing(A, rng=random.Random(1))

    def asked(number: int) -> Any:
        request = routing.Request(f"s{number}", 4, C, (C,))
        return machine.handle(routing.Requested(C, request, number, None, [B, C]), now=0)

    for number in range(routing.MAX_SEARCHES):
        assert [type(order) for order in asked(number)] == [routing.StartTimer, routing.Ask]
    assert asked(7) == [routing.Reply(7, "not_found")], "it is on its way already"
    assert asked(routing.MAX_SEARCHES) == [routing.Reply(routing.MAX_SEARCHES, "overloaded")]
    orders = machine.handle(routing.PeerLost(B), now=0)
    assert machine.serving == 0 and routing.Reply(0, "not_found") in orders
