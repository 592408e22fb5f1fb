"""The figures of the results: bars of our figures beside the targets, and the curves. Needs matplotlib."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any, Final

import matplotlib.pyplot as plt
from matplotlib.axis import Axis
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from plan import ROWS
from report import judged, medians

plt.switch_backend("svg")
plt.rcParams.update({"svg.hashsalt": "barrel", "svg.fonttype": "none", "font.size": 9})

PLAIN: Final = {"Date": None}  # the same figures give the same file
MET, MISSED = "#2a7f62", "#c2543c"
COLOURS: Final = {
    "ours_quic": "#1f5fa8",
    "ours_tcp": "#6fa8dc",
    "otp_tcp": "#c98a1b",
    "otp_tls": "#a23b3b",
    "asyncio_msgpack": "#5b8c5a",
    "grpc_aio": "#7d6b9d",
    "zmq_aio": "#888888",
}


def bars(latest: dict[str, Any], path: Path) -> None:
    """How far each target is passed or missed: 1 is the target, to the right is better."""
    found = [(target, figure) for target, figure in judged(medians(latest)) if figure is not None]
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(found) + 1.2), layout="constrained")
    for place, (target, value) in zip(count(), reversed(found)):
        times = value / target.times if ROWS[target.row].more_is_better else target.times / max(value, 1e-9)
        axes.barh(place, times - 1, left=1, color=MET if target.met(value) else MISSED)
        axes.annotate(f"{times:.2f}", (times, place), (4 if times >= 1 else -4, 0), textcoords="offset points",
                      va="center", ha="left" if times >= 1 else "right")  # fmt: skip
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.margins(x=0.15)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(found)), [f"{target.row}  ({target.text()})" for target, _ in reversed(found)])
    axes.set_xlabel("times the target; right of 1: met")
    figure.savefig(path, metadata=PLAIN)
    plt.close(figure)


def curves(document: dict[str, Any], path: Path) -> None:
    """One panel for each kind of growth, a line for each system, all axes logarithmic."""
    works = list(dict.fromkeys(row["work"] for row in document["rows"]))
    columns = 2
    figure, grid = plt.subplots(
        -(-len(works) // columns), columns, figsize=(11, 3.4 * -(-len(works) // columns)), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for work, axes in zip(works, grid.flat, strict=False):
        rows = [row for row in document["rows"] if row["work"] == work]
        for system in dict.fromkeys(row["system"] for row in rows):
            line = sorted((row["x"], row["median"], row["min"], row["max"]) for row in rows if row["system"] == system)
            x, middle, low, high = zip(*line, strict=True)
            colour = COLOURS.get(system)
            axes.plot(x, middle, marker="o", markersize=3, label=system, color=colour)
            axes.fill_between(x, low, high, alpha=0.15, color=colour, linewidth=0)
        axes.set(xscale="log", yscale="log", title=work, xlabel=rows[0]["x_unit"], ylabel=rows[0]["unit"])
        _plain_numbers(axes.xaxis)
        _plain_numbers(axes.yaxis)
        axes.grid(True, which="major", alpha=0.3)
    for axes in list(grid.flat)[len(works) :]:
        axes.set_axis_off()
    grid.flat[0].legend(fontsize=8)
    figure.savefig(path, metadata=PLAIN)
    plt.close(figure)


def _plain_numbers(axis: Axis) -> None:
    """20k instead of a power of ten, and enough of them where an axis spans less than a decade."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())
