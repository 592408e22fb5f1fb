"""Who hears of services that come and go: processes, each with a filter as upstream has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p.crdt.keys import term_key
from barrel_p2p.process.process import RUNNING, Process
from barrel_p2p.proto.registry_events import ServiceDown, ServiceRegistered, ServiceUnregistered
from barrel_p2p.term.types import Atom

EVENT: Final = Atom("barrel_p2p_service_event")
REGISTERED: Final = Atom("service_registered")
UNREGISTERED: Final = Atom("service_unregistered")
DOWN: Final = Atom("service_down")

Change = ServiceRegistered | ServiceUnregistered | ServiceDown
Filter = Callable[[Any], bool]


def everything(name: Any) -> bool:
    return True


def only(name: Any) -> Filter:
    """The services of one name."""
    wanted = term_key(name)
    return lambda other: term_key(other) == wanted


def matching(pattern: str) -> Filter:
    """The services in whose name a regular expression is found; an atom counts by its text."""
    search = re.compile(pattern).search
    return lambda name: search(name.decode("utf-8", "replace") if isinstance(name, bytes) else name) is not None


class ServiceEvents:
    """The subscribers of one node."""

    def __init__(self) -> None:
        self._filters: dict[Process, Filter] = {}

    def subscribe(self, process: Process, wanted: Filter) -> None:
        """From now on; a process has one filter, the last one."""
        self._filters[process] = wanted

    def unsubscribe(self, process: Process) -> None:
        self._filters.pop(process, None)

    def tell(self, change: Change) -> None:
        if not self._filters:
            return
        match change:
            case ServiceRegistered(name, node):
                event: Any = (REGISTERED, name, node)
            case ServiceUnregistered(name, node):
                event = (UNREGISTERED, name, node)
            case ServiceDown(name, node, reason):
                event = (DOWN, name, node, reason)
        for process, wanted in list(self._filters.items()):
            if process.status != RUNNING:
                del self._filters[process]
            elif wanted(change.name):
                process.put((EVENT, event))


__all__ = ["EVENT", "Filter", "ServiceEvents", "everything", "matching", "only"]
