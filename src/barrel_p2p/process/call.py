"""Calling a server: the ``$gen_call`` protocol, spoken with Python and Erlang servers alike.

A call is ``{'$gen_call', {Pid, [alias|Ref]}, Request}``, its answer ``{[alias|Ref], Reply}`` sent to the alias.
``Ref`` is an alias of this runtime that leads to a future and to no mailbox, and at the same time the reference of a
monitor on the server. Both are gone when the call ends, however it ends: a late reply finds no alias and is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from ..errors import CallError, CallTimeout, ExitReason, NodeDown, NoProc
from ..shown import shown
from ..term.types import Atom, ImproperList, Pid, Reference
from .current import caller_in, current, runtime_of
from .deadlines import EXPIRED
from .names import ServerName
from .process import Process
from .reasons import NOCONNECTION, NOPROC, TIMEOUT, as_reason
from .runtime import Runtime

GEN_CALL: Final = Atom("$gen_call")
GEN_CAST: Final = Atom("$gen_cast")
SYSTEM: Final = Atom("system")
ALIAS: Final = Atom("alias")
INFINITY: Final = Atom("infinity")
_LOCATION: Final = (Atom("gen_server"), Atom("call"))


class Down:
    """What the future of a call gets when the monitor fires instead of a reply."""

    __slots__ = ("reason",)

    def __init__(self, reason: Any) -> None:
        self.reason = reason


def call(to: Any, request: Any, timeout: float | None = 5.0, *, node: Any = None) -> Coroutine[Any, Any, Any]:
    """Ask a server and wait for its answer (``gen_server:call``).

    >>> n = await call(counter, "inc")
    >>> n = await call(("counter", "other@127.0.0.1"), "inc", timeout=1.0)

    Args:
        to: a ``Pid``, a name of this node, a ``(name, node)``, or a ``global_`` / ``via`` name.
        timeout: seconds (5.0 as in OTP); ``None`` waits for ever.
        node: the ``Node`` to call from, in code that is no process and was not started by one.

    Raises:
        NoProc: nobody is there.
        CallTimeout: no answer in time. A late one is dropped.
        NodeDown: the server's node can't be reached, or was lost during the call.
        CallError: the server ended without an answer; ``reason`` is its exit reason.
    """
    return gen_call(GEN_CALL, to, request, timeout, runtime_of(node))  # no coroutine around it: there may be thousands


async def gen_call(kind: Atom, to: Any, request: Any, timeout: float | None, runtime: Runtime) -> Any:
    """A call with any label: ``$gen_call``, or ``system`` for the requests of OTP's ``sys``."""
    caller = caller_in(runtime)
    if caller is not None and caller.gates:
        await caller.pass_gates()
    location = (*_LOCATION, [to.term() if isinstance(to, ServerName) else to, request, _millis(timeout)])
    target = await _address(to, runtime, location)
    if caller is not None and target == caller.pid and asyncio.current_task() is caller.task:
        raise CallError(Atom("calling_self"), "a process can't call itself: it would wait for ever", call=location)
    pid = runtime.pid if caller is None else caller.pid
    future: asyncio.Future[Any] = runtime.loop.create_future()

    ref = runtime.reference()
    runtime.aliases[ref.ids] = future
    monitor = None
    limit = None
    if caller is not None and caller.bounded:
        caller.choosy(1)  # it takes nothing from its mailbox until the answer is here
    try:
        monitor = runtime.monitor(pid, partial(lost, future), target, ref)
        if not future.done():
            if timeout is not None:
                limit = runtime.deadlines.add(future, timeout)
            runtime.route(caller, target, (kind, (pid, ImproperList((ALIAS,), ref)), request))
        answer = await future
    finally:
        runtime.aliases.pop(ref.ids, None)
        if monitor is not None:
            runtime.end_monitor(monitor)
        if limit is not None:
            runtime.deadlines.remove(future, limit)
        if caller is not None and caller.bounded:
            caller.choosy(-1)
    if type(answer) is Down:
        raise failure(answer.reason, to, target, location)
    if answer is EXPIRED:
        raise CallTimeout(TIMEOUT, f"no answer from {to!r} within {timeout} s", call=location)
    return answer


def cast(to: Any, request: Any, *, node: Any = None) -> None:
    """Send a request that has no answer (``gen_server:cast``); a server that is not there is no error."""
    runtime = runtime_of(node)
    with suppress(NoProc):  # as silent for a name as for a dead pid
        runtime.route(caller_in(runtime), to, (GEN_CAST, request))


