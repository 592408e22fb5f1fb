"""Runs a scenario: joins, faults and broadcasts by the clock, checkers all the while, a report at the end."""

from __future__ import annotations

import dataclasses
import gc
import resource
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from barrel_p2p.errors import ConfigError
from barrel_p2p.testing import checkers, graph
from barrel_p2p.testing.broadcasts import Entry, Outcome
from barrel_p2p.testing.cluster import Cluster, MakeMember
from barrel_p2p.testing.faults import Faults
from barrel_p2p.testing.malice import Malice
from barrel_p2p.testing.report import Report, SimulationFailed
from barrel_p2p.testing.scenario import Broadcasts, Scenario, load
from barrel_p2p.testing.services import Services

Progress = Callable[[float, float, int], None]
"""Called now and then with the simulated seconds that have passed, those in all, and the number of live nodes."""

OUTCOME_MS = 20_000  # after so long a broadcast has got where it gets to
PROGRESS_MS = 5_000
SAMPLES = 24  # of the sizes of tables in a run


def run(
    scenario: Scenario | str | Path,
    *,
    seed: int | None = None,
    nodes: int | None = None,
    progress: Progress | None = None,
    make: MakeMember | None = None,
) -> Report:
    """Run a scenario and return its figures.

    Example: ``run("chaos", seed=7).broadcasts``

    Args:
        scenario: one made by hand, a path of a TOML file, or the name of a standard one.
        seed: instead of the scenario's.
        nodes: instead of the scenario's.
        progress: called every five simulated seconds.
        make: makes the members, for tests that mix in nodes of another kind.

    Raises:
        SimulationFailed: a checker found something wrong; the message replays it.
        ConfigError: the scenario can't be read.
    """
    plan = scenario if isinstance(scenario, Scenario) else load(scenario)
    source = plan.name if isinstance(scenario, Scenario) else str(scenario)
    plan = dataclasses.replace(plan, nodes=nodes or plan.nodes, seed=plan.seed if seed is None else seed)
    unknown = [name for name in plan.checks if name not in {**checkers.ALWAYS, **checkers.QUIET}]
    if unknown:
        raise ConfigError(f"there is no checker {unknown[0]!r}; there are {', '.join(_ALL)}")
    collects = gc.isenabled()
    gc.disable()  # nothing here makes cycles, and looking for them takes a third of the time
    try:
        return _Run(plan, source, progress, make).run()
    finally:
        if collects:
            gc.enable()


_ALL = [*checkers.ALWAYS, *checkers.QUIET]


