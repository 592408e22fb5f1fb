"""Control tuple and message to frames of a data stream, and back, with fragments as the BEAM makes them."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

from barrel_p2p.term.reference import ReferenceCodec

from .wire import ForeignError

NO_MESSAGE: Final = object()
CODEC: Final = ReferenceCodec(max_bytes=512 << 20)
# Where the sender and the receiver stand in a control tuple, from 0 (None: there is none); it decides the data stream.
_PLACES: Final[dict[tuple[int | None, int | None], tuple[int, ...]]] = {
    (1, 2): (1, 3, 4, 7, 8, 13, *range(18, 29), 33, 34),
    (1, 3): (6, 16),
    (None, 2): (2, 12, 31, 32),
    (2, None): (29, 30),
    (2, 3): (35, 36, 37),
}
PRINCIPALS: Final = {op: places for places, ops in _PLACES.items() for op in ops}


def stream_of(control: tuple[Any, ...], streams: list[int]) -> int:
    """One of the data streams by the pair of processes: order holds within a pair and between pairs there is none."""
    places = PRINCIPALS.get(control[0], (None, None))
    key = b"".join(CODEC.encode(control[place]) for place in places if place is not None)
    return streams[zlib.crc32(key) % len(streams)]


def bare(term: Any) -> bytes:
    return CODEC.encode(term)[1:]


class Encoder:
    def __init__(self, *, fragments: bool, fragment_bytes: int) -> None:
        self._fragments = fragments
        self._fragment_bytes = fragment_bytes
        self._sequence = itertools.count(1)

    def frames(self, control: tuple[Any, ...], message: Any) -> Iterator[bytes]:
        """One payload, or many fragments whose numbers count down to 1."""
        if not self._fragments:
            tail = b"" if message is NO_MESSAGE else CODEC.encode(message)
            yield framed(b"\x70" + CODEC.encode(control) + tail)
            return
        head, body = bare(control), b"" if message is NO_MESSAGE else bare(message)
        size = self._fragment_bytes
        if len(body) <= size:
            yield framed(b"\x83\x44\x00" + head + body)
            return
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        sequence = next(self._sequence)
        for left, piece in zip(range(len(pieces), 0, -1), pieces, strict=True):
            numbers = struct.pack(">QQ", sequence, left)
            if left == len(pieces):
                yield framed(b"\x83\x45" + numbers + b"\x00" + head + piece)
            else:
                yield framed(b"\x83\x46" + numbers + piece)


def framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


class Decoder:
    """Takes the bytes of one data stream; ``largest`` is the longest frame so far."""

    def __init__(self, *, fragments: bool) -> None:
        self._fragments = fragments
        self.largest = 0
        self._buffer = bytearray()
        self._open: dict[int, tuple[int, bytearray]] = {}

    def receive(self, data: bytes) -> Iterator[tuple[tuple[Any, ...], Any]]:
        self._buffer += data
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            self.largest = max(self.largest, length)
            if len(self._buffer) < 4 + length:
                return
            self.largest = max(self.largest, length)
            payload = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            if payload:  # an empty one is a tick
                yield from self._payload(payload)

    def _payload(self, payload: bytes) -> Iterator[tuple[tuple[Any, ...], Any]]:
        if not self._fragments:
            if not payload.startswith(b"\x70\x83"):
                raise ForeignError(f"without FRAGMENTS a payload starts with 112 131, not {payload[:2]!r}")
            control, end = CODEC.decode_prefix(payload, 1)
            yield control, (CODEC.decode(payload[end:]) if end < len(payload) else NO_MESSAGE)
            return
        match payload[:2]:
            case b"\x83\x44":
                yield self._whole(payload[2:])
            case b"\x83\x45" | b"\x83\x46":
                sequence, left = struct.unpack_from(">QQ", payload, 2)
                yield from self._fragment(payload[:2] == b"\x83\x45", sequence, left, payload[18:])
            case other:
                raise ForeignError(f"with FRAGMENTS a payload starts with 131 68/69/70, not {other!r}")

    def _fragment(self, first: bool, sequence: int, left: int, piece: bytes) -> Iterator[tuple[tuple[Any, ...], Any]]:
        if sequence == 0:
            raise ForeignError("a fragment with sequence id 0: it crashes the VM")
        if first == (sequence in self._open):
            raise ForeignError(f"fragment {left} of {sequence} is {'a repeated first' if first else 'unknown'}")
        expected, whole = self._open.pop(sequence, (left, bytearray()))
        if left != expected:
            raise ForeignError(f"fragment {left} of {sequence}, expected {expected}")
        whole += piece
        if left == 1:
            yield self._whole(bytes(whole))
        else:
            self._open[sequence] = (left - 1, whole)

    def _whole(self, data: bytes) -> tuple[tuple[Any, ...], Any]:
        if data[:1] != b"\x00":
            raise ForeignError("a distribution header with atoms, though no atom cache was negotiated")
        control, end = CODEC.decode_prefix(data, 1, version=False)
        if end == len(data):
            return control, NO_MESSAGE
        message, end = CODEC.decode_prefix(data, end, version=False)
        if end != len(data):
            raise ForeignError(f"{len(data) - end} bytes behind the message")
        return control, message
