"""One attempt to reach a node: look it up, connect, shake hands. Its outcome is told once, unless it was aborted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from barrel_p2p.disk.files import remedy
from barrel_p2p.errors import BarrelError, InternalError, NotConnected
from barrel_p2p.net.transport import NO_DESCRIPTOR
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.establishing import DialingRole
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.connect")


class AttemptEvents(Protocol):
    def dial_named(self, attempt: Attempt) -> None: ...

    def dial_up(self, attempt: Attempt, channel: Channel) -> None: ...

    def dial_failed(self, attempt: Attempt, error: BarrelError) -> None: ...


Connect = Callable[["Attempt"], Awaitable[DialingRole]]


class Attempt:
    """Starts at once; ``connect`` gives the handshake on a fresh connection, which reports to this object."""

    __slots__ = ("_dialing", "_events", "name", "number", "over", "task")

    def __init__(self, number: int, name: Atom, connect: Connect, events: AttemptEvents) -> None:
        self.number = number
        self.name = name
        self.over = False
        self._events = events
        self._dialing: DialingRole | None = None
        self.task = asyncio.get_running_loop().create_task(self._run(connect))

    async def _run(self, connect: Connect) -> None:
        try:
            self._dialing = await connect(self)
        except BarrelError as error:
            self.failed(error)
        except OSError as error:
            more = f"; {remedy(error.errno)}" if error.errno in NO_DESCRIPTOR else ""
            self.failed(NotConnected(f"can't dial {self.name}: {error}{more}"))
        except Exception as error:
            log.exception("internal error while %s is dialled", self.name, extra={"peer": self.name})
            self.failed(InternalError(f"the dial of {self.name} failed by a bug: {error!r}"))

    def abort(self, why: str) -> None:
        """End the attempt; nothing is told any more."""
        self.over = True
        self.task.cancel()
        if self._dialing is not None:
            self._dialing.abort(why)

    # --- what the handshake reports ---------------------------------------------------------------------------------

    def named(self) -> None:
        if not self.over:
            self._events.dial_named(self)

    def up(self, channel: Channel) -> None:
        self.over = True
        self._events.dial_up(self, channel)

    def failed(self, error: BarrelError) -> None:
        if not self.over:
            self.over = True
            self._events.dial_failed(self, error)
