"""The floor of Python: an asyncio task with a deque and a future as its mailbox, and nothing else."""

from __future__ import annotations

from pathlib import Path

from plan import LOCAL_WORKS
from systems.program import PROGRAMS, Programs


class Bare:
    name = "asyncio_bare"
    works = LOCAL_WORKS
    alone = False

    def missing(self) -> str | None:
        return None

    def versions(self) -> dict[str, str]:
        return {}

    def start(self, directory: Path) -> Programs:
        return Programs(self.name, PROGRAMS / "bare" / "local.py")


def systems() -> list[Bare]:
    return [Bare()]
