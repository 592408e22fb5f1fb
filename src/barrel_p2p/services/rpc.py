"""Remote procedure calls, as ``erpc`` makes them: a spawn of ``erpc:execute_call`` whose exit reason is the result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from barrel_p2p.errors import CallTimeout, NodeDown, RemoteError
from barrel_p2p.node.outcome import outcome_of
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
    raise RemoteError(str(outcome), reason[0], reason[1] if len(reason) > 1 else None)


async def _local(node: Node, module: str, function: str, args: list[Any], timeout: float | None) -> Any:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await node.exports.apply(module, function, args)
    except Exception as error:
        if isinstance(error, TimeoutError) and limit.expired():
            raise _late(node.name, module, function, timeout) from None
        kind, reason, *stack = outcome_of(error)
        raise RemoteError(str(kind), reason, stack[0] if stack else None) from error


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
