"""The distribution handshake, version 6: names, flags and proof of the common cookie (erl_dist_protocol).

::

    dialer                       acceptor
    name              ->
                      <-         status   (ok, ok_simultaneous, nok, not_allowed, alive)
    [true]            ->                  (only after alive: "our old connection is dead, take this one")
                      <-         challenge
    answer            ->
                      <-         ack

The machine knows two framings: ``RAW`` for QUIC stream 0, where a message ends where its grammar says, and
``LENGTH16`` for TCP. Over QUIC an Erlang dialer takes all it has buffered for one message, so no two of our
messages may reach it at once: ``data_to_send`` returns them apart and ``pause`` says how long to wait between
two of them.

States and legal moves are the ``_MOVES`` tables. What couples them: the answer of the acceptor's driver to
``PeerNamed`` (``answer``), and one timer of 7 s for each step, as OTP has it (``deadline``, ``tick``).
"""

from __future__ import annotations

import hmac
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Literal

from barrel_p2p.errors import ConfigError, InternalError
from barrel_p2p.proto import handshake_messages as wire
from barrel_p2p.proto.flags import DEFAULT, MANDATORY, Flags, expand, explain, missing
from barrel_p2p.proto.handshake_messages import Ack, Answer, Bad, Challenge, Message, Name, Parser, Status
from barrel_p2p.proto.machine import NEED_DATA, Failed, NeedData
from barrel_p2p.proto.names import is_node_name
from barrel_p2p.term.types import Atom

SETUP_TIME = 7.0  # seconds for each step; OTP's net_setuptime
PAUSE = 0.005  # seconds between two messages over QUIC; a guess: many times what Erlang's reader takes to wake
MAX_BUFFER = 1024  # bytes; the longest message has 274. Our bound on what a peer may send ahead of its turn.

StatusWord = Literal["ok", "ok_simultaneous", "nok", "not_allowed", "alive"]


class Framing(Enum):
    """How messages stand on the transport: one after the other (QUIC stream 0), or with ``len:16`` in front
    (TCP).
    """

    RAW = 0
    LENGTH16 = 2


@dataclass(frozen=True, slots=True)
class HandshakeConfig:
    """What a node brings into every handshake.

    Args:
        name: our node name.
        cookie: the shared secret, as in ``-setcookie``; characters up to U+00FF.
        creation: 32 bits that tell this start of the node from earlier ones, 4 or more.
        flags: what we offer (see ``proto.flags``).
        required: what the peer must offer.
        framing: ``Framing.RAW`` over QUIC, ``Framing.LENGTH16`` over TCP.
        setup_time: seconds for each step (7: OTP's ``net_setuptime``).

    Raises:
        ConfigError: the cookie has a character that no Erlang cookie can have, or the creation is out of
        range.
    """

    name: Atom
    cookie: str
    creation: int
    flags: Flags = DEFAULT
    required: Flags = MANDATORY
    framing: Framing = Framing.RAW
    setup_time: float = SETUP_TIME

    def __post_init__(self) -> None:
        try:
            self.cookie.encode("latin-1")
        except UnicodeEncodeError:
            raise ConfigError("a cookie has only characters up to U+00FF, as Erlang's have") from None
        if not 0 < self.creation < 1 << 32:
            raise ConfigError(f"a creation is a positive 32-bit number, not {self.creation}")

    def digest(self, challenge: int) -> bytes:
        return wire.digest(self.cookie.encode("latin-1"), challenge)


