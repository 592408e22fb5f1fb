"""The samples as a table for people and as JSON for programs."""

from __future__ import annotations

import fnmatch
import json
import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plan import ROWS, TARGETS, Row, Target


@dataclass(slots=True)
class Results:
    """All samples of one run of the benchmark."""

    samples: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # (row, system) -> values
    left_out: dict[str, str] = field(default_factory=dict)  # system -> why
    failures: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def add(self, row: str, system: str, value: float) -> None:
        self.samples.setdefault((row, system), []).append(value)


def as_json(results: Results) -> dict[str, Any]:
    return {
        **commit_and_date(),
        "machine": results.machine,
        "versions": results.versions,
        "left_out": results.left_out,
        "failures": results.failures,
        "rows": [
            {
                "work": row,
                "system": system,
                "unit": ROWS[row].unit,
                "median": rounded(statistics.median(values)),
                "min": rounded(min(values)),
                "max": rounded(max(values)),
                "runs": len(values),
            }
            for (row, system), values in sorted(results.samples.items(), key=_order)
        ],
    }


def write_json(document: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def medians(document: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Of each row and system."""
    return {(row["work"], row["system"]): float(row["median"]) for row in document["rows"]}


def judged(figures: dict[tuple[str, str], float]) -> list[tuple[Target, float | None]]:
    """Each target with our figure, divided by the rival's if it has one; None if one of the two wasn't measured."""
    found: list[tuple[Target, float | None]] = []
    for target in TARGETS:
        ours = figures.get((target.row, target.system))
        rival = figures.get((target.row, target.rival)) if target.rival else 1.0
        found.append((target, ours / rival if ours is not None and rival else None))
    return found


def verdict(target: Target, figure: float | None) -> str:
    if figure is None:
        return "not measured"
    shown = f"{figure:.2f}{'x' if target.rival else ''}"
    return f"{shown}, {'met' if target.met(figure) else 'NOT MET'}"


def table(results: Results) -> str:
    """One block a row: the systems, their median with the range, how ours compares with each; then the targets."""
    lines: list[str] = []
    middles = {key: statistics.median(values) for key, values in results.samples.items()}
    for row in ROWS.values():
        values = {system: v for (name, system), v in results.samples.items() if name == row.name}
        if not values:
            continue
        lines.append(f"\n{row.name}: {row.about}")
        first = next((s for s in values if s.startswith("ours")), None)
        base = statistics.median(values[first]) if first else None
        for system, samples in values.items():
            middle = statistics.median(samples)
            spread = f"{show(min(samples))} .. {show(max(samples))}"
            text = f"  {system:<16}{show(middle):>12} {row.unit:<14}{spread:<24}"
            if base is not None and system != first:
                text += f" {first} is {_ratio(row, base, middle):.2f}x as good"
            lines.append(text.rstrip())
    measured = [(target, figure) for target, figure in judged(middles) if (target.row, target.system) in middles]
    lines += ["\ntargets"] * bool(measured)
    lines += [f"  {target.row:<22}{target.text():<24}{verdict(target, figure)}" for target, figure in measured]
    lines += [f"\nleft out: {system}: {why}" for system, why in results.left_out.items()]
    lines += [f"\nFAILED: {text}" for text in results.failures]
    return "\n".join(lines)


def beside_published(results: Results, path: Path) -> str:
    """Our ratio to each rival now and in the committed results: ratios travel between machines."""
    published = medians(json.loads(path.read_text()))
    now = {key: statistics.median(values) for key, values in results.samples.items()}
    lines = []
    for row in ROWS.values():
        ours = next((s for name, s in now if name == row.name and s.startswith("ours")), None)
        for name, rival in now:
            keys = ((name, ours or ""), (name, rival))
            if name != row.name or ours is None or rival == ours or not all(key in published for key in keys):
                continue
            ratios = [_ratio(row, table[keys[0]], table[keys[1]]) for table in (now, published)]
            mark = "   <- look" if ratios[0] < 0.7 * ratios[1] else ""
            lines.append(f"  {name:<22}{rival:<16}{ratios[0]:8.2f}{ratios[1]:8.2f}{mark}")
    head = f"\nour ratio to each rival, now and in {path.name} (above 1: we are better)"
    return "\n".join([head, *lines] if lines else [])


def _ratio(row: Row, ours: float, rival: float) -> float:
    good, bad = (ours, rival) if row.more_is_better else (rival, ours)
    return good / bad if bad else float("inf")


def machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def commit_and_date() -> dict[str, str]:
    return {"commit": _commit(), "date": datetime.now(UTC).date().isoformat()}


def matches(name: str, patterns: str) -> bool:
    """Whether the name fits one of the patterns, which stand apart by comma."""
    return any(fnmatch.fnmatch(name, pattern.strip()) for pattern in patterns.split(","))


def _commit() -> str:
    """The commit under measurement; ``+changes`` when the tree holds uncommitted ones."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def _git(where: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=where, check=True, capture_output=True, text=True).stdout.strip()


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _order(item: tuple[tuple[str, str], list[float]]) -> tuple[int, str]:
    names = list(ROWS)
    return names.index(item[0][0]), item[0][1]


def rounded(value: float) -> float:
    return round(value, 3) if value < 1000 else round(value)


def show(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 10 else f"{value:.1f}"
