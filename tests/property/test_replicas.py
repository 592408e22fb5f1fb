"""No write is lost and none comes back, whatever the network does: replicas of one map over random schedules.

The world, and what is checked, is ``harness.replicas``. To replay a failing seed with its story::

    PYTHONPATH=tests:src python tests/property/test_replicas.py 'three' 17
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from harness.replicas import World

KINDS: dict[str, dict[str, Any]] = {
    "two": {"nodes": 2, "steps": 200},
    "three": {"nodes": 3, "steps": 200},
    "five": {"nodes": 5, "steps": 150},
    "three, calm": {"nodes": 3, "lossy": 0, "doubled": 0, "steps": 200},
    "three, hardly connected": {"nodes": 3, "lossy": 70, "steps": 200},
}
SEEDS = 250


def play(kind: str, seed: int) -> World:
    world = World(seed, **KINDS[kind])
    try:
        world.run()
    except Exception as error:
        error.add_note(f"replay it with: PYTHONPATH=tests:src python {__file__} '{kind}' {seed}")
        if __name__ == "__main__":
            print("\n".join(world.story))
        raise
    return world


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_converge_to_what_was_written_last(kind: str) -> None:
    collected = 0
    for seed in range(SEEDS):
        collected += play(kind, seed).collected
    assert collected > SEEDS  # else the schedules would not test what tombstones are remembered for


if __name__ == "__main__":
    play(sys.argv[1], int(sys.argv[2]))
