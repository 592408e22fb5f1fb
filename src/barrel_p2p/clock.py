"""Time as an argument: machines and stores take a ``Clock``, never the ``time`` module.

Two kinds of time that must not be mixed: ``monotonic`` measures durations and never jumps, ``wall`` names a moment that
other machines understand and may jump. The process layer takes neither: it asks its event loop, so that a loop with
virtual time moves its timers too.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a part that needs the time reads it."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; may jump either way when the machine's clock is set."""
        ...


class SystemClock:
    """The clocks of this machine."""

    __slots__ = ()

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ns(self) -> int:
        return time.time_ns()


__all__ = ["Clock", "SystemClock"]
