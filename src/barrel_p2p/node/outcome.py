"""How the call of an exported function ended, in Erlang's classes: what ``erpc`` and ``rpc`` tell their callers.

A function that returns is a ``return``. ``Exit``, and the failed calls that are exit reasons, are an ``exit``. A
``RemoteError`` that passes through keeps the class it came with, which is also how Python code throws. Any other
exception is an ``error`` with its stack.
"""

from __future__ import annotations

from typing import Any

from barrel_p2p.errors import ExitReason, RemoteError
from barrel_p2p.node.exports import Exports, Undefined
from barrel_p2p.process.reasons import error_term
from barrel_p2p.term.types import Atom

RETURN = Atom("return")
ERROR = Atom("error")
EXIT = Atom("exit")
THROW = Atom("throw")

#: ``(return, value)``, ``(throw, reason)``, ``(exit, reason)`` or ``(error, reason, stack)``.
Outcome = tuple[Any, ...]


async def execute(exports: Exports, module: Any, function: Any, args: Any) -> Outcome:
    """Run an exported function and tell how it ended; nothing but a cancellation is raised."""
    if not (isinstance(module, str) and isinstance(function, str) and isinstance(args, list)):
        return (EXIT, Atom("badarg"))
    try:
        return (RETURN, await exports.apply(module, function, args))
    except Exception as error:
        return outcome_of(error)


def outcome_of(error: Exception) -> Outcome:
    """What an exception is to an Erlang caller."""
    if isinstance(error, Undefined):
        return (ERROR, Atom("undef"), error.stack)
    if isinstance(error, RemoteError) and error.kind in ("exit", "throw"):
        return (Atom(error.kind), error.reason)
    if isinstance(error, RemoteError):
        return (ERROR, error.reason, error.stack if isinstance(error.stack, list) else [])
    if isinstance(error, ExitReason):
        return (EXIT, error.exit_term)
    return (ERROR, *error_term(error))


__all__ = ["ERROR", "EXIT", "RETURN", "THROW", "Outcome", "execute", "outcome_of"]
