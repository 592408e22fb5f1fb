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
import logging
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p import _native
from barrel_p2p._native import NO_MESSAGE
from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.net.connection import Batch, CloseKind, CloseReason, Handler
from barrel_p2p.net.quic_connection import REPORTS, Connection
from barrel_p2p.net.transport import NO_DESCRIPTOR, Transport, cannot_bind, listen_ip
from barrel_p2p.shown import printable
from barrel_p2p.term.codec import Codec

log = logging.getLogger("barrel_p2p.quic")

ALPN: Final = b"erlang-dist"

Event = tuple[Any, ...]


class QuicTransport(Transport):
    """The sockets of one node and its QUIC connections, on the running event loop. Several can live in one OS process.

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
        super().__init__(codec, exact_codec, busy_wait_us, log)
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
        self._dispatch: dict[int, Callable[..., None]] = {
            _native.ACCEPTED: self._accepted,
            _native.CONNECTED: self._connected,
            _native.CLOSED: self._closed,
            _native.DETACHED: self._detached,
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
        endpoint = self._open((str(listen_ip(host)), port))
        assert endpoint.listen_address is not None and endpoint.listen_fd is not None
        self.watch(endpoint.listen_fd)
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
            OSError: This process may open no more files.
        """
        started = self.loop.time()
        endpoint = self._endpoint or self._open(None)
        where = f"{host}:{port}"
        try:
            native = endpoint.connect(host, port, server_name or host, fd)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in NO_DESCRIPTOR:
                raise
            raise NotConnected(f"can't dial {where}: {error}") from error
        connection = Connection(native, self)
        dialed: asyncio.Future[None] = self.loop.create_future()
        self._connections[native.id] = connection
        self._dials[native.id] = dialed
        self.watch(native.fd)
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
            connection.end(reason)
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
                what = event[0]
                if what == _native.MESSAGES:
                    answers = True
                    connection = self._connections[event[1]]
                    self.guard(connection, connection.messages, event[2])
                elif what in self._dispatch:
                    self._dispatch[what](*event[1:])
                else:
                    connection = self._connections[event[1]]
                    self.guard(connection, REPORTS[what], connection, *event[2:])
        finally:
            if answers:
                # Whom the messages woke runs first: an answer and the acknowledgement then share a packet.
                self.loop.call_soon(self._flush)
                self.busy_wait.messages_came()
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

    def _closed(self, id: int, kind: CloseKind, code: int, text: str) -> None:
        connection = self._connections.pop(id)
        text = printable(text)  # it may be the peer's own
        self._inbound.pop(id, None)
        dialed = self._dials.get(id)
        if dialed is not None and not dialed.done():
            host, port = connection.peer_address
            dialed.set_exception(NotConnected(f"{host}:{port}: {text or kind}", kind, code))
        self.guard(connection, connection.ended, CloseReason(kind, code, text))

    def _detached(self, fd: int) -> None:
        assert self._endpoint is not None
        self._fds.discard(fd)
        self.loop.remove_reader(fd)
        self._endpoint.release(fd)

    # --- sockets --------------------------------------------------------------------------------------------

    def _open(self, listen: tuple[str, int] | None) -> _native.QuicEndpoint:
        try:
            self._endpoint = _native.QuicEndpoint(
                self._codec, self._wake, listen=listen, options=self._options, **self._identity
            )
        except OSError as error:
            assert listen is not None
            raise cannot_bind("UDP", *listen, error) from error
        self._fds.add(self._endpoint.alarm_fd)
        self.loop.add_reader(self._endpoint.alarm_fd, self._drive)
        return self._endpoint

    def watch(self, fd: int) -> None:
        """Receive what comes to a socket of the endpoint, until that gives it up (``DETACHED``)."""
        self._fds.add(fd)
        self.loop.add_reader(fd, self._receive, fd)


__all__ = ["ALPN", "NO_MESSAGE", "Batch", "CloseReason", "Connection", "Handler", "QuicTransport"]
