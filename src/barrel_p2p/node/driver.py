"""What the drivers of gossip machines have in common: facts go in one after the other, orders are performed, and timers
come back as facts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Protocol

from barrel_p2p.errors import BarrelError
from barrel_p2p.node.routes import Routes
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.shown import Shown
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.node")


class Machine(Protocol):
    def handle(self, fact: Any, *, now: float) -> list[Any]: ...


class Driver:
    """Feeds ``machine``. A subclass says what each order means, and what the end of a timer.

    Args:
        to: the registered name on other nodes that the machine's messages go to.
    """

    def __init__(self, machine: Machine, routes: Routes, runtime: Runtime, to: Atom) -> None:
        self._loop = asyncio.get_running_loop()
        self._routes = routes
        self._runtime = runtime
        self._to = to
        self._driven = machine
        self._facts: deque[Any] = deque()
        self._busy = False
        self._stopped = False
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def tell(self, fact: Any) -> None:
        """Tell a fact; one that comes up while the orders of another are performed waits for its turn."""
        if self._stopped:
            return
        self._facts.append(fact)
        if self._busy:
            return
        self._busy = True
        try:
            while self._facts:
                for order in self._driven.handle(self._facts.popleft(), now=self._loop.time()):
                    try:
                        self._perform(order)
                    except Exception:  # the others have to be performed all the same
                        log.exception("internal error: %s failed", Shown(order))
        finally:
            self._busy = False

    def stop(self) -> None:
        """The node stops: nothing is done any more."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()

    def _perform(self, order: Any) -> None:
        raise NotImplementedError

    def _timer_fired(self, timer: Any) -> None:
        raise NotImplementedError

    def _send(self, peer: str, message: Any) -> None:
        """Send a message of the machine, if there is a channel: none is made for it."""
        route = self._routes.existing(Atom(peer))
        if route is not None:
            try:
                route.send_to_name(self._runtime.pid, self._to, message)
            except BarrelError as error:  # the channel is overrun and closes: its loss is told
                log.debug("nothing is sent to %s: %s", peer, error, extra={"peer": peer})

    def _start_timer(self, timer: str, at: float) -> None:
        self._stop_timer(timer)
        self._timers[timer] = self._loop.call_at(at, self._end_timer, timer)

    def _stop_timer(self, timer: str) -> None:
        handle = self._timers.pop(timer, None)
        if handle is not None:
            handle.cancel()

    def _end_timer(self, timer: str) -> None:
        del self._timers[timer]
        self._timer_fired(timer)


__all__ = ["Driver", "Machine"]
