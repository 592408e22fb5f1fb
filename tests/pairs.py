"""Two byte machines that talk to each other in memory, with clocks and a network that tests can turn and
bend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from barrel_p2p.proto.auth import AuthAcceptor, AuthConfig, AuthDialer, Authenticated
from barrel_p2p.proto.handshake import (
    Connected,
    Framing,
    HandshakeAcceptor,
    HandshakeConfig,
    HandshakeDialer,
    PeerNamed,
    StatusWord,
)
from barrel_p2p.proto.identity import PinVerdict
from barrel_p2p.proto.machine import Failed, NeedData
from barrel_p2p.term.types import Atom

ALICE, BOB = Atom("alice@127.0.0.1"), Atom("bob@127.0.0.1")
WALL = 1_767_225_600_000
BINDING = b"\xbb" * 32


class Keys:
    """A key pair made of one number."""

    def __init__(self, number: int) -> None:
        private = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        self.sign = private.sign
        self.public = private.public_key().public_bytes_raw()


ALICE_KEYS, BOB_KEYS, EVE_KEYS = Keys(1), Keys(2), Keys(3)


def events_of(machine: Any) -> list[Any]:
    events = []
    while not isinstance(event := machine.next_event(), NeedData):
        events.append(event)
    return events


def anyone(name: Atom, key: bytes) -> PinVerdict:
    return PinVerdict.NEW


def pinned(pins: dict[Atom, Keys], *, strict: bool = True) -> Callable[[Atom, bytes], PinVerdict]:
    def verdict(name: Atom, key: bytes) -> PinVerdict:
        if name not in pins:
            return PinVerdict.UNTRUSTED if strict else PinVerdict.NEW
        known = pins[name].public
        return PinVerdict.ACCEPT if known == key else PinVerdict("mismatch", known)

    return verdict


def config(name: Atom, keys: Keys, **options: Any) -> AuthConfig:
    return AuthConfig(name, keys.sign, keys.public, **options)


def dialer(
    setup: AuthConfig,
    peer: Atom = BOB,
    *,
    binding: bytes = BINDING,
    check_pin: Any = anyone,
    now: float = 0.0,
) -> AuthDialer:
    return AuthDialer(setup, peer=peer, binding=binding, nonce=b"\x01" * 32, now=now, wall_ms=WALL, check_pin=check_pin)


def acceptor(setup: AuthConfig, *, binding: bytes = BINDING, check_pin: Any = anyone, now: float = 0.0) -> AuthAcceptor:
    return AuthAcceptor(setup, binding=binding, nonce=b"\x02" * 32, now=now, check_pin=check_pin)


class AuthPair:
    """Alice dials Bob. ``bend(direction, data)`` may change what passes; ``skew`` sets Bob's clock ahead, in
    ms.
    """

    def __init__(
        self,
        alice: AuthDialer | None = None,
        bob: AuthAcceptor | None = None,
        *,
        skew: int = 0,
        bend: Callable[[str, bytes], bytes] = lambda direction, data: data,
        chunk: int = 1 << 20,
    ) -> None:
        self.alice = alice or dialer(config(ALICE, ALICE_KEYS))
        self.bob = bob or acceptor(config(BOB, BOB_KEYS))
        self.skew, self.bend, self.chunk = skew, bend, chunk
        self.alice_saw: list[Authenticated | Failed] = []
        self.bob_saw: list[Authenticated | Failed] = []

    def run(self, now: float = 0.1) -> AuthPair:
        for _ in range(8):
            for data in self._cut(self.bend("to bob", self.alice.data_to_send())):
                self.bob.receive_data(data, now=now, wall_ms=WALL + self.skew)
            for data in self._cut(self.bend("to alice", self.bob.data_to_send())):
                self.alice.receive_data(data, now=now, wall_ms=WALL)
            self.alice_saw += events_of(self.alice)
            self.bob_saw += events_of(self.bob)
        return self

    def hang_up(self) -> AuthPair:
        """One of them has closed the connection, and the other one notices."""
        for machine, saw in ((self.alice, self.alice_saw), (self.bob, self.bob_saw)):
            machine.connection_lost()
            saw += events_of(machine)
        return self

    def _cut(self, data: bytes) -> list[bytes]:
        return [data[i : i + self.chunk] for i in range(0, len(data), self.chunk)]

    @property
    def reasons(self) -> tuple[str, str]:
        """How it ended for Alice and for Bob: 'ok', a reason of failure, or 'waiting'."""
        return _end(self.alice_saw), _end(self.bob_saw)


class HandshakePair:
    """Alice dials Bob; Bob's driver answers ``status``. ``glue`` puts all messages of a turn in one read."""

    def __init__(
        self,
        alice: HandshakeDialer | None = None,
        bob: HandshakeAcceptor | None = None,
        *,
        framing: Framing = Framing.RAW,
        status: StatusWord = "ok",
        glue: bool = True,
        chunk: int = 1 << 20,
        tail: bytes = b"",
    ) -> None:
        self.alice = alice or handshake_dialer(framing=framing)
        self.bob = bob or handshake_acceptor(framing=framing)
        self.status, self.glue, self.chunk, self.tail = status, glue, chunk, tail
        self.alice_saw: list[Connected | Failed] = []
        self.bob_saw: list[PeerNamed | Connected | Failed] = []

    def run(self, now: float = 0.1) -> HandshakePair:
        for _ in range(8):
            for data in self._cut(self.alice.data_to_send()):
                self.bob.receive_data(data, now=now)
            for event in events_of(self.bob):
                self.bob_saw.append(event)
                if isinstance(event, PeerNamed):
                    self.bob.answer(self.status, now=now)
            self.bob_saw += events_of(self.bob)
            messages = self.bob.data_to_send()
            if self.tail and isinstance(self.bob_saw[-1], Connected) and messages:
                messages.append(self.tail)
            for data in self._cut(messages):
                self.alice.receive_data(data, now=now)
            self.alice_saw += events_of(self.alice)
        return self

    def _cut(self, messages: list[bytes]) -> list[bytes]:
        whole = [b"".join(messages)] if self.glue else messages
        return [data[i : i + self.chunk] for data in whole for i in range(0, len(data), self.chunk)]

    @property
    def reasons(self) -> tuple[str, str]:
        return _end(self.alice_saw), _end(self.bob_saw)


def handshake_config(name: Atom, cookie: str = "lab", **options: Any) -> HandshakeConfig:
    return HandshakeConfig(name, cookie, 7, **options)


def handshake_dialer(name: Atom = ALICE, peer: Atom = BOB, cookie: str = "lab", **options: Any) -> HandshakeDialer:
    return HandshakeDialer(handshake_config(name, cookie, **options), peer=peer, challenge=b"\0\0\0\x05", now=0.0)


def handshake_acceptor(
    name: Atom = BOB, cookie: str = "lab", expected: Atom | None = None, **options: Any
) -> HandshakeAcceptor:
    setup = handshake_config(name, cookie, **options)
    return HandshakeAcceptor(setup, challenge=b"\xff\xff\xff\xfe", now=0.0, expected=expected)


def _end(events: list[Any]) -> str:
    ends = [event for event in events if not isinstance(event, PeerNamed)]
    assert len(ends) <= 1, "a machine ends once"
    if not ends:
        return "waiting"
    return ends[0].reason if isinstance(ends[0], Failed) else "ok"
