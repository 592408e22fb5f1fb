"""``barrel sim SCENARIO``: a simulated cluster of the very machines that nodes run, in virtual time."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time

from barrel_p2p import testing
from barrel_p2p.cli.arguments import Parser
from barrel_p2p.cli.status import FAILED, OK
from barrel_p2p.testing import SimulationFailed, load, standard

TEXT = (
    "Runs a scenario with thousands of simulated nodes and says what the overlay was like: connected or not, how many "
    "nodes a broadcast reached, in how many hops. The nodes are the real protocol code, clock and network are "
    "simulated: a run follows from its scenario and seed. Exit status 1 if a checker found something wrong."
)
EXAMPLES = (
    "barrel sim --list",
    "barrel sim join --nodes 10000",
    "barrel sim chaos --seed 7",
    "barrel sim my-scenario.toml --json > report.json",
)
PROGRESS_SECONDS = 0.2  # between two lines of progress


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    made.add_argument("scenario", metavar="SCENARIO", nargs="?", help="a .toml file, or a standard one (see --list)")
    made.add_argument("--list", action="store_true", help="list the standard scenarios")
    made.add_argument("--seed", type=int, metavar="NUMBER", help="of all randomness, instead of the scenario's")
    made.add_argument("--nodes", type=int, metavar="NUMBER", help="how many, instead of the scenario's")
    made.add_argument("--json", action="store_true", help="print the report as JSON")
    return made


def run(arguments: argparse.Namespace) -> int:
    if arguments.list or arguments.scenario is None:
        for name in standard():
            print(f"{name:<12} {load(name).about}")
        return OK
    progress = _Progress()
    try:
        report = testing.run(arguments.scenario, seed=arguments.seed, nodes=arguments.nodes, progress=progress.show)
    except SimulationFailed as failure:
        progress.clear()
        print(f"FAILED {failure}")
        for problem in failure.problems[1:10]:
            print(f"  also: {problem}")
        return FAILED
    progress.clear()
    if arguments.json:
        print(json.dumps(dataclasses.asdict(report), default=str))
    else:
        print("\n".join(report.lines()))
    return OK


class _Progress:
    """One line that is written over, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self._on = sys.stderr.isatty()

    def show(self, passed: float, whole: float, live: int) -> None:
        now = time.monotonic()
        if self._on and now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            bar = "#" * int(30 * passed / whole)
            print(f"\r[{bar:<30}] {passed:6.0f} of {whole:.0f} s, {live} nodes", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on:
            print("\r" + " " * 70 + "\r", end="", file=sys.stderr, flush=True)


__all__ = ["parser", "run"]
