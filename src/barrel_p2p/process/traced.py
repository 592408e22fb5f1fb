"""A message that came with the trace context of its sender.

It is the tuple that was sent, and equal to it; a server handles it within that context. Whoever does not look for the
context finds nothing unusual.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any


class Traced(tuple[Any, ...]):
    """A message, and ``within``, which enters the context of its sender."""

    within: Callable[[], AbstractContextManager[object]]

    @classmethod
    def of(cls, message: tuple[Any, ...], within: Callable[[], AbstractContextManager[object]]) -> Traced:
        traced = cls(message)
        traced.within = within
        return traced


__all__ = ["Traced"]
