"""The rules of the membership among Python nodes, one by one; for any order: ``property/test_hyparview.py``."""

from __future__ import annotations

import pytest

from barrel_p2p.errors import ConfigError
from barrel_p2p.proto.hyparview import HEARSAY
from barrel_p2p.proto.hyparview_config import MAX_LOST, HyParViewConfig
from barrel_p2p.proto.hyparview_events import (
    Disconnect,
    ForwardJoin,
    Join,
    JoinFailed,
    LeaveRequested,
    Left,
    Neighbor,
    NeighborReply,
    PeerDown,
    PeerUp,
    Release,
    Shuffle,
    ShuffleReply,
    StopTimer,
    TimerFired,
)
from harness.overlay import Node, full

A = full("a")
FIVE = ("a", "b", "c", "d", "e")


def names(*peers: str) -> tuple[str, ...]:
    return tuple(full(peer) for peer in peers)


# --- joining ----------------------------------------------------------------------------------------------------------


def test_joins_through_a_contact() -> None:
    node = Node()
    node.join("a")
    assert node.connects == ["a"]
    node.connected("a")
    assert node.sent("a") == [Join()]
    assert node.events == [PeerUp(A)]


def test_a_join_over_a_channel_that_is_there_needs_no_other() -> None:
    node = Node()
    node.connected("a")
    node.join("a")
    assert node.connects == []
    assert node.sent("a") == [Join()]


def test_a_join_that_fails_is_told() -> None:
    node = Node()
    node.join("a")
    node.failed("a")
    [event] = node.events
    assert isinstance(event, JoinFailed)
    assert event.peer == A


def test_a_join_that_takes_too_long_is_told() -> None:
    node = Node()
    node.join("a")
    node.fire("pending")
    assert [type(event) for event in node.events] == [JoinFailed]


def test_joining_oneself_or_a_neighbour_does_nothing() -> None:
    node = Node()
    node.neighbor("a")
    node.join("a")
    assert node.orders == []
    node.join("me")
    assert node.orders == []


def test_a_contact_takes_the_joiner_in_and_sends_a_walk_to_each_other_neighbour() -> None:
    node = Node()
    node.neighbor("a", "b")
    node.joined_by("j")
    assert node.active == ["a", "b", "j"]
    walk = ForwardJoin(full("j"), 6)
    assert node.all_sent == [("a", walk), ("b", walk)]


@pytest.mark.parametrize("seed", range(4))
def test_a_full_contact_drops_its_youngest_neighbour_for_a_joiner(seed: int) -> None:
    """A random one would leave it with the latest arrivals alone, and walks would end among them."""
    node = Node(seed=seed)
    node.neighbor(*FIVE)
    node.joined_by("j")
    assert node.active == ["a", "b", "c", "d", "j"]
    assert node.sent("e") == [Disconnect()]
    assert node.released == ["e"]
    assert "e" in node.passive
    assert node.events == [PeerDown(full("e"), "dropped"), PeerUp(full("j"))]


def test_a_join_again_and_again_sends_out_walks_once_a_second() -> None:
    node = Node()
    node.neighbor("a")
    node.joined_by("j")
    assert node.sent("a")
    node.receive("j", Join())
    assert not node.sent("a")
    node.later(1.0)
    node.receive("j", Join())
    assert node.sent("a")


# --- walks ------------------------------------------------------------------------------------------------------------


def test_a_walk_goes_on_to_a_random_neighbour_but_not_back_nor_to_the_joiner() -> None:
    node = Node()
    node.neighbor("a", "b", "j")
    node.receive("a", ForwardJoin(full("j"), 6))
    assert node.all_sent == [("b", ForwardJoin(full("j"), 5))]


def test_a_walk_leaves_the_name_where_three_hops_are_left() -> None:
    node = Node()
    node.neighbor(*FIVE)
    for ttl in (6, 5, 4, 2, 1):
        node.receive("a", ForwardJoin(full("j"), ttl))
        assert node.passive == []
    node.receive("a", ForwardJoin(full("j"), 3))
    assert node.passive == ["j"]


