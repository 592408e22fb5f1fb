"""The replica: what it says to whom, how little when all are equal, and what it makes of nonsense."""

from __future__ import annotations

import json
import random
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p.crdt.hlc import pack, to_term
from barrel_p2p.proto.leases import Heartbeat, Leases, MemberUp
from barrel_p2p.proto.map_state import MapState, Prune, Put, Remove
from barrel_p2p.proto.outflows import MAX_QUEUED, PARTS_PER_TURN
from barrel_p2p.proto.registry_events import NodeAlive, NodeDead, Register
from barrel_p2p.proto.registry_state import KEEP_DEAD_MS, RegistryState
from barrel_p2p.proto.replica import Replica
from barrel_p2p.proto.replica_events import (
    AwaitDrain,
    Broadcast,
    BroadcastReceived,
    DirectReceived,
    Drained,
    Fact,
    Notify,
    Order,
    PeerDown,
    PeerUp,
    Persist,
    SendTo,
    StartTimer,
    TimerFired,
    WriteAsked,
)
from barrel_p2p.proto.replicated import Applied, Replicated
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom, Pid

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "crdt.json").read_text())
A, B, C = Atom("a@h"), Atom("b@h"), Atom("c@h")
NOW = 1_795_337_344_000
REQUEST = (Atom("request_sync"), A)


def replica(name: Atom, state: Replicated, **options: Any) -> Replica:
    return Replica(name, state, rng=random.Random(1), **options)


def told(one: Replica, fact: Fact, *, at: float = 0.0) -> list[Order]:
    return one.handle(fact, now=at, wall_ms=NOW + round(at * 1000))


class Pair:
    """A replica on each of two nodes, and a channel between them that counts."""

    def __init__(self, one: Replicated, other: Replicated, **options: Any) -> None:
        self.sides = {A: replica(A, one, **options), B: replica(B, other, **options)}
        self.queue: deque[tuple[Atom, Fact]] = deque()
        self.bytes = self.messages = self.drains = 0
        self.words: list[str] = []
        self.at = 0.0

    def connect(self) -> None:
        for here, there in ((A, B), (B, A)):
            self.tell(here, PeerUp(there, python=True))

    def tell(self, name: Atom, fact: Fact) -> list[Order]:
        orders = told(self.sides[name], fact, at=self.at)
        for order in orders:
            if isinstance(order, SendTo):
                data = encode(order.message)
                self.bytes += len(data)
                self.messages += 1
                self.words.append(order.message[0])
                self.queue.append((order.peer, DirectReceived(name, decode(data))))
            elif isinstance(order, AwaitDrain):
                self.drains += 1
                self.queue.append((name, Drained(order.peer)))
        return orders

    def drive(self) -> None:
        self.bytes = self.messages = self.drains = 0
        self.words = []
        while self.queue:
            self.tell(*self.queue.popleft())
            assert self.messages < 10_000

    def anti_entropy(self, name: Atom) -> None:
        self.at += 60
        self.tell(name, TimerFired("anti_entropy"))
        self.drive()


def filled(name: Atom, *ranges: tuple[int, int, Atom]) -> MapState:
    """A map with the keys of some ranges, each written by a node."""
    state = MapState(name, NOW)
    for first, last, writer in ranges:
        for number in range(first, last):
            state.map.put(number, b"value", writer, pack(NOW, number + 1))
    return state


# --- writes -----------------------------------------------------------------------------------------------------------


def test_a_write_has_one_stamp_here_and_in_the_broadcast() -> None:
    state = MapState(A, NOW)
    one = replica(A, state, durable=True)
    orders = told(one, WriteAsked(Put(Atom("k"), Atom("v"))))
    entry = state.map.entry(Atom("k"))
    assert entry is not None
    delta = {Atom("k"): (Atom("value"), Atom("v"), {(A, to_term(entry.stamp)): True})}
    persist, broadcast, notify = orders
    assert persist == Persist(delta)
    assert broadcast == Broadcast((Atom("delta"), A, delta))
    assert isinstance(notify, Notify) and notify.changes[0].key == "k"
    assert told(one, BroadcastReceived(decode(encode(broadcast.payload)))) == []  # the echo


