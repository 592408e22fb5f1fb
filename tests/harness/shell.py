"""The ``barrel`` command as a user runs it: a working directory, an environment, real OS processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

BARREL = [sys.executable, "-m", "barrel_p2p.cli"]


class Shell:
    """A working directory, an environment, and the nodes started in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith("BARREL_")}
        self.environ |= {"XDG_DATA_HOME": str(directory / "xdg"), "BARREL_COOKIE": "secret", "COLUMNS": "100"}
        self.nodes: list[subprocess.Popen[str]] = []

    def run(self, *words: str, status: int = 0, command: list[str] = BARREL, **environ: str) -> str:
        """Run a command to its end and check its status; what it printed, on both outputs."""
        done = subprocess.run(
            [*command, *words],
            cwd=self.directory,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, f"status {done.returncode} of {words}:\n{done.stdout}"
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def start(self, *words: str, command: list[str] = BARREL, until: str = "  data ") -> dict[str, str]:
        """Start a node; its start-up lines by their first word."""
        node = subprocess.Popen(
            [*command, "start", *words],
            cwd=self.directory,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.nodes.append(node)
        assert node.stdout is not None
        lines = {}
        for line in node.stdout:
            word, _, rest = line.strip().partition(" ")
            lines[word] = rest.strip()
            if line.startswith(until):
                return lines
        raise AssertionError(f"the node ended with {node.wait()}: {lines}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.kill()
            node.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the node started last; its exit status."""
        node = self.nodes.pop()
        node.send_signal(number)
        return node.wait(20)


def marks(text: str) -> dict[str, str]:
    """The steps of ``barrel doctor`` with their marks."""
    found = re.findall(r"^([✓✗-]) (address|epmd|transport|key|clock|name|flags|cookie|round trip) ", text, re.MULTILINE)
    return {step: mark for mark, step in found}


def failed(text: str) -> list[str]:
    assert "whose fault:" in text and "what to do:" in text
    return [step for step, mark in marks(text).items() if mark == "✗"]
