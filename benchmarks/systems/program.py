"""Works that need one process only: a fresh Python process for each sample, so none inherits a heap."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from child import Child
from plan import LOCAL_WORKS, Sizes, local_command

PROGRAMS: Final = Path(__file__).parent.parent


class Programs:
    def __init__(self, name: str, program: Path, *first: str) -> None:
        self._name = name
        self._command = [sys.executable, str(program), *first]

    def run(self, work: str, sizes: Sizes) -> list[float]:
        arguments = local_command(work, sizes) if work in LOCAL_WORKS else codec_command(work, sizes)
        child = Child(f"{self._name} {work}", [*self._command, *arguments])
        try:
            return child.result(sizes.patience)
        finally:
            child.stop()

    def close(self) -> None:
        """Nothing stays between two works."""


def codec_command(work: str, sizes: Sizes) -> list[str]:
    return [work, str(sizes.small_terms if work == "etf_small" else sizes.big_terms)]