def test_a_broadcast_is_merged_persisted_and_told() -> None:
    one, other = replica(A, MapState(A, NOW)), replica(B, MapState(B, NOW), durable=True)
    for operation in (Put("k", 1), Remove("k")):
        [payload] = [o.payload for o in told(one, WriteAsked(operation)) if isinstance(o, Broadcast)]
        persist, notify = told(other, BroadcastReceived(decode(encode(payload))))
        assert isinstance(persist, Persist) and isinstance(notify, Notify)


def test_a_bad_write_changes_nothing_and_says_so() -> None:
    state = MapState(A, NOW, validator=lambda value: value != 5, max_entries=2)
    one = replica(A, state)
    bad: list[Any] = [Put("k", 5), Put("k", object()), Put({1}, 1), Put("k" * 5000, 1), Put("k", b"x" * (2 << 20))]
    for operation in bad:
        with pytest.raises(ValueError):
            told(one, WriteAsked(operation))
    told(one, WriteAsked(Put(1, 1)))
    told(one, WriteAsked(Put(2, 1)))
    with pytest.raises(ValueError, match="full"):
        told(one, WriteAsked(Put(3, 1)))
    assert sorted(state.map) == [1, 2]


def test_a_validator_also_looks_at_what_comes_in() -> None:
    one = replica(A, MapState(A, NOW, validator=lambda value: value % 2 == 0))
    for value in (1, "text", 2):
        [payload] = [
            o.payload for o in told(replica(B, MapState(B, NOW)), WriteAsked(Put(value, value)))
            if isinstance(o, Broadcast)
        ]  # fmt: skip
        told(one, BroadcastReceived(payload))
    assert one.refused == {"invalid_value": 1, "check_failed": 1}


# --- Erlang peers -----------------------------------------------------------------------------------------------------


def test_an_erlang_neighbour_is_sent_our_state_and_asked_for_its_own() -> None:
    state = filled(A, (0, 1, A))
    sync, request = told(replica(A, state), PeerUp(C, python=False))
    assert sync == SendTo(C, (Atom("full_sync"), A, {0: (Atom("value"), b"value", {(A, to_term(pack(NOW, 1))): True})}))
    assert request == SendTo(C, REQUEST)


def test_messages_of_an_erlang_node_are_understood() -> None:
    state = MapState(A, NOW)
    one = replica(A, state)
    _, sync = decode(bytes.fromhex(VECTORS["replica_sync"][1]["hex"]))
    _, request = decode(bytes.fromhex(VECTORS["replica_sync"][2]["hex"]))
    [notify] = told(one, DirectReceived(C, sync))
    assert isinstance(notify, Notify) and state.map.get(Atom("key1")) == b"value1"
    [answer] = told(one, DirectReceived(C, request))
    assert isinstance(answer, SendTo) and answer.peer == C and answer.message[2] == sync[2]


def test_a_state_of_tombstones_is_an_answer_too() -> None:
    one = replica(A, MapState(A, NOW))
    told(one, WriteAsked(Remove("k")))
    [answer] = told(one, DirectReceived(C, REQUEST))
    assert isinstance(answer, SendTo) and [entry[0] for entry in answer.message[2].values()] == ["tombstone"]


def test_anti_entropy_pulls_from_an_erlang_peer_and_comes_again() -> None:
    one = replica(A, MapState(A, NOW), anti_entropy_s=30.0)
    tidy, first = one.start(now=0.0)
    assert tidy == StartTimer("tidy", 5.0)
    assert isinstance(first, StartTimer) and 22.5 <= first.at <= 37.5
    told(one, PeerUp(C, python=False))
    timer, request = told(one, TimerFired("anti_entropy"), at=30.0)
    assert isinstance(timer, StartTimer) and 52.5 <= timer.at <= 67.5 and request == SendTo(C, REQUEST)
    told(one, PeerDown(C))
    assert len(told(one, TimerFired("anti_entropy"), at=60.0)) == 1


def test_an_erlang_node_that_brings_back_what_was_removed_is_told_by_broadcast() -> None:
    state = MapState(A, NOW)
    one = replica(A, state)
    old = next(o.payload[2] for o in told(one, WriteAsked(Put("k", 1))) if isinstance(o, Broadcast))
    told(one, WriteAsked(Remove("k")))
    told(one, TimerFired("tidy"), at=26 * 3600.0)
    assert state.map.tombstones == 0
    [answer] = told(one, DirectReceived(C, (Atom("full_sync"), C, decode(encode(old)))), at=26 * 3600.0)
    assert isinstance(answer, Broadcast) and "k" not in state.map and one.refused == {"removed_before": 1}
    theirs = MapState(C, NOW)
    theirs.merge(old, NOW)
    assert theirs.merge(answer.payload[2], NOW).changes[0].removed


