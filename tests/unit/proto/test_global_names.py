"""The machine of ``global`` alone: what it says to a peer, what it refuses, what it forgets."""

from __future__ import annotations

import random
from typing import Any

import pytest

from barrel_p2p.proto import global_core, global_locker, global_sessions, global_strands, global_tables
from barrel_p2p.proto import global_events as event
from barrel_p2p.proto.global_core import pid_order
from barrel_p2p.proto.global_names import GlobalNames
from barrel_p2p.proto.global_tables import key_of
from barrel_p2p.term.types import Atom, Export, Pid

ME = Atom("me@h")
PEER = Atom("peer@h")
THIRD = Atom("third@h")
SERVER = Pid(ME, 5, 0, 1)
HIS = Pid(PEER, 7, 0, 1)
METHOD = Export(Atom("global"), Atom("random_exit_name"), 3)
GLOBAL = Atom("global")


class Story:
    """One machine, and a test that plays the rest of the world."""

    def __init__(self, *, mesh: bool = True) -> None:
        self.machine = GlobalNames(ME, SERVER, 1, mesh=mesh, rng=random.Random(1))
        self.now = 0.0
        self.wake: float | None = None
        self.orders: list[event.Order] = []
        self.pids = 100

    def tell(self, fact: event.Fact) -> list[event.Order]:
        """Give a fact; what it orders, timers apart."""
        orders = []
        for order in self.machine.handle(fact, now=self.now):
            if isinstance(order, event.WakeAt):
                self.wake = order.at
            else:
                orders.append(order)
        self.orders += orders
        return orders

    def wait(self, seconds: float) -> list[event.Order]:
        """Let time pass; all that is ordered meanwhile."""
        end, orders = self.now + seconds, []
        while self.wake is not None and self.wake <= end:
            self.now, self.wake = max(self.now, self.wake), None
            orders += self.tell(event.Woken())
        self.now = end
        return orders

    def cast(self, *message: Any) -> list[event.Order]:
        return self.tell(event.CastIn(tuple([Atom(m) if i == 0 else m for i, m in enumerate(message)])))

    def inform(self, *message: Any) -> list[event.Order]:
        return self.tell(event.Told(tuple([Atom(m) if i == 0 else m for i, m in enumerate(message)])))

    def call(self, sender: Pid, *request: Any) -> Any:
        """The reply to a call, or None."""
        term = tuple([Atom(r) if i == 0 else r for i, r in enumerate(request)])
        for order in self.tell(event.Called((sender, Atom("tag")), term if len(term) > 1 else term[0])):
            if isinstance(order, event.Reply):
                return order.value
        return None

    def pid(self, node: Atom = PEER) -> Pid:
        self.pids += 1
        return Pid(node, self.pids, 0, 1)

    def answer(self, orders: list[event.Order], value: Any = True) -> list[event.Order]:
        """Answer every call in ``orders``, and what they lead to."""
        result = list(orders)
        forgotten = [order.call for order in orders if isinstance(order, event.ForgetCall)]
        for order in orders:
            if isinstance(order, event.Call) and order.call not in forgotten:
                result += self.answer(self.tell(event.Answered(order.call, value)), value)
        return result

    def meet(self, peer: Atom = PEER, version: int = 8, names: Any = (), kin: bool = False) -> list[event.Order]:
        """Go through a session with a peer, who lets us begin; it knows nobody."""
        (init,) = self.tell(event.NodeUp(peer, kin))
        assert isinstance(init, event.Cast)
        tag = init.message[1][1]
        his = Pid(peer, 7, 0, 1)
        self.cast("init_connect", (version, 55), peer, (Atom("locker"), Atom("x"), {}, his))
        orders = self.answer(self.wait(4))
        lock_sets = [o.message for o in casts(orders, "lock_set")]
        assert lock_sets and lock_sets[0][1:3] == (SERVER, True)
        more = self.cast("lock_set", his, True, [], *([tag] if version >= 8 else []))
        assert casts(more, "exchange")
        more = self.cast("exchange", peer, list(names), [], tag)
        (resolved,) = casts(more, "resolved")
        assert resolved.node == peer and resolved.message[-1] == 55
        return self.cast("resolved", peer, [], [], Atom("unused"), [], tag)


def casts(orders: list[event.Order], kind: str) -> list[event.Cast]:
    return [order for order in orders if isinstance(order, event.Cast) and order.message[0] == kind]


