"""Ed25519 authentication: who is at the other end of this TLS connection, before any Erlang byte.

Each side sends a HELLO (name and public key) and a CHALLENGE (nonce and wall clock), and signs the other's
challenge together with its own key and the channel binding, the SHA-256 of the acceptor's TLS certificate. A
signature is thus worth nothing on another connection. The acceptor closes the exchange with OK; only then may
the dialer write elsewhere.

::

    dialer                          acceptor
    HELLO            ->
                     <-             HELLO, CHALLENGE         (or FAIL; or OK alone for a cookie-only peer)
    CHALLENGE, RESPONSE ->
                     <-             RESPONSE, OK             (or FAIL)

A node that changed its key vouches for the new one with the old one (``proto.endorsement``). It can't do so at once,
since an Erlang node would not understand it. So whoever is shown another key than the pinned one says FAIL
``key_mismatch``, which is upstream's word and for upstream the end, and waits for a moment; a peer of this library
answers with its chain, and the exchange goes on where it was::

    dialer, its key is new          acceptor                 dialer                 acceptor, its key is new
    HELLO            ->                                      HELLO      ->
                     <-  FAIL key_mismatch                              <-          HELLO, CHALLENGE
    ENDORSE ...      ->                                      FAIL key_mismatch ->
                     <-  HELLO, CHALLENGE                               <-          ENDORSE ...
    CHALLENGE, RESPONSE ->  and so on                        CHALLENGE, RESPONSE -> and so on

Legal moves are the tables ``_MOVES`` of the two roles; the steps they share are in ``auth_exchange.py``. The
exchange is upstream's, byte for byte; we depart from it in:

* The name in HELLO must be the dialled one (upstream: any name). The driver holds it against the name in the
  dist handshake as well. Without this the owner of any accepted key could take any name.
* A peer that claims our own name or presents our own public key is refused: the acceptor answers challenges
  before it has seen a valid signature, so a stranger could feed it its own challenge and hand the answer back
  as proof.
* Every refusal of the acceptor is told in a FAIL (upstream tells three and closes without a word on the
  others).
* A dialer that is shown a wrong key says so in a FAIL (upstream closes without a word); the connection is lost either
  way, and the acceptor learns why.
* The pin is checked again at the end, so that two first meetings at once can't both win.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from barrel_p2p.proto.auth_exchange import AuthConfig, Authenticated, Exchange, Moves, State
from barrel_p2p.proto.auth_frames import Challenge, Endorse, Fail, Hello, Ok, Response
from barrel_p2p.proto.auth_texts import WIRE_REASON
from barrel_p2p.proto.identity import PinVerdict
from barrel_p2p.proto.machine import Failed, NeedData
from barrel_p2p.proto.names import matches_any
from barrel_p2p.term.types import Atom


class AuthDialer(Exchange):
    """Our side of the exchange on a connection that we opened to ``peer``.

    Args:
        config: see ``AuthConfig``.
        peer: the node that we dialled; nobody else is accepted.
        binding: SHA-256 of the DER certificate that the acceptor showed (its signature must have been checked
            by TLS).
        nonce: 32 fresh random bytes. ``now``: monotonic seconds.
        wall_ms: not needed yet, a HELLO carries no time.
        check_pin: the trust store's verdict on (name, public key).
    """

    _MOVES: ClassVar[Moves] = {
        State.WAIT_HELLO: {Hello: "_on_hello", Ok: "_on_early_ok", Fail: "_on_early_fail"},
        State.WAIT_ENDORSEMENT: {Challenge: "_hold_challenge", Endorse: "_on_endorse", Fail: "_on_fail"},
        State.WAIT_CHALLENGE: {Challenge: "_on_challenge", Fail: "_on_fail"},
        State.WAIT_RESPONSE: {Response: "_on_response", Fail: "_on_fail"},
        State.WAIT_OK: {Ok: "_on_ok", Fail: "_on_fail"},
    }

    def __init__(
        self,
        config: AuthConfig,
        *,
        peer: Atom,
        binding: bytes,
        nonce: bytes,
        now: float,
        wall_ms: int,
        check_pin: Callable[[Atom, bytes], PinVerdict],
    ) -> None:
        super().__init__(config, binding=binding, nonce=nonce, now=now, check_pin=check_pin)
        self.peer: Atom = peer
        self._held: Challenge | None = None  # came right behind a HELLO whose key is not accepted yet
        self._send(Hello(config.name, config.public_key))

    def _on_hello(self, hello: Hello, now: float, wall_ms: int) -> None:
        if hello.name != self.peer:
            self._fail(
                "name_mismatch",
                f"We dialled {self.peer}, but {hello.name} answered. The address of {self.peer} is wrong or "
                "old: "
                "look at peers= and the discovery directory.",
                answered=hello.name,
            )
        else:
            self._go_on()
            self._take_identity(hello, now, wall_ms)

    def _identity_taken(self, now: float, wall_ms: int) -> None:
        self._send_challenge(now, wall_ms)
        self._state = State.WAIT_CHALLENGE
        if self._held is not None:
            self._on_challenge(self._held, now, wall_ms)

    def _hold_challenge(self, challenge: Challenge, now: float, wall_ms: int) -> None:
        self._held = challenge

    def _on_challenge(self, challenge: Challenge, now: float, wall_ms: int) -> None:
        if self._answer(challenge, wall_ms):
            self._state = State.WAIT_RESPONSE

    def _on_response(self, response: Response, now: float, wall_ms: int) -> None:
        if self._verify(response, now):
            self._state = State.WAIT_OK

    def _on_ok(self, frame: Ok, now: float, wall_ms: int) -> None:
        if self._accept_pin():
            self._authenticated()

    def _on_early_ok(self, frame: Ok, now: float, wall_ms: int) -> None:
        """The acceptor holds us for a cookie-only node; believed only when we say the same of it."""
        if matches_any(self._config.cookie_only, self.peer):
            self._end(Authenticated(self.peer, None))
        else:
            self._fail(
                "unexpected_auth_ok",
                f"{self.peer} wants to skip authentication (it lists {self._config.name} in "
                "cookie_only_nodes), but our "
                f"cookie_only_nodes does not list {self.peer}. Change one of the two lists.",
            )

    def _on_early_fail(self, frame: Fail, now: float, wall_ms: int) -> None:
        if not self._offer_chain(self._refused_by_peer(frame), now):
            self._on_fail(frame, now, wall_ms)

    def _on_fail(self, frame: Fail, now: float, wall_ms: int) -> None:
        refusal = self._refusal or self._refused_by_peer(frame)
        self._fail(refusal.reason, refusal.message, **refusal.details)


class AuthAcceptor(Exchange):
    """Our side of the exchange on a connection that a peer opened.

    Args:
        config: see ``AuthConfig``.
        binding: SHA-256 of the DER certificate with which our listener answered this connection.
        nonce: 32 fresh random bytes. ``now``: monotonic seconds.
        check_pin: the trust store's verdict on (name, public key).
    """

    _MOVES: ClassVar[Moves] = {
        State.WAIT_HELLO: {Hello: "_on_hello"},
        State.WAIT_ENDORSEMENT: {Endorse: "_on_endorse"},
        State.WAIT_CHALLENGE: {Challenge: "_on_challenge", Fail: "_on_fail"},
        State.WAIT_RESPONSE: {Response: "_on_response"},
    }

    def _on_hello(self, hello: Hello, now: float, wall_ms: int) -> None:
        self.peer = hello.name
        if hello.name != self._config.name and matches_any(self._config.cookie_only, hello.name):
            self._send(Ok())
            self._end(Authenticated(hello.name, None))
        else:
            self._take_identity(hello, now, wall_ms)

    def _identity_taken(self, now: float, wall_ms: int) -> None:
        self._send(Hello(self._config.name, self._config.public_key))
        self._send_challenge(now, wall_ms)
        self._state = State.WAIT_CHALLENGE

    def _on_fail(self, frame: Fail, now: float, wall_ms: int) -> None:
        refused = self._refused_by_peer(frame)
        if not self._offer_chain(refused, now):
            self._end(refused)

    def _on_challenge(self, challenge: Challenge, now: float, wall_ms: int) -> None:
        self._go_on()
        if self._answer(challenge, wall_ms):
            self._state = State.WAIT_RESPONSE

    def _on_response(self, response: Response, now: float, wall_ms: int) -> None:
        if self._verify(response, now) and self._accept_pin():
            self._send(Ok())
            self._authenticated()

    def _fail(self, reason: str, message: str, **details: Any) -> None:
        self._send(Fail(WIRE_REASON.get(reason, reason)))
        super()._fail(reason, message, **details)


__all__ = ["AuthAcceptor", "AuthConfig", "AuthDialer", "Authenticated", "Failed", "NeedData", "PinVerdict"]
