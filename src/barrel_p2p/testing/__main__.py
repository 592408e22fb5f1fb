"""Run scenarios, print what they show: ``python -m barrel_p2p.testing [SCENARIO ...] [--seed N] [--nodes N]``."""

from __future__ import annotations

import argparse
import sys

from barrel_p2p.errors import BarrelError
from barrel_p2p.testing import run, standard


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m barrel_p2p.testing", description="Run simulated clusters.")
    parser.add_argument("scenario", nargs="*", help=f"a .toml file, or one of {', '.join(standard())}; default: all")
    parser.add_argument("--seed", type=int, help="of all randomness, instead of the scenario's")
    parser.add_argument("--seeds", type=int, default=1, help="run so many seeds, one after the other")
    parser.add_argument("--nodes", type=int, help="instead of the scenario's")
    given = parser.parse_args()
    failures = 0
    for scenario in given.scenario or standard():
        for more in range(given.seeds):
            seed = given.seed if given.seeds == 1 else (given.seed or 1) + more
            try:
                report = run(scenario, seed=seed, nodes=given.nodes)
            except BarrelError as error:
                failures += 1
                print(f"FAILED {scenario}: {error}", flush=True)
            else:
                print("\n".join(report.lines() if given.seeds == 1 else report.lines()[:1]), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
