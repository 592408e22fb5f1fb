"""The current process: a context variable, so every task a process starts knows the process it works for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import NotInProcess

if TYPE_CHECKING:
    from .process import Process
    from .runtime import Runtime


class HasRuntime(Protocol):
    """A ``Node``, as this layer sees it."""

    @property
    def runtime(self) -> Runtime: ...


current: ContextVar[Process | None] = ContextVar("barrel_p2p_process", default=None)


def current_process() -> Process:
    """The process this code runs in.

    Raises:
        NotInProcess: neither a process nor a task that a process started.
    """
    process = current.get()
    if process is None:
        raise NotInProcess("no current process: call this inside a spawned function or inside `async with Node(...)`")
    return process


def runtime_of(node: Any) -> Runtime:
    """The runtime that ``node`` names: a ``Node``, a ``Runtime``, or the one of the current process for ``None``."""
    if node is None:
        process = current.get()
        if process is None:
            raise NotInProcess(
                "no current process: call this inside a spawned function or inside `async with Node(...)`, "
                "or give node="
            )
        return process.runtime
    runtime: Runtime = getattr(node, "runtime", node)
    return runtime


def caller_in(runtime: Runtime) -> Process | None:
    """The current process if it is one of ``runtime``: who asks, or sends, there. None for all other code."""
    process = current.get()
    return process if process is not None and process.runtime is runtime else None


__all__ = ["HasRuntime", "caller_in", "current", "current_process", "runtime_of"]
