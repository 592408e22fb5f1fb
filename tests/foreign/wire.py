"""One QUIC connection on aioquic with the manners of erlang_quic; the rest of the package sees streams of bytes."""

from __future__ import annotations

import asyncio
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection

from .stack import erlang_limits

AUTH_STREAMS = (2, 3)
CONTROL = 0


class ForeignError(Exception):
    """The other node did what an Erlang node can't stand, or ended the connection."""


class Wire(QuicConnectionProtocol):
    """Streams by number; ``buffers`` holds what isn't read yet, ``broken`` tells what Erlang would choke on."""

    def __init__(self, quic: QuicConnection, stream_handler: Any = None) -> None:
        super().__init__(quic, stream_handler)
        self.broken: list[str] = []
        self.buffers: dict[int, bytearray] = {}
        self.first_stream: int | None = None
        self.finished: set[int] = set()
        self.reset: dict[int, int] = {}
        self.handshaken = False
        self.ended: events.ConnectionTerminated | None = None
        self.deaf = False
        self.mute = False  # listens, but sends nothing more on its streams
        self._changed = asyncio.Event()
        erlang_limits(quic, self.broken)

    # --- sending ------------------------------------------------------------------------------------------------------

    def write(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        """One STREAM frame in a packet of its own, as erlang_quic sends (as long as it fits into one)."""
        if not self.mute:
            self._quic.send_stream_data(stream, data, end_stream=fin)
            self.transmit()

    def ping_once(self) -> None:
        self._quic.send_ping(0)
        self.transmit()

    def close_app(self, code: int = 0, reason: str = "") -> None:
        """APPLICATION_CLOSE."""
        self._quic.close(error_code=code, reason_phrase=reason)
        self.transmit()

    def vanish(self) -> None:
        """Not a packet more: what the other side sees of ``kill -9`` of the host."""
        self.deaf = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def read_all(self, stream: int, timeout: float) -> bytes:
        """Everything that has come on a stream and wasn't read; waits until that is something."""
        async with asyncio.timeout(timeout):
            while not self.buffers.get(stream):
                if self.ended is not None:
                    raise ForeignError(f"connection ended: {self.ended}")
                if stream in self.finished:
                    raise ForeignError(f"stream {stream} was finished")
                await self.change()
        data = bytes(self.buffers[stream])
        self.buffers[stream].clear()
        return data

    async def read_exactly(self, stream: int, count: int, timeout: float) -> bytes:
        data = b""
        while len(data) < count:
            data += await self.read_all(stream, timeout)
        self.buffers[stream] = bytearray(data[count:]) + self.buffers[stream]
        return data[:count]

    async def up(self, timeout: float) -> None:
        """Until the QUIC handshake is done."""
        async with asyncio.timeout(timeout):
            while not self.handshaken:
                if self.ended is not None:
                    raise ConnectionError(self.ended.reason_phrase or hex(self.ended.error_code))
                await self.change()

    async def change(self) -> None:
        """Until anything happened on the connection."""
        self._changed.clear()
        await self._changed.wait()

    def datagram_received(self, data: Any, addr: Any) -> None:
        if not self.deaf:
            super().datagram_received(data, addr)

    def transmit(self) -> None:
        if not self.deaf:
            super().transmit()

    def quic_event_received(self, event: events.QuicEvent) -> None:
        match event:
            case events.StreamDataReceived(stream_id=stream, data=data, end_stream=fin):
                if self.first_stream is None:
                    self.first_stream = stream
                self.buffers.setdefault(stream, bytearray()).extend(data)
                if fin:
                    self.finished.add(stream)
            case events.StreamReset(stream_id=stream, error_code=code):
                self.reset[stream] = code
            case events.HandshakeCompleted():
                self.handshaken = True
            case events.ConnectionTerminated():
                self.ended = event
        self._changed.set()
