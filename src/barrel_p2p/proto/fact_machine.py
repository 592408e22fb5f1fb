"""The shape of the gossip machines: a fact goes in, a list of orders comes out, and nothing else happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

FactT = TypeVar("FactT")
OrderT = TypeVar("OrderT")


class FactMachine(Generic[FactT, OrderT]):
    """Looks the handler of a fact up in the table ``_facts``; the handlers put orders into ``_out``."""

    __slots__ = ("_now", "_out")

    _facts: ClassVar[dict[type, Callable[[Any, Any], None]]]

    def __init__(self) -> None:
        self._out: list[OrderT] = []
        self._now = 0.0  # of the fact being handled

    def handle(self, fact: FactT, *, now: float) -> list[OrderT]:
        """Take a fact (``now`` in monotonic seconds); perform what comes back, in order."""
        out: list[OrderT] = []
        self._out = out
        self._now = now
        self._facts[type(fact)](self, fact)
        return out


__all__ = ["FactMachine"]