def reply(from_: Any, value: Any) -> None:
    """Answer a call later: ``from_`` is what ``handle_call`` was given.

    Works from any process or task; an answer to a caller that gave up is dropped.
    """
    process = current.get()
    runtime = runtime_of(None) if process is None else process.runtime
    to, tag = from_
    runtime.route(process, reply_address(to, tag), (tag, value))


def reply_address(to: Any, tag: Any) -> Any:
    """Where the reply goes: OTP's callers ask for it at an alias, ``[alias|Ref]`` or ``[[alias|Ref]|...]``."""
    head = tag
    if isinstance(tag, list) and tag and isinstance(tag[0], ImproperList):
        head = tag[0]
    elif isinstance(tag, ImproperList) and isinstance(tag.elements[0], ImproperList):
        head = tag.elements[0]
    if isinstance(head, ImproperList) and head.elements == (ALIAS,) and isinstance(head.tail, Reference):
        return head.tail
    return to


async def stop(to: Any, reason: Any = "normal", timeout: float | None = None, *, node: Any = None) -> None:
    """End a server, Python's or OTP's, and wait until it has ended (``gen_server:stop``).

    Args:
        reason: what the server shall end with; a plain ``str`` means the atom.
        timeout: seconds; ``None`` waits for ever.

    Raises:
        NoProc: nobody is there.
        CallTimeout: it did not end in time.
        CallError: it ended with another reason, told by ``reason``.
    """
    runtime = runtime_of(node)
    reason = as_reason(reason)
    location = (Atom("gen_server"), Atom("stop"), [to.term() if isinstance(to, ServerName) else to, reason])
    target = await _address(to, runtime, location)
    caller = caller_in(runtime)
    pid = runtime.pid if caller is None else caller.pid
    ended: asyncio.Future[Any] = runtime.loop.create_future()

    def down(why: Any) -> None:
        if not ended.done():
            ended.set_result(why)

    monitor = runtime.monitor(pid, down, target, runtime.reference())
    try:
        if not ended.done():
            tag = ImproperList((ALIAS,), runtime.reference())  # nobody waits for the ok: the end is the answer
            runtime.route(None, target, (SYSTEM, (pid, tag), (Atom("terminate"), reason)))
        async with asyncio.timeout(timeout):
            why = await ended
    except TimeoutError:
        raise CallTimeout(TIMEOUT, f"{to!r} did not stop within {timeout} s", call=location) from None
    finally:
        runtime.end_monitor(monitor)
    if why != reason:
        raise failure(why, to, target, location)


async def _address(to: Any, runtime: Runtime, location: Any) -> Pid | tuple[Atom, Atom]:
    """A pid or ``(name, node)`` that can be monitored and sent to."""
    if isinstance(to, Pid):
        return to
    if isinstance(to, ServerName):
        pid = await to.whereis(runtime)
        if pid is None:
            raise NoProc(NOPROC, f"nobody is registered as {to!r}", call=location)
        return pid
    if isinstance(to, str):
        process = runtime.find_name(to)
        if process is None:
            raise NoProc(NOPROC, f"nobody is registered as {to!r}", call=location)
        return process.pid
    if isinstance(to, tuple) and len(to) == 2 and isinstance(to[0], str) and isinstance(to[1], str):
        if to[0] == "local":
            return await _address(to[1], runtime, location)
        if to[1] == runtime.name:
            return await _address(to[0], runtime, location)
        return (Atom(to[0]), Atom(to[1]))
    if isinstance(to, Process):
        return to.pid
    raise TypeError(f"can't call {to!r}: it is no pid, name or (name, node)")


def failure(reason: Any, to: Any, target: Any, location: Any) -> ExitReason:
    """What a call raises whose server ended with ``reason``."""
    if type(reason) is Atom:
        if reason == NOPROC:
            return NoProc(NOPROC, f"{to!r} does not exist", call=location)
        if reason == NOCONNECTION:
            node = target.node if isinstance(target, Pid) else target[1]
            down = (Atom("nodedown"), node)
            text = (
                f"{node} is not reachable, or was lost during the call; `await node.connect({str(node)!r})` tells why"
            )
            return NodeDown(down, text, call=location)
    return CallError(reason, f"{to!r} ended before it answered: {shown(reason)}", call=location)


def lost(future: asyncio.Future[Any], reason: Any) -> None:
    """The monitor fired instead of a reply."""
    if not future.done():
        future.set_result(Down(reason))


def _millis(timeout: float | None) -> Any:
    if timeout is None:
        return INFINITY
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be seconds or None, not {timeout!r}")
    return round(timeout * 1000)


__all__ = ["GEN_CALL", "Down", "call", "cast", "failure", "gen_call", "lost", "reply", "stop"]
