"""The hybrid clock: it grows, follows causes, and can't be dragged away or broken."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.crdt.hlc import (
    CARRY_LOGICAL,
    MAX_LOGICAL,
    MAX_WALL_MS,
    Clock,
    from_term,
    logical,
    pack,
    successor,
    to_term,
    wall_ms,
)
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom

WALL = 1_795_337_344_000
TIMESTAMP = Atom("timestamp")


def test_a_stamp_is_packed_as_upstream_packs_it() -> None:
    stamp = pack(WALL, 7)
    assert stamp == 7710915177767501824007
    assert (wall_ms(stamp), logical(stamp)) == (WALL, 7)
    assert to_term(stamp) == (TIMESTAMP, WALL, 7)
    assert from_term(decode(encode(to_term(stamp)))) == stamp


@pytest.mark.parametrize(
    "term",
    [
        None,
        5,
        (),
        (TIMESTAMP, 1),
        (TIMESTAMP, 1, 2, 3),
        ("timestamp", 1, 2),
        (b"timestamp", 1, 2),
        (Atom("stamp"), 1, 2),
        (TIMESTAMP, Atom("foo"), 0),
        (TIMESTAMP, 1.0, 0),
        (TIMESTAMP, True, 0),
        (TIMESTAMP, 1, None),
        (TIMESTAMP, -1, 0),
        (TIMESTAMP, MAX_WALL_MS + 1, 0),
        (TIMESTAMP, 1, -1),
        (TIMESTAMP, 1, MAX_LOGICAL + 1),
        (TIMESTAMP, 1 << 5000, 0),
        [TIMESTAMP, 1, 1],
    ],
)
def test_what_is_no_timestamp_is_none(term: Any) -> None:
    assert from_term(term) is None


def test_the_counter_counts_while_the_wall_stands_still_or_goes_back() -> None:
    clock = Clock()
    assert [clock.now(WALL) for _ in range(3)] == [pack(WALL), pack(WALL, 1), pack(WALL, 2)]
    assert clock.now(WALL - 5000) == pack(WALL, 3)
    assert clock.now(WALL + 1) == pack(WALL + 1)


def test_a_remote_stamp_is_followed() -> None:
    clock = Clock()
    assert clock.update(pack(WALL + 500, 3), WALL)
    assert clock.now(WALL) == pack(WALL + 500, 4)


def test_a_stamp_from_far_ahead_does_not_move_the_clock() -> None:
    clock = Clock(max_ahead_ms=1000)
    assert not clock.update(pack(WALL + 1001), WALL)
    assert clock.not_followed == 1
    assert clock.now(WALL) == pack(WALL)


def test_a_write_over_an_entry_from_far_ahead_still_wins() -> None:
    clock = Clock(max_ahead_ms=1000)
    ahead = pack(WALL + 9_000_000, 5)
    assert clock.over(ahead, WALL) == ahead + 1
    assert clock.now(WALL) < pack(WALL + 1)


def test_a_full_counter_carries_over() -> None:
    assert successor(pack(WALL, CARRY_LOGICAL)) == pack(WALL + 1)
    clock = Clock()
    assert clock.update(pack(WALL, MAX_LOGICAL), WALL)
    assert clock.now(WALL) == pack(WALL + 1)


def test_a_restart_with_a_disk_does_not_go_back() -> None:
    clock = Clock()
    clock.restore(pack(WALL + 60_000_000))
    assert clock.now(WALL) > pack(WALL + 60_000_000)


@given(st.lists(st.tuples(st.integers(-(2**70), 2**70), st.integers(0, pack(MAX_WALL_MS, MAX_LOGICAL)))))
def test_stamps_grow_and_stay_in_range_whatever_comes(steps: list[tuple[int, int]]) -> None:
    clock = Clock()
    last = -1
    for wall, remote in steps:
        clock.update(remote, wall)
        stamp = clock.now(wall)
        assert stamp > last
        assert logical(stamp) <= CARRY_LOGICAL + 1
        assert clock.over(remote, wall) > remote
        last = clock.last
