"""How the figures move as the work grows: larger messages, more pairs, more callers, more peers.

    python benchmarks/curves.py [--quick] [--only payload,peers] [--systems 'ours_*,otp_tls'] [--runs 3] [--json PATH]

Each run starts the systems afresh and takes the points one by one through all of them, smallest first. A point that
fails is named and leaves a gap, and its system is started again for the next one. A full run writes
results/curves.json and draws results/curves.svg; what to look for in it is a cliff.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))

import page
from report import commit_and_date, machine, matches, rounded, show, write_json
from systems import FAULTS, System, otp, ours, rivals
from systems.pair import Pair
from systems.star import Layout, cpu_seconds, started

PUBLISHED: Final = Path(__file__).parent / "results" / "curves.json"
KIB, MIB = 1 << 10, 1 << 20
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Curve:
    """What grows, and through which steps."""

    name: str
    x_unit: str
    steps: tuple[int, ...]
    units: dict[str, str]  # row and unit
    systems: tuple[str, ...]
    most: dict[str, int] = field(default_factory=dict)  # a system's last step, if it can't go on

    def steps_of(self, system: str, quick: bool) -> list[int]:
        steps = self.steps[:3] if quick else self.steps
        return [x for x in steps if x <= self.most.get(system, x)]


NODES: Final = ("ours_quic", "ours_tcp", "otp_tcp", "otp_tls")
CURVES: Final = (
    Curve(
        "payload", "bytes in a message",
        (16, 64, KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB),
        {"payload_msg_s": "msg/s", "payload_mb_s": "MB/s"}, (*NODES, "asyncio_msgpack", "grpc_aio"),
    ),
    Curve("pairs", "pairs of processes", (1, 10, 100, 1000), {"pairs_msg_s": "msg/s"}, (*NODES, "asyncio_msgpack")),
    Curve(
        "callers", "callers of one server", (1, 10, 50, 500, 5000), {"callers_calls_s": "calls/s"},
        (*NODES, "asyncio_msgpack", "grpc_aio"), {"grpc_aio": 500},  # with 2,000 at a time it cancels some
    ),
    Curve(
        "peers", "connected peers", (5, 50, 500), {"peers_msg_s": "msg/s", "peers_cpu_us": "us of CPU per message"},
        ("ours_quic", "otp_tls"), {"otp_tls": 50},  # a VM each: half a second of a core and 50 MB
    ),
)  # fmt: skip


@dataclass(slots=True)
class Points:
    samples: dict[tuple[str, str, int], list[float]] = field(default_factory=dict)  # (row, system, x) -> values
    failures: list[str] = field(default_factory=list)

    def add(self, curve: Curve, system: str, x: int, values: list[float]) -> None:
        for row, value in zip(curve.units, values, strict=True):
            self.samples.setdefault((row, system, x), []).append(value)
        print(f"  {system:<16}{x:>9} {curve.x_unit:<24}", *(show(value) for value in values), flush=True)


def main() -> int:
    options = _options()
    curves = [curve for curve in CURVES if matches(curve.name, options.only)]
    known: list[System] = [*ours.systems(), *otp.systems(), *rivals.systems()]
    systems = [system for system in known if matches(system.name, options.systems) and system.missing() is None]
    here, points = machine(), Points()
    for _ in range(options.runs):
        begin = time.monotonic()
        pairs = [system for system in systems if "oneway_1" in system.works]
        for curve in curves:
            print(curve.name, flush=True)
            if curve.name == "peers":
                _stars(curve, options.quick, {system.name for system in systems}, points)
            else:
                _pairs(curve, options.quick, pairs, points)
        print(f"a run of {time.monotonic() - begin:.0f} s", flush=True)
    versions = {"python": platform.python_version()}
    for system in systems:
        versions |= system.versions()
    write_json({**commit_and_date(), "machine": here, "versions": versions, **_rows(points)}, options.json)
    print(*(f"\nFAILED: {text}" for text in points.failures), f"\nwritten: {options.json}")
    if options.json == PUBLISHED:
        print(page.write())
    return 1 if points.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures how the figures move as the work grows.")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the messages and one run")
    parser.add_argument("--only", default="*", help="payload, pairs, callers, peers, by comma")
    parser.add_argument("--systems", default="*", help="systems by comma, with wildcards: ours_*,otp_tls")
    parser.add_argument("--runs", type=int, help="samples of each point (default 3, with --quick 1)")
    parser.add_argument("--json", type=Path, help="default results/curves.json, else results/local/curves.json")
    options = parser.parse_args()
    whole = not options.quick and options.only == options.systems == "*"
    options.runs = options.runs or (1 if options.quick else 3)
    options.json = options.json or (PUBLISHED if whole else PUBLISHED.parent / "local" / "curves.json")
    return options


# --- two nodes ----------------------------------------------------------------------------------------------------


def _pairs(curve: Curve, quick: bool, systems: list[System], points: Points) -> None:
    with tempfile.TemporaryDirectory(prefix="barrel-bench-") as folder:
        up: dict[str, Pair] = {}
        starts = 0
        try:
            for x in curve.steps:
                for system in systems:
                    if system.name not in curve.systems or x not in curve.steps_of(system.name, quick):
                        continue
                    try:
                        if system.name not in up:
                            directory = Path(folder) / str(starts := starts + 1)
                            directory.mkdir()
                            up[system.name] = system.start(directory)
                        points.add(curve, system.name, x, _pair_point(curve, x, _share(system, quick), up[system.name]))
                    except FAULTS as fault:
                        points.failures.append(f"{system.name} at {x} {curve.x_unit}: {fault}")
                        if failed := up.pop(system.name, None):
                            failed.close()
        finally:
            for session in up.values():
                session.close()


def _share(system: System, quick: bool) -> float:
    share = system.share if isinstance(system, rivals.Rival) else 1.0
    return share / 100 if quick else share


def _pair_point(curve: Curve, x: int, share: float, session: Pair) -> list[float]:
    match curve.name:
        case "payload":
            count = max(8, int(min(200_000, 128 * MIB // x) * min(1.0, share * max(1, x // KIB))))
            batch = max(1, min(100, MIB // x))  # as many as fit the sender's high-water mark
            (rate,) = session.ask(f"oneway 1 {count} {x} {batch}", PATIENCE_S)
            return [rate, rate * x / 1e6]
        case "pairs":
            return session.ask(f"oneway {x} {max(20, int(200_000 * share) // x)} 64 100", PATIENCE_S)
        case "callers":
            # twenty calls of each at least: with fewer it is the start of the callers that is measured
            count = max(4, int((4_000 if x == 1 else max(20_000, 20 * x)) * share) // x)
            return session.ask(f"call {x} {count} 64", PATIENCE_S)
    raise ValueError(curve.name)


# --- a hub and its peers ------------------------------------------------------------------------------------------


def _stars(curve: Curve, quick: bool, wanted: set[str], points: Points) -> None:
    layouts: dict[str, Layout] = {"ours_quic": ours.OursLayout(), "otp_tls": otp.OtpLayout(tls=True)}
    for name, layout in layouts.items():
        if name in wanted:
            steps = curve.steps_of(name, quick)[: 1 if quick else None]
            try:
                _star(curve, name, layout, steps, 500 if quick else 50_000, points)
            except FAULTS as fault:
                points.failures.append(f"{name} with peers: {fault}")


def _star(curve: Curve, name: str, layout: Layout, steps: Any, count: int, points: Points) -> None:
    with tempfile.TemporaryDirectory(prefix="barrel-bench-") as folder, started(layout, Path(folder)) as star:
        for x in steps:
            star.grow("connect", x)
            time.sleep(1)
            busy = cpu_seconds(star.hub.pid)
            (rate,) = star.hub.ask(f"fan {count} 64", PATIENCE_S)
            busy = cpu_seconds(star.hub.pid) - busy
            points.add(curve, name, x, [rate, busy / (count * 1.1) * 1e6])  # a tenth more was the warm-up


def _rows(points: Points) -> dict[str, Any]:
    about = {row: (curve.x_unit, unit) for curve in CURVES for row, unit in curve.units.items()}
    rows = [
        {
            "work": row,
            "system": system,
            "x": x,
            "x_unit": about[row][0],
            "unit": about[row][1],
            "median": rounded(statistics.median(values)),
            "min": rounded(min(values)),
            "max": rounded(max(values)),
            "runs": len(values),
        }
        for (row, system, x), values in points.samples.items()
    ]
    return {"rows": rows, "failures": points.failures}


if __name__ == "__main__":
    sys.exit(main())
