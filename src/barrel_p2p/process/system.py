"""System messages: what Erlang's ``sys`` asks of a server, and the same questions asked from Python.

A server answers ``get_state``, ``replace_state``, ``get_status``, ``suspend``, ``resume`` and ``terminate``; other
requests of ``sys`` get the error that OTP gives for an unknown one. A state goes as ``{ok, State}``, which ``sys`` of
OTP 27 and later insists on; that of OTP 25, where a state goes bare, shows the pair. Nothing tells the two apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import CallError, EncodeError
from ..shown import shown
from ..term import io_lib
from ..term.types import Atom
from .call import SYSTEM, gen_call, reply
from .current import runtime_of
from .sendable import sendable

if TYPE_CHECKING:
    from .server_loop import ServerLoop

logger = logging.getLogger("barrel_p2p.process")

OK: Final = Atom("ok")
ERROR: Final = Atom("error")


# --- asking -----------------------------------------------------------------------------------------------------------


async def get_state(to: Any, timeout: float | None = 5.0, *, node: Any = None) -> Any:
    """The state of a server: by default of a Python one its public attributes as a dict."""
    return _ok(await gen_call(SYSTEM, to, Atom("get_state"), timeout, runtime_of(node)))


async def replace_state(
    to: Any,
    function: Callable[[Any], Any],
    timeout: float | None = 5.0,
    *,
    node: Any = None,
) -> Any:
    """Replace the state of a Python server of this node by ``function(state)``; the new state."""
    return _ok(await gen_call(SYSTEM, to, (Atom("replace_state"), function), timeout, runtime_of(node)))


async def get_status(to: Any, timeout: float | None = 5.0, *, node: Any = None) -> Any:
    """``{status, Pid, {module, gen_server}, [PDict, SysState, Parent, Debug, Misc]}``, as OTP's servers answer."""
    return await gen_call(SYSTEM, to, Atom("get_status"), timeout, runtime_of(node))


async def suspend(to: Any, timeout: float | None = 5.0, *, node: Any = None) -> None:
    """Let a server handle system messages only; all others wait."""
    await gen_call(SYSTEM, to, Atom("suspend"), timeout, runtime_of(node))


async def resume(to: Any, timeout: float | None = 5.0, *, node: Any = None) -> None:
    """Let a suspended server go on."""
    await gen_call(SYSTEM, to, Atom("resume"), timeout, runtime_of(node))


def _ok(answer: Any) -> Any:
    """A state comes as ``{ok, State}``, from OTP 25 as it is; a failure as ``{error, Reason}``."""
    if isinstance(answer, tuple) and len(answer) == 2 and type(answer[0]) is Atom:
        if answer[0] == ERROR:
            raise CallError(answer[1], f"the server refused: {shown(answer[1])}")
        if answer[0] == OK:
            return answer[1]
    return answer


# --- answering --------------------------------------------------------------------------------------------------------


def handle_system(loop: ServerLoop, from_: Any, request: Any) -> None:
    """Answer one system message of a server."""
    what, argument = request if isinstance(request, tuple) and len(request) == 2 else (request, None)
    if loop.process.pid in loop.process.runtime.kernel and what not in ("get_state", "get_status"):
        _reply(from_, (ERROR, (Atom("not_allowed"), what)))
        return
    if what == "terminate":
        from .server_loop import Stop

        _reply(from_, OK)
        raise Stop(argument)
    if what == "get_state":
        _reply(from_, (OK, loop.server.get_state()))
    elif what == "replace_state":
        _reply(from_, _replace(loop, argument))
    elif what == "suspend":
        loop.suspended = True
        _reply(from_, OK)
    elif what == "resume":
        loop.suspended = False
        _reply(from_, OK)
    elif what == "get_status":
        _reply(from_, _status(loop))
    else:
        _reply(from_, (ERROR, (Atom("unknown_system_msg"), request)))


def _replace(loop: ServerLoop, function: Any) -> Any:
    if not callable(function):
        return (ERROR, Atom("not_supported"))  # a fun of an Erlang node can't run here
    try:
        loop.server.set_state(function(loop.server.get_state()))
    except Exception as error:
        logger.warning("replace_state of %s failed", loop.process, exc_info=error)
        return (ERROR, (Atom("callback_failed"), repr(error)))
    return (OK, loop.server.get_state())


def _status(loop: ServerLoop) -> Any:
    """What ``gen_server:format_status`` makes: ``supervisor:get_callback_module`` and others take it apart."""
    process = loop.process
    state = Atom("suspended" if loop.suspended else "running")
    parent = process.pid if loop.parent is None else loop.parent.pid
    ancestors = [] if loop.parent is None else [loop.parent.name or parent]
    module = Atom(loop.server._title)
    dictionary = [(Atom("$initial_call"), (module, Atom("init"), 1)), (Atom("$ancestors"), ancestors)]
    header = f"Status for generic server {process.name or io_lib.write(process.pid)}"
    data = [(_text("Status"), state), (_text("Parent"), parent), (_text("Logged events"), [])]
    misc = [
        (Atom("header"), _text(header)),
        (Atom("data"), data),
        (Atom("data"), [(_text("State"), loop.server.get_state())]),
        *loop.server._more_status(),
    ]
    return (
        Atom("status"),
        process.pid,
        (Atom("module"), Atom("gen_server")),
        [dictionary, state, parent, [], misc],
    )


def _text(text: str) -> list[int]:
    """A string of Erlang."""
    return [ord(character) for character in text]


def _reply(from_: Any, value: Any) -> None:
    try:
        reply(from_, value)
    except EncodeError:  # a state may hold anything
        reply(from_, sendable(value))
