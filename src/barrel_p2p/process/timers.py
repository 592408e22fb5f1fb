"""Messages to come: ``send_after`` and ``cancel_timer``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import NoProc
from .current import current_process

if TYPE_CHECKING:
    from .runtime import Runtime


class Timer:
    """A message to come, made by ``send_after``."""

    __slots__ = ("_handle", "_runtime")

    def __init__(self, runtime: Runtime, seconds: float, to: Any, message: Any) -> None:
        self._runtime = runtime
        self._handle: asyncio.TimerHandle | None = runtime.loop.call_later(seconds, self._fire, to, message)
        runtime.timers[self._handle] = None

    def _fire(self, to: Any, message: Any) -> None:
        self._forget()
        with suppress(NoProc):  # the name may be gone: as silent as a dead pid
            self._runtime.route(None, to, message)

    def _forget(self) -> None:
        if self._handle is not None:
            self._runtime.timers.pop(self._handle, None)
            self._handle = None

    def cancel(self) -> float | None:
        """Cancel; the seconds that were left, ``None`` when the message was sent (or the timer cancelled) before."""
        handle = self._handle
        if handle is None or handle.cancelled():
            return None
        left = max(0.0, handle.when() - self._runtime.loop.time())
        handle.cancel()
        self._forget()
        return left


def send_after(seconds: float, to: Any, message: Any) -> Timer:
    """Send ``message`` to ``to`` in ``seconds``; silent when the receiver is gone by then.

    >>> send_after(1.5, self_pid(), "tick")
    """
    if not isinstance(seconds, (int, float)):
        raise TypeError(f"send_after(seconds, to, message) begins with a number, not with {seconds!r}")
    return Timer(current_process().runtime, seconds, to, message)


def cancel_timer(timer: Timer) -> float | None:
    """Cancel a timer: the seconds that were left, or ``None`` when its message has been sent already."""
    return timer.cancel()


__all__ = ["Timer", "cancel_timer", "send_after"]
