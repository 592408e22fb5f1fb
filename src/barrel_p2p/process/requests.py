"""Requests whose answers are awaited later (``gen_server:send_request``).

On the wire they are calls (see ``call.py``). Here the future of a call outlives the function that made it, so what it
holds, an alias and a monitor, is given back when the future is done: by the answer, by the end of the server, or
because nobody can await it any more. In OTP an answer that nobody takes stays in the mailbox; here it never gets there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from functools import partial
from typing import Any, Final

from ..errors import CallTimeout
from ..term.types import Atom, ImproperList, Pid
from .call import ALIAS, GEN_CALL, Down, failure, lost
from .current import caller_in, runtime_of
from .deadlines import EXPIRED
from .names import ServerName
from .process import Process
from .reasons import NOPROC, TIMEOUT
from .runtime import Runtime
from .signals import Monitor

_LOCATION: Final = (Atom("gen_server"), Atom("send_request"))


class Request:
    """A request that was sent: what ``send_request`` gives. ``await request`` waits for the answer.

    Nothing has to be done about one that is not needed any more: with its last reference it is abandoned.
    """

    __slots__ = ("_future", "_location", "_runtime", "_target", "_to")

    def __init__(self, future: asyncio.Future[Any], runtime: Runtime, to: Any, target: Any, location: Any) -> None:
        self._future = future
        self._runtime = runtime
        self._to = to
        self._target = target
        self._location = location

    def __await__(self) -> Generator[Any, Any, Any]:
        return receive_response(self).__await__()

    def done(self) -> bool:
        """Whether awaiting it returns, or raises, without a wait (``gen_server:check_response``)."""
        return self._future.done()

    def abandon(self) -> None:
        """Take no answer any more; one that comes is dropped. Without effect once there is an answer."""
        _abandon(self._future)

    def __del__(self) -> None:
        if not self._future.done() and not self._runtime.loop.is_closed():
            # the collector runs in any thread, and in the middle of anything
            self._runtime.loop.call_soon_threadsafe(_abandon, self._future)

    def __repr__(self) -> str:
        return f"<Request to {self._to!r}{', done' if self.done() else ''}>"


def send_request(to: Any, request: Any, *, node: Any = None) -> Request:
    """Ask a server, and get the answer when it is wanted (``gen_server:send_request``).

    >>> request = send_request(("counter", "other@127.0.0.1"), "inc")
    >>> ...                                     # other work, meanwhile
    >>> n = await request

    A server that is not there is told by the request, not here.

    Args:
        to: a ``Pid``, a name of this node, a ``(name, node)``, or a ``global_`` / ``via`` name.
        node: the ``Node`` to ask from, in code that is no process and was not started by one.

    Raises:
        EncodeError: the request has no form as a term. Nothing was sent.
        TypeError: ``to`` is none of these, or a ``via`` name whose registry has to be awaited.
    """
    runtime = runtime_of(node)
    caller = caller_in(runtime)
    target = _target(to, runtime)
    location = (*_LOCATION, [to.term() if isinstance(to, ServerName) else to, request])
    future: asyncio.Future[Any] = runtime.loop.create_future()
    sent = Request(future, runtime, to, target, location)
    if target is None:
        future.set_result(Down(NOPROC))
        return sent
    pid = runtime.pid if caller is None else caller.pid
    ref = runtime.reference()
    monitor = runtime.monitor(pid, partial(lost, future), target, ref)  # if it fails, there is nothing to give back
    runtime.aliases[ref.ids] = future
    future.add_done_callback(partial(_release, runtime, monitor))
    if not future.done():
        try:
            runtime.route(caller, target, (GEN_CALL, (pid, ImproperList((ALIAS,), ref)), request))
        except BaseException:
            sent.abandon()
            raise
    return sent


async def receive_response(request: Request, timeout: float | None = None) -> Any:
    """Wait for the answer to a request, and abandon it if none came (``gen_server:receive_response``).

    >>> n = await receive_response(request, 1.0)

    ``await request`` is the same without a limit. A request that has its answer may be awaited again.

    Args:
        timeout: seconds; ``None`` waits for ever.

    Raises:
        CallTimeout: no answer in time, or the request was abandoned before. A late one is dropped.
        NoProc, NodeDown, CallError: as ``call`` does.
    """
    try:
        return await wait_response(request, timeout)
    finally:
        request.abandon()


async def wait_response(request: Request, timeout: float | None = None) -> Any:
    """Wait for the answer to a request, which stays as it is if none came (``gen_server:wait_response``).

    >>> n = await wait_response(request, 0.1)

    Args:
        timeout: seconds; ``None`` waits for ever.

    Raises:
        CallTimeout: no answer in time. It can still come: wait again.
        NoProc, NodeDown, CallError: as ``call`` does.
    """
    future = request._future
    if not future.done():
        await wait_for([request], timeout)
    if not future.done():
        raise CallTimeout(TIMEOUT, f"no answer from {request._to!r} within {timeout} s", call=request._location)
    answer = future.result()
    if type(answer) is Down:
        raise failure(answer.reason, request._to, request._target, request._location)
    if answer is EXPIRED:
        raise CallTimeout(TIMEOUT, f"the request to {request._to!r} was abandoned", call=request._location)
    return answer


async def wait_for(requests: list[Request], timeout: float | None) -> None:
    """Wait until all of these, of one node, are done, or the time is over. It changes none of them."""
    if not requests:
        return
    caller = caller_in(requests[0]._runtime)
    if caller is not None and caller.bounded:
        caller.choosy(1)  # it takes nothing from its mailbox meanwhile, and a full one would hold up the answers
    try:
        await asyncio.wait([request._future for request in requests], timeout=timeout)
    finally:
        if caller is not None and caller.bounded:
            caller.choosy(-1)


def answer_of(request: Request) -> tuple[Any] | None:
    """The answer, if there is one by now."""
    answer = request._future.result() if request._future.done() else EXPIRED
    return None if answer is EXPIRED or type(answer) is Down else (answer,)


def _target(to: Any, runtime: Runtime) -> Pid | tuple[Atom, Atom] | None:
    """What can be monitored and sent to; None for a name that nobody has."""
    if isinstance(to, Pid):
        return to
    if isinstance(to, Process):
        return to.pid
    if isinstance(to, ServerName):
        return to.whereis_now(runtime)
    if isinstance(to, str):
        return (Atom(to), runtime.name)
    if isinstance(to, tuple) and len(to) == 2 and isinstance(to[0], str) and isinstance(to[1], str):
        return (Atom(to[1]), runtime.name) if to[0] == "local" else (Atom(to[0]), Atom(to[1]))
    raise TypeError(f"can't ask {to!r}: it is no pid, name or (name, node)")


def _abandon(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(EXPIRED)


def _release(runtime: Runtime, monitor: Monitor, future: asyncio.Future[Any]) -> None:
    """Give back what a request held; nothing here may refer to the ``Request``, or it would never be unreachable."""
    runtime.aliases.pop(monitor.ref.ids, None)
    runtime.end_monitor(monitor)


__all__ = ["Request", "answer_of", "receive_response", "send_request", "wait_for", "wait_response"]
