"""The time limits of calls: one timer of the loop for all calls with the same limit, not one for each call.

Nearly every call is answered long before its limit. A timer of its own would cost it a handle, a place in the loop's
heap and a cancelled entry there until the loop tidies up. Calls of equal limits expire in the order they were made, so
a dict in that order, and a timer for its first entry, do.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

#: Limits that are shared at a time. Programs use a few; one that computes a new limit for every call gets timers.
MOST_LIMITS: Final = 64
#: What the future of a call that is out of time gets: an object that no server can answer with.
EXPIRED: Final = object()

Kept = dict[asyncio.Future[Any], float] | asyncio.TimerHandle


class Deadlines:
    """Futures that get ``EXPIRED`` as their result when nothing else came in time.

    Example:
        >>> kept = deadlines.add(future, 5.0)
        >>> answer = await future
        >>> deadlines.remove(future, kept)
    """

    __slots__ = ("_limits", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._limits: dict[float, dict[asyncio.Future[Any], float]] = {}

    def add(self, future: asyncio.Future[Any], seconds: float) -> Kept:
        """Limit ``future`` to ``seconds`` from now."""
        limit = self._limits.get(seconds)
        if limit is None:
            if len(self._limits) >= MOST_LIMITS:
                return self._loop.call_later(seconds, self._expire, future)
            limit = self._limits[seconds] = {}
            self._loop.call_later(seconds, self._look, seconds, limit)
        limit[future] = self._loop.time() + seconds
        return limit

    def remove(self, future: asyncio.Future[Any], kept: Kept) -> None:
        """The future needs its limit no more; ``kept`` is what ``add`` gave."""
        if type(kept) is dict:
            kept.pop(future, None)
        else:
            kept.cancel()  # type: ignore[union-attr]

    def _look(self, seconds: float, limit: dict[asyncio.Future[Any], float]) -> None:
        now = self._loop.time()
        for future, deadline in limit.items():
            if deadline > now:
                self._loop.call_at(deadline, self._look, seconds, limit)
                return
            self._expire(future)
        del self._limits[seconds]

    @staticmethod
    def _expire(future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_result(EXPIRED)


__all__ = ["EXPIRED", "Deadlines", "Kept"]
