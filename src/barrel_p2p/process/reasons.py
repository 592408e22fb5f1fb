"""Exit reasons: the atoms of Erlang, and what Python's exceptions become as exit reasons."""

from __future__ import annotations

import asyncio
import os
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from ..errors import ExitReason, RemoteError
from ..term.types import Atom

NORMAL: Final = Atom("normal")
KILL: Final = Atom("kill")
KILLED: Final = Atom("killed")
NOPROC: Final = Atom("noproc")
NOCONNECTION: Final = Atom("noconnection")
SHUTDOWN: Final = Atom("shutdown")
TIMEOUT: Final = Atom("timeout")

EXIT: Final = Atom("EXIT")
DOWN: Final = Atom("DOWN")
PROCESS: Final = Atom("process")
EXCEPTION: Final = Atom("exception")
NOCATCH: Final = Atom("nocatch")

#: An atom has at most 255 characters (external term format); a longer text stays a binary.
MAX_ATOM: Final = 255
#: Frames kept of a stack: a guess, deep enough to find the fault, small enough to travel.
MAX_FRAMES: Final = 32
#: Characters kept of an exception's message; a guess.
MAX_MESSAGE: Final = 4096
_OURS: Final = f"{Path(__file__).parents[1]}{os.sep}"


def is_orderly(reason: Any) -> bool:
    """``normal``, ``shutdown`` or ``{shutdown, Term}``: ends that nobody logs, and that restart no transient child."""
    if isinstance(reason, tuple):
        return len(reason) == 2 and bool(reason[0] == SHUTDOWN)
    return isinstance(reason, Atom) and reason in (NORMAL, SHUTDOWN)


def as_reason(reason: Any) -> Any:
    """``"shutdown"`` as a reason means the atom: Erlang's reasons are atoms, a plain ``str`` would be a binary."""
    if type(reason) is str and len(reason) <= MAX_ATOM:
        return Atom(reason)
    return reason


def reason_of(error: BaseException) -> Any:
    """The exit reason of a process that ended by ``error``.

    ``Exit`` and the call errors carry theirs; a ``RemoteError`` ends the process as it would have ended one of the node
    it comes from; a cancelled task was ``killed``; anything else is an error with its stack, as in Erlang.
    """
    if isinstance(error, ExitReason):
        return as_reason(error.exit_term)
    if isinstance(error, asyncio.CancelledError):
        return KILLED
    if isinstance(error, RemoteError):
        if error.kind == "exit":
            return error.reason
        if error.kind == "throw":
            return ((NOCATCH, error.reason), _stack(error))
        return (error.reason, error.stack if isinstance(error.stack, list) else [])
    return error_term(error)


def error_term(error: BaseException) -> tuple[Any, list[Any]]:
    """A Python exception as Erlang sees it: ``{exception, Type, Message}`` and a stack of ``{M, F, Arity, Location}``.

    The stack may go to another node: it shows the user's frames, not ours, and no directories of this host.
    """
    return (EXCEPTION, type(error).__name__, _text(error)[:MAX_MESSAGE]), _stack(error)


def users_trace(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """What ``logging`` takes as ``exc_info``: a traceback that begins with the user's first frame, not with ours.

    Frames of ours further down stay: they say what the user called. If there are no others, so do all.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return type(error), error, trace or error.__traceback__


def _stack(error: BaseException) -> list[Any]:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_OURS)]
    stack = []
    for frame in reversed(frames[-MAX_FRAMES:]):
        file = Path(frame.filename).name[:MAX_ATOM]
        location = [(Atom("file"), list(os.fsencode(file))), (Atom("line"), frame.lineno or 0)]
        stack.append((Atom(file.removesuffix(".py")), Atom(frame.name[:MAX_ATOM]), 0, location))
    return stack


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a faulty __str__ must not hide the crash it describes
        return "<no text: __str__ failed>"