def tells(orders: list[event.Order], kind: str) -> list[event.Tell]:
    return [order for order in orders if isinstance(order, event.Tell) and order.message[0] == kind]


def test_terms_that_erlang_takes_for_one_are_one_name() -> None:
    assert key_of("x") == key_of(b"x") != key_of(Atom("x"))
    assert key_of(("a", ["b", {"c": 1}])) == key_of((b"a", [b"b", {b"c": 1}]))
    assert len({key_of(1), key_of(1.0), key_of(True)}) == 3


def test_pids_are_ordered_as_erlang_orders_them() -> None:
    """Measured with OTP 25: serial, number, node, creation."""
    a, b = Atom("a@h"), Atom("b@h")
    ordered = [Pid(b, 1, 0, 1), Pid(a, 2, 0, 1), Pid(a, 7, 0, 1), Pid(a, 7, 0, 2), Pid(b, 7, 0, 1), Pid(a, 1, 1, 1)]
    mixed = list(ordered)
    random.Random(1).shuffle(mixed)
    assert sorted(mixed, key=pid_order) == ordered


@pytest.mark.parametrize("version", [7, 8, 9])
def test_a_session_ends_with_the_names_of_both_and_no_lock(version: int) -> None:
    story = Story()
    theirs = story.pid()
    story.meet(version=version, names=[(Atom("x"), theirs, METHOD)])
    assert story.machine.whereis(Atom("x")) == theirs
    assert story.machine.known == [PEER]
    assert not story.machine.locked
    assert event.Monitor in [type(order) for order in story.orders]
    ends = [o.request for o in story.orders if isinstance(o, event.Call) and o.request[0] == "del_lock"]
    assert ends == [(Atom("del_lock"), (GLOBAL, [SERVER, HIS]))]


def test_a_peer_of_version_7_gets_the_messages_it_knows() -> None:
    story = Story()
    story.meet(version=7)
    assert [len(o.message) for o in casts(story.orders, "lock_set")] == [4]
    assert not tells(story.orders, "init_connect_ack")
    story = Story()
    story.meet()
    assert [len(o.message) for o in casts(story.orders, "lock_set")] == [5]
    assert tells(story.orders, "init_connect_ack")[0].message[1:] == (
        ME,
        55,
        casts(story.orders, "init_connect")[0].message[1][1],
    )


def test_a_node_that_takes_no_part_is_not_answered() -> None:
    story = Story()
    assert story.cast("init_connect", (8, 1), PEER, (Atom("locker"), Atom("x"), {}, HIS)) == []
    assert story.call(HIS, "set_lock", (GLOBAL, HIS)) is None
    assert not story.machine.locked
    assert story.call(HIS, "register", Atom("x"), HIS, Atom("none")) is None
    mine, other = (Atom("res"), Atom("a")), (Atom("res"), Atom("b"))
    assert story.call(HIS, "set_lock", mine) is True, "but for a lock that has nothing to do with names"
    assert story.call(HIS, "set_lock", other) is False
    assert story.call(HIS, "del_lock", mine) is True
    assert story.call(HIS, "set_lock", other) is True


def test_a_third_node_is_told_of_new_nodes_before_the_lock_goes() -> None:
    story = Story()
    story.meet(THIRD)
    orders = story.meet(PEER)
    kinds = [
        o.message[0] if isinstance(o, event.Cast) else o.request[0]
        for o in orders
        if isinstance(o, (event.Cast, event.Call)) and o.node == THIRD
    ]
    assert kinds == ["new_nodes", "del_lock"]
    (told,) = casts(orders, "new_nodes")
    assert told.message[4] == [(PEER, 8)] and (Atom("lock"), (GLOBAL, [SERVER, HIS])) in told.message[5]


def test_nodes_that_a_peer_knows_are_connected_to_and_told() -> None:
    story = Story()
    story.meet()
    lock = (GLOBAL, HIS)
    orders = story.cast("new_nodes", PEER, [], [], [(THIRD, 8)], [(Atom("lock"), lock)])
    assert event.Connect(THIRD) in orders and THIRD in story.machine.known
    story.tell(event.NodeUp(THIRD))
    assert casts(story.tell(event.Connected(THIRD, True)), "in_sync") == [
        event.Cast(THIRD, (Atom("in_sync"), ME, True))
    ]


