"""Drives ``proto.global_names``: the process ``global_name_server``, and what the machine orders.

The process takes what other nodes send, in order, with the comings and goings of nodes among it; the machine decides,
and what it orders is done at once. What users of this node ask goes to the machine directly.

Without a mesh, among nodes of this library, the service sleeps until a user of the node asks something of it: a
cluster that uses no global names pays nothing for them. A sleeper takes part with the nodes that speak to it alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.errors import BarrelError, CallError
from barrel_p2p.node.channel import Channel
from barrel_p2p.process.api import process_flag
from barrel_p2p.process.call import ALIAS, GEN_CALL, GEN_CAST, reply_address
from barrel_p2p.process.current import current_process
from barrel_p2p.process.gen_server import NOREPLY, GenServer
from barrel_p2p.process.process import Process
from barrel_p2p.process.reasons import DOWN, SHUTDOWN
from barrel_p2p.process.signals import Monitor
from barrel_p2p.proto import global_events as event
from barrel_p2p.proto.flags import Flags
from barrel_p2p.proto.global_names import GlobalNames
from barrel_p2p.services.global_resolve import Resolving
from barrel_p2p.shown import Shown
from barrel_p2p.term.types import Atom, ImproperList, Reference

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node

log = logging.getLogger("barrel_p2p.global")

SERVER: Final = Atom("global_name_server")
_FACTS: Final = (event.NodeUp, event.NodeDown, event.Connected, event.SyncAsked)


class GlobalNameServer(GenServer):
    """The process of that name: hands every message to the service."""

    async def init(self, service: Driver) -> None:
        process_flag("trap_exit", True)
        self._service = service
        service.begin(current_process())

    async def handle_call(self, request: Any, from_: Any) -> Any:
        self._service.feed(event.Called(from_, request))
        return NOREPLY

    async def handle_cast(self, request: Any) -> None:
        self._service.cast_in(request)

    async def handle_info(self, message: Any) -> None:
        self._service.informed(message)

    async def terminate(self, reason: Any) -> None:
        self._service.end()

    def get_state(self) -> Any:
        machine = self._service.machine
        return {Atom("known"): machine.known, Atom("names"): machine.registered, Atom("locks"): machine.locked}


class Driver:
    """Between the machine and one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._runtime = node.runtime
        self._published = bool(node.options.published)
        self._tcp = node.options.proto_dist == "inet_tcp"
        self._mesh = self._tcp and self._published
        self._process: Process
        self.machine: GlobalNames
        self._facts: deque[event.Fact] = deque()
        self._busy = False
        self._ended = False
        self._ops: dict[int, asyncio.Future[bool]] = {}
        self._op = 0
        self._watches: dict[int, Monitor] = {}  # of the machine's ``Monitor``, by its number
        self._calls: dict[int, Monitor] = {}
        self._numbers: dict[tuple[int, ...], int] = {}  # of both, by their reference
        self._taking_part: dict[Atom, None] = {}  # nodes with a channel
        self._joining: dict[Atom, None] = {}  # nodes that are being connected because the machine wants it
        self._awake = self._mesh
        self._asleep: dict[Atom, None] = {}  # nodes of ours that would take part and have not been spoken to
        self._wake: asyncio.TimerHandle | None = None
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._asks: dict[int, asyncio.Task[None]] = {}
        self._resolving = Resolving(node)
        self._performers: dict[type, Callable[[Any], None]] = {
            event.Reply: self._reply,
            event.Cast: self._cast,
            event.Tell: self._tell,
            event.Call: self._call,
            event.ForgetCall: self._forget_call,
            event.Monitor: self._monitor,
            event.Demonitor: self._demonitor,
            event.Connect: self._connect,
            event.Disconnect: self._disconnect,
            event.Ask: self._ask,
            event.ForgetAsk: self._forget_ask,
            event.Done: self._done,
            event.WakeAt: self._wake_at,
            event.Log: lambda order: log.log(logging.getLevelNamesMapping()[order.level.upper()], "%s", order.text),
        }

    async def start(self) -> None:
        if self._node.exports.find("global", "resolve_it") is None:  # the node may have run before
            self._node.exports.add(self._resolving.resolve_it, module="global", name="resolve_it")
        await GlobalNameServer.start(self, name=SERVER, node=self._node)

    # --- what users of this node ask ----------------------------------------------------------------------------------

    async def operate(self, fact: Callable[[int], event.Fact], timeout: float | None) -> bool:
        """Give the machine an operation, and wait until it is done. Raises TimeoutError or CallError."""
        if self._ended:
            raise CallError(SHUTDOWN, f"{self._node.name} stops")
        self._wake_up()
        self._op = op = self._op + 1
        future = self._ops[op] = self._runtime.loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                asked = fact(op)
                if isinstance(asked, event.SyncAsked):
                    self._process.put(asked)  # behind the nodes that have just come up
                else:
                    self.feed(asked)
                done: bool = await future
                return done
        finally:
            if self._ops.pop(op, None) is not None and not self._ended:
                self.feed(event.Abandoned(op))

    # --- what the node tells ----------------------------------------------------------------------------------------

    def node_up(self, channel: Channel) -> None:
        """A channel is up: its node takes part if it is one of ours, or of Erlang's that we show ourselves to."""
        flags = Flags(channel.flags)
        kin, visible = bool(flags & Flags.PYTHON), bool(flags & Flags.PUBLISHED)
        takes_part = kin if not self._tcp else visible == self._published and (kin or visible)
        if not takes_part:
            return
        if self._awake:
            self._begin_with(channel.name, kin)
        else:
            self._asleep[channel.name] = None

    def node_down(self, name: Atom) -> None:
        self._asleep.pop(name, None)
        if self._taking_part.pop(name, self) is not self:
            self._process.put(event.NodeDown(name))

    def _begin_with(self, name: Atom, kin: bool) -> None:
        self._taking_part[name] = None
        self._process.put(event.NodeUp(name, kin))

    def _wake_up(self) -> None:
        """Somebody here uses global names: speak to all that are connected."""
        self._awake = True
        for name in self._asleep:
            self._begin_with(name, kin=True)
        self._asleep.clear()

    # --- what the process tells -------------------------------------------------------------------------------------

    def begin(self, process: Process) -> None:
        runtime = self._runtime
        self._process = process
        self.machine = GlobalNames(
            runtime.name,
            process.pid,
            runtime.creation,
            mesh=self._mesh,
            rng=random.Random(random.SystemRandom().getrandbits(64)),
        )

    def cast_in(self, request: Any) -> None:
        """A cast of another node."""
        match request:
            case ("init_connect", _, Atom() as node, _) if node in self._asleep:
                del self._asleep[node]
                self._taking_part[node] = None
                self.feed(event.NodeUp(node, True))
        self.feed(event.CastIn(request))

    def informed(self, message: Any) -> None:
        """A message that is neither call nor cast."""
        if isinstance(message, _FACTS):
            self.feed(message)
        elif isinstance(message, tuple) and len(message) == 5 and message[0] == DOWN:
            self._down(message[1])
        elif isinstance(message, tuple) and len(message) == 2 and isinstance(message[0], ImproperList):
            self._answered(message[0].tail, message[1])
        else:
            self.feed(event.Told(message))

    def end(self) -> None:
        """The process ends, and with it the service."""
        self._ended = True
        if self._wake is not None:
            self._wake.cancel()
        for task in self._tasks:
            task.cancel()
        for future in self._ops.values():
            if not future.done():
                future.set_exception(CallError(SHUTDOWN, f"{self._node.name} stops"))

    def feed(self, fact: event.Fact) -> None:
        """Tell the machine and do what it orders. What comes of an order while it is done waits for its turn."""
        self._facts.append(fact)
        if self._busy or self._ended:
            return
        self._busy = True
        try:
            while self._facts:
                for order in self.machine.handle(self._facts.popleft(), now=self._runtime.loop.time()):
                    self._perform(order)
        except Exception:
            log.exception("internal error: global lost %s", Shown(fact))
        finally:
            self._busy = False

    def _perform(self, order: event.Order) -> None:
        try:
            self._performers[type(order)](order)
        except BarrelError as error:
            log.warning("global could not do %s: %s", Shown(order), error)

    # --- orders: messages -------------------------------------------------------------------------------------------

    def _in_reach(self, node: Atom) -> bool:
        """Connected, or being connected by our order. The machine may not have heard yet that a node is gone: what it
        says to that node must not bring the connection back."""
        return node in self._taking_part or node in self._joining

    def _route(self, to: Any, message: Any) -> None:
        """Sent by no process, so that a busy channel to one node never makes global wait for it."""
        self._runtime.route(None, to, message)

    def _reply(self, order: event.Reply) -> None:
        to, tag = order.to
        self._route(reply_address(to, tag), (tag, order.value))

    def _cast(self, order: event.Cast) -> None:
        if self._in_reach(order.node):
            self._route((SERVER, order.node), (GEN_CAST, order.message))

    def _tell(self, order: event.Tell) -> None:
        if order.node in self._taking_part:
            self._route((SERVER, order.node), order.message)

    def _call(self, order: event.Call) -> None:
        runtime, process = self._runtime, self._process
        if not self._in_reach(order.node):
            self._facts.append(event.CallFailed(order.call))
            return
        ref = runtime.alias(process, reply=True)
        self._numbers[ref.ids] = order.call
        target = (SERVER, order.node)
        self._calls[order.call] = runtime.monitor(process.pid, process, target, ref)
        self._route(target, (GEN_CALL, (process.pid, ImproperList((ALIAS,), ref)), order.request))

    def _answered(self, ref: Any, value: Any) -> None:
        number = self._numbers.get(ref.ids) if isinstance(ref, Reference) else None
        if number in self._calls:
            self._end_call(number)
            self.feed(event.Answered(number, value))

    def _forget_call(self, order: event.ForgetCall) -> None:
        if order.call in self._calls:
            self._end_call(order.call)

    def _end_call(self, number: int) -> None:
        monitor = self._calls.pop(number)
        del self._numbers[monitor.ref.ids]
        self._runtime.end_monitor(monitor)
        self._runtime.unalias(self._process, monitor.ref)

    # --- orders: processes ------------------------------------------------------------------------------------------

    def _monitor(self, order: event.Monitor) -> None:
        """Deaths elsewhere come in the order of that node's messages, those here at once."""
        runtime, ref, number = self._runtime, self._runtime.reference(), order.monitor
        if order.pid.node == runtime.name and runtime.find(order.pid) is None:
            self._facts.append(event.Died(number))
        elif order.pid.node == runtime.name:
            self._watches[number] = runtime.monitor(
                self._process.pid, lambda _reason: self._died_here(number), order.pid, ref
            )
        else:
            self._numbers[ref.ids] = number
            self._watches[number] = runtime.monitor(self._process.pid, self._process, order.pid, ref)

    def _died_here(self, number: int) -> None:
        self._watches.pop(number, None)
        self.feed(event.Died(number))

    def _demonitor(self, order: event.Demonitor) -> None:
        monitor = self._watches.pop(order.monitor, None)
        if monitor is not None:
            self._numbers.pop(monitor.ref.ids, None)
            self._runtime.end_monitor(monitor)

    def _down(self, ref: Any) -> None:
        number = self._numbers.get(ref.ids) if isinstance(ref, Reference) else None
        if number in self._calls:
            self._end_call(number)
            self.feed(event.CallFailed(number))
        elif number in self._watches:
            del self._watches[number], self._numbers[ref.ids]
            self.feed(event.Died(number))

    # --- orders: the rest -------------------------------------------------------------------------------------------

    def _connect(self, order: event.Connect) -> None:
        if order.node not in self._joining:
            self._joining[order.node] = None
            self._track(self._runtime.loop.create_task(self._connecting(order.node)))

    async def _connecting(self, node: Atom) -> None:
        try:
            if node not in self._taking_part:
                await self._node.connect(node)
        except (BarrelError, OSError) as error:
            log.info("global: no connection to %s: %s", node, error)
        finally:
            del self._joining[node]
        self._process.put(event.Connected(node, node in self._taking_part))

    def _disconnect(self, order: event.Disconnect) -> None:
        self._node.disconnect(order.node)

    def _ask(self, order: event.Ask) -> None:
        task = self._asks[order.ask] = self._runtime.loop.create_task(self._asking(order))
        self._track(task)

    async def _asking(self, order: event.Ask) -> None:
        try:
            value, failed = await self._resolving.ask(order, self.machine.known), False
        except BarrelError as error:
            log.info("global: the resolve function of %r did not run: %s", order.name, error)
            value, failed = None, True
        self._asks.pop(order.ask, None)
        self.feed(event.Judged(order.ask, value, failed))

    def _forget_ask(self, order: event.ForgetAsk) -> None:
        task = self._asks.pop(order.ask, None)
        if task is not None:
            task.cancel()

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _done(self, order: event.Done) -> None:
        future = self._ops.pop(order.op, None)
        if future is not None and not future.done():
            future.set_result(order.value)

    def _wake_at(self, order: event.WakeAt) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wake = None if order.at is None else self._runtime.loop.call_at(order.at, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.feed(event.Woken())


__all__ = ["Driver", "GlobalNameServer"]
