"""The TCP carrier: what stock Erlang nodes speak. Neither encrypted nor authenticated beyond the cookie.

``TcpTransport`` listens, dials and accepts, as ``QuicTransport`` does; ``tcp_connection.py`` has what comes then.

::

    transport = TcpTransport(codec, on_accept=accepted)
    host, port = transport.listen("127.0.0.1", 0)
    transport.serve()
    connection = await transport.dial("127.0.0.1", 9100, timeout=5.0)
    connection.handler = my_handler
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable

from barrel_p2p._native import HandshakeBudget
from barrel_p2p.errors import NotConnected
from barrel_p2p.net.tcp_connection import Connection
from barrel_p2p.net.transport import Transport, cannot_bind, listen_ip
from barrel_p2p.term.codec import Codec

log = logging.getLogger("barrel_p2p.tcp")

BACKLOG = 128  # connections that wait to be accepted; OTP's
ACCEPTS_PER_TURN = 32  # so that a flood of connects leaves the loop its turns; a guess
NO_DESCRIPTOR_PAUSE = 1.0  # seconds without accepting when the process is out of descriptors; a guess


class TcpTransport(Transport):
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
        super().__init__(codec, exact_codec, busy_wait_us, log)
        self.tick_time_ms = tick_time_ms
        self.high_water = high_water
        self._on_accept = on_accept
        self._max_unauthenticated = max_unauthenticated
        self._budget = HandshakeBudget()
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._inbound: set[Connection] = set()
        self._turned_away: Counter[str] = Counter(refused_load=0, refused_address=0)
        self._retry: asyncio.TimerHandle | None = None

    def listen(self, host: str, port: int) -> tuple[str, int]:
        """Bind the listening socket; returns its address with the real port. Accepts nobody before ``serve``.

        Args:
            host: An IP address of this host, or ``0.0.0.0`` / ``::`` for all of them.
            port: A TCP port, or 0 for a free one.

        Raises:
            ConfigError: The address can't be bound; says what to do.
        """
        family = socket.AF_INET6 if listen_ip(host).version == 6 else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise cannot_bind("TCP", host, port, error) from error
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
            OSError: This process may open no more files.
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

    def turned_away(self) -> dict[str, int]:
        """How many connections were closed at once, by reason; see ``docs/reference/metrics.md``."""
        return self._turned_away

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
        self.guard(connection, self._on_accept, connection)

    def _turn_away(self, sock: socket.socket, reason: str, why: str) -> None:
        sock.close()
        self._turned_away[reason] = count = self._turned_away[reason] + 1
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, ...: a flood must not fill the log
            log.warning("%d connections were closed because %s", count, why)

    def _adopt(self, sock: socket.socket, *, is_dialer: bool) -> Connection:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self, is_dialer=is_dialer)
        self._connections.add(connection)
        return connection


__all__ = ["Connection", "TcpTransport"]
