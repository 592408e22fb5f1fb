"""The systems that are compared: each module knows how to start one and how to ask it for a work."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final, Protocol

from child import ChildError
from plan import Sizes

FAULTS: Final = (ChildError, OSError, subprocess.SubprocessError, TimeoutError)  # of a system, not of the benchmark


class Session(Protocol):
    """A started system: two nodes, or nothing at all for works that start a fresh program each."""

    def run(self, work: str, sizes: Sizes) -> list[float]:
        """Does one work once; one number for each row of the work."""

    def close(self) -> None: ...


class System(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def works(self) -> tuple[str, ...]: ...

    @property
    def alone(self) -> bool:
        """It keeps the machine busy even while it has nothing to do, so it is up only when the others are gone."""

    def missing(self) -> str | None:
        """Why this system can't run here; ``None`` when it can."""

    def versions(self) -> dict[str, str]: ...

    def start(self, directory: Path) -> Session: ...
