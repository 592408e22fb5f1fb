"""Gates: how a sender waits without ``send`` ever waiting.

A busy channel or a full mailbox owns a gate. A process that sent to it is suspended on the gate: it runs on to its next
await point and does not resume there until every gate that holds it is open. This is how Erlang suspends a sender on a
busy port, with the await point in place of the scheduler.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .process import Process


class Gate:
    """Holds processes while ``closed``; ``open()`` lets all of them go on.

    Closing costs nothing while nobody sends: ``Process.suspend(gate)`` closes the gate and adds the process to it.
    ``owner`` is the process whose mailbox the gate guards, ``None`` for a channel to another node.
    """

    __slots__ = ("_futures", "_held", "closed", "owner")

    def __init__(self, owner: Process | None = None) -> None:
        self.closed = False
        self.owner = owner
        self._held: dict[Process, None] = {}
        self._futures: list[asyncio.Future[None]] = []

    def hold(self, process: Process) -> None:
        """Close the gate and note ``process`` as one that waits for it (``Process.suspend`` calls this)."""
        self.closed = True
        self._held[process] = None

    def forget(self, process: Process) -> None:
        """Drop a process that died or exits while it was held."""
        self._held.pop(process, None)

    def open(self) -> None:
        """Release every process and task that waits here."""
        self.closed = False
        held, self._held = self._held, {}
        for process in held:
            process.released(self)
        futures, self._futures = self._futures, []
        for future in futures:
            if not future.done():
                future.set_result(None)

    def future(self) -> asyncio.Future[None]:
        """A future of the running loop that is done once the gate opens; each waiter takes its own."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.closed:
            self._futures.append(future)
        else:
            future.set_result(None)
        return future

    def __repr__(self) -> str:
        return f"<Gate {'closed' if self.closed else 'open'}, holds {len(self._held)}>"


__all__ = ["Gate"]
