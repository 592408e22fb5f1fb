"""One established connection of a foreign node: messages out and in, and the ways in which it can end."""

from __future__ import annotations

import asyncio
from typing import Any

from barrel_p2p.term.types import Atom

from .behaviour import FRAGMENTS, Behaviour
from .handshake import Handshake
from .payload import NO_MESSAGE, Decoder, Encoder, stream_of
from .wire import AUTH_STREAMS, CONTROL, ForeignError, Wire

MONITOR_P, MONITOR_P_EXIT = 19, 21
TICK = b"\0\0\0\0"
DIALER_DATA = list(range(64, 0, -4))
ACCEPTOR_DATA = list(range(61, 0, -4))
LARGE_FRAME = 128 * 1024
FIRST_USER_STREAM = (68, 65)  # of the dialer, of the acceptor

__all__ = ["NO_MESSAGE", "Link"]


class Link:
    """A channel to one node.

    Attributes:
        broken: What the peer did that a real Erlang node would choke on; a test asserts that it stays empty.
        ticks: How many ticks came on stream 0.
        questions: How often it was asked for a sign of life.
        takes_streams: Whether user streams are expected; what comes on them then stays in ``wire.buffers``.
    """

    def __init__(self, wire: Wire, handshake: Handshake, key: bytes, behaviour: Behaviour, *, dialer: bool) -> None:
        self.wire = wire
        self.peer = handshake.peer_name
        self.peer_flags = handshake.peer_flags
        self.peer_creation = handshake.peer_creation
        self.peer_key = key
        self.broken = wire.broken
        self.ticks = 0
        self.questions = 0
        self.takes_streams = False
        self._next_stream = FIRST_USER_STREAM[not dialer]
        fragments = bool(handshake.flags & FRAGMENTS)
        self._streams = DIALER_DATA if dialer else ACCEPTOR_DATA
        self._encoder = Encoder(fragments=fragments, fragment_bytes=behaviour.fragment_bytes)
        self._fragments = fragments
        self._decoders: dict[int, Decoder] = {}
        self._messages: asyncio.Queue[tuple[tuple[Any, ...], Any]] = asyncio.Queue()
        self._zombie = False
        self._tasks = [
            asyncio.create_task(self._receive()),
            asyncio.create_task(self._keep_alive(behaviour.keep_alive)),
        ]

    # --- messages -----------------------------------------------------------------------------------------------------

    def send(self, control: tuple[Any, ...], message: Any = NO_MESSAGE) -> int:
        """Send on the data stream of this pair of processes; the stream's number."""
        stream = stream_of(control, self._streams)
        for frame in self._encoder.frames(control, message):
            self.wire.write(stream, frame)
        return stream

    async def recv_message(self, timeout: float = 5.0) -> tuple[tuple[Any, ...], Any]:
        """The next control tuple and its message (``NO_MESSAGE`` when it has none)."""
        async with asyncio.timeout(timeout):
            return await self._messages.get()

    async def recv_until(self, *ops: int, timeout: float = 5.0) -> tuple[tuple[Any, ...], Any]:
        """The next message with one of these operations; others are dropped."""
        async with asyncio.timeout(timeout):
            while True:
                control, message = await self._messages.get()
                if control[0] in ops:
                    return control, message

    def send_raw(self, data: bytes, stream: int | None = None) -> None:
        """Bytes as they are, on the first data stream unless told otherwise."""
        self.wire.write(self._streams[-1] if stream is None else stream, data)

    def next_stream(self) -> int:
        """The number of a new user stream of ours; nothing is sent."""
        self.takes_streams = True
        number, self._next_stream = self._next_stream, self._next_stream + 4
        return number

    @property
    def largest_frame(self) -> int:
        """Bytes of the longest frame that came."""
        return max((decoder.largest for decoder in self._decoders.values()), default=0)

    def tick(self) -> None:
        self.wire.write(CONTROL, TICK)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def disconnect(self) -> None:
        """``disconnect_node``: nothing is said, the connection lives on its PINGs, all that comes is dropped."""
        self._zombie = True
        self._decoders.clear()

    def close(self, code: int = 0, reason: str = "") -> None:
        """The rare end that is said: APPLICATION_CLOSE."""
        self._end_tasks()
        self.wire.close_app(code, reason)

    def vanish(self) -> None:
        """As if the host had lost its power: no packet more, in either direction."""
        self._end_tasks()
        self.wire.vanish()

    async def closed(self, timeout: float = 5.0) -> tuple[int, str]:
        """Wait until the peer ended the connection: code and reason of its close."""
        async with asyncio.timeout(timeout):
            while self.wire.ended is None:
                await self.wire.change()
        return self.wire.ended.error_code, self.wire.ended.reason_phrase

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        while self.wire.ended is None:
            for stream, buffer in list(self.wire.buffers.items()):
                if buffer and not (self.takes_streams and stream >= FIRST_USER_STREAM[stream & 1]):
                    data = bytes(buffer)
                    buffer.clear()
                    if not self._zombie:
                        self._take(stream, data)
            self._check_streams()
            await self.wire.change()

    def _take(self, stream: int, data: bytes) -> None:
        if stream == CONTROL:
            if data.strip(b"\0") or len(data) % 4:
                self.broken.append(f"stream 0 is for ticks once the handshake is over: {data[:40]!r} is dropped")
            self.ticks += len(data) // 4
        elif stream in AUTH_STREAMS or stream >= FIRST_USER_STREAM[stream & 1]:
            self.broken.append(f"unexpected data on stream {stream}: {data[:40]!r}")
        else:
            decoder = self._decoders.setdefault(stream, Decoder(fragments=self._fragments))
            small = decoder.largest <= LARGE_FRAME
            try:
                for message in decoder.receive(data):
                    if not self._answered(message[0]):
                        self._messages.put_nowait(message)
            except (ForeignError, ValueError, IndexError) as error:
                self.broken.append(f"stream {stream}: {error}")
                self.disconnect()  # "incompatible erlang": the link is gone, in silence
            if self._fragments and small and decoder.largest > LARGE_FRAME:
                self.broken.append(f"a frame of {decoder.largest} bytes takes time by its square over there: split it")

    def _answered(self, control: tuple[Any, ...]) -> bool:
        """A VM answers a monitor on a name that nobody has by itself; all other names count as taken here."""
        if control[0] != MONITOR_P or not str(control[2]).endswith("_nobody"):
            return False
        _, watcher, name, reference = control
        self.questions += 1
        self.send((MONITOR_P_EXIT, name, watcher, reference, Atom("noproc")))
        return True

    def _check_streams(self) -> None:
        for stream in (*self.wire.finished, *self.wire.reset):
            text = f"dist stream {stream} was finished or reset"
            if stream not in AUTH_STREAMS and stream < FIRST_USER_STREAM[stream & 1] and text not in self.broken:
                self.broken.append(text)

    async def _keep_alive(self, every: float) -> None:
        while self.wire.ended is None:
            await asyncio.sleep(every)
            self.wire.ping_once()
            if not self._zombie:
                self.tick()

    def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Stop without a word, for the end of a test."""
        self._end_tasks()
        await asyncio.gather(*self._tasks, return_exceptions=True)
