"""``Supervisor``: starts its children in order, restarts them by its strategy, ends them in reverse.

It follows OTP's ``supervisor``. The process is a server of its own (``_SupervisorServer``); ``Supervisor`` is what
users see and subclass. Its answers are OTP's terms, so that Erlang's ``supervisor:which_children`` works on it.
From Erlang no child can be added, since its start function could not be named there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, ClassVar, Final

from ..errors import CallError, ConfigError, Exit, StartError
from ..shown import Shown, shown
from ..term.types import Atom, Pid
from .api import demonitor, exit, monitor, process_flag, receive, unlink
from .call import GEN_CAST, call, stop
from .child import Child, ChildSpec
from .current import current_process
from .gen_server import GenServer
from .reasons import DOWN, EXIT, KILL, SHUTDOWN, is_orderly
from .sendable import sendable
from .server_loop import IGNORE, Stop, explained, start_server

logger = logging.getLogger("barrel_p2p.process")

STRATEGIES: Final = ("one_for_one", "one_for_all", "rest_for_one")
AUTO_SHUTDOWNS: Final = ("never", "any_significant", "all_significant")
OK: Final = Atom("ok")
ERROR: Final = Atom("error")
TRY_AGAIN: Final = Atom("try_again_restart")


class Supervisor:
    """A process that keeps others alive.

    >>> pid = await Supervisor.start_link([ChildSpec("counter", (Counter, (10,)))], strategy="one_for_one")

    or, with the children named in a class:

    >>> class Shop(Supervisor):
    ...     strategy = "rest_for_one"
    ...     async def init(self, size):
    ...         return [ChildSpec("stock", (Stock, (size,))), ChildSpec("till", Till)]
    >>> pid = await Shop.start_link(100, name="shop")

    ``intensity`` restarts within ``period`` seconds are allowed (OTP's defaults, 1 in 5 s); one more, and the
    supervisor ends its children and itself with reason ``shutdown``. Don't use a supervisor to retry work: it is for
    processes that should always be there.
    """

    strategy: ClassVar[str] = "one_for_one"
    intensity: ClassVar[int] = 1
    period: ClassVar[float] = 5.0
    auto_shutdown: ClassVar[str] = "never"
    is_supervisor: ClassVar[bool] = True  # what a ChildSpec tells a supervisor by

    async def init(self, *args: Any, **options: Any) -> Iterable[ChildSpec] | Any:
        """The children, in the order of their start; or ``IGNORE``.

        By default the list that ``start_link`` was given.
        """
        if options:
            raise TypeError(f"start_link() got an unexpected keyword argument {next(iter(options))!r}")
        return args[0] if args else []

    @classmethod
    async def start_link(
        cls,
        *args: Any,
        name: Any = None,
        strategy: str | None = None,
        intensity: int | None = None,
        period: float | None = None,
        auto_shutdown: str | None = None,
        **options: Any,
    ) -> Pid:
        """Start the supervisor and all its children, linked with the current process.

        Args:
            args, options: for ``init``; the list of children when it is not overridden.
            name: as for ``GenServer.start``.
            strategy: ``one_for_one`` (only the child that ended is restarted), ``one_for_all`` (all), ``rest_for_one``
                (it and those started after it).
            intensity, period: at most so many restarts in so many seconds.
            auto_shutdown: ``never``; ``any_significant`` or ``all_significant``: end with reason ``shutdown`` when one,
                or the last, of the significant children has ended by itself and is not restarted.

        Raises:
            StartError: a child did not start; reason ``(shutdown, (failed_to_start_child, id, reason))``. Those that
                had been started are ended again.
            ConfigError: an option or a child specification makes no sense.
        """
        server = _SupervisorServer(
            cls(),
            cls.strategy if strategy is None else strategy,
            cls.intensity if intensity is None else intensity,
            cls.period if period is None else period,
            cls.auto_shutdown if auto_shutdown is None else auto_shutdown,
        )
        pid, _ = await start_server(server, args, options, name=name, timeout=None, node=None, link=True, monitor=False)
        return pid

    # --- asking a supervisor, by pid or name ------------------------------------------------------------------------

    @staticmethod
    async def start_child(supervisor: Any, spec: ChildSpec) -> Pid:
        """Add a child and start it.

        Raises:
            StartError: it did not start, or its id is taken: ``already_present`` or ``(already_started, pid)``.
        """
        return _started(await call(supervisor, (Atom("start_child"), spec), None))

    @staticmethod
    async def terminate_child(supervisor: Any, id: Any) -> None:
        """End a child; its specification stays (unless it is temporary), and it is not restarted by itself."""
        _done(await call(supervisor, (Atom("terminate_child"), id), None))

    @staticmethod
    async def restart_child(supervisor: Any, id: Any) -> Pid:
        """Start a child again that was ended."""
        return _started(await call(supervisor, (Atom("restart_child"), id), None))

    @staticmethod
    async def delete_child(supervisor: Any, id: Any) -> None:
        """Remove the specification of a child that does not run."""
        _done(await call(supervisor, (Atom("delete_child"), id), None))

    @staticmethod
    async def which_children(supervisor: Any) -> list[tuple[Any, Any, Atom, Any]]:
        """``(id, pid | restarting | undefined, type, modules)`` of each child, the last started first, as in OTP."""
        children: list[tuple[Any, Any, Atom, Any]] = await call(supervisor, Atom("which_children"), None)
        return children

    @staticmethod
    async def count_children(supervisor: Any) -> dict[str, int]:
        """How many ``specs``, ``active`` processes, ``supervisors`` and ``workers`` there are."""
        return {str(key): count for key, count in await call(supervisor, Atom("count_children"), None)}

    stop = staticmethod(stop)


class _SupervisorServer(GenServer):
    """The process behind a ``Supervisor``."""

    def __init__(
        self, supervisor: Supervisor, strategy: str, intensity: int, period: float, auto_shutdown: str
    ) -> None:
        if strategy not in STRATEGIES:
            raise ConfigError(f"strategy must be one of {STRATEGIES}, not {strategy!r}")
        if intensity < 0 or period <= 0:
            raise ConfigError("intensity must not be negative, and period must be positive seconds")
        if auto_shutdown not in AUTO_SHUTDOWNS:
            raise ConfigError(f"auto_shutdown must be one of {AUTO_SHUTDOWNS}, not {auto_shutdown!r}")
        self._supervisor = supervisor
        self._auto_shutdown = auto_shutdown
        self._strategy = strategy
        self._intensity = intensity
        self._period = period
        self._restarts: deque[float] = deque()
        self._children: dict[Any, Child] = {}  # by id, in the order of their start

    @property
    def _title(self) -> str:
        return type(self._supervisor).__name__

    async def init(self, *args: Any, **options: Any) -> Any:
        process_flag("trap_exit", True)
        specs = await self._specs(args, options)
        if specs is None:
            return IGNORE
        for spec in specs:
            if spec.id in self._children:
                raise ConfigError(f"two children have the id {spec.id!r}")
            if spec.significant and self._auto_shutdown == "never":
                raise ConfigError(f"child {spec.id!r} is significant, which means nothing without auto_shutdown")
            self._children[spec.id] = Child(spec)
        try:
            for child in list(self._children.values()):
                await self._start(child)
        except StartError as error:
            await self._end_all()
            failed = (Atom("failed_to_start_child"), child.spec.id, error.reason)
            raise Stop((SHUTDOWN, failed)) from error
        return None

    async def _specs(self, args: tuple[Any, ...], options: dict[str, Any]) -> list[ChildSpec] | None:
        """What the supervisor's ``init`` asks for; None for ``IGNORE``."""
        init = self._supervisor.init
        try:
            given = await init(*args, **options)
        except TypeError as raised:
            error = explained(raised, init, f"{self._title}.init")
            if error is raised:
                raise  # with its cause
            raise error from None
        if given is IGNORE:
            return None
        specs = list(given) if isinstance(given, Iterable) else None
        if specs is None or not all(isinstance(spec, ChildSpec) for spec in specs):
            raise ConfigError(f"{self._title} needs a list of ChildSpec, not {given!r}")
        return specs

    async def _start(self, child: Child) -> Any:
        """Start one child; one that chose to be ignored stays without a process."""
        try:
            child.pid = await child.spec.launch()
        except StartError as error:
            child.pid = None
            if error.reason != "ignore":
                raise
            if child.spec.restart == "temporary":
                self._children.pop(child.spec.id, None)
        child.restarting = False
        runtime = self._loop.process.runtime
        if child.pid is not None and runtime.find(child.pid) is not None:
            runtime.supervisors[child.pid] = self._loop.process

    def _more_status(self) -> list[Any]:
        return [(Atom("supervisor"), [(list(b"Callback"), Atom(self._title))])]  # for supervisor:get_callback_module

    # --- requests ---------------------------------------------------------------------------------------------------

    async def handle_call(self, request: Any, from_: Any) -> Any:
        answer = await self._answer(request)
        return answer if from_[0].node == self._loop.process.runtime.name else sendable(answer)

    async def _answer(self, request: Any) -> Any:
        if request == "which_children":
            return [child.shown() for child in reversed(self._children.values())]
        if request == "count_children":
            return self._count()
        if isinstance(request, tuple) and len(request) == 2:
            what, argument = request
            if what == "start_child":
                return await self._start_child(argument)
            child = self._children.get(argument) if _hashable(argument) else None
            if what in ("terminate_child", "restart_child", "delete_child", "get_childspec") and child is None:
                return (ERROR, Atom("not_found"))
            if child is not None:
                if what == "terminate_child":
                    return await self._terminate_child(child)
                if what == "restart_child":
                    return await self._restart_child(child)
                if what == "delete_child":
                    return self._delete_child(child)
                if what == "get_childspec":
                    return (OK, child.spec.as_map())
        return (ERROR, (Atom("unknown_call"), request))

    def _count(self) -> list[tuple[Atom, int]]:
        children = self._children.values()
        supervisors = sum(child.spec.type == "supervisor" for child in children)
        return [
            (Atom("specs"), len(children)),
            (Atom("active"), sum(child.pid is not None for child in children)),
            (Atom("supervisors"), supervisors),
            (Atom("workers"), len(children) - supervisors),
        ]

    async def _start_child(self, spec: Any) -> Any:
        if not isinstance(spec, ChildSpec):
            return (ERROR, (Atom("invalid_child_spec"), spec))
        if spec.significant and self._auto_shutdown == "never":
            pair = [(Atom("auto_shutdown"), Atom("never")), (Atom("significant"), True)]
            return (ERROR, (Atom("bad_combination"), pair))
        known = self._children.get(spec.id)
        if known is not None:
            return (ERROR, Atom("already_present") if known.pid is None else (Atom("already_started"), known.pid))
        child = self._children[spec.id] = Child(spec)
        try:
            await self._start(child)
        except StartError as error:
            del self._children[spec.id]
            return (ERROR, error.reason)
        return (OK, Atom("undefined") if child.pid is None else child.pid)

    async def _terminate_child(self, child: Child) -> Any:
        await self._end(child)
        child.restarting = False
        if child.spec.restart == "temporary":
            self._children.pop(child.spec.id, None)
        return OK

    async def _restart_child(self, child: Child) -> Any:
        if child.pid is not None:
            return (ERROR, Atom("running"))
        if child.restarting:
            return (ERROR, Atom("restarting"))
        try:
            await self._start(child)
        except StartError as error:
            return (ERROR, error.reason)
        return (OK, Atom("undefined") if child.pid is None else child.pid)

    def _delete_child(self, child: Child) -> Any:
        if child.pid is not None:
            return (ERROR, Atom("running"))
        if child.restarting:
            return (ERROR, Atom("restarting"))
        del self._children[child.spec.id]
        return OK

    # --- ends and restarts ------------------------------------------------------------------------------------------

    async def handle_info(self, message: Any) -> Any:
        if isinstance(message, tuple) and len(message) == 3 and message[0] == EXIT:
            for child in self._children.values():
                if child.pid == message[1]:
                    await self._ended(child, message[2])
                    break
        else:
            logger.error("supervisor %s got an unexpected message: %s", self._loop.process, Shown(message))

    async def handle_cast(self, request: Any) -> Any:
        if isinstance(request, tuple) and len(request) == 2 and request[0] == TRY_AGAIN:
            child = self._children.get(request[1]) if _hashable(request[1]) else None
            if child is not None and child.restarting:
                await self._restart(child)

    async def _ended(self, child: Child, reason: Any) -> None:
        child.pid = None
        if not is_orderly(reason):  # the child itself has logged its crash
            logger.warning("supervisor %s: child %r ended: %s", self._loop.process, child.spec.id, Shown(reason))
        if child.wants_restart(reason):
            await self._restart(child)
            return
        if child.spec.restart == "temporary":
            del self._children[child.spec.id]
        if child.spec.significant and self._is_last(child):
            raise Exit(SHUTDOWN)

    def _is_last(self, child: Child) -> bool:
        """Whether the supervisor has no reason to go on after the end of a significant child."""
        if self._auto_shutdown == "any_significant":
            return True
        others = (other for other in self._children.values() if other is not child and other.spec.significant)
        return not any(other.pid is not None or other.restarting for other in others)

    async def _restart(self, child: Child) -> None:
        self._count_restart()
        children = list(self._children.values())
        if self._strategy == "one_for_one":
            group = [child]
        elif self._strategy == "one_for_all":
            group = children
        else:
            group = children[children.index(child) :]
        for other in reversed(group):
            await self._end(other)
            if other is not child and other.spec.restart == "temporary":
                self._children.pop(other.spec.id, None)
                group.remove(other)
        for other in group:
            try:
                await self._start(other)
            except StartError as error:
                logger.error(
                    "supervisor %s: child %r could not be restarted: %s",
                    self._loop.process,
                    other.spec.id,
                    Shown(error.reason),
                )
                other.restarting = True
                process = self._loop.process
                process.put_signal((GEN_CAST, (TRY_AGAIN, other.spec.id)))
                return

    def _count_restart(self) -> None:
        """Too many restarts in too short a time end the supervisor: its own supervisor may know better."""
        now = asyncio.get_running_loop().time()
        self._restarts.append(now)
        while self._restarts[0] < now - self._period:
            self._restarts.popleft()
        if len(self._restarts) > self._intensity:
            logger.error(
                "supervisor %s gives up: more than %d restarts in %g s",
                self._loop.process,
                self._intensity,
                self._period,
            )
            raise Exit(SHUTDOWN)

    async def terminate(self, reason: Any) -> Any:
        await self._end_all()

    async def _end_all(self) -> None:
        for child in reversed(list(self._children.values())):
            await self._end(child)

    async def _end(self, child: Child) -> None:
        """End the process of a child as its ``shutdown`` says, and wait until it is gone."""
        pid, child.pid = child.pid, None
        if pid is None:
            return
        ref = monitor(pid)
        unlink(pid)
        shutdown = child.spec.shutdown
        exit(pid, KILL if shutdown == "brutal_kill" else SHUTDOWN)
        try:
            down = await _down(ref, shutdown if isinstance(shutdown, (int, float)) else None)
        except TimeoutError:
            exit(pid, KILL)
            down = await _down(ref, None)
        finally:
            demonitor(ref, flush=True)
            self._drop_exit(pid)
        expected = ("killed",) if shutdown == "brutal_kill" else ("shutdown", "normal", "noproc")
        if not is_orderly(down[4]) and down[4] not in expected:
            logger.error(
                "supervisor %s: child %r ended by %s when it was to shut down",
                self._loop.process,
                child.spec.id,
                Shown(down[4]),
            )

    @staticmethod
    def _drop_exit(pid: Pid) -> None:
        """An EXIT that came before the unlink is not news any more."""
        mailbox = current_process().mailbox
        for position, message in enumerate(mailbox):
            if isinstance(message, tuple) and len(message) == 3 and message[0] == EXIT and message[1] == pid:
                del mailbox[position]
                break


async def _down(ref: Any, timeout: float | None) -> Any:
    return await receive(
        match=lambda message: isinstance(message, tuple) and len(message) == 5 and message[:2] == (DOWN, ref),
        timeout=timeout,
    )


def _started(answer: Any) -> Pid:
    if answer[0] == OK:
        pid: Pid = answer[1]
        return pid
    raise StartError(answer[1], f"the child was not started: {shown(answer[1])}")


def _done(answer: Any) -> None:
    if answer != OK:
        raise CallError(answer[1], f"the supervisor refused: {shown(answer[1])}")


def _hashable(term: Any) -> bool:
    try:
        hash(term)
    except TypeError:
        return False
    return True


__all__ = ["Supervisor"]
