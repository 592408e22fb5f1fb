"""The snippets in the documentation run.

A ``python`` block that ends in ``asyncio.run(main())`` is a program: it must exit with status 0. One that opens with
a comment naming a file (``# bob.py``) belongs to a story of several programs, told in
``tests/cluster/test_tutorials.py``. Every other block must at least compile.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPETS = [
    pytest.param(match.group(1), id=f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 2}")
    for page in PAGES
    for match in BLOCK.finditer(page.read_text())
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet(code: str, tmp_path: Path) -> None:
    if ">>> " in code:
        code = "\n".join(line[4:] for line in code.splitlines() if line[:4] in (">>> ", "... "))
    wrapped = "async def snippet():\n" + "".join(f"    {line}\n" for line in code.splitlines()) + "    pass\n"
    try:
        compile(code, "snippet", "exec")
    except SyntaxError:
        compile(wrapped, "snippet", "exec")  # one that awaits at its top level
    if code.rstrip().endswith("asyncio.run(main())") and not code.startswith("# "):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "never retrieved" not in done.stderr, done.stderr


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)} -> {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken, broken


def test_the_tests_that_security_claims_rest_on_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py"))
    named = set(re.findall(r"\b(test_\w+?)(?:_\.\.\.)?`", text))
    functions = {name for name in named if not list(ROOT.glob(f"tests/**/{name}.py"))}
    assert len(functions) >= 10
    assert not [name for name in functions if f"def {name}" not in tests]
    missing = [path for path in re.findall(r"`(tests/[\w/]+\.py)", text) if not (ROOT / path).exists()]
    assert not missing
