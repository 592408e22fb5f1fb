"""Terms to bytes and back: our native codec beside pickle, which is C and knows Python by heart."""

from __future__ import annotations

from pathlib import Path

from plan import CODEC_WORKS
from systems.ours import import_fault
from systems.program import PROGRAMS, Programs


class Codec:
    works = CODEC_WORKS
    alone = False

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        return import_fault("barrel_p2p.term.codec") if self.name == "ours_native" else None

    def versions(self) -> dict[str, str]:
        return {}

    def start(self, directory: Path) -> Programs:
        return Programs(self.name, PROGRAMS / "ours" / "codec.py", self.name)


def systems() -> list[Codec]:
    return [Codec("ours_native"), Codec("pickle")]
