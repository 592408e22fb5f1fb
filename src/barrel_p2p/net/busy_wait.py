"""Looks for the next messages for a moment before the event loop sleeps.

A process that sleeps has to be woken by the sender's system call and scheduled: on two idle virtual cores that is most
of a round trip (``docs/internals/data-plane.md``). So after messages came the loop turns without sleeping, as the
schedulers of the BEAM do (``erl +sbwt``), for as long as an answer of a peer on the same host or a near one takes.

Where that does not pay it costs next to nothing: after a wait that saw no message the next arrival is sat out, then
two, then four, up to ``MOST_REST``, and half as many after one that saw some. That is the case with far peers, with
messages that come now and then, and while other programs need the core: then a wait sees a message only if the
scheduler took the core away in the middle of it, which must not count for much.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

#: Arrivals that are sat out at most after a wait in vain: fewer than one in a hundred waits, so p99 does not suffer.
MOST_REST: Final = 256


class BusyWait:
    """The waits of one transport.

    Args:
        loop: The event loop that must not sleep.
        microseconds: How long one wait lasts; 0 for never. On a single core it is never, since the peer needs it.
    """

    __slots__ = ("_came", "_looking", "_loop", "_paid", "_penalty", "_rest", "_seconds", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, microseconds: int) -> None:
        self._loop = loop
        self._seconds = microseconds / 1e6 if _cores() > 1 else 0.0
        self._looking = False
        self._came = False
        self._paid = False
        self._until = 0.0
        self._penalty = 0
        self._rest = 0

    @property
    def rest(self) -> int:
        """How many arrivals are still sat out."""
        return self._rest

    def messages_came(self) -> None:
        """A batch of messages arrived: after it has been handled, look for the next one."""
        if self._looking:
            self._came = self._paid = True
        elif self._rest:
            self._rest -= 1
        elif self._seconds:
            self._looking, self._came, self._paid = True, True, False
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Each turn of the loop looks at the sockets by itself; all there is to do is to make it turn."""
        now = self._loop.time()
        if self._came:
            self._came = False
            self._until = now + self._seconds
        elif now >= self._until:
            self._looking = False
            self._penalty = self._penalty // 2 if self._paid else min(MOST_REST, self._penalty * 2 or 1)
            self._rest = self._penalty
            return
        self._loop.call_soon(self._look)


def _cores() -> int:
    """How many this process may run on."""
    return len(os.sched_getaffinity(0))


__all__ = ["BusyWait"]
