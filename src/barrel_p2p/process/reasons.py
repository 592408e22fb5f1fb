"""Exit reasons: the atoms of Erlang, and what Python's exceptions become as exit reasons."""

from __future__ import annotations

import asyncio
import traceback
from typing import Any, Final

from ..errors import ExitReason
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

#: An atom has at most 255 characters (external term format); a longer text stays a binary.
MAX_ATOM: Final = 255
#: Frames kept in an exit reason: a guess, deep enough to find the fault, small enough to travel.
MAX_FRAMES: Final = 16


def as_reason(reason: Any) -> Any:
    """``"shutdown"`` as a reason means the atom: Erlang's reasons are atoms, a plain ``str`` would be a binary."""
    if type(reason) is str and len(reason) <= MAX_ATOM:
        return Atom(reason)
    return reason


def reason_of(error: BaseException) -> Any:
    """The exit reason of a process that ended by ``error``.

    ``Exit`` and the call errors carry theirs; a cancelled task was ``killed``; anything else becomes
    ``({exception, Type, Message}, [Frame])`` with texts, which is what an Erlang error with its stack looks like.
    """
    if isinstance(error, ExitReason):
        return as_reason(error.exit_term)
    if isinstance(error, asyncio.CancelledError):
        return KILLED
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the outermost is the stepper's
    stack = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames[-MAX_FRAMES:])]
    return ((EXCEPTION, type(error).__qualname__, _text(error)), stack)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a faulty __str__ must not hide the crash it describes
        return "<no text: __str__ failed>"
