"""The first packet of a QUIC dialer, made in numbers: valid Initials with a ClientHello, each with ids of its own.

A stack makes one connection, with keys and timers, per Initial. Here one ClientHello of aioquic's is taken out of its
packet and protected anew for each destination id (RFC 9001, section 5): some 30 us for one.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION_1 = b"\0\0\0\1"
SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
SIZE = 1200  # the least a datagram with an Initial may have
TAG = 16
PADDING = b"\0"
CONNECTION_CLOSE = b"\x1c\x00\x00\x00"  # no error, no frame to blame, no reason


class Hello:
    """What a dialer says first."""

    def __init__(self) -> None:
        stack = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["erlang-dist"], verify_mode=0))
        stack.connect(("127.0.0.1", 1), now=0.0)
        (datagram, _), *_ = stack.datagrams_to_send(now=0.0)
        #: Stands in the transport parameters too, so all packets have it.
        self.source_id, self._frames = _unprotect(datagram)

    def initial(self, destination_id: bytes, token: bytes = b"") -> bytes:
        """A datagram that begins a connection."""
        return _protect(destination_id, self.source_id, token, number=0, frames=self._frames)

    def hang_up(self, destination_id: bytes, token: bytes = b"") -> bytes:
        """A datagram that ends the connection again; the token has to be that of the Initial."""
        return _protect(destination_id, self.source_id, token, number=1, frames=CONNECTION_CLOSE)


def fresh_id() -> bytes:
    return os.urandom(8)


def retry_of(datagram: bytes) -> tuple[bytes, bytes] | None:
    """The server's id and the token of a Retry packet; None if it is another packet."""
    if datagram[0] & 0xF0 != 0xF0 or datagram[1:5] != VERSION_1:
        return None
    _, source_id, rest = _ids(datagram)
    return source_id, datagram[rest:-TAG]


def is_initial(datagram: bytes) -> bool:
    return datagram[0] & 0xF0 == 0xC0 and datagram[1:5] == VERSION_1


class _Keys:
    """What protects the packets of a dialer up to the server's first answer: anybody can derive it."""

    def __init__(self, destination_id: bytes) -> None:
        secret = _expand(hmac.digest(SALT, destination_id, "sha256"), "client in", 32)
        self.aead = AESGCM(_expand(secret, "quic key", 16))
        self.iv = int.from_bytes(_expand(secret, "quic iv", 12))
        self._mask = Cipher(algorithms.AES(_expand(secret, "quic hp", 16)), modes.ECB())

    def nonce(self, number: int) -> bytes:
        return (self.iv ^ number).to_bytes(12)

    def mask(self, sample: bytes) -> bytes:
        return self._mask.encryptor().update(sample)


def _expand(secret: bytes, label: str, length: int) -> bytes:
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2) + bytes([len(name)]) + name + b"\0"
    return hmac.digest(secret, info + b"\x01", hashlib.sha256)[:length]


def _protect(destination_id: bytes, source_id: bytes, token: bytes, *, number: int, frames: bytes) -> bytes:
    keys = _Keys(destination_id)
    before = b"\xc0" + VERSION_1 + bytes([len(destination_id)]) + destination_id
    before += bytes([len(source_id)]) + source_id + _varint(len(token)) + token
    room = SIZE - len(before) - 2 - 1 - TAG
    header = before + (0x4000 | 1 + room + TAG).to_bytes(2) + bytes([number])
    sealed = keys.aead.encrypt(keys.nonce(number), frames.ljust(room, PADDING), header)
    mask = keys.mask(sealed[3:19])
    return bytes([header[0] ^ mask[0] & 0x0F]) + header[1:-1] + bytes([number ^ mask[1]]) + sealed


def _unprotect(datagram: bytes) -> tuple[bytes, bytes]:
    """The sender's id and the frames of an Initial, without its padding."""
    destination_id, source_id, rest = _ids(datagram)
    assert datagram[rest] == 0, "a first Initial has no token"
    length, start = int.from_bytes(datagram[rest + 1 : rest + 3]) & 0x3FFF, rest + 3
    keys = _Keys(destination_id)
    mask = keys.mask(datagram[start + 4 : start + 20])
    first = datagram[0] ^ mask[0] & 0x0F
    size = (first & 3) + 1
    number = bytes(a ^ b for a, b in zip(datagram[start : start + size], mask[1:], strict=False))
    header = bytes([first]) + datagram[1:start] + number
    sealed = datagram[start + size : start + length]
    return source_id, keys.aead.decrypt(keys.nonce(int.from_bytes(number)), sealed, header).rstrip(PADDING)


def _ids(datagram: bytes) -> tuple[bytes, bytes, int]:
    """Destination id and source id of a long header, and where it goes on."""
    middle = 6 + datagram[5]
    end = middle + 1 + datagram[middle]
    return datagram[6:middle], datagram[middle + 1 : end], end


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x40 else (0x4000 | value).to_bytes(2)
