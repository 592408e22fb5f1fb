"""What both roles of the authentication share: framing, deadline, checks, proofs, the endorsement of a new key.

``auth.py`` has the roles, and opens with the protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from barrel_p2p.proto.auth_frames import (
    BINDING_SIZE,
    KEY_SIZE,
    MAX_BODY,
    NONCE_SIZE,
    Bad,
    Challenge,
    Endorse,
    Fail,
    Frame,
    Hello,
    Response,
    decode,
    encode,
    signed_text,
)
from barrel_p2p.proto.auth_texts import NOT_BARREL, REFUSALS, pin_fault
from barrel_p2p.proto.endorsement import MAX_LINKS, Broken, Chain, Endorsement, follow
from barrel_p2p.proto.identity import PinVerdict, fingerprint
from barrel_p2p.proto.machine import NEED_DATA, Failed, NeedData
from barrel_p2p.term.types import Atom

ENDORSEMENT_SECONDS = 2.0  # for a chain to come, or to be answered; a guess: many round trips


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """What a node brings into every exchange.

    Args:
        name: our node name.
        sign: signs bytes with our Ed25519 key; called once per exchange.
        public_key: our 32-byte public key.
        window_ms: how long, in ms, the peer may take to sign our challenge; its clock may be off by twice
            that (30000: upstream's ``auth_timestamp_window``).
        timeout: seconds for the whole exchange (10: upstream's ``auth_handshake_timeout``).
        cookie_only: patterns of nodes that need no key, only the cookie (see
            ``names.validate_node_pattern``).
        chain: what our former keys say of the present one, oldest first.
    """

    name: Atom
    sign: Callable[[bytes], bytes]
    public_key: bytes
    window_ms: int = 30000
    timeout: float = 10.0
    cookie_only: tuple[str, ...] = ()
    chain: Chain = ()


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The peer is who it says. ``public_key`` is None for a cookie-only peer, of which nothing was proven.

    ``first_contact`` is True when no key was pinned for it: the driver pins ``public_key`` once the cookie
    was right too. ``clock_offset_ms`` is how far its clock is ahead of ours, the way of its message included.
    ``endorsed`` leads from the pinned key to ``public_key`` if that is a new one; the driver moves the pin, also
    once the cookie was right. ``own_key`` is the key that we showed.
    """

    peer: Atom
    public_key: bytes | None
    first_contact: bool = False
    clock_offset_ms: int | None = field(default=None, compare=False)
    endorsed: Chain = ()
    own_key: bytes = field(default=b"", compare=False)


class State(Enum):
    WAIT_HELLO = "its HELLO"
    WAIT_ENDORSEMENT = "an endorsement of its new key"
    WAIT_CHALLENGE = "its CHALLENGE"
    WAIT_RESPONSE = "its RESPONSE"
    WAIT_OK = "its OK"
    OVER = "nothing"


Moves = dict[State, dict[type[Frame], str]]  # state -> the frames that may come now -> the method that takes each


class Exchange:
    """Framing, deadline and the steps that both roles share. Time, nonce and pins come from outside."""

    _MOVES: ClassVar[Moves] = {}

    def __init__(
        self,
        config: AuthConfig,
        *,
        binding: bytes,
        nonce: bytes,
        now: float,
        check_pin: Callable[[Atom, bytes], PinVerdict],
    ) -> None:
        if len(binding) != BINDING_SIZE or len(nonce) != NONCE_SIZE or len(config.public_key) != KEY_SIZE:
            raise ValueError("binding, nonce and public key have 32 bytes each")
        self.peer: Atom | None = None  # the name claimed so far, for the log
        self.deadline: float = now + config.timeout
        self._config = config
        self._binding = binding
        self._nonce = nonce
        self._check_pin = check_pin
        self._state = State.WAIT_HELLO
        self._heard = False
        self._in = bytearray()
        self._out = bytearray()
        self._events: deque[Authenticated | Failed] = deque()
        self._peer_key = b""
        self._challenge: Challenge | None = None  # ours, once sent
        self._challenged_at = 0.0
        self._clock_offset_ms: int | None = None
        self._refusal: Failed | None = None  # how this ends unless an endorsement convinces us, or the peer
        self._offered = False
        self._links: list[Endorsement] = []
        self._endorsed: Chain = ()
        self._latest = self.deadline

    # --- the public face ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, *, now: float, wall_ms: int) -> None:
        """Take bytes of the peer's stream; ``now`` in monotonic seconds, ``wall_ms`` in ms since 1970."""
        self.tick(now)
        self._in += data
        self._heard = self._heard or bool(data)
        while self._state is not State.OVER and len(self._in) >= 2:
            size = int.from_bytes(self._in[:2], "big")
            if not 0 < size <= MAX_BODY:
                self._fail("malformed", f"{self._who} announced a message of {size} bytes ({NOT_BARREL}).")
                break
            if len(self._in) < 2 + size:
                break
            body = bytes(self._in[2 : 2 + size])
            del self._in[: 2 + size]
            self._step(decode(body), now, wall_ms)
        if self._state is State.OVER:
            self._in.clear()  # whatever follows is not ours to keep

    def data_to_send(self) -> bytes:
        """The bytes for our auth stream, once: a second call returns only what came since."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def next_event(self) -> NeedData | Authenticated | Failed:
        """What happened next, or ``NeedData``."""
        return self._events.popleft() if self._events else NEED_DATA

    def tick(self, now: float) -> None:
        """Fail if the deadline has passed; call it at ``deadline`` and as often as you like before."""
        if self._state is not State.OVER and now > self.deadline:
            if self._refusal is not None:
                self._end(self._refusal)
                return
            hint = "" if self._heard else f" It sent nothing at all: {NOT_BARREL}."
            self._fail(
                "timeout",
                f"{self._who} did not authenticate within {self._config.timeout:g} s, "
                f"we waited for {self._state.value}.{hint} Nothing was stored; it may be tried again.",
            )

    def connection_lost(self, why: str = "") -> None:
        """Tell the machine that the connection is gone. Upstream closes without a word on most refusals."""
        if self._state is not State.OVER:
            self._out.clear()
            if self._refusal is not None:
                self._end(self._refusal)
                return
            detail = f" ({why})" if why else ""
            self._end(
                Failed(
                    "closed",
                    f"{self._who} closed the connection{detail} while we waited for {self._state.value}. "
                    "It gave no reason; its log has it. Usual ones: its clock and ours differ by more than a "
                    "minute, "
                    f"it has another key pinned for {self._config.name}, or it trusts listed keys only.",
                )
            )

    # --- shared steps ---------------------------------------------------------------------------------------

    def _step(self, frame: Frame | Bad, now: float, wall_ms: int) -> None:
        if isinstance(frame, Bad):
            fault = {
                "bad_name": "Its name must be name@host.",
                "unsupported_version": "One of the two nodes must be upgraded.",
            }.get(frame.reason, "The peer is at fault, or no barrel_p2p node.")
            self._fail(frame.reason, f"{self._who} sent {frame.detail}. {fault}")
            return
        handler = self._MOVES[self._state].get(type(frame))
        if handler is None:
            kind = type(frame).__name__.upper()
            self._fail("unexpected_message", f"{self._who} sent {kind} while we waited for {self._state.value}.")
            return
        getattr(self, handler)(frame, now, wall_ms)

    def _take_identity(self, hello: Hello, now: float, wall_ms: int) -> None:
        """The checks of a HELLO that need no signature; on with ``_identity_taken`` if it passes them, now or later."""
        self._peer_key = hello.public_key
        if hello.name == self._config.name:
            self._fail(
                "own_name",
                f"A peer presents our own name {hello.name} and the key {fingerprint(hello.public_key)}. "
                "Either two nodes were started with one name, or this node dials itself.",
            )
        elif hello.public_key == self._config.public_key:
            self._fail(
                "own_key",
                f"{hello.name} presents our own public key. Two nodes must not share a key directory: give "
                f"{hello.name} "
                "one of its own (or delete node.key and node.pub from the copy).",
            )
        elif self._check_pin(hello.name, hello.public_key) == PinVerdict.MISMATCH:
            self._ask_for_endorsement(now)
        elif self._accept_pin():
            self._identity_taken(now, wall_ms)

    def _identity_taken(self, now: float, wall_ms: int) -> None:
        raise NotImplementedError

    def _accept_pin(self) -> bool:
        assert self.peer is not None
        verdict = self._check_pin(self.peer, self._peer_key)
        if verdict in (PinVerdict.ACCEPT, PinVerdict.NEW):
            return True
        if verdict == PinVerdict.MISMATCH and self._endorsed and self._endorsed[0].old == verdict.pinned:
            return True
        word, text = pin_fault(verdict, self.peer, self._peer_key)
        self._fail(word, text, presented=self._peer_key, pinned=verdict.pinned)
        return False

    # --- a new key, and what the old one says of it -------------------------------------------------------------

    def _ask_for_endorsement(self, now: float) -> None:
        assert self.peer is not None
        verdict = self._check_pin(self.peer, self._peer_key)
        word, text = pin_fault(verdict, self.peer, self._peer_key)
        self._send(Fail(word))
        self._wait_for_change(Failed(word, text, {"presented": self._peer_key, "pinned": verdict.pinned}), now)
        self._state = State.WAIT_ENDORSEMENT

    def _on_endorse(self, frame: Endorse, now: float, wall_ms: int) -> None:
        assert self._refusal is not None and self.peer is not None
        self._links.append(frame.link)
        pinned = self._refusal.details["pinned"]
        if frame.left + len(self._links) > MAX_LINKS or pinned is None:
            self._end(self._refusal)
        elif frame.left == 0:
            way = follow(self._links, self.peer, pinned=pinned, presented=self._peer_key, wall_ms=wall_ms)
            if isinstance(way, Broken):
                text = f"{self._refusal.message} It showed an endorsement of its key that does not count: {way.why}."
                self._end(Failed(self._refusal.reason, text, {**self._refusal.details, "endorsement": way.why}))
            else:
                self._endorsed = way
                self._go_on()
                self._identity_taken(now, wall_ms)

    def _offer_chain(self, refused: Failed, now: float) -> bool:
        """Answer a FAIL ``key_mismatch`` with what our former keys say; False if they say nothing, or said it."""
        if self._offered or not self._config.chain or refused.reason != "rejected:key_mismatch":
            return False
        self._offered = True
        for left, link in zip(reversed(range(len(self._config.chain))), self._config.chain, strict=True):
            self._send(Endorse(left, link))
        self._wait_for_change(refused, now)
        return True

    def _wait_for_change(self, refusal: Failed, now: float) -> None:
        self._refusal = refusal
        self.deadline = min(self._latest, now + ENDORSEMENT_SECONDS)

    def _go_on(self) -> None:
        self._refusal = None
        self.deadline = self._latest

    def _refused_by_peer(self, frame: Fail) -> Failed:
        known = REFUSALS.get(frame.reason)
        text = known or f"it says {frame.reason[:200]!r}; its log may tell more"
        mine = f"our name {self._config.name}, our key {fingerprint(self._config.public_key)}"
        word = f"rejected:{frame.reason}" if known else "rejected"
        return Failed(word, f"{self._who} refused us: {text} ({mine}).", {})

    # --- proofs ----------------------------------------------------------------------------------------------

    def _send_challenge(self, now: float, wall_ms: int) -> None:
        self._challenge = Challenge(self._nonce, wall_ms)
        self._challenged_at = now
        self._send(self._challenge)

    def _answer(self, challenge: Challenge, wall_ms: int) -> bool:
        """Sign the peer's challenge, if its clock is near enough to ours; False after a failure."""
        off, allowed = challenge.timestamp - wall_ms, 2 * self._config.window_ms
        self._clock_offset_ms = off
        if abs(off) > allowed:
            self._fail(
                "clock_skew",
                f"The clock of {self._who} is {abs(off) / 1000:.1f} s {'ahead of' if off > 0 else 'behind'} "
                "ours, "
                f"{allowed / 1000:g} s are allowed. Set both clocks (NTP) and connect again.",
                clock_offset_ms=off,
                allowed_ms=allowed,
            )
            return False
        own = self._config.public_key
        text = signed_text(challenge.nonce, challenge.timestamp, own, self._binding)
        self._send(Response(self._config.sign(text)))
        return True

    def _verify(self, response: Response, now: float) -> bool:
        """Hold the peer's signature against our challenge and this TLS channel; False after a failure."""
        assert self._challenge is not None
        if (now - self._challenged_at) * 1000 > self._config.window_ms:
            took = now - self._challenged_at
            self._fail(
                "late_response",
                f"{self._who} took {took:.1f} s to sign our challenge; it may be tried again.",
            )
            return False
        text = signed_text(self._nonce, self._challenge.timestamp, self._peer_key, self._binding)
        try:
            Ed25519PublicKey.from_public_bytes(self._peer_key).verify(response.signature, text)
        except (InvalidSignature, ValueError):
            self._fail(
                "signature_invalid",
                f"{self._who} could not prove that it owns the key {fingerprint(self._peer_key)} on this "
                "connection: an "
                "impostor, a relay in between, or a peer that changed its TLS certificate without a restart.",
            )
            return False
        return True

    def _authenticated(self) -> None:
        """Check the pin once more (another connection may have set it meanwhile) and be done."""
        assert self.peer is not None
        verdict = self._check_pin(self.peer, self._peer_key)
        endorsed = self._endorsed if verdict == PinVerdict.MISMATCH else ()
        first, own = verdict == PinVerdict.NEW, self._config.public_key
        self._end(Authenticated(self.peer, self._peer_key, first, self._clock_offset_ms, endorsed, own))

    def _send(self, frame: Frame) -> None:
        self._out += encode(frame)

    def _fail(self, reason: str, message: str, **details: Any) -> None:
        if self._clock_offset_ms is not None:
            details.setdefault("clock_offset_ms", self._clock_offset_ms)
        self._end(Failed(reason, message, details))

    def _end(self, event: Authenticated | Failed) -> None:
        self._state = State.OVER
        self._events.append(event)

    @property
    def _who(self) -> str:
        return str(self.peer) if self.peer is not None else "The peer"


__all__ = ["ENDORSEMENT_SECONDS", "AuthConfig", "Authenticated", "Exchange", "Moves", "State"]
