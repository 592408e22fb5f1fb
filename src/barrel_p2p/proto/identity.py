"""The vocabulary of identity: how a public key is shown to people, and what the trust store says of it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import ClassVar


def fingerprint(public_key: bytes) -> str:
    """The short form of an Ed25519 public key for people: ``SHA256:`` and 43 characters of base64, as ssh
    shows keys.

    Example: ``fingerprint(node.keys.public_key)``

    Args:
        public_key: the 32 raw bytes. What is hashed are these bytes alone (upstream does so too); ssh hashes
            its own wrapping of the key, so ``ssh-keygen -l`` shows another value for the same key.
    """
    return "SHA256:" + base64.b64encode(hashlib.sha256(public_key).digest()).decode("ascii").rstrip("=")


def fingerprint_hex(public_key: bytes) -> str:
    """The same hash as 64 hexadecimal digits, the form Erlang nodes log."""
    return hashlib.sha256(public_key).hexdigest()


@dataclass(frozen=True, slots=True)
class PinVerdict:
    """What the trust store thinks of a key presented for a name. Compare with the constants; ``pinned`` is
    for messages.

    ============  =============================================================================
    ``ACCEPT``    this key is pinned for the name
    ``NEW``       nothing is pinned and the mode is tofu: accept, and pin once the link is up
    ``UNTRUSTED`` nothing is pinned and the mode is strict (or the store is full)
    ``MISMATCH``  another key is pinned
    ``DAMAGED``   a pin file for the name exists but can't be read: neither accept nor replace
    ============  =============================================================================
    """

    word: str
    pinned: bytes | None = field(default=None, compare=False)

    ACCEPT: ClassVar[PinVerdict]
    NEW: ClassVar[PinVerdict]
    UNTRUSTED: ClassVar[PinVerdict]
    MISMATCH: ClassVar[PinVerdict]
    DAMAGED: ClassVar[PinVerdict]


PinVerdict.ACCEPT = PinVerdict("accept")
PinVerdict.NEW = PinVerdict("new")
PinVerdict.UNTRUSTED = PinVerdict("untrusted")
PinVerdict.MISMATCH = PinVerdict("mismatch")
PinVerdict.DAMAGED = PinVerdict("damaged")

__all__ = ["PinVerdict", "fingerprint", "fingerprint_hex"]
