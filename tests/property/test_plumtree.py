"""Whatever happens to a node's broadcast its promises hold; on any graph a broadcast makes a tree of the links."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from barrel_p2p.proto.hyparview_events import Left, PeerDown, PeerLingers, PeerLost, PeerUp
from barrel_p2p.proto.plumtree import Plumtree
from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.proto.plumtree_events import (
    BroadcastRequested,
    Deliver,
    Gossip,
    Graft,
    Hint,
    IHave,
    MessageReceived,
    Prune,
    Send,
    StartTimer,
    TimerFired,
)

PEERS = [*"abcdef"]
CONFIG = PlumtreeConfig(
    max_cached=4, max_cache_bytes=50, max_missing=8, max_announcers=2, max_strangers=2, max_grafts=3
)

peers = st.sampled_from(PEERS)
ids = st.sampled_from([bytes([number]) for number in range(10)])
gossips = st.builds(Gossip, ids, st.just("tag"), st.just(0), st.integers(0, 60))
messages = st.one_of(gossips, st.builds(IHave, ids), st.builds(Graft, ids), st.just(Prune()))
facts = st.one_of(
    st.builds(MessageReceived, peers, messages),
    st.builds(MessageReceived, peers, messages),
    st.builds(PeerUp, peers, st.sampled_from(["python", "erlang"])),
    st.builds(PeerDown, peers, st.just("dropped")),
    st.builds(PeerLingers, peers),
    st.builds(PeerLost, peers),
    st.builds(BroadcastRequested, ids, st.just("tag"), st.just(0), st.integers(0, 60)),
    st.just(Left()),
    st.just("timer"),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(facts, st.sampled_from([0.0, 0.3, 5.0])), max_size=80))
def test_the_promises_of_one_node_hold(steps: list[tuple[Any, float]]) -> None:
    machine = Plumtree("me", CONFIG)
    now = 0.0
    timers: dict[Any, float] = {}
    delivered: list[bytes] = []
    links: dict[str, None] = {}  # neighbours, and Erlang nodes that linger
    for fact, seconds in steps:
        now += seconds
        if now > 290.0:
            break  # later an id may be forgotten
        if fact == "timer":
            if not timers:
                continue
            timer = min(timers, key=timers.__getitem__)
            now = max(now, timers.pop(timer))
            fact = TimerFired(timer)
        match fact:
            case PeerUp(peer) | PeerLingers(peer):
                links[peer] = None
            case PeerDown(peer) | PeerLost(peer):
                links.pop(peer, None)
            case Left():
                links.clear()
        for order in machine.handle(fact, now=now):
            match order:
                case Deliver(id):
                    delivered.append(id)
                case StartTimer(timer, at):
                    assert at >= now
                    timers[timer] = at
                case Send(_, Gossip(id)):
                    assert machine.knows(id)
                case Hint(peer):
                    assert peer not in links or isinstance(fact, MessageReceived)
        assert not set(machine.eager) & set(machine.lazy)
        assert {*machine.eager, *machine.lazy} <= {*links}
        assert machine.missing <= CONFIG.max_missing
        assert len(delivered) == len(set(delivered)), "delivered twice"


class Graph:
    """Nodes with links between them; messages of a link arrive in order, links in any order."""

    def __init__(self, edges: set[tuple[int, int]], seed: int) -> None:
        self.rng = Random(seed)
        count = max(max(edge) for edge in edges) + 1
        self.nodes = [Plumtree(str(number), PlumtreeConfig()) for number in range(count)]
        self.links: dict[tuple[str, str], list[Any]] = {}
        self.timers: dict[tuple[str, Any], float] = {}
        self.delivered: list[tuple[str, bytes]] = []
        self.payloads = 0
        self.now = 0.0
        for a, b in sorted(edges):
            self.links[str(a), str(b)] = []
            self.links[str(b), str(a)] = []
            self.tell(self.nodes[a], PeerUp(str(b)))
            self.tell(self.nodes[b], PeerUp(str(a)))

    def tell(self, node: Plumtree, fact: Any) -> None:
        for order in node.handle(fact, now=self.now):
            if isinstance(order, Send) and (node.name, order.peer) in self.links:
                self.links[node.name, order.peer].append(order.message)
                self.payloads += isinstance(order.message, Gossip)
            elif isinstance(order, StartTimer):
                self.timers[node.name, order.timer] = order.at
            elif isinstance(order, Deliver):
                self.delivered.append((node.name, order.id))

    def broadcast(self, origin: int, id: bytes) -> None:
        self.payloads = 0
        self.tell(self.nodes[origin], BroadcastRequested(id, "tag", None))
        self.settle()

    def settle(self) -> None:
        """Until nothing is under way and no broadcast is missing."""
        while True:
            busy = [link for link, messages in self.links.items() if messages]
            grafts = [key for key in self.timers if key[1] == "graft"]
            if busy:
                sender, receiver = self.rng.choice(busy)
                self.tell(self.nodes[int(receiver)], MessageReceived(sender, self.links[sender, receiver].pop(0)))
            elif grafts:
                key = min(grafts, key=self.timers.__getitem__)
                self.now = max(self.now, self.timers.pop(key))
                self.tell(self.nodes[int(key[0])], TimerFired(key[1]))
            else:
                return

    def cut(self, a: int, b: int) -> None:
        for one, other in ((a, b), (b, a)):
            if self.links.pop((str(one), str(other)), None) is not None:
                self.tell(self.nodes[one], PeerDown(str(other), "nodedown"))

    def connected(self) -> bool:
        reached, wave = {0}, [0]
        while wave:
            found = {int(b) for a, b in self.links if int(a) in wave} - reached
            reached |= found
            wave = sorted(found)
        return len(reached) == len(self.nodes)


def edges_of(count: int, more: list[tuple[int, int]], rng: Random) -> set[tuple[int, int]]:
    """A connected graph: a random tree and some more edges."""
    edges = {(rng.randrange(number), number) for number in range(1, count)}
    return edges | {(min(a, b) % count, max(a, b) % count) for a, b in more if a % count < b % count} & {
        (a, b) for b in range(count) for a in range(b)
    }


graphs = st.builds(
    lambda count, more, seed: Graph(edges_of(count, more, Random(seed)), seed),
    st.integers(2, 12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
    st.integers(0, 10_000),
)


@settings(max_examples=300, deadline=None)
@given(graphs, st.lists(st.integers(0, 11), min_size=2, max_size=5))
def test_after_one_broadcast_the_links_are_a_tree_whoever_broadcasts_then(graph: Graph, origins: list[int]) -> None:
    count = len(graph.nodes)
    for number, origin in enumerate(origins):
        graph.broadcast(origin % count, bytes([number]))
        assert sorted(graph.delivered) == sorted((str(n), bytes([m])) for n in range(count) for m in range(number + 1))
        if number:
            assert graph.payloads == count - 1
        branches = {(node.name, peer) for node in graph.nodes for peer in node.eager}
        assert len(branches) == 2 * (count - 1)
        assert all((b, a) in branches for a, b in branches)


@settings(max_examples=300, deadline=None)
@given(graphs, st.data())
def test_a_tree_that_lost_links_is_mended_by_the_next_broadcast(graph: Graph, data: Any) -> None:
    count = len(graph.nodes)
    graph.broadcast(0, b"first")
    edges = sorted((int(a), int(b)) for a, b in graph.links if int(a) < int(b))
    for edge in data.draw(st.lists(st.sampled_from(edges), max_size=5)):
        graph.cut(*edge)
    whole = graph.connected()
    graph.broadcast(data.draw(st.integers(0, count - 1)), b"second")
    got = [name for name, id in graph.delivered if id == b"second"]
    assert len(got) == len(set(got))
    if whole:
        assert len(got) == count
