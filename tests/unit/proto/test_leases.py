"""Leases: who renews is a member, who doesn't is dead, and nothing else counts."""

from __future__ import annotations

from typing import Any

import pytest

from barrel_p2p.proto.leases import SKEW_MS, TTL_MS, Heartbeat, Leases, MemberDown, MemberUp
from barrel_p2p.proto.node_leases import NodeLeases
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom

A, B, C = Atom("a@h"), Atom("b@h"), Atom("c@h")
NOW = 1_795_337_344_000


def over_the_wire(term: Any) -> Any:
    return decode(encode(term))


def beat(node: Atom, wall: int) -> Any:
    [delta] = Leases(node).write(Heartbeat(), wall).broadcast
    return over_the_wire(delta)


def test_a_heartbeat_looks_as_upstreams() -> None:
    assert beat(B, NOW) == {
        B: (Atom("value"), (Atom("alive"), NOW), {(B, (Atom("timestamp"), NOW, 0)): True}),
    }


def test_a_member_comes_renews_and_dies() -> None:
    leases = Leases(A)
    assert leases.members() == [A]
    assert leases.merge(beat(B, NOW), NOW).changes == [MemberUp(B)]
    assert leases.merge(beat(B, NOW + 2000), NOW + 2000).changes == []
    assert leases.members() == [A, B] and leases.alive(B)
    assert leases.write(Heartbeat(), NOW + 2000 + TTL_MS).changes == []
    assert leases.write(Heartbeat(), NOW + 2001 + TTL_MS).changes == [MemberDown(B)]
    assert leases.members() == [A] and not leases.alive(B)
    assert leases.merge(beat(B, NOW + 9000), NOW + 9000).changes == [MemberUp(B)]


def test_a_copy_tells_of_the_members_and_ours_is_fresh() -> None:
    leases = Leases(A)
    leases.merge(beat(B, NOW), NOW)
    [copy] = leases.snapshot(NOW + 100, python=False)
    assert copy == {A: NOW + 100, B: NOW}
    assert Leases(C).merge(over_the_wire(copy), NOW + 100).changes == [MemberUp(A), MemberUp(B)]
    [copy] = leases.snapshot(NOW + TTL_MS + 1, python=False)
    assert copy == {A: NOW + TTL_MS + 1}


def test_old_news_do_not_revive_the_dead() -> None:
    leases = Leases(A)
    assert leases.merge({B: NOW - TTL_MS - 1}, NOW).changes == []
    leases.merge({B: NOW - 10}, NOW)
    leases.merge({B: NOW - 20}, NOW)
    assert leases.tidy(NOW + TTL_MS - 10).changes == [] and leases.tidy(NOW + TTL_MS - 9).changes == [MemberDown(B)]


def test_nobody_speaks_from_the_future_or_for_others() -> None:
    leases = Leases(A)
    assert leases.merge({B: NOW + SKEW_MS + 1}, NOW).refused == {"future": 1}
    assert leases.merge(beat(B, NOW + SKEW_MS + 1), NOW).refused == {"future": 1}
    forged = {C: beat(B, NOW)[B]}
    assert leases.merge(forged, NOW).refused == {"foreign_dot": 1}
    assert leases.merge({A: NOW + 4000}, NOW).changes == [] and leases.members() == [A]


def test_bad_input_is_refused_entry_by_entry() -> None:
    leases = Leases(A, max_members=6)
    stamp = (Atom("timestamp"), 1, 1)
    mixed: dict[Any, Any] = {
        B: NOW,
        7: NOW,
        Atom("d@h"): b"x",
        Atom("e@h"): (Atom("tombstone"), stamp),
        Atom("f@h"): (Atom("value"), (Atom("alive"), 1.5), {(Atom("f@h"), stamp): True}),
        C: (Atom("value"), (Atom("alive"), NOW), {(C, (Atom("timestamp"), Atom("x"), 0)): True}),
    }
    applied = leases.merge(mixed, NOW)
    assert applied.changes == [MemberUp(B)] and sum(applied.refused.values()) == 5
    assert leases.merge([1], NOW).refused == {"no_map": 1}
    assert leases.merge({Atom(f"n{n}@h"): NOW for n in range(7)}, NOW).refused == {"too_many": 7}
    assert leases.merge({Atom(f"n{n}@h"): NOW for n in range(6)}, NOW).refused == {"too_many": 1}
    assert len(leases.members()) == 7


@pytest.mark.parametrize("name", ["x", "x@h\n12:00 all is well", "x@h\x1b[2J", "@h", "a@b@c", "x" * 254 + "@h"])
def test_what_is_no_name_of_a_node_has_no_lease(name: str) -> None:
    evil = Atom(name)
    assert Leases(A).merge({evil: NOW}, NOW).refused == {"bad_key": 1}
    assert NodeLeases(A).merge({evil: (NOW, 10_000)}, NOW).refused == {"bad_key": 1}
    assert NodeLeases(A).merge({B: (NOW, 10_000)}, NOW).changes == [MemberUp(B)]
