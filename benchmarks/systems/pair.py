"""Two nodes in two OS processes: node A is driven, node B answers."""

from __future__ import annotations

from collections.abc import Callable

from child import Child
from plan import Sizes, in_row_units, pair_command


class Pair:
    """A session with both nodes up; each work warms itself up before it counts."""

    def __init__(
        self,
        driver: Child,
        other: Child,
        extra: tuple[Child, ...] = (),
        *,
        smaller: Callable[[Sizes], Sizes] = lambda sizes: sizes,
    ) -> None:
        self.driver = driver
        self._all = (driver, other, *extra)
        self._smaller = smaller

    def run(self, work: str, sizes: Sizes) -> list[float]:
        return in_row_units(work, self.ask(pair_command(work, self._smaller(sizes)), sizes.patience))

    def ask(self, command: str, patience: float) -> list[float]:
        return self.driver.ask(command, patience)

    def close(self) -> None:
        for child in self._all:
            child.stop()
