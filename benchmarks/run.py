"""``make bench``: our nodes beside stock Erlang nodes and beside the floor of Python, in the same run.

    python benchmarks/run.py [--quick|--tiny] [--only PATTERN,...] [--systems NAME,...] [--runs N] [--json PATH]

``--quick`` does a tenth of the work and sets its ratios beside the committed ones. Each round starts every
system afresh and takes the works one by one through all systems, so that a change of the machine's mood hits
them alike; the order of the systems turns by one each round. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import page
from plan import FULL, QUICK, TINY, WORKS, Sizes
from report import Results, as_json, beside_published, machine, matches, table, write_json
from systems import FAULTS, Session, System, bare, codec, otp, ours, rivals

PUBLISHED = Path(__file__).parent / "results" / "latest.json"
BUSY = 0.5  # load average of the last minute above which figures aren't worth publishing: a guess


def main() -> int:
    options = _options()
    sizes = TINY if options.tiny else QUICK if options.quick else FULL
    results = Results(versions={"python": platform.python_version()})
    works = [work for work in WORKS if _wanted(work, options.only)]
    systems = _installed(works, options.systems, results)
    if not works or not systems:
        print("nothing to measure: --only and --systems match no work that can run here", file=sys.stderr)
        return 2
    results.machine = machine()
    print(f"machine: {results.machine}\nversions: {results.versions}", flush=True)
    if results.machine["load_before"][0] > BUSY:
        print("warning: this machine is busy with something else; the figures below will show it", flush=True)
    for number in range(options.runs):
        turn = number % len(systems)
        _round(number + 1, options.runs, works, systems[turn:] + systems[:turn], sizes, results)
    print(table(results))
    if options.quick and PUBLISHED.exists():
        print(beside_published(results, PUBLISHED))
    write_json(as_json(results), options.json)
    print(f"\nwritten: {options.json}" + ("   (--quick: too short to publish)" if options.quick else ""))
    if options.json == PUBLISHED:
        print(page.write())
    return 1 if results.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures our nodes beside stock Erlang nodes and bare asyncio.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, once: does everything run?")
    parser.add_argument("--tiny", action="store_true", help="next to nothing, once: do the programs run?")
    parser.add_argument("--only", default="*", help="rows or works by comma, with wildcards: call_*,pingpong")
    parser.add_argument("--systems", default="*", help="systems by comma, with wildcards: ours_*,otp_tls")
    parser.add_argument("--runs", type=int, help="samples of each row (default 5, with --quick 1)")
    parser.add_argument("--json", type=Path, help="default results/latest.json, of a part results/local/quick.json")
    options = parser.parse_args()
    options.quick = options.quick or options.tiny
    whole = not options.quick and options.only == options.systems == "*"
    options.runs = options.runs or (1 if options.quick else 5)
    options.json = options.json or (PUBLISHED if whole else PUBLISHED.parent / "local" / "quick.json")
    return options


def known() -> list[System]:
    return [*ours.systems(), *otp.systems(), *rivals.systems(), *bare.systems(), *codec.systems()]


def _installed(works: list[str], wanted: str, results: Results) -> list[System]:
    """The systems that can run here; the others are named in the output with the reason."""
    found = []
    for system in known():
        if not matches(system.name, wanted) or not set(system.works) & set(works):
            continue
        why = system.missing()
        if why is None:
            found.append(system)
            results.versions.update(system.versions())
        else:
            results.left_out[system.name] = why
    return found


def _round(turn: int, of: int, works: list[str], systems: list[System], sizes: Sizes, results: Results) -> None:
    begin = time.monotonic()
    for group in ([s for s in systems if not s.alone], [s for s in systems if s.alone]):
        _together(works, group, sizes, results)
    print(f"round {turn} of {of}: {time.monotonic() - begin:.0f} s", flush=True)


def _together(works: list[str], systems: list[System], sizes: Sizes, results: Results) -> None:
    with tempfile.TemporaryDirectory(prefix="barrel-bench-") as folder:
        sessions: list[tuple[System, Session]] = []
        try:
            for number, system in enumerate(systems):
                directory = Path(folder) / str(number)
                directory.mkdir()
                try:
                    sessions.append((system, system.start(directory)))
                except FAULTS as fault:
                    results.failures.append(f"{system.name} did not start: {fault}")
            for work in works:
                for system, session in sessions:
                    if work in system.works:
                        _sample(work, system, session, sizes, results)
        finally:
            for _, session in sessions:
                session.close()


def _sample(work: str, system: System, session: Session, sizes: Sizes, results: Results) -> None:
    try:
        values = session.run(work, sizes)
    except FAULTS as fault:
        results.failures.append(f"{system.name} {work}: {fault}")
        return
    for row, value in zip(WORKS[work], values, strict=True):
        results.add(row.name, system.name, value)


def _wanted(work: str, patterns: str) -> bool:
    return any(matches(name, patterns) for name in (work, *(row.name for row in WORKS[work])))


if __name__ == "__main__":
    sys.exit(main())
