"""The registry: who may write what, whose entries count, and what subscribers are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p.crdt.hlc import pack, to_term
from barrel_p2p.errors import NameTaken
from barrel_p2p.proto.registry_events import (
    NodeAlive,
    NodeDead,
    ProcessDown,
    Register,
    ServiceDown,
    ServiceRegistered,
    ServiceUnregistered,
    Unregister,
)
from barrel_p2p.proto.registry_state import KEEP_DEAD_MS, MAX_OVERRULED, PATIENCE_MS, RegistryState
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom, Pid

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "crdt.json").read_text())
A, B, C = Atom("a@h"), Atom("b@h"), Atom("c@h")
DB = Atom("db")
NOW = 1_795_337_344_000
NODEDOWN = Atom("nodedown")


def pid(node: Atom, number: int = 1) -> Pid:
    return Pid(node, number, 0, 7)


def registry(node: Atom, now: int = NOW) -> RegistryState:
    return RegistryState(node, now)


def told(delta: Any) -> Any:
    return decode(encode(delta))


def registered(node: Atom, name: Any = DB, now: int = NOW) -> Any:
    [delta] = registry(node, now).write(Register(name, pid(node)), now).broadcast
    return told(delta)


def entry(key: Any, value: Any, *nodes: Atom, at: int = NOW) -> Any:
    return {key: (Atom("value"), value, {(node, to_term(pack(at))): True for node in nodes})}


def test_a_service_is_found_here_and_elsewhere_ours_first() -> None:
    here = registry(B)
    applied = here.write(Register(DB, pid(B), {"shard": 1}), NOW)
    assert applied.changes == [ServiceRegistered(DB, B)] and len(applied.broadcast) == 1
    assert here.merge(registered(C), NOW).changes == [ServiceRegistered(DB, C)]
    assert here.merge(registered(A), NOW).changes == [ServiceRegistered(DB, A)]
    assert [(found.node, found.pid) for found in here.lookup(DB)] == [(B, pid(B)), (A, pid(A)), (C, pid(C))]
    assert here.lookup(DB)[0].meta == {"shard": 1}
    assert here.lookup_local(DB) == here.lookup(DB)[0] and here.names() == [DB] and len(here) == 3
    assert here.lookup(b"db") == [] and here.lookup("db") == []


def test_what_an_erlang_node_sends_is_understood_and_what_we_send_looks_the_same() -> None:
    _, (_, _, snapshot) = decode(bytes.fromhex(VECTORS["replica_sync"][0]["hex"]))
    here = registry(A)
    other = Atom("b@127.0.0.1")
    assert here.merge(snapshot, NOW).changes == [ServiceRegistered(b"svc", other)]
    assert here.lookup("svc")[0].meta == {Atom("v"): 1}
    here.write(NodeAlive(other), NOW)
    [copy] = here.snapshot(NOW, python=False)
    assert encode(copy) == encode(snapshot)


def test_a_name_is_taken_once_per_node_and_free_again() -> None:
    here, there = registry(A), registry(B)
    deltas = here.write(Register("db", pid(A)), NOW).broadcast
    for name in ("db", b"db"):
        with pytest.raises(NameTaken):
            here.write(Register(name, pid(A, 2)), NOW)
    deltas += (gone := here.write(ProcessDown("db", Atom("killed")), NOW)).broadcast
    assert gone.changes == [ServiceDown("db", A, Atom("killed"))] and here.lookup("db") == []
    deltas += here.write(Register("db", pid(A, 2)), NOW).broadcast
    events = [event for delta in deltas for event in there.merge(told(delta), NOW).changes]
    down = ServiceDown("db", A, Atom("killed"))
    assert events == [ServiceRegistered("db", A), down, ServiceRegistered("db", A)]
    assert there.lookup("db")[0].pid == pid(A, 2)
    assert here.write(Unregister("nothing"), NOW).broadcast == []
    for bad in (Register(1, pid(A)), Register("x", 5), Register("x", pid(A), [1]), Register("x", pid(A), {1: {2}})):  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            here.write(bad, NOW)
    assert here.lookup("x") == []


def test_nobody_writes_in_the_name_of_others() -> None:
    here = registry(A)
    good = (Atom("service_entry"), DB, pid(B), B, {})
    assert here.merge(entry((DB, B), good, B), NOW).refused == {}
    for key, value, dots, reason in [
        ((DB, B), good, [C], "foreign_dot"),
        ((DB, B), good, [B, C], "foreign_dot"),
        ((DB, C), good, [C], "invalid_value"),
        ((Atom("other"), B), good, [B], "invalid_value"),
        ((DB, B), (*good[:2], 5, *good[3:]), [B], "invalid_value"),
        ((DB, B), (*good[:4], []), [B], "invalid_value"),
        ((DB, B), ("service_entry", *good[1:]), [B], "invalid_value"),
        ((DB, B), good[:4], [B], "invalid_value"),
        ((DB, b"b@h"), good, [B], "bad_key"),
        ((1, B), (good[0], 1, *good[2:]), [B], "bad_key"),
        (DB, good, [B], "bad_key"),
        ((DB, B, B), good, [B], "bad_key"),
    ]:
        assert here.merge(entry(key, value, *dots), NOW).refused == {reason: 1}, key
    assert here.merge({DB: (Atom("tombstone"), to_term(pack(NOW)))}, NOW).refused == {"bad_key": 1}
    assert [found.node for found in here.lookup(DB)] == [B]


def test_a_copy_of_our_own_is_no_news() -> None:
    here = registry(A)
    [delta] = here.write(Register(DB, pid(A)), NOW).broadcast
    applied = here.merge(told(delta), NOW)
    assert (applied.changes, applied.broadcast, applied.refused) == ([], [], {})


def test_a_removal_of_a_service_that_lives_is_overruled() -> None:
    here, there = registry(A), registry(B)
    [delta] = here.write(Register(DB, pid(A)), NOW).broadcast
    there.merge(told(delta), NOW)
    removal = {(DB, A): (Atom("tombstone"), to_term(pack(NOW + 5000)))}
    assert there.merge(removal, NOW).changes == [ServiceUnregistered(DB, A)]
    applied = here.merge(removal, NOW)
    assert applied.changes == [] and here.lookup(DB) and applied.refused == {"own_entry": 1}
    [again] = applied.broadcast
    assert there.merge(told(again), NOW).changes == [ServiceRegistered(DB, A)]
    assert here.comparable().root() == there.comparable().root()


def test_what_was_left_over_from_an_earlier_life_is_removed_everywhere() -> None:
    there = registry(B)
    there.merge(registered(A), NOW)
    here = registry(A, NOW + 9000)
    [copy] = there.snapshot(NOW, python=True)
    [answer] = here.merge(told(copy), NOW + 9000).broadcast
    assert here.lookup(DB) == []
    assert there.merge(told(answer), NOW + 9000).changes == [ServiceUnregistered(DB, A)]
    assert here.comparable().root() == there.comparable().root()


def test_a_forged_value_for_our_service_is_overruled_also_under_our_own_stamp() -> None:
    here = registry(A)
    [delta] = here.write(Register(DB, pid(A)), NOW).broadcast
    [(key, (_, _, dots))] = delta.items()
    forged = {key: (Atom("value"), (Atom("service_entry"), DB, pid(A, 99), A, {}), dots)}
    [answer] = here.merge(told(forged), NOW).broadcast
    assert here.lookup(DB)[0].pid == pid(A)
    there = registry(B)
    there.merge(told(forged), NOW)
    there.merge(told(answer), NOW)
    assert there.lookup(DB)[0].pid == pid(A)


def test_an_older_entry_of_another_node_under_our_name_leaves_no_dot_in_ours() -> None:
    """Its dot would stay beside ours in all we say of the service from then on, and all others refuse such an entry."""
    here, there = registry(A), registry(B)
    [delta] = here.write(Register(DB, pid(A)), NOW).broadcast
    forged = entry((DB, A), (Atom("service_entry"), DB, pid(A, 9), A, {}), C, at=NOW - 1000)
    assert here.merge(told(forged), NOW).refused == {"foreign_dot": 1}
    [copy] = here.snapshot(NOW, python=True)
    assert told(copy) == told(delta)
    assert there.merge(told(copy), NOW).refused == {} and there.lookup(DB)


def test_two_nodes_of_one_name_do_not_fight_for_ever() -> None:
    one, twin = registry(A), registry(A)
    deltas = one.write(Register(DB, pid(A, 1)), NOW).broadcast
    deltas += twin.write(Register(DB, pid(A, 2)), NOW + 1).broadcast
    rounds = 0
    while deltas and rounds < 10 * MAX_OVERRULED:
        rounds += 1
        told_delta = told(deltas.pop(0))
        deltas += one.merge(told_delta, NOW).broadcast + twin.merge(told_delta, NOW).broadcast
    assert not deltas


def test_services_of_a_dead_node_are_hidden_and_back_at_once() -> None:
    here = registry(A)
    here.merge(registered(B), NOW)
    here.write(NodeAlive(B), NOW)
    assert here.write(NodeDead(B), NOW).changes == [ServiceDown(DB, B, NODEDOWN)]
    assert here.lookup(DB) == [] and here.names() == [] and len(here) == 1
    assert here.merge(registered(B, "more"), NOW).changes == []
    assert here.write(NodeDead(B), NOW).changes == []
    assert here.write(NodeAlive(B), NOW).changes == [ServiceRegistered(DB, B), ServiceRegistered("more", B)]
    assert {found.node for found in here.lookup(DB) + here.lookup("more")} == {B}


def test_services_of_a_node_dead_for_long_are_dropped_until_it_is_back() -> None:
    here = registry(A)
    here.merge(registered(B), NOW)
    here.write(NodeAlive(B), NOW)
    here.write(NodeDead(B), NOW)
    assert not here.tidy(NOW + KEEP_DEAD_MS - 1).dropped and len(here) == 1
    applied = here.tidy(NOW + KEEP_DEAD_MS)
    assert applied.dropped and len(here) == 0 and here.comparable().root() == bytes(8)
    assert here.merge(registered(B), NOW).refused == {"dead_node": 1}
    assert here.write(NodeAlive(B), NOW).ask == [B]
    assert here.merge(registered(B), NOW).changes == [ServiceRegistered(DB, B)]


def test_a_node_that_never_shows_a_lease_is_not_believed_for_long() -> None:
    here = registry(A)
    here.merge(registered(B), NOW)
    here.merge(registered(C), NOW)
    here.write(NodeAlive(C), NOW + 1)
    assert here.tidy(NOW + PATIENCE_MS - 1).changes == []
    assert here.tidy(NOW + PATIENCE_MS).changes == [ServiceDown(DB, B, NODEDOWN)]
    assert [found.node for found in here.lookup(DB)] == [C]


def test_erlang_nodes_hear_of_the_living_only() -> None:
    here = registry(A)
    here.write(Register(DB, pid(A)), NOW)
    here.merge(registered(B), NOW)
    here.merge(registered(C), NOW)
    here.write(NodeAlive(B), NOW)
    [copy] = here.snapshot(NOW, python=False)
    assert sorted(node for _, node in copy) == [A, B]
    [copy] = here.snapshot(NOW, python=True)
    assert sorted(node for _, node in copy) == [A, B, C]


def test_a_removal_need_only_wait_for_the_node_that_it_concerns() -> None:
    here = registry(A)
    here.merge(registered(B), NOW)  # which will never be heard of again
    here.write(Register(DB, pid(A)), NOW)
    here.write(Unregister(DB), NOW)
    late = NOW + 25 * 3_600_000
    here.write(Register(DB, pid(A)), late)
    here.write(Unregister(DB), late)
    here.tidy(late + 3_500_000)
    assert here.comparable().map.tombstones == 1
    here.tidy(late + 3_700_000)
    assert here.comparable().map.tombstones == 0
