"""The distribution handshake on one connection, over any carrier: from bytes to a channel.

The machine (``proto.handshake``) decides everything; this file moves its bytes, re-arms one timer, and reports one
outcome. What a carrier has in front of it (the key exchange over QUIC) and how it moves bytes is added by
``establish.py`` and ``establish_tcp.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Protocol

from barrel_p2p.errors import BarrelError, HandshakeError, InternalError, NotConnected
from barrel_p2p.net.connection import CloseReason, Connection
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.handshake_counts import HandshakeCounts, Role
from barrel_p2p.proto.auth import Authenticated
from barrel_p2p.proto.flags import Flags
from barrel_p2p.proto.handshake import (
    Connected,
    HandshakeAcceptor,
    HandshakeConfig,
    HandshakeDialer,
    PeerNamed,
    StatusWord,
)
from barrel_p2p.proto.machine import Failed, NeedData
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.connect")

CONTROL_STREAM = 0

CLOSE_NORMAL = 0  # the only code an Erlang node sends
CLOSE_SIMULTANEOUS = 0xB1  # ours, over QUIC: "another connection between us goes on, wait for it"

LAST_WORDS_SECONDS = 0.05  # a guess: a retransmission on a LAN


class DialYielded(BarrelError):
    """The peer gave up our dial because another connection between us goes on."""


class Yielding(DialYielded):
    """Another connection to the peer wins over this one."""


class Settings(Protocol):
    """What every carrier needs to know of its node."""

    @property
    def dist(self) -> HandshakeConfig: ...

    @property
    def max_message(self) -> int: ...

    @property
    def make_channel(self) -> Callable[[Atom, Connection, Connected, bytes | None], Channel]: ...

    @property
    def counts(self) -> HandshakeCounts: ...


class Establishing:
    """What both roles share: bytes in, bytes out, one timer, one end."""

    _handshake: HandshakeDialer | HandshakeAcceptor | None
    _role: Role

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self.over = False
        self._settings = settings
        self._handshake = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._peer_flags = Flags(0)
        self._started_at = self._loop.time()

    # --- what the connection reports --------------------------------------------------------------------------------

    def stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        if not self.over:
            assert self._handshake is not None
            self._handshake.receive_data(data, now=self._loop.time())
            self._pump()

    def messages(self, batch: object) -> None:
        raise AssertionError("messages before start_dist")

    def writable(self) -> None:
        """Handshakes are small; they never fill a channel."""

    def closed(self, reason: CloseReason) -> None:
        if not self.over:
            assert self._handshake is not None
            self._handshake.connection_lost(reason.text)
            self._pump()

    # --- the machine ------------------------------------------------------------------------------------------------

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
            assert self._handshake is not None
            self._write_handshake()
            event = self._handshake.next_event()
            if isinstance(event, PeerNamed):
                self._named(event)
            elif isinstance(event, Connected):
                self._connected(event)
            elif isinstance(event, Failed):
                self._failed(event, self._handshake.peer)
            elif isinstance(event, NeedData):
                break
        if not self.over:
            self._arm()

    def _failed(self, event: Failed, peer: Atom | None) -> None:
        self._end(HandshakeError(event.reason, event.message, peer, event.details))

    def _write_handshake(self) -> None:
        """Write what is due. Over QUIC an Erlang reader takes all that is buffered for one message, so messages to it
        go out apart."""
        assert self._handshake is not None
        waiting = bool(self._unsent)
        self._unsent += self._handshake.data_to_send()
        if self._peer_flags & Flags.PYTHON or not self._handshake.pause:
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

    def _named(self, event: PeerNamed) -> None:
        raise NotImplementedError

    def _connected(self, event: Connected) -> None:
        self._finish(event, None)

    def _finish(self, event: Connected, proven: Authenticated | None) -> None:
        """The channel is up: ``proven`` is what the exchange of keys brought, if there was one."""
        assert self._handshake is not None
        self.connection.start_dist(
            fragments=bool(event.chosen & Flags.FRAGMENTS),
            atom_cache=bool(event.chosen & Flags.DIST_HDR_ATOM_CACHE),
            max_frame=self._settings.max_message,
            exact_empty_str=bool(event.flags & Flags.PYTHON),
            received=self._handshake.trailing_data,
        )
        key = None if proven is None else proven.public_key
        channel = self._settings.make_channel(event.peer, self.connection, event, key)
        channel.proven = proven
        self._stop()
        self.connection.handler = channel
        took = self._loop.time() - self._started_at
        self._settings.counts.succeeded(self._role, took)
        log.info(
            "%s is connected: cookies agree, the channel is up after %.1f ms",
            event.peer,
            took * 1000,
            extra={"peer": event.peer},
        )
        self._succeed(channel)

    # --- ends -------------------------------------------------------------------------------------------------------

    def abort(self, why: str) -> None:
        self._end(NotConnected(why))

    def _end(self, error: BarrelError) -> None:
        if self.over:
            return
        self._stop()
        self._settings.counts.failed(self._role, error, self._loop.time() - self._started_at)
        code = CLOSE_SIMULTANEOUS if isinstance(error, Yielding) else CLOSE_NORMAL
        # A close overtakes data; what says why (a FAIL frame, a refusing status) deserves a moment to get out.
        self._loop.call_later(LAST_WORDS_SECONDS, self.connection.close, code, short_reason(error))
        self._fail(error)

    def _stop(self) -> None:
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _succeed(self, channel: Channel) -> None:
        raise NotImplementedError

    def _fail(self, error: BarrelError) -> None:
        raise NotImplementedError

    def _deadline(self) -> float:
        assert self._handshake is not None
        return self._handshake.deadline

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline() + 0.001, self._tick)

    def _tick(self) -> None:
        assert self._handshake is not None
        self._handshake.tick(self._loop.time())
        self._pump()


class DialEvents(Protocol):
    """What becomes of a dial: perhaps ``named``, once our name went out, then either of the others."""

    def named(self) -> None: ...

    def up(self, channel: Channel) -> None: ...

    def failed(self, error: BarrelError) -> None: ...


class DialingRole(Establishing):
    """Our side dialled. Its outcome goes to ``events``, unless it is aborted: a channel, or AuthError, HandshakeError,
    NotConnected, DialYielded."""

    _role = "outgoing"

    def __init__(self, connection: Connection, settings: Settings, peer: Atom, events: DialEvents) -> None:
        super().__init__(connection, settings)
        self.peer = peer
        self._events = events

    def _open_handshake(self) -> None:
        self._handshake = HandshakeDialer(
            self._settings.dist, peer=self.peer, challenge=os.urandom(4), now=self._loop.time()
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


class AcceptEvents(Protocol):
    def arrived(self, accepting: AcceptingRole) -> int: ...

    def peer_named(self, accepting: AcceptingRole, name: Atom, creation: int) -> None: ...

    def accept_failed(self, accepting: AcceptingRole, name: Atom | None) -> None: ...

    def accepted(self, accepting: AcceptingRole, channel: Channel) -> None: ...


class AcceptingRole(Establishing):
    """A peer dialled us. Outcomes go to ``events``; every refusal is logged with its reason."""

    _role = "incoming"

    def __init__(self, connection: Connection, settings: Settings, events: AcceptEvents) -> None:
        super().__init__(connection, settings)
        self.creation = 0
        self._events = events
        self._name: Atom | None = None
        self.number = events.arrived(self)

    def _open_handshake(self, expected: Atom | None) -> None:
        self._handshake = HandshakeAcceptor(
            self._settings.dist, challenge=os.urandom(4), now=self._loop.time(), expected=expected
        )

    def _named(self, event: PeerNamed) -> None:
        self._name = event.name
        self._peer_flags = event.flags
        self.creation = event.creation
        self._events.peer_named(self, event.name, event.creation)

    def let_in(self, *, simultaneous: bool = False) -> None:
        """Go on with the peer that told its name; ``simultaneous`` says that our own dial of it was given up."""
        self._answer("ok_simultaneous" if simultaneous else "ok")

    def turn_away(self, why: str) -> None:
        """Refuse the peer that told its name; it reads ``not_allowed``, our log has ``why``."""
        if not self.over and isinstance(self._handshake, HandshakeAcceptor):
            self._handshake.answer("not_allowed", now=self._loop.time())
            self._write_handshake()
            self._end(HandshakeError("not_allowed", why, self._name))

    def ask_if_alive(self) -> None:
        """We have a channel of this name: let the peer say whether that one is dead (status ``alive``)."""
        raise AssertionError("only peers that are not authenticated yet are asked")

    def yield_to_dial(self) -> None:
        """Give this connection up in favour of another one to the peer."""
        self._end(Yielding("this node's own connection to the peer goes on"))

    def _answer(self, status: StatusWord) -> None:
        if not self.over and isinstance(self._handshake, HandshakeAcceptor):
            self._handshake.answer(status, now=self._loop.time())
            self._pump()

    def _succeed(self, channel: Channel) -> None:
        self._events.accepted(self, channel)

    def _claimed(self) -> Atom | None:
        """The name the peer goes by so far, for the log."""
        return self._name

    def _fail(self, error: BarrelError) -> None:
        quiet = isinstance(error, DialYielded | NotConnected)
        log.log(
            logging.DEBUG if quiet else logging.WARNING,
            "refused a connection from %s:%s: %s",
            *self.connection.peer_address,
            error,
            extra={"peer": self._claimed(), "reason": getattr(error, "reason", None)},
        )
        self._events.accept_failed(self, self._name)


def short_reason(error: BarrelError) -> str:
    """What the peer may read as close reason: the kind of fault, no details about this node."""
    return str(getattr(error, "reason", "closed"))