def test_the_end_of_a_walk_asks_the_joiner() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.receive("a", ForwardJoin(full("j"), 0))
    assert node.connects == ["j"]
    node.connected("j")
    assert node.sent("j") == [Neighbor(high=False)]
    assert len(node.active) == 5  # nobody goes before it said yes
    node.yes("j")
    assert "j" in node.active
    assert len(node.active) == 5
    assert [type(event) for event in node.events] == [PeerDown, PeerUp]


def test_a_joiner_that_says_no_costs_nobody_a_place() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.receive("a", ForwardJoin(full("j"), 0))
    node.connected("j")
    node.no("j")
    assert node.active == [*FIVE]
    assert node.released == ["j"]


def test_a_walk_ends_with_a_node_that_has_one_neighbour() -> None:
    node = Node()
    node.neighbor("a")
    node.receive("a", ForwardJoin(full("j"), 6))
    assert node.connects == ["j"]


def test_a_walk_that_comes_to_the_joiner_is_over() -> None:
    node = Node()
    node.neighbor("a", "b")
    node.receive("a", ForwardJoin("me@host", 3))
    assert node.orders == []


def test_a_walk_of_more_hops_than_ours_is_shortened() -> None:
    node = Node()
    node.neighbor("a", "b")
    node.receive("a", ForwardJoin(full("j"), 32))
    assert node.all_sent == [("b", ForwardJoin(full("j"), 5))]


def test_a_flood_of_walks_starts_a_bounded_number_of_attempts() -> None:
    node = Node()
    node.neighbor(*FIVE)
    attempts = 0
    for number in range(1000):
        node.receive("a", ForwardJoin(f"j{number}@host", 0))
        attempts += len(node.connects)
    assert attempts == 10
    assert len(node.passive) == 30


# --- NEIGHBOR ---------------------------------------------------------------------------------------------------------


def test_low_is_refused_without_room_and_high_never() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.connected("x")
    node.receive("x", Neighbor(high=False))
    assert node.all_sent == [("x", NeighborReply(False))]
    node.receive("x", Neighbor(high=True))
    assert node.sent("x") == [NeighborReply(True)]
    assert "x" in node.active
    assert len(node.active) == 5


def test_a_neighbour_that_asks_again_hears_yes_and_nothing_changes() -> None:
    node = Node()
    node.neighbor(*FIVE)
    for high in (True, False):
        node.receive("a", Neighbor(high))
        assert node.all_sent == [("a", NeighborReply(True))]
        assert node.events == []


def test_two_that_ask_each_other_at_once_are_neighbours_once() -> None:
    node = Node()
    node.neighbor("a")
    node.receive("a", ShuffleReply(names("x")))
    node.connected("x")
    assert node.sent("x") == [Neighbor(high=False)]
    node.receive("x", Neighbor(high=False))
    assert node.sent("x") == [NeighborReply(True)]
    assert node.events == [PeerUp(full("x"))]
    node.yes("x")
    assert node.orders == []


def test_a_yes_that_comes_when_the_place_is_taken_is_undone() -> None:
    """It has us in its view by then."""
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.receive("a", ShuffleReply(names("x")))
    node.connected("x")
    node.neighbor("e")
    node.yes("x")
    assert node.sent("x") == [Disconnect()]
    assert node.released == ["x"]
    assert node.active == [*FIVE]


def test_a_yes_that_nobody_waits_for_any_more_is_undone() -> None:
    node = Node()
    node.neighbor("a")
    node.receive("a", ShuffleReply(names("x")))
    node.connected("x")
    node.fire("pending")
    assert "x" not in node.active
    node.yes("x")
    assert node.sent("x") == [Disconnect()]


# --- filling places ---------------------------------------------------------------------------------------------------


def test_a_lost_neighbour_is_replaced_at_once() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.receive("a", ShuffleReply(names("x", "y")))
    node.lost("b")
    assert node.events == [PeerDown(full("b"), "nodedown")]
    assert len(node.connects) == 1
    assert node.connects[0] in ("x", "y")


def test_who_has_nobody_asks_with_high_priority() -> None:
    node = Node()
    node.neighbor("a")
    node.receive("a", ShuffleReply(names("x")))
    node.connected("x")
    node.no("x")
    node.later(60.0)
    node.lost("a")
    assert node.connects == []  # a is known to be gone; x is connected still
    assert node.sent("x") == [Neighbor(high=True)]


