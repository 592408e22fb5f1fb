"""How a process is run: ``Steps`` stands between the asyncio task and the user's coroutine.

The task calls ``send`` for every step. Nearly always that is one attribute test and the user's own ``send``.
Otherwise the process wants attention:

- suspended: a gate holds it, so the step waits for the gate first, whatever the coroutine itself waited for;
- exiting: an exit signal fixed its reason. The task is cancelled, which also cancels what the coroutine waits for,
  and the coroutine gets one ``CancelledError``. Its ``finally`` blocks and context managers run and may await, for
  ``exit_grace`` seconds. Whether the coroutine is still unwinding is seen by a weak reference to the exception that was
  thrown: code that unwinds keeps it alive, code that swallowed it does not. A coroutine that swallowed it, one past its
  grace and one that was killed get the error again at every await point, and after ``TRIES`` of them are abandoned.

The steps are an object and no wrapping coroutine for three reasons: less memory, one frame less per step, and an exit
before the first step still comes through here (a coroutine that has not started would skip its own ``try``).
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..errors import Exit
from .process import DEAD, EXITING, RUNNING
from .reasons import KILLED, NORMAL, reason_of, users_trace

if TYPE_CHECKING:
    from ..term.types import Pid
    from .process import Process

logger = logging.getLogger("barrel_p2p.process")

#: How often a coroutine may swallow its exit before it is given up; a guess.
TRIES: Final = 10
#: Seconds for a killed process to come to its next await point before it counts as dead anyhow; a guess.
HARD_GRACE: Final = 1.0


class Unusual:
    """What most processes never need: made when one is suspended with an error under way, or exits by a signal."""

    __slots__ = ("grace", "hard", "pending", "thrown")

    def __init__(self) -> None:
        self.pending: BaseException | None = None  # to be thrown into the coroutine once no gate holds it
        self.thrown: weakref.ref[BaseException] | None = None
        self.hard = False
        self.grace: asyncio.TimerHandle | None = None

    def swallowed(self) -> bool:
        """Whether the coroutine no longer unwinds by the exit error it was given (or was given none yet)."""
        return self.thrown is None or self.thrown() is None


class Steps:
    """Drives the coroutine of one process; looks like a coroutine to the task."""

    __slots__ = ("coro", "process", "unusual")

    #: Coroutines that swallow even GeneratorExit: kept, because Python reports each of them when it is collected.
    stubborn: ClassVar[list[Any]] = []

    def __init__(self, process: Process, coro: Coroutine[Any, Any, Any]) -> None:
        self.process: Final = process
        self.coro: Final = coro
        self.unusual: Unusual | None = None

    # --- what the task calls ----------------------------------------------------------------------------------------

    def send(self, value: None) -> Any:
        if self.process.attention:
            return self._attend(None)
        try:
            return self.coro.send(None)
        except StopIteration:
            process = self.process
            if process.status == RUNNING:
                process.runtime.finish(process, NORMAL)
            else:  # a signal reached it in this very step
                self._finish(process.exit_reason)
            raise
        except BaseException as error:
            self._ended(error)
        raise StopIteration

    def throw(self, error: BaseException, *_: Any) -> Any:
        if self.process.attention:
            return self._attend(error)
        try:
            return self.coro.throw(error)
        except BaseException as raised:
            self._ended(raised)
        raise StopIteration

    def close(self) -> None:
        """The loop closes with the process still in it."""
        self.coro.close()

    def __await__(self) -> Any:
        raise TypeError("the steps of a process are driven by its task")

    def __getattr__(self, name: str) -> Any:
        # asyncio's repr and stack printing, and debuggers, look at the frame and the name of a task's coroutine
        return getattr(self.coro, name)

    # --- exit signals -----------------------------------------------------------------------------------------------

    def unwind(self, *, hard: bool, sender: Pid | None = None) -> None:
        """The process got its exit reason from outside: interrupt it. Who sent it matters to a ``Block`` alone."""
        task = self.process.task
        if task is not None:
            task.cancel()
            self._expect_end(hard)

    def unwind_here(self) -> BaseException:
        """The process ended itself by an exit signal: the error to raise right there."""
        error = asyncio.CancelledError(self.process.exit_reason)
        self._expect_end(self.process.exit_reason is KILLED).thrown = weakref.ref(error)
        return error

    def _expect_end(self, hard: bool) -> Unusual:
        unusual = self._unusual()
        unusual.hard = unusual.hard or hard
        if unusual.grace is not None:
            unusual.grace.cancel()
        runtime = self.process.runtime
        seconds = HARD_GRACE if unusual.hard else runtime.exit_grace
        unusual.grace = runtime.loop.call_later(seconds, self._expired)
        return unusual

    def _unusual(self) -> Unusual:
        if self.unusual is None:
            self.unusual = Unusual()
        return self.unusual

    def _expired(self) -> None:
        process = self.process
        if process.status != EXITING:
            return
        if not self._unusual().hard:
            self.unwind(hard=True)
            return
        # It waits for something that ignores being cancelled. Its links and monitors can't wait for that.
        logger.error("process %s did not end within its grace after exit %r", process.pid, process.exit_reason)
        self._finish(process.exit_reason)

    # --- the uncommon steps -----------------------------------------------------------------------------------------

    def _attend(self, error: BaseException | None) -> Any:
        process = self.process
        if process.status >= EXITING:
            return self._unwind(error)
        if error is not None:
            self._unusual().pending = error
        if process.gates and not isinstance(error, asyncio.CancelledError):
            hold = next(iter(process.gates)).future()
            return next(iter(hold.__await__()))
        process.attention = bool(process.gates)
        if self.unusual is not None:
            error, self.unusual.pending = self.unusual.pending, None
        try:
            return self.coro.send(None) if error is None else self.coro.throw(error)
        except BaseException as raised:
            self._ended(raised)
        raise StopIteration

    def _unwind(self, error: BaseException | None) -> Any:
        process = self.process
        if process.status == DEAD:
            self._close()
            raise StopIteration
        unusual = self._unusual()
        for _ in range(TRIES):
            try:
                if unusual.hard or unusual.swallowed():
                    awaited = self._interrupt(unusual)
                elif error is not None:
                    awaited = self.coro.throw(error)
                else:
                    awaited = self.coro.send(None)
            except BaseException as raised:
                self._ended(raised)
                raise StopIteration from None
            error = None
            if not unusual.hard and not unusual.swallowed():
                return awaited
            _discard(awaited)
        logger.error("process %s swallowed its exit %r, abandoned", process.pid, process.exit_reason)
        self._finish(process.exit_reason)
        self._close()
        raise StopIteration

    def _interrupt(self, unusual: Unusual) -> Any:
        error = asyncio.CancelledError(self.process.exit_reason)
        unusual.thrown = weakref.ref(error)
        try:
            return self.coro.throw(error)
        finally:
            del error  # only the coroutine may keep it alive

    # --- the end ----------------------------------------------------------------------------------------------------

    def _ended(self, error: BaseException) -> None:
        """The coroutine returned or raised; raises only what the event loop itself must see."""
        process = self.process
        if process.status != EXITING:
            if isinstance(error, StopIteration):
                self._finish(NORMAL)
                return
            if isinstance(error, Exception) and not isinstance(error, Exit):
                logger.error("process %s crashed: %r", process, error, exc_info=users_trace(error))
            self._finish(reason_of(error))
        else:
            self._finish(process.exit_reason)
        if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, SystemExit)):
            raise error

    def _finish(self, reason: Any) -> None:
        if self.unusual is not None and self.unusual.grace is not None:
            self.unusual.grace.cancel()
            self.unusual.grace = None
        self.process.runtime.finish(self.process, reason)

    def _close(self) -> None:
        try:
            self.coro.close()
        except BaseException:  # it ignored GeneratorExit, or its cleanup failed: it has no one left to tell
            Steps.stubborn.append(self.coro)


def _discard(awaited: Any) -> None:
    """Drop a future that the coroutine yielded but will not wait for."""
    if awaited is not None and hasattr(awaited, "cancel"):
        awaited._asyncio_future_blocking = False
        awaited.cancel()


__all__ = ["Steps"]
