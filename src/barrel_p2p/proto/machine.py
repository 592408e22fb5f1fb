"""What the byte machines of this package share: their two common events and the shape they all have.

A byte machine takes bytes (``receive_data``), offers bytes (``data_to_send``) and tells what happened one
event at a time (``next_event``); "I need more bytes" is the event ``NeedData``, not an exception. Nothing
that a peer sends makes it raise: a broken rule is the event ``Failed``. After ``Failed`` or its success event
a machine is over: it ignores input and answers ``NeedData``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NeedData:
    """Nothing to tell until more bytes, an answer of the driver, or the deadline."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange is over and the connection must be closed (after sending what ``data_to_send`` still
    holds).

    ``reason`` is a short word for metrics and for ``AuthError``/``HandshakeError``; ``message`` says whose
    fault it is and what to do; ``details`` has the values in it, for programs (see the two errors).
    """

    reason: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)


NEED_DATA = NeedData()

__all__ = ["NEED_DATA", "Failed", "NeedData"]
