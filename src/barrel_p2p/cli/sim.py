"""``barrel sim SCENARIO``: a simulated cluster of the very machines that nodes run, in virtual time."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time

from barrel_p2p import testing
from barrel_p2p.cli.arguments import Parser, Usage
from barrel_p2p.cli.status import FAILED, OK
from barrel_p2p.testing import Report, SimulationFailed, load, standard

TEXT = (
    "Runs a scenario with thousands of simulated nodes and says what the overlay was like: connected or not, how many "
    "nodes a broadcast reached, in how many hops. The nodes are the real protocol code, clock and network are "
    "simulated: a run follows from its scenario and seed. Exit status 1 if a checker found something wrong."
)
EXAMPLES = (
    "barrel sim --list",
    "barrel sim join --nodes 10000",
    "barrel sim chaos --seed 7 --seeds 100",
    "barrel sim my-scenario.toml --json > report.json",
    "barrel sim --all",
)
PROGRESS_SECONDS = 0.2  # between two lines of progress
TABLE = "{:<12} {:>6} {:>6} {:>8} {:>10} {:>9} {:>12} {:>11} {:>9}"
HEAD = ("scenario", "nodes", "seed", "wall s", "events/s", "connected", "reliability", "redundancy", "last hop")


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    made.add_argument("scenario", metavar="SCENARIO", nargs="*", help="a .toml file, or a standard one (see --list)")
    made.add_argument("--list", action="store_true", help="list the standard scenarios")
    made.add_argument("--all", action="store_true", help="run all standard scenarios")
    made.add_argument("--seed", type=int, metavar="NUMBER", help="of all randomness, instead of the scenario's")
    made.add_argument("--seeds", type=int, metavar="NUMBER", default=1, help="run so many seeds, one after the other")
    made.add_argument("--nodes", type=int, metavar="NUMBER", help="how many, instead of the scenario's")
    made.add_argument("--json", action="store_true", help="print each report as a line of JSON")
    return made


def run(arguments: argparse.Namespace) -> int:
    scenarios = standard() if arguments.all else arguments.scenario
    if arguments.list or not scenarios:
        for name in standard():
            print(f"{name:<12} {load(name).about}")
        return OK
    if (arguments.nodes is not None and arguments.nodes < 1) or arguments.seeds < 1:
        raise Usage("barrel sim: --nodes and --seeds are numbers from 1 on")
    several = len(scenarios) > 1 or arguments.seeds > 1
    if several and not arguments.json:
        print(TABLE.format(*HEAD))
    status = OK
    for name in scenarios:
        plan = load(name)
        first = plan.seed if arguments.seed is None else arguments.seed
        for seed in range(first, first + arguments.seeds):
            if not _run(name, seed, arguments, several):
                status = FAILED
    return status


def _run(name: str, seed: int, arguments: argparse.Namespace, several: bool) -> bool:
    """Run one scenario with one seed and print what it shows; False if a checker found something wrong."""
    progress = _Progress(name)
    try:
        report = testing.run(name, seed=seed, nodes=arguments.nodes, progress=progress.show)
    except SimulationFailed as failure:
        progress.clear()
        print(f"FAILED {failure}", flush=True)
        for problem in failure.problems[1:10]:
            print(f"  also: {problem}")
        return False
    progress.clear()
    if arguments.json:
        print(json.dumps(dataclasses.asdict(report), default=str))
    elif several:
        print(TABLE.format(*_row(report)), flush=True)
    else:
        print("\n".join(report.lines()))
    return True


def _row(report: Report) -> tuple[str, ...]:
    shape = report.phases["end"]
    reached = [group for group in report.broadcasts if group.count]
    last = reached[-1] if reached else None
    return (
        report.scenario,
        str(report.nodes),
        str(report.seed),
        f"{report.wall:.1f}",
        f"{report.events_per_second:,.0f}",
        f"{shape.component:.2%}",
        "" if last is None else f"{last.reliability:.2%}",
        "" if last is None else f"{last.redundancy:.3f}",
        "" if last is None else f"{last.last_hop:.1f}",
    )


class _Progress:
    """One line that is written over, on a terminal; nothing elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = time.monotonic()
        self._on = sys.stderr.isatty()

    def show(self, passed: float, whole: float, live: int) -> None:
        now = time.monotonic()
        if self._on and now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            bar = "#" * int(30 * passed / whole)
            print(
                f"\r{self._name} [{bar:<30}] {passed:6.0f} of {whole:.0f} s, {live} nodes",
                end="",
                file=sys.stderr,
                flush=True,
            )

    def clear(self) -> None:
        if self._on:
            print("\r" + " " * 100 + "\r", end="", file=sys.stderr, flush=True)


__all__ = ["parser", "run"]
