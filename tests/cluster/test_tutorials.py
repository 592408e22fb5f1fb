"""The tutorials, told with their own programs, must print what they promise."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / "tutorials" / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_chat_prints_what_its_page_promises() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "chat" / "demo.py"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    readme = (ROOT / "examples" / "chat" / "README.md").read_text()
    assert f"```text\n{done.stdout}```" in readme
    (cleo,) = blocks("chat.md", "text")
    assert cleo in done.stdout


def test_the_chat_tutorial_quotes_the_example() -> None:
    program = (ROOT / "examples" / "chat" / "chat.py").read_text()
    quoted = blocks("chat.md", "python")
    assert quoted and all(code in program for code in quoted)


def interruptible() -> None:
    """A test run in the background ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(directory: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", name],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_first_cluster(tmp_path: Path, end: signal.Signals) -> None:
    programs = {code.splitlines()[0][2:]: code for code in blocks("first-cluster.md", "python")}
    for name, code in programs.items():
        (tmp_path / name).write_text(code)
    promised, *farewells = blocks("first-cluster.md", "text")
    farewell = farewells[end == signal.SIGKILL]

    bob = start(tmp_path, "bob.py")
    assert bob.stdout is not None and "listens" in bob.stdout.readline()
    alice = start(tmp_path, "alice.py")
    try:
        assert alice.stdout is not None
        printed = "".join(alice.stdout.readline() for _ in promised.splitlines())
        assert printed == promised
        bob.send_signal(end)
        assert alice.stdout.readline() == farewell
        assert alice.wait(20) == 0
    finally:
        bob.kill()
        alice.kill()
        bob.wait()
        alice.wait()