def test_as_many_are_tried_at_once_as_there_are_places() -> None:
    node = Node()
    node.neighbor("a", "b")
    node.receive("a", ShuffleReply(names("u", "v", "w", "x", "y")))
    assert len(node.connects) == 3


def test_the_next_is_tried_when_one_can_not_be_reached() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.receive("a", ShuffleReply(names("x", "y")))
    [first] = node.connects
    node.failed(first)
    [second] = node.connects
    assert {first, second} == {"x", "y"}


def test_one_that_fails_stays_a_candidate_waits_longer_each_time_and_is_forgotten_in_the_end() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.receive("a", ShuffleReply(names("x")))
    waits = []
    for _ in range(4):
        assert node.connects == ["x"]
        node.failed("x")
        failed_at = node.now
        while node.connects != ["x"]:
            node.later(0.1)
            node.tell(TimerFired("fill"))
        waits.append(node.now - failed_at)
    assert waits == sorted(waits)
    assert 1.5 <= waits[0] <= 2.7  # 2 s and a quarter of it either way, looked at each tenth of a second
    node.failed("x")
    assert "x" not in node.passive


def test_refusals_are_limited_while_there_is_a_neighbour() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.receive("a", ShuffleReply(names("u", "v", "w", "x", "y", "z")))
    asked = 0
    while node.connects:
        [peer] = node.connects
        node.connected(peer)
        asked += 1
        node.no(peer)
    assert asked == 2  # one more than there are free places
    node.fire("shuffle")
    assert Neighbor(high=False) in [message for _, message in node.all_sent] or node.connects


def test_one_that_was_dropped_does_not_ask_the_same_peer_at_once() -> None:
    node = Node()
    node.neighbor("a", "b")
    node.receive("a", Disconnect())
    assert node.events == [PeerDown(A, "graceful")]
    assert node.released == ["a"]
    assert node.passive == ["a"]
    assert node.connects == []


def test_one_that_was_dropped_by_its_only_neighbour_asks_it_again_after_a_second() -> None:
    node = Node()
    node.neighbor("a")
    node.receive("a", Disconnect())
    node.fire("fill")
    assert node.sent("a") == [Neighbor(high=True)]


def test_a_peer_that_connects_and_says_nothing_is_given_up() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.receive("a", ShuffleReply(names("x")))
    node.connected("x")
    start = node.now
    while "x" not in node.released:
        node.fire("pending")
    assert node.now - start == pytest.approx(5.0)


# --- shuffles ---------------------------------------------------------------------------------------------------------


def test_a_shuffle_tells_oneself_three_neighbours_and_four_others() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.receive("a", ShuffleReply(tuple(f"p{number}@host" for number in range(20))))
    node.fire("shuffle")
    [(target, shuffle)] = node.all_sent
    assert isinstance(shuffle, Shuffle)
    assert shuffle.ttl == 6
    assert shuffle.peers[0] == "me@host"
    assert len(set(shuffle.peers)) == 8
    assert full(target) not in shuffle.peers
    assert sum(peer in names(*FIVE) for peer in shuffle.peers) == 3


def test_a_shuffle_is_passed_on_unread_until_its_hops_are_over() -> None:
    node = Node()
    node.neighbor("a", "b")
    node.receive("a", Shuffle(2, names("x")))
    assert node.all_sent == [("b", Shuffle(1, names("x")))]
    assert node.passive == []


def test_the_end_of_a_shuffle_answers_with_as_many_names_and_takes_in_what_it_brought() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.receive("a", ShuffleReply(names("p", "q")))
    node.receive("b", Shuffle(0, names("x", "y", "z", "a", "me")))
    [(peer, reply)] = node.all_sent
    assert peer == "b"
    assert isinstance(reply, ShuffleReply)
    assert len(reply.peers) == 5
    assert {full("p"), full("q")} < set(reply.peers)
    assert full("b") not in reply.peers
    assert sorted(node.passive) == ["p", "q", "x", "y", "z"]


def test_a_full_passive_view_gives_up_first_what_it_sent() -> None:
    node = Node(passive_size=4)
    node.neighbor(*FIVE)
    node.receive("a", ShuffleReply(names("p", "q", "r", "s")))
    node.receive("b", Shuffle(0, names("x", "y")))
    [(_, reply)] = node.all_sent
    assert isinstance(reply, ShuffleReply)
    assert {full(peer) for peer in node.passive} == {*names("p", "q", "r", "s", "x", "y")} - {*reply.peers}


