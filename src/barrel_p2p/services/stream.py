"""``Stream``: a tagged byte stream to a process on another node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.errors import StreamClosed
from barrel_p2p.net.quic_stream import READ_SIZE, Buffer, ByteStream
from barrel_p2p.process.process import Process
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.term.types import Atom, Pid

if TYPE_CHECKING:
    from barrel_p2p.process.signals import Monitor

#: A file is read in pieces of this size, the next while the last is being sent (a guess; 4 MiB was no faster).
FILE_PIECE: Final = 1 << 20


class Stream:
    """Bytes both ways between two nodes, beside the messages of the same connection.

    ::

        async with await node.streams.open("backup", "bob@127.0.0.1") as stream:
            await stream.write(b"...")
            await stream.close()                 # our half is complete; what they send goes on
            answer = await stream.read()

    As a context manager it ends well when the block does: our half is closed, the rest of theirs is not wanted. When
    the block raises, the stream is reset. It is an async iterator over what arrives.

    Attributes:
        tag: What it is for.
        peer: The node at the other end.
        id: Its number within the connection.
        owner: The process whose death resets it; at first the one that opened it or its handler.
    """

    __slots__ = ("_bytes", "_monitor", "_runtime", "id", "owner", "peer", "tag")

    def __init__(self, stream: ByteStream, runtime: Runtime, tag: bytes, peer: Atom) -> None:
        self._bytes = stream
        self._runtime = runtime
        self._monitor: Monitor | None = None
        self.tag: Final = tag
        self.peer: Final = peer
        self.id: Final = stream.id
        self.owner: Pid | None = None
        stream.on_end.append(self._forget_owner)

    def __repr__(self) -> str:
        return f"<Stream {self.tag!r} with {self.peer}, number {self.id}>"

    # --- bytes ------------------------------------------------------------------------------------------------------

    async def read(self, n: int = -1) -> bytes:
        """Read up to ``n`` bytes, or to the end of the stream if ``n`` is negative.

        Args:
            n: Returns as soon as there is at least one byte, with at most ``n``; 0 returns ``b""``.

        Returns:
            The bytes; ``b""`` once the peer has closed its half and all of it was read.

        Raises:
            StreamReset: The peer ended the stream before it was complete.
            StreamRefused: Nobody accepts the tag there.
            StreamClosed: ``stop``, ``reset`` or the end of the block said that no more is read.
            StreamLost: The connection ended. What had arrived before that is returned first.
        """
        if n == 0:
            return b""
        if n > 0:
            return await self._bytes.read(n)
        pieces = []
        while piece := await self._bytes.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def readexactly(self, n: int) -> bytes:
        """Read ``n`` bytes. Raises ``asyncio.IncompleteReadError`` if the stream ends before, else as ``read``."""
        pieces: list[bytes] = []
        missing = n
        while missing > 0:
            piece = await self._bytes.read(missing)
            if not piece:
                raise asyncio.IncompleteReadError(b"".join(pieces), n)
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._bytes.read(READ_SIZE):
            yield piece

    async def write(self, data: Buffer) -> None:
        """Send bytes; waits while a megabyte of this stream is on its way to QUIC.

        A ``bytes`` object is sent from where it is, without a copy, and kept alive until the peer has it; other buffers
        are copied before this returns.

        Raises:
            StreamClosed: This half was closed or reset before.
            StreamStopped: The peer reads no more.
            StreamRefused: Nobody accepts the tag there.
            StreamLost: The connection ended.
        """
        await self._bytes.write(data)

    async def send_file(self, path: str | os.PathLike[str], progress: Callable[[int, int], Any] | None = None) -> int:
        """Send a file's content; the stream stays open.

        Args:
            path: The file; it is read in a thread, so that the loop turns meanwhile.
            progress: Called with the bytes sent so far and the size of the file, after each megabyte.

        Returns:
            The number of bytes sent.

        Raises:
            OSError: The file can't be read.
        """
        sent = 0
        with await asyncio.to_thread(Path(path).open, "rb", 0) as file:
            size = os.fstat(file.fileno()).st_size
            ahead = asyncio.ensure_future(asyncio.to_thread(file.read, FILE_PIECE))
            try:
                while piece := await ahead:
                    ahead = asyncio.ensure_future(asyncio.to_thread(file.read, FILE_PIECE))
                    await self._bytes.write(piece)
                    sent += len(piece)
                    if progress is not None:
                        progress(sent, size)
            finally:
                # The thread must be out of the file before that is closed.
                await asyncio.wait([ahead])
                if not ahead.cancelled():
                    ahead.exception()
        return sent

    # --- ends -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End our half, and wait until the peer has all of it. Idempotent.

        The peer's node has it then; whether the process there has read it, only an answer can tell. Its half goes on.

        Raises:
            StreamStopped: The peer read no more before everything was with it.
            StreamLost: The connection ended before that.
        """
        self._bytes.finish()
        await self._bytes.acknowledged()

    def reset(self, code: int = 0) -> None:
        """End both ways at once; the peer's reads raise StreamReset with ``code``. Idempotent.

        Args:
            code: 0 to 2**62 - 1, for the peer's application.
        """
        _check(code)
        self._bytes.reset(code)
        self._bytes.stop(code)

    def stop(self, code: int = 0) -> None:
        """Read no more: the peer's writes raise StreamStopped with ``code``. What we write goes on. Idempotent."""
        _check(code)
        self._bytes.stop(code)

    def leave(self) -> None:
        """What the end of a block or handler does: our half is closed without waiting, the rest of theirs not read."""
        self._bytes.finish()
        self._bytes.stop(0)
        self._forget_owner()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.reset(0)
            return
        try:
            if self._bytes.writing:
                await self.close()
        finally:
            self.leave()

    # --- ownership --------------------------------------------------------------------------------------------------

    def give_to(self, pid: Pid) -> None:
        """Make ``pid`` the owner: the stream is reset when that process dies, and no longer when this one does.

        Args:
            pid: A live process of this node.

        Raises:
            StreamClosed: There is no such process here; the owner stays as it was.
        """
        process = self._runtime.find(pid)
        if process is None:
            raise StreamClosed(f"{pid!r} is no live process of this node, so it can't own the stream")
        self.own(process)

    def own(self, process: Process) -> None:
        self._forget_owner()
        self.owner = process.pid
        runtime = self._runtime
        self._monitor = runtime.monitor(runtime.pid, self._owner_died, process.pid, runtime.reference())

    def _owner_died(self, reason: Any) -> None:
        self._monitor = None
        self.owner = None
        if self._bytes.writing:
            self._bytes.reset(0)
        self._bytes.stop(0)

    def _forget_owner(self) -> None:
        if self._monitor is not None:
            monitor, self._monitor = self._monitor, None
            self._runtime.end_monitor(monitor)


def _check(code: int) -> None:
    if not 0 <= code < 1 << 62:
        raise ValueError(f"the code of a reset is a number from 0 to 2**62 - 1, not {code!r}")


__all__ = ["Stream"]
