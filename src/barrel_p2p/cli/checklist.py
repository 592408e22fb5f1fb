"""The list that ``barrel doctor`` prints: a mark for each step, and what is to be done about the one that failed."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

from barrel_p2p.cli.advice import Advice

_GREEN, _RED, _GREY, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[90m", "\x1b[0m"


class Checklist:
    """Prints each step as its result comes in.

    Args:
        steps: All steps in order; those that got no result are named by ``close``.
    """

    def __init__(self, steps: Sequence[str]) -> None:
        self._open = list(steps)
        self._indent = " " * (max(map(len, steps)) + 4)
        self._width = max(60, min(120, shutil.get_terminal_size((112, 24)).columns))
        self._good, self._bad = _marks()
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def passed(self, step: str, text: str, notes: Iterable[str] = ()) -> None:
        self._entry(self._good, _GREEN, step, text, notes)

    def skipped(self, step: str, text: str) -> None:
        self._entry("-", _GREY, step, text, ())

    def failed(self, step: str, text: str, advice: Advice, notes: Iterable[str] = ()) -> None:
        self._entry(self._bad, _RED, step, text, notes)
        self._paragraph(f"whose fault: {advice.whose}")
        self._paragraph(f"what to do:  {advice.what}", hanging=13)
        for command in advice.commands:
            print(f"{self._indent}    {command}")  # whole, so that it can be copied

    def close(self) -> None:
        """Name the steps that were not reached."""
        if self._open:
            print(f"\nnot reached: {', '.join(self._open)}")
        sys.stdout.flush()

    def _entry(self, mark: str, colour: str, step: str, text: str, notes: Iterable[str]) -> None:
        if step in self._open:
            self._open.remove(step)
        shown = f"{colour}{mark}{_PLAIN}" if self._colours else mark
        label = f"{step:<{len(self._indent) - 2}}"
        lines = textwrap.wrap(text, self._width - len(self._indent), break_long_words=False, break_on_hyphens=False)
        print(f"{shown} {label}{(lines or [''])[0]}")
        for line in lines[1:]:
            print(self._indent + line)
        for note in notes:
            self._paragraph(note, hanging=2)

    def _paragraph(self, text: str, hanging: int = 13) -> None:
        print(
            textwrap.fill(
                text,
                self._width,
                initial_indent=self._indent,
                subsequent_indent=self._indent + " " * hanging,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )


def _marks() -> tuple[str, str]:
    try:
        "✓✗".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "+", "x"
    return "✓", "✗"
