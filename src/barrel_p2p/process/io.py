"""Erlang's ``io``: text goes to the group leader of the process, wherever that lives.

Every process has a group leader, which it inherits from the one that spawned it: the ``user`` of its node, which
writes to standard output. A process that an Erlang node spawned here has its leader there, so that what it prints
appears where it was asked for; and code that Python spawns on an Erlang node prints here.

>>> await io.put_chars("stocktaking begins\\n")
>>> await io.format("~p of ~s left~n", [3, "apples"])

The I/O protocol of the OTP documentation, chapter "The Erlang I/O Protocol", asked here and answered by ``node.user``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from ..errors import CallError, NodeDown, NoProc
from ..shown import shown
from ..term.types import Atom, Pid
from .api import monitor, receive, self_pid, send
from .current import current_process
from .reasons import DOWN, NOCONNECTION, NOPROC

IO_REQUEST: Final = Atom("io_request")
IO_REPLY: Final = Atom("io_reply")
PUT_CHARS: Final = Atom("put_chars")
UNICODE: Final = Atom("unicode")
IO_LIB: Final = Atom("io_lib")


async def put_chars(text: str, device: Any = None) -> None:
    """Print ``text`` as it is, and wait until it has been taken (``io:put_chars``).

    Args:
        device: an I/O server: a pid, a name or a ``(name, node)``. Default: the group leader.

    Raises:
        CallError: The device refused, or is gone; ``NoProc`` and ``NodeDown`` say so.
    """
    await request((PUT_CHARS, UNICODE, text), device)


async def format(format: str, args: Sequence[Any] = (), device: Any = None) -> None:
    """Print terms by an Erlang format (``io:format``): ``~p`` a term, ``~s`` a text, ``~n`` a new line, ...

    The device does the formatting. Raises as ``put_chars`` does.
    """
    await request((PUT_CHARS, UNICODE, IO_LIB, Atom("format"), [format, list(args)]), device)


async def get_line(prompt: str = "", device: Any = None) -> Any:
    """Read a line of the device (``io:get_line``); the atom ``eof`` at the end. A Python ``user`` has no input.

    Raises as ``put_chars`` does.
    """
    return await request((Atom("get_line"), UNICODE, prompt), device)


async def request(request: Any, device: Any = None) -> Any:
    """Ask an I/O server anything of the protocol; its answer."""
    process = current_process()
    runtime = process.runtime
    to = runtime.leader_of(process) if device is None else device
    if isinstance(to, str):
        holder = runtime.find_name(to)
        if holder is None:
            raise NoProc(NOPROC, f"nobody is registered as {to!r}")
        to = holder.pid
    answer: asyncio.Future[Any] = runtime.loop.create_future()
    # in a process of its own, so that no late answer is left in the caller's mailbox
    runtime.spawn(_ask, (to, request, answer))
    reply = await answer
    if isinstance(reply, tuple) and len(reply) == 2 and reply[0] == "error":
        raise CallError(reply[1], f"the I/O server {to} refused: {shown(reply[1])}")
    return reply


async def _ask(device: Any, request: Any, answer: asyncio.Future[Any]) -> None:
    try:
        ref = monitor(device)
        send(device, (IO_REQUEST, self_pid(), ref, request))
        message = await receive(match=lambda m: isinstance(m, tuple) and len(m) > 2 and ref in m[1:2])
        if answer.done():
            return
        if message[0] == DOWN:
            answer.set_exception(_gone(device, message[-1]))
        else:
            answer.set_result(message[2])
    except Exception as error:  # a request without a form as a term
        if not answer.done():
            answer.set_exception(error)


def _gone(device: Any, reason: Any) -> CallError:
    if reason == NOPROC:
        return NoProc(NOPROC, f"the I/O server {device} does not exist")
    if reason == NOCONNECTION:
        node = device.node if isinstance(device, Pid) else device[1]
        return NodeDown((Atom("nodedown"), node), f"{node}, the node of the I/O server, is not reachable")
    return CallError(Atom("terminated"), f"the I/O server {device} ended before it answered: {shown(reason)}")


def group_leader(leader: Pid | None = None, pid: Pid | None = None) -> Pid:
    """The group leader of the current process; with arguments, the new one of a process of this node, as in Erlang.

    >>> leader = group_leader()
    >>> group_leader(leader, pid)        # what pid spawns from now on inherits it

    Raises:
        ValueError: the process lives on another node.
    """
    process = current_process()
    if leader is None:
        return process.runtime.leader_of(process)
    if pid is not None and pid.node != process.runtime.name:
        raise ValueError(f"{pid!r} is on another node; only there can its group leader be changed")
    target = process if pid is None else process.runtime.find(pid)
    if target is not None:
        target.group_leader = leader
    return leader


__all__ = ["format", "get_line", "group_leader", "put_chars", "request"]
