"""From a QUIC connection to a channel: drives the Ed25519 exchange, then the distribution handshake.

The machines (``proto.auth``, ``proto.handshake``) decide everything; this file moves their bytes between the streams
of one connection, re-arms one timer, and reports one outcome. Streams are upstream's: the dialer's first
unidirectional stream (2) and the acceptor's (3) carry the exchange, the dialer's first bidirectional stream (0)
carries the handshake, unframed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from barrel_p2p.errors import AuthError, BarrelError, HandshakeError, InternalError, NotConnected
from barrel_p2p.net.quic import CloseReason, Connection
from barrel_p2p.node.channel import Channel
from barrel_p2p.proto.auth import AuthAcceptor, AuthConfig, AuthDialer, Authenticated
from barrel_p2p.proto.flags import Flags
from barrel_p2p.proto.handshake import (
    Connected,
    HandshakeAcceptor,
    HandshakeConfig,
    HandshakeDialer,
    PeerNamed,
)
from barrel_p2p.proto.identity import PinVerdict, fingerprint
from barrel_p2p.proto.machine import Failed, NeedData
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.connect")

DIALER_AUTH_STREAM = 2
ACCEPTOR_AUTH_STREAM = 3
CONTROL_STREAM = 0

CLOSE_NORMAL = 0  # the only code an Erlang node sends
CLOSE_SIMULTANEOUS = 0xB1  # ours: "another connection between us goes on, wait for it"

LAST_WORDS_SECONDS = 0.05  # a guess: a retransmission on a LAN


class DialYielded(BarrelError):
    """The peer closed our dial because another connection between us goes on."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node brings into every handshake."""

    auth: AuthConfig
    dist: HandshakeConfig
    binding: bytes  # SHA-256 of our own certificate
    check_pin: Callable[[Atom, bytes], PinVerdict]
    pin: Callable[[Atom, bytes], None]
    max_message: int
    make_channel: Callable[[Atom, Connection, Connected, bytes | None], Channel]


class DialEvents(Protocol):
    """What becomes of a dial: perhaps ``named``, once our name went out, then either of the others."""

    def named(self) -> None: ...

    def up(self, channel: Channel) -> None: ...

    def failed(self, error: BarrelError) -> None: ...


class AcceptEvents(Protocol):
    def arrived(self, accepting: Accepting) -> int: ...

    def peer_named(self, accepting: Accepting, name: Atom, creation: int) -> None: ...

    def accept_failed(self, accepting: Accepting, name: Atom | None) -> None: ...

    def accepted(self, accepting: Accepting, channel: Channel) -> None: ...


