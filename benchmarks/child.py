"""A program under measurement: it reads one command a line and answers with one line.

``ready`` once, then for each command ``result <number> ...`` or ``error <text>``; ``stop`` ends it. Other
lines are the program's own talk and are kept for the error message.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence


class ChildError(Exception):
    """The program died, answered with an error, or didn't answer in time."""


class Child:
    """One program, ended by its own pid and nothing else."""

    def __init__(self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._talk: deque[str] = deque(maxlen=20)
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",  # an Erlang node prints the bytes of a message that it complains about
            env={**os.environ, **(env or {})},
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, timeout: float = 30.0) -> list[str]:
        """The words after ``ready``: how the program is reached, if it says so."""
        return self._expect("ready", timeout)

    def ask(self, command: str, timeout: float) -> list[float]:
        """Sends one command; returns the numbers of its result."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except OSError:
            raise ChildError(self._why("is gone")) from None
        return [float(word) for word in self._expect("result", timeout)]

    def result(self, timeout: float) -> list[float]:
        """The one result of a program that needs no command."""
        return [float(word) for word in self._expect("result", timeout)]

    def _expect(self, first: str, timeout: float) -> list[str]:
        while True:
            try:
                line = self._lines.get(timeout=timeout)
            except queue.Empty:
                raise ChildError(self._why(f"gave no '{first}' within {timeout:.0f} s")) from None
            if line is None:
                raise ChildError(self._why("ended"))
            word, *rest = line.split() or [""]
            if word == first:
                return rest
            self._talk.append(line)
            if word == "error":
                raise ChildError(self._why("failed"))

    def _why(self, what: str) -> str:
        return f"{self.name} {what}" + "".join(f"\n    | {line}" for line in self._talk)

    def stop(self) -> None:
        """Asks it to stop, and after 5 s makes it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # ValueError: stopped before
            self._process.stdin.write("stop\n")
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