# --- the disk ---------------------------------------------------------------------------------------------------------


def test_a_map_is_back_after_a_restart_with_its_clock_and_its_memory() -> None:
    state = MapState(A, NOW)
    one = replica(A, state, durable=True)
    testimony = decode(encode(state.testimony(NOW)))
    operations: list[Any] = [Put("k", 1), Put("gone", 2), Remove("gone"), Put("k", [2.0])]
    disk = [o.delta for op in operations for o in told(one, WriteAsked(op), at=1.0) if isinstance(o, Persist)]
    entry = state.map.entry("k")
    assert entry is not None

    again = MapState(A, NOW - 50_000)  # the wall clock went back meanwhile
    assert again.restore([decode(encode(delta)) for delta in disk], testimony, NOW - 50_000) == {}
    assert again.root() == state.root() and again.map.get("k") == [2.0] and again.map.tombstones == 1
    assert again.clock.now(NOW - 50_000) > entry.stamp
    assert again.seen.covers(A, entry.stamp) and again.seen.covers(A, pack(NOW, 1))


def test_a_broken_disk_gives_what_can_be_read() -> None:
    state = MapState(A, NOW)
    good = {1: (Atom("value"), 1, {(A, to_term(pack(NOW))): True})}
    assert state.restore([good, 5, {2: 3}], [b"nonsense"], NOW) == {"no_map": 1, "bad_shape": 1}
    assert dict(state.map.items()) == {1: 1}


# --- rounds between Python nodes --------------------------------------------------------------------------------------


def test_equal_replicas_exchange_a_few_bytes() -> None:
    pair = Pair(filled(A, (0, 5000, A)), filled(B, (0, 5000, A)))
    pair.connect()
    pair.drive()
    pair.anti_entropy(A)
    assert pair.words == ["agreed"] and pair.bytes < 60  # and the digest before it, as short


def test_who_was_away_for_long_is_equal_after_one_round_that_carries_the_difference() -> None:
    mine = filled(A, (0, 20_000, C), (30_000, 30_010, A))
    theirs = filled(B, (0, 20_000, C), (40_000, 40_010, B))
    theirs.map.remove(7, pack(NOW + 5))
    mine.map.put(8, b"newer", A, pack(NOW + 6))
    pair = Pair(mine, theirs)
    pair.connect()
    pair.drive()
    assert mine.root() == theirs.root() and 7 not in mine.map and theirs.map.get(8) == b"newer"
    assert len(mine.map) == 20_019
    assert pair.words.count("held") == 1 and pair.bytes < 30_000  # all of it would be 1.6 MB


@pytest.mark.parametrize("empty", [A, B])
def test_a_newcomer_gets_everything_in_parts_as_the_channel_drains(empty: Atom) -> None:
    states = {A: MapState(A, NOW), B: MapState(B, NOW)}
    full = B if empty == A else A
    states[full] = filled(full, (0, 20_000, full))
    pair = Pair(states[A], states[B])
    pair.connect()
    pair.drive()
    assert states[A].root() == states[B].root()
    assert pair.words.count("full_sync") == 20 and pair.drains == 20 // PARTS_PER_TURN
    pair.anti_entropy(A)
    assert pair.words == ["agreed"]


def test_a_removal_reaches_who_compares_with_a_copy_of_tombstones_alone() -> None:
    mine, theirs = MapState(A, NOW), MapState(B, NOW)
    pair = Pair(mine, theirs)
    mine.map.put("k", 1, A, pack(NOW + 1))
    theirs.map.put("k", 1, A, pack(NOW + 1))
    theirs.map.remove("k", pack(NOW + 2))
    pair.tell(A, PeerUp(B, python=True))
    pair.drive()
    assert "k" not in mine.map


def test_large_values_go_out_one_by_one() -> None:
    state = MapState(A, NOW)
    for number in range(10):
        state.put(number, b"x" * 300_000, NOW)
    pair = Pair(state, MapState(B, NOW))
    pair.connect()
    pair.drive()
    assert pair.words.count("full_sync") == 10 and pair.sides[B].refused == {}


