"""One request to servers of the same name on many nodes: ``gen_server:multi_call`` and ``abcast``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from ..errors import ChannelOverflow
from ..term.types import Atom
from .call import cast
from .current import current, runtime_of
from .requests import Request, answer_of, send_request, wait_for
from .runtime import Runtime


async def multi_call(
    nodes: Iterable[str], name: str, request: Any, timeout: float | None = None, *, node: Any = None
) -> tuple[list[tuple[Atom, Any]], list[Atom]]:
    """Ask the servers that have a name on some nodes, all at once (``gen_server:multi_call``).

    >>> replies, bad_nodes = await multi_call([node.name, *node.nodes()], "counter", "inc", 5.0)
    >>> replies, bad_nodes
    ([('alice@127.0.0.1', 7), ('bob@127.0.0.1', 3)], ['carol@127.0.0.1'])

    Both lists have the order of ``nodes``. A node is bad when it can't be reached or is lost, when nobody has the name
    there, when the server ends before it answers, and when it takes too long: its late reply is dropped. Without a
    timeout a process that asks itself counts as bad, too; it would wait for ever.

    Args:
        nodes: names of nodes; the own one may be among them. Who is not connected yet will be.
        name: the name that the servers registered.
        timeout: seconds for all answers together; ``None`` (as in OTP) waits for ever.
        node: the ``Node`` to call from, in code that is no process and was not started by one.

    Raises:
        EncodeError: the request has no form as a term. Some of the nodes may have got it.
        TypeError: ``nodes`` is one name, or ``name`` is none.
    """
    runtime = runtime_of(node)
    asked: list[tuple[Atom, Request | None]] = []
    try:
        for each in _names(nodes, name):
            myself = timeout is None and each == runtime.name and _is_caller(name, runtime)
            sent = None
            if not myself:
                with suppress(ChannelOverflow):  # the log tells; its node is lost, the others can answer
                    sent = send_request((name, each), request, node=runtime)
            asked.append((each, sent))
        await wait_for([sent for _, sent in asked if sent is not None], timeout)
    finally:
        for _, sent in asked:
            if sent is not None:
                sent.abandon()
    replies, bad_nodes = [], []
    for each, sent in asked:
        answer = None if sent is None else answer_of(sent)
        if answer is None:
            bad_nodes.append(each)
        else:
            replies.append((each, answer[0]))
    return replies, bad_nodes


def abcast(nodes: Iterable[str], name: str, request: Any, *, node: Any = None) -> None:
    """Send a request that has no answer to the servers that have a name on some nodes (``gen_server:abcast``).

    >>> abcast([node.name, *node.nodes()], "counter", "reset")

    A node or server that is not there is no error.

    Raises:
        EncodeError: the request has no form as a term. Some of the nodes may have got it.
        TypeError: ``nodes`` is one name, or ``name`` is none.
    """
    for each in _names(nodes, name):
        with suppress(ChannelOverflow):  # the log tells; the other nodes get it
            cast((name, each), request, node=node)


def _names(nodes: Iterable[str], name: str) -> list[Atom]:
    if isinstance(nodes, str) or not isinstance(name, str):
        raise TypeError(f"{nodes!r}, {name!r}: a list of nodes is wanted, and the one name of the servers")
    return [Atom(each) for each in nodes]


def _is_caller(name: str, runtime: Runtime) -> bool:
    caller = current.get()
    return caller is not None and runtime.find_name(name) is caller and asyncio.current_task() is caller.task


__all__ = ["abcast", "multi_call"]
