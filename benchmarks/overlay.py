"""The overlay at the size of the papers: joins, mass crashes, the broadcast tree and the speed of the simulator.

    python benchmarks/overlay.py [--nodes 10000] [--shares 10,50,80,95] [--json PATH]

Everything is simulated (``barrel_p2p.testing``), so the figures but for the speed are the same on any machine. It uses
one core; at 10,000 nodes each crash share takes some minutes. What the figures mean: docs/internals/overlay.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from barrel_p2p.testing import Report, run
from barrel_p2p.testing.scenario import Broadcasts, Fault, JoinPlan, Network, Scenario, load

RESULTS = Path(__file__).parent / "results" / "overlay.json"
SHARES = "10,30,50,70,80,90,95"
AT_ONCE = Network(detection=(0.0, 0.1), refused=1.0)  # nearly the paper's: who sends to a dead node notices


def main() -> int:
    options = _options()
    results: dict[str, Any] = {"conditions": _conditions(options.nodes), "runs": {}}
    for name, scenario in _scenarios(options).items():
        report = run(scenario, progress=_progress if sys.stderr.isatty() else None)
        print("\n".join([f"== {name}", *report.lines()]), flush=True)
        results["runs"][name] = _figures(report)
        options.json.parent.mkdir(exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written: {options.json}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the overlay in simulated clusters.")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--shares", default=SHARES, help="per cent of the nodes that crash at once, by comma")
    parser.add_argument("--only", default="", help="runs whose name starts so: join, tree, churn, crash, crash noticed")
    parser.add_argument("--json", type=Path, default=RESULTS)
    return parser.parse_args()


def _scenarios(options: argparse.Namespace) -> dict[str, Scenario]:
    """By name; joins come at a constant rate, so that the overlay does not depend on the number of nodes."""
    joins = JoinPlan(within=options.nodes / 50, settle=200.0)
    scenarios = {
        "join": Scenario(name="join", nodes=options.nodes, join=joins, duration=600.0 - joins.within - joins.settle)
        if options.nodes <= 15_000
        else Scenario(name="join", nodes=options.nodes, join=joins, duration=60.0)
    }
    tree = (
        Broadcasts(label="first", at=0, count=1),
        Broadcasts(label="warm-up", at=5, count=15),
        Broadcasts(label="stable", at=40, count=50, every=0.5),
    )
    one = tuple(dataclasses.replace(group, senders="first") for group in tree)
    scenarios["tree, any sender"] = Scenario(
        name="tree", nodes=options.nodes, join=joins, duration=100.0, broadcasts=tree, quiet=30.0
    )
    scenarios["tree, one sender"] = dataclasses.replace(scenarios["tree, any sender"], broadcasts=one)
    scenarios["churn"] = dataclasses.replace(load("churn"), nodes=options.nodes, join=joins)
    crash = load("crash")
    for share in options.shares.split(","):
        faults = (Fault(kind="crash", at=crash.faults[0].at, share=int(share) / 100),)
        plan = dataclasses.replace(crash, nodes=options.nodes, join=joins, faults=faults)
        scenarios[f"crash {share} %"] = plan
        scenarios[f"crash noticed at once {share} %"] = dataclasses.replace(plan, network=AT_ONCE)
    return {name: scenario for name, scenario in scenarios.items() if name.startswith(options.only)}


def _figures(report: Report) -> dict[str, Any]:
    return {
        "nodes": report.nodes,
        "seed": report.seed,
        "simulated_s": report.simulated,
        "wall_s": round(report.wall, 1),
        "cpu_s": round(report.cpu, 1),
        "events": report.events,
        "events_per_s": round(report.events_per_second),
        "memory_mb": report.memory >> 20,
        "sent": report.sent,
        "overlay": {name: dataclasses.asdict(shape) for name, shape in report.phases.items()},
        "broadcasts": [dataclasses.asdict(group) for group in report.broadcasts],
    }


def _conditions(nodes: int) -> dict[str, Any]:
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "nodes": nodes,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": head.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _progress(now: float, end: float, live: int) -> None:
    print(f"\r{now:.0f} of {end:.0f} s, {live} nodes", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
