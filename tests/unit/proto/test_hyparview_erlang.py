"""What the membership does, and never does, towards an Erlang node: the ten rules at the head of ``hyparview``."""

from __future__ import annotations

from barrel_p2p.proto.hyparview_events import (
    Disconnect,
    ForwardJoin,
    Join,
    JoinFailed,
    LeaveRequested,
    Neighbor,
    NeighborReply,
    PeerDown,
    PeerLingers,
    PeerUp,
    Release,
    Shuffle,
    ShuffleReply,
    TrafficSeen,
)
from harness.overlay import Node, full

LOW = Neighbor(high=False)
FIVE = ("a", "b", "c", "d", "e")


def joining(**settings: object) -> Node:
    """A node that asked the Erlang contact ``c``."""
    node = Node(**settings)
    node.join("c")
    node.connected("c", "erlang")
    assert node.all_sent == [("c", LOW)]
    return node


def names(*peers: str) -> tuple[str, ...]:
    return tuple(full(peer) for peer in peers)


# --- 1. joining -------------------------------------------------------------------------------------------------------


def test_1_a_contact_with_room_is_asked_and_no_join_is_sent() -> None:
    node = joining()
    node.yes("c")
    assert node.events == [PeerUp(full("c"), "erlang")]
    assert node.all_sent == []


def test_1_a_contact_that_never_stops_telling_names_is_remembered_for_some() -> None:
    node = joining()
    node.no("c")
    for number in range(100):
        node.receive("c", ShuffleReply(names(*(f"x{number}-{n}" for n in range(64)))))
    assert len(node.machine._pending[full("c")].names) == 3 * 64


def test_1_a_full_contact_is_asked_for_names() -> None:
    """It answers with as many as it is sent; ours, which it has or may have, is all that is told."""
    node = joining()
    node.no("c")
    assert node.all_sent == [("c", Shuffle(0, ("me@host",) * 8))]
    node.receive("c", ShuffleReply(names("x", "y")))
    assert sorted(node.connects) == ["x", "y"]
    node.connected("x", "erlang")
    assert node.sent("x") == [LOW]
    node.yes("x")
    assert node.active == ["x"]
    node.fire("pending")
    assert Join() not in node.sent("c")
    assert node.events == []


def test_1_join_is_the_last_resort() -> None:
    node = joining()
    node.no("c")
    rounds = 1
    while node.sent("c") != [Join()]:
        node.receive("c", ShuffleReply(()))
        node.fire("pending")
        rounds += node.sent("c") == [Shuffle(0, ("me@host",) * 8)]
    assert rounds == 3
    assert node.events == [PeerUp(full("c"), "erlang")]


def test_1_others_that_joined_us_meanwhile_do_not_replace_the_contact() -> None:
    node = joining()
    node.joined_by("x")
    node.no("c")
    node.receive("c", ShuffleReply(()))
    while node.sent("c") != [Join()]:
        node.fire("pending")


def test_1_no_second_join_on_the_same_channel() -> None:
    node = joining()
    node.no("c")
    while node.sent("c") != [Join()]:
        node.fire("pending")
    node.receive("c", Disconnect())
    node.join("c")
    joins = 0
    for _ in range(10):
        joins += node.sent("c").count(Join())
        if "pending" not in node.timers:
            break
        node.fire("pending")
    assert joins == 0
    assert JoinFailed in [type(event) for event in node.events]
    node.lost("c")
    node.join("c")
    node.connected("c", "erlang")
    node.no("c")
    while node.sent("c") != [Join()]:  # another channel, another time
        node.fire("pending")


# --- 2 and 3. first the channel, then NEIGHBOR ------------------------------------------------------------------------


def test_2_the_end_of_a_walk_connects_asks_and_makes_the_link_symmetric() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.receive("a", ForwardJoin(full("j"), 0))
    assert node.connects == ["j"]
    assert node.all_sent == []
    node.connected("j", "erlang")
    assert node.all_sent == [("j", LOW)]
    node.yes("j")
    assert "j" in node.active


