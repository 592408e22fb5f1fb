"""Log lines of the command, on standard error: for people, or one JSON object each."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up(level: str, *, as_json: bool) -> None:
    """Show log lines of ``level`` and above, of the library and of the app alike."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter(_TEXT, datefmt="%H:%M:%S"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def off() -> None:
    """Show nothing."""
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message; ``peer``, ``reason`` and others as given."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

__all__ = ["JsonFormatter", "off", "set_up"]
