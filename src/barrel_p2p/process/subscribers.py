"""Processes that asked to be told of something: events come as messages into their mailboxes."""

from __future__ import annotations

from typing import Any

from .process import RUNNING, Process


class Subscribers:
    """The processes that subscribed to one kind of event. Those that ended are forgotten."""

    __slots__ = ("_processes",)

    def __init__(self) -> None:
        self._processes: dict[Process, None] = {}

    def add(self, process: Process) -> None:
        """Tell ``process`` from now on, once however often it asks."""
        self._processes[process] = None

    def remove(self, process: Process) -> None:
        self._processes.pop(process, None)

    def tell(self, message: Any) -> None:
        for process in list(self._processes):
            if process.status == RUNNING:
                process.put(message)
            else:
                del self._processes[process]


__all__ = ["Subscribers"]
