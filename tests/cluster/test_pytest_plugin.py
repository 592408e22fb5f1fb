"""The pytest plugin, as a project of a user's has it: the page that tells of it is such a project."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-a-cluster.md"


def pytest_on(directory: Path, **programs: str) -> str:
    for name, text in programs.items():
        (directory / f"{name}.py").write_text(text)
    (directory / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=directory, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


def test_the_programs_of_the_page_are_tests_that_pass(tmp_path: Path) -> None:
    programs = re.findall(r"^```python\n# (test_\w+)\.py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(programs) == 2
    said = pytest_on(tmp_path, **dict(programs))
    assert "2 passed" in said, said


FAILURES = """
import asyncio

def test_too_long(barrel_cluster):
    async def story(cluster):
        await asyncio.sleep(60)
    barrel_cluster(story, size=1, limit=0.5)

def test_its_own_timeout(barrel_cluster):
    async def story(cluster):
        raise TimeoutError("of the story")
    barrel_cluster(story, size=1)

def test_plain(barrel_cluster):
    def story(cluster):
        pass
    barrel_cluster(story, size=1)
"""


def test_failures_say_what_is_wrong(tmp_path: Path) -> None:
    said = pytest_on(tmp_path, test_failures=FAILURES)
    assert "3 failed" in said, said
    assert "TimeoutError: the story took longer than its limit of 0.5 s" in said
    assert "TimeoutError: of the story" in said
    assert "TypeError: the story must be an async def, not <function test_plain" in said
