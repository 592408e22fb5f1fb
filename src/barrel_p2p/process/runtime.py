"""The processes of one node: their table, their names, delivery, spawning and stopping.

A runtime belongs to one event loop and knows nothing of the network; what is meant for another node goes to ``remote``.
All of it runs on the loop's thread, so a send is an append and a signal takes effect before the call returns.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Token, copy_context
from struct import Struct
from types import CoroutineType
from typing import Any, Final

from ..errors import Exit, NameTaken, NoProc
from ..shown import shown
from ..term.types import Atom, Pid, Reference, reference_maker
from .current import current
from .deadlines import Deadlines
from .names import Resolver, ServerName
from .process import DEAD, EXITING, RUNNING, BoundedProcess, Process
from .reasons import KILL, NOPROC, NORMAL, SHUTDOWN, reason_of
from .remote import Remote
from .signals import Signals
from .steps import Steps

MAX_ID: Final = (1 << 28) - 1  # older nodes keep 28 bits of a pid's number and 13 of its serial
MAX_SERIAL: Final = (1 << 13) - 1
WORD: Final = 0xFFFFFFFF
_ALIAS: Final = (Atom("alias"),)
_IDS: Final = Struct(">HII")  # of a reference: older nodes keep 18 bits of the first word
RANDOM_BYTES: Final = 1000 * _IDS.size  # fetched at once, since the system's randomness costs a call


class Runtime(Signals):
    """The processes of one node.

    Example:
        >>> runtime = Runtime(Atom("a@127.0.0.1"), creation=1)
        >>> with runtime.block():                      # the code in the block is a process
        ...     pid = spawn(worker)

    Args:
        name: the node's name; every pid carries it.
        creation: tells this life of the node from earlier ones, 1 to 2**32 - 1.
        remote: what sends to other nodes; without it every other node is unreachable.
        exit_grace: seconds a process may take to unwind after an exit signal (5.0, OTP's default shutdown time).
    """

    def __init__(
        self,
        name: Atom,
        creation: int,
        *,
        remote: Remote | None = None,
        exit_grace: float = 5.0,
    ) -> None:
        super().__init__()
        self.name = Atom(name)
        self.creation: Final = creation
        self.remote = remote
        self.exit_grace = exit_grace
        #: The sender of signals that no process sends, such as the shutdown of the node.
        self.pid = Pid(self.name, 0, 0, creation)
        self.processes: dict[int, Process] = {}  # key: pid.id | pid.serial << 32
        self.names: dict[str, Process] = {}
        #: The supervisor of each process that has one on this node.
        self.supervisors: dict[Pid, Process] = {}
        #: Active aliases of ours: a process (its mailbox takes the messages) or the future of a call (takes one reply).
        self.aliases: dict[tuple[int, ...], Process | asyncio.Future[Any]] = {}
        self.name_resolvers: dict[Any, Resolver] = {}
        #: Makes the resolver of ``via((module, node), name)``; set by the node.
        self.far_resolver: Callable[[Atom, Atom], Resolver] | None = None
        #: The I/O server of this node, which leads every process that was not given another leader.
        self.user: Pid | None = None
        self.timers: dict[asyncio.TimerHandle, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deadlines: Deadlines | None = None
        self._last_key = 0
        self._make_reference: Final = reference_maker(self.name, creation)
        self._random: Iterator[tuple[int, ...]] = iter(())

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop this runtime belongs to: the one that ran when it was first used."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    @property
    def deadlines(self) -> Deadlines:
        """The time limits of this runtime's calls."""
        if self._deadlines is None:
            self._deadlines = Deadlines(self.loop)
        return self._deadlines

    # --- identities -------------------------------------------------------------------------------------------------

    def reference(self) -> Reference:
        """A new reference. Nobody can guess it, since who knows that of a call can answer it."""
        ids = next(self._random, None)
        if ids is None:
            self._random = _IDS.iter_unpack(os.urandom(RANDOM_BYTES))
            ids = next(self._random)
        return self._make_reference(ids)

    def _new_key(self) -> int:
        """A number that no process has: the id of its pid, and above it the serial."""
        key = self._last_key
        while True:
            key += 1
            if key & WORD > MAX_ID:
                key = ((key >> 32) + 1 & MAX_SERIAL) << 32 | 1
            if key not in self.processes:
                self._last_key = key
                return key

    def find(self, pid: Pid) -> Process | None:
        """The process of this node with that pid, unless it is dead."""
        process = self.processes.get(pid.id | pid.serial << 32)
        if process is None or pid.creation != self.creation or pid.node != self.name:
            return None
        return process

    process = find

    def leader_of(self, process: Process | None) -> Pid:
        """The group leader of a process, or of code that is none."""
        leader = process.group_leader if process is not None and process.runtime is self else None
        return leader or self.user or (self.pid if process is None else process.pid)

    # --- names ------------------------------------------------------------------------------------------------------

    def find_name(self, name: str) -> Process | None:
        """The process registered by ``name`` on this node."""
        return self.names.get(name)

    def register(self, name: str, pid: Pid) -> None:
        """Give a live process of this node a name.

        Raises:
            NameTaken: the name is in use, or the process has one already.
            NoProc: there is no such live process on this node.
            TypeError: the arguments are no text and no pid.
        """
        if not isinstance(name, str) or not isinstance(pid, Pid):
            raise TypeError(f"a name is a text and belongs to a pid: register({name!r}, {pid!r}) has other arguments")
        process = self.find(pid)
        if process is None or process.status != RUNNING:
            raise NoProc(NOPROC, f"can't register {name!r}: {pid!r} is no live process of this node")
        if process.name is not None:
            raise NameTaken(f"can't register {name!r}: {pid!r} is already registered as {str(process.name)!r}")
        if name in self.names or name == "undefined":
            raise NameTaken(f"can't register {name!r}: the name is in use")
        process.name = Atom(name)
        self.names[process.name] = process

    def unregister(self, name: str) -> None:
        """Take a name away.

        Raises:
            NoProc: nobody has it.
        """
        process = self.names.pop(name, None)
        if process is None:
            raise NoProc(NOPROC, f"can't unregister {name!r}: nobody has that name")
        process.name = None

    # --- delivery ---------------------------------------------------------------------------------------------------

    def deliver(self, to: Pid, message: Any) -> Process | None:
        """To a pid, and its process; dropped when it is dead."""
        process = self.find(to)
        if process is not None:
            process.put(message)
        return process

    def deliver_name(self, name: Atom, message: Any) -> Process | None:
        """To a registered name, and who has it; dropped when nobody does."""
        process = self.names.get(name)
        if process is not None:
            process.put(message)
        return process

    def deliver_reply(self, message: tuple[Any, Any]) -> bool:
        """A message ``{[...|...], Reply}`` sent to a pid: True if it answers a call. A server should answer at the
        alias that is in the tag, yet OTP's ``net_kernel`` uses the pid."""
        tag = message[0]
        target = self.aliases.get(tag.tail.ids) if type(tag.tail) is Reference and tag.elements == _ALIAS else None
        if target is None or isinstance(target, Process):
            return False
        if not target.done():
            target.set_result(message[1])
        return True

    def deliver_alias(self, ref: Reference, message: Any) -> Process | None:
        """To an alias, and the process behind it if it is one; dropped when it is not active (any more).

        The ids alone tell: they are random, so those of another node or an earlier life of this one never match.
        """
        target = self.aliases.get(ref.ids)
        if target is None:
            return None
        if isinstance(target, Process):
            if target.aliases and target.aliases.get(ref.ids):
                self.unalias(target, ref)
            target.put(message)
            return target
        if type(message) is tuple and len(message) == 2 and not target.done():
            target.set_result(message[1])
        return None

    def route(self, sender: Process | None, to: Any, message: Any) -> None:
        """Send to anything: a pid, an alias, a name, a ``(name, node)`` or a ``global_`` / ``via`` name.

        Raises:
            NoProc: ``to`` is a name without a node that nobody has.
            TypeError: ``to`` is none of these.
        """
        gate = None
        if isinstance(to, Pid):
            if to.node != self.name:
                self._route_remote(sender, to, message)
            elif (process := self.find(to)) is not None:
                gate = process.put(message)
        elif isinstance(to, Reference):
            if to.node != self.name:
                self._route_remote(sender, to, message)
            else:
                self.deliver_alias(to, message)
        elif isinstance(to, (str, ServerName)):
            gate = self._route_name(sender, to, message)
        elif isinstance(to, tuple) and len(to) == 2 and isinstance(to[0], str) and isinstance(to[1], str):
            if to[1] != self.name:
                self._route_remote(sender, (Atom(to[0]), Atom(to[1])), message)
            elif (process := self.names.get(to[0])) is not None:
                gate = process.put(message)
        else:
            raise TypeError(f"can't send to {to!r}: it is no pid, alias, name or (name, node)")
        if gate is not None and sender is not None:
            sender.suspend(gate)

    def _route_name(self, sender: Process | None, to: str | ServerName, message: Any) -> Any:
        process: Process | None
        if isinstance(to, ServerName):
            pid = to.whereis_now(self)
            if pid is not None and pid.node != self.name:
                self._route_remote(sender, pid, message)
                return None
            process = None if pid is None else self.find(pid)
        else:
            process = self.names.get(to)
        if process is None:
            raise NoProc(NOPROC, f"nobody is registered as {to!r}")
        return process.put(message)

    def _route_remote(self, sender: Process | None, to: Any, message: Any) -> None:
        if self.remote is not None:
            self.remote.send(sender, to, message)

    # --- aliases ----------------------------------------------------------------------------------------------------

    def alias(self, process: Process, *, reply: bool = False) -> Reference:
        """A new alias of ``process``; with ``reply`` the first message through it is the last."""
        ref = self.reference()
        self.aliases[ref.ids] = process
        if process.aliases is None:
            process.aliases = {}
        process.aliases[ref.ids] = reply
        return ref

    def unalias(self, process: Process, ref: Reference) -> bool:
        """Deactivate an alias of ``process``; false when it was not active."""
        if not process.aliases or ref.ids not in process.aliases or ref.node != self.name:
            return False
        del process.aliases[ref.ids]
        del self.aliases[ref.ids]
        return True

    # --- spawning ---------------------------------------------------------------------------------------------------

    def spawn(
        self,
        func: Callable[..., Coroutine[Any, Any, Any]] | Coroutine[Any, Any, Any],
        args: tuple[Any, ...] = (),
        *,
        link_to: Process | Pid | None = None,
        monitor_by: tuple[Process | Pid, Reference] | None = None,
        name: str | None = None,
        max_mailbox: int | None = None,
        when_full: str = "wait",
        trap_exit: bool = False,
    ) -> Process:
        """Start a process that runs ``func(*args)``, or a coroutine.

        Args:
            link_to: a process that is linked with the new one from its first moment; a pid of another node is recorded
                without a signal, since the spawn itself tells that node.
            monitor_by: who watches the new process, with the reference to watch by; again also a pid of another node.
            name: registers the new process.
            max_mailbox, when_full: bound of the mailbox and what happens there, see ``BoundedProcess``.

        Raises:
            NameTaken: the name is in use; nothing was started.
            TypeError: ``func`` gives no coroutine.
        """
        coro = func(*args) if callable(func) else func
        if type(coro) is not CoroutineType and not isinstance(coro, Coroutine):
            raise TypeError(f"spawn needs an async function or a coroutine, not {func!r}")
        try:
            process = self._new_process(max_mailbox, when_full, name)
        except BaseException:
            coro.close()
            raise
        if trap_exit:
            process.trap_exit = True
        process.steps = Steps(process, coro)
        if link_to is not None:
            self._link_spawned(process, link_to)
        if monitor_by is not None:
            self._monitor_spawned(process, *monitor_by)
        context = copy_context()
        context.run(current.set, process)
        # A plain task, whatever factory the loop has: an eager one would run the process before its spawner goes on.
        process.task = asyncio.Task(process.steps, loop=self.loop, name="process", context=context)  # type: ignore[arg-type]
        return process

    def _new_process(self, max_mailbox: int | None, when_full: str, name: str | None) -> Process:
        key = self._new_key()
        pid = Pid(self.name, key & WORD, key >> 32, self.creation)
        process = Process(self, pid) if max_mailbox is None else BoundedProcess(self, pid, max_mailbox, when_full)
        self.processes[key] = process
        parent = current.get()
        if parent is not None and parent.group_leader is not None and parent.runtime is self:
            process.group_leader = parent.group_leader
        if name is not None:
            try:
                self.register(name, pid)
            except (NameTaken, TypeError):
                del self.processes[key]
                raise
        return process

    def _link_spawned(self, process: Process, other: Process | Pid) -> None:
        if isinstance(other, Process):
            self.link(other, process.pid)
        else:
            self.add_link(process.pid, other)

    def _monitor_spawned(self, process: Process, watcher: Process | Pid, ref: Reference) -> None:
        if isinstance(watcher, Process):
            self.monitor(watcher.pid, watcher, process.pid, ref)
        else:
            self.monitor_in(watcher, process.pid, ref)

    def finish(self, process: Process, reason: Any) -> None:
        """A process has ended: take it off the table, then tell those who asked to know."""
        if process.status == DEAD:
            return
        process.status = DEAD
        process.attention = True
        process.exit_reason = reason
        pid = process.pid
        del self.processes[pid.id | pid.serial << 32]
        if self.supervisors:
            self.supervisors.pop(pid, None)
        process.task = process.steps = None  # breaks the cycle, so that the dead need no garbage collector
        if process.name is not None:
            del self.names[process.name]
        if process.aliases:
            for ids in process.aliases:
                self.aliases.pop(ids, None)
            process.aliases = None
        if process.gates:
            process.leave_gates()
        if process.bounded:
            process.took()
        if process.mailbox:
            process.mailbox.clear()
        process.reductions = 0  # tasks that outlive the process get nothing from receive() but a CancelledError
        if process.waiter is not None:
            process.waiter.cancel()
        if process.links or process.monitored_by or process.monitors:
            self._fire_all(process, reason)

    # --- the user's own task as a process ---------------------------------------------------------------------------

    def block(self, *, name: str | None = None) -> Block:
        """``with runtime.block() as process:`` makes the running task a process for the block."""
        return Block(self, name)

    # --- stopping ---------------------------------------------------------------------------------------------------

    async def stop(self, reason: Any = SHUTDOWN, timeout: float = 5.0) -> None:
        """End all processes but the caller's, and wait until their tasks are gone.

        Each gets an exit signal with ``reason`` (servers and supervisors take it as their parent's, so they terminate
        in order), then, after ``timeout`` seconds, ``kill``. What a supervisor has started is left to it: it ends its
        children in reverse order, and has the time that their specifications give. Timers of ``send_after`` are
        cancelled. The links of the caller are removed first, or the end of its own children would end it. The
        processes of the node end last: the others may need them while they terminate, and what they print is not lost.
        """
        mine = current.get()
        if mine is not None and mine.runtime is self:
            for pid in list(mine.links or ()):
                self.unlink(mine, pid)
        for last in (False, True):
            await self._end_all(reason, timeout, last)
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    async def _end_all(self, reason: Any, timeout: float, last: bool) -> None:
        told: dict[Process, Any] = {}
        deadline = self.loop.time() + timeout
        mine = current.get()
        while True:
            rest = [
                process
                for process in self.processes.values()
                if process is not mine
                and not isinstance(process.steps, Block)
                and (last or process.pid not in self.kernel)
                and not self._is_supervised(process)
            ]
            now = self.loop.time()
            supervisors = set(self.supervisors.values())
            for process in rest:
                order = KILL if now >= deadline and process not in supervisors else reason
                if told.get(process) is not order:
                    told[process] = order
                    self.exit_signal(process, self.pid, order, linked=False)
            tasks = [process.task for process in rest if process.task is not None]
            if not tasks:
                return
            if now < deadline:
                await asyncio.wait(tasks, timeout=deadline - now)
            elif not supervisors.isdisjoint(rest):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                deadline = self.loop.time()
            elif now < deadline + timeout:
                await asyncio.wait(tasks, timeout=deadline + timeout - now)
            else:
                return

    def _is_supervised(self, process: Process) -> bool:
        supervisor = self.supervisors.get(process.pid)
        return supervisor is not None and supervisor.status == RUNNING


class Block:
    """Makes the task that enters it a process until it leaves.

    An exit signal that ends this process cancels the block and comes out of it as ``Exit`` with the signal's reason,
    and the pid that it came from in its text.
    The task is the user's own, so gates hold it at the await points of this library only.
    """

    __slots__ = ("_cancels", "_name", "_runtime", "_sender", "_token", "process")

    def __init__(self, runtime: Runtime, name: str | None) -> None:
        self._runtime: Final = runtime
        self._name: Final = name
        self._token: Token[Process | None] | None = None
        self._cancels = 0
        self._sender: Pid | None = None  # of the signal that ends it

    def __enter__(self) -> Process:
        runtime = self._runtime
        process = self.process = runtime._new_process(None, "wait", self._name)
        process.task = asyncio.current_task(runtime.loop)
        process.steps = self
        self._token = current.set(process)
        return process

    def unwind(self, *, hard: bool, sender: Pid | None = None) -> None:
        """An exit signal ends this process: cancel the block, once."""
        task = self.process.task
        if task is not None and not self._cancels:
            self._sender = sender
            self._cancels += 1
            task.cancel()

    def unwind_here(self) -> BaseException:
        """The block ended itself: the error to raise right there."""
        return asyncio.CancelledError(self.process.exit_reason)

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        process = self.process
        task, exiting = process.task, process.status == EXITING
        if exiting:
            reason = process.exit_reason
        elif error is None:
            reason = NORMAL
        elif isinstance(error, asyncio.CancelledError):  # by Ctrl-C or a task group: the program ends, in order
            reason = SHUTDOWN
        else:
            reason = reason_of(error)
        self._runtime.finish(process, reason)
        if self._token is not None:
            current.reset(self._token)
        if exiting and task is not None:
            cancelling = task.cancelling()
            for _ in range(self._cancels):
                cancelling = task.uncancel()
            if not cancelling and (error is None or isinstance(error, asyncio.CancelledError)):
                whence = "" if self._sender is None else f", by an exit signal of {self._sender!r}"
                raise Exit(reason, f"exit: {shown(reason)}{whence}") from None


__all__ = ["Block", "Runtime"]
