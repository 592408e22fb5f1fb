"""``spawn``, ``spawn_link``, ``spawn_monitor``: processes of this node and of others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, overload

from ..errors import NotConnected
from ..term.types import Atom, Pid, Reference
from .current import HasRuntime, current_process, runtime_of

Function = Callable[..., Coroutine[Any, Any, Any]]


@overload
def spawn(
    func: Function | Coroutine[Any, Any, Any],
    *args: Any,
    node: HasRuntime | None = None,
    name: str | None = None,
    max_mailbox: int | None = None,
    when_full: str = "wait",
) -> Pid: ...
@overload
def spawn(func: Any, *args: Any, node: str, name: str | None = None) -> Awaitable[Pid]: ...
def spawn(
    func: Any,
    *args: Any,
    node: Any = None,
    name: str | None = None,
    max_mailbox: int | None = None,
    when_full: str = "wait",
) -> Any:
    """Start a process that runs ``func(*args)``; its pid.

    >>> pid = spawn(worker, 1, name="worker")
    >>> pid = await spawn(worker, 1, node="other@127.0.0.1")     # where worker is exported

    Args:
        func: an async function, or a coroutine.
        node: the name of another node, and the result is an awaitable of the pid; or a ``Node`` of this OS process, to
            spawn from code that is no process.
        name: registers the process before it runs.
        max_mailbox: bound of its mailbox, in messages; see ``docs/concepts/processes.md`` for what happens there.
        when_full: ``wait`` (senders wait at their await points), ``drop`` or ``exit``.

    Raises:
        NameTaken: the name is in use; nothing was started.
        NotInProcess: called outside of any process and without a ``Node``.
    """
    if isinstance(node, str):
        if node != current_process().runtime.name:
            return _spawn_remote(node, func, args, name, link=False)
        node = None
    return runtime_of(node).spawn(func, args, name=name, max_mailbox=max_mailbox, when_full=when_full).pid


@overload
def spawn_link(
    func: Function | Coroutine[Any, Any, Any],
    *args: Any,
    node: None = None,
    name: str | None = None,
    max_mailbox: int | None = None,
    when_full: str = "wait",
) -> Pid: ...
@overload
def spawn_link(func: Any, *args: Any, node: str, name: str | None = None) -> Awaitable[Pid]: ...
def spawn_link(
    func: Any,
    *args: Any,
    node: str | None = None,
    name: str | None = None,
    max_mailbox: int | None = None,
    when_full: str = "wait",
) -> Any:
    """``spawn`` and ``link`` in one step, so that no death falls between the two; see ``spawn``.

    >>> pid = spawn_link(worker, 1)
    >>> pid = await spawn_link(worker, 1, node="other@127.0.0.1")
    """
    process = current_process()
    if node is not None and node != process.runtime.name:
        return _spawn_remote(node, func, args, name, link=True)
    return process.runtime.spawn(
        func, args, link_to=process, name=name, max_mailbox=max_mailbox, when_full=when_full
    ).pid


@overload
def spawn_monitor(
    func: Function | Coroutine[Any, Any, Any],
    *args: Any,
    node: None = None,
    name: str | None = None,
    max_mailbox: int | None = None,
    when_full: str = "wait",
) -> tuple[Pid, Reference]: ...
@overload
def spawn_monitor(func: Any, *args: Any, node: str, name: str | None = None) -> Awaitable[tuple[Pid, Reference]]: ...
def spawn_monitor(
    func: Any,
    *args: Any,
    node: str | None = None,
    name: str | None = None,
    max_mailbox: int | None = None,
    when_full: str = "wait",
) -> Any:
    """``spawn`` and ``monitor`` in one step: ``(pid, reference)``; see ``spawn``.

    >>> pid, ref = spawn_monitor(worker, 1)
    >>> pid, ref = await spawn_monitor(worker, 1, node="other@127.0.0.1")
    """
    process = current_process()
    ref = process.runtime.reference()
    if node is not None and node != process.runtime.name:
        return _monitored(ref, _spawn_remote(node, func, args, name, link=False, monitor=ref))
    spawned = process.runtime.spawn(
        func, args, monitor_by=(process, ref), name=name, max_mailbox=max_mailbox, when_full=when_full
    )
    return spawned.pid, ref


def _spawn_remote(
    node: str, func: Any, args: tuple[Any, ...], name: str | None, *, link: bool, monitor: Reference | None = None
) -> Awaitable[Pid]:
    process = current_process()
    if process.runtime.remote is None:
        raise NotConnected(f"can't spawn on {node}: this runtime has no network")
    registered = None if name is None else Atom(name)
    return process.runtime.remote.spawn_request(
        process, Atom(node), func, args, link=link, monitor=monitor, name=registered
    )


async def _monitored(ref: Reference, spawned: Awaitable[Pid]) -> tuple[Pid, Reference]:
    return await spawned, ref


__all__ = ["spawn", "spawn_link", "spawn_monitor"]
