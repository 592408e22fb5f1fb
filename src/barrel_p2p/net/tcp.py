"""The TCP carrier: what stock Erlang nodes speak. Neither encrypted nor authenticated beyond the cookie.

The handshake is read and written here; after it the socket belongs to a native ``DistStream``, which frames, codes and
queues messages and sends ticks from a thread of its own. ``TcpTransport`` offers what ``QuicTransport`` does.

::

    transport = TcpTransport(codec, on_accept=accepted)
    host, port = transport.listen("127.0.0.1", 0)
    transport.serve()
    connection = await transport.dial("127.0.0.1", 9100, timeout=5.0)
    connection.handler = my_handler
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from barrel_p2p._native import DistStream, HandshakeBudget
from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.net.busy_wait import BusyWait
from barrel_p2p.net.connection import CloseKind, CloseReason, Handler
from barrel_p2p.term.codec import Codec

log = logging.getLogger("barrel_p2p.tcp")

HANDSHAKE_READ = 4096  # bytes; the longest message of a handshake has 274
BACKLOG = 128  # connections that wait to be accepted; OTP's
ACCEPTS_PER_TURN = 32  # so that a flood of connects leaves the loop its turns; a guess
NO_DESCRIPTOR_PAUSE = 1.0  # seconds without accepting when the process is out of descriptors; a guess

# what DistStream.flush returns
_BLOCKED, _RELIEVED, _BROKEN = 1, 2, 4


class Connection:
    """One TCP connection to a peer, made by ``TcpTransport``; see ``net.connection.Connection``."""

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
        self.is_dialer = is_dialer
        self.peer_address: tuple[str, int] = sock.getpeername()[:2]
        self.local_address: tuple[str, int] = sock.getsockname()[:2]
        self.send: Callable[..., int] = _too_early
        self.setup_seconds = 0.0

    def __repr__(self) -> str:
        host, port = self.peer_address
        state = " closed" if self.closed else ""
        return f"<Connection {'to' if self.is_dialer else 'from'} {host}:{port}{state}>"

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
        """Bytes that the socket has not taken yet."""
        return self._native.queued if self._native is not None else len(self._unsent)

    def write(self, stream: int, data: bytes) -> None:
        """Queue bytes of the handshake; there is one stream, 0."""
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
        """The distribution handshake is over: from now on messages are carried, and ``send`` works."""
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
        """Read no more until ``resume``; the peer is stalled by flow control."""
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
        """``bytes_sent`` and ``bytes_received`` since the handshake; empty once the connection is gone."""
        return self._native.stats() if self._native is not None else {}

    def close(self, code: int, reason: str) -> None:
        """Close the connection; ``handler.closed`` is not called. What is queued is dropped. Idempotent.

        TCP has no words for ``code`` and ``reason``: the peer sees the end of the stream.
        """
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
            self._guard(lambda handler: handler.messages(messages))
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
            self._guard(lambda handler: handler.stream_data(0, data, False))
        else:
            self._ended("application", "the peer closed the connection")

    def _ended(self, kind: CloseKind, text: str) -> None:
        if not self.closed:
            self.close(0, text)
            self._guard(lambda handler: handler.closed(CloseReason(kind, 0, text)))

    def _guard(self, report: Callable[[Handler], None]) -> None:
        """A bug in a handler costs its connection, not the loop."""
        assert self._handler is not None
        try:
            report(self._handler)
        except Exception:
            log.exception("internal error while handling %r; the connection is closed", self)
            self.close(0, "internal error")

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
                self._guard(lambda handler: handler.writable())

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


class TcpTransport:
    """The TCP connections of one node, on the running event loop. Several can live in one OS process.

    Args:
        codec: Encodes and decodes the messages.
        exact_codec: The same for connections that start with ``exact_empty_str``.
        on_accept: Called with each inbound connection; has to set its handler.
        tick_time_ms: A peer silent for this long is dead; ticks leave at a quarter of it (OTP's ``net_ticktime``).
        max_unauthenticated: Inbound connections whose handshake is not over; more are closed at once, and so are those
            from an address where too many have failed.
        high_water: ``Connection.queued`` from which a connection counts as congested, in bytes.
        busy_wait_us: How long to look for more messages before the loop sleeps, see ``BusyWait``.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        exact_codec: Codec | None = None,
        on_accept: Callable[[Connection], None] | None = None,
        tick_time_ms: int = 60_000,
        max_unauthenticated: int = 64,
        high_water: int = 1 << 20,
        busy_wait_us: int = 0,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.busy_wait = BusyWait(self.loop, busy_wait_us)
        self.tick_time_ms = tick_time_ms
        self.high_water = high_water
        self._codec = codec
        self._exact_codec = exact_codec or codec
        self._on_accept = on_accept
        self._max_unauthenticated = max_unauthenticated
        self._budget = HandshakeBudget()
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._inbound: set[Connection] = set()
        #: Connections that were closed at once, by reason.
        self.turned_away: Counter[str] = Counter(refused_load=0, refused_address=0)
        self._retry: asyncio.TimerHandle | None = None

    def listen(self, host: str, port: int) -> tuple[str, int]:
        """Bind the listening socket; returns its address with the real port. Accepts nobody before ``serve``.

        Args:
            host: An IP address of this host, or ``0.0.0.0`` / ``::`` for all of them.
            port: A TCP port, or 0 for a free one.

        Raises:
            ConfigError: The address can't be bound; says what to do.
        """
        try:
            family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        except ValueError:
            raise ConfigError(
                f"listen address {host!r} is no IP address; give one of this host", "listen_host"
            ) from None
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(_cannot_bind(host, port, error), "listen_port") from error
        self._listener.setblocking(False)
        address: tuple[str, int] = self._listener.getsockname()[:2]
        return address

    def serve(self) -> None:
        """Accept connections from now on."""
        assert self._listener is not None
        self.loop.add_reader(self._listener.fileno(), self._acceptable)

    async def dial(self, host: str, port: int, *, timeout: float) -> Connection:
        """Connect to a peer.

        Args:
            host: An IP address.
            port: Its TCP port.
            timeout: Seconds.

        Raises:
            NotConnected: Nobody answered in time, or the connection was refused.
        """
        started = self.loop.time()
        where = f"{host}:{port} (TCP)"
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(timeout):
                await self.loop.sock_connect(sock, (host, port))
            connection = self._adopt(sock, is_dialer=True)
        except TimeoutError:
            sock.close()
            raise NotConnected(f"no answer from {where} within {timeout:g} s", "no_answer") from None
        except OSError as error:
            sock.close()
            refused = error.errno == errno.ECONNREFUSED
            text = "nobody listens there" if refused else os.strerror(error.errno or 0)
            raise NotConnected(f"can't dial {where}: {text}", "unreachable" if refused else "no_answer") from error
        except BaseException:
            sock.close()
            raise
        connection.setup_seconds = self.loop.time() - started
        return connection

    async def close(self, reason: str = "the node stops") -> None:
        """Close all connections and the listening socket. Idempotent. Handlers are not called."""
        if self._retry is not None:
            self._retry.cancel()
        if self._listener is not None:
            self.loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.close(0, reason)

    def strangers(self) -> int:
        """Inbound connections whose peers have not shown who they are."""
        return len(self._inbound)

    def codec_for(self, exact_empty_str: bool) -> Codec:
        return self._exact_codec if exact_empty_str else self._codec

    # --- called by connections --------------------------------------------------------------------------------------

    def authenticated(self, connection: Connection) -> None:
        if connection in self._inbound:
            self._inbound.discard(connection)
            self._budget.succeeded(connection.peer_address[0])

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._inbound.discard(connection)

    # --- accepting --------------------------------------------------------------------------------------------------

    def _acceptable(self) -> None:
        assert self._listener is not None
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("can't accept connections for a moment: %s", error)
                self.loop.remove_reader(self._listener.fileno())
                self._retry = self.loop.call_later(NO_DESCRIPTOR_PAUSE, self.serve)
                return
            self._accepted(sock, peer[0])

    def _accepted(self, sock: socket.socket, host: str) -> None:
        if len(self._inbound) >= self._max_unauthenticated or self._on_accept is None:
            self._turn_away(sock, "refused_load", f"{len(self._inbound)} others have not shaken hands yet")
            return
        if not self._budget.begin(host):
            self._turn_away(sock, "refused_address", f"too many handshakes failed from their addresses, such as {host}")
            return
        try:
            sock.setblocking(False)
            connection = self._adopt(sock, is_dialer=False)
        except OSError:  # it is gone already
            sock.close()
            return
        self._inbound.add(connection)
        try:
            self._on_accept(connection)
        except Exception:
            log.exception("internal error while accepting %r; the connection is closed", connection)
            connection.close(0, "internal error")

    def _turn_away(self, sock: socket.socket, reason: str, why: str) -> None:
        sock.close()
        self.turned_away[reason] = count = self.turned_away[reason] + 1
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, ...: a flood must not fill the log
            log.warning("%d connections were closed because %s", count, why)

    def _adopt(self, sock: socket.socket, *, is_dialer: bool) -> Connection:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self, is_dialer=is_dialer)
        self._connections.add(connection)
        return connection


def _too_early(control: Any, message: Any = None) -> int:
    raise NotConnected("send before start_dist")


def _too_late(control: Any, message: Any = None) -> int:
    return 0  # as a send to a dead node does nothing


def _cannot_bind(host: str, port: int, error: OSError) -> str:
    where = f"TCP {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use, perhaps by another node; choose another listen_port, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{where} may not be bound by this user; ports below 1024 need a privilege, choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} can't be bound: {host} is no address of this host; choose one that is, or 0.0.0.0"
    return f"{where} can't be bound: {os.strerror(error.errno) if error.errno else error}"


__all__ = ["Connection", "TcpTransport"]
