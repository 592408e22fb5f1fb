"""What a test can change about a foreign node; the defaults are an Erlang node's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

PUBLISHED: Final = 0x1
FRAGMENTS: Final = 0x800000
ERLANG_FLAGS: Final = 0xD07DF5FBD  # OTP 27 under upstream: published, no atom cache


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """Faults and variations; times in seconds unless the name says otherwise."""

    flags: int = ERLANG_FLAGS
    creation: int = 4  # of every incarnation: restarts can't be told apart by it
    timeout: float = 10.0
    keep_alive: float = 15.0  # a PING, and a tick on stream 0, after so much silence of ours
    fragment_bytes: int = 65_536
    alpn: str = "erlang-dist"
    stolen_certificate: bool = False  # as acceptor: shows a certificate whose key it has not
    instead: dict[str, bytes] = field(default_factory=dict)
    """Raw bytes to send in place of a message; no bytes: it is silent from there on. ``hello``, ``challenge``,
    ``response``, ``ok`` of the exchange; ``name``, ``status``, ``dist_challenge``, ``reply``, ``ack`` of the
    handshake."""
    holds: dict[str, asyncio.Event] = field(default_factory=dict)  # messages of the handshake that wait for an event
    read_delay: float = 0.0  # before each handshake read, which takes all that came meanwhile as one message

    # authentication
    hello_version: int = 2
    hello_name: str | None = None  # the name it claims; default its own
    clock_offset_ms: int = 0
    forge_signature: bool = False
    wrong_binding: bool = False  # signs for another certificate, as one in the middle would
    reject: str | None = None  # as acceptor: FAIL with this reason instead of HELLO
    cookie_only: bool = False  # as acceptor: OK at once; as dialer: take that

    # distribution handshake
    dist_name: str | None = None  # the name in the handshake; default its own
    status: str = "ok"  # as acceptor: ok, ok_simultaneous, alive, nok, not_allowed
    forge_digest: bool = False
    stop_after: str | None = None  # fall silent after: hello, auth, name, status, challenge, reply
