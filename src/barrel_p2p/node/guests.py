"""Processes that run here because somebody on another node asked for them: counted and bounded by who asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from barrel_p2p.errors import BarrelError
from barrel_p2p.process.process import Process
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.term.types import Pid

log = logging.getLogger("barrel_p2p.spawn")

MAX_GUESTS = 10_000  # live processes of one peer, and of all old-style calls together; a guess


class TooManyGuests(BarrelError):
    """Whoever asks has ``MAX_GUESTS`` processes running here (``system_limit`` in Erlang)."""


class Guests:
    """The table of these processes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._of: dict[str, dict[Process, None]] = {}
        self._told: set[str] = set()  # of whom the log says that they have too many

    def spawn(
        self,
        host_of: str,
        func: Callable[..., Coroutine[Any, Any, Any]],
        args: tuple[Any, ...],
        *,
        leader: Any = None,
        name: str | None = None,
    ) -> Process:
        """Start a process on account of ``host_of``, with ``leader`` as its group leader if that is a pid.

        Raises:
            TooManyGuests: nothing was started. NameTaken: likewise.
        """
        mine = self._of.setdefault(host_of, {})
        if len(mine) >= MAX_GUESTS:
            if host_of not in self._told:
                self._told.add(host_of)
                text = "%s has %d processes running here; no more are spawned for it (said once, until all have ended)"
                log.warning(text, host_of, len(mine), extra={"peer": host_of})
            raise TooManyGuests(f"{host_of} has {len(mine)} processes running here")
        process = self._runtime.spawn(func, args, name=name)
        process.group_leader = leader if isinstance(leader, Pid) else None
        mine[process] = None
        process.task.add_done_callback(lambda _: self._ended(host_of, process))  # type: ignore[union-attr]
        return process

    def _ended(self, host_of: str, process: Process) -> None:
        mine = self._of.get(host_of)
        if mine is not None:
            mine.pop(process, None)
            if not mine:
                del self._of[host_of]
                self._told.discard(host_of)


__all__ = ["MAX_GUESTS", "Guests", "TooManyGuests"]
