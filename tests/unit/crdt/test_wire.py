"""What is let in from other nodes, and what is refused for which reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p.crdt.entry import Entry
from barrel_p2p.crdt.hlc import MAX_WALL_MS
from barrel_p2p.crdt.wire import Rules, delta_term, fits, read_entries
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.maps import TermMap
from barrel_p2p.term.types import Atom

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "crdt.json").read_text())
VALUE, TOMBSTONE, TIMESTAMP = Atom("value"), Atom("tombstone"), Atom("timestamp")
A = Atom("a@127.0.0.1")
WALL = 1_795_337_344_000


def dot(wall: Any = 1, count: Any = 1, node: Any = A) -> tuple[Any, ...]:
    return (node, (TIMESTAMP, wall, count))


def value(content: Any = 1, *dots: Any) -> tuple[Any, ...]:
    return (VALUE, content, dict.fromkeys(dots or (dot(),), True))


def reasons(term: Any, rules: Rules | None = None) -> dict[str, int]:
    return read_entries(term, rules or Rules(), WALL).refused


@pytest.mark.parametrize("case", VECTORS["crdt_wire_valid_entry"], ids=lambda case: case["term"])
def test_upstreams_verdicts_but_for_stamps_that_are_no_numbers(case: dict[str, Any]) -> None:
    entry = decode(bytes.fromhex(case["hex"]))
    numbers = "foo,bar" not in case["term"] and "a,b" not in case["term"]
    read = read_entries({Atom("k"): entry}, Rules(), WALL)
    assert bool(read.entries) == (case["valid"] and numbers)
    assert bool(read.refused) != bool(read.entries)


def test_messages_of_a_live_node_are_read_and_written_alike() -> None:
    for case in VECTORS["replica_sync"][:2]:
        _, (_, _, snapshot) = decode(bytes.fromhex(case["hex"]))
        read = read_entries(snapshot, Rules(), WALL)
        assert not read.refused and len(read.entries) == 1
        assert delta_term(read.entries) == snapshot
        assert encode(delta_term(read.entries)) == encode(snapshot)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (5, "bad_shape"),
        ([VALUE, 1, {dot(): True}], "bad_shape"),
        (("value", 1, {dot(): True}), "bad_shape"),
        ((VALUE, 1, {dot(): True}, 4), "bad_shape"),
        ((VALUE, 1), "bad_shape"),
        ((VALUE, 1, {}), "bad_dots"),
        ((VALUE, 1, [dot()]), "bad_dots"),
        ((VALUE, 1, {1: True}), "bad_dots"),
        (value(1, dot(), dot(node=b"a")), "bad_dots"),
        (value(1, dot(wall=Atom("foo"))), "bad_dots"),
        (value(1, dot(), dot(count=-1)), "bad_dots"),
        (value(1, dot(wall=2**40 * 1.0)), "bad_dots"),
        (value(1, dot(wall=MAX_WALL_MS)), "future"),
        (value(1, dot(wall=WALL + 86_400_001)), "future"),
        ((TOMBSTONE, 5), "bad_stamp"),
        ((TOMBSTONE, (TIMESTAMP, 1, 2**31)), "bad_stamp"),
        ((TOMBSTONE, (TIMESTAMP, MAX_WALL_MS, 0)), "future"),
        (value(b"x" * (1 << 20)), "value_too_large"),
        (value(list(range(1 << 20))), "value_too_large"),
        (value(dict.fromkeys(range(1 << 19), b"")), "value_too_large"),
    ],
)
def test_one_bad_entry_is_refused_and_its_neighbours_apply(shape: Any, reason: str) -> None:
    read = read_entries({1: value(), 2: shape, 3: (TOMBSTONE, (TIMESTAMP, 1, 1))}, Rules(), WALL)
    assert [entry.key for entry in read.entries] == [1, 3]
    assert read.refused == {reason: 1}


def test_bad_keys_are_refused() -> None:
    deep: Any = 1
    for _ in range(400):
        deep = (deep,)
    assert reasons({deep: value()}) == {"bad_key": 1}
    assert reasons({b"x" * 5000: value()}) == {"key_too_large": 1}


def test_a_nested_value_is_measured_without_recursion() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    assert reasons({1: value(deep)}) == {}
    assert fits(deep, 10_000) and not fits(deep, 100)


def test_what_is_no_map_is_refused_whole() -> None:
    for term in (None, 5, [(1, value())], (1, 2), Atom("x"), b""):
        assert reasons(term) == {"no_map": 1}


def test_a_message_without_end_is_cut() -> None:
    read = read_entries({n: value() for n in range(100)}, Rules(max_entries=10), WALL)
    assert len(read.entries) == 10 and read.refused == {"too_many": 90}


def test_the_instance_may_refuse_and_may_fail() -> None:
    def check(entry: Entry) -> str | None:
        return None if entry.value[0] == 1 else "not_one"

    read = read_entries({1: value([1]), 2: value([2]), 3: value(3)}, Rules(check=check), WALL)
    assert [entry.key for entry in read.entries] == [1]
    assert read.refused == {"not_one": 1, "check_failed": 1}


def test_of_many_dots_the_greatest_of_each_node_counts() -> None:
    dots = [dot(wall=wall, node=Atom(f"n{wall % 3}@h")) for wall in range(1, 3000)]
    [entry] = read_entries({1: value(5, *dots)}, Rules(), WALL).entries
    assert {node: stamp >> 32 for node, stamp in entry.dots().items()} == {"n0@h": 2997, "n1@h": 2998, "n2@h": 2999}


def test_keys_that_a_dict_would_merge_stay_apart() -> None:
    term = TermMap([(1, value(1)), (1.0, value(2)), (True, value(3))])
    assert [entry.value for entry in read_entries(decode(encode(term)), Rules(), WALL).entries] == [1, 2, 3]
