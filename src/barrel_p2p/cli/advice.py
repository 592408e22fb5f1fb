"""What each reason of a refusal means for a person: the step it belongs to, whose fault it is, what to do about it.

The words are those of ``NotConnected.reason``, ``AuthError.reason`` and ``HandshakeError.reason``. The error's message
says what happened; this table does not repeat it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from barrel_p2p.cli.advice_tcp import BETWEEN, EITHER, HERE, TCP_TABLE, THERE


@dataclass(frozen=True, slots=True)
class Advice:
    """``commands`` can be run as they stand, where the place after ``on ...:`` says so."""

    step: str
    whose: str
    what: str
    commands: tuple[str, ...] = ()


_VERSIONS = ("Upgrade the older of the two; make sure that the port is that of a barrel_p2p node.",)

#: reason -> step, whose fault, what to do, commands; {placeholders} are the arguments of ``advise``.
_TABLE: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    # --- NotConnected
    "unknown_address": (
        "address",
        HERE,
        "Say where the node listens, or give the discovery directory that it uses (--discovery-dir).",
        ("barrel doctor {node} --peers {node}=HOST:PORT",),
    ),
    "unreachable": (
        "transport",
        THERE + ", or the address is old",
        "Start the node. If it runs, look at the address and port in its start-up lines and give them here.",
        ("barrel doctor {node} --peers {node}=HOST:PORT",),
    ),
    "no_answer": (
        "transport",
        BETWEEN,
        "See that the host is up, that the address is right, and that no firewall drops UDP to this port.",
        (),
    ),
    "alpn": ("transport", BETWEEN, "Another QUIC program answers at this address: correct the port.", ()),
    "transport": (
        "transport",
        EITHER,
        "Something answers, but no node that speaks our QUIC and TLS: correct the port, or upgrade the older side.",
        (),
    ),
    "full": ("transport", THERE, "It has too many connections that are not yet let in; try again in a moment.", ()),
    "application": ("transport", THERE, "It closed at once; its log says why.", ()),
    "timeout": ("transport", BETWEEN, "It fell silent: overload, or packets are lost. Try again.", ()),
    # --- AuthError
    "key_mismatch": (
        "key",
        "theirs if its key really changed, else somebody uses its name",
        "Ask its operator for the fingerprint by another way. Only if it is the presented one, forget the old pin:",
        ("barrel keys unpin {node}{ours}",),
    ),
    "rejected:key_mismatch": (
        "key",
        "ours if our key really changed, else somebody used our name there",
        "If our key was lost or rotated, the operator over there stops the node, forgets the old pin, starts it again:",
        ("barrel keys unpin {own_name} --data-dir ITS_DATA_DIR",),
    ),
    "untrusted_key": (
        "key",
        HERE + " (strict mode): no key is pinned for it",
        "Compare the presented fingerprint with what its operator says. If it is the same, pin it:",
        ("barrel keys pin {node} {presented}{ours}",),
    ),
    "rejected:untrusted_key": (
        "key",
        THERE + " (strict mode): our key is not pinned there",
        "Its operator stops the node, pins our name and key, and starts it again (or calls node.keys.pin in it):",
        ("barrel keys pin {own_name} {own_key} --data-dir ITS_DATA_DIR",),
    ),
    "pin_damaged": (
        "key",
        HERE,
        "Restore the pin file from a backup; or, if the presented fingerprint is known to be right, forget it:",
        ("barrel keys unpin {node}{ours}",),
    ),
    "signature_invalid": (
        "key",
        BETWEEN,
        "Look for something between the nodes that ends TLS (a proxy). If there is nothing, treat it as an attack.",
        (),
    ),
    "own_key": (
        "key",
        EITHER,
        "Two nodes share one key, perhaps through a copied data directory: give each a directory of its own.",
        (),
    ),
    "unexpected_auth_ok": ("key", EITHER, "Make both lists cookie_only_nodes agree, or empty them.", ()),
    "early_data": ("key", THERE, "It is no barrel_p2p node, or a faulty one.", ()),
    "closed": (
        "key",
        THERE + ": it refused without a word, as Erlang nodes do",
        "Its log has the reason. Usual ones: the clocks differ by more than a minute, or it has another key pinned "
        "for our name.",
        ("barrel keys show",),
    ),
    "clock_skew": ("clock", EITHER, "Set both clocks, best by NTP, and try again.", ("timedatectl status",)),
    "late_response": ("key", THERE, "It is overloaded or the network loses packets; try again.", ()),
    "unsupported_version": ("key", EITHER, *_VERSIONS, ()),
    "malformed": ("key", EITHER, *_VERSIONS, ()),
    "unexpected_message": ("key", EITHER, *_VERSIONS, ()),
    "rejected": ("key", THERE, "Its log may tell more.", ()),
    # --- HandshakeError
    "name_mismatch": (
        "name",
        "the address: it belongs to {answered}",
        "Correct the address (peers, or the file in the discovery directory), or connect to {answered}.",
        (),
    ),
    "own_name": ("name", EITHER, "Two nodes were started with one name: rename one.", ()),
    "bad_name": ("name", EITHER, "A node name is name@host, with letters, digits, '_', '.' and '-'.", ()),
    "not_allowed": (
        "name",
        THERE + ", or our name is in use there",
        "Its log has the reason. Usual ones: a live node of our name {own_name} is connected to it; our name is not on "
        "its list of allowed nodes; it demands a distribution flag that we don't offer.",
        (),
    ),
    "silent": ("name", THERE, "It fell silent: overloaded, or no Erlang node. Try again.", ()),
    "nok": ("name", "nobody's", "Both nodes dialled at once: try again.", ()),
    "missing_flags": ("flags", THERE, "Upgrade it: OTP 25 or newer is needed.", ()),
    "old_version": ("flags", THERE, "Upgrade it: OTP 25 or newer is needed.", ()),
    "bad_cookie": (
        "cookie",
        EITHER,
        "Give both the same cookie: here by BARREL_COOKIE or a file, there by cookie= (Erlang: -setcookie).",
        ("BARREL_COOKIE=... barrel doctor {node}",),
    ),
    # --- afterwards
    "no_pong": ("round trip", THERE, "It is overloaded or its event loop is blocked; look at its log.", ()),
}

_OTHER: tuple[str, str, str, tuple[str, ...]] = ("name", THERE, "Its log may tell more.", ())


def advise(reason: str, *, code: int = 0, waiting_for: str = "", over_tcp: bool = False, **values: Any) -> Advice:
    """What to do about a refusal.

    Args:
        reason: The word of the error.
        code: The QUIC error code of a NotConnected.
        waiting_for: What was due when the peer fell silent (HandshakeError.details).
        over_tcp: Whether the carrier is ``inet_tcp``.
        values: For the placeholders of the table: node, own_name, own_key, presented, ours, answered.
    """
    if waiting_for == "ack":  # Erlang falls silent on a wrong cookie
        reason = "bad_cookie"
    elif waiting_for:
        reason = "silent"
    elif reason == "transport":
        reason = {0x178: "alpn", 0x02: "full"}.get(code, reason)
    entry = TCP_TABLE.get(reason) if over_tcp else None
    entry = entry or _TABLE.get(reason) or _TABLE.get(reason.removeprefix("rejected:")) or _OTHER
    known = {"node": "NODE", "own_name": "OUR_NAME", "own_key": "HEX", "presented": "HEX", "ours": "", "answered": "?"}
    known |= {name: str(value) for name, value in values.items()}
    step, whose, what, commands = entry
    return Advice(
        step, whose.format_map(known), what.format_map(known), tuple(line.format_map(known) for line in commands)
    )


__all__ = ["Advice", "advise"]
