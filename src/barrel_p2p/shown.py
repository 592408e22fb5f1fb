"""What a log line, an error or a terminal is told of values and texts that another node made.

``repr`` is no good for that: of 100 MB it takes seconds and some hundred MB, for the few hundred characters that are
wanted, and of an integer with more than 4,300 digits it raises ValueError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

MAX_DEPTH: Final = 20  # levels that are shown; a guess
MAX_BITS: Final = 2_000  # of an integer that is written in decimal: Python may be told to refuse more than 640 digits


def printable(text: str) -> str:
    """``text`` with all escaped that could begin a line, move a cursor or change what a terminal does."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: Any, limit: int = 500) -> str:
    """``repr(value)``, cut after ``limit`` characters, at a cost that depends on the limit alone. Never raises."""
    writer = _Writer(limit)
    writer.write(value, 0)
    text = "".join(writer.parts)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Shown:
    """``shown`` for a logger: nothing is done unless somebody looks.

    Example: ``log.info("got %s", Shown(message))``
    """

    __slots__ = ("_limit", "_value")

    def __init__(self, value: Any, limit: int = 500) -> None:
        self._value = value
        self._limit = limit

    def __str__(self) -> str:
        return shown(self._value, self._limit)


class _Writer:
    def __init__(self, limit: int) -> None:
        self.parts: list[str] = []
        self._room = limit

    def _add(self, text: str) -> None:
        self.parts.append(text)
        self._room -= len(text)

    def write(self, value: Any, depth: int) -> None:
        if self._room < 0:
            return
        if depth > MAX_DEPTH:
            self._add("...")
            return
        kind = type(value)
        enough = self._room + 1
        if kind is list:
            self._all("[", value, "]", depth)
        elif kind is tuple:
            self._all("(", value, ",)" if len(value) == 1 else ")", depth)
        elif kind is int:
            bits = value.bit_length()
            self._add(repr(value) if bits <= MAX_BITS else f"<an integer of {bits} bits>")
        elif kind is str or kind is bytes:
            self._add(repr(value[:enough]))
        elif isinstance(value, str):
            self._add(f"{kind.__name__}({str.__repr__(value[:enough])})")
        elif isinstance(value, Mapping):
            self._map(value, depth)
        elif getattr(kind, "has_parts", False):
            self._add(kind.__name__)
            self.write(value.__reduce__()[1], depth)
        else:
            self._add(_own(value))

    def _all(self, opening: str, values: Iterable[Any], closing: str, depth: int) -> None:
        self._list(opening, values, closing, lambda one: self.write(one, depth + 1))

    def _map(self, value: Mapping[Any, Any], depth: int) -> None:
        def pair(key: Any) -> None:
            self.write(key, depth + 1)
            self._add(": ")
            self.write(value[key], depth + 1)

        self._list("{", value, "}", pair)

    def _list(self, opening: str, values: Iterable[Any], closing: str, write: Callable[[Any], None]) -> None:
        self._add(opening)
        for number, one in enumerate(values):
            if self._room < 0:
                return
            if number:
                self._add(", ")
            write(one)
        self._add(closing)


def _own(value: Any) -> str:
    """What anything else says of itself: a pid, a float, an object of the user's."""
    try:
        return repr(value)
    except Exception:  # nobody who logs something is prepared for that
        return f"<{type(value).__name__} that can't be shown>"


__all__ = ["Shown", "printable", "shown"]
