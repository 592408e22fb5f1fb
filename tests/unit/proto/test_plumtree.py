"""The rules of the broadcast, one by one; any order of events is in ``property/test_plumtree.py``."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from barrel_p2p.errors import ConfigError
from barrel_p2p.proto.hyparview_events import JoinFailed, Kind, Left, PeerDown, PeerLingers, PeerLost, PeerUp
from barrel_p2p.proto.plumtree import NO_ID, Plumtree, new_id
from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.proto.plumtree_events import (
    BroadcastRequested,
    Deliver,
    Fact,
    Gossip,
    Graft,
    Hint,
    IHave,
    Message,
    MessageReceived,
    Order,
    Prune,
    Send,
    StartTimer,
    TimerFired,
)

ONE, TWO = bytes(31) + b"1", bytes(31) + b"2"


class Node:
    """One node's broadcast; time passes with ``later`` and ``fire`` only."""

    def __init__(self, *eager: str, lazy: tuple[str, ...] = (), kind: Kind = "python", **settings: Any) -> None:
        self.machine = Plumtree("me", PlumtreeConfig(**settings))
        self.now = 100.0
        self.timers: dict[str, float] = {}
        self.orders: list[Order] = []
        for peer in (*eager, *lazy):
            self.tell(PeerUp(peer, kind))
        for peer in lazy:
            self.receive(peer, Prune())

    def tell(self, fact: Fact) -> None:
        self.orders = self.machine.handle(fact, now=self.now)
        for order in self.orders:
            if isinstance(order, StartTimer):
                self.timers[order.timer] = order.at

    def receive(self, peer: str, message: Message) -> None:
        self.tell(MessageReceived(peer, message))

    def fire(self, timer: Any) -> None:
        self.now = max(self.now, self.timers.pop(timer))
        self.tell(TimerFired(timer))

    @property
    def sent(self) -> list[tuple[str, Message]]:
        return [(order.peer, order.message) for order in self.orders if isinstance(order, Send)]

    @property
    def delivered(self) -> list[bytes]:
        return [order.id for order in self.orders if isinstance(order, Deliver)]

    def others(self) -> list[Order]:
        return [order for order in self.orders if not isinstance(order, StartTimer)]


def gossip(id: bytes, size: int = 10) -> Gossip:
    return Gossip(id, "tag", b"payload", size)


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_a_broadcast_goes_to_branches_in_full_and_is_announced_to_the_others() -> None:
    node = Node("a", "b", lazy=("c",))
    node.tell(BroadcastRequested(ONE, "tag", b"payload", 10))
    assert node.others() == [
        Deliver(ONE, "tag", b"payload", None),
        Send("a", gossip(ONE)),
        Send("b", gossip(ONE)),
        Send("c", IHave(ONE)),
    ]


def test_a_broadcast_is_passed_on_but_not_back() -> None:
    node = Node("a", "b", lazy=("c",))
    node.receive("a", gossip(ONE))
    assert node.others() == [Deliver(ONE, "tag", b"payload", "a"), Send("b", gossip(ONE)), Send("c", IHave(ONE))]


def test_who_brings_something_new_becomes_a_branch() -> None:
    node = Node("a", lazy=("c",))
    node.receive("c", gossip(ONE))
    assert node.machine.eager == ["a", "c"]


@pytest.mark.parametrize("kind", ["python", "erlang"])
def test_a_second_copy_prunes_its_link_on_both_sides(kind: Kind) -> None:
    node = Node("a", "b", kind=kind)
    node.receive("a", gossip(ONE))
    node.receive("b", gossip(ONE))
    assert node.others() == [Send("b", Prune())]
    assert (node.machine.eager, node.machine.lazy) == (["a"], ["b"])


def test_the_same_broadcast_again_from_the_user_is_ignored() -> None:
    node = Node("a")
    node.tell(BroadcastRequested(ONE, "tag", 1))
    node.tell(BroadcastRequested(ONE, "tag", 1))
    assert node.orders == []


def test_a_graft_makes_a_branch_and_is_answered_with_the_broadcast() -> None:
    node = Node("a", lazy=("c",))
    node.receive("a", gossip(ONE))
    node.receive("c", Graft(ONE))
    assert node.sent == [("c", gossip(ONE))]
    assert node.machine.eager == ["a", "c"]
    node.receive("c", Graft(TWO))
    assert node.sent == []


