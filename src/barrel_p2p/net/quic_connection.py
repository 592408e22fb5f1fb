"""One QUIC connection of a peer: its handshake, its messages, its user streams, and how it moves."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p import _native
from barrel_p2p.errors import MigrationError, MigrationTimeout, NotConnected, StreamLost
from barrel_p2p.net import connection
from barrel_p2p.net.connection import Batch, CloseReason, Handler
from barrel_p2p.net.quic_stream import ByteStream

if TYPE_CHECKING:
    from barrel_p2p.net.quic import QuicTransport


class Connection(connection.Connection):
    """Made by ``QuicTransport``.

    Attributes:
        certificate_der: The acceptor's certificate, ours or the peer's; its hash is the channel binding.
        on_stream: Called with each user stream that the peer opens, and its tag; without it all are refused.
        address: Where we dialed it: its own address even where ``peer_address`` is that of a relay.
    """

    __slots__ = (
        "_available",
        "_early",
        "_handler",
        "_moved",
        "_native",
        "_streams",
        "_transport",
        "address",
        "certificate_der",
        "closed",
        "on_stream",
        "send",
        "setup_seconds",
    )

    def __init__(self, native: _native.QuicConnection, transport: QuicTransport) -> None:
        self._native = native
        self._transport = transport
        self._handler: Handler | None = None
        self._early: list[Callable[[Handler], None]] = []
        self.closed = False
        self.certificate_der: bytes | None = None
        self.setup_seconds = 0.0
        self.on_stream: Callable[[ByteStream, bytes], None] | None = None
        self.address: tuple[str, int] | None = None
        self._streams: dict[int, ByteStream] = {}
        self._available: asyncio.Future[None] | None = None
        self._moved: asyncio.Future[None] | None = None
        self.send = native.send  # the extension's own method: a wrapper would double its cost

    @property
    def handler(self) -> Handler | None:
        return self._handler

    @handler.setter
    def handler(self, handler: Handler) -> None:
        self._handler = handler
        if self._early:
            self._transport.loop.call_soon(self._replay)

    @property
    def is_dialer(self) -> bool:
        return self._native.is_dialer

    @property
    def peer_address(self) -> tuple[str, int]:
        return self._native.peer_address

    @property
    def local_address(self) -> tuple[str, int]:
        return self._native.local_address

    @property
    def queued(self) -> int:
        return self._native.queued

    # --- streams, before the distribution starts ------------------------------------------------------------

    def open_uni(self) -> int:
        """Reserve our next unidirectional stream; returns its id. NotConnected if the peer allows none."""
        return self._native.open_uni()

    def open_bi(self) -> int:
        """Reserve our next bidirectional stream; returns its id. NotConnected if the peer allows none."""
        return self._native.open_bi()

    def write(self, stream: int, data: bytes) -> None:
        self._native.write(stream, data)

    def finish(self, stream: int) -> None:
        """End a stream of ours after what is queued on it."""
        self._native.write(stream, b"", True)

    def reset(self, stream: int, code: int) -> None:
        """End a stream of ours at once; what is queued on it is dropped."""
        self._native.reset(stream, code)

    # --- the distribution -----------------------------------------------------------------------------------

    def start_dist(
        self,
        *,
        fragments: bool,
        atom_cache: bool = False,
        max_frame: int,
        exact_empty_str: bool = False,
        received: bytes = b"",
    ) -> None:
        assert not atom_cache  # no node offers it over QUIC
        # nothing that matters is in ``received``: the handshake has a stream of its own
        codec = self._transport.codec_for(exact_empty_str)
        self._native.start_dist(codec, fragments=fragments, max_frame=max_frame)

    def pause(self) -> None:
        self._native.pause()

    def resume(self) -> None:
        self._native.resume()

    async def probe(self, timeout: float) -> bool:
        before = self._native.ping()
        deadline = self._transport.loop.time() + timeout
        while not self.closed:
            if self._native.frames_received != before:
                return True
            if self._transport.loop.time() >= deadline:
                return False
            await asyncio.sleep(min(0.01, timeout))
        return False

    def close(self, code: int, reason: str) -> None:
        """Close it and tell the peer; even data on its way may be overtaken by the close."""
        if not self.closed:
            self._native.close(code, reason)
            self.end(reason)

    def stats(self) -> dict[str, int]:
        """Counters of QUIC: rtt_us, cwnd, mtu, packets_sent, packets_lost, bytes_sent, bytes_received, ...

        ``packets_sent`` matters for peers on Erlang's QUIC, which survives only one key update: reconnect
        before it reaches 8 million.
        """
        return self._native.stats()

    # --- user streams ---------------------------------------------------------------------------------------

    async def open_stream(self) -> ByteStream:
        """Open a stream; waits while the peer allows no further one. StreamLost if the connection ends meanwhile."""
        while not self.closed:
            native = self._native.open_stream()
            if native is not None:
                return self._new_stream(native)
            if self._available is None:
                self._available = self._transport.loop.create_future()
            await asyncio.shield(self._available)
        raise StreamLost("the connection is closed")

    @property
    def streams(self) -> int:
        return len(self._streams)

    def _new_stream(self, native: _native.QuicStream) -> ByteStream:
        stream = ByteStream(native)
        self._streams[stream.id] = stream
        stream.on_end.append(functools.partial(self._forget_stream, stream.id))
        return stream

    def _forget_stream(self, number: int) -> None:
        self._streams.pop(number, None)

    def refuse(self, stream: ByteStream) -> None:
        """Nobody takes a stream of the peer's: it ends with code 0x100, as Erlang's streams do."""
        self._streams.pop(stream.id, None)
        stream.refuse()

    # --- moving ---------------------------------------------------------------------------------------------

    async def migrate(self, timeout: float, *, to: tuple[str, int] | None = None, fd: int | None = None) -> None:
        """Move to a new local socket, and wait until the peer has answered there.

        Args:
            timeout: Seconds; then the connection goes back to the old socket.
            to: Where packets go from now on, such as another relay. Default: where they went before.
            fd: A bound UDP socket of the caller's to use instead of a new one; it stays the caller's to close.

        Raises:
            MigrationTimeout: Nothing came on the new path in time.
            MigrationDisabled: The peer forbids it.
            NotDialer: The peer made the connection.
            NotConnected: The connection is closed, or was lost meanwhile.
            MigrationError: There is no new socket to be had, or it moves already.
        """
        if self.closed:
            raise NotConnected("the connection is closed")
        if self._moved is not None:
            raise MigrationError("the connection is moving already")
        try:
            self._transport.watch(self._native.migrate(to, fd))
        except OSError as error:
            raise MigrationError(f"this host has no way to the peer, or no socket to spare: {error}") from None
        self._moved = self._transport.loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._moved
        except TimeoutError:
            if not self.closed and self._native.migrate_back():
                text = f"nothing came on the new path within {timeout:g} s; the connection went back to the old one"
                raise MigrationTimeout(text) from None
        except BaseException:
            if not self.closed:
                self._native.migrate_back()
            raise
        finally:
            self._moved = None
        if self.closed:
            raise NotConnected("the connection was lost while it moved")

    # --- what the transport reports ---------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Nothing can be sent or received any more: whoever waits is told, the handler is not."""
        self.closed = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost(why)
        for waiting in (self._available, self._moved):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        self._available = None

    def ended(self, reason: CloseReason) -> None:
        if not self.closed:
            self.end(str(reason))
            self._tell(lambda handler: handler.closed(reason))

    def messages(self, batch: Batch) -> None:
        if self._handler is not None and not self.closed:
            self._handler.messages(batch)

    def _stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        if not self.closed:
            self._tell(lambda handler: handler.stream_data(stream, data, fin))

    def _writable(self) -> None:
        if self._handler is not None and not self.closed:
            self._handler.writable()

    def _stream_opened(self, number: int, tag: bytes) -> None:
        stream = self._new_stream(self._native.stream(number))
        if self.on_stream is None:
            self.refuse(stream)
        else:
            self.on_stream(stream, tag)

    def _more_streams(self) -> None:
        if self._available is not None:
            available, self._available = self._available, None
            if not available.done():
                available.set_result(None)

    def _has_moved(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _tell(self, report: Callable[[Handler], None]) -> None:
        """Report now, or once there is a handler. An unauthenticated peer can't make us keep much."""
        if self._handler is None or self._early:
            self._early.append(report)
        else:
            report(self._handler)

    def _replay(self) -> None:
        early, self._early = self._early, []
        for report in early:
            assert self._handler is not None
            self._transport.guard(self, report, self._handler)


def _to_stream(report: Callable[..., None]) -> Callable[..., None]:
    """Passes an event on to the stream that it concerns, unless that has ended."""

    def pass_on(connection: Connection, number: int, *rest: Any) -> None:
        stream = connection._streams.get(number)
        if stream is not None:
            report(stream, *rest)

    return pass_on


#: What takes each other event of the extension that concerns one connection.
REPORTS: Final[dict[int, Callable[..., None]]] = {
    _native.STREAM: Connection._stream_data,
    _native.WRITABLE: Connection._writable,
    _native.STREAM_OPENED: Connection._stream_opened,
    _native.STREAMS_AVAILABLE: Connection._more_streams,
    _native.MOVED: Connection._has_moved,
    _native.STREAM_READABLE: _to_stream(ByteStream.readable),
    _native.STREAM_WRITABLE: _to_stream(ByteStream.writable),
    _native.STREAM_FINISHED: _to_stream(ByteStream.finished),
    _native.STREAM_STOPPED: _to_stream(ByteStream.stopped),
    _native.STREAM_REST: _to_stream(ByteStream.rest),
}


__all__ = ["REPORTS", "Connection"]
