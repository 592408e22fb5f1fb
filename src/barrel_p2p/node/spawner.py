"""Spawning on other nodes, and for other nodes: SPAWN_REQUEST and SPAWN_REPLY of the distribution protocol.

What a peer asks for runs only if it was exported. Erlang's ``erpc`` and ``rpc`` are spawns too, of
``erpc:execute_call``, which ends with its result as exit reason; that entry point is served here in front of the
exported functions.

An Erlang node sends a spawned process's first signals on other streams than the reply, so an EXIT or DOWN may come
first. Monitors are therefore recorded when the request leaves, and an EXIT that finds its request open waits for the
reply.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from barrel_p2p.errors import (
    BarrelError,
    ConfigError,
    EncodeError,
    Exit,
    NameTaken,
    NodeDown,
    ProtocolError,
    RemoteError,
)
from barrel_p2p.node.channel import Channel, Control
from barrel_p2p.node.exports import Exports, Undefined
from barrel_p2p.node.guests import Guests, TooManyGuests
from barrel_p2p.node.outcome import RETURN, execute, outcome_of
from barrel_p2p.node.propagation import Propagation
from barrel_p2p.node.route import Route
from barrel_p2p.process.current import current
from barrel_p2p.process.process import Process
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.process.signals import Monitor
from barrel_p2p.proto.control import SPAWN_FLAG_LINK, SPAWN_FLAG_MONITOR, Op
from barrel_p2p.shown import Shown, printable
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, Pid, Reference

log = logging.getLogger("barrel_p2p.spawn")


@dataclass(slots=True)
class _Request:
    """A spawn that another node was asked for."""

    node: Atom
    owner: Pid
    future: asyncio.Future[Pid]
    monitor: Monitor | None
    early_exits: dict[Pid, Any] = field(default_factory=dict)


class Spawner:
    """Both directions of remote spawn for one node."""

    def __init__(
        self,
        runtime: Runtime,
        codec: Codec,
        exports: Exports,
        route: Callable[[Atom], Route | None],
        propagation: Propagation,
    ) -> None:
        self._runtime = runtime
        self._codec = codec
        self._exports = exports
        self._route = route
        self._propagation = propagation
        self._requests: dict[Reference, _Request] = {}
        self._linking: dict[Reference, _Request] = {}  # those that ask for a link
        self.guests = Guests(runtime)

    # --- asking another node ----------------------------------------------------------------------------------------

    def request(
        self,
        caller: Process | None,
        node: Atom,
        function: Any,
        args: tuple[Any, ...],
        *,
        link: bool,
        monitor: Reference | None,
        name: Atom | None,
        down: asyncio.Future[Any] | None = None,
    ) -> asyncio.Future[Pid]:
        """Ask ``node`` to spawn; the future gives the pid.

        Args:
            function: ``"module:function"``, a pair, or a function. monitor: Watch the new process by this reference;
            its exit reason goes to ``down``, or else as DOWN to ``caller``.
        """
        module, function_name = mfa_name(function)
        options: list[Any] = [Atom("link")] if link else []
        if monitor is not None:
            options.append(Atom("monitor"))
        if name is not None:
            options.append((Atom("name"), name))
        ref = monitor or self._runtime.reference()
        owner = caller.pid if caller is not None else self._runtime.pid
        request = _Request(node, owner, asyncio.get_running_loop().create_future(), None)
        request.future.add_done_callback(lambda future: future.cancelled() or future.exception())
        route = self._route(node)
        if route is None:
            request.future.set_exception(
                NodeDown((Atom("nodedown"), node), f"{node} is not reachable: this node stops")
            )
            return request.future
        leader = self._runtime.leader_of(caller if caller is not None else current.get())
        control: Control = (
            int(Op.SPAWN_REQUEST), ref, owner, leader, (Atom(module), Atom(function_name), len(args)), options
        )  # fmt: skip
        control = self._propagation.outgoing(route, control)
        self._requests[ref] = request
        if link:
            self._linking[ref] = request
        sink = caller if down is None else down
        if monitor is not None and sink is not None:
            request.monitor = self._runtime.expect_down(node, owner, sink, ref)
        try:
            route.send(caller, control, list(args))
        except BarrelError:
            self.abandon(ref)
            raise
        return request.future

    def reply_in(self, channel: Channel, control: Control, message: Any) -> None:
        """SPAWN_REPLY ``{31, ReqId, To, Flags, Result}``."""
        _, ref, owner, flags, result, *_ = control
        request = self._requests.get(ref)
        if request is None or request.node != channel.name or request.owner != owner:
            return  # abandoned meanwhile, or no request of ours
        if not isinstance(result, Pid):
            self.abandon(ref)
            if not request.future.done():
                error = RemoteError("error", result)
                error.add_note(f"{channel.name} could not spawn")
                request.future.set_exception(error)
            return
        del self._requests[ref]
        self._linking.pop(ref, None)
        if request.monitor is not None:
            request.monitor.shown = result
        if flags & SPAWN_FLAG_LINK:
            self._runtime.add_link(owner, result)
            if result in request.early_exits:
                self._runtime.exit_in(result, owner, request.early_exits[result], linked=True)
        if not request.future.done():
            request.future.set_result(result)

    def early_exit(self, node: Atom, remote: Pid, local: Pid, reason: Any) -> None:
        """An EXIT for a link we don't know: it may belong to a spawn whose reply is still on its way."""
        for request in self._linking.values():
            if request.node == node and request.owner == local and len(request.early_exits) < 16:
                request.early_exits[remote] = reason

    def abandon(self, ref: Reference) -> None:
        """Forget a request, and the monitor that goes with it."""
        request = self._requests.pop(ref, None)
        self._linking.pop(ref, None)
        if request is not None and request.monitor is not None:
            self._runtime.end_monitor(request.monitor)

    def node_lost(self, node: Atom) -> None:
        for ref, request in list(self._requests.items()):
            if request.node == node:
                self.abandon(ref)
                if not request.future.done():
                    reason = (Atom("nodedown"), node)
                    request.future.set_exception(NodeDown(reason, f"{node} went down, or could not be reached"))

    # --- asked by another node --------------------------------------------------------------------------------------

    def request_in(self, channel: Channel, control: Control, message: Any) -> None:
        """SPAWN_REQUEST ``{29, ReqId, From, GroupLeader, {Module, Function, Arity}, OptList}`` and the arguments."""
        _, ref, owner, leader, (module, function, arity), options, *token = control
        if owner.node != channel.name:
            raise ProtocolError(f"{channel.name} asks to spawn in the name of {owner}, which is not its process")
        wanted = next((o[1] for o in options if isinstance(o, tuple) and len(o) == 2 and o[0] == "name"), None)
        name = wanted if isinstance(wanted, Atom) else None
        if not (isinstance(message, list) and len(message) == arity) or name is not wanted:
            self._refuse(channel, ref, owner, Atom("badarg"))
            return
        arguments = (channel.name, str(module), str(function), message)
        try:
            with self._propagation.entered(token[0] if token else None):
                process = self.guests.spawn(channel.name, self._run, arguments, leader=leader, name=name)
        except TooManyGuests:
            self._refuse(channel, ref, owner, Atom("system_limit"))
            return
        except NameTaken:
            self._refuse(channel, ref, owner, Atom("badarg"))
            return
        process.label = (Atom("spawned_by"), channel.name, module, function, arity)
        flags = 0
        for option in options:
            what = option[0] if isinstance(option, tuple) and option else option
            if what == "link":
                self._runtime.link_in(owner, process.pid)
                flags |= SPAWN_FLAG_LINK
            elif what == "monitor":
                self._runtime.monitor_in(owner, process.pid, ref)
                flags |= SPAWN_FLAG_MONITOR
        channel.send(None, (int(Op.SPAWN_REPLY), ref, owner, flags, process.pid))

    def _refuse(self, channel: Channel, ref: Reference, owner: Pid, reason: Atom) -> None:
        channel.send(None, (int(Op.SPAWN_REPLY), ref, owner, 0, reason))

    async def _run(self, node: Atom, module: str, function: str, args: list[Any]) -> None:
        if module == "erpc" and function in ("execute_call", "execute_cast") and len(args) in (3, 4):
            await self._run_erpc(node, args)
            return
        try:
            await self._exports.apply(module, function, args)
        except Undefined as undefined:
            called = printable(f"{module}:{function}/{len(args)}")
            log.info("%s asked for %s, which is not exported", node, called, extra={"peer": node})
            raise Exit(undefined.reason) from None

    async def _run_erpc(self, node: Atom, args: list[Any]) -> None:
        """``erpc:execute_call(Ref, M, F, A)``: the outcome is the exit reason. With three arguments it is a cast."""
        ref = args[0] if len(args) == 4 else None
        module, function, arguments = args[-3:]
        outcome = await execute(self._exports, module, function, arguments)
        if outcome[0] != RETURN:
            called = Shown((module, function))
            log.info("%s called %s, which ended with %s", node, called, Shown(outcome[1]), extra={"peer": node})
        if ref is None:
            return
        try:
            self._codec.encode(outcome)
        except EncodeError as error:  # a result that has no form as a term
            outcome = outcome_of(error)
        raise Exit((ref, *outcome))


def mfa_name(function: Any) -> tuple[str, str]:
    """``"module:function"``, ``(module, function)`` or a Python function as the pair of names the other node knows."""
    if isinstance(function, str):
        module, colon, name = function.partition(":")
        if colon and module and name:
            return module, name
    elif isinstance(function, tuple) and len(function) == 2:
        return str(function[0]), str(function[1])
    elif callable(function) and getattr(function, "__name__", None):
        return function.__module__, function.__name__
    raise ConfigError(
        f"on another node only an exported function can be spawned, named 'module:function', not {function!r}"
    )
