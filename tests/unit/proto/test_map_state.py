"""What a map does about writes of its node that it has forgotten; in any order: ``test_forgetful_writers``."""

from __future__ import annotations

from typing import Any

from barrel_p2p.crdt.hlc import pack, to_term
from barrel_p2p.crdt.wire import delta_term
from barrel_p2p.proto.map_state import MAX_RAISED, MapState
from barrel_p2p.term.types import Atom

NOW = 1_795_337_344_000
HOUR_MS = 3_600_000
ME, PEER = Atom("me@h"), Atom("peer@h")


def seen_until(until_ms: int) -> Any:
    """The testimony of who has seen our writes up to a time."""
    return {ME: (to_term(pack(until_ms)), to_term(pack(NOW - HOUR_MS)), to_term(pack(until_ms)))}


def test_each_peer_may_have_seen_more_than_the_one_before() -> None:
    state = MapState(ME, NOW)
    state.heed(seen_until(NOW + 5 * HOUR_MS), NOW)
    state.put("k", 1, NOW)
    (again,) = state.heed(seen_until(NOW + 20 * HOUR_MS), NOW).broadcast
    assert "k" in again
    assert state.map.stamp_of("k") > pack(NOW + 20 * HOUR_MS)


def test_a_copy_that_comes_in_many_parts_moves_stamps_above_all_of_it() -> None:
    former = MapState(ME, NOW + HOUR_MS)
    for key in range(3 * MAX_RAISED):
        former.put(key, b"old", NOW + HOUR_MS + key)
    state = MapState(ME, NOW)
    for entry in former.map.live():
        state.merge(delta_term([entry]), NOW)
    state.put("k", 1, NOW)
    assert state.map.stamp_of("k") > max(entry.stamp for entry in former.map.live())


def test_others_can_make_us_put_again_a_few_times_only() -> None:
    state = MapState(ME, NOW)
    state.put("k", 1, NOW)
    again = [state.heed(seen_until(NOW + second * 1000), NOW).broadcast for second in range(1, 1000)]
    assert sum(map(len, again)) == MAX_RAISED