def test_a_shuffle_of_somebody_who_is_no_neighbour_is_answered_with_a_disconnect() -> None:
    """It takes us for a neighbour."""
    node = Node()
    node.connected("x")
    node.receive("x", Shuffle(3, names("x")))
    assert Disconnect() in node.sent("x")


def test_names_that_failed_are_not_told() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.receive("a", ShuffleReply(names("x")))
    node.failed("x")
    node.receive("b", Shuffle(0, names("y")))
    [reply] = [message for message in node.sent("b") if isinstance(message, ShuffleReply)]
    assert full("x") not in reply.peers


def test_a_name_nobody_mentions_for_five_minutes_is_forgotten() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.receive("a", ShuffleReply(names("old")))
    while node.now < 100.0 + 290.0:
        node.fire("shuffle")
    assert node.passive == ["old"]
    node.receive("a", ShuffleReply(names("new")))
    while node.now < 100.0 + 370.0:
        node.fire("shuffle")
    assert node.passive == ["new"]


@pytest.mark.parametrize(("joins", "period"), [(0, 10.0), (5, 10.0), (6, 5.0), (10, 5.0), (11, 2.0)])
def test_shuffles_come_faster_while_members_come_and_go(joins: int, period: float) -> None:
    node = Node()
    node.fire("shuffle")
    for number in range(joins):
        node.joined_by(f"j{number}")
    node.fire("shuffle")
    assert node.timers["shuffle"] - node.now == pytest.approx(period, rel=0.1)


# --- lost neighbours, contacts ----------------------------------------------------------------------------------------


def test_a_neighbour_that_was_lost_is_looked_for_again_and_gets_its_place_back() -> None:
    node = Node(max_fail_count=1)  # else it is tried as any candidate, too
    node.neighbor("a", "b", "c", "d", "e")
    node.lost("a")
    node.neighbor("f")
    lost_at = node.now
    while node.connects != ["a"]:
        node.fire("shuffle")
    assert 30.0 <= node.now - lost_at <= 101.0
    node.connected("a")
    assert node.sent("a") == [Neighbor(high=True)]
    node.yes("a")
    assert "a" in node.active
    assert len(node.active) == 5


def test_a_neighbour_that_said_goodbye_is_not_looked_for() -> None:
    node = Node(max_fail_count=1)
    node.neighbor(*FIVE)
    node.receive("a", Disconnect())
    node.lost("a")
    node.neighbor("f")
    for _ in range(40):
        node.fire("shuffle")
        assert node.connects == []


def test_the_latest_lost_neighbours_are_remembered() -> None:
    node = Node(max_fail_count=1)
    node.neighbor("a")
    for number in range(3 * MAX_LOST):
        node.neighbor(f"x{number}")
        node.lost(f"x{number}")
    tried = set()
    for _ in range(200):
        node.fire("shuffle")
        tried |= {*node.connects}
        for peer in node.connects:
            node.failed(peer)
    assert tried == {f"x{number}" for number in range(2 * MAX_LOST, 3 * MAX_LOST)}


def test_contacts_are_tried_until_one_has_been_a_neighbour() -> None:
    """Two nodes that find each other before their contacts answer would stay a cluster of their own."""
    node = Node(contact_nodes=names("c"))
    node.fire("contact")
    assert node.connects == ["c"]
    node.failed("c")
    node.joined_by("x")
    node.fire("contact")
    assert node.connects == ["c"]
    node.connected("c")
    assert "c" in node.active
    node.fire("contact")
    assert node.orders == []
    assert "contact" not in node.timers


def test_contacts_are_tried_one_after_the_other_before_there_is_a_pause() -> None:
    node = Node(contact_nodes=names("c", "d", "e"))
    node.fire("contact")
    tried = []
    while node.connects:
        [peer] = node.connects
        tried.append(peer)
        node.failed(peer)
    assert sorted(tried) == ["c", "d", "e"]
    node.fire("contact")
    assert len(node.connects) == 1


