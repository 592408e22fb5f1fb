"""The messages of the Ed25519 exchange as bytes, and the text that a RESPONSE signs.

On its stream every message stands as ``len:16 | body``; the first byte of a body is its type. Integers are
big-endian.

=========== =====================================================================
1 HELLO     ``version:8`` = 2, ``name_len:16``, ``name``, ``ed25519_public``:32 bytes
2 CHALLENGE ``nonce``:32 bytes, ``timestamp:64`` in ms since 1970 (wall clock)
3 RESPONSE  ``signature``:64 bytes
4 OK        nothing
5 FAIL      ``reason_len:16``, ``reason`` in ASCII
6 ENDORSE   ``left:8``, one link of a chain (``proto.endorsement``)
=========== =====================================================================

Lengths are exact: a body with a byte too many is malformed. ENDORSE is ours alone; ``left`` is how many more follow. It
is sent only to a node that said FAIL ``key_mismatch``, after which upstream's nodes read nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from barrel_p2p.proto.endorsement import LINK_SIZE, MAX_LINKS, Endorsement
from barrel_p2p.proto.names import is_node_name
from barrel_p2p.term.types import Atom

VERSION = 2
NONCE_SIZE = 32
KEY_SIZE = 32
SIGNATURE_SIZE = 64
BINDING_SIZE = 32
MAX_BODY = 1024  # the longest legal HELLO has 291 bytes, a FAIL carries a word; our bound on a peer's memory

_HELLO, _CHALLENGE, _RESPONSE, _OK, _FAIL, _ENDORSE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Hello:
    name: Atom
    public_key: bytes


@dataclass(frozen=True, slots=True)
class Challenge:
    nonce: bytes
    timestamp: int  # ms since 1970 on the sender's wall clock


@dataclass(frozen=True, slots=True)
class Response:
    signature: bytes


@dataclass(frozen=True, slots=True)
class Ok:
    pass


@dataclass(frozen=True, slots=True)
class Fail:
    reason: str


@dataclass(frozen=True, slots=True)
class Endorse:
    left: int
    link: Endorsement


@dataclass(frozen=True, slots=True)
class Bad:
    """A body that is none of these; ``reason`` is malformed, bad_name or unsupported_version."""

    reason: str
    detail: str


Frame = Hello | Challenge | Response | Ok | Fail | Endorse


def encode(frame: Frame) -> bytes:
    """The frame as it goes on the stream, length in front."""
    match frame:
        case Hello(name, public_key):
            raw = name.encode("ascii")
            body = b"\x01" + bytes([VERSION]) + len(raw).to_bytes(2, "big") + raw + public_key
        case Challenge(nonce, timestamp):
            body = b"\x02" + nonce + timestamp.to_bytes(8, "big")
        case Response(signature):
            body = b"\x03" + signature
        case Ok():
            body = b"\x04"
        case Fail(reason):
            raw = reason.encode("ascii")
            body = b"\x05" + len(raw).to_bytes(2, "big") + raw
        case Endorse(left, link):
            body = bytes([_ENDORSE, left]) + link.encode()
    return len(body).to_bytes(2, "big") + body


def decode(body: bytes) -> Frame | Bad:
    """Read one body (without its length). Never raises."""
    if not body:
        return Bad("malformed", "an empty message")
    kind, rest = body[0], body[1:]
    if kind == _HELLO:
        return _decode_hello(rest)
    if kind == _CHALLENGE and len(rest) == NONCE_SIZE + 8:
        return Challenge(rest[:NONCE_SIZE], int.from_bytes(rest[NONCE_SIZE:], "big"))
    if kind == _RESPONSE and len(rest) == SIGNATURE_SIZE:
        return Response(rest)
    if kind == _OK and not rest:
        return Ok()
    if kind == _FAIL and len(rest) >= 2 and len(rest) == 2 + int.from_bytes(rest[:2], "big"):
        return Fail("".join(chr(b) if 32 <= b < 127 else "?" for b in rest[2:]))
    if kind == _ENDORSE and len(rest) == 1 + LINK_SIZE and rest[0] < MAX_LINKS:
        return Endorse(rest[0], Endorsement.decode(rest[1:]))
    names = {_CHALLENGE: "CHALLENGE", _RESPONSE: "RESPONSE", _OK: "OK", _FAIL: "FAIL", _ENDORSE: "ENDORSE"}
    if kind in names:
        return Bad("malformed", f"a {names[kind]} of {len(body)} bytes")
    return Bad("malformed", f"a message of unknown type {kind}")


def _decode_hello(rest: bytes) -> Hello | Bad:
    if rest and rest[0] != VERSION:
        return Bad(
            "unsupported_version",
            f"version {rest[0]} of the authentication protocol, this node speaks {VERSION}",
        )
    if len(rest) < 3:
        return Bad("malformed", f"a HELLO of {len(rest) + 1} bytes")
    end = 3 + int.from_bytes(rest[1:3], "big")
    if len(rest) != end + KEY_SIZE:
        return Bad("malformed", f"a HELLO whose lengths don't add up ({len(rest) + 1} bytes, name of {end - 3})")
    name = rest[3:end].decode("latin-1")
    if not is_node_name(name):
        return Bad("bad_name", f"{name[:80]!r}, which is no node name")
    return Hello(Atom(name), rest[end:])


def signed_text(nonce: bytes, timestamp: int, signer: bytes, binding: bytes) -> bytes:
    """What a RESPONSE signs: the other side's challenge, the signer's own key, and the TLS channel."""
    return nonce + timestamp.to_bytes(8, "big") + signer + binding


__all__ = [
    "BINDING_SIZE",
    "KEY_SIZE",
    "MAX_BODY",
    "NONCE_SIZE",
    "SIGNATURE_SIZE",
    "VERSION",
    "Bad",
    "Challenge",
    "Endorse",
    "Fail",
    "Frame",
    "Hello",
    "Ok",
    "Response",
    "decode",
    "encode",
    "signed_text",
]
