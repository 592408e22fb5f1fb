"""What people read when an authentication fails: whose fault it is and what to do about it."""

from __future__ import annotations

from barrel_p2p.proto.identity import PinVerdict, fingerprint
from barrel_p2p.term.types import Atom

NOT_BARREL = "is it a barrel_p2p node, with authentication switched on?"

# A damaged pin is our own trouble, the peer learns only what upstream would tell it.
WIRE_REASON = {"pin_damaged": "key_mismatch"}

# What the acceptor's word means for the dialer, and what to do about it.
REFUSALS = {
    "key_mismatch": (
        "it has another key pinned for our name. If our key really changed, its operator removes the old pin "
        "(node.keys.unpin(our name), or the file trusted/<our name>.pub); if not, someone else used our name"
    ),
    "untrusted_key": "it is in strict mode and has no key pinned for our name; its operator pins ours",
    "signature_invalid": (
        "our signature did not fit this connection; something between us relays TLS, or a key is wrong"
    ),
    "clock_skew": "our clock and its clock are too far apart; set both (NTP)",
    "late_response": "our signature came too late; this node or the network is overloaded",
    "timeout": "the exchange took too long; this node or the network is overloaded",
    "own_name": "its own name is the same as ours; two nodes were started with one name",
    "own_key": "it owns the very same key; two nodes must not share a key directory",
    "bad_name": "it does not take our node name",
    "unsupported_version": "it speaks another version of the authentication protocol; upgrade one of the two",
    "malformed": "it could not read our messages; the two versions don't fit",
    "unexpected_message": "it did not expect our messages in this order; the two versions don't fit",
}


def pin_fault(verdict: PinVerdict, peer: Atom, key: bytes) -> tuple[str, str]:
    """The reason word and the message for a key that the trust store does not accept."""
    presented = fingerprint(key)
    if verdict == PinVerdict.MISMATCH:
        pinned = fingerprint(verdict.pinned) if verdict.pinned is not None else "another key"
        return "key_mismatch", (
            f"{peer} presented the key {presented}, but {pinned} is pinned for it. Somebody uses its name, "
            "or it really "
            f"has a new key; only then remove the old pin with node.keys.unpin({str(peer)!r}) and connect "
            "again. "
            "The pin was not changed."
        )
    if verdict == PinVerdict.DAMAGED:
        return "pin_damaged", (
            f"The pin file of {peer} is damaged, so its key {presented} can't be checked. Restore "
            f"trusted/{peer}.pub from "
            f"a backup, or remove it with node.keys.unpin({str(peer)!r}) if that key is known to be right."
        )
    return "untrusted_key", (
        f"No key is pinned for {peer} and this node does not trust keys at first sight. If {presented} is "
        "its key, "
        f"allow it with node.keys.pin({str(peer)!r}, public_key)."
    )


__all__ = ["NOT_BARREL", "REFUSALS", "WIRE_REASON", "pin_fault"]
