"""``logger_proxy``: takes what Erlang processes log whose group leader is a process of this node.

OTP's ``logger`` sends such events to the node of the leader, and its default handler keeps them out of the local log
(the filter ``remote_gl``), so an error in code that Python runs over there would be seen nowhere. Here the events
become records of ``logging``. A report is written as a term: the fun of its metadata that would format it
(``report_cb``) can't run here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from barrel_p2p.process.api import receive
from barrel_p2p.shown import printable
from barrel_p2p.term import io_lib
from barrel_p2p.term.types import Pid

log = logging.getLogger("barrel_p2p.erlang")

#: Events in the mailbox, more are lost: OTP's proxy loses them, too, when it has more than 1,000 (``drop_mode_qlen``).
MAX_WAITING: Final = 1_000
MAX_TEXT: Final = 10_000  # characters of one event; a guess

LEVELS: Final = {
    "emergency": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "critical": logging.CRITICAL,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "notice": logging.INFO,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


async def serve() -> None:
    """The process ``logger_proxy``."""
    while True:
        match await receive():
            case ("log", str(level), form, list(arguments), Mapping() as meta):
                _log(level, _text(form, arguments), meta)
            case ("log", str(level), text_or_report, Mapping() as meta):
                _log(level, _text(text_or_report, None), meta)


def _log(level: str, text: str, meta: Mapping[Any, Any]) -> None:
    number = LEVELS.get(level)
    if number is not None:
        lines = "\n    ".join(map(printable, text.split("\n")))  # indented: none looks like a record of its own
        pid = next((value for key, value in meta.items() if key == "pid" and isinstance(value, Pid)), None)
        log.log(number, "%s: %s", pid, lines, extra={} if pid is None else {"peer": pid.node})


def _text(what: Any, arguments: list[Any] | None) -> str:
    """A format with its arguments, a text, or a report; nothing that it says makes this fail."""
    try:
        if arguments is not None:
            return io_lib.format(what, arguments, limit=MAX_TEXT)
        if isinstance(what, (bytes, str)) or (isinstance(what, list) and what and not isinstance(what[0], tuple)):
            return io_lib.chars(what, limit=MAX_TEXT)
    except ValueError:
        if arguments is not None:
            what = [what, *arguments]
    return io_lib.write(what, strings=True, limit=MAX_TEXT)


__all__ = ["MAX_WAITING", "serve"]