def test_an_erlang_neighbour_is_made_to_send_us_broadcasts() -> None:
    """It may have us in its view without its broadcast knowing of it."""
    node = Node()
    node.tell(PeerUp("x", "erlang"))
    assert node.sent == [("x", Graft(NO_ID))]


# --- repair -----------------------------------------------------------------------------------------------------------


def test_what_was_announced_and_does_not_come_is_asked_for_after_a_second() -> None:
    node = Node("a", lazy=("c",))
    node.receive("c", IHave(ONE))
    assert node.sent == []
    assert node.timers["graft"] == 101.0
    node.fire("graft")
    assert node.sent == [("c", Graft(ONE))]
    assert node.machine.eager == ["a", "c"]
    node.receive("c", gossip(ONE))
    assert node.delivered == [ONE]
    assert node.machine.missing == 0


def test_what_comes_in_time_is_not_asked_for() -> None:
    node = Node("a", lazy=("c",))
    node.receive("c", IHave(ONE))
    node.receive("a", gossip(ONE))
    node.fire("graft")
    assert node.sent == []


def test_announcers_are_asked_in_turn_then_again_with_more_patience() -> None:
    node = Node("a", lazy=("c", "d"), max_grafts=4)
    node.receive("c", IHave(ONE))
    node.receive("d", IHave(ONE))
    asked = []
    while "graft" in node.timers:
        node.fire("graft")
        asked += [(round(node.now - 100, 3), peer) for peer, _ in node.sent]
    assert asked == [(1.0, "c"), (1.5, "d"), (2.0, "c"), (3.0, "d")]
    assert node.machine.missing == 0


def test_an_announcer_that_is_gone_is_asked_last() -> None:
    node = Node("a", lazy=("c", "d"))
    node.receive("c", IHave(ONE))
    node.receive("d", IHave(ONE))
    node.tell(PeerDown("c", "nodedown"))
    node.fire("graft")
    assert node.sent == [("d", Graft(ONE))]


def test_two_that_are_overdue_are_asked_for_at_once() -> None:
    """The timer may be late: the loop was busy."""
    node = Node("a", lazy=("c",))
    node.receive("c", IHave(ONE))
    node.receive("c", IHave(TWO))
    node.now += 5.0
    node.fire("graft")
    assert node.sent == [("c", Graft(ONE)), ("c", Graft(TWO))]
    assert node.timers["graft"] == 105.5


def test_what_was_given_up_can_be_announced_again() -> None:
    node = Node("a", lazy=("c",), max_grafts=1)
    node.receive("c", IHave(ONE))
    while "graft" in node.timers:
        node.fire("graft")
    node.receive("c", IHave(ONE))
    node.fire("graft")
    assert node.sent == [("c", Graft(ONE))]


def test_a_new_neighbour_is_told_what_came_lately() -> None:
    node = Node("a", max_announced=2)
    for number in range(4):
        node.receive("a", gossip(bytes([number])))
    node.tell(PeerUp("b"))
    assert node.sent == [("b", IHave(b"\3")), ("b", IHave(b"\2"))]
    node.now += 31.0
    node.tell(PeerUp("c"))
    assert node.sent == []


def test_a_link_that_announces_much_earlier_becomes_a_branch_and_the_slower_one_is_pruned_by_the_next_copy() -> None:
    node = Node("a", lazy=("c",), optimize_ms=200)
    node.receive("c", IHave(ONE))
    node.now += 0.1
    node.receive("a", gossip(ONE))
    assert node.sent == [("c", IHave(ONE))]
    node.receive("c", IHave(TWO))
    node.now += 0.3
    node.receive("a", gossip(TWO))
    assert node.sent[-1] == ("c", Graft(NO_ID))
    assert node.machine.eager == ["a", "c"]
    node.receive("c", gossip(b"three"))
    node.receive("a", gossip(b"three"))
    assert node.sent == [("a", Prune())]


# --- neighbours and strangers -----------------------------------------------------------------------------------------


def test_one_that_is_gone_gets_nothing() -> None:
    for fact in (PeerDown("a", "dropped"), PeerLost("a")):
        node = Node("a", "b", lazy=("c",))
        node.tell(fact)
        node.tell(PeerLost("c"))
        node.tell(BroadcastRequested(ONE, "tag", 1))
        assert [peer for peer, _ in node.sent] == ["b"]


def test_after_leaving_nobody_gets_anything() -> None:
    node = Node("a", lazy=("c",))
    node.tell(Left())
    node.tell(BroadcastRequested(ONE, "tag", 1))
    assert node.sent == []
    assert node.delivered == [ONE]