class _Establishing:
    """What both roles share: bytes in, bytes out, one timer, one end."""

    _auth: AuthDialer | AuthAcceptor
    _handshake: HandshakeDialer | HandshakeAcceptor | None

    def __init__(self, connection: Connection, identity: Identity, auth_out: int, auth_in: int) -> None:
        self.connection = connection
        self.identity = identity
        self.over = False
        self._authenticated: Authenticated | None = None
        self._handshake = None
        self._auth_in = auth_in
        self._auth_out = auth_out
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._peer_flags = Flags(0)
        self._started_at = self._loop.time()

    # --- what the connection reports --------------------------------------------------------------------------------

    def stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        now = self._loop.time()
        if self.over:
            return
        if stream == self._auth_in:
            self._auth.receive_data(data, now=now, wall_ms=_wall_ms())
        elif stream == CONTROL_STREAM and self._handshake is not None:
            self._handshake.receive_data(data, now=now)
        elif data:
            self._refuse_early_bytes(stream)
            return
        self._pump()

    def messages(self, batch: object) -> None:
        raise AssertionError("messages before start_dist")

    def writable(self) -> None:
        """Handshakes are small; they never fill a channel."""

    def closed(self, reason: CloseReason) -> None:
        if self.over:
            return
        if reason.code == CLOSE_SIMULTANEOUS and reason.kind == "application":
            self._end(DialYielded("the peer's own connection to us goes on"))
        elif self._handshake is None:
            self._auth.connection_lost(reason.text)
            self._pump()
        else:
            self._handshake.connection_lost(reason.text)
            self._pump()

    # --- the machines -----------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Perform what the machines ask for until they need more input. Whatever goes wrong ends the connection."""
        try:
            self._advance()
        except BarrelError as error:  # the connection takes no more streams, say
            self._end(error)
        except Exception as error:
            log.exception("internal error in the handshake on %r", self.connection)
            self._end(InternalError(f"the handshake failed by a bug: {error!r}"))

    def _advance(self) -> None:
        while not self.over:
            if self._handshake is None:
                self._write_auth()
                event = self._auth.next_event()
                if isinstance(event, Authenticated):
                    self._proven(event)
                elif isinstance(event, Failed):
                    self._end(AuthError(event.reason, event.message, self._auth.peer, event.details))
                elif isinstance(event, NeedData):
                    break
            else:
                self._write_handshake()
                dist_event = self._handshake.next_event()
                if isinstance(dist_event, PeerNamed):
                    self._named(dist_event)
                elif isinstance(dist_event, Connected):
                    self._connected(dist_event)
                elif isinstance(dist_event, Failed):
                    details = {**self._shown(), **dist_event.details}
                    self._end(HandshakeError(dist_event.reason, dist_event.message, self._handshake.peer, details))
                elif isinstance(dist_event, NeedData):
                    break
        if not self.over:
            self._arm()

    def _shown(self) -> dict[str, object]:
        """What the key exchange brought to light, for an error that comes later."""
        proven = self._authenticated
        if proven is None:
            return {}
        return {
            "public_key": proven.public_key,
            "first_contact": proven.first_contact,
            "clock_offset_ms": proven.clock_offset_ms,
        }

    def _write_auth(self) -> None:
        data = self._auth.data_to_send()
        if data:
            self.connection.write(self._auth_out, data)

    def _write_handshake(self) -> None:
        """Write what is due. An Erlang reader takes all that is buffered for one message, so messages to it go out
        apart."""
        assert self._handshake is not None
        waiting = bool(self._unsent)
        self._unsent += self._handshake.data_to_send()
        if self._peer_flags & Flags.PYTHON:
            self._unsent = [b"".join(self._unsent)] if self._unsent else []
        if not waiting:
            self._write_next()

    def _write_next(self) -> None:
        if self.connection.closed or not self._unsent:
            return
        self.connection.write(CONTROL_STREAM, self._unsent[0])
        if self._unsent[1:]:
            assert self._handshake is not None
            self._loop.call_later(self._handshake.pause, self._write_rest)
        else:
            self._unsent.clear()

    def _write_rest(self) -> None:
        del self._unsent[0]
        self._write_next()

    def _proven(self, event: Authenticated) -> None:
        self._authenticated = event
        self.connection.finish(self._auth_out)
        if event.public_key is None:
            log.info("%s may connect with the cookie alone", event.peer, extra={"peer": event.peer})
        else:
            log.info(
                "%s proved its identity: Ed25519 key %s, %s",
                event.peer,
                fingerprint(event.public_key),
                "not seen before" if event.first_contact else "as pinned",
                extra={"peer": event.peer},
            )
        self._start_handshake()

    def _start_handshake(self) -> None:
        raise NotImplementedError

    def _named(self, event: PeerNamed) -> None:
        raise NotImplementedError

    def _connected(self, event: Connected) -> None:
        proven = self._authenticated
        assert proven is not None
        if proven.first_contact and proven.public_key is not None:
            try:
                self.identity.pin(proven.peer, proven.public_key)
            except BarrelError as error:
                self._end(error)
                return
        self.connection.start_dist(
            fragments=bool(event.chosen & Flags.FRAGMENTS),
            max_frame=self.identity.max_message,
            exact_empty_str=bool(event.flags & Flags.PYTHON),
        )
        channel = self.identity.make_channel(event.peer, self.connection, event, proven.public_key)
        channel.proven = proven
        self._stop()
        self.connection.handler = channel
        log.info(
            "%s is connected: cookies agree, the channel is up after %.1f ms",
            event.peer,
            (self._loop.time() - self._started_at) * 1000,
            extra={"peer": event.peer},
        )
        self._succeed(channel)

    # --- ends -------------------------------------------------------------------------------------------------------

    def abort(self, why: str) -> None:
        self._end(NotConnected(why))

    def _refuse_early_bytes(self, stream: int) -> None:
        self._end(
            AuthError(
                "early_data", f"the peer wrote on stream {stream} before the key exchange was over", self._auth.peer
            )
        )

    def _end(self, error: BarrelError) -> None:
        if self.over:
            return
        self._stop()
        code = CLOSE_SIMULTANEOUS if isinstance(error, _Yield) else CLOSE_NORMAL
        self._close_after_flush(code, _short(error))
        self._fail(error)

    def _close_after_flush(self, code: int, reason: str) -> None:
        # A close overtakes stream data; what says why (a FAIL frame, a refusing status) deserves a moment to get out.
        self._loop.call_later(LAST_WORDS_SECONDS, self.connection.close, code, reason)

    def _stop(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _succeed(self, channel: Channel) -> None:
        raise NotImplementedError

    def _fail(self, error: BarrelError) -> None:
        raise NotImplementedError

    def _arm(self) -> None:
        machine = self._auth if self._handshake is None else self._handshake
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(machine.deadline + 0.001, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        if self._handshake is None:
            self._auth.tick(now)
        else:
            self._handshake.tick(now)
        self._pump()


class Dialing(_Establishing):
    """Our side dialled. Its outcome goes to ``events``, unless it is aborted: a channel, or AuthError, HandshakeError,
    NotConnected, DialYielded."""

    def __init__(
        self, connection: Connection, identity: Identity, peer: Atom, binding: bytes, events: DialEvents
    ) -> None:
        super().__init__(connection, identity, DIALER_AUTH_STREAM, ACCEPTOR_AUTH_STREAM)
        self.peer = peer
        self._events = events
        self._auth = AuthDialer(
            identity.auth,
            peer=peer,
            binding=binding,
            nonce=os.urandom(32),
            now=self._loop.time(),
            wall_ms=_wall_ms(),
            check_pin=identity.check_pin,
        )
        connection.handler = self
        stream = connection.open_uni()
        assert stream == DIALER_AUTH_STREAM, stream
        self._pump()

    def _start_handshake(self) -> None:
        stream = self.connection.open_bi()
        assert stream == CONTROL_STREAM, stream
        self._handshake = HandshakeDialer(
            self.identity.dist, peer=self.peer, challenge=os.urandom(4), now=self._loop.time()
        )
        self._events.named()

    def _named(self, event: PeerNamed) -> None:
        raise AssertionError("only acceptors are told names")

    def _succeed(self, channel: Channel) -> None:
        self._events.up(channel)

    def _fail(self, error: BarrelError) -> None:
        if isinstance(error, HandshakeError) and error.reason == "nok":  # an Erlang node's word for it
            error = DialYielded(str(error))
        self._events.failed(error)


class Accepting(_Establishing):
    """A peer dialled us. Outcomes go to ``events``; every refusal is logged with its reason."""

    def __init__(self, connection: Connection, identity: Identity, events: AcceptEvents) -> None:
        super().__init__(connection, identity, ACCEPTOR_AUTH_STREAM, DIALER_AUTH_STREAM)
        self.creation = 0
        self._events = events
        self._name: Atom | None = None
        self.number = events.arrived(self)
        self._auth = AuthAcceptor(
            identity.auth,
            binding=identity.binding,
            nonce=os.urandom(32),
            now=self._loop.time(),
            check_pin=identity.check_pin,
        )
        connection.handler = self
        stream = connection.open_uni()
        assert stream == ACCEPTOR_AUTH_STREAM, stream
        self._arm()

    def _start_handshake(self) -> None:
        self._handshake = HandshakeAcceptor(
            self.identity.dist,
            challenge=os.urandom(4),
            now=self._loop.time(),
            expected=self._authenticated.peer if self._authenticated else None,
        )

    def _named(self, event: PeerNamed) -> None:
        self._name = event.name
        self._peer_flags = event.flags
        self.creation = event.creation
        self._events.peer_named(self, event.name, event.creation)

    def let_in(self, *, simultaneous: bool = False) -> None:
        """Go on with the peer that told its name; ``simultaneous`` says that our own dial of it was given up."""
        if not self.over and isinstance(self._handshake, HandshakeAcceptor):
            self._handshake.answer("ok_simultaneous" if simultaneous else "ok", now=self._loop.time())
            self._pump()

    def turn_away(self, why: str) -> None:
        """Refuse the peer that told its name; it reads ``not_allowed``, our log has ``why``."""
        if not self.over and isinstance(self._handshake, HandshakeAcceptor):
            self._handshake.answer("not_allowed", now=self._loop.time())
            self._write_handshake()
            self._end(HandshakeError("not_allowed", why, self._name))

    def yield_to_dial(self) -> None:
        """Close this connection in favour of our own dial. An Erlang dialer must not read ``nok``: it would hang for
        good."""
        self._end(_Yield("this node's own connection to the peer goes on"))

    def _succeed(self, channel: Channel) -> None:
        self._events.accepted(self, channel)

    def _fail(self, error: BarrelError) -> None:
        quiet = isinstance(error, _Yield | DialYielded | NotConnected)
        log.log(
            logging.DEBUG if quiet else logging.WARNING,
            "refused a connection from %s:%s: %s",
            *self.connection.peer_address,
            error,
            extra={"peer": self._name or self._auth.peer, "reason": getattr(error, "reason", None)},
        )
        self._events.accept_failed(self, self._name)


class _Yield(DialYielded):
    """Another connection to the peer wins over this one."""


def _short(error: BarrelError) -> str:
    """What the peer may read as close reason: the kind of fault, no details about this node."""
    return str(getattr(error, "reason", "closed"))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
