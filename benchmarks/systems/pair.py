"""Two nodes in two OS processes: node A is driven, node B answers."""

from __future__ import annotations

from child import Child
from plan import Sizes, in_row_units, pair_command


class Pair:
    """A session with both nodes up; each work warms itself up before it counts."""

    def __init__(self, driver: Child, other: Child, extra: tuple[Child, ...] = ()) -> None:
        self._driver = driver
        self._all = (driver, other, *extra)

    def run(self, work: str, sizes: Sizes) -> list[float]:
        return in_row_units(work, self._driver.ask(pair_command(work, sizes)))

    def close(self) -> None:
        for child in self._all:
            child.stop()
