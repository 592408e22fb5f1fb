"""One user stream of a QUIC connection: bytes both ways, each way with an end of its own.

Bytes wait in the extension until they are asked for; so a slow reader fills its own window and stalls its own writer.
What is written goes to a queue of the stream, and its writer waits while that is long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from barrel_p2p.errors import (
    StreamClosed,
    StreamError,
    StreamLost,
    StreamRefused,
    StreamReset,
    StreamStopped,
)

if TYPE_CHECKING:
    from barrel_p2p import _native

#: What a stream is reset with that nobody accepts; Erlang's number.
REFUSED: Final = 0x100
#: The most that one read takes from the extension: enough for a full turn of the loop (a guess, 1 MiB was no faster).
READ_SIZE: Final = 256 << 10
#: Bytes after which a reader lets the loop turn, although there is more: others have their turn (a guess).
TURN_BYTES: Final = 512 << 10
#: Bytes queued on one stream at which its writers wait, ``stream_high_water`` of the extension.
HIGH_WATER: Final = 1 << 20
#: A buffer that may change is copied in pieces of this size, each when there is room.
COPY_SIZE: Final = 256 << 10

_FINISHED: Final = -1
_UNKNOWN: Final = -2

Buffer = bytes | bytearray | memoryview


class ByteStream:
    """A stream as the connection knows it; users get ``services.stream.Stream``.

    Attributes:
        id: Its number in QUIC.
        on_end: Called once each, when both ways have ended or the connection has.
    """

    __slots__ = (
        "_acknowledged",
        "_at_end",
        "_left",
        "_lost",
        "_native",
        "_read_error",
        "_reader",
        "_room",
        "_unbroken",
        "_write_error",
        "_writing",
        "id",
        "on_end",
    )

    def __init__(self, native: _native.QuicStream) -> None:
        self.id: Final = native.id
        self.on_end: list[Callable[[], None]] = []
        self._native = native
        self._left = b""  # what had arrived when the connection ended
        self._at_end = False  # of the peer's half
        self._read_error: StreamError | None = None
        self._write_error: StreamError | None = None
        self._writing = True  # our half has not ended
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._acknowledged: asyncio.Future[None] | None = None
        self._lost = False
        self._unbroken = 0  # bytes read since the loop turned

    # --- reading ----------------------------------------------------------------------------------------------------

    async def read(self, limit: int = READ_SIZE) -> bytes:
        """What has arrived, at least a byte and at most ``limit``; ``b""`` at the end."""
        while True:
            if self._left:
                data, self._left = self._left[:limit], self._left[limit:]
                return data
            if self._at_end:
                return b""
            if self._read_error is not None:
                raise self._read_error
            if self._unbroken >= TURN_BYTES:
                self._unbroken = 0
                await asyncio.sleep(0)
            data, end = self._native.read(min(limit, READ_SIZE))
            if end is not None:
                self._ended(end)
            if data:
                self._unbroken += len(data)
                return data
            if end is None:
                await self._wait_for_data()

    async def _wait_for_data(self) -> None:
        if self._reader is not None:
            raise StreamError("another task reads this stream; only one may, or the bytes would be mixed up")
        self._unbroken = 0
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _ended(self, end: int) -> None:
        if end == _FINISHED:
            self._at_end = True
        elif end == _UNKNOWN:
            self._read_error = StreamClosed("nothing can be read from this stream any more")
        elif end == REFUSED:
            self._read_error = _refused()
        else:
            self._read_error = StreamReset(f"the peer reset the stream with code {end:#x}", end)
        self._look_at_end()

    # --- writing ----------------------------------------------------------------------------------------------------

    async def write(self, data: Buffer) -> None:
        """Queue bytes; waits while much is queued already, and until little enough of ``data`` is left."""
        if type(data) is bytes:
            await self._write(data)
            return
        view = memoryview(data).cast("B")
        for start in range(0, len(view), COPY_SIZE):
            await self._write(view[start : start + COPY_SIZE])

    async def _write(self, data: Buffer) -> None:
        self.check_writable()
        while self._room is not None:
            await asyncio.shield(self._room)
            self.check_writable()
        if self._native.write(data) >= HIGH_WATER:
            self._room = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._room)
            if self._write_error is not None:
                raise self._write_error

    def check_writable(self) -> None:
        if self._write_error is not None:
            raise self._write_error
        if not self._writing:
            raise StreamClosed("this side of the stream is closed, nothing more can be written")

    def finish(self) -> None:
        """End our half after what is queued."""
        if self._writing:
            self._writing = False
            self._native.finish()

    async def acknowledged(self) -> None:
        """Wait until all that was written, and its end, is with the peer."""
        if self._write_error is None and self._acknowledged is None:
            self._acknowledged = asyncio.get_running_loop().create_future()
        if self._write_error is None and self._acknowledged is not None:
            await asyncio.shield(self._acknowledged)
        if self._write_error is not None:
            raise self._write_error

    # --- ends -------------------------------------------------------------------------------------------------------

    def reset(self, code: int) -> None:
        """End our half at once; what is queued is dropped."""
        if not self._sent_all():
            self._native.reset(code)
            self._writing = False
            self._fail_writing(StreamClosed("this side has reset the stream"))

    def stop(self, code: int) -> None:
        """Take nothing more of the peer's half."""
        self._left = b""
        if not self._at_end and self._read_error is None:
            self._read_error = StreamClosed("this side reads no more of the stream")
            self._native.stop(code)
            self._wake_reader()
            self._look_at_end()

    def refuse(self) -> None:
        """Nobody takes this stream, which the peer opened."""
        self._native.refuse()

    @property
    def at_end(self) -> bool:
        """Whether the peer's half was read to its end."""
        return self._at_end and not self._left

    @property
    def writing(self) -> bool:
        """Whether our half is open."""
        return self._writing and self._write_error is None

    def _sent_all(self) -> bool:
        done = self._acknowledged is not None and self._acknowledged.done()
        return done or self._write_error is not None

    # --- what the connection reports --------------------------------------------------------------------------------

    def readable(self) -> None:
        self._wake_reader()

    def writable(self) -> None:
        if self._room is not None:
            room, self._room = self._room, None
            if not room.done():
                room.set_result(None)

    def finished(self) -> None:
        if self._acknowledged is None:
            self._acknowledged = asyncio.get_running_loop().create_future()
        if not self._acknowledged.done():
            self._acknowledged.set_result(None)
        self._look_at_end()

    def stopped(self, code: int) -> None:
        if code == REFUSED:
            self._fail_writing(_refused())
        else:
            self._fail_writing(StreamStopped(f"the peer reads no more of the stream, code {code:#x}", code))

    def rest(self, data: bytes, end: int | None) -> None:
        """The connection ended, and this is what had arrived."""
        self._left += data
        if end is not None:
            self._ended(end)

    def lost(self, why: str) -> None:
        if self._lost:
            return
        self._lost = True
        error = StreamLost(f"the connection of this stream ended: {why}")
        if not self._at_end and self._read_error is None:
            self._read_error = error
        self._wake_reader()
        self._fail_writing(error)

    def _fail_writing(self, error: StreamError) -> None:
        if not self._sent_all():
            self._write_error = error
        self.writable()
        if self._acknowledged is not None and not self._acknowledged.done():
            self._acknowledged.set_result(None)
        self._look_at_end()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _look_at_end(self) -> None:
        reading_over = self._at_end or self._read_error is not None
        if self._lost or (reading_over and self._sent_all()):
            hooks, self.on_end = self.on_end, []
            for hook in hooks:
                hook()


def _refused() -> StreamRefused:
    return StreamRefused("nobody accepts this tag over there (code 0x100)", REFUSED)


__all__ = ["REFUSED", "Buffer", "ByteStream"]
