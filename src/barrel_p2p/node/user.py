"""``user``: the I/O server of a node, the group leader of every process that was not given another.

It answers the I/O protocol of the OTP documentation ("The Erlang I/O Protocol"): text of processes of any node goes to
``write``, by default standard output. What ``io:format`` sends is the name of a function and its arguments; only
``io_lib``'s ``format``, ``fwrite``, ``write`` and ``print`` are known here (``term.io_lib``), nothing is run for a
peer. There is no input: whoever reads gets ``eof``, as at ``erl -noinput``.

Costs are bounded: the mailbox (whoever floods it waits, a peer's connection is not read meanwhile), the characters of
one text, and writing, which a thread does for many requests at once, so that a slow terminal does not hold up the node.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p.process.api import process_flag, receive, send
from barrel_p2p.process.current import current_process
from barrel_p2p.process.io import IO_LIB, IO_REPLY, IO_REQUEST
from barrel_p2p.shown import shown
from barrel_p2p.term import io_lib
from barrel_p2p.term.types import Atom, Pid

log = logging.getLogger("barrel_p2p.io")

MAX_WAITING = 1_000  # requests in the mailbox; a guess
MAX_BATCH = 256  # requests that are written at once; a guess
MAX_REQUESTS = 1_000  # members of one ``{requests, List}``; a guess

OK: Final = Atom("ok")
ERROR: Final = Atom("error")
EOF: Final = Atom("eof")
ENOTSUP: Final = Atom("enotsup")
_PUT_CHARS = Atom("put_chars")
_REQUEST = Atom("request")
_ENCODINGS = ("latin1", "unicode", "utf8")
_READS = ("get_line", "get_chars", "get_until", "get_password")


def to_stdout(text: str) -> None:
    """Write to the standard output of this moment; what its encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


async def serve(write: Callable[[str], object]) -> None:
    """The process ``user``: ends when the node does, after all that was sent to it before."""
    process_flag("trap_exit", True)
    process = current_process()
    ending = False
    while not ending:
        text = ""
        replies: list[tuple[Pid, Any, Any]] = []
        message = await receive()
        while True:
            match message:
                case (kind, Pid() as sender, reply_as, request) if kind == IO_REQUEST:
                    reply, printed = answer(request)
                    replies.append((sender, reply_as, reply))
                    text += printed
                case (Atom("EXIT"), _, _) if process.runtime.orders_end(process, message):
                    ending = True
            if ending or len(replies) >= MAX_BATCH or len(text) >= io_lib.MAX_TEXT:
                break
            try:
                message = await receive(timeout=0)
            except TimeoutError:
                break
        written = await _write(write, text)
        for sender, reply_as, reply in replies:
            send(sender, (IO_REPLY, reply_as, reply if written or reply is not OK else (ERROR, _PUT_CHARS)))


async def _write(write: Callable[[str], object], text: str) -> bool:
    if not text:
        return True
    try:
        await asyncio.to_thread(write, text)
    except Exception as error:  # a closed output must not end the leader of every process
        log.error("%d characters for user were not written: %r", len(text), error)
        return False
    return True


def answer(request: Any, limit: int = io_lib.MAX_TEXT, level: int = 0) -> tuple[Any, str]:
    """The reply to a request, and what it prints: at most ``limit`` characters and a few dots."""
    if request == "getopts":
        return [(Atom("binary"), False), (Atom("encoding"), Atom("unicode"))], ""
    if not isinstance(request, tuple) or not request or not isinstance(request[0], Atom):
        return (ERROR, _REQUEST), ""
    what, *args = request
    if what == "put_chars" and args:
        try:
            return OK, _text(args, limit)
        except ValueError:
            return (ERROR, args[-2] if len(args) >= 3 and isinstance(args[-2], Atom) else _PUT_CHARS), ""
    if what in _READS:
        return EOF, ""
    if what in ("setopts", "get_geometry"):
        return (ERROR, ENOTSUP), ""
    if what == "requests" and len(args) == 1 and isinstance(args[0], list) and level == 0:
        reply: Any = OK
        texts = ""
        for each in args[0][:MAX_REQUESTS]:
            reply, text = answer(each, limit - len(texts), level + 1)
            texts += text
            if isinstance(reply, tuple) or len(texts) >= limit:
                break  # the rest is not done after an error
        return reply, texts
    return (ERROR, _REQUEST), ""


def _text(args: list[Any], limit: int) -> str:
    """What ``put_chars`` asks to print: ``[Chars]`` or ``[M, F, Args]``, either after an encoding or, long ago, not."""
    latin1 = True
    if len(args) in (2, 4):
        if args[0] not in _ENCODINGS:
            raise ValueError(f"there is no encoding {shown(args[0], 100)}")
        latin1 = args[0] == "latin1"
        args = args[1:]
    if len(args) == 1:
        return io_lib.chars(args[0], latin1=latin1, limit=limit)
    if len(args) != 3:
        raise ValueError("put_chars takes characters, or a function and its arguments")
    module, function, arguments = args
    if module == IO_LIB and isinstance(arguments, list):
        match function, arguments:
            case ("format" | "fwrite", [form, list() as terms]):
                return io_lib.format(form, terms, limit=limit)
            case ("write", [term]):
                return io_lib.write(term, limit=limit)
            case ("print", [term]):
                return io_lib.write(term, strings=True, limit=limit)
    raise ValueError(f"{module}:{function} is not known here")


__all__ = ["MAX_WAITING", "answer", "serve", "to_stdout"]
