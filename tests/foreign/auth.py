"""The Ed25519 exchange on the streams 2 and 3, as upstream plays both roles."""

from __future__ import annotations

import hashlib
import os
import struct
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .behaviour import Behaviour
from .wire import ForeignError, Wire

HELLO, CHALLENGE, RESPONSE, OK, FAIL = 1, 2, 3, 4, 5
NAMES = {HELLO: "hello", CHALLENGE: "challenge", RESPONSE: "response", OK: "ok", FAIL: "fail"}
WINDOW_MS = 2 * 30_000


class Exchange:
    """One side of one exchange; ``peer_name`` and ``peer_key`` stand once it is over."""

    def __init__(self, wire: Wire, name: str, key: Ed25519PrivateKey, certificate: bytes, behaviour: Behaviour) -> None:
        self.peer_name = ""
        self.peer_key = b""
        self._wire = wire
        self._name = behaviour.hello_name or name
        self._key = key
        self._public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._binding = hashlib.sha256(b"another" if behaviour.wrong_binding else certificate).digest()
        self._behaviour = behaviour
        self._nonce = os.urandom(32)
        self._stamp = time.time_ns() // 1_000_000 + behaviour.clock_offset_ms

    async def as_dialer(self) -> None:
        """Nothing else may be written before the OK: the acceptor takes the first stream event for this exchange."""
        self._send(2, self._hello())
        if self._behaviour.stop_after == "hello":
            return
        kind, body = await self._receive(3)
        if kind == OK and self._behaviour.cookie_only:
            self._wire.write(2, b"", fin=True)
            return
        self._take_hello(kind, body)
        self._send(2, self._challenge())
        nonce, stamp = self._take_challenge(*await self._receive(3))
        self._send(2, self._response(nonce, stamp))
        self._verify(*await self._receive(3))
        kind, body = await self._receive(3)
        if kind != OK:
            raise ForeignError(f"expected OK, got {describe(kind, body)}")
        self._wire.write(2, b"", fin=True)

    async def as_acceptor(self) -> None:
        kind, body = await self._receive(2)
        if self._wire.first_stream != 2:
            raise ForeignError(f"the first bytes came on stream {self._wire.first_stream}, not on 2")
        self._take_hello(kind, body)
        if self._behaviour.reject is not None:
            reason = self._behaviour.reject.encode()
            self._send(3, struct.pack(">BH", FAIL, len(reason)) + reason)
            self._wire.write(3, b"", fin=True)
            self._wire.close_app()
            raise ForeignError(f"rejected {self.peer_name}: {self._behaviour.reject}")
        if self._behaviour.cookie_only:
            self._send(3, bytes([OK]))
            self._wire.write(3, b"", fin=True)
            return
        self._send(3, self._hello())
        self._send(3, self._challenge())
        nonce, stamp = self._take_challenge(*await self._receive(2))
        self._send(3, self._response(nonce, stamp))
        self._verify(*await self._receive(2))
        self._send(3, bytes([OK]))
        self._wire.write(3, b"", fin=True)

    # --- frames -------------------------------------------------------------------------------------------------------

    def _send(self, stream: int, body: bytes) -> None:
        message = self._behaviour.instead.get(NAMES[body[0]], struct.pack(">H", len(body)) + body)
        self._wire.mute = self._wire.mute or not message
        self._wire.write(stream, message)

    async def _receive(self, stream: int) -> tuple[int, bytes]:
        timeout = self._behaviour.timeout
        (length,) = struct.unpack(">H", await self._wire.read_exactly(stream, 2, timeout))
        body = await self._wire.read_exactly(stream, length, timeout)
        return body[0], body[1:]

    def _hello(self) -> bytes:
        name = self._name.encode()
        return struct.pack(">BBH", HELLO, self._behaviour.hello_version, len(name)) + name + self._public

    def _challenge(self) -> bytes:
        return bytes([CHALLENGE]) + self._nonce + struct.pack(">Q", self._stamp)

    def _response(self, nonce: bytes, stamp: int) -> bytes:
        signature = self._key.sign(signed_text(nonce, stamp, self._public, self._binding))
        if self._behaviour.forge_signature:
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        return bytes([RESPONSE]) + signature

    def _take_hello(self, kind: int, body: bytes) -> None:
        if kind != HELLO:
            raise ForeignError(f"expected HELLO, got {describe(kind, body)}")
        version, length = struct.unpack_from(">BH", body)
        if version != 2 or len(body) != 3 + length + 32:
            raise ForeignError(f"malformed HELLO {body!r}")
        self.peer_name, self.peer_key = body[3 : 3 + length].decode(), body[3 + length :]

    def _take_challenge(self, kind: int, body: bytes) -> tuple[bytes, int]:
        if kind != CHALLENGE or len(body) != 40:
            raise ForeignError(f"expected CHALLENGE, got {describe(kind, body)}")
        (stamp,) = struct.unpack(">Q", body[32:])
        if abs(time.time_ns() // 1_000_000 - stamp) > WINDOW_MS:
            raise ForeignError("the peer's clock is outside of the window")
        return body[:32], stamp

    def _verify(self, kind: int, body: bytes) -> None:
        if kind != RESPONSE or len(body) != 64:
            raise ForeignError(f"expected RESPONSE, got {describe(kind, body)}")
        text = signed_text(self._nonce, self._stamp, self.peer_key, self._binding)
        try:
            Ed25519PublicKey.from_public_bytes(self.peer_key).verify(body, text)
        except InvalidSignature:
            raise ForeignError("the peer's signature is wrong") from None


def signed_text(nonce: bytes, stamp: int, signer: bytes, binding: bytes) -> bytes:
    return nonce + struct.pack(">Q", stamp) + signer + binding


def describe(kind: int, body: bytes) -> str:
    return f"FAIL {body[2:].decode('ascii', 'replace')}" if kind == FAIL else f"type {kind}, {body!r}"
