"""One TCP connection of a peer. The handshake is read and written here; after it the socket belongs to a native
``DistStream``, which frames, codes and queues messages and sends ticks from a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from barrel_p2p._native import DistStream
from barrel_p2p.errors import NotConnected
from barrel_p2p.net import connection
from barrel_p2p.net.connection import CloseKind, CloseReason, Handler

if TYPE_CHECKING:
    from barrel_p2p.net.tcp import TcpTransport

HANDSHAKE_READ = 4096  # bytes; the longest message of a handshake has 274

# what DistStream.flush returns
_BLOCKED, _RELIEVED, _BROKEN = 1, 2, 4


class Connection(connection.Connection):
    """Made by ``TcpTransport``."""

    __slots__ = (
        "_fd",
        "_handler",
        "_native",
        "_paused",
        "_silence_timer",
        "_socket",
        "_transport",
        "_unsent",
        "_writing",
        "closed",
        "is_dialer",
        "local_address",
        "peer_address",
        "send",
        "setup_seconds",
    )

    def __init__(self, sock: socket.socket, transport: TcpTransport, *, is_dialer: bool) -> None:
        self._socket: socket.socket | None = sock
        self._fd = sock.fileno()
        self._transport = transport
        self._native: DistStream | None = None
        self._handler: Handler | None = None
        self._unsent = bytearray()
        self._writing = False
        self._paused = False
        self._silence_timer: asyncio.TimerHandle | None = None
        self.closed = False
        self.is_dialer: bool = is_dialer
        self.peer_address: tuple[str, int] = sock.getpeername()[:2]
        self.local_address: tuple[str, int] = sock.getsockname()[:2]
        self.send: Callable[..., int] = _too_early
        self.setup_seconds = 0.0

    @property
    def handler(self) -> Handler | None:
        return self._handler

    @handler.setter
    def handler(self, handler: Handler) -> None:
        if self._handler is None and not self.closed:  # nothing is read before somebody listens
            self._transport.loop.add_reader(self._fd, self._readable)
        self._handler = handler

    @property
    def streams(self) -> int:
        return 0

    @property
    def queued(self) -> int:
        return self._native.queued if self._native is not None else len(self._unsent)

    def write(self, stream: int, data: bytes) -> None:
        """There is one stream, 0."""
        if not self.closed:
            self._unsent += data
            self._write_handshake()

    def start_dist(
        self,
        *,
        fragments: bool,
        atom_cache: bool = False,
        max_frame: int,
        exact_empty_str: bool = False,
        received: bytes = b"",
    ) -> None:
        assert self._socket is not None
        transport = self._transport
        sock, self._socket = self._socket, None
        native = self._native = DistStream(
            transport.codec_for(exact_empty_str),
            self._wake,
            sock.detach(),
            fragments=fragments,
            atom_cache=atom_cache,
            max_frame=max_frame,
            high_water=transport.high_water,
            low_water=transport.high_water // 4,
            tick_ms=max(1, transport.tick_time_ms // 4),
        )
        self.send = native.send
        transport.authenticated(self)
        if self._unsent:
            self._await_room(False, self._write_handshake)
            native.write(bytes(self._unsent))
            self._unsent.clear()
        if received:
            transport.loop.call_soon(self._feed, received)
        self._watch_silence()

    def pause(self) -> None:
        if not self._paused and not self.closed:
            self._paused = True
            self._transport.loop.remove_reader(self._fd)

    def resume(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self._transport.loop.add_reader(self._fd, self._readable)

    async def probe(self, timeout: float) -> bool:
        """Whether the connection stands: there is no question that a peer over TCP had to answer."""
        return not self.closed

    def stats(self) -> dict[str, int]:
        """``bytes_sent`` and ``bytes_received`` since the handshake."""
        return self._native.stats() if self._native is not None else {}

    def close(self, code: int, reason: str) -> None:
        """TCP has no words for ``code`` and ``reason``: the peer sees the end of the stream."""
        if self.closed:
            return
        self.closed = True
        self.send = _too_late
        loop = self._transport.loop
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        loop.remove_reader(self._fd)
        loop.remove_writer(self._fd)
        self._transport.forget(self)
        native, self._native = self._native, None  # with it the descriptor goes
        if native is not None:
            native.close()
        sock, self._socket = self._socket, None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)  # what was written goes out even if the peer's last words are unread
            sock.close()

    # --- reading ----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._native is not None:
            self._deliver(*self._native.receive())
        else:
            self._read_handshake()

    def _feed(self, received: bytes) -> None:
        if self._native is not None:
            self._deliver(*self._native.feed(received))

    def _deliver(self, messages: list[Any], end: tuple[str, str] | None) -> None:
        if messages:
            self._transport.busy_wait.messages_came()
            self._transport.guard(self, self._listener.messages, messages)
        if end is not None:
            kind, text = end
            self._ended(kind, text)  # type: ignore[arg-type]

    def _read_handshake(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(HANDSHAKE_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._ended("reset", os.strerror(error.errno) if error.errno else str(error))
            return
        if data:
            self._transport.guard(self, self._listener.stream_data, 0, data, False)
        else:
            self._ended("application", "the peer closed the connection")

    def _ended(self, kind: CloseKind, text: str) -> None:
        if not self.closed:
            self.close(0, text)
            self._transport.guard(self, self._listener.closed, CloseReason(kind, 0, text))

    @property
    def _listener(self) -> Handler:
        assert self._handler is not None
        return self._handler

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write_handshake(self) -> None:
        sock = self._socket
        if sock is None:
            return
        try:
            del self._unsent[: sock.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # reading it tells how it ended
            self._unsent.clear()
        self._await_room(bool(self._unsent), self._write_handshake)

    def _wake(self, at_once: bool = False) -> None:
        """Called by the extension when the first thing is queued: flush once in this turn of the loop; and ``at_once``
        when so much is queued that the peer may as well begin with it."""
        if at_once:
            self._flush()
        else:
            self._transport.loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._native is None:
            return
        flushed = self._native.flush()
        if flushed or self._writing:
            self._await_room(bool(flushed & _BLOCKED), self._flush)
            if flushed & _BROKEN:
                self.resume()  # what arrived before is delivered, and then the reason
            if flushed & _RELIEVED:
                self._transport.guard(self, self._listener.writable)

    def _await_room(self, wait: bool, write: Callable[[], None]) -> None:
        if wait != self._writing:
            self._writing = wait
            if wait:
                self._transport.loop.add_writer(self._fd, write)
            else:
                self._transport.loop.remove_writer(self._fd)

    # --- silence ----------------------------------------------------------------------------------------------------

    def _watch_silence(self) -> None:
        """A peer that lives sends something, if only ticks, four times within the tick time."""
        limit = self._transport.tick_time_ms / 1000
        if self._native is not None and self._native.silent_for >= limit and not self._paused:
            self._readable()  # a loop that was blocked for long reads now what came meanwhile
            if self._native is not None and self._native.silent_for >= limit:
                self._ended("timeout", f"the peer was silent for {limit:g} s, the tick time")
        if not self.closed:
            self._silence_timer = self._transport.loop.call_later(limit / 4, self._watch_silence)


def _too_early(control: Any, message: Any = None) -> int:
    raise NotConnected("send before start_dist")


def _too_late(control: Any, message: Any = None) -> int:
    return 0  # as a send to a dead node does nothing


__all__ = ["Connection"]