def test_a_known_node_that_cannot_be_reached_is_forgotten_and_not_held_against_it() -> None:
    story = Story()
    story.meet()
    story.cast("new_nodes", PEER, [], [], [(THIRD, 8)], [])
    orders = story.tell(event.Connected(THIRD, False))
    assert story.machine.known == [PEER]
    assert not tells(orders, "lost_connection")


def test_a_wrong_ack_begins_the_session_anew() -> None:
    story = Story()
    (init,) = story.tell(event.NodeUp(PEER))
    assert isinstance(init, event.Cast)
    story.cast("init_connect", (8, 55), PEER, (Atom("locker"), Atom("x"), {}, HIS))
    orders = story.inform("init_connect_ack", PEER, 12345, 55)
    assert tells(orders, "cancel_connect")
    (again,) = casts(orders, "init_connect")
    assert again.message[1][1] > init.message[1][1]


def test_a_session_that_does_not_end_is_begun_anew_and_gives_the_lock_back() -> None:
    story = Story()
    (init,) = story.tell(event.NodeUp(PEER))
    assert isinstance(init, event.Cast)
    story.cast("init_connect", (8, 55), PEER, (Atom("locker"), Atom("x"), {}, HIS))
    story.answer(story.wait(1))
    story.cast("lock_set", HIS, True, [], init.message[1][1])
    assert story.machine.locked
    orders = story.wait(global_sessions.SESSION_SECONDS + global_sessions.GRACE_SECONDS)
    assert not story.machine.locked
    assert tells(orders, "cancel_connect") == [event.Tell(PEER, (Atom("cancel_connect"), ME, 55))]
    assert casts(orders, "init_connect")


def test_a_peer_that_never_answers_lock_set_is_given_up_for_the_moment() -> None:
    story = Story()
    story.tell(event.NodeUp(PEER))
    story.cast("init_connect", (8, 55), PEER, (Atom("locker"), Atom("x"), {}, HIS))
    story.answer(story.wait(0.5))
    assert story.machine.locked
    story.wait(global_locker.AGREE_SECONDS)
    assert not story.machine.locked


def test_a_peer_that_does_not_answer_calls_refuses() -> None:
    story = Story()
    story.meet()
    story.tell(event.RegisterAsked(1, "x", story.pid(ME), METHOD))
    orders = story.wait(global_strands.CALL_SECONDS)
    assert not story.machine.locked
    assert [o for o in orders if isinstance(o, event.Call) and o.request[0] == "del_lock"]
    assert event.Done(1, True) not in story.orders


def test_a_lock_goes_with_its_holder_and_what_it_ordered_comes_to_nothing() -> None:
    story = Story()
    story.meet()
    holder, named = story.pid(), story.pid()
    assert story.call(holder, "set_lock", (GLOBAL, holder)) is True
    assert story.call(HIS, "set_lock", (GLOBAL, HIS)) is False
    watch = next(o for o in reversed(story.orders) if isinstance(o, event.Monitor))
    story.tell(event.Died(watch.monitor))
    assert not story.machine.locked
    assert story.call(holder, "register", Atom("late"), named, METHOD) == "no"
    assert story.machine.whereis(Atom("late")) is None
    assert story.call(HIS, "set_lock", (GLOBAL, HIS)) is True
    assert story.call(HIS, "del_lock", (GLOBAL, HIS)) is True
    assert story.call(HIS, "register", Atom("y"), named, METHOD) == "yes"


def test_names_and_locks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(global_tables, "MAX_NAMES", 10)
    monkeypatch.setattr(global_tables, "MAX_LOCKS", 10)
    monkeypatch.setattr(global_core, "MAX_KNOWN", 10)
    monkeypatch.setattr(global_sessions, "MAX_KNOWN", 10)
    story = Story()
    story.meet()
    for i in range(20):
        story.call(HIS, "register", i, story.pid(), METHOD)
        story.call(HIS, "set_lock", (i, i))
    story.cast("new_nodes", PEER, [], [], [Atom(f"n{i}@h") for i in range(50)], [])
    assert len(story.machine.registered) == len(story.machine.locked) == len(story.machine.known) == 10
    errors = [o for o in story.orders if isinstance(o, event.Log) and o.level == "error"]
    assert len(errors) == 1  # said once
    assert story.call(HIS, "register", 3, story.pid(), METHOD) == "yes"  # a name that is there can change hands


# --- partitions -------------------------------------------------------------------------------------------------------


