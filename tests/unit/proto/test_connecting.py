"""The rules of ``proto.connecting`` one by one; any order of events is in ``property/test_connecting.py``."""

from __future__ import annotations

from barrel_p2p.errors import NotConnected
from barrel_p2p.proto.connecting import MAX_DIALS, Connecting
from barrel_p2p.proto.connecting_events import (
    AcceptFailed,
    AcceptUp,
    AskAlive,
    ChannelLost,
    Close,
    Dial,
    DialFailed,
    DialNamed,
    DialUp,
    DialYielded,
    Down,
    Drop,
    Fact,
    GiveUp,
    LetIn,
    Order,
    PeerNamed,
    Probe,
    Probed,
    Queue,
    StartTimer,
    Stopped,
    StopTimer,
    TimerFired,
    TurnAway,
    Up,
    Wanted,
    Yield,
)
from barrel_p2p.term.types import Atom

A, B, C = Atom("a@host"), Atom("b@host"), Atom("c@host")
FAILED = NotConnected("no answer")


class Table:
    """b's table."""

    def __init__(self, *, asks: bool = False) -> None:
        self.machine = Connecting(B, patience=7.0, max_accepts=2, max_queues=2, asks=asks)

    def __call__(self, fact: Fact) -> list[Order]:
        return self.machine.handle(fact, now=100.0)

    def number(self) -> int:
        return self.machine.number()

    def dial(self, name: Atom, *, named: bool = False) -> int:
        orders = self(Wanted(name))
        assert isinstance(orders[-1], Dial)
        if named:
            self(DialNamed(name, orders[-1].dial))
        return orders[-1].dial


def kinds(orders: list[Order]) -> list[type]:
    return [type(order) for order in orders]


def test_a_dial_that_is_not_named_yet_makes_way_for_either_name() -> None:
    for peer in (A, C):
        table = Table()
        dial = table.dial(peer)
        accept = table.number()
        drop, let_in = table(PeerNamed(peer, accept, 1))
        assert isinstance(drop, Drop) and drop.connection == dial
        assert let_in == LetIn(accept, simultaneous=False)
        assert table(AcceptUp(peer, accept)) == [Up(peer, accept)]


def test_of_two_named_dials_that_of_the_greater_name_goes_on() -> None:
    table = Table()
    table.dial(A, named=True)
    accept = table.number()
    assert table(PeerNamed(A, accept, 1)) == [Yield(accept)]

    table.dial(C, named=True)
    accept = table.number()
    assert table(PeerNamed(C, accept, 1))[1:] == [LetIn(accept, simultaneous=True)]


def test_who_yielded_for_a_dial_that_fails_dials_again() -> None:
    table = Table()
    dial = table.dial(A, named=True)
    table(PeerNamed(A, table.number(), 1))
    (again,) = table(DialFailed(A, dial, FAILED))
    assert isinstance(again, Dial) and again.dial != dial
    assert table(DialFailed(A, again.dial, FAILED)) == [GiveUp(A, FAILED)], "this time nobody waits for us"
    assert table.machine.names == []


def test_a_second_dial_starts_without_a_name() -> None:
    table = Table()
    dial = table.dial(A, named=True)
    table(PeerNamed(A, table.number(), 1))
    table(DialFailed(A, dial, FAILED))
    accept = table.number()
    assert table(PeerNamed(A, accept, 1))[-1] == LetIn(accept, simultaneous=False)


def test_a_yielded_dial_waits_and_the_number_of_dials_is_bounded() -> None:
    table = Table()
    dial = table.dial(C, named=True)
    for _ in range(MAX_DIALS - 1):
        assert table(DialYielded(C, dial)) == [StartTimer(C, 107.0)]
        (again,) = table(TimerFired(C))
        assert isinstance(again, Dial)
        dial = again.dial
    table(DialYielded(C, dial))
    assert kinds(table(TimerFired(C))) == [GiveUp]
    assert table.machine.names == []


def test_the_peers_own_connection_ends_the_wait() -> None:
    table = Table()
    table(DialYielded(C, table.dial(C, named=True)))
    accept = table.number()
    assert table(PeerNamed(C, accept, 1)) == [StopTimer(C), LetIn(accept)]
    assert table(TimerFired(C)) == []


def test_a_queue_waits_for_the_peers_attempt_and_dials_when_it_fails() -> None:
    table = Table()
    accept = table.number()
    table(PeerNamed(A, accept, 1))
    assert table(Wanted(A)) == [Queue(A)]
    assert kinds(table(AcceptFailed(A, accept))) == [Dial]


def test_of_two_attempts_of_a_peer_the_younger_counts() -> None:
    table = Table()
    old, young, middle = table.number(), table.number(), 0
    middle, young = young, table.number()
    table(PeerNamed(A, middle, 1))
    assert table(PeerNamed(A, old, 1)) == [Yield(old)]
    drop, let_in = table(PeerNamed(A, young, 1))
    assert isinstance(drop, Drop) and drop.connection == middle and let_in == LetIn(young)
    closed = table(AcceptUp(A, middle))
    assert kinds(closed) == [Close], "too late"


def test_an_attempt_from_before_the_channel_is_late_one_from_after_replaces_it() -> None:
    table = Table()
    dial = table.dial(A, named=True)
    late = table.number()
    assert table(DialUp(A, dial, 1)) == [Up(A, dial)]
    assert table(PeerNamed(A, late, 1)) == [Yield(late)]
    young = table.number()
    assert table(PeerNamed(A, young, 1)) == [LetIn(young)]
    close, down, up = table(AcceptUp(A, young))
    assert isinstance(close, Close) and close.connection == dial and isinstance(down, Down)
    assert up == Up(A, young)


