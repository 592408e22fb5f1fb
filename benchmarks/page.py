"""``results/README.md`` and the plots, made from the JSON beside them and nothing else.

    python benchmarks/page.py

A full run does it at its end; do it by hand after a change of this file or of ``plots.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from plan import ROWS
from report import judged, medians, show, verdict

RESULTS = Path(__file__).parent / "results"


def write(results: Path = RESULTS) -> str:
    """Makes the page and the plots; returns a line that says what was made."""
    latest = json.loads((results / "latest.json").read_text())
    curves = json.loads((results / "curves.json").read_text()) if (results / "curves.json").exists() else None
    (results / "README.md").write_text(page(latest, curves))
    try:
        import plots
    except ImportError as fault:
        return f"made README.md; no plots: {fault}"
    plots.bars(latest, results / "latest.svg")
    if curves is not None:
        plots.curves(curves, results / "curves.svg")
    return "made README.md and the plots"


def page(latest: dict[str, Any], curves: dict[str, Any] | None) -> str:
    """The text of ``results/README.md``."""
    parts = [
        "# Results",
        "Made by `benchmarks/page.py` from `latest.json` and `curves.json`; edits are lost. "
        "How to read them and how they were taken: [../README.md](../README.md).",
        *_conditions(latest),
        "## Targets",
        _targets(latest),
        "![Our figures as multiples of the targets](latest.svg)",
        "## All figures",
        "Median (minimum to maximum).",
        _figures(latest),
    ]
    if curves is not None:
        parts += ["## As the work grows", *_conditions(curves), "![Curves](curves.svg)"]
    return "\n\n".join(parts) + "\n"


def _conditions(document: dict[str, Any]) -> list[str]:
    machine = document["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    runs = sorted({row["runs"] for row in document["rows"]})
    load = ", ".join(str(value) for value in machine["load_before"])
    lines = [
        f"{document.get('date', 'no date')}, commit {document['commit']}, {' or '.join(map(str, runs))} runs. "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['kernel']}; load average "
        f"before the start {load}. {versions}."
    ]
    lines += [f"Left out: {system}: {why}" for system, why in document.get("left_out", {}).items()]
    lines += [f"FAILED: {text.splitlines()[0]}" for text in document.get("failures", [])]
    return lines


def _targets(latest: dict[str, Any]) -> str:
    lines = ["| row | ours | target | is |", "|---|---|---|---|"]
    for target, figure in judged(medians(latest)):
        lines.append(f"| `{target.row}` | `{target.system}` | {target.text()} | {verdict(target, figure)} |")
    return "\n".join(lines)


def _figures(latest: dict[str, Any]) -> str:
    lines = ["| row | unit | system | figure |", "|---|---|---|---|"]
    for row in ROWS:
        for found in (found for found in latest["rows"] if found["work"] == row):
            spread = f"{show(found['median'])} ({show(found['min'])} to {show(found['max'])})"
            lines.append(f"| `{row}` | {found['unit']} | `{found['system']}` | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(write())
