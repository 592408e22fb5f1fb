"""Who has to wait, and for how long; tables that don't grow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.proto.conduct import (
    CLEAN_AFTER,
    FIRST_DELAY,
    LONGEST_DELAY,
    MAX_ADDRESSES,
    MAX_PEERS,
    Budget,
    Conduct,
    source_of,
)


def test_each_offence_costs_twice_as_long_up_to_a_minute() -> None:
    conduct = Conduct()
    delays = [conduct.offended("bob@host", now=float(n)) for n in range(9)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert conduct.wait("bob@host", now=8.0) == LONGEST_DELAY
    assert conduct.wait("bob@host", now=67.9) > 0 and conduct.wait("bob@host", now=68.0) == 0
    assert conduct.wait("alice@host", now=8.0) == 0


def test_good_conduct_is_rewarded() -> None:
    conduct = Conduct()
    for n in range(5):
        conduct.offended("bob@host", now=float(n))
    assert conduct.offended("bob@host", now=4.0 + CLEAN_AFTER + 1) == FIRST_DELAY
    assert conduct.wait("bob@host", now=10_000.0) == 0 and len(conduct) == 0


def test_many_names_do_not_fill_the_memory_and_the_latest_are_kept() -> None:
    conduct = Conduct()
    for n in range(3 * MAX_PEERS):
        conduct.offended(f"n{n}@host", now=0.0)
    assert len(conduct) == MAX_PEERS and conduct.wait(f"n{3 * MAX_PEERS - 1}@host", now=0.5) > 0


def test_an_address_that_fails_again_and_again_is_held_and_others_are_not() -> None:
    budget = Budget(burst=10, per_second=2.0)
    assert [budget.begin("192.0.2.1", now=0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert budget.begin("192.0.2.2", now=0.0)
    assert [budget.begin("192.0.2.1", now=1.0) for _ in range(3)] == [True, True, False]


def test_good_nodes_behind_one_address_cost_nothing() -> None:
    budget = Budget(burst=10, per_second=0.001)
    for _ in range(1000):
        assert budget.begin("192.0.2.1", now=0.0)
        budget.succeeded("192.0.2.1", now=0.0)


def test_a_host_with_many_ipv6_addresses_is_one_source() -> None:
    assert source_of("2001:db8:1:2:3::4") == source_of("2001:db8:1:2::") != source_of("2001:db8:1:3::")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1")
    assert source_of("fe80::1%eth0") == source_of("fe80::2%lo")


def test_many_addresses_do_not_fill_the_memory() -> None:
    budget = Budget()
    for n in range(MAX_ADDRESSES + 100):
        budget.begin(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", now=float(n))
    assert len(budget) == MAX_ADDRESSES


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=200))
def test_no_schedule_gets_more_failures_through_than_the_budget(steps: list[tuple[float, bool]]) -> None:
    budget, now, failed = Budget(burst=5, per_second=1.0), 0.0, 0
    for pause, good in steps:
        now += pause
        if budget.begin("192.0.2.1", now=now):
            if good:
                budget.succeeded("192.0.2.1", now=now)
            else:
                failed += 1
    assert failed <= 5 + now
