"""What a simulation found, and the error of one that found something wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from barrel_p2p.errors import BarrelError
from barrel_p2p.testing.broadcasts import Outcome
from barrel_p2p.testing.graph import Shape


class SimulationFailed(BarrelError):
    """A checker found something wrong. The message is one line with what, and how to see it again.

    ``replay`` is that command alone, ``problems`` is all that was found.
    """

    def __init__(self, message: str, replay: str, problems: list[str]) -> None:
        super().__init__(message)
        self.replay = replay
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Summary:
    """A group of broadcasts. Reliability is the share of nodes reached; redundancy and last hop are averages."""

    label: str
    count: int
    reliability: float
    worst: float
    complete: int
    redundancy: float
    last_hop: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run; ``phases`` holds the shape of the overlay when it was ready, and at the end."""

    scenario: str
    seed: int
    nodes: int
    version: str
    simulated: float
    cpu: float
    wall: float
    events: int
    memory: int
    sent: dict[str, int]
    phases: dict[str, Shape]
    outcomes: tuple[Outcome, ...] = field(repr=False)
    hostile: int = 0
    """Messages of a malicious member."""
    refused: dict[str, int] = field(default_factory=dict, repr=False)
    """Messages, or parts of them, that honest nodes refused, by reason."""
    tables: dict[str, int] = field(default_factory=dict, repr=False)
    """The largest tables of honest nodes at the end, if the nodes had services."""

    @property
    def events_per_second(self) -> float:
        """Of processor time: the machine may have had other work."""
        return self.events / self.cpu if self.cpu else 0.0

    @property
    def broadcasts(self) -> list[Summary]:
        """The broadcasts by label, in the order of their first."""
        groups: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            groups.setdefault(outcome.label, []).append(outcome)
        return [_summary(label, group) for label, group in groups.items()]

    def lines(self) -> list[str]:
        """The report for people."""
        mb = self.memory / 1e6
        text = [
            f"{self.scenario}: {self.nodes} nodes, seed {self.seed}, {self.simulated:.0f} s simulated in"
            f" {self.wall:.1f} s ({self.cpu:.1f} s of CPU, {self.events:,} events,"
            f" {self.events_per_second:,.0f} a second, {mb:.0f} MB)"
        ]
        for name, shape in self.phases.items():
            text.append(
                f"  {name}: {shape.nodes} nodes, {shape.links} links ({shape.one_sided} one-sided),"
                f" {shape.component:.2%} connected, clustering {shape.clustering:.5f},"
                f" path {shape.path:.2f} (longest {shape.longest_path}), in-degree {shape.in_degree}"
            )
        for group in self.broadcasts:
            text.append(
                f"  {group.label}: {group.count} broadcasts, reliability {group.reliability:.3%}"
                f" (worst {group.worst:.2%}, {group.complete} complete), redundancy {group.redundancy:.3f},"
                f" last hop {group.last_hop:.1f}, {group.seconds * 1000:.0f} ms"
            )
        if self.hostile:
            text.append(f"  {self.hostile:,} messages of a malicious member")
        if self.tables:
            text.append("  largest tables: " + ", ".join(f"{path} {size}" for path, size in self.tables.items()))
        return text


def _summary(label: str, group: Sequence[Outcome]) -> Summary:
    return Summary(
        label=label,
        count=len(group),
        reliability=fmean(o.reliability for o in group),
        worst=min(o.reliability for o in group),
        complete=sum(o.reached == o.expected for o in group),
        redundancy=fmean(o.redundancy for o in group),
        last_hop=fmean(o.last_hop for o in group),
        seconds=fmean(o.seconds for o in group),
    )


__all__ = ["Report", "SimulationFailed", "Summary"]
