"""The functions that processes are written with, named as in Erlang; ``spawning`` and ``timers`` have some of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice
from types import coroutine as _generator_coroutine
from typing import TYPE_CHECKING, Any, NoReturn, overload

from ..errors import Exit, ReceiveConflict
from ..term import types as _types
from ..term.types import Atom, Pid, Reference
from .current import current, current_process
from .names import ServerName
from .process import EXITING, NO_MAILBOX, RUNNING, Process
from .reasons import DOWN, KILLED, NORMAL, as_reason
from .spawning import spawn, spawn_link, spawn_monitor
from .timers import Timer, cancel_timer, send_after

if TYPE_CHECKING:
    from collections.abc import Generator

_current = current.get


def self_pid() -> Pid:
    """The pid of the current process.

    Raises:
        NotInProcess: there is none.
    """
    return current_process().pid


# --- messages ---------------------------------------------------------------------------------------------------------


def send(to: Any, message: Any) -> None:
    """Send ``message``; never waits, and a dead receiver is no error.

    >>> send(pid, ("work", 1))
    >>> send("logger", "text")                        # a name of this node
    >>> send(("logger", "other@127.0.0.1"), "text")   # a name of any node

    Args:
        to: a ``Pid``, a name registered on this node, a ``(name, node)``, an alias, or a ``global_`` / ``via`` name.
        message: on this node the receiver gets the very object, to another node a copy.

    Raises:
        NoProc: ``to`` is a name without node and nobody has it (``badarg`` in Erlang).
        EncodeError: the message has no form as a term and the receiver is on another node; nothing was sent.
        NotInProcess: called outside of any process.
    """
    process = _current() or current_process()
    if type(to) is Pid:
        runtime = process.runtime
        node = to.node
        if node is runtime.name or node == runtime.name:
            target = runtime.processes.get(to.id | to.serial << 32)
            if target is None or (target.pid is not to and to.creation != runtime.creation):
                return
            if target.bounded:
                gate = target.put(message)
                if gate is not None:
                    process.suspend(gate)
                return
            # Process.put, written out: these are the hottest lines of a node
            mailbox = target.mailbox
            if mailbox is NO_MAILBOX:
                target.mailbox = deque((message,))
            else:
                mailbox.append(message)
            waiter = target.waiter
            if waiter is not None:
                target.waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            return
    process.runtime.route(process, to, message)


async def receive(match: Callable[[Any], Any] | None = None, timeout: float | None = None) -> Any:
    """The next message, or the first one that ``match`` accepts; the others stay in the mailbox, in order.

    >>> message = await receive(timeout=1.0)
    >>> reply = await receive(match=lambda m: isinstance(m, tuple) and m[0] == ref)

    Args:
        match: called with each message, oldest first, until it returns something true.
        timeout: seconds to wait; 0 only looks at what is there; ``None`` waits for ever.

    Raises:
        TimeoutError: no such message came in time.
        ReceiveConflict: another task of this process waits in ``receive`` already.
        NotInProcess: called outside of any process.
        TypeError: ``match`` is no function; most often it is a time that wants to be ``timeout=``.
    """
    process = _current() or current_process()
    mailbox = process.mailbox
    reductions = process.reductions
    if reductions > 0:
        process.reductions = reductions - 1
        if match is None and mailbox:
            return mailbox.popleft()
    elif process.gates or process.status != RUNNING or process.exhausted():
        await _give_way(process)
    if match is not None and not callable(match):
        raise TypeError(f"match must be a function of a message, not {match!r}; seconds go by name: timeout=...")
    process.scanned = 0
    timed_out = timeout is not None and timeout <= 0
    deadline = None
    while True:
        mailbox = process.mailbox
        if match is None:
            if mailbox:
                message = mailbox.popleft()
                break
        elif (position := _scan(process, match)) >= 0:
            message = mailbox[position]
            del mailbox[position]
            break
        if timed_out:
            raise TimeoutError(f"no message within {timeout} s")
        if process.waiter is not None:
            raise ReceiveConflict(f"another task of {process.pid!r} waits in receive() already")
        loop = process.runtime.loop
        process.reductions = process.budget
        process.wakes += 1
        waiter = process.waiter = loop.create_future()
        if timeout is None and match is None:
            try:
                await waiter
            finally:
                process.waiter = None
        else:
            if timeout is not None and deadline is None:
                deadline = loop.time() + timeout
            timed_out = await _wait(process, waiter, deadline, match is not None)
    if process.bounded:
        process.took()
    return message


def _scan(process: Process, match: Callable[[Any], Any]) -> int:
    """The position of the first message that ``match`` accepts, or -1; goes on where the last scan stopped."""
    position = process.scanned
    for message in islice(process.mailbox, position, None):
        if match(message):
            return position
        position += 1
    process.scanned = position
    return -1


async def _wait(process: Process, waiter: asyncio.Future[Any], deadline: float | None, selective: bool) -> bool:
    """Wait for the next message; true when the deadline came first."""
    timer = None
    if deadline is not None:
        timer = process.runtime.loop.call_at(deadline, _expire, waiter)
    if selective:
        process.choosy(1)
    try:
        return await waiter is not None
    finally:
        process.waiter = None
        if selective:
            process.choosy(-1)
        if timer is not None:
            timer.cancel()


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_result(TimeoutError)


async def _give_way(process: Process) -> None:
    """Let the loop turn once, wait for the gates, and don't let a process that exits go on."""
    process.reductions = process.budget
    await _pause()
    if process.gates:
        await process.pass_gates()
    if process.status != RUNNING:
        raise asyncio.CancelledError(process.exit_reason)