def test_the_loss_of_an_erlang_node_is_its_own_to_report() -> None:
    story = Story()
    story.meet(THIRD)
    story.meet(PEER)
    assert not tells(story.tell(event.NodeDown(PEER)), "lost_connection")


def test_the_loss_of_a_node_of_this_library_is_reported() -> None:
    story = Story()
    story.meet(THIRD)
    story.meet(PEER, kin=True)
    (report,) = tells(story.tell(event.NodeDown(PEER)), "lost_connection")
    assert report.node == THIRD and report.message[1] == ME and report.message[4] == PEER


def test_a_reported_loss_is_passed_on_once_and_the_lost_node_left() -> None:
    story = Story()
    story.meet(THIRD)
    story.meet(PEER)
    reporter = Atom("far@h")
    orders = story.inform("lost_connection", reporter, 17, 3, PEER)
    assert [o.node for o in tells(orders, "lost_connection")] == [THIRD, PEER]
    assert tells(orders, "remove_connection") == [event.Tell(PEER, (Atom("remove_connection"), ME))]
    assert story.machine.known == [THIRD]
    assert story.inform("lost_connection", reporter, 17, 3, PEER) == []
    assert story.inform("lost_connection", reporter, 17, 2, PEER) == []
    assert event.Disconnect(PEER) in story.wait(10)  # it did not disconnect
    assert not tells(story.tell(event.NodeDown(PEER)), "lost_connection")


def test_who_is_asked_to_go_goes_and_does_not_report_it() -> None:
    story = Story()
    story.meet(THIRD)
    story.meet(PEER, kin=True)
    assert event.Disconnect(PEER) in story.inform("remove_connection", PEER)
    assert not tells(story.tell(event.NodeDown(PEER)), "lost_connection")
    assert story.machine.known == [THIRD]


def test_without_a_mesh_nobody_is_left() -> None:
    story = Story(mesh=False)
    story.meet(PEER, kin=True)
    assert story.inform("lost_connection", THIRD, 17, 3, PEER) == []
    assert story.machine.known == [PEER]


@pytest.mark.parametrize(
    "message",
    [
        (), ("x",), [], 7, None, "text", {1: 2}, (Atom("init_connect"),), (Atom("init_connect"), 8, 1, 2),
        (Atom("init_connect"), (-1, 1), PEER, (1, 2, 3, HIS)), (Atom("init_connect"), (8, 1), THIRD, (1, 2, 3, HIS)),
        (Atom("exchange"), PEER, 1, 2, 3), (Atom("resolved"), PEER, 1, 2, 3, 4, 5), (Atom("lock_set"), HIS, 1, 2, 3),
        (Atom("new_nodes"), PEER, [(Atom("insert"), 1)], 2, 3, 4), (Atom("in_sync"), 1, 2), (Atom("withdraw"), 1, 2),
        (Atom("lost_connection"), 1, 2, 3, 4), (Atom("set_lock"), 1), (Atom("register"), 1, 2, 3), (Atom("sync"), [1]),
    ],
)  # fmt: skip
def test_nonsense_is_dropped(message: Any) -> None:
    story = Story()
    story.meet()
    for fact in (event.CastIn(message), event.Told(message), event.Called((HIS, 1), message), event.Called(1, message)):
        story.tell(fact)
    assert story.machine.known == [PEER] and story.machine.registered == []


def test_a_name_too_deep_to_compare_is_refused() -> None:
    story = Story()
    story.meet()
    name: Any = 1
    for _ in range(900):
        name = [name]
    assert story.call(HIS, "register", name, story.pid(), METHOD) is None
    assert story.call(HIS, "set_lock", (name, 1)) is None


@pytest.mark.parametrize("large", [b"x" * (70 << 10), [1] * (70 << 10), {Atom("k"): b"x" * (70 << 10)}])
def test_names_functions_and_locks_are_bounded_in_size(large: Any) -> None:
    names = global_tables.Names(lambda pid: 1, lambda number: None)
    assert not names.insert(large, HIS, METHOD) and not names.insert("name", HIS, large) and not names.entries
    assert names.insert("name", HIS, METHOD)
    locks = global_tables.Locks(lambda pid: 1, lambda number: None)
    assert not locks.set(large, HIS, HIS) and not locks.set("lock", large, HIS) and not locks.locks
    assert locks.set("lock", HIS, HIS)
