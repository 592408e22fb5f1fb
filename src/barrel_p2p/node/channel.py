"""One established distribution channel to a peer.

A channel hands control tuples and messages to its connection and what arrives to the node's dispatcher. It keeps two
promises: ``send`` never blocks, and memory stays bounded. Above ``send_high_water`` unsent bytes the channel is busy
and its senders wait at their next await point, as Erlang suspends a sender on a busy port; above ``send_hard_limit``,
which only senders without any await point reach, the channel is closed with an error that says so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from barrel_p2p.errors import ChannelOverflow
from barrel_p2p.net.connection import CloseKind, CloseReason, Connection
from barrel_p2p.net.quic import NO_MESSAGE
from barrel_p2p.process.gate import Gate
from barrel_p2p.process.process import BoundedProcess, Process
from barrel_p2p.proto.auth import Authenticated
from barrel_p2p.proto.control import reg_send
from barrel_p2p.term.types import Atom, Pid

log = logging.getLogger("barrel_p2p.channel")

Control = tuple[Any, ...]
Batch = Sequence[tuple[Control, Any]]


class ChannelOwner(Protocol):
    """What a channel reports to."""

    def received(self, channel: Channel, batch: Batch) -> None: ...

    def channel_closed(self, channel: Channel, reason: CloseReason) -> None: ...


class Channel:
    """The way to one peer while it is up.

    Attributes:
        name: The peer's node name, authenticated.
        creation: The incarnation of the peer, from its handshake.
        flags: What both sides can do (``proto.flags``).
        gate: Closed while the channel is busy.
        unlinks: Links being removed: (local pid, remote pid) -> id of the UNLINK_ID not yet acknowledged.
        number: What the table of connections knows it by.
        proven: What the key exchange proved, None on a carrier without one.
        system_messages: How many of the messages were the library's own (membership, gossip), either way.
    """

    __slots__ = (
        "_busy_since",
        "_busy_time",
        "_hard_limit",
        "_high_water",
        "_owner",
        "connection",
        "creation",
        "flags",
        "gate",
        "name",
        "number",
        "proven",
        "public_key",
        "received_messages",
        "sent_messages",
        "system_messages",
        "unlinks",
        "waiting_for",
    )

    def __init__(
        self,
        name: Atom,
        connection: Connection,
        owner: ChannelOwner,
        *,
        flags: int,
        creation: int,
        public_key: bytes | None,
        high_water: int,
        hard_limit: int,
    ) -> None:
        self.name = name
        self.connection = connection
        self.number = 0
        self.flags = flags
        self.creation = creation
        self.public_key = public_key
        self.proven: Authenticated | None = None
        self.gate = Gate()
        self.unlinks: dict[tuple[Pid, Pid], int] = {}
        self.waiting_for: dict[
            BoundedProcess, Callable[[], None]
        ] = {}  # full mailboxes on account of which we stopped reading
        self.sent_messages = 0
        self.received_messages = 0
        self.system_messages = 0
        self._owner = owner
        self._busy_since: float | None = None
        self._busy_time = 0.0
        self._high_water = high_water
        self._hard_limit = hard_limit

    def send(self, sender: Process | None, control: Control, message: Any = NO_MESSAGE) -> None:
        """Queue one message. Raises EncodeError, before anything is queued, when it has no exact form."""
        queued = self.connection.send(control, message)
        self.sent_messages += 1
        if queued > self._high_water:
            self._busy(sender, queued)

    def send_to_name(self, sender: Pid, name: Atom, message: Any) -> None:
        """Send a message of the library's own to what has ``name`` over there; nobody is suspended for it."""
        self.system_messages += 1
        self.send(None, reg_send(sender, name), message)

    @property
    def user_messages(self) -> int:
        """Messages of the users' processes, either way."""
        return self.sent_messages + self.received_messages - self.system_messages

    @property
    def busy_time(self) -> float:
        """Seconds in which senders had to wait, as one."""
        return self._busy_time + (0.0 if self._busy_since is None else time.monotonic() - self._busy_since)

    def _busy(self, sender: Process | None, queued: int) -> None:
        if queued > self._hard_limit:
            text = (
                f"{queued} bytes wait for {self.name}, more than send_hard_limit={self._hard_limit}: "
                "its senders never awaited; the channel is closed. "
                "Let them await now and then while sending (asyncio.sleep(0) is enough), or raise send_hard_limit"
            )
            log.error("%s", text, extra={"peer": self.name})
            self.close(text)
            raise ChannelOverflow(text)
        if self._busy_since is None:
            self._busy_since = time.monotonic()
        self.gate.closed = True
        if sender is not None:
            sender.suspend(self.gate)

    def close(self, reason: str, kind: CloseKind = "local") -> None:
        """Close the connection; links and monitors to the peer fire with noconnection."""
        self.connection.close(0, reason)
        self.closed(CloseReason(kind, 0, reason))

    def break_off(self, what: str) -> None:
        """The peer broke the protocol: close its connection, and take it down."""
        self.connection.close(0, "protocol error")
        self.closed(CloseReason("protocol", 0, what))

    # --- what the connection reports --------------------------------------------------------------------------------

    def messages(self, batch: Batch) -> None:
        self.received_messages += len(batch)
        self._owner.received(self, batch)

    def writable(self) -> None:
        self._busy_time, self._busy_since = self.busy_time, None
        self.gate.open()

    def stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        """Late bytes on a handshake stream; nothing after the handshake has a meaning there but ticks."""

    def closed(self, reason: CloseReason) -> None:
        self._busy_time, self._busy_since = self.busy_time, None
        self.gate.open()
        for process, resume in self.waiting_for.items():
            if resume in process.on_room:
                process.on_room.remove(resume)
        self.waiting_for.clear()
        self._owner.channel_closed(self, reason)

    # --- mailboxes that are full ------------------------------------------------------------------------------------

    def wait_for_room(self, process: Process) -> None:
        """Stop reading from the peer until ``process``, which bounds its mailbox, has room again."""
        if not isinstance(process, BoundedProcess) or process in self.waiting_for:
            return

        def resume() -> None:
            del self.waiting_for[process]
            if not self.waiting_for:
                self.connection.resume()

        if not self.waiting_for:
            self.connection.pause()
        self.waiting_for[process] = resume
        process.on_room.append(resume)
