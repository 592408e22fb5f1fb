"""The replicated map: upstream's recorded merges, exact keys, changes, tombstones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p.crdt.entry import MAX_NODES, Entry, join, live_entry, tombstone
from barrel_p2p.crdt.hlc import Clock, pack, successor
from barrel_p2p.crdt.ormap import BUCKETS, ORMap
from barrel_p2p.crdt.seen import Seen
from barrel_p2p.crdt.wire import Rules, delta_term, read_entries
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "crdt.json").read_text())
A, B, C = Atom("a@127.0.0.1"), Atom("b@127.0.0.1"), Atom("c@127.0.0.1")


def read(term: Any) -> list[Entry]:
    got = read_entries(term, Rules(), 10**12)
    assert not got.refused
    return got.entries


def filled(*entries: Entry) -> ORMap:
    ormap = ORMap()
    ormap.merge(entries)
    return ormap


def greatest_dots(term: Any) -> Any:
    """A map of entries with the greatest dot of each node, as we keep it."""
    return delta_term(read(term))


@pytest.mark.parametrize("case", VECTORS["ormap_merge"], ids=lambda case: f"{case['a']} {case['b']}")
def test_a_merge_that_upstream_did(case: dict[str, Any]) -> None:
    one, other = (decode(bytes.fromhex(case[name])) for name in ("a_hex", "b_hex"))
    ormap = filled(*read(one))
    ormap.merge(read(other))
    assert delta_term(ormap.entries()) == greatest_dots(decode(bytes.fromhex(case["merged_hex"])))


def test_a_write_is_reported_and_merges_elsewhere() -> None:
    here, there, clock = ORMap(), ORMap(), Clock()
    change = here.put("k", 1, A, clock.over(here.stamp_of("k"), 1000))
    assert change.put and not change.removed and change.key == "k"
    [merged] = there.merge(read(decode(encode(delta_term([change.new]))))).changes
    assert merged.put and there.get(b"k") == 1 and "k" in there and here.root == there.root != 0

    change = here.remove("k", clock.over(here.stamp_of("k"), 1000))
    assert change.removed and not change.put
    [merged] = there.merge([change.new]).changes
    assert merged.removed and len(there) == 0 and there.tombstones == 1 and here.root == there.root == 0


def test_the_same_again_changes_nothing() -> None:
    entries = [live_entry(Atom("k"), 1, A, 5), tombstone(Atom("gone"), 6)]
    ormap = filled(*entries)
    root = ormap.root
    assert ormap.merge(read(decode(encode(delta_term(entries))))).changes == []
    assert ormap.root == root


def test_one_dot_per_node_is_kept() -> None:
    ormap = ORMap()
    for stamp in range(1, 100):
        ormap.put(Atom("k"), stamp, (A, B)[stamp % 2], stamp)
    entry = ormap.entry(Atom("k"))
    assert entry is not None and entry.dots() == {B: 99, A: 98}


def test_the_dots_of_many_nodes_are_bounded() -> None:
    ormap = ORMap()
    for number in range(3 * MAX_NODES):
        ormap.put(Atom("k"), number, Atom(f"n{number}@h"), number + 1)
    entry = ormap.entry(Atom("k"))
    assert entry is not None and len(entry.dots()) == MAX_NODES and entry.value == 3 * MAX_NODES - 1


def test_keys_are_exact() -> None:
    ormap = ORMap()
    keys: list[Any] = [1, 1.0, True, [1], {1: 2}, Atom("x"), "x", (1,), (1.0,)]
    for number, key in enumerate(keys):
        ormap.put(key, number, A, number + 1)
    assert len(ormap) == len(keys)
    assert [ormap.get(key) for key in keys] == list(range(len(keys)))
    copy = filled(*read(decode(encode(delta_term(ormap.entries())))))
    assert copy.root == ormap.root and [copy.get(key) for key in keys] == list(range(len(keys)))


def test_values_of_one_dot_are_settled_alike_everywhere() -> None:
    for one, other in [(1, 2), ({1: 2.0}, {1: 3.0}), ([1.5], Atom("x")), ("x", b"y"), (True, 1.0)]:
        mine, theirs = live_entry(Atom("k"), one, A, 5), live_entry(Atom("k"), other, A, 5)
        assert join(mine, theirs).value == join(theirs, mine).value


def test_a_str_that_came_back_as_bytes_is_no_change() -> None:
    ormap = filled(live_entry("k", {"a": "text", "f": 1.5}, A, 5))
    assert ormap.merge([live_entry(b"k", {b"f": 1.5, b"a": b"text"}, A, 5)]).changes == []


def test_old_tombstones_go_and_young_or_unstable_ones_stay() -> None:
    ormap = filled(*[tombstone(number, pack(number)) for number in range(1, 11)])
    assert [entry.key for entry in ormap.collect(pack(4), stable=pack(100), hard=0)] == [1, 2, 3]
    assert [entry.key for entry in ormap.collect(pack(8), stable=pack(6), hard=0)] == [4, 5]
    assert [entry.key for entry in ormap.collect(pack(8), stable=0, hard=pack(7))] == [6]
    assert ormap.tombstones == 4


def test_a_removed_value_does_not_come_back_after_its_tombstone_went() -> None:
    seen = Seen()
    old = live_entry(Atom("k"), 1, A, pack(5))
    ormap = filled(old, tombstone(Atom("k"), pack(6)))
    seen.advance(A, 0, pack(7))
    assert len(ormap.collect(pack(10), seen.stable(0), 0)) == 1
    merged = ormap.merge([old], seen=seen)
    assert merged.changes == [] and len(ormap) == 0
    [answer] = merged.revenants
    assert answer.node is None and answer.stamp == successor(old.stamp)
    other = filled(old)
    assert other.merge([answer]).changes[0].removed


def test_a_write_that_was_never_seen_is_let_in_however_old() -> None:
    seen = Seen()
    seen.advance(A, 0, pack(7))
    seen.meet(B, 5)
    ormap = ORMap()
    merged = ormap.merge([live_entry(Atom("k"), 1, A, pack(8)), live_entry(Atom("l"), 1, B, pack(1))], seen=seen)
    assert [change.key for change in merged.changes] == ["k", "l"] and merged.revenants == []


def test_a_tombstone_past_its_time_is_taken_only_where_it_removes() -> None:
    ormap = filled(live_entry(1, 1, A, 3))
    merged = ormap.merge([tombstone(1, 4), tombstone(2, 4)], oldest=10)
    assert [change.key for change in merged.changes] == [1] and ormap.tombstones == 1


def test_a_full_map_takes_no_new_keys_and_all_old_ones() -> None:
    ormap = ORMap(max_entries=2)
    merged = ormap.merge([live_entry(n, n, A, 5) for n in range(4)])
    assert merged.refused == 2 and ormap.full
    assert ormap.merge([live_entry(0, 9, A, 6)]).changes[0].put


def test_sums_tell_where_two_maps_differ() -> None:
    entries = [live_entry(number, number, A, pack(number + 1)) for number in range(3000)]
    one, other = filled(*entries), filled(*reversed(entries))
    for count in (1, 16, BUCKETS):
        assert one.sums(count) == other.sums(count)
    other.put(7, 8, B, pack(9000))
    other.remove(9, pack(9000))
    for count in (16, BUCKETS):
        differ = {n for n, (a, b) in enumerate(zip(one.sums(count), other.sums(count), strict=True)) if a != b}
        assert 1 <= len(differ) <= 2
        inside = {entry.key for entry in other.entries_in(differ, count)}
        assert {7, 9} <= inside and len(inside) < 3000 * 2 / count * 3 + 20
    assert sum(len(one.entries_in({n}, 16)) for n in range(16)) == 3000


def test_dropping_leaves_no_trace() -> None:
    ormap = filled(live_entry(1, 1, A, 3))
    change = ormap.drop(1)
    assert change is not None and change.removed and ormap.root == 0 and ormap.tombstones == 0
    assert ormap.drop(1) is None
    assert ormap.merge([live_entry(1, 1, A, 3)]).changes[0].put
