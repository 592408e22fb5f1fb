"""What is published of the benchmark says what was measured, and its documentation knows every row and system."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PAGE = "import json, sys, page; print(page.page(*map(json.loads, sys.stdin.read().split('\\0'))), end='')"


def test_the_page_of_results_is_made_from_their_json() -> None:
    results = BENCHMARKS / "results"
    curves = results / "curves.json"
    source = "\0".join([(results / "latest.json").read_text(), curves.read_text() if curves.exists() else "null"])
    made = subprocess.run(
        [sys.executable, "-c", PAGE], cwd=BENCHMARKS, input=source, capture_output=True, text=True, check=True
    )
    assert made.stdout == (results / "README.md").read_text(), "run: python benchmarks/page.py"


def test_the_documentation_names_every_row_and_system() -> None:
    text = (BENCHMARKS / "README.md").read_text()
    names = "import plan, run; print(*plan.ROWS, *{system.name for system in run.known()})"
    known = subprocess.run([sys.executable, "-c", names], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert [name for name in known.stdout.split() if f"`{name}`" not in text] == []


def test_a_target_is_judged_by_the_side_on_which_better_lies() -> None:
    program = """
import json
from plan import TARGETS
for target in TARGETS:
    print(json.dumps([target.row, target.text(), target.met(target.times * 0.9), target.met(target.times * 1.1)]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    judged = {row: rest for row, *rest in map(json.loads, done.stdout.splitlines())}
    assert judged["oneway_10"] == [">= 1.5x otp_tls", False, True]
    assert judged["pingpong_p99_us"] == ["<= 1.5x otp_tls", True, False]
    assert judged["idle_cpu"] == ["< 0.5 % of a core", True, False]
