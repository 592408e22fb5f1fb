"""What a channel, and the queue of a channel that is still being set up, have in common."""

from __future__ import annotations

from typing import Any, Protocol

from barrel_p2p.net.quic import NO_MESSAGE
from barrel_p2p.process.process import Process
from barrel_p2p.term.types import Atom, Pid


class Route(Protocol):
    """The way to one node."""

    @property
    def unlinks(self) -> dict[tuple[Pid, Pid], int]:
        """Links being removed: (local pid, remote pid) -> id of the UNLINK_ID not yet acknowledged."""

    def send(self, sender: Process | None, control: tuple[Any, ...], message: Any = NO_MESSAGE) -> None:
        """Queue one message; never waits. A busy route suspends ``sender``. Raises EncodeError before anything is
        queued."""

    def send_to_name(self, sender: Pid, name: Atom, message: Any) -> None:
        """Queue a message of the library's own to what has ``name`` over there; nobody is suspended for it."""
