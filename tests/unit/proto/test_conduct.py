"""Who has to wait, and for how long; tables that don't grow."""

from __future__ import annotations

from barrel_p2p.proto.conduct import CLEAN_AFTER, FIRST_DELAY, LONGEST_DELAY, MAX_PEERS, Conduct


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