def test_equal_copies_learn_what_the_other_has_seen() -> None:
    mine, theirs = MapState(A, NOW), MapState(B, NOW)
    pair = Pair(mine, theirs)
    pair.tell(A, WriteAsked(Put("k", 1)))
    entry = mine.map.entry("k")
    assert entry is not None and not theirs.seen.covers(A, entry.stamp)
    pair.connect()
    pair.drive()
    assert theirs.seen.covers(A, entry.stamp)
    pair.anti_entropy(A)
    assert pair.bytes < 60  # it was told a minute ago
    pair.at += 400
    pair.anti_entropy(A)
    assert pair.bytes > 100


def test_dropping_entries_voids_what_an_equal_copy_testifies() -> None:
    mine, theirs = filled(A, (0, 10, B)), filled(B, (0, 10, B))
    pair = Pair(mine, theirs)
    pair.connect()
    pair.tell(A, WriteAsked(Prune(B)))
    assert len(mine.map) == 0
    pair.drive()
    pair.anti_entropy(A)
    assert mine.root() == theirs.root() and len(mine.map) == 10


def test_two_maps_that_differ_in_everything_meet() -> None:
    mine, theirs = filled(A, (0, 20_000, A)), filled(B, (20_000, 40_000, B))
    pair = Pair(mine, theirs)
    pair.connect()
    pair.drive()
    assert mine.root() == theirs.root() and len(mine.map) == 40_000


@pytest.mark.parametrize("late", [A, B])
def test_a_replica_that_opens_after_its_neighbours_is_not_kept_waiting(late: Atom) -> None:
    """The other one's first digest found nobody, and its round is still open."""
    early = B if late == A else A
    states = {early: filled(early, (0, 50, C)), late: MapState(late, NOW)}
    pair = Pair(states[A], states[B])
    pair.tell(early, PeerUp(late, python=True))
    pair.queue.clear()
    pair.at += 1
    pair.tell(late, PeerUp(early, python=True))
    pair.drive()
    assert states[late].root() == states[early].root() and len(states[late].map) == 50


def test_a_lost_answer_does_not_stop_later_rounds() -> None:
    mine, theirs = filled(A, (0, 10, C)), filled(B, (0, 20, C))
    pair = Pair(mine, theirs)
    pair.connect()
    pair.queue.clear()
    pair.anti_entropy(A)
    assert mine.root() == theirs.root()


def test_who_asks_without_reading_is_sent_one_copy() -> None:
    one = replica(A, filled(A, (0, 20_000, A)))
    first = told(one, DirectReceived(B, (Atom("request_sync"), B)))
    assert len(first) == PARTS_PER_TURN + 1 and first[-1] == AwaitDrain(B)
    for _ in range(100):
        assert told(one, DirectReceived(B, (Atom("request_sync"), B))) == []
        assert told(one, DirectReceived(B, (Atom("digest"), B, 1, b"", None))) == []
    assert one.refused == {"copy_under_way": 100, "outflow_full": 100 - MAX_QUEUED + 1}
    told(one, PeerDown(B))
    assert told(one, Drained(B)) == []


# --- hostile peers ----------------------------------------------------------------------------------------------------

NONSENSE: list[Any] = [
    None, 5, (), (1,), [], {}, b"", Atom("full_sync"), (Atom("full_sync"),), (b"full_sync", B, {}),
    (Atom("full_sync"), B, 5), (Atom("full_sync"), B, {1: 2}), (Atom("request_sync"),), (Atom("digest"), B, 1, b""),
    (Atom("digest"), B, None, None, 5), (Atom("digest"), 1, [], [], [[[]]]),
    (Atom("digest"), B, 1, bytes(8), {B: 5, 7: (), C: (1, 2), A: (to_term(5), to_term(2**90))}),
    (Atom("agreed"), B, 1, {B: (to_term(9), to_term(1))}), (Atom("agreed"), B, [], None),
    (Atom("buckets"), B, 1, b"x"), (Atom("buckets"), B, 1, b""), (Atom("buckets"), B, 1, bytes(24)),
    (Atom("buckets"), B, 1, bytes(8 * 2048)), (Atom("buckets"), B, 1, []),
    (Atom("held"), B, 1, 3, []), (Atom("held"), B, 1, 16, [(16, b"")]), (Atom("held"), B, 1, 16, [(-1, b"")]),
    (Atom("held"), B, 1, 16, [(1, b"1234567")]), (Atom("held"), B, 1, 16, [1]), (Atom("held"), B, 1, 16, {1: b""}),
    (Atom("held"), B, 1, True, [(0, b"")]), (Atom("held"), B, 1, 1, [(0, b""), (0, b"")]),
    (Atom("held"), B, 1, 16, [(1, bytes(800))]), (Atom("held"), B, 1, 1 << 80, []),
    (Atom("wanted"), B, 1, b"1234567"), (Atom("wanted"), B, 1, [1]), (Atom("wanted"), B, 1, bytes(800)),
]  # fmt: skip


