"""Processes of this node that stand for services elsewhere: whatever they are sent goes on to the service.

A call passes through unchanged, so that the service answers the caller itself: a proxy keeps nothing and holds up
nobody. It follows the service while there is an instance, and ends when there is none left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

from barrel_p2p.crdt.keys import term_key
from barrel_p2p.process.api import receive, send
from barrel_p2p.process.process import RUNNING, Process
from barrel_p2p.process.reasons import SHUTDOWN
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto.registry_events import Service, ServiceDown, ServiceUnregistered
from barrel_p2p.services.service_events import Change
from barrel_p2p.term.types import Atom, Pid

MAX_WAITING: Final = 10_000  # messages in a proxy that waits for a busy channel; then its senders wait; a guess
GONE: Final = Atom("service_unregistered")


class _Proxy:
    __slots__ = ("process", "target")

    def __init__(self, target: Pid) -> None:
        self.target = target
        self.process: Process

    async def run(self) -> None:
        while True:
            message = await receive()
            send(self.target, message)


class Proxies:
    """The proxies of one node, one for each name.

    Args:
        lookup: the services of a name, ours first.
    """

    def __init__(self, runtime: Runtime, lookup: Callable[[Any], list[Service]]) -> None:
        self._runtime = runtime
        self._lookup = lookup
        self._proxies: dict[Hashable, _Proxy] = {}

    def get(self, service: Service) -> Pid:
        """The proxy for the name of ``service``; a new one goes to that instance first."""
        key = term_key(service.name)
        proxy = self._proxies.get(key)
        if proxy is None or proxy.process.status != RUNNING:
            proxy = self._proxies[key] = _Proxy(service.pid)
            proxy.process = self._runtime.spawn(proxy.run, max_mailbox=MAX_WAITING)
        return proxy.process.pid

    def changed(self, change: Change) -> None:
        """A service came or went."""
        if not self._proxies:
            return
        key = term_key(change.name)
        proxy = self._proxies.get(key)
        if proxy is None:
            return
        if proxy.process.status != RUNNING:
            del self._proxies[key]
            return
        services = self._lookup(change.name)
        if any(service.pid == proxy.target for service in services):
            return
        if services:
            proxy.target = services[0].pid
        elif isinstance(change, (ServiceUnregistered, ServiceDown)):
            del self._proxies[key]
            reason = change.reason if isinstance(change, ServiceDown) else GONE
            self._runtime.exit_signal(proxy.process, self._runtime.pid, (SHUTDOWN, reason), linked=False)


__all__ = ["Proxies"]