def test_3_a_candidate_is_asked_once_it_is_connected() -> None:
    node = Node()
    node.neighbor("a")
    node.receive("a", ShuffleReply(names("x")))
    assert node.connects == ["x"]
    assert node.all_sent == []
    node.connected("x", "erlang")
    assert node.sent("x") == [LOW]
    assert "x" not in node.active
    node.yes("x")
    assert "x" in node.active


# --- 4. NEIGHBOR is answered ------------------------------------------------------------------------------------------


def test_4_its_neighbor_is_answered_at_once_and_told() -> None:
    node = Node()
    node.connected("x", "erlang")
    node.receive("x", LOW)
    assert node.all_sent == [("x", NeighborReply(True))]
    assert node.events == [PeerUp(full("x"), "erlang")]


def test_4_without_room_it_is_refused() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.connected("x", "erlang")
    node.receive("x", LOW)
    assert node.all_sent == [("x", NeighborReply(False))]


# --- 5. no DISCONNECT, no high ----------------------------------------------------------------------------------------


def test_5_it_is_dropped_without_a_word_and_lingers() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.neighbor("x", kind="erlang")
    node.joined_by("j")
    assert node.sent("x") == []
    assert node.released == []
    assert node.events == [PeerDown(full("x"), "dropped"), PeerLingers(full("x")), PeerUp(full("j"))]


def test_5_one_that_lingers_is_taken_back_without_asking_for_an_answer() -> None:
    """It has us already; whether it says yes or no to NEIGHBOR means nothing."""
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.neighbor("x", kind="erlang")
    node.joined_by("j")
    for peer in ("a", "b", "c", "d", "j"):
        node.later(30.0)
        node.lost(peer)
    assert "x" in node.active


def test_5_a_node_without_neighbours_asks_it_low() -> None:
    node = Node()
    node.neighbor("a")
    node.receive("a", ShuffleReply(names("x")))
    node.connected("x", "erlang")
    node.no("x")
    node.later(60.0)
    node.lost("a")
    assert node.all_sent == [("x", LOW)]


def test_5_a_lost_one_is_looked_for_and_asked_low() -> None:
    node = Node(max_fail_count=1)
    node.neighbor("a", "b", "c", "d")
    node.neighbor("x", kind="erlang")
    node.lost("x")
    while node.connects != ["x"]:
        node.fire("shuffle")
    node.connected("x", "erlang")
    assert node.sent("x") == [LOW]


def test_5_a_yes_that_comes_late_leaves_it_lingering() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.receive("a", ShuffleReply(names("x")))
    node.connected("x", "erlang")
    node.neighbor("e")
    node.yes("x")
    assert node.all_sent == []
    assert node.events == [PeerLingers(full("x"))]


def test_5_leaving_closes_the_channel_and_says_nothing() -> None:
    node = Node()
    node.neighbor("a")
    node.neighbor("x", "y", kind="erlang")
    node.tell(LeaveRequested())
    assert node.all_sent == [("a", Disconnect())]
    assert [order for order in node.orders if isinstance(order, Release)] == [
        Release(full("a")),
        Release(full("x"), close=True),
        Release(full("y"), close=True),
    ]


def test_5_leaving_closes_the_channel_of_one_that_lingers_too() -> None:
    node = Node()
    node.neighbor("a", "b", "c", "d")
    node.neighbor("x", kind="erlang")
    node.joined_by("j")
    node.tell(LeaveRequested())
    assert Release(full("x"), close=True) in node.orders


# --- 6. the refresh ---------------------------------------------------------------------------------------------------


def test_6_each_shuffle_reminds_it_of_us_and_a_no_means_nothing() -> None:
    node = Node()
    node.neighbor("a")
    node.neighbor("x", "y", kind="erlang")
    node.fire("shuffle")
    assert [message for message in node.sent("x") if isinstance(message, Neighbor)] == [LOW]
    assert [message for message in node.sent("y") if isinstance(message, Neighbor)] == [LOW]
    assert not any(isinstance(message, Neighbor) for message in node.sent("a"))
    node.no("x")
    node.yes("y")
    assert node.active == ["a", "x", "y"]
    assert node.orders == []


