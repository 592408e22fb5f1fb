"""The way to a peer while its channel is being set up: what is sent meanwhile waits here, in order and within a
bound."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from barrel_p2p.errors import ChannelOverflow
from barrel_p2p.net.quic import NO_MESSAGE
from barrel_p2p.process.gate import Gate
from barrel_p2p.process.process import Process
from barrel_p2p.proto.control import reg_send, without_token
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, Pid

if TYPE_CHECKING:
    from barrel_p2p.node.channel import Channel


class Pending:
    """Queue and meeting point of one peer that is being connected.

    Messages are encoded when they are queued: a term without an exact form raises at ``send``, and a list that its
    sender changes afterwards arrives as it was.
    """

    __slots__ = (
        "_codec",
        "_hard_limit",
        "_high_water",
        "_queue",
        "_size",
        "future",
        "gate",
        "name",
        "unlinks",
    )

    def __init__(self, name: Atom, codec: Codec, *, high_water: int, hard_limit: int) -> None:
        self.name = name
        self.gate = Gate()
        self.unlinks: dict[tuple[Pid, Pid], int] = {}
        self.future: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self.future.add_done_callback(_retrieve)
        self._codec = codec
        self._queue: list[tuple[bytes, bytes | None]] = []
        self._size = 0
        self._high_water = high_water
        self._hard_limit = hard_limit

    def send(self, sender: Process | None, control: tuple[Any, ...], message: Any = NO_MESSAGE) -> None:
        """Queue one message. Raises EncodeError or, past the hard limit, ChannelOverflow; then nothing is queued."""
        entry = (
            self._codec.encode(control),
            None if message is NO_MESSAGE else self._codec.encode(message),
        )
        size = self._size + len(entry[0]) + (len(entry[1]) if entry[1] is not None else 0)
        if size > self._hard_limit:
            raise ChannelOverflow(
                f"{self._size} bytes already wait for the connection to {self.name}, which is still being set up; "
                f"this message would pass send_hard_limit={self._hard_limit} and was not sent: let senders await now "
                "and then"
            )
        self._queue.append(entry)
        self._size = size
        if size > self._high_water:
            self.gate.closed = True
            if sender is not None:
                sender.suspend(self.gate)

    def send_to_name(self, sender: Pid, name: Atom, message: Any) -> None:
        """Queue a message of the library's own."""
        self.send(None, reg_send(sender, name), message)

    def __len__(self) -> int:
        return len(self._queue)

    def hand_over(self, channel: Channel) -> None:
        """Send everything queued on ``channel``, release the waiting senders and those who await the connection."""
        channel.unlinks.update(self.unlinks)
        is_python = bool(channel.flags & Flags.PYTHON)
        queue, self._queue = self._queue, []
        try:
            for encoded, message in queue:
                control = self._codec.decode(encoded)
                if not is_python:
                    control = without_token(control)
                channel.connection.send(control, NO_MESSAGE if message is None else self._codec.decode(message))
                channel.sent_messages += 1
        finally:
            self.gate.open()
            if not self.future.done():
                self.future.set_result(channel)

    def fail(self, error: Exception) -> None:
        self._queue.clear()
        self.gate.open()
        if not self.future.done():
            self.future.set_exception(error)


def _retrieve(future: asyncio.Future[Channel]) -> None:
    """Nobody has to await a connection that a plain send asked for."""
    if not future.cancelled():
        future.exception()
