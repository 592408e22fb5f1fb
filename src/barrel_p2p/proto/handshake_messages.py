"""The messages of the dist handshake as bytes (erl_dist_protocol, "Distribution Handshake", version 6).

========== ======================================================================== =============
name       ``N``, flags:64, creation:32, name_len:16, name                          dialer
status     ``s``, one of the words below                                            acceptor
reply      ``s``, ``true`` or ``false``; only as the answer to status ``alive``     dialer
challenge  ``N``, flags:64, challenge:32, creation:32, name_len:16, name            acceptor
answer     ``r``, challenge:32, digest:16 bytes                                     dialer
ack        ``a``, digest:16 bytes                                                   acceptor
========== ======================================================================== =============

The messages end where their grammar says. Over TCP each has its length in front as well, over QUIC it has not
and two may arrive glued together; so a parser gets a buffer and says how much of it was the message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from barrel_p2p.proto.names import MAX_NAME
from barrel_p2p.term.types import Atom

DIGEST_SIZE = 16


@dataclass(frozen=True, slots=True)
class Name:
    flags: int
    creation: int
    name: str


@dataclass(frozen=True, slots=True)
class Status:
    word: str


@dataclass(frozen=True, slots=True)
class Challenge:
    flags: int
    challenge: int
    creation: int
    name: str


@dataclass(frozen=True, slots=True)
class Answer:
    challenge: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    digest: bytes


@dataclass(frozen=True, slots=True)
class Bad:
    """Bytes that are no message here; ``reason`` is malformed, unexpected_message or old_version."""

    reason: str
    detail: str


Message = Name | Status | Challenge | Answer | Ack
Parsed = tuple[Message, int] | Bad | None  # the message and its size; or what is wrong; or "more bytes, please"
Parser = Callable[[bytes], Parsed]


def digest(cookie: bytes, challenge: int) -> bytes:
    """Proof of knowing the cookie: MD5 over the cookie and the challenge in decimal, as OTP has it."""
    return hashlib.md5(cookie + str(challenge).encode("ascii"), usedforsecurity=False).digest()


# --- encoding -----------------------------------------------------------------------------------------------


def name(flags: int, creation: int, node: Atom) -> bytes:
    raw = node.encode("latin-1")
    return b"N" + flags.to_bytes(8, "big") + creation.to_bytes(4, "big") + len(raw).to_bytes(2, "big") + raw


def status(word: str) -> bytes:
    return b"s" + word.encode("ascii")


def challenge(flags: int, number: int, creation: int, node: Atom) -> bytes:
    raw = node.encode("latin-1")
    numbers = number.to_bytes(4, "big") + creation.to_bytes(4, "big")
    return b"N" + flags.to_bytes(8, "big") + numbers + len(raw).to_bytes(2, "big") + raw


def answer(number: int, proof: bytes) -> bytes:
    return b"r" + number.to_bytes(4, "big") + proof


def ack(proof: bytes) -> bytes:
    return b"a" + proof


# --- parsing: each gets bytes that start with its tag -------------------------------------------------------


def parse_name(data: bytes) -> Parsed:
    end = _with_name(data, 15)
    if not isinstance(end, int):
        return end
    return Name(_number(data, 1, 9), _number(data, 9, 13), data[15:end].decode("latin-1")), end


def parse_challenge(data: bytes) -> Parsed:
    end = _with_name(data, 19)
    if not isinstance(end, int):
        return end
    flags, number, creation = _number(data, 1, 9), _number(data, 9, 13), _number(data, 13, 17)
    return Challenge(flags, number, creation, data[19:end].decode("latin-1")), end


def parse_answer(data: bytes) -> Parsed:
    end = 5 + DIGEST_SIZE
    return (Answer(_number(data, 1, 5), data[5:end]), end) if len(data) >= end else None


def parse_ack(data: bytes) -> Parsed:
    end = 1 + DIGEST_SIZE
    return (Ack(data[1:end]), end) if len(data) >= end else None


def parse_old_name(data: bytes) -> Parsed:
    return Bad("old_version", "a name of distribution version 5 (OTP 22 or older)")


def status_parser(*words: str) -> Parser:
    """A parser of the status messages that may come now.

    No word but ``ok`` is the start of another one (``ok_simultaneous``). After ``sok`` the next byte decides,
    and one always comes: the challenge.
    """

    def parse(data: bytes) -> Parsed:
        text = data[1:].decode("latin-1")
        for word in sorted(words, key=len, reverse=True):
            longer = any(w.startswith(word) and w != word and w.startswith(text) for w in words)
            if text.startswith(word) and not longer:
                return Status(word), 1 + len(word)
        if any(word.startswith(text) for word in words):
            return None
        return Bad("malformed", f"the unknown status {text[:20]!r}")

    return parse


def _with_name(data: bytes, header: int) -> int | Bad | None:
    """Where a message with a name at its end ends; ``header`` bytes stand before the name."""
    if len(data) < header:
        return None
    size = _number(data, header - 2, header)
    if size > MAX_NAME:
        return Bad("malformed", f"a node name of {size} bytes (at most {MAX_NAME} are allowed)")
    return header + size if len(data) >= header + size else None


def _number(data: bytes, start: int, end: int) -> int:
    return int.from_bytes(data[start:end], "big")