# --- 7. after leaving -------------------------------------------------------------------------------------------------


def test_7_after_leaving_it_is_refused() -> None:
    node = Node()
    node.neighbor("x", kind="erlang")
    node.tell(LeaveRequested())
    for message in (LOW, Neighbor(high=True)):
        node.receive("x", message)
        assert node.all_sent == [("x", NeighborReply(False))]
    for message in (Join(), Shuffle(3, names("y")), ForwardJoin(full("y"), 0), Disconnect()):
        node.receive("x", message)
        assert node.orders == []


# --- 8. hints ---------------------------------------------------------------------------------------------------------


def test_8_traffic_of_a_stranger_makes_us_ask_it_once_a_period() -> None:
    node = Node()
    node.connected("x", "erlang")
    asked = 0
    for _ in range(100):
        node.tell(TrafficSeen(full("x")))
        asked += len(node.sent("x"))
        node.no("x")
        node.later(0.2)
    assert asked == 2


def test_8_traffic_does_not_matter_without_room_nor_from_a_python_node() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.connected("x", "erlang")
    node.tell(TrafficSeen(full("x")))
    assert node.orders == []
    node.lost("a")
    node.connected("y", "python")
    node.tell(TrafficSeen(full("y")))
    assert node.sent("y") == []


def test_8_a_stranger_that_shuffles_has_us_in_its_view() -> None:
    node = Node()
    node.connected("x", "erlang")
    node.receive("x", Shuffle(3, names("y")))
    assert "x" in node.active
    assert PeerUp(full("x"), "erlang") in node.events


def test_8_a_stranger_that_shuffles_lingers_if_there_is_no_room() -> None:
    node = Node()
    node.neighbor(*FIVE)
    node.connected("x", "erlang")
    node.receive("x", Shuffle(0, names("y")))
    assert node.events == [PeerLingers(full("x"))]
    assert not any(isinstance(message, Disconnect) for message in node.sent("x"))
    node.receive("x", Shuffle(0, names("z")))
    assert node.events == []


# --- 9 and 10. hops and names -----------------------------------------------------------------------------------------


def test_9_a_walk_from_it_is_shortened() -> None:
    node = Node()
    node.neighbor("x", kind="erlang")
    node.neighbor("a")
    node.receive("x", ForwardJoin(full("j"), 32))
    assert node.all_sent == [("a", ForwardJoin(full("j"), 5))]


def test_10_no_walk_ends_at_an_erlang_node() -> None:
    """It would put the joiner into its passive view and nothing else."""
    node = Node()
    node.neighbor("a")
    node.neighbor("x", kind="erlang")
    node.receive("a", ForwardJoin(full("j"), 2))
    assert node.all_sent == [("x", ForwardJoin(full("j"), 1))]
    node.receive("a", ForwardJoin(full("j"), 1))
    assert node.all_sent == []
    assert node.connects == ["j"]


def test_10_no_name_but_our_own_is_told() -> None:
    node = Node()
    node.neighbor("x", kind="erlang")
    node.receive("x", ShuffleReply(names("p", "q", "r")))
    node.receive("x", Shuffle(3, names("y", "z")))
    told = [message.peers for message in node.sent("x") if isinstance(message, Shuffle | ShuffleReply)]
    assert told == [()]
    node.fire("shuffle")
    [shuffle] = [message for message in node.sent("x") if isinstance(message, Shuffle)]
    assert shuffle == Shuffle(0, ("me@host",) * 8)


def test_10_what_it_tells_goes_on_to_python_nodes_only() -> None:
    node = Node()
    node.neighbor("x", "y", kind="erlang")
    node.receive("x", Shuffle(3, names("p")))
    assert {peer for peer, _ in node.all_sent} == {"x"}
    node.neighbor("a")
    node.receive("x", Shuffle(3, names("q")))
    assert {peer for peer, _ in node.all_sent} == {"x", "a"}
