"""The QUIC carrier: connections to other nodes on an asyncio event loop.

``QuicTransport`` watches the sockets of one native endpoint and carries its events to ``Connection``
objects; everything that costs time (UDP, TLS, QUIC, framing, terms) happens in the extension, in one call
per batch. See ``docs/internals/data-plane.md`` for how the parts share the work.

::

    transport = QuicTransport(codec, certificate=der, private_key=pkcs8, reset_key=secret, on_accept=accepted)
    host, port = await transport.listen("127.0.0.1", 0)
    connection = await transport.dial("127.0.0.1", 9100, timeout=5.0)
    connection.handler = my_handler
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import logging
import os
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p import _native
from barrel_p2p._native import NO_MESSAGE
from barrel_p2p.errors import ConfigError, MigrationError, MigrationTimeout, NotConnected, StreamLost
from barrel_p2p.net.busy_wait import BusyWait
from barrel_p2p.net.connection import Batch, CloseKind, CloseReason, Handler
from barrel_p2p.net.quic_stream import ByteStream
from barrel_p2p.term.codec import Codec

log = logging.getLogger("barrel_p2p.quic")

ALPN: Final = b"erlang-dist"

Event = tuple[Any, ...]


class Connection:
    """One QUIC connection to a peer, made by ``QuicTransport``.

    Attributes:
        handler: What it reports to; what happened before it was set is reported then.
        closed: True once nothing can be sent or received any more.
        certificate_der: The acceptor's certificate, ours or the peer's; its hash is the channel binding.
        setup_seconds: How long the dial took.
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
        #: ``send(control, message=NO_MESSAGE) -> int`` encodes one message into the send queue and returns
        #: its depth in bytes. It never blocks. Raises EncodeError before anything is queued, and does nothing
        #: on a closed connection. The extension's own method: a wrapper would double its cost.
        self.send = native.send

    def __repr__(self) -> str:
        host, port = self.peer_address
        state = " closed" if self.closed else ""
        return f"<Connection {'to' if self.is_dialer else 'from'} {host}:{port}{state}>"

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
        """Bytes of messages that QUIC has not taken yet."""
        return self._native.queued

    # --- streams, before the distribution starts ------------------------------------------------------------

    def open_uni(self) -> int:
        """Reserve our next unidirectional stream; returns its id. NotConnected if the peer allows none."""
        return self._native.open_uni()

    def open_bi(self) -> int:
        """Reserve our next bidirectional stream; returns its id. NotConnected if the peer allows none."""
        return self._native.open_bi()

    def write(self, stream: int, data: bytes) -> None:
        """Queue bytes on a stream. For the small messages of handshakes: there is no back-pressure."""
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
        """The distribution handshake is over: from now on data streams carry messages, and ``send`` works.

        Args:
            fragments: Whether both sides offered the FRAGMENTS flag, which decides the form of every frame.
            atom_cache: Never over QUIC, where no node offers it.
            max_frame: Largest message taken from the peer, in bytes; a larger one closes the connection.
            exact_empty_str: Send ``""`` so that another Python node gets it back as ``str``.
            received: Nothing that matters: the handshake has a stream of its own.
        """
        assert not atom_cache
        codec = self._transport.codec_for(exact_empty_str)
        self._native.start_dist(codec, fragments=fragments, max_frame=max_frame)

    def pause(self) -> None:
        """Hand out no more messages until ``resume``; the peer is stalled by flow control."""
        self._native.pause()

    def resume(self) -> None:
        self._native.resume()

    async def probe(self, timeout: float) -> bool:
        """Whether the peer gives a sign of life within ``timeout`` seconds; asks it for one."""
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
        """Close the connection and tell the peer; ``handler.closed`` is not called. Idempotent.

        What is queued is dropped, and even data on its way may be overtaken by the close.
        """
        if not self.closed:
            self.closed = True
            self._native.close(code, reason)
            self._end_streams(reason)

    def stats(self) -> dict[str, int]:
        """Counters of QUIC: rtt_us, cwnd, mtu, packets_sent, packets_lost, bytes_sent, bytes_received, ...

        ``packets_sent`` matters for peers on Erlang's QUIC, which survives only one key update: reconnect
        before it reaches 8 million. The dictionary is empty once the connection is gone.
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
        """User streams that have not ended, of both sides."""
        return len(self._streams)

    def _new_stream(self, native: _native.QuicStream) -> ByteStream:
        stream = ByteStream(native)
        self._streams[stream.id] = stream
        stream.on_end.append(functools.partial(self._forget_stream, stream.id))
        return stream

    def _forget_stream(self, number: int) -> None:
        self._streams.pop(number, None)

    def _end_streams(self, why: str) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost(why)
        for waiting in (self._available, self._moved):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        self._available = None

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
            self._transport._watch(self._native.migrate(to, fd))
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

    # --- called by the transport ----------------------------------------------------------------------------

    def _stream_opened(self, number: int, tag: bytes) -> None:
        stream = self._new_stream(self._native.stream(number))
        if self.on_stream is None:
            self.refuse(stream)
        else:
            self.on_stream(stream, tag)

    def refuse(self, stream: ByteStream) -> None:
        """Nobody takes a stream of the peer's: it ends with code 0x100, as Erlang's streams do."""
        self._streams.pop(stream.id, None)
        stream.refuse()

    def _of_stream(self, what: int, number: int, *rest: Any) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if what == _native.STREAM_READABLE:
            stream.readable()
        elif what == _native.STREAM_WRITABLE:
            stream.writable()
        elif what == _native.STREAM_FINISHED:
            stream.finished()
        elif what == _native.STREAM_STOPPED:
            stream.stopped(*rest)
        else:
            stream.rest(*rest)

    def _more_streams(self) -> None:
        if self._available is not None:
            available, self._available = self._available, None
            if not available.done():
                available.set_result(None)

    def _has_moved(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        if not self.closed:
            self._tell(lambda handler: handler.stream_data(stream, data, fin))

    def _messages(self, batch: Batch) -> None:
        if self._handler is not None and not self.closed:
            self._handler.messages(batch)

    def _writable(self) -> None:
        if self._handler is not None and not self.closed:
            self._handler.writable()

    def _closed(self, reason: CloseReason) -> None:
        if not self.closed:
            self.closed = True
            self._end_streams(str(reason))
            self._tell(lambda handler: handler.closed(reason))

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


class QuicTransport:
    """The QUIC connections of one node, on the running event loop. Several can live in one OS process.

    Args:
        codec: Encodes and decodes the messages.
        exact_codec: The same for connections that start with ``exact_empty_str``.
        certificate: Our TLS certificate (DER).
        private_key: Its key (PKCS#8 DER).
        reset_key: 64 secret bytes that survive restarts: so a restarted node can tell its peers at once that
            their connections are gone.
        on_accept: Called with each inbound connection once its TLS handshake is done; has to set its handler.
        alpn: For tests.
        high_water: ``Connection.queued`` from which a connection counts as congested, in bytes.
        busy_wait_us: How long to look for more messages before the loop sleeps, see ``BusyWait``.
        options: Every name in ``_native.QUIC_OPTIONS``: ``idle_timeout_ms``, ``max_unauthenticated``, ...

    Raises:
        ConfigError: The certificate and the key do not fit, or an option is unknown.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        exact_codec: Codec | None = None,
        certificate: bytes,
        private_key: bytes,
        reset_key: bytes,
        on_accept: Callable[[Connection], None] | None = None,
        alpn: bytes = ALPN,
        high_water: int = 1 << 20,
        busy_wait_us: int = 0,
        **options: int,
    ) -> None:
        unknown = options.keys() - set(_native.QUIC_OPTIONS)
        if unknown:
            known = ", ".join(sorted(_native.QUIC_OPTIONS))
            raise ConfigError(f"there is no QUIC option {', '.join(sorted(unknown))}; there are {known}")
        self._codec = codec
        self._exact_codec = exact_codec or codec
        self._identity = {
            "certificate": certificate,
            "private_key": private_key,
            "reset_key": reset_key,
            "alpn": alpn,
        }
        self._options = {"send_high_water": high_water, "send_low_water": high_water // 4, **options}
        self._on_accept = on_accept
        self._endpoint: _native.QuicEndpoint | None = None
        self._connections: dict[int, Connection] = {}
        self._inbound: dict[int, Connection] = {}
        self._dials: dict[int, asyncio.Future[None]] = {}
        self._fds: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._flush_follows = False
        self.loop = asyncio.get_running_loop()
        self._busy_wait = BusyWait(self.loop, busy_wait_us)
        self._dispatch: dict[int, Callable[..., None]] = {
            _native.ACCEPTED: self._accepted,
            _native.CONNECTED: self._connected,
            _native.STREAM: self._stream,
            _native.MESSAGES: self._messages,
            _native.WRITABLE: self._writable,
            _native.CLOSED: self._closed,
            _native.DETACHED: self._detached,
            _native.STREAM_OPENED: self._stream_opened,
            _native.STREAMS_AVAILABLE: self._more_streams,
            _native.MOVED: self._moved,
            **{
                what: functools.partial(self._of_stream, what)
                for what in (
                    _native.STREAM_READABLE,
                    _native.STREAM_WRITABLE,
                    _native.STREAM_STOPPED,
                    _native.STREAM_FINISHED,
                    _native.STREAM_REST,
                )
            },
        }

    # --- public ---------------------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Open the listening socket; returns its address with the real port.

        Args:
            host: An IP address of this host, or ``0.0.0.0`` / ``::`` for all of them.
            port: A UDP port, or 0 for a free one.

        Raises:
            ConfigError: The address can't be bound; says what to do.
        """
        if self._endpoint is not None:
            raise ConfigError("this transport is open already; listen before the first dial, and once")
        endpoint = self._open((_ip(host), port))
        assert endpoint.listen_address is not None and endpoint.listen_fd is not None
        self._watch(endpoint.listen_fd)
        return endpoint.listen_address

    async def dial(
        self,
        host: str,
        port: int,
        *,
        timeout: float,
        server_name: str | None = None,
        fd: int | None = None,
    ) -> Connection:
        """Connect to a peer; the handler of the result has to be set before ``start_dist``.

        Args:
            host: An IP address.
            port: Its UDP port.
            timeout: Seconds for the QUIC and TLS handshake.
            server_name: What to tell the peer as its name (SNI); default: the address, which sends none.
            fd: A bound UDP socket of the caller's to use instead of a new one; it stays the caller's to close.

        Raises:
            NotConnected: Nobody answered in time, or the handshake failed; says how.
        """
        started = self.loop.time()
        endpoint = self._endpoint or self._open(None)
        where = f"{host}:{port}"
        try:
            native = endpoint.connect(host, port, server_name or host, fd)
        except (OSError, ValueError) as error:
            raise NotConnected(f"can't dial {where}: {error}") from error
        connection = Connection(native, self)
        dialed: asyncio.Future[None] = self.loop.create_future()
        self._connections[native.id] = connection
        self._dials[native.id] = dialed
        self._watch(native.fd)
        self._wake()
        try:
            async with asyncio.timeout(timeout):
                await dialed
        except TimeoutError:
            connection.close(0, "dial timeout")
            raise NotConnected(f"no answer from {where} (UDP) within {timeout:g} s", "no_answer") from None
        except BaseException:
            connection.close(0, "dial cancelled")
            raise
        finally:
            del self._dials[native.id]
        connection.setup_seconds = self.loop.time() - started
        return connection

    def set_certificate(self, certificate: bytes, private_key: bytes) -> None:
        """Answer connections that begin from now on with another certificate (DER, PKCS#8 DER); the others stay.

        Raises:
            ConfigError: The two do not fit; nothing changed.
        """
        if self._endpoint is not None:
            self._drive()  # whoever has come so far was shown the old one
            self._endpoint.set_certificate(certificate, private_key, self._identity["alpn"])
        self._identity |= {"certificate": certificate, "private_key": private_key}

    async def close(self, reason: str = "the node stops") -> None:
        """Close all connections, telling the peers, and all sockets. Idempotent. Handlers are not called."""
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is None:
            return
        for connection in self._connections.values():
            connection.closed = True
            connection._end_streams(reason)
        for dialed in self._dials.values():
            if not dialed.done():
                dialed.set_exception(NotConnected(reason))
        if self._timer is not None:
            self._timer.cancel()
        for fd in self._fds:
            self.loop.remove_reader(fd)
        self._fds.clear()
        endpoint.close(0, reason)
        self._connections.clear()
        self._inbound.clear()

    @property
    def stood_in(self) -> int:
        """How often the watcher thread did the work of a blocked event loop."""
        return 0 if self._endpoint is None else self._endpoint.stood_in

    def turned_away(self) -> dict[str, int]:
        """How many dialers got no handshake, by reason; see ``docs/reference/metrics.md``."""
        return {} if self._endpoint is None else self._endpoint.turned_away()

    def strangers(self) -> int:
        """Inbound connections whose peers have not shown who they are."""
        return 0 if self._endpoint is None else self._endpoint.strangers()

    def codec_for(self, exact_empty_str: bool) -> Codec:
        return self._exact_codec if exact_empty_str else self._codec

    # --- one turn of the loop -------------------------------------------------------------------------------

    def _receive(self, fd: int) -> None:
        """A socket is readable."""
        if self._endpoint is not None:
            try:
                events = self._endpoint.receive(fd)
            except OSError as error:
                log.error("UDP socket %d failed: %s", fd, error)
                self.loop.remove_reader(fd)
                self._fds.discard(fd)
                return
            self._handle(events)

    def _drive(self) -> None:
        """A timer is due, the watcher has news, or the last batch left work."""
        if self._endpoint is not None:
            self._handle(self._endpoint.drive())

    def _handle(self, events: list[Event]) -> None:
        self._flush_follows = True
        answers = False
        try:
            for event in events:
                answers = answers or event[0] == _native.MESSAGES
                self._dispatch[event[0]](*event[1:])
        finally:
            if answers:
                # Whom the messages woke runs first: an answer and the acknowledgement then share a packet.
                self.loop.call_soon(self._flush)
                self._busy_wait.messages_came()
            else:
                self._flush()

    def _wake(self, at_once: bool = False) -> None:
        """Called by the extension when the first thing is queued: flush once in this turn of the loop; and ``at_once``
        when so much is queued that the peer may as well begin with it."""
        if at_once:
            self._flush_now()
        elif not self._flush_follows:
            self._flush_follows = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_follows = False
        self._flush_now()

    def _flush_now(self) -> None:
        if self._endpoint is None:
            return
        delay = self._endpoint.flush()
        if delay is not None:  # earlier than the timer that runs
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(delay, self._drive)

    # --- events ---------------------------------------------------------------------------------------------

    def _accepted(self, id: int, native: _native.QuicConnection) -> None:
        connection = self._connections[id] = self._inbound[id] = Connection(native, self)
        connection.certificate_der = self._identity["certificate"]

    def _connected(self, id: int, certificate: bytes | None) -> None:
        connection = self._connections[id]
        if connection.is_dialer:
            connection.certificate_der = certificate
        dialed = self._dials.get(id)
        if dialed is not None and not dialed.done():
            dialed.set_result(None)
        elif self._inbound.pop(id, None) is not None:
            if self._on_accept is None:
                connection.close(0, "not accepting")
            else:
                self.guard(connection, self._on_accept, connection)

    def _stream(self, id: int, stream: int, data: bytes, fin: bool) -> None:
        connection = self._connections[id]
        self.guard(connection, connection._stream_data, stream, data, fin)

    def _messages(self, id: int, batch: Batch) -> None:
        connection = self._connections[id]
        self.guard(connection, connection._messages, batch)

    def _writable(self, id: int) -> None:
        connection = self._connections[id]
        self.guard(connection, connection._writable)

    def _stream_opened(self, id: int, stream: int, tag: bytes) -> None:
        connection = self._connections[id]
        self.guard(connection, connection._stream_opened, stream, tag)

    def _of_stream(self, what: int, id: int, stream: int, *rest: Any) -> None:
        connection = self._connections[id]
        self.guard(connection, connection._of_stream, what, stream, *rest)

    def _more_streams(self, id: int) -> None:
        self._connections[id]._more_streams()

    def _moved(self, id: int) -> None:
        self._connections[id]._has_moved()

    def _closed(self, id: int, kind: CloseKind, code: int, text: str) -> None:
        connection = self._connections.pop(id)
        self._inbound.pop(id, None)
        dialed = self._dials.get(id)
        if dialed is not None and not dialed.done():
            host, port = connection.peer_address
            dialed.set_exception(NotConnected(f"{host}:{port}: {text or kind}", kind, code))
        self.guard(connection, connection._closed, CloseReason(kind, code, text))

    def _detached(self, fd: int) -> None:
        assert self._endpoint is not None
        self._fds.discard(fd)
        self.loop.remove_reader(fd)
        self._endpoint.release(fd)

    def guard(self, connection: Connection, callback: Callable[..., None], *args: Any) -> None:
        """A bug in a handler costs its connection, not the transport."""
        try:
            callback(*args)
        except Exception:
            log.exception("internal error while handling %r; the connection is closed", connection)
            connection.close(0, "internal error")

    # --- sockets --------------------------------------------------------------------------------------------

    def _open(self, listen: tuple[str, int] | None) -> _native.QuicEndpoint:
        try:
            self._endpoint = _native.QuicEndpoint(
                self._codec, self._wake, listen=listen, options=self._options, **self._identity
            )
        except OSError as error:
            assert listen is not None
            raise ConfigError(_cannot_bind(*listen, error)) from error
        self._fds.add(self._endpoint.alarm_fd)
        self.loop.add_reader(self._endpoint.alarm_fd, self._drive)
        return self._endpoint

    def _watch(self, fd: int) -> None:
        self._fds.add(fd)
        self.loop.add_reader(fd, self._receive, fd)


def _ip(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ConfigError(f"listen address {host!r} is no IP address; give one of this host") from None


def _cannot_bind(host: str, port: int, error: OSError) -> str:
    where = f"UDP {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use, perhaps by another node; choose another listen_port, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"{where} may not be bound by this user; ports below 1024 need a privilege, choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{where} can't be bound: {host} is no address of this host; choose one that is, or 0.0.0.0"
    return f"{where} can't be bound: {os.strerror(error.errno) if error.errno else error}"


__all__ = ["ALPN", "NO_MESSAGE", "Batch", "CloseReason", "Connection", "Handler", "QuicTransport"]
