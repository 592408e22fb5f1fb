"""Whatever happens to a node's membership, in whatever order, its promises hold after each fact.

What many nodes do together is in ``tests/simulation``.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from barrel_p2p.proto.hyparview import HyParView
from barrel_p2p.proto.hyparview_config import HyParViewConfig
from barrel_p2p.proto.hyparview_events import (
    Connect,
    ConnectFailed,
    ContactsFound,
    Disconnect,
    Fact,
    ForwardJoin,
    Join,
    JoinFailed,
    JoinRequested,
    Kind,
    LeaveRequested,
    Left,
    MessageReceived,
    Neighbor,
    NeighborReply,
    Notify,
    PeerConnected,
    PeerDown,
    PeerLingers,
    PeerLost,
    PeerUp,
    Release,
    Send,
    Shuffle,
    ShuffleReply,
    Started,
    StartTimer,
    StopTimer,
    TimerFired,
    TrafficSeen,
)

ME = "me@host"
PEERS = [f"{letter}@host" for letter in "abcdefghij"]
CONFIG = HyParViewConfig(active_size=3, passive_size=5, max_fail_count=3, contact_nodes=("a@host", ME))

peers = st.sampled_from(PEERS)
anyone = st.sampled_from([*PEERS, ME])
names = st.lists(anyone, max_size=12).map(tuple)
messages = st.one_of(
    st.just(Join()),
    st.just(Disconnect()),
    st.builds(ForwardJoin, anyone, st.integers(0, 32)),
    st.builds(Neighbor, st.booleans()),
    st.builds(NeighborReply, st.booleans()),
    st.builds(Shuffle, st.integers(0, 32), names),
    st.builds(ShuffleReply, names),
)
facts = st.one_of(
    st.builds(MessageReceived, peers, messages),
    st.builds(MessageReceived, peers, messages),
    st.builds(MessageReceived, peers, messages),
    st.builds(PeerConnected, peers),
    st.builds(PeerConnected, peers),
    st.builds(PeerLost, peers),
    st.builds(ConnectFailed, peers),
    st.builds(JoinRequested, anyone),
    st.builds(TrafficSeen, peers),
    st.builds(ContactsFound, st.lists(anyone, max_size=3).map(tuple)),
    st.just(LeaveRequested()),
)
steps = st.lists(st.tuples(facts | st.sampled_from(["answer", "fail", "timer"]), st.sampled_from([0.0, 0.5, 12.0])))


class World:
    """The node and all that its driver knows: channels, attempts, timers. Erlang nodes are the first half of ``PEERS``
    or none."""

    def __init__(self, seed: int, erlang: int) -> None:
        self.machine = HyParView(ME, CONFIG, rng=Random(seed))
        self.kinds: dict[str, Kind] = {p: "erlang" if at < erlang else "python" for at, p in enumerate(PEERS)}
        self.channels: dict[str, None] = {}
        self.dials: dict[str, None] = {}
        self.timers: dict[Any, float] = {}
        self.view: dict[str, None] = {}  # by what was told
        self.joined: dict[str, None] = {}  # Erlang nodes that got a JOIN on the channel there is
        self.now = 0.0
        self.tell(Started())

    def step(self, what: Any, seconds: float) -> None:
        self.now += seconds
        if what == "timer":
            if self.timers:
                timer = min(self.timers, key=self.timers.__getitem__)
                self.now = max(self.now, self.timers.pop(timer))
                self.tell(TimerFired(timer))
        elif what in ("answer", "fail"):
            if self.dials:
                peer = next(iter(self.dials))
                self.tell(PeerConnected(peer, self.kinds[peer]) if what == "answer" else ConnectFailed(peer))
        elif isinstance(what, PeerConnected):
            self.tell(PeerConnected(what.peer, self.kinds[what.peer]))
        elif isinstance(what, PeerLost):
            if what.peer in self.channels:
                self.tell(what)
        elif isinstance(what, ConnectFailed):
            if what.peer in self.dials:
                self.tell(what)
        else:
            self.tell(what)

    def tell(self, fact: Fact) -> None:
        if isinstance(fact, PeerConnected):
            self.channels[fact.peer] = None
            self.dials.pop(fact.peer, None)
        elif isinstance(fact, ConnectFailed):
            self.dials.pop(fact.peer, None)
        elif isinstance(fact, PeerLost):
            self.channels.pop(fact.peer, None)
            self.joined.pop(fact.peer, None)
        for order in self.machine.handle(fact, now=self.now):
            self.perform(order)
        self.check()

    def perform(self, order: Any) -> None:
        match order:
            case Connect(peer):
                assert peer not in self.channels
                assert peer != ME
                self.dials[peer] = None
            case Send(peer, message):
                assert peer in self.channels, "sent without a channel"
                if self.kinds[peer] == "erlang":
                    self.check_sent_to_erlang(peer, message)
            case StartTimer(timer, at):
                assert at >= self.now
                self.timers[timer] = at
            case StopTimer(timer):
                self.timers.pop(timer, None)
            case Notify(PeerUp(peer, kind)):
                assert peer not in self.view
                assert kind == self.kinds[peer]
                self.view[peer] = None
            case Notify(PeerDown(peer)):
                del self.view[peer]
            case Notify(PeerLingers(peer)):
                assert peer not in self.view
                assert self.kinds[peer] == "erlang"
            case Notify(Left()):
                self.view.clear()
            case Release(peer, close):
                assert peer in self.channels
                assert not close or self.kinds[peer] == "erlang"
            case Notify(JoinFailed()):
                pass
            case _:
                raise AssertionError(f"unknown order {order}")

    def check_sent_to_erlang(self, peer: str, message: Any) -> None:
        assert not isinstance(message, Disconnect), "loses its views"
        assert not (isinstance(message, Neighbor) and message.high), "drops somebody, who loses its views"
        if isinstance(message, Join):
            assert peer not in self.joined, "drops somebody for one it has"
            self.joined[peer] = None
        if isinstance(message, Shuffle | ShuffleReply):
            assert set(message.peers) <= {ME}, "knows replacements, which make it crash"
        if isinstance(message, ForwardJoin | Shuffle):
            assert 0 <= message.ttl <= CONFIG.arwl

    def check(self) -> None:
        active, passive = self.machine.active, self.machine.passive
        assert [*self.view] == active
        assert len(active) <= CONFIG.active_size
        assert len(passive) <= CONFIG.passive_size
        assert ME not in active
        assert ME not in passive
        assert set(active) <= {*self.channels}
        assert not set(active) & set(passive)
        assert len(self.dials) <= 2 * CONFIG.active_size + len(PEERS)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0, 5, 10]), steps)
def test_the_promises_of_one_node_hold(seed: int, erlang: int, steps: list[tuple[Any, float]]) -> None:
    world = World(seed, erlang)
    for what, seconds in steps:
        world.step(what, seconds)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0, 5, 10]), steps)
def test_the_same_facts_have_the_same_outcome(seed: int, erlang: int, steps: list[tuple[Any, float]]) -> None:
    worlds = [World(seed, erlang), World(seed, erlang)]
    for what, seconds in steps:
        for world in worlds:
            world.step(what, seconds)
    assert worlds[0].machine.active == worlds[1].machine.active
    assert worlds[0].machine.passive == worlds[1].machine.passive
