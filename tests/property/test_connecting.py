"""Any schedule of dials, delays, losses, deaths and twins ends with one connection that both nodes agree on.

The world, and all that is checked on the way, is ``harness.dialers``. To replay a failing example with its story::

    PYTHONPATH=tests:src python tests/property/test_connecting.py two 0f3a...
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.dialers import World

#: Left alone hypothesis prefers schedules too short for two connections to meet.
schedules = st.binary(min_size=120, max_size=300) | st.binary(max_size=60)


KINDS: dict[str, dict[str, Any]] = {
    "two": {"names": ["a", "b"]},
    "three": {"names": ["a", "b", "c"]},
    "crowd": {"names": ["a", "b", "c"], "limit": 1},
    "small Erlang": {"names": ["a", "b"], "otp": "a"},
    "great Erlang": {"names": ["a", "b"], "otp": "b"},
    "two over TCP": {"names": ["a", "b"], "asks": True},
    "three over TCP": {"names": ["a", "b", "c"], "asks": True},
    "peace over TCP": {"names": ["a", "b", "c"], "peaceful": True, "asks": True},
    "peace": {"names": ["a", "b", "c"], "peaceful": True},
    "strangers": {"names": ["a", "b"], "strangers": True},
    "strangers in a crowd": {"names": ["a", "b", "c"], "strangers": True, "limit": 1},
    "strangers over TCP": {"names": ["a", "b"], "strangers": True, "asks": True},
}


def play(kind: str, schedule: bytes) -> World:
    world = World(schedule=schedule, **KINDS[kind])
    try:
        world.run()
    except Exception as error:
        replay = f"PYTHONPATH=tests:src python {__file__} '{kind}' {schedule.hex()}"
        error.add_note(f"replay it with: {replay}")
        if __name__ == "__main__":
            print("\n".join(world.story))
        raise
    return world


@settings(max_examples=500, deadline=None)
@given(schedules)
def test_two_nodes_agree_on_one_connection(schedule: bytes) -> None:
    play("two", schedule)


@settings(max_examples=500, deadline=None)
@given(schedules)
def test_three_nodes_agree_on_one_connection_each(schedule: bytes) -> None:
    play("three", schedule)


@settings(max_examples=300, deadline=None)
@given(schedules)
def test_what_a_node_does_at_once_is_bounded(schedule: bytes) -> None:
    play("crowd", schedule)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["small Erlang", "great Erlang"]), schedules)
def test_an_erlang_node_never_reads_nok_and_agrees_too(kind: str, schedule: bytes) -> None:
    play(kind, schedule)


@settings(max_examples=400, deadline=None)
@given(schedules)
def test_without_losses_the_first_connection_stays_and_every_message_arrives(schedule: bytes) -> None:
    play("peace", schedule)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["two over TCP", "three over TCP", "peace over TCP"]), schedules)
def test_where_peers_are_asked_they_agree_too(kind: str, schedule: bytes) -> None:
    play(kind, schedule)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["strangers", "strangers in a crowd", "strangers over TCP"]), schedules)
def test_who_does_not_know_the_cookie_breaks_no_channel(kind: str, schedule: bytes) -> None:
    play(kind, schedule)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        pytest.exit(f"usage: {sys.argv[0]} {'|'.join(KINDS)} HEX", 2)
    print("\n".join(play(sys.argv[1], bytes.fromhex(sys.argv[2])).story))
