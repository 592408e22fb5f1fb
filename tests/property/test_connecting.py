"""Any schedule of dials, delays, losses, deaths and twins ends with one connection that both nodes agree on.

The world, and all that is checked on the way, is ``harness.dialers``. To replay a failing example with its story::

    PYTHONPATH=tests:src python tests/property/test_connecting.py a,b 0f3a...
"""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.dialers import World

schedules = st.binary(max_size=300)


def play(names: list[str], schedule: bytes) -> World:
    world = World(names, schedule)
    try:
        world.run()
    except Exception as error:
        replay = f"PYTHONPATH=tests:src python {__file__} {','.join(names)} {schedule.hex()}"
        error.add_note(f"replay it with: {replay}")
        if __name__ == "__main__":
            print("\n".join(world.story))
        raise
    return world


@settings(max_examples=1500, deadline=None)
@given(schedules)
def test_two_nodes_agree_on_one_connection(schedule: bytes) -> None:
    play(["a", "b"], schedule)


@settings(max_examples=1000, deadline=None)
@given(schedules)
def test_three_nodes_agree_on_one_connection_each(schedule: bytes) -> None:
    play(["a", "b", "c"], schedule)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        pytest.exit(f"usage: {sys.argv[0]} NAMES HEX", 2)
    print("\n".join(play(sys.argv[1].split(","), bytes.fromhex(sys.argv[2])).story))
