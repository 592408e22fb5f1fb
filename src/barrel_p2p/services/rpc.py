"""Remote procedure calls, as ``erpc`` makes them: a spawn of ``erpc:execute_call`` whose exit reason is the result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from barrel_p2p.errors import CallTimeout, NodeDown, RemoteError
from barrel_p2p.node.outcome import outcome_of
from barrel_p2p.shown import printable, shown
from barrel_p2p.term.types import Atom

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node


async def rpc(node: Node, target: Atom, module: str, function: str, args: list[Any], timeout: float | None) -> Any:
    """Run ``module:function(*args)`` on ``target`` and return its result; see ``Node.rpc``."""
    if target == node.name:
        return await _local(node, module, function, args, timeout)
    outcome, reason = await _ask(node, target, module, function, args, timeout)
    if outcome == "return":
        return reason[0]
    raise _failed(target, module, function, args, outcome, *reason)


async def _local(node: Node, module: str, function: str, args: list[Any], timeout: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await node.exports.apply(module, function, args)
    except Exception as error:
        if isinstance(error, TimeoutError) and limit.expired():
            raise _late(node.name, module, function, timeout) from None
        kind, reason, *stack = outcome_of(error)
        raise _failed(node.name, module, function, args, kind, reason, *stack) from error


def _failed(
    target: Atom, module: str, function: str, args: list[Any], kind: Any, reason: Any, stack: Any = None, *_: Any
) -> RemoteError:
    """The error with a text that says what was called where; a peer may send anything as reason and stack."""
    match reason:
        case "undef" if kind == "error" and _is_of(stack, module, function):
            text = (
                f"{target} has no {module}:{function}/{len(args)} to call (undef); a Python node runs only what "
                "it exports (node.export)"
            )
        case (Atom("exception"), str(name) | bytes(name), str(said) | bytes(said)):
            text = f"{module}:{function} on {target} raised {_text(name, 255)}: {_text(said)}"
        case _:
            text = f"{module}:{function} on {target} ended with {kind} {shown(reason)}"
    return RemoteError(str(kind), reason, stack, text)


def _is_of(stack: Any, module: str, function: str) -> bool:
    """Whether the called function itself is missing, and not one that it called."""
    match stack:
        case [(where, name, *_), *_]:
            return bool(where == module and name == function)
    return False


def _text(term: str | bytes, limit: int = 1000) -> str:
    start = term[:limit]
    text = printable(start.decode("utf-8", "replace") if isinstance(start, bytes) else start)
    return text if len(term) <= limit else text + "..."


def _late(target: Atom, module: str, function: str, timeout: float | None) -> CallTimeout:
    return CallTimeout(Atom("timeout"), f"{module}:{function} on {target} gave no result within {timeout} s")


async def _ask(
    node: Node, target: Atom, module: str, function: str, args: list[Any], timeout: float | None
) -> tuple[Any, tuple[Any, ...]]:
    runtime = node.runtime
    result = runtime.reference()
    request = runtime.reference()
    down: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    try:
        spawned = node.spawner.request(
            None,
            target,
            ("erpc", "execute_call"),
            (result, Atom(module), Atom(function), list(args)),
            link=False,
            monitor=request,
            name=None,
            down=down,
        )
        async with asyncio.timeout(timeout):
            await asyncio.wait([down, spawned], return_when=asyncio.FIRST_EXCEPTION)
            if not down.done() and spawned.done():
                spawned.result()
            reason = await down
    except TimeoutError:
        raise _late(target, module, function, timeout) from None
    finally:
        node.spawner.abandon(request)
        monitor = runtime.watching.get(request.ids)
        if monitor is not None:
            runtime.end_monitor(monitor)
    if isinstance(reason, tuple) and len(reason) >= 3 and reason[0] == result:
        return reason[1], reason[2:]
    if reason == "noconnection":
        raise NodeDown((Atom("nodedown"), target), f"the connection to {target} was lost during the call")
    return Atom("exit"), (reason,)
