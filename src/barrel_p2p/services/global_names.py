"""``node.global_``: names that all connected nodes share, Erlang nodes among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from barrel_p2p.errors import CallTimeout
from barrel_p2p.node.channel import Channel
from barrel_p2p.process.process import RUNNING
from barrel_p2p.process.reasons import TIMEOUT
from barrel_p2p.proto import global_events as event
from barrel_p2p.services.global_driver import Driver
from barrel_p2p.services.global_resolve import METHODS
from barrel_p2p.term.codec import encode
from barrel_p2p.term.types import Atom, Pid

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node

ResolveName = Literal["random_exit_name", "random_notify_name", "notify_all_name", "none"]


class Global:
    """Names of processes that mean the same on all connected nodes (Erlang's ``global``).

    ::

        await node.global_.register_name("counter", pid)     # on one node
        send(global_("counter"), "hello")                    # on any other

    Which nodes share names, what happens when two have the same name, and what Erlang nodes see: ``docs/reference/
    global.md``.
    """

    #: The death of a process takes its names away: servers need not do it when they end.
    forgets_the_dead: Final = True

    def __init__(self, node: Node) -> None:
        self._runtime = node.runtime
        self._driver = Driver(node)

    @classmethod
    async def start(cls, node: Node) -> Global:
        """Start the service on a node."""
        service = cls(node)
        await service._driver.start()
        node.runtime.name_resolvers["global"] = service
        return service

    # --- for users --------------------------------------------------------------------------------------------------

    async def register_name(
        self, name: Any, pid: Pid, resolve: ResolveName = "random_exit_name", timeout: float | None = 30.0
    ) -> bool:
        """Give ``pid`` a name on all nodes that share names with this one (``global:register_name``).

        ::

            if not await node.global_.register_name("leader", self_pid()):
                ...  # somebody else is

        Args:
            name: Any term. A ``str`` is a binary for Erlang nodes; ``Atom("leader")`` is their ``leader``.
            pid: The process, of any node. A process has one name at most.
            resolve: Who keeps the name when nodes meet that both have it: see ``docs/reference/global.md``.
            timeout: Seconds; None waits for ever, as OTP does.

        Returns:
            False if another process has the name, or the process has another name.

        Raises:
            CallTimeout: The lock of all nodes could not be had in time. The name may still be registered later.
            EncodeError: The name has no form as a term.
            TypeError: ``pid`` is no pid.
        """
        method = METHODS[resolve]
        _check(name, pid)
        return await self._operate(lambda op: event.RegisterAsked(op, name, pid, method), name, timeout)

    async def re_register_name(
        self, name: Any, pid: Pid, resolve: ResolveName = "random_exit_name", timeout: float | None = 30.0
    ) -> None:
        """The same, but take the name from whoever has it (``global:re_register_name``)."""
        method = METHODS[resolve]
        _check(name, pid)
        await self._operate(lambda op: event.RegisterAsked(op, name, pid, method, anew=True), name, timeout)

    async def unregister_name(self, name: Any, timeout: float | None = 30.0) -> None:
        """Take a name away on all nodes; nothing happens if nobody has it (``global:unregister_name``).

        Raises:
            CallTimeout: As for ``register_name``.
        """
        if self._driver.machine.whereis(name) is not None:
            await self._operate(lambda op: event.UnregisterAsked(op, name), name, timeout)

    def whereis_name(self, name: Any) -> Pid | None:
        """Who has the name, looked up on this node without waiting (``global:whereis_name``)."""
        pid = self._driver.machine.whereis(name)
        if pid is not None and pid.node == self._runtime.name:
            process = self._runtime.find(pid)
            if process is None or process.status != RUNNING:
                return None
        return pid

    def registered_names(self) -> list[Any]:
        """All names known on this node (``global:registered_names``). Names from Erlang are ``bytes`` or atoms."""
        return self._driver.machine.registered

    def nodes(self) -> list[Atom]:
        """The nodes that share names with this one, without it."""
        return self._driver.machine.known

    async def sync(self, timeout: float | None = 30.0) -> None:
        """Wait until this node has the names of all nodes that it is connected to and that share names with it.

        ::

            await node.connect("erl@127.0.0.1")
            await node.global_.sync()
            print(node.global_.whereis_name(Atom("x")))

        Raises:
            CallTimeout: Some node's names did not come in time.
        """
        await self._operate(event.SyncAsked, None, timeout)

    async def _operate(self, fact: Callable[[int], event.Fact], name: Any, timeout: float | None) -> bool:
        try:
            return await self._driver.operate(fact, timeout)
        except TimeoutError:
            what = "the names of all nodes" if name is None else f"{name!r}: the lock of all nodes"
            raise CallTimeout(TIMEOUT, f"{what} could not be had within {timeout} s") from None

    # --- what the node tells ----------------------------------------------------------------------------------------

    def node_up(self, channel: Channel) -> None:
        self._driver.node_up(channel)

    def node_down(self, name: Atom) -> None:
        self._driver.node_down(name)


def _check(name: Any, pid: Any) -> None:
    """Before the lock is asked for: what fails under it is a fault of this library, and leaves it locked."""
    if not isinstance(pid, Pid):
        raise TypeError(f"a global name is given to a pid, not to {pid!r}: register_name(name, pid)")
    encode(name)


__all__ = ["Global", "ResolveName"]