class _Run:
    """One run of a scenario."""

    def __init__(self, plan: Scenario, source: str, progress: Progress | None, make: MakeMember | None) -> None:
        self._plan = plan
        self._source = source
        self._progress = progress
        self._cluster = Services(plan, plan.seed, make) if plan.services else Cluster(plan, plan.seed, make)
        self._malice: Malice | None = None
        self._clock = self._cluster.clock
        self._end_ms = int((plan.ready + plan.duration) * 1000)
        self._phases: dict[str, graph.Shape] = {}

    def run(self) -> Report:
        began = time.process_time(), time.perf_counter()
        plan, clock = self._plan, self._clock
        ready_ms = int(plan.ready * 1000)
        self._plan_joins()
        clock.at(ready_ms, self._ready)
        Faults(self._cluster, ready_ms)
        for group in plan.broadcasts:
            for number in range(group.count):
                clock.at(ready_ms + int((group.at + number * group.every) * 1000), self._broadcast, group)
        clock.at(int(plan.check_every * 1000), self._check_always)
        if self._progress is not None:
            clock.at(0, self._tell_progress)
        self._run_clock()
        self._check({**checkers.ALWAYS, **checkers.QUIET})
        self._phases["end"] = self._shape()
        return self._report(time.process_time() - began[0], time.perf_counter() - began[1])

    def _run_clock(self) -> None:
        try:
            self._clock.run(self._end_ms)
        except SimulationFailed:
            raise
        except Exception as error:  # of a machine, which must not raise whatever happens
            what = traceback.format_exception_only(error)[-1].strip()
            where = traceback.extract_tb(error.__traceback__)[-1]
            self._fail([f"a node crashed: {what} ({where.name}, {Path(where.filename).name}:{where.lineno})"], error)

    def _plan_joins(self) -> None:
        plan = self._plan
        contacts = min(plan.join.contacts, plan.nodes)
        for number in range(plan.nodes):
            contact = None if number == 0 else f"n{int(self._cluster.rng.random() * min(number, contacts))}@sim"
            at_ms = int(plan.join.within * 1000 * number / plan.nodes)
            self._clock.at(at_ms, self._start, f"n{number}@sim", contact)

    def _start(self, name: str, contact: str | None, _: Any) -> None:
        self._cluster.start(name, contact)

    def _ready(self, _: Any, __: Any, ___: Any) -> None:
        self._phases["ready"] = self._shape()
        cluster, plan = self._cluster, self._plan
        if isinstance(cluster, Services):
            cluster.use(self._end_ms - int(plan.quiet * 1000) // 3)
            self._clock.at(self._clock.ms, self._measure, cluster, int(plan.duration * 1000) // SAMPLES)
            if plan.malicious is not None:
                member = cluster.live[-1]
                until_ms = self._end_ms - int(plan.quiet * 1000)
                self._malice = Malice(cluster, member, per_minute=plan.malicious.per_minute, until_ms=until_ms)

    def _measure(self, cluster: Services, every_ms: int, _: Any) -> None:
        self._clock.at(self._clock.ms + every_ms, self._measure, cluster, every_ms)
        cluster.measure()

    def _shape(self) -> graph.Shape:
        return graph.shape(self._cluster.live, self._cluster.rng)

    def _tell_progress(self, _: Any, __: Any, ___: Any) -> None:
        if self._progress is not None:
            self._progress(self._clock.seconds, self._end_ms / 1000, len(self._cluster.live))
            self._clock.at(self._clock.ms + PROGRESS_MS, self._tell_progress)

    # --- broadcasts ---------------------------------------------------------------------------------------------------

    def _broadcast(self, group: Broadcasts, _: Any, __: Any) -> None:
        cluster = self._cluster
        live = [member for member in cluster.honest if member.up_ms >= 0]
        if not live:
            return
        sender = live[0] if group.senders == "first" else live[int(cluster.rng.random() * len(live))]
        if group.mode == "flood":
            self._flood(group, cluster.live.index(sender))
        else:
            entry = cluster.send_out(sender, group.label)
            self._clock.at(self._clock.ms + OUTCOME_MS, self._broadcast_over, entry)

    def _flood(self, group: Broadcasts, sender: int) -> None:
        live = self._cluster.live
        hops = graph.distances(graph.links(live), sender)
        self._cluster.ledger.outcomes.append(
            Outcome(group.label, self._clock.seconds, False, len(live), len(hops), 0.0, hops[-1], 0.0)
        )

    def _broadcast_over(self, entry: Entry, _: Any, __: Any) -> None:
        cluster = self._cluster
        outcome, missed = cluster.ledger.close(entry, cluster.honest, disturbed_ms=cluster.disturbed_ms)
        if outcome.quiet and missed and "delivered" in self._plan.checks:
            self._fail([f"delivered: broadcast {entry.number} of {outcome.at} s did not reach {', '.join(missed)}"])

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_always(self, _: Any, __: Any, ___: Any) -> None:
        self._check(checkers.ALWAYS)
        self._clock.at(self._clock.ms + int(self._plan.check_every * 1000), self._check_always)

    def _check(self, which: dict[str, checkers.Checker]) -> None:
        problems = []
        for name, checker in which.items():
            if name in self._plan.checks:
                problems += [f"{name}: {line}" for line in checker(self._cluster)]
        if problems:
            self._fail(problems)

    def _fail(self, problems: list[str], cause: Exception | None = None) -> None:
        plan = self._plan
        replay = f"barrel sim {self._source} --seed {plan.seed} --nodes {plan.nodes}"
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        at = f"after {self._clock.seconds} s"
        raise SimulationFailed(
            f"{problems[0]}{more}, {at}; {_version()}; replay: {replay}", replay, problems
        ) from cause

    def _report(self, cpu: float, wall: float) -> Report:
        cluster = self._cluster
        return Report(
            scenario=self._plan.name,
            seed=self._plan.seed,
            nodes=self._plan.nodes,
            version=_version(),
            simulated=self._clock.seconds,
            cpu=cpu,
            wall=wall,
            events=self._clock.passed,
            memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            sent={kind.__name__: count for kind, count in cluster.sent.items()},
            phases=self._phases,
            outcomes=tuple(cluster.ledger.outcomes),
            hostile=0 if self._malice is None else self._malice.sent,
            refused=dict(cluster.refused) if isinstance(cluster, Services) else {},
            tables=cluster.growth.largest() if isinstance(cluster, Services) else {},
        )


def _version() -> str:
    try:
        return f"barrel-p2p {version('barrel-p2p')}"
    except PackageNotFoundError:  # run from a checkout
        return "barrel-p2p, not installed"


__all__ = ["Progress", "run"]
