"""``node.registry``: services by name, found from every node of the overlay."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.crdt.keys import term_key
from barrel_p2p.errors import NameTaken, NoProc
from barrel_p2p.node.dispatch import Dispatch
from barrel_p2p.node.replication import wall_ms
from barrel_p2p.node.routes import Routes
from barrel_p2p.process.current import current_process
from barrel_p2p.process.process import RUNNING
from barrel_p2p.process.reasons import NOPROC
from barrel_p2p.process.signals import Monitor
from barrel_p2p.proto.registry_events import ProcessDown, Register, Service, Unregister
from barrel_p2p.proto.registry_state import RegistryState
from barrel_p2p.proto.routing_wire import PROCESS as ROUTER
from barrel_p2p.services.router import Router
from barrel_p2p.services.service_events import ServiceEvents, everything, matching, only
from barrel_p2p.services.service_proxies import Proxies
from barrel_p2p.services.service_relay import Relay
from barrel_p2p.term.types import Atom, Pid

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node

REPLICA: Final = Atom("barrel_p2p_registry_replica")  # shared with upstream's Erlang nodes
FIRST_WAIT_S: Final = 0.1  # before a look-up is repeated, doubled each time; these three are upstream's
MAX_WAIT_S: Final = 2.0
RETRIES: Final = 3
MAX_LOST: Final = 1024  # nodes whose loss is remembered; a guess. Past it the earliest is forgotten.

Services = list[Service]


class Registry:
    """Services by name: one of each name on each node, found from all of them.

    ::

        node.registry.register("resize", pid, {"gpu": True})    # on any node
        service = await node.registry.whereis("resize")          # on any other
        await call(service.pid, picture)

    Who sees what when, and what Erlang nodes see: ``docs/reference/registry.md``. A name that only one process of the
    whole cluster may have is a matter for ``node.global_``.
    """

    def __init__(self, node: Node, dispatch: Dispatch, routes: Routes) -> None:
        self._node = node
        self._runtime = runtime = node.runtime
        overlay = node.overlay
        self._state = RegistryState(runtime.name, wall_ms(), clock=overlay.replication.clock)
        self._monitors: dict[Hashable, Monitor] = {}  # of our services, by the key of the name
        self._local: dict[Any, Service] = {}  # likewise
        self._found: dict[Any, Services] = {}  # what was looked up, until it changes
        self._lost: dict[Atom, float] = {}  # nodes that we have lost, or failed to reach, and when
        self._events = ServiceEvents()
        self._proxies = Proxies(runtime, self.lookup)
        self._rng = random.Random(random.SystemRandom().getrandbits(64))
        self._replica = overlay.replication.open(REPLICA, self._state, notify=self._changed)
        overlay.lives.watch(self._replica.write)
        overlay.lives.watch(lambda change: self._regained(change.node))
        self._router = Router(routes, runtime, self._first, lambda: overlay.membership.active, overlay.refused)
        dispatch.deliver_to(ROUTER, self._router.received)
        Relay(node).export()
        runtime.name_resolvers["registry"] = _Names(self)

    # --- offering -----------------------------------------------------------------------------------------------------

    def register(self, name: Atom | str | bytes, pid: Pid | None = None, meta: Mapping[Any, Any] | None = None) -> None:
        """Offer a service in the name of this node. It ends with its process.

        ::

            node.registry.register("counter", pid, {"shard": 1})

        Args:
            name: a ``str`` or bytes (one and the same name), or an ``Atom`` (another one).
            pid: the process, usually of this node; default: the current one.
            meta: whatever a client may want to know; up to 64 KiB as a term.

        Raises:
            NameTaken: this node offers a service of that name already.
            NoProc: there is no such process on this node.
            ValueError: the name or ``meta`` is not of these types, or too large.
            EncodeError: ``meta`` has no form as a term.
        """
        if pid is None:
            pid = current_process().pid
        if isinstance(pid, Pid) and pid.node == self._runtime.name and not self._runs(pid):
            raise NoProc(NOPROC, f"{pid!r} can't offer {name!r}: it is no live process")
        meta = {} if meta is None else meta
        self._replica.write(Register(name, pid, dict(meta) if isinstance(meta, Mapping) else meta))
        key = _key(name)
        service = self._state.lookup_local(name)
        assert service is not None
        self._local[key] = service
        ref = self._runtime.reference()
        self._monitors[key] = self._runtime.monitor(
            self._runtime.pid, lambda reason: self._died(name, ref, reason), pid, ref
        )

    def unregister(self, name: Atom | str | bytes) -> None:
        """Offer the service of this node no more; nothing happens if there is none."""
        key = _key(name)
        monitor = self._monitors.pop(key, None)
        if monitor is not None:
            self._runtime.end_monitor(monitor)
            del self._local[key]
            self._replica.write(Unregister(name))

    def _died(self, name: Any, ref: Any, reason: Any) -> None:
        key = _key(name)
        monitor = self._monitors.get(key)
        if monitor is not None and monitor.ref == ref:
            del self._monitors[key], self._local[key]
            self._replica.write(ProcessDown(name, reason))

    # --- looking up ---------------------------------------------------------------------------------------------------

    def lookup(self, name: Atom | str | bytes) -> Services:
        """All instances that this node knows of: its own first, then by the names of their nodes; last those on nodes
        that it has lost. A look-up in a dictionary: it asks nobody."""
        kind = name.__class__
        found = self._found.get(name if kind is Atom or kind is bytes else _key(name))
        return self._find(name) if found is None else found.copy()

    def lookup_local(self, name: Atom | str | bytes) -> Service | None:
        """This node's own instance."""
        kind = name.__class__
        return self._local.get(name if kind is Atom or kind is bytes else _key(name))

    async def whereis(self, name: Atom | str | bytes, retries: int = RETRIES) -> Service | None:
        """An instance: this node's own, else the first that it knows of, else one that the overlay knows of.

        Args:
            retries: how often to look again before giving up, after 0.1 s, then twice as long each time up to 2 s.

        Returns:
            None if nobody knows the name. ``meta`` is empty if the overlay had to be asked.
        """
        wait = FIRST_WAIT_S
        for attempt in range(retries + 1):
            if attempt:
                await asyncio.sleep(wait * self._rng.uniform(1.0, 1.5))
                wait = min(wait * 2, MAX_WAIT_S)
            known = self._first(name)
            if known is not None:
                return known
            asked = await self._router.find(name)
            if asked is not None:
                node, pid = asked
                return Service(name, pid, node, {})
        return None

    def list(self) -> list[Any]:
        """The names of all services that this node knows of, sorted as Erlang does: atoms first."""
        return sorted(self._state.names(), key=lambda name: (name.__class__ is not Atom, _key(name)))

    def _first(self, name: Any) -> Service | None:
        found = self._found.get(_key(name)) or self._find(name)
        return found[0] if found else None

    def _find(self, name: Any) -> Services:
        found = self._state.lookup(name)
        if self._lost:
            found.sort(key=lambda service: self._lost.get(service.node, 0.0))
        if found:
            self._found[_key(name)] = found
        return found.copy()

    # --- events -------------------------------------------------------------------------------------------------------

    def subscribe(self, name: Atom | str | bytes | None = None, *, pattern: str | None = None) -> None:
        """The current process gets ``(barrel_p2p_service_event, What)`` when a service comes or goes anywhere.

        ``What`` is ``(service_registered, name, node)``, ``(service_unregistered, name, node)`` or ``(service_down,
        name, node, reason)``: its process died, or its node (then the reason is ``nodedown``). Who subscribes again
        changes the filter.

        Args:
            name: only services of this name.
            pattern: only services in whose name this regular expression is found (``re.search``).
        """
        if name is not None and pattern is not None:
            raise ValueError("a subscription is for one name or for a pattern, not both")
        wanted = everything if name is None else only(name)
        self._events.subscribe(current_process(), wanted if pattern is None else matching(pattern))

    def unsubscribe(self) -> None:
        """The current process gets them no longer."""
        self._events.unsubscribe(current_process())

    def _changed(self, changes: Sequence[Any]) -> None:
        for change in changes:
            self._found.pop(_key(change.name), None)
        for change in changes:
            self._events.tell(change)
            self._proxies.changed(change)

    # --- proxies ------------------------------------------------------------------------------------------------------

    async def proxy(self, name: Atom | str | bytes, retries: int = RETRIES) -> Pid:
        """A process of this node that stands for a service: what it is sent, calls and casts too, goes to the service.

        ::

            counter = await node.registry.proxy("counter")
            n = await call(counter, "inc")

        It goes on to another instance when the one that it serves ends, and ends itself, with ``(shutdown, reason)``,
        when there is none left. There is one for each name. A call that was under way when the service died is answered
        by nobody and times out.

        Raises:
            NoProc: nobody knows the name.
        """
        service = await self.whereis(name, retries)
        if service is None:
            raise NoProc(NOPROC, f"nobody offers {name!r}")
        return self._proxies.get(service)

    async def global_register(self, name: Atom | str | bytes, timeout: float | None = 30.0) -> Pid:
        """Make a service known by its name to ``node.global_`` as well: itself if it lives here, else a proxy.

        Returns:
            The process that has the name now.

        Raises:
            NoProc: nobody knows the service.
            NameTaken: another process has the global name.
            CallTimeout: as ``node.global_.register_name``.
        """
        service = await self.whereis(name)
        if service is None:
            raise NoProc(NOPROC, f"nobody offers {name!r}")
        pid = service.pid if service.pid.node == self._runtime.name else self._proxies.get(service)
        if not await self._node.global_.register_name(name, pid, timeout=timeout):
            raise NameTaken(f"the global name {name!r} belongs to another process")
        return pid

    # --- what the node tells ------------------------------------------------------------------------------------------

    def node_up(self, peer: Atom) -> None:
        self._regained(peer)

    def node_down(self, peer: Atom, *, lost: bool) -> None:
        """A channel has ended: who was asked over it will not answer. ``lost``: nobody here wanted it to end."""
        self._router.node_down(peer)
        if lost:
            self.unreachable(peer)

    def unreachable(self, peer: Atom) -> None:
        """A node does not answer. It may live for others, so its services stay, but others come first."""
        keys = self._state.keys_of(peer)
        if keys:
            self._lost.pop(peer, None)
            self._lost[peer] = self._runtime.loop.time()
            if len(self._lost) > MAX_LOST:
                self._regained(next(iter(self._lost)))
            self._look_up_again(keys)

    def _regained(self, peer: Atom) -> None:
        if self._lost.pop(peer, None) is not None:
            self._look_up_again(self._state.keys_of(peer))

    def _look_up_again(self, keys: Iterable[Hashable]) -> None:
        for key in keys:
            self._found.pop(key, None)

    def stop(self) -> None:
        self._router.stop()

    def _runs(self, pid: Pid) -> bool:
        process = self._runtime.find(pid)
        return process is not None and process.status == RUNNING


class _Names:
    """The resolver behind ``via("registry", name)``."""

    forgets_the_dead: Final = True

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def register_name(self, name: Any, pid: Pid) -> bool:
        try:
            self._registry.register(name, pid)
        except (NameTaken, NoProc):
            return False
        return True

    def unregister_name(self, name: Any) -> None:
        self._registry.unregister(name)

    def whereis_name(self, name: Any) -> Pid | None:
        for service in self._registry.lookup(name):
            if service.pid.node != self._registry._runtime.name or self._registry._runs(service.pid):
                return service.pid
        return None


def _key(name: Any) -> Any:
    """As ``crdt.keys.term_key``, quick for a ``str``."""
    return name.encode() if name.__class__ is str else term_key(name)


__all__ = ["Registry"]