@_generator_coroutine
def _pause() -> Generator[None, None, None]:
    yield


# --- links, monitors, exits -------------------------------------------------------------------------------------------


def link(pid: Pid) -> None:
    """Link the current process with ``pid``: when one ends, the other gets an exit signal with its reason.

    >>> link(pid)

    Linking to a process that is dead is a signal too, ``noproc``.
    """
    process = current_process()
    process.runtime.link(process, _pid("link", pid))


def unlink(pid: Pid) -> None:
    """Remove the link; no EXIT of it arrives any more (one that is in the mailbox already stays there).

    >>> unlink(pid)              # from now on it may end without us
    """
    process = current_process()
    process.runtime.unlink(process, _pid("unlink", pid))


def monitor(target: Pid | str | tuple[str, str]) -> Reference:
    """Be told once by ``(DOWN, reference, process, target, reason)`` when ``target`` ends.

    >>> ref = monitor(pid)
    >>> _, ref, _, pid, reason = await receive(match=lambda m: m[:2] == ("DOWN", ref))

    The reason is ``noproc`` when it does not exist, ``noconnection`` when its node can't be reached.

    Args:
        target: a pid, a name of this node, or a ``(name, node)``; for a name, the message has ``(name, node)``.
    """
    process = current_process()
    runtime = process.runtime
    if isinstance(target, str):
        target = (target, runtime.name)
    watched: Pid | tuple[Atom, Atom]
    match target:
        case Pid():
            watched = target
        case (str(name), str(node)):
            watched = (Atom(name), Atom(node))
        case _:
            raise TypeError(f"monitor needs a pid, a name or a (name, node), not {target!r}")
    ref = runtime.reference()
    runtime.monitor(process.pid, process, watched, ref)
    return ref


def demonitor(ref: Reference, flush: bool = False) -> bool:
    """End a monitor; with ``flush`` a DOWN of it that is in the mailbox is removed. False when it had fired.

    >>> demonitor(ref, flush=True)      # no DOWN of it will be received
    """
    process = current_process()
    ended = process.runtime.demonitor(process, ref)
    if flush and not ended:
        for position, message in enumerate(process.mailbox):
            if type(message) is tuple and len(message) == 5 and message[0] == DOWN and message[1] == ref:
                del process.mailbox[position]
                process.scanned = 0
                break
    return ended


@overload
def exit(reason: Any = ..., /) -> NoReturn: ...
@overload
def exit(pid: Pid, reason: Any, /) -> None: ...
def exit(*args: Any) -> None:
    """``exit(reason)`` ends the current process; ``exit(pid, reason)`` sends an exit signal.

    >>> exit("shutdown")
    >>> exit(pid, "kill")        # can't be trapped; the others hear ``killed``

    ``exit(reason)`` raises ``Exit``, which ``except Exception`` can catch, as Erlang's ``catch`` can. A signal with
    a reason other than ``normal`` ends a process that does not trap exits; one that does gets ``(EXIT, sender,
    reason)``.

    Args:
        reason: any term; a plain ``str`` means the atom. Without one: ``normal``.
    """
    if len(args) < 2:
        raise Exit(as_reason(args[0]) if args else NORMAL)
    pid, reason = args
    _pid("exit(pid, reason)", pid)
    reason = as_reason(reason)
    process = current_process()
    runtime = process.runtime
    if pid == process.pid and process.status == RUNNING and process.task is _task_here():
        hard = reason == "kill" and isinstance(reason, Atom)
        if (hard or not process.trap_exit) and process.steps is not None:
            runtime.doom(process, KILLED if hard else reason)
            raise process.steps.unwind_here()
    if pid.node == runtime.name:
        target = runtime.find(pid)
        if target is not None:
            runtime.exit_signal(target, process.pid, reason, linked=False)
    elif runtime.remote is not None:
        runtime.remote.exit(process.pid, pid, reason)


