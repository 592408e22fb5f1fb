"""From a QUIC connection to a channel: drives the Ed25519 exchange in front of the distribution handshake.

The machines (``proto.auth``, ``proto.handshake``) decide everything; this file and ``establishing.py`` move their bytes
between the streams of one connection. Streams are upstream's: the dialer's first unidirectional stream (2) and the
acceptor's (3) carry the exchange, the dialer's first bidirectional stream (0) carries the handshake, unframed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from barrel_p2p.errors import AuthError, BarrelError, NotConnected
from barrel_p2p.net.connection import CloseReason, Connection
from barrel_p2p.net.quic import Connection as QuicConnection
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.establishing import (
    CLOSE_SIMULTANEOUS,
    CONTROL_STREAM,
    AcceptEvents,
    AcceptingRole,
    DialEvents,
    DialingRole,
    DialYielded,
    Establishing,
    log,
)
from barrel_p2p.node.handshake_counts import HandshakeCounts
from barrel_p2p.proto.auth import AuthAcceptor, AuthConfig, AuthDialer, Authenticated
from barrel_p2p.proto.endorsement import Chain
from barrel_p2p.proto.handshake import Connected, HandshakeConfig
from barrel_p2p.proto.identity import PinVerdict, fingerprint
from barrel_p2p.proto.machine import Failed, NeedData
from barrel_p2p.term.types import Atom

DIALER_AUTH_STREAM = 2
ACCEPTOR_AUTH_STREAM = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node brings into every handshake."""

    auth: AuthConfig
    dist: HandshakeConfig
    check_pin: Callable[[Atom, bytes], PinVerdict]
    pin: Callable[[Atom, bytes], None]
    move_pin: Callable[[Atom, Chain], None]
    max_message: int
    make_channel: Callable[[Atom, Connection, Connected, bytes | None], Channel]
    counts: HandshakeCounts


class _KeyExchange(Establishing):
    """The exchange of keys on two streams of its own; then the handshake starts."""

    connection: QuicConnection
    _auth: AuthDialer | AuthAcceptor

    def _begin_exchange(self, identity: Identity, auth: AuthDialer | AuthAcceptor, out: int, into: int) -> None:
        self.identity = identity
        self._auth = auth
        self._auth_out = out
        self._auth_in = into
        self._authenticated: Authenticated | None = None
        self.connection.handler = self
        stream = self.connection.open_uni()
        assert stream == out, stream

    def stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        if self.over:
            return
        if stream == self._auth_in:
            self._auth.receive_data(data, now=self._loop.time(), wall_ms=_wall_ms())
            self._pump()
        elif stream == CONTROL_STREAM and self._handshake is not None:
            super().stream_data(stream, data, fin)
        elif data:
            self._refuse_early_bytes(stream)

    def closed(self, reason: CloseReason) -> None:
        if self.over:
            return
        if reason.code == CLOSE_SIMULTANEOUS and reason.kind == "application":
            self._end(DialYielded("the peer's own connection to us goes on"))
        elif self._handshake is None:
            self._auth.connection_lost(reason.text)
            self._pump()
        else:
            super().closed(reason)

    def _advance(self) -> None:
        while not self.over and self._handshake is None:
            data = self._auth.data_to_send()
            if data:
                self.connection.write(self._auth_out, data)
            event = self._auth.next_event()
            if isinstance(event, Authenticated):
                self._proven(event)
            elif isinstance(event, Failed):
                self._end(AuthError(event.reason, event.message, self._auth.peer, event.details))
            elif isinstance(event, NeedData):
                self._arm()
                return
        super()._advance()

    def _failed(self, event: Failed, peer: Atom | None) -> None:
        """An error of the handshake also holds what the key exchange brought to light."""
        proven = self._authenticated
        assert proven is not None
        shown = {
            "public_key": proven.public_key,
            "first_contact": proven.first_contact,
            "clock_offset_ms": proven.clock_offset_ms,
        }
        super()._failed(Failed(event.reason, event.message, {**shown, **event.details}), peer)

    def _proven(self, event: Authenticated) -> None:
        self._authenticated = event
        self.identity.counts.authenticated(self._role, self._loop.time() - self._started_at)
        self.connection.finish(self._auth_out)
        if event.public_key is None:
            log.info("%s may connect with the cookie alone", event.peer, extra={"peer": event.peer})
        else:
            log.info(
                "%s proved its identity: Ed25519 key %s, %s",
                event.peer,
                fingerprint(event.public_key),
                "not seen before" if event.first_contact else "a new one" if event.endorsed else "as pinned",
                extra={"peer": event.peer},
            )
        self._start_handshake(event.peer)

    def _start_handshake(self, peer: Atom) -> None:
        raise NotImplementedError

    def _connected(self, event: Connected) -> None:
        proven = self._authenticated
        assert proven is not None
        try:
            if proven.first_contact and proven.public_key is not None:
                self.identity.pin(proven.peer, proven.public_key)
            elif proven.endorsed:
                self.identity.move_pin(proven.peer, proven.endorsed)
        except BarrelError as error:
            self._end(error)
            return
        self._finish(event, proven)

    def _refuse_early_bytes(self, stream: int) -> None:
        self._end(
            AuthError(
                "early_data", f"the peer wrote on stream {stream} before the key exchange was over", self._auth.peer
            )
        )

    def _deadline(self) -> float:
        return self._auth.deadline if self._handshake is None else self._handshake.deadline

    def _tick(self) -> None:
        if self._handshake is None:
            self._auth.tick(self._loop.time())
            self._pump()
        else:
            super()._tick()


class Dialing(_KeyExchange, DialingRole):
    """Our side dialled."""

    def __init__(self, connection: QuicConnection, identity: Identity, peer: Atom, events: DialEvents) -> None:
        super().__init__(connection, identity, peer, events)
        auth = AuthDialer(
            identity.auth,
            peer=peer,
            binding=_binding(connection),
            nonce=os.urandom(32),
            now=self._loop.time(),
            wall_ms=_wall_ms(),
            check_pin=identity.check_pin,
        )
        self._begin_exchange(identity, auth, DIALER_AUTH_STREAM, ACCEPTOR_AUTH_STREAM)
        self._pump()

    def _start_handshake(self, peer: Atom) -> None:
        stream = self.connection.open_bi()
        assert stream == CONTROL_STREAM, stream
        self._open_handshake()


class Accepting(_KeyExchange, AcceptingRole):
    """A peer dialled us. An Erlang dialer must not read ``nok`` over QUIC, it would hang for good: where our own dial
    wins, the connection is closed instead."""

    def __init__(self, connection: QuicConnection, identity: Identity, events: AcceptEvents) -> None:
        super().__init__(connection, identity, events)
        auth = AuthAcceptor(
            identity.auth,
            binding=_binding(connection),
            nonce=os.urandom(32),
            now=self._loop.time(),
            check_pin=identity.check_pin,
        )
        try:
            self._begin_exchange(identity, auth, ACCEPTOR_AUTH_STREAM, DIALER_AUTH_STREAM)
        except NotConnected as error:  # the peer was quick to change its mind
            self._end(error)
        else:
            self._arm()

    def _start_handshake(self, peer: Atom) -> None:
        self._open_handshake(peer)

    def _claimed(self) -> Atom | None:
        return self._name or self._auth.peer


def _binding(connection: QuicConnection) -> bytes:
    """The hash of the acceptor's certificate, which both sign: it ties the exchange to this connection."""
    assert connection.certificate_der is not None
    return hashlib.sha256(connection.certificate_der).digest()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