@pytest.mark.parametrize("make", [lambda: filled(A, (0, 100, A)), lambda: RegistryState(A, NOW), lambda: Leases(A)])
def test_nonsense_is_counted_and_harmless(make: Any) -> None:
    one = replica(A, make())
    for peer in (B, C):
        for message in NONSENSE * 2:
            told(one, DirectReceived(peer, message))
            told(one, BroadcastReceived(message))
            told(one, BroadcastReceived((Atom("delta"), 5, message)))
            told(one, BroadcastReceived((Atom("custom"), B, message)))
        told(one, PeerUp(B, python=True))  # now with a round under way, whose number is guessed below
    for number in range(5):
        for message in NONSENSE:
            if message.__class__ is tuple and len(message) > 2:
                told(one, DirectReceived(B, (*message[:2], number, *message[3:])))
    assert len(one.refused) < 20 and sum(one.refused.values()) > 100
    told(one, TimerFired("tidy"))
    told(one, TimerFired("anti_entropy"))


# --- other kinds of state ---------------------------------------------------------------------------------------------


def test_leases_are_pulled_whole() -> None:
    pair = Pair(Leases(A), Leases(B))
    pair.connect()
    pair.drive()
    assert pair.words.count("full_sync") == 2  # the answers to both requests
    for name in (A, B):
        leases = pair.sides[name]._state
        assert isinstance(leases, Leases) and leases.members() == [A, B]
    (broadcast,) = pair.tell(A, WriteAsked(Heartbeat()))
    [notify] = told(replica(C, Leases(C)), BroadcastReceived(broadcast.payload))  # type: ignore[union-attr]
    assert notify == Notify([MemberUp(A)])


def test_a_registry_asks_a_node_that_came_back_from_the_dead() -> None:
    pair = Pair(RegistryState(A, NOW), RegistryState(B, NOW))
    pair.tell(B, WriteAsked(Register("db", Pid(B, 1, 0, 1))))
    pair.connect()
    pair.drive()
    pair.tell(A, WriteAsked(NodeDead(B)))
    pair.at = KEEP_DEAD_MS / 1000 + 1
    pair.tell(A, TimerFired("tidy"))
    mine = pair.sides[A]._state
    assert isinstance(mine, RegistryState) and len(mine) == 0
    pair.tell(A, WriteAsked(NodeAlive(B)))
    pair.drive()
    assert [found.node for found in mine.lookup("db")] == [B]


class Counter:
    """A user's own CRDT: a grow-only counter, one number per node."""

    def __init__(self, node: Atom) -> None:
        self.node, self.counts = node, {node: 0}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def write(self, operation: int, wall_ms: int) -> Applied:
        self.counts[self.node] += operation
        return Applied(changes=[self.total], broadcast=[{self.node: self.counts[self.node]}])

    def merge(self, delta: Any, wall_ms: int) -> Applied:
        before = self.total
        for node, count in delta.items():
            self.counts[node] = max(count, self.counts.get(node, 0))
        return Applied(changes=[self.total] if self.total != before else [])

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        return Applied()

    def snapshot(self, wall_ms: int, *, python: bool) -> Any:
        yield dict(self.counts)

    def tidy(self, wall_ms: int) -> Applied:
        return Applied()

    def comparable(self) -> None:
        return None


def test_a_users_own_type_replicates() -> None:
    one, other = Counter(A), Counter(B)
    pair = Pair(one, other)
    pair.tell(A, WriteAsked(3))
    pair.tell(B, WriteAsked(4))
    pair.connect()
    pair.drive()
    assert one.total == other.total == 7