def _pid(what: str, pid: Any) -> Pid:
    if not isinstance(pid, Pid):
        hint = f"; whereis({pid!r}) finds it" if isinstance(pid, str) else ""
        raise TypeError(f"{what} needs a pid, not {pid!r}{hint}")
    return pid


def _task_here() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a callback of the loop, which inherits the context but is no task
        return None


def process_flag(flag: str, value: Any) -> Any:
    """Set a flag of the current process; its old value. The only flag is ``trap_exit`` (bool).

    >>> process_flag("trap_exit", True)
    False
    >>> await receive()                 # when a linked process has ended
    ('EXIT', <pid>, 'shutdown')
    """
    if flag != "trap_exit":
        raise ValueError(f"there is no process flag {flag!r}; trap_exit is the only one")
    process = current_process()
    old, process.trap_exit = process.trap_exit, bool(value)
    return old


# --- names, aliases, the table ----------------------------------------------------------------------------------------


def register(name: str, pid: Pid | None = None) -> None:
    """Give a process of this node (without ``pid`` the current one) a name.

    >>> register("counter", pid)

    Raises:
        NameTaken: the name is in use, or the process has one already.
        NoProc: the process is not alive, or not of this node (``badarg`` in Erlang, as the others).
        TypeError: the arguments are no text and no pid.
    """
    process = current_process()
    process.runtime.register(name, process.pid if pid is None else pid)


def unregister(name: str) -> None:
    """Take a name away.

    Raises:
        NoProc: nobody has it.
    """
    current_process().runtime.unregister(name)


def whereis(name: str | ServerName) -> Pid | None:
    """The process with that name, or None: of this node, or of a registry by ``global_`` or ``via``.

    >>> whereis("counter")
    >>> whereis(via("registry", "counter"))
    """
    runtime = current_process().runtime
    if isinstance(name, ServerName):
        return name.whereis_now(runtime)
    process = runtime.find_name(name)
    return None if process is None else process.pid


def alias(*, reply: bool = False) -> Reference:
    """A reference that works as an address of this process until ``unalias``; with ``reply`` for one message only.

    >>> ref = alias(reply=True)
    >>> send(server, ("lookup", key, ref))                  # the server sends its answer to ref: (ref, answer)
    >>> answer = await receive(match=lambda m: m[0] == ref, timeout=1.0)
    >>> unalias(ref)                                        # what comes too late is dropped
    """
    process = current_process()
    return process.runtime.alias(process, reply=reply)


def unalias(ref: Reference) -> bool:
    """Deactivate an alias of this process: what is sent to it from now on is dropped. False when it was not active."""
    process = current_process()
    return process.runtime.unalias(process, ref)


def is_alive(pid: Pid) -> bool:
    """Whether a process of this node is alive and not about to end.

    Raises:
        ValueError: the pid belongs to another node; monitor it instead.
    """
    runtime = current_process().runtime
    if _pid("is_alive", pid).node != runtime.name:
        raise ValueError(f"{pid!r} is on another node; use monitor() to learn whether it lives")
    process = runtime.find(pid)
    return process is not None and process.status < EXITING


def processes() -> list[Pid]:
    """The pids of all processes of this node."""
    return [process.pid for process in current_process().runtime.processes.values()]


_types.send_hook = send  # Pid.send(message) is this send; terms themselves know no processes

__all__ = [
    "Timer",
    "alias",
    "cancel_timer",
    "demonitor",
    "exit",
    "is_alive",
    "link",
    "monitor",
    "process_flag",
    "processes",
    "receive",
    "register",
    "self_pid",
    "send",
    "send_after",
    "spawn",
    "spawn_link",
    "spawn_monitor",
    "unalias",
    "unlink",
    "unregister",
    "whereis",
]
