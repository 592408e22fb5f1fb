"""The pytest plugin, as a project of a user's has it: the page that tells of it is such a project."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "test-a-cluster.md"


def test_the_page_is_a_test_that_passes(tmp_path: Path) -> None:
    program = re.search(r"^```python\n# test_counter\.py\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert program is not None
    (tmp_path / "test_counter.py").write_text(program[1])
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
