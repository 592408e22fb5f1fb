"""Virtual time: events in the order of their milliseconds, and of their making within one.

Millions of events pass, so they lie in one list for each millisecond instead of one heap: most of them are messages,
and with thousands of nodes a millisecond has many.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """Runs what is due::

        clock.at(1500, member.wake, "shuffle", None, None)
        clock.run(until_ms=60_000)

    ``ms`` is the time now, ``passed`` the number of events that were run.
    """

    __slots__ = ("_due", "_times", "ms", "passed")

    def __init__(self) -> None:
        self.ms = 0
        self.passed = 0
        self._due: dict[int, list[tuple[Callable[[Any, Any, Any], None], Any, Any, Any]]] = {}
        self._times: list[int] = []  # heap of the keys of ``_due``

    @property
    def seconds(self) -> float:
        return self.ms / 1000

    def at(self, ms: int, run: Callable[[Any, Any, Any], None], a: Any = None, b: Any = None, c: Any = None) -> None:
        """Call ``run(a, b, c)`` at ``ms``, or as soon as possible if that has passed."""
        if ms < self.ms:
            ms = self.ms
        due = self._due.get(ms)
        if due is None:
            self._due[ms] = [(run, a, b, c)]
            heappush(self._times, ms)
        else:
            due.append((run, a, b, c))

    def run(self, until_ms: int) -> None:
        """Run all events up to and at ``until_ms``; it is that time afterwards."""
        times, events = self._times, self._due
        while times and times[0] <= until_ms:
            ms = heappop(times)
            self.ms = ms
            due = events.pop(ms)
            self.passed += len(due)
            for run, a, b, c in due:
                run(a, b, c)
        self.ms = until_ms


__all__ = ["Clock"]