def test_a_stranger_is_heard_but_does_not_become_a_branch() -> None:
    node = Node("a")
    node.receive("x", gossip(ONE))
    assert node.delivered == [ONE]
    assert Hint("x") in node.orders
    assert node.machine.eager == ["a"]
    node.receive("x", Prune())
    node.receive("x", Graft(ONE))
    assert ("x", gossip(ONE)) in node.sent
    assert (node.machine.eager, node.machine.lazy) == (["a"], [])


def test_an_erlang_node_that_lingers_hears_announcements_and_may_become_a_branch() -> None:
    node = Node("a")
    node.tell(PeerLingers("x"))
    node.tell(BroadcastRequested(ONE, "tag", 1))
    assert ("x", IHave(ONE)) in node.sent
    node.receive("x", Graft(ONE))
    assert node.machine.eager == ["a", "x"]
    node.tell(PeerLost("x"))
    assert node.machine.eager == ["a"]


def test_a_failed_join_means_nothing_to_it() -> None:
    node = Node("a")
    node.tell(JoinFailed("x", "no"))
    assert node.orders == []


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_ids_are_kept_for_five_minutes() -> None:
    node = Node("a")
    node.receive("a", gossip(ONE))
    while node.now < 100.0 + 295:
        if node.timers["cleanup"] > 100.0 + 295:
            node.now = 100.0 + 295
        else:
            node.fire("cleanup")
    node.receive("a", gossip(ONE))
    assert node.delivered == []
    node.fire("cleanup")
    assert "cleanup" not in node.timers
    node.receive("a", Graft(ONE))
    assert node.sent == []
    node.receive("a", gossip(ONE))
    assert node.delivered == [ONE]


def test_the_cache_is_bounded_by_count_and_bytes_and_ids_outlive_it() -> None:
    node = Node("a", max_cached=3, max_cache_bytes=100)
    for number in range(5):
        node.receive("a", gossip(bytes([number]), size=1))
    node.receive("a", Graft(b"\1"))
    assert node.sent == []
    node.receive("a", Graft(b"\2"))
    assert node.sent == [("a", gossip(b"\2", size=1))]
    node.receive("a", gossip(b"big", size=99))
    node.receive("a", Graft(b"\3"))
    assert node.sent == []
    node.receive("a", Graft(b"big"))
    assert len(node.sent) == 1
    node.receive("a", gossip(b"too big", size=101))
    assert node.delivered == [b"too big"]
    node.receive("a", gossip(b"\0"))
    assert node.delivered == []


def test_ids_are_bounded_by_count() -> None:
    node = Node("a", max_ids=10)
    for number in range(100):
        node.receive("a", gossip(bytes([number])))
    assert sum(node.machine.knows(bytes([number])) for number in range(100)) == 10


def test_a_flood_of_announcements_fills_a_quarter_of_the_room() -> None:
    node = Node("a", "b", max_missing=100)
    for number in range(1000):
        node.receive("a", IHave(number.to_bytes(4, "big")))
    assert node.machine.missing == 25
    node.receive("b", IHave(ONE))
    assert node.machine.missing == 26
    grafts = 0
    while "graft" in node.timers:
        node.fire("graft")
        grafts += len(node.sent)
    assert grafts == 26 * 8
    assert node.machine.missing == 0
    node.receive("a", IHave(TWO))
    assert node.machine.missing == 1


def test_announcers_of_one_broadcast_are_bounded() -> None:
    node = Node(*(f"p{number}" for number in range(100)), max_announcers=3, max_grafts=100)
    for number in range(100):
        node.receive(f"p{number}", IHave(ONE))
    asked = set()
    while "graft" in node.timers and node.now < 200:
        node.fire("graft")
        asked |= {peer for peer, _ in node.sent}
    assert asked == {"p0", "p1", "p2"}


def test_lingering_nodes_are_bounded() -> None:
    node = Node("a", max_strangers=10)
    for number in range(100):
        node.tell(PeerLingers(f"x{number}"))
    assert len(node.machine.lazy) == 10


def test_ids_are_long_and_follow_from_the_randomness() -> None:
    assert len(new_id(Random(1))) == 32
    assert new_id(Random(1)) == new_id(Random(1)) != new_id(Random(2))


@pytest.mark.parametrize("setting", ["graft_ms", "max_ids", "max_cached"])
def test_a_setting_that_makes_no_sense_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError) as error:
        PlumtreeConfig(**{setting: 0})
    assert error.value.option == setting
