"""A replicated map through a partition of ten minutes: copies converge, no write is lost, nothing removed comes back.

The world is ``harness.simulated_maps``. To replay a failing seed::

    PYTHONPATH=tests:src python tests/property/test_maps.py 17
"""

from __future__ import annotations

import os
import sys

import pytest

from harness.simulated_maps import Maps, story

SEEDS = int(os.environ.get("BARREL_SEEDS", "100"))
PARTS = 4


def play(seed: int) -> Maps:
    cluster = story(seed)
    problems = cluster.problems()
    replay = f"replay it with: PYTHONPATH=tests:src python {__file__} {seed}"
    assert not problems, "\n".join([f"seed {seed}: {len(problems)} problems", *problems[:5], replay])
    return cluster


@pytest.mark.parametrize("part", range(PARTS))
def test_a_map_outlives_ten_minutes_of_partition(part: int) -> None:
    collected = written = 0
    for seed in range(part, SEEDS, PARTS):
        cluster = play(seed)
        collected += cluster.collected
        written += cluster.written
    assert written > SEEDS // PARTS * 300
    assert collected > 0, "else nothing could have come back"


if __name__ == "__main__":
    play(int(sys.argv[1]))