def test_who_claims_a_connected_name_and_does_not_prove_the_cookie_leaves_the_channel_as_it_was() -> None:
    table = Table()
    dial = table.dial(A, named=True)
    table(DialUp(A, dial, 1))
    stranger = table.number()
    assert table(PeerNamed(A, stranger, 1)) == [LetIn(stranger)]
    assert table(AcceptFailed(A, stranger)) == []
    stranger = table.number()
    assert table(PeerNamed(A, stranger, 2)) == [Probe(A, dial)]
    assert table(Probed(A, dial, False)) == [LetIn(stranger)], "a channel that was silent for a moment"
    assert table(AcceptFailed(A, stranger)) == []
    assert table(Wanted(A)) == [], "there is a channel"
    lost = table(ChannelLost(A, dial, "reset", "net_tick_timeout"))
    assert lost == [Down(A, "reset", "net_tick_timeout")]


def test_a_probe_that_is_answered_late_does_not_disturb_who_was_let_in_meanwhile() -> None:
    table = Table()
    dial = table.dial(A, named=True)
    table(DialUp(A, dial, 1))
    other, same = table.number(), table.number()
    table(PeerNamed(A, other, 2))
    drop, let_in = table(PeerNamed(A, same, 1))
    assert isinstance(drop, Drop) and drop.connection == other and let_in == LetIn(same)
    for alive in (True, False):
        assert table(Probed(A, dial, alive)) == []
    assert table(ChannelLost(A, dial, "reset")) == [Down(A, "reset")], "it is let in already"
    assert table(AcceptUp(A, same)) == [Up(A, same)]


def test_another_incarnation_is_let_in_when_the_channel_is_silent() -> None:
    for alive in (True, False):
        table = Table()
        dial = table.dial(A, named=True)
        table(DialUp(A, dial, 1))
        first, second = table.number(), table.number()
        assert table(PeerNamed(A, first, 2)) == [Probe(A, dial)]
        assert kinds(table(PeerNamed(A, second, 2))) == [Drop], "one probe at once"
        orders = table(Probed(A, dial, alive))
        assert kinds(orders) == ([TurnAway] if alive else [LetIn])
        assert kinds(table(AcceptUp(A, second))) == ([Close] if alive else [Close, Down, Up])


def test_the_end_of_the_channel_is_as_good_as_a_probe() -> None:
    table = Table()
    dial = table.dial(A, named=True)
    table(DialUp(A, dial, 1))
    accept = table.number()
    table(PeerNamed(A, accept, 2))
    assert table(ChannelLost(A, dial, "reset")) == [Down(A, "reset"), LetIn(accept)]
    assert table(Probed(A, dial, True)) == []


def test_over_tcp_a_connected_name_is_asked_and_replaced_only_when_it_comes_up() -> None:
    for creation in (1, 2):
        table = Table(asks=True)
        dial = table.dial(A, named=True)
        late = table.number()
        table(DialUp(A, dial, 1))
        thief, young = table.number(), table.number()
        assert table(PeerNamed(A, thief, creation)) == [AskAlive(thief)]
        assert table(AcceptFailed(A, thief)) == [], "the channel stays"
        assert table(PeerNamed(A, late, 1)) == [Yield(late)], "left over from when both dialled"
        assert table(PeerNamed(A, young, creation)) == [AskAlive(young)]
        close, down, up = table(AcceptUp(A, young))
        assert isinstance(close, Close) and close.connection == dial and isinstance(down, Down)
        assert up == Up(A, young)


def test_who_was_asked_goes_on_when_the_channel_ends() -> None:
    table = Table(asks=True)
    dial = table.dial(A, named=True)
    table(DialUp(A, dial, 1))
    accept = table.number()
    table(PeerNamed(A, accept, 1))
    assert table(ChannelLost(A, dial, "reset")) == [Down(A, "reset")]
    assert table(Wanted(A)) == [Queue(A)], "no dial beside it"
    assert table(AcceptUp(A, accept)) == [Up(A, accept)]


def test_nobody_takes_our_own_name() -> None:
    table = Table()
    assert kinds(table(PeerNamed(B, table.number(), 1))) == [TurnAway]


def test_bounds() -> None:
    table = Table()
    for name in (A, C):
        assert kinds(table(PeerNamed(name, table.number(), 1))) == [LetIn]
    assert kinds(table(PeerNamed(Atom("d@host"), table.number(), 1))) == [Drop]
    for name in (Atom("e@host"), Atom("f@host")):
        table.dial(name)
    assert kinds(table(Wanted(Atom("g@host")))) == [GiveUp]
    assert len(table.machine.names) == 4


def test_after_the_stop_nothing_comes_up() -> None:
    table = Table()
    dial = table.dial(A)
    table(PeerNamed(C, table.number(), 1))
    assert kinds(table(Stopped())) == [Drop, GiveUp, Drop]
    assert table.machine.names == []
    assert table(Wanted(A)) == []
    assert kinds(table(PeerNamed(A, table.number(), 1))) == [Drop]
    assert kinds(table(DialUp(A, dial, 1))) == [Close]
    assert table.machine.names == []
