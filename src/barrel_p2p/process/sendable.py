"""What another node is shown of values that may be anything: the state of a server, the arguments of children."""

from __future__ import annotations

from typing import Any, Final

from ..errors import EncodeError
from ..shown import shown
from ..term.codec import encode

MAX_DEPTH: Final = 20  # levels that keep their form; a guess
MAX_TEXT: Final = 1_000  # characters of one part; a guess


def sendable(value: Any, depth: int = 0) -> Any:
    """``value``, in which each part without a form as a term is replaced by its text."""
    try:
        encode(value)
    except EncodeError:
        if depth < MAX_DEPTH:
            if isinstance(value, list):
                return [sendable(item, depth + 1) for item in value]
            if isinstance(value, tuple):
                return tuple(sendable(item, depth + 1) for item in value)
            if isinstance(value, dict):
                return {sendable(key, depth + 1): sendable(item, depth + 1) for key, item in value.items()}
        return shown(value, MAX_TEXT)
    return value


__all__ = ["sendable"]