def test_a_contact_that_nobody_speaks_of_is_linked_to() -> None:
    """Of four contacts two and two may find each other: two clusters."""
    node = Node(contact_nodes=names("c", "d"))
    node.fire("contact")
    [first] = node.connects
    node.connected(first)
    joined_at = node.now
    other = "d" if first == "c" else "c"
    while not node.connects:
        node.fire("contact")
    assert node.now - joined_at >= 15.0
    assert node.connects == [other]
    node.connected(other)
    assert node.sent(other) == [Neighbor(high=True)]
    node.yes(other)
    node.fire("contact")
    assert "contact" not in node.timers


def test_a_contact_that_was_heard_of_is_left_alone() -> None:
    node = Node(contact_nodes=names("c", "d"))
    node.fire("contact")
    [first] = node.connects
    node.connected(first)
    node.neighbor("x", "y", "z", "w")
    node.receive(first, ShuffleReply(names("c", "d")))
    node.fire("contact")
    assert node.connects == []
    assert "contact" not in node.timers


def test_a_contact_never_stops_looking_for_the_others() -> None:
    """Of a cluster that was split for long, they may be all that one side still knows of the other."""
    node = Node(contact_nodes=names("c", "me"), passive_size=2)
    node.fire("contact")
    node.connected("c")
    node.neighbor("x")
    node.fire("contact")
    assert node.connects == []  # all is well
    node.lost("c")
    node.receive("x", ShuffleReply(names("p", "q")))  # there are more nodes than names that a node remembers
    for peer in node.connects:
        node.failed(peer)
    asked_at = node.now
    node.fire("contact")
    assert node.connects == ["c"]
    assert node.now - asked_at >= 100.0
    node.failed("c")
    node.fire("contact")
    assert node.connects == ["c"]


def test_a_contact_does_not_rely_on_hearsay_in_a_large_cluster() -> None:
    """The names of nodes that a split put out of reach go round for long where nobody needs a neighbour."""
    node = Node(contact_nodes=names("k", "me"), passive_size=2)
    node.fire("contact")
    node.connected("k")
    node.neighbor(*FIVE[:4])
    node.receive("k", Disconnect())
    node.neighbor("e")
    node.receive("a", ShuffleReply(names("k", "p")))
    assert node.active == list(FIVE) and node.passive == ["k", "p"]
    node.later(HEARSAY)
    node.fire("contact")
    assert node.sent("k") == [Neighbor(high=True)]


def test_a_node_that_lost_everybody_turns_to_its_contacts() -> None:
    node = Node(contact_nodes=names("c", "me"))
    node.fire("contact")
    node.connected("c")
    node.fire("contact")
    node.lost("c")
    node.fire("contact")
    assert node.connects == ["c"]


# --- leaving, and what comes late -------------------------------------------------------------------------------------


def test_leaving_tells_every_neighbour_and_stops_the_timers() -> None:
    node = Node()
    node.neighbor("a", "b")
    node.tell(LeaveRequested())
    assert node.all_sent == [("a", Disconnect()), ("b", Disconnect())]
    assert [order for order in node.orders if isinstance(order, Release)] == [Release(A), Release(full("b"))]
    assert node.events == [Left()]
    assert {order.timer for order in node.orders if isinstance(order, StopTimer)} >= {"shuffle", "fill", "pending"}
    assert node.active == node.passive == []


def test_after_leaving_nobody_gets_in() -> None:
    node = Node()
    node.neighbor("a")
    node.tell(LeaveRequested())
    node.receive("a", Neighbor(high=True))
    assert node.all_sent == [("a", NeighborReply(False))]
    node.receive("a", Join())
    assert node.all_sent == [("a", Disconnect())]
    node.receive("a", ForwardJoin(full("x"), 0))
    assert node.orders == []
    node.lost("a")
    assert node.orders == []


def test_a_node_that_left_may_join_again() -> None:
    node = Node()
    node.neighbor("a")
    node.tell(LeaveRequested())
    node.join("a")
    assert node.sent("a") == [Join()]
    assert node.active == ["a"]


def test_a_message_after_the_end_of_its_channel_is_ignored() -> None:
    node = Node()
    node.neighbor("a")
    node.lost("a")
    node.receive("a", Join())
    assert node.orders == []


@pytest.mark.parametrize("setting", ["active_size", "passive_size", "shuffle_period_ms"])
def test_a_setting_that_makes_no_sense_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError) as error:
        HyParViewConfig(**{setting: 0})
    assert error.value.option == setting
