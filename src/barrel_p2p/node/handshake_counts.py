"""Counts how attempts to connect end, and how long they take.

Reasons are words of a fixed set, as errors have them (``AuthError.reason`` and the others). Any other counts as
``other``: some come from the peer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, TypeVar

from barrel_p2p.errors import AuthError, BarrelError, HandshakeError, InternalError, NotConnected
from barrel_p2p.node.instruments import AUTH_ATTEMPTS, AUTH_DURATION, HANDSHAKE_DURATION, HANDSHAKES
from barrel_p2p.node.telemetry import OTHER, Telemetry

Role = Literal["outgoing", "incoming"]
To = TypeVar("To")
Made = TypeVar("Made")

_REASONS: Final = {
    AuthError: frozenset(
        {
            "bad_name", "clock_skew", "closed", "early_data", "key_mismatch", "late_response", "malformed",
            "name_mismatch", "own_key", "own_name", "pin_damaged", "rejected", "signature_invalid", "timeout",
            "unexpected_auth_ok", "unexpected_message", "unsupported_version", "untrusted_key",
        }
    ),
    HandshakeError: frozenset(
        {
            "bad_cookie", "closed", "malformed", "missing_flags", "name_mismatch", "nok", "not_allowed",
            "still_connected", "timeout", "unexpected_status",
        }
    ),
    NotConnected: frozenset({"name_form", "no_answer", "transport", "unknown_address", "unreachable"}),
}  # fmt: skip


class HandshakeCounts:
    """The counts of one node."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def authenticated(self, role: Role, seconds: float) -> None:
        """The key exchange is over, the peer is who it says."""
        self._authentication(role, "ok", seconds)

    def succeeded(self, role: Role, seconds: float) -> None:
        """The channel is up."""
        self._telemetry.count(HANDSHAKES, role, "ok")
        self._telemetry.record(HANDSHAKE_DURATION, seconds, role, "ok")

    def failed(self, role: Role, error: BarrelError, seconds: float) -> None:
        """The connection was there and ends without a channel."""
        if isinstance(error, AuthError):
            self._authentication(role, "fail", seconds)
        self._telemetry.count(HANDSHAKES, role, reason_of(error))
        self._telemetry.record(HANDSHAKE_DURATION, seconds, role, "fail")

    def counted(self, dial: Callable[[To], Awaitable[Made]]) -> Callable[[To], Awaitable[Made]]:
        """``dial``, with the connections counted that it fails to make."""

        async def counted(to: To) -> Made:
            try:
                return await dial(to)
            except (BarrelError, OSError) as error:
                self._telemetry.count(HANDSHAKES, "outgoing", reason_of(error))
                raise

        return counted

    def _authentication(self, role: Role, outcome: str, seconds: float) -> None:
        self._telemetry.count(AUTH_ATTEMPTS, role, outcome)
        self._telemetry.record(AUTH_DURATION, seconds * 1000, role, outcome)


def reason_of(error: Exception) -> str:
    """The error in a word of the fixed set: ``auth_...`` where the key exchange failed."""
    if isinstance(error, InternalError):
        return "internal_error"
    for kind, reasons in _REASONS.items():
        if isinstance(error, kind):
            reason = getattr(error, "reason", "").partition(":")[0] or "given_up"
            word = reason if reason in reasons or reason == "given_up" else OTHER
            return f"auth_{word}" if kind is AuthError else word
    return "unreachable" if isinstance(error, OSError) else "yielded"


__all__ = ["HandshakeCounts", "Role", "reason_of"]
