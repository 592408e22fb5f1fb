"""The life of a server: start, the loop over its mailbox, its end. After OTP's ``gen_server.erl``."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final

from ..errors import EncodeError, Exit, NameTaken, StartError
from ..shown import Shown, shown
from ..term.types import Atom, Pid
from .api import demonitor, receive
from .call import GEN_CALL, GEN_CAST, SYSTEM, reply
from .current import current, current_process, runtime_of
from .names import ServerName
from .process import RUNNING, Process
from .reasons import EXIT, KILL, NORMAL, TIMEOUT, as_reason, is_orderly, reason_of, users_trace
from .runtime import Runtime
from .signals import KernelExit
from .system import handle_system
from .traced import Traced

if TYPE_CHECKING:
    from .gen_server import GenServer

logger = logging.getLogger("barrel_p2p.process")

ALREADY_STARTED: Final = Atom("already_started")


class Marker:
    """A value that only ever stands for itself."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: Returned by ``handle_call``: the reply comes later, by ``GenServer.reply``.
NOREPLY: Final = Marker("NOREPLY")
#: Returned by ``init``: don't start after all; ``start`` raises ``StartError`` with reason ``ignore``.
IGNORE: Final = Marker("IGNORE")


class Reply:
    """Returned by ``handle_call``: reply with ``value``, whatever it is (even ``NOREPLY`` or a ``Stop``)."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value: Final = value


class Stop(Exception):
    """Returned or raised by any callback: stop with ``reason``, after replying with ``reply`` if it is given."""

    def __init__(self, reason: Any = NORMAL, reply: Any = NOREPLY) -> None:
        super().__init__(reason)
        self.reason: Final = as_reason(reason)
        self.reply: Final = reply


class _Failed:
    """How a start ended that failed."""

    __slots__ = ("error", "reason")

    def __init__(self, reason: Any, error: BaseException | None = None) -> None:
        self.reason = reason
        self.error = error


class ServerLoop:
    """Runs one server object as a process."""

    __slots__ = ("continues", "name", "parent", "process", "server", "started", "suspended", "timeout", "waiting")

    def __init__(self, server: GenServer, name: ServerName | None, parent: Process | None) -> None:
        self.server = server
        self.name = name
        self.parent = parent
        self.process: Process
        self.started: asyncio.Future[_Failed | None]
        self.continues: deque[Any] = deque()
        self.timeout: float | None = None
        self.waiting: float | None = None  # the timeout that the last wait began with
        self.suspended = False

    async def run(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.process = current_process()
        try:
            await self._init(args, options)
            try:
                await self._loop()
            except Stop as stop:
                await self._terminate(stop.reason)
        finally:
            if self.name is not None:
                await self._unregister(self.name)

    # --- start and end ----------------------------------------------------------------------------------------------

    async def _init(self, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        error: Exception | None = None
        try:
            if self.name is not None and not await self.name.register(self.process.runtime, self.process.pid):
                name, self.name = self.name, None
                raise Stop((ALREADY_STARTED, await name.whereis(self.process.runtime)))
            result = await self.server.init(*args, **options)
            if isinstance(result, Stop):
                raise result
            if result is not IGNORE:
                self._check("init", result)
                self._tell_start(None)
                return
            reason: Any = Atom("ignore")
        except Stop as stop:
            reason = stop.reason
            error = stop.__cause__ if isinstance(stop.__cause__, Exception) else None
        except Exception as raised:
            error = explained(raised, self.server.init, f"{self.server._title}.init")
            reason = reason_of(error)
        if self.parent is not None:
            self.process.runtime.unlink(self.process, self.parent.pid)  # the failure is told once, by start
        self._tell_start(_Failed(reason, error))
        raise Exit(NORMAL if reason == "ignore" else reason)

    def _tell_start(self, outcome: _Failed | None) -> None:
        if not self.started.done():
            self.started.set_result(outcome)

    async def _terminate(self, reason: Any) -> None:
        try:
            await self.server.terminate(reason)
        except Stop as stop:
            reason = stop.reason
        except Exit as exit_:
            reason = exit_.reason
        except Exception as error:
            self._log("terminate", reason, error)
            reason = reason_of(error)
        raise Exit(reason)

    async def _unregister(self, name: ServerName) -> None:
        try:
            if not name.forgets_the_dead(self.process.runtime):
                await name.unregister(self.process.runtime)
        except Exception as error:
            logger.error("server %s: its name %r was not unregistered", self.process.pid, name, exc_info=error)

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _loop(self) -> None:
        server = self.server
        while True:
            if self.continues and not self.suspended:
                await self._run("handle_continue", server.handle_continue, self.continues.popleft())
                continue
            message = await self._next()
            kind = message[0] if type(message) is tuple and message else None
            if type(kind) is not Atom:
                if type(message) is Traced:
                    await self._traced(message)
                elif type(message) is KernelExit and self._is_parents(message):
                    raise Stop(message[2])
                else:
                    await self._run("handle_info", server.handle_info, message)
            elif kind == GEN_CALL and len(message) == 3 and _is_from(message[1]):
                await self._call(message[2], message[1])
            elif kind == GEN_CAST and len(message) == 2:
                await self._run("handle_cast", server.handle_cast, message[1])
            elif kind == SYSTEM and len(message) == 3 and _is_from(message[1]):
                self.timeout = self.waiting  # who looks at a server must not change what it does next
                handle_system(self, message[1], message[2])
            elif kind == EXIT and len(message) == 3 and self._is_parents(message):
                raise Stop(message[2])
            else:
                await self._run("handle_info", server.handle_info, message)

    async def _traced(self, message: Traced) -> None:
        """A call or cast in the trace context of its sender."""
        with message.within():
            if message[0] == GEN_CALL and len(message) == 3 and _is_from(message[1]):
                await self._call(message[2], message[1])
            elif message[0] == GEN_CAST and len(message) == 2:
                await self._run("handle_cast", self.server.handle_cast, message[1])
            else:
                await self._run("handle_info", self.server.handle_info, tuple(message))

    async def _next(self) -> Any:
        if self.suspended:
            return await receive(match=self._passes_suspension)
        timeout, self.timeout = self.timeout, None
        self.waiting = timeout
        if timeout is None:
            return await receive()
        try:
            return await receive(timeout=timeout)
        except TimeoutError:
            return TIMEOUT

    def _passes_suspension(self, message: Any) -> bool:
        if type(message) is not tuple or len(message) != 3 or type(message[0]) is not Atom:
            return False
        return bool(message[0] == SYSTEM or (message[0] == EXIT and self._is_parents(message)))

    def _is_parents(self, message: tuple[Any, ...]) -> bool:
        """Whether an EXIT is an order to end: from the node, or from the process that started us."""
        if self.process.runtime.orders_end(self.process, message):
            return True
        return self.parent is not None and bool(message[1] == self.parent.pid)

    async def _call(self, request: Any, from_: Any) -> None:
        result = await self._callback("handle_call", self.server.handle_call, request, from_)
        if result is NOREPLY:
            return
        if type(result) is Stop:
            if result.reply is not NOREPLY:
                self._reply(request, from_, result.reply)
            self._log_stop("handle_call", request, result)
            raise result
        self._reply(request, from_, result.value if type(result) is Reply else result)

    def _reply(self, request: Any, from_: Any, value: Any) -> None:
        try:
            reply(from_, value)
        except EncodeError as error:  # a fault of the callback that made the value
            self._log("handle_call", request, error)
            raise Stop(reason_of(error)) from None

    async def _run(self, callback: str, function: Any, argument: Any) -> None:
        result = await self._callback(callback, function, argument)
        if type(result) is Stop:
            self._log_stop(callback, argument, result)
        self._check(callback, result)

    def _log_stop(self, callback: str, about: Any, stop: Stop) -> None:
        """As OTP, for who reads the log: links tell the reason, but not where it came from."""
        if not is_orderly(stop.reason):
            logger.error(
                "%s %s stops in %s(%s): %s",
                self.server._title,
                self.process,
                callback,
                Shown(about),
                Shown(stop.reason),
            )

    def _check(self, callback: str, result: Any) -> None:
        if result is None or result is NOREPLY:
            return
        if type(result) is Stop:
            raise result
        logger.error(
            "server %s: %s returned %s, only None or Stop mean anything", self.process, callback, Shown(result)
        )
        raise Stop((Atom("bad_return_value"), result))

    async def _callback(self, callback: str, function: Any, *arguments: Any) -> Any:
        """Call a callback; what it raises becomes the ``Stop`` with the matching reason, logged when it is a fault."""
        try:
            return await function(*arguments)
        except Stop as stop:
            return stop
        except Exit as exit_:
            if not is_orderly(exit_.reason):
                self._log(callback, arguments[0], exit_)
            raise Stop(exit_.reason) from None
        except Exception as raised:
            error = explained(raised, function, f"{self.server._title}.{callback}")
            self._log(callback, arguments[0], error)
            raise Stop(reason_of(error)) from None

    def _log(self, callback: str, about: Any, error: BaseException) -> None:
        logger.error(
            "%s %s crashed in %s(%s): %r",
            self.server._title,
            self.process,
            callback,
            Shown(about),
            error,
            exc_info=users_trace(error),
        )


def explained(error: Exception, function: Any, name: str) -> Exception:
    """The error of an awaited callback; where it is a plain ``def``, one that says so: ``await`` names what it gave."""
    trace = error.__traceback__
    raised_here = trace is not None and trace.tb_next is None
    if type(error) is TypeError and raised_here and "await" in str(error) and not iscoroutinefunction(function):
        return TypeError(f"{name} must be an async def")
    return error


def _is_from(term: Any) -> bool:
    return type(term) is tuple and len(term) == 2 and type(term[0]) is Pid


# --- starting one -----------------------------------------------------------------------------------------------------


async def start_server(
    server: GenServer,
    args: tuple[Any, ...],
    options: dict[str, Any],
    *,
    name: Any,
    timeout: float | None,
    node: Any,
    link: bool,
    monitor: bool,
) -> tuple[Pid, Any]:
    """Start ``server`` as a process and wait until its ``init`` is done; its pid and, with ``monitor``, a reference."""
    runtime = runtime_of(node)
    caller = current_process() if link or monitor else current.get()
    parent = caller if link else None
    ref = runtime.reference() if monitor else None
    local, far = _split_name(name)
    loop = ServerLoop(server, far, parent)
    server._loop = loop
    loop.started = runtime.loop.create_future()
    try:
        process = runtime.spawn(
            loop.run,
            (args, options),
            link_to=parent,
            monitor_by=(caller, ref) if caller is not None and ref is not None else None,
            name=local,
            max_mailbox=server.max_mailbox,
            when_full=server.when_full,
        )
    except NameTaken as error:
        raise _name_taken(runtime, local, error) from None
    process.label = server._title
    pid = process.pid
    watch = runtime.monitor(runtime.pid, lambda reason: loop._tell_start(_Failed(reason)), pid, runtime.reference())
    try:
        async with asyncio.timeout(timeout):
            outcome = await loop.started
    except BaseException as error:
        if process.status == RUNNING:
            if parent is not None:
                runtime.unlink(process, parent.pid)
            runtime.exit_signal(process, pid, KILL, linked=False)
        if ref is not None:
            demonitor(ref)
        if isinstance(error, TimeoutError):
            raise StartError(TIMEOUT, f"{server._title}.init was not done within {timeout} s") from None
        raise
    finally:
        runtime.end_monitor(watch)
    if outcome is None:
        return pid, ref
    if ref is not None:
        demonitor(ref, flush=True)
    why = outcome.reason if outcome.error is None else outcome.error
    raise StartError(outcome.reason, f"{server._title} did not start: {shown(why)}") from outcome.error


def _split_name(name: Any) -> tuple[str | None, ServerName | None]:
    if name is None or isinstance(name, str):
        return name, None
    if isinstance(name, ServerName):
        return None, name
    if isinstance(name, tuple) and len(name) == 2 and name[0] == "local" and isinstance(name[1], str):
        return name[1], None
    raise TypeError(f"{name!r} is no name for a server: use a str, ('local', str), global_(...) or via(...)")


def _name_taken(runtime: Runtime, name: str | None, error: NameTaken) -> StartError:
    holder = runtime.find_name(name) if name is not None else None
    reason = (ALREADY_STARTED, holder.pid) if holder is not None else Atom("badarg")
    return StartError(reason, str(error))


__all__ = ["IGNORE", "NOREPLY", "Reply", "ServerLoop", "Stop", "start_server"]
