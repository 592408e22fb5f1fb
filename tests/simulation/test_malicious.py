"""A member that says what nobody should, on every protocol: no node crashes, nothing grows, the others are unharmed."""

from __future__ import annotations

import dataclasses

import pytest

from barrel_p2p.testing import Scenario, SimulationFailed, load, run
from barrel_p2p.testing.growth import Growth, tables
from barrel_p2p.testing.scenario import Broadcasts

SEEDS = 6  # some 5 s each; ``barrel sim malicious`` takes a day of simulated time


def minutes(number: int, *, quiet: float = 600.0, per_minute: float = 600.0) -> Scenario:
    """The scenario of a day, in less time and at a higher rate."""
    plan = load("malicious")
    assert plan.malicious is not None
    return dataclasses.replace(
        plan,
        duration=quiet + number * 60,
        quiet=quiet,
        malicious=dataclasses.replace(plan.malicious, per_minute=per_minute),
        broadcasts=(Broadcasts(label="honest", at=10.0, count=3 * number, every=20.0),),
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_malicious_member_harms_nobody(seed: int) -> None:
    """The checkers are on all the time; what they find is the failure."""
    report = run(minutes(20), seed=seed)
    [honest] = report.broadcasts
    assert honest.complete == honest.count == 60
    assert report.hostile == 20 * 600


def test_the_malicious_member_is_heard() -> None:
    """Else all this would prove nothing: what it says fills the tables that it may fill."""
    report = run(minutes(20), seed=1)
    assert report.refused["full"] > 100, "a map that it filled refuses more"
    assert report.refused["too_many"] > 100, "and so do the leases"
    reasons = ("future", "bad_stamp", "bad_dots", "bad_shape", "bad_key", "own_entry", "bad_digest", "removed_before")
    dropped = ("claimed sender is not the peer", "not an envelope", "unknown message", "wrong number of fields")
    for reason in (*reasons, *dropped):
        assert report.refused[reason], reason
    assert report.refused["no term"], "bytes that no codec can read end the channel"


def test_a_node_that_crashes_is_found_and_can_be_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyError("nobody@nowhere")

    monkeypatch.setattr("barrel_p2p.proto.hyparview.HyParView._exchange", crash)
    with pytest.raises(SimulationFailed, match=r"KeyError.*crash, test_malicious.py.*barrel sim malicious --seed 3"):
        run(minutes(1), seed=3)


# --- the walk over tables ---------------------------------------------------------------------------------------------


def test_tables_are_found_by_walking_and_one_that_grows_is_told() -> None:
    growth = Growth()
    growing: list[int] = []
    for _ in range(4):
        growth.sample([{"machine": {"left": growing, "right": {"one": [1, 2]}}}])
        growing += range(60)
    assert dict(tables({"machine": {"left": [1]}})) == {"machine": 1, "machine[left]": 1}
    assert growth.grown({}, first=1) == ["machine[left] grew from 0 to 180 entries"]
    assert growth.grown({"machine[left]": 100}, first=1) == []
    assert growth.beyond({"machine[left]": 100}) == ["machine[left] has 180 entries, and its bound is 100"]


def test_all_tables_with_a_bound_exist() -> None:
    """A bound of a table that was renamed would bound nothing."""
    from barrel_p2p.testing.services import Services

    plan = minutes(1)
    cluster = Services(plan, 1)
    for number in range(4):
        cluster.start(f"n{number}@sim", "n0@sim" if number else None)
    cluster.clock.run(60_000)
    cluster.measure()
    found = cluster.growth.samples[-1]
    assert [path for path in cluster.bounds() if path not in found and not path.endswith("[].queue")] == []