@dataclass(frozen=True, slots=True)
class PeerNamed:
    """A dialer said who it is and what it can do. The driver decides and calls ``answer``."""

    name: Atom
    flags: Flags
    creation: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The cookie was right on both sides. ``chosen`` are the flags that both have; dist data may flow now."""

    peer: Atom
    flags: Flags
    chosen: Flags
    creation: int


class _State(Enum):
    WAIT_STATUS = "its status"
    WAIT_CHALLENGE = "its challenge"
    WAIT_ACK = "its last proof"
    WAIT_NAME = "its name"
    DECIDING = "our own decision"
    WAIT_ALIVE = "its word on the old connection"
    WAIT_ANSWER = "its proof"
    OVER = "nothing"

    @property
    def word(self) -> str:
        """What is waited for in one word for programs: status, challenge, ack, name, alive, answer."""
        return self.name.removeprefix("WAIT_").lower()


_Moves = dict[_State, dict[int, tuple[Parser, str]]]  # state -> first byte -> how to read it, who takes it


class _Handshake:
    """Framing, parsing and the timer, common to both roles."""

    _MOVES: ClassVar[_Moves] = {}

    def __init__(self, config: HandshakeConfig, state: _State, *, challenge: bytes, now: float) -> None:
        if len(challenge) != 4:
            raise ValueError("a challenge has 4 bytes")
        self.peer: Atom | None = None
        self.deadline: float = now + config.setup_time
        self.pause: float = PAUSE if config.framing is Framing.RAW else 0.0
        self._config = config
        self._challenge = int.from_bytes(challenge, "big")
        self._state = state
        self._in = bytearray()
        self._out: list[bytes] = []
        self._events: deque[PeerNamed | Connected | Failed] = deque()
        self._peer_flags = Flags(0)
        self._peer_creation = 0

    # --- the public face ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, *, now: float) -> None:
        """Take bytes of the peer (``now`` in monotonic seconds). After ``Connected`` the stream is the
        driver's.
        """
        self.tick(now)
        if self._state is _State.OVER:
            return
        self._in += data
        self._parse(now)

    def data_to_send(self) -> list[bytes]:
        """The messages to send, each with its framing: one write and one packet each, ``pause`` seconds
        apart.
        """
        out, self._out = self._out, []
        return out

    def next_event(self) -> NeedData | PeerNamed | Connected | Failed:
        """What happened next, or ``NeedData``."""
        return self._events.popleft() if self._events else NEED_DATA

    def tick(self, now: float) -> None:
        """Fail if the deadline has passed; call it at ``deadline`` (which moves) and as often as you like
        before.
        """
        if self._state is _State.OVER or now <= self.deadline:
            return
        limit = f"{self._config.setup_time:g} s"
        if self._state is _State.DECIDING:
            self._fail("timeout", f"This node did not decide about {self._who} within {limit}: it is overloaded.")
        else:
            waited = f"{self._who} was silent for {limit} while we waited for {self._state.value}."
            self._fail("timeout", f"{waited} {self._silence()}", waiting_for=self._state.word)

    def connection_lost(self, why: str = "") -> None:
        """Tell the machine that the connection is gone."""
        if self._state is not _State.OVER:
            self._out.clear()
            detail = f" ({why})" if why else ""
            text = f"The connection to {self._who} closed{detail} while we waited for {self._state.value}. "
            self._fail("closed", text + self._silence(), waiting_for=self._state.word)

    @property
    def trailing_data(self) -> bytes:
        """What came behind the last message of the handshake; read it once ``Connected`` was returned."""
        return bytes(self._in)

    # --- reading --------------------------------------------------------------------------------------------

    def _parse(self, now: float) -> None:
        while self._state not in (_State.OVER, _State.DECIDING) and self._in:
            parsed = self._next_message()
            if parsed is None:
                break
            if isinstance(parsed, Bad):
                self._on_bad(parsed)
            else:
                message, handler = parsed
                getattr(self, handler)(message, now)
        if self._state is not _State.OVER and len(self._in) > MAX_BUFFER + 2:
            self._fail("malformed", f"{self._who} sent more than {MAX_BUFFER} bytes before its turn.")

    def _next_message(self) -> tuple[Message, str] | Bad | None:
        """Cut the next message off the buffer. Ticks (a zero length) are legal anywhere and mean nothing."""
        width = self._config.framing.value or 4  # a tick over QUIC is a zero length of 32 bits, as after the handshake
        while not any(head := bytes(self._in[:width])):
            if len(head) < width:
                return None
            del self._in[:width]
        if self._config.framing is Framing.RAW:
            return self._read(bytes(self._in), whole=False)
        if len(head) < width:
            return None
        size = int.from_bytes(head, "big")
        if size > MAX_BUFFER:
            return Bad("malformed", f"a message of {size} bytes")
        if len(self._in) < width + size:
            return None
        body = bytes(self._in[width : width + size])
        del self._in[: width + size]
        return self._read(body, whole=True)

    def _read(self, data: bytes, *, whole: bool) -> tuple[Message, str] | Bad | None:
        move = self._MOVES[self._state].get(data[0])
        if move is None:
            return Bad("unexpected_message", f"{data[:1]!r}, no message that may come now")
        parser, handler = move
        # A whole status may be the "ok" whose next byte would decide: let it see that nothing follows.
        parsed = parser(data + b"\0" if whole and data[:1] == b"s" else data)
        if parsed is None:
            return Bad("malformed", f"a message of {len(data)} bytes that is cut short") if whole else None
        if isinstance(parsed, Bad):
            return parsed
        message, size = parsed
        if not whole:
            del self._in[:size]
        elif size != len(data) and not isinstance(message, Name | Challenge):  # OTP lets these two grow
            return Bad("malformed", f"{len(data) - size} bytes too many")
        return message, handler

    # --- shared steps ---------------------------------------------------------------------------------------

    def _send(self, message: bytes) -> None:
        width = self._config.framing.value
        self._out.append(len(message).to_bytes(width, "big") + message if width else message)

    def _proves(self, proof: bytes) -> bool:
        return hmac.compare_digest(proof, self._config.digest(self._challenge))

    def _bad_cookie(self) -> None:
        self._fail("bad_cookie", f"{self._who} has another cookie. Give both nodes the same one.")

    def _connected(self) -> None:
        assert self.peer is not None
        self._state = _State.OVER
        chosen = self._config.flags & self._peer_flags
        self._events.append(Connected(self.peer, self._peer_flags, chosen, self._peer_creation))

    def _on_bad(self, bad: Bad) -> None:
        self._fail(bad.reason, f"{self._who} sent {bad.detail}. It is no Erlang or barrel_p2p node, or faulty.")

    def _fail(self, reason: str, message: str, **details: Any) -> None:
        self._state = _State.OVER
        self._in.clear()
        self._events.append(Failed(reason, message, details))

    def _silence(self) -> str:
        return "It may be overloaded; try again."

    @property
    def _who(self) -> str:
        return str(self.peer) if self.peer is not None else "The peer"


class HandshakeDialer(_Handshake):
    """Our side of the handshake with ``peer``, to which we opened the connection.

    Args:
        config: see ``HandshakeConfig``.
        peer: the dialled node; nobody else is accepted.
        challenge: 4 fresh random bytes. ``now``: monotonic seconds.
    """

    _MOVES: ClassVar[_Moves] = {
        _State.WAIT_STATUS: {
            ord("s"): (
                wire.status_parser("ok", "ok_simultaneous", "nok", "not_allowed", "alive", "named:"),
                "_on_status",
            )
        },
        _State.WAIT_CHALLENGE: {
            ord("N"): (wire.parse_challenge, "_on_challenge"),
            ord("n"): (wire.parse_old_name, ""),
        },
        _State.WAIT_ACK: {ord("a"): (wire.parse_ack, "_on_ack")},
    }

    def __init__(self, config: HandshakeConfig, *, peer: Atom, challenge: bytes, now: float) -> None:
        super().__init__(config, _State.WAIT_STATUS, challenge=challenge, now=now)
        self.peer: Atom = peer
        self._send(wire.name(config.flags, config.creation, config.name))

    def _on_status(self, message: Status, now: float) -> None:
        match message.word:
            case "ok" | "ok_simultaneous":
                self._state = _State.WAIT_CHALLENGE
            case "alive":  # it thinks that we are connected; we know that we are not, or we would not dial
                self._send(wire.status("true"))
                self._state = _State.WAIT_CHALLENGE
                self.deadline = now + self._config.setup_time
            case "nok":
                self._fail(
                    "nok",
                    f"{self.peer} is dialling us at the same moment and its attempt goes first; wait for that one.",
                )
            case "not_allowed":
                self._fail(
                    "not_allowed",
                    f"{self.peer} does not let {self._config.name} in: our name is not on its list of "
                    "allowed nodes, "
                    "or it demands a distribution flag that we don't offer (its log names it).",
                )
            case _:
                self._fail("unexpected_status", f"{self.peer} wants to give us a name, but we have one.")

    def _on_challenge(self, message: Challenge, now: float) -> None:
        lacking = missing(message.flags, self._config.required)
        if message.name != self.peer:
            self._fail(
                "name_mismatch",
                f"We dialled {self.peer}, but {message.name!r} answered. The address of {self.peer} is wrong or old.",
                answered=message.name if is_node_name(message.name) else "?",
            )
        elif lacking:
            self._fail("missing_flags", _lacks(self.peer, lacking), missing_flags=explain(lacking))
        else:
            self._peer_flags, self._peer_creation = expand(message.flags), message.creation
            self._send(wire.answer(self._challenge, self._config.digest(message.challenge)))
            self._state = _State.WAIT_ACK
            self.deadline = now + self._config.setup_time

    def _on_ack(self, message: Ack, now: float) -> None:
        if self._proves(message.digest):
            self._connected()
        else:
            self._bad_cookie()

    def _silence(self) -> str:
        if self._state is _State.WAIT_ACK:  # Erlang ends a bad cookie so: TCP closes, QUIC falls silent
            return "Most likely its cookie differs from ours: give both nodes the same one; its log tells."
        return super()._silence()


class HandshakeAcceptor(_Handshake):
    """Our side of the handshake on a connection that a peer opened.

    Args:
        config: see ``HandshakeConfig``.
        challenge: 4 fresh random bytes. ``now``: monotonic seconds.
        expected: the name that the peer authenticated as, if it did; another one is refused.
    """

    _MOVES: ClassVar[_Moves] = {
        _State.WAIT_NAME: {
            ord("N"): (wire.parse_name, "_on_name"),
            ord("n"): (wire.parse_old_name, ""),
        },
        _State.WAIT_ALIVE: {ord("s"): (wire.status_parser("true", "false"), "_on_alive")},
        _State.WAIT_ANSWER: {ord("r"): (wire.parse_answer, "_on_answer")},
    }

    def __init__(self, config: HandshakeConfig, *, challenge: bytes, now: float, expected: Atom | None = None) -> None:
        super().__init__(config, _State.WAIT_NAME, challenge=challenge, now=now)
        self._expected = expected

    def answer(self, status: StatusWord, *, now: float) -> None:
        """Decide about the peer that ``PeerNamed`` told of.

        Args:
            status: ``ok``: go on. ``ok_simultaneous``: go on, and we gave up our own dial to it. ``alive``:
                we hold a connection to this node, let it say that it is dead. ``not_allowed``: we don't want
                it. ``nok``: our own dial goes first; over QUIC close the connection instead, an Erlang node
                never recovers from ``nok``.
            now: monotonic seconds.

        Raises:
            InternalError: there was no ``PeerNamed``.
        """
        if self._state is _State.OVER:
            return  # the peer misbehaved or the time ran out after it was announced; Failed tells
        if self._state is not _State.DECIDING:
            raise InternalError(f"handshake: answer({status!r}) in state {self._state.name}")
        self.deadline = now + self._config.setup_time
        self._send(wire.status(status))
        match status:
            case "ok" | "ok_simultaneous":
                self._send_challenge(now)
            case "alive":
                self._state = _State.WAIT_ALIVE
            case "nok":
                self._fail("nok", f"{self._who} and we dialled each other; our attempt goes first.")
            case "not_allowed":
                self._fail("not_allowed", f"{self._who} is not allowed to connect to this node.")
        self._parse(now)

    def _on_name(self, message: Name, now: float) -> None:
        if message.flags & Flags.NAME_ME:
            self._refuse("dynamic_name", "A peer asks for a node name. We give none: start it with -name or -sname.")
        elif not is_node_name(message.name):
            self._refuse("bad_name", f"A peer calls itself {message.name[:80]!r}, which is no node name (name@host).")
        elif message.name == self._config.name:
            self._refuse("own_name", f"A peer calls itself {message.name}, as this node. Give one another name.")
        elif self._expected is not None and message.name != self._expected:
            self._refuse(
                "name_mismatch",
                f"{self._expected} authenticated, but wants to connect as {message.name}. It may have only "
                "its own name.",
            )
        else:
            self.peer = Atom(message.name)
            self._peer_flags, self._peer_creation = expand(message.flags), message.creation
            if lacking := missing(message.flags, self._config.required):
                self._refuse("missing_flags", _lacks(self.peer, lacking), missing_flags=explain(lacking))
            else:
                self._state = _State.DECIDING
                self._events.append(PeerNamed(self.peer, self._peer_flags, message.creation))

    def _on_alive(self, message: Status, now: float) -> None:
        if message.word == "true":
            self._send_challenge(now)
        else:
            self._fail("still_connected", f"{self._who} says that its old connection to us lives; we keep that one.")

    def _send_challenge(self, now: float) -> None:
        config = self._config
        self._send(wire.challenge(config.flags, self._challenge, config.creation, config.name))
        self._state = _State.WAIT_ANSWER
        self.deadline = now + config.setup_time

    def _on_answer(self, message: Answer, now: float) -> None:
        if self._proves(message.digest):
            self._send(wire.ack(self._config.digest(message.challenge)))
            self._connected()
        else:
            self._bad_cookie()

    def _on_bad(self, bad: Bad) -> None:
        if bad.reason == "old_version":
            self._refuse("old_version", f"{self._who} sent {bad.detail}. OTP 25 or newer is needed.")
        else:
            super()._on_bad(bad)

    def _refuse(self, reason: str, message: str, **details: Any) -> None:
        """Fail, and say so in the one word that the protocol has for it."""
        self._send(wire.status("not_allowed"))
        self._fail(reason, message, **details)


def _lacks(peer: Atom, flags: Flags) -> str:
    names = ", ".join(explain(flags))
    return f"{peer} does not offer the distribution flags {names}. OTP 25 or newer is needed."


__all__ = [
    "Connected",
    "Failed",
    "Framing",
    "HandshakeAcceptor",
    "HandshakeConfig",
    "HandshakeDialer",
    "NeedData",
    "PeerNamed",
    "StatusWord",
]
