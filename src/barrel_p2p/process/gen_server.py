"""``GenServer``: a process that answers calls, one at a time, as Erlang's ``gen_server`` does."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from ..shown import Shown, shown
from ..term.types import Atom, Pid, Reference
from . import call as _call
from . import multi_call as _multi_call
from . import requests as _requests
from .server_loop import IGNORE, NOREPLY, Reply, ServerLoop, Stop, start_server

logger = logging.getLogger("barrel_p2p.process")


class GenServer:
    """Base class of servers: the state is ``self``, a message at a time.

    >>> class Counter(GenServer):
    ...     async def init(self, start=0):
    ...         self.n = start
    ...     async def handle_call(self, request, from_):
    ...         self.n += 1
    ...         return self.n
    >>> pid = await Counter.start_link(10, name="counter")
    >>> await call("counter", "inc")
    11

    Callbacks are awaited, and the next message is taken when the callback is done. A callback that raises ends the
    server: the exception is its exit reason, the caller in question gets it as ``CallError``. Every callback may
    also return or raise ``Stop(reason)``.

    Don't use a server for a plain value that only one process needs, and don't wait in ``handle_call`` for something
    slow: return ``NOREPLY`` and answer later by ``GenServer.reply``.
    """

    #: Bound of the mailbox in messages (``None``: no bound), and what happens at the bound: see ``spawn``.
    max_mailbox: ClassVar[int | None] = None
    when_full: ClassVar[str] = "wait"

    _loop: ServerLoop

    # --- callbacks --------------------------------------------------------------------------------------------------

    async def init(self, *args: Any, **options: Any) -> Any:
        """Set up; ``start`` waits for it and was given the arguments.

        Returns:
            ``None``; ``IGNORE`` or ``Stop(reason)`` when the server shall not start, which ``start`` tells its
            caller by ``StartError`` with reason ``ignore`` or ``reason``.
        """
        return None

    async def handle_call(self, request: Any, from_: Any) -> Any:
        """Answer a ``call``.

        Returns:
            any value: the reply. ``NOREPLY``: the reply comes later by ``GenServer.reply(from_, value)``, from here or
            any other process. ``Stop(reason, reply)``: reply, then stop. ``Stop(reason)``: stop; the caller gets
            ``CallError``. ``Reply(value)``: a reply that is itself one of these markers.
        """
        raise RuntimeError(f"{self._title} has no handle_call, but was called with {shown(request)}")

    async def handle_cast(self, request: Any) -> Any:
        """Handle a ``cast``. Returns ``None`` (or ``NOREPLY``), or ``Stop(reason)``."""
        raise RuntimeError(f"{self._title} has no handle_cast, but was cast {shown(request)}")

    async def handle_info(self, message: Any) -> Any:
        """Handle any other message: ``DOWN``, trapped ``EXIT``, ``Atom("timeout")``, ... Returns as ``handle_cast``."""
        logger.error("%s %s got an unexpected message: %s", self._title, self._loop.process, Shown(message))

    async def handle_continue(self, argument: Any) -> Any:
        """What ``continue_(argument)`` asked for, before any further message. Returns as ``handle_cast``."""
        raise RuntimeError(f"{self._title} has no handle_continue, but continues with {shown(argument)}")

    async def terminate(self, reason: Any) -> Any:
        """Clean up before the end; what it returns means nothing.

        Called after ``Stop``, after a crash of a callback, and, if the process traps exits, when its parent ends. Not
        called when an exit signal or ``kill`` ends the process: use ``finally`` or a linked process for what must
        happen even then.
        """

    @property
    def _title(self) -> str:
        """What the server is called in errors and logs."""
        return type(self).__name__

    def get_state(self) -> Any:
        """What ``sys:get_state`` shows: the public attributes."""
        return {Atom(name): value for name, value in vars(self).items() if not name.startswith("_")}

    def set_state(self, state: Any) -> None:
        """What ``sys:replace_state`` sets: by default attributes, from a dict."""
        for name, value in state.items():
            setattr(self, name, value)

    def _more_status(self) -> list[Any]:
        """What ``sys:get_status`` shows besides."""
        return []

    # --- for callbacks ----------------------------------------------------------------------------------------------

    def continue_(self, argument: Any) -> None:
        """After this callback, and before any message, run ``handle_continue(argument)``."""
        self._loop.continues.append(argument)

    def set_timeout(self, seconds: float | None) -> None:
        """If no message comes within ``seconds``, run ``handle_info(Atom("timeout"))``; any message ends the wait.

        A question of ``sys`` does not: the wait begins anew after it, as in OTP.

        It counts from the end of this callback, once; ``None`` takes it back.
        """
        self._loop.timeout = seconds

    # --- starting ---------------------------------------------------------------------------------------------------

    @classmethod
    async def start(
        cls, *args: Any, name: Any = None, timeout: float | None = None, node: Any = None, **options: Any
    ) -> Pid:
        """Start a server that is linked to nobody, and wait until its ``init`` is done.

        Args:
            args, options: for ``init``.
            name: a ``str`` or ``("local", str)`` for this node, ``global_(name)`` or ``via(registry, name)``.
            timeout: seconds for ``init`` (``None``: no limit, as in OTP).
            node: the ``Node`` to start on, in code that is no process.

        Raises:
            StartError: ``init`` failed, with its reason; or ``(already_started, pid)``. The process is gone.
        """
        pid, _ = await start_server(
            cls(), args, options, name=name, timeout=timeout, node=node, link=False, monitor=False
        )
        return pid

    @classmethod
    async def start_link(cls, *args: Any, name: Any = None, timeout: float | None = None, **options: Any) -> Pid:
        """``start``, linked with the current process, which becomes its parent.

        An ``init`` that fails is told by ``StartError`` alone: the link is gone by then.
        """
        pid, _ = await start_server(
            cls(), args, options, name=name, timeout=timeout, node=None, link=True, monitor=False
        )
        return pid

    @classmethod
    async def start_monitor(
        cls,
        *args: Any,
        name: Any = None,
        timeout: float | None = None,
        **options: Any,
    ) -> tuple[Pid, Reference]:
        """``start``, monitored by the current process: the pid and the reference of the monitor."""
        return await start_server(cls(), args, options, name=name, timeout=timeout, node=None, link=False, monitor=True)

    # --- talking to one: the same functions as the package's own ----------------------------------------------------

    call = staticmethod(_call.call)
    cast = staticmethod(_call.cast)
    reply = staticmethod(_call.reply)
    stop = staticmethod(_call.stop)
    multi_call = staticmethod(_multi_call.multi_call)
    abcast = staticmethod(_multi_call.abcast)
    send_request = staticmethod(_requests.send_request)
    receive_response = staticmethod(_requests.receive_response)
    wait_response = staticmethod(_requests.wait_response)


__all__ = ["IGNORE", "NOREPLY", "GenServer", "Reply", "Stop"]
