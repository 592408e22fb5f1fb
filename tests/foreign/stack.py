"""Limits of erlang_quic put onto an aioquic connection.

aioquic has no hooks for this, so its private parts are replaced, which is why its version is pinned. Each limit is
one that a correct QUIC peer may run into without a fault of its own.
"""

from __future__ import annotations

import datetime
from functools import cache
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicStreamFrame
from aioquic.quic.stream import QuicStreamReceiver
from aioquic.tls import CipherSuite
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

ALPN = "erlang-dist"
RESET_STREAM, STOP_SENDING, RETIRE_CONNECTION_ID = 0x04, 0x05, 0x19


def configuration(*, client: bool, alpn: str = ALPN, stolen: bool = False) -> QuicConfiguration:
    """Transport parameters as an Erlang node sends them."""
    config = QuicConfiguration(
        is_client=client,
        alpn_protocols=[alpn],
        idle_timeout=300.0,
        max_data=256 << 20,
        max_stream_data=4 << 20,
        verify_mode=0,  # ssl.CERT_NONE: the Ed25519 exchange decides whom to trust
    )
    if client:
        config.cipher_suites = [CipherSuite.AES_128_GCM_SHA256]
    else:
        config.certificate, config.private_key = certificate()
        if stolen:
            config.private_key = ec.generate_private_key(ec.SECP256R1())
    return config


@cache
def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Self-signed and without names, as upstream makes its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "barrel_p2p-node")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(seconds=300))
    builder = builder.not_valid_after(now + datetime.timedelta(days=365))
    return builder.sign(key, hashes.SHA256()), key


def der(some: x509.Certificate) -> bytes:
    return some.public_bytes(Encoding.DER)


def erlang_limits(quic: QuicConnection, broken: list[str]) -> None:
    """Make ``quic`` receive as erlang_quic does; what a real one would choke on is added to ``broken``."""
    inner: Any = quic
    inner._local_active_connection_id_limit = 2
    inner._replenish_connection_ids = lambda: None  # it offers no spare connection ids
    create = inner._get_or_create_stream

    def create_stream(frame_type: int, stream_id: int) -> Any:
        stream = create(frame_type, stream_id)
        if not isinstance(stream.receiver, ExactReceiver) and not stream.receiver.highest_offset:
            stream.receiver = ExactReceiver(stream_id, broken)
        return stream

    inner._get_or_create_stream = create_stream
    handlers = inner._QuicConnection__frame_handlers

    def watched(frame_type: int, complain: Any) -> None:
        handler, epochs = handlers[frame_type]

        def handle(context: Any, kind: int, buf: Any) -> None:
            start = buf.tell()
            complain(buf.pull_uint_var())
            buf.seek(start)
            handler(context, kind, buf)

        handlers[frame_type] = (handle, epochs)

    def retired(sequence: int) -> None:
        if sequence >= 1:
            broken.append(f"RETIRE_CONNECTION_ID {sequence}: a PROTOCOL_VIOLATION over there")

    def cut_off(stream: int) -> None:
        known = quic._streams.get(stream)
        if stream in quic._streams_finished:
            return  # it has carried all that it ever will
        if known is None or (not known.receiver.highest_offset and not known.sender.highest_offset):
            broken.append(f"stream {stream} was reset or stopped before it carried a byte: it is unusable over there")

    watched(RETIRE_CONNECTION_ID, retired)
    watched(RESET_STREAM, cut_off)
    watched(STOP_SENDING, cut_off)


class ExactReceiver(QuicStreamReceiver):
    """Reassembles by exact frame offsets: a frame that overlaps what was delivered, and goes beyond, is lost for good.

    A sender that merges two lost frames into one, of which the first had arrived after all, stalls such a stream.
    """

    def __init__(self, stream_id: int, broken: list[str]) -> None:
        super().__init__(stream_id=stream_id, readable=True)
        self._stream = stream_id
        self._broken = broken
        self._expected = 0
        self._chunks: dict[int, tuple[bytes, bool]] = {}

    def starting_offset(self) -> int:
        return self._expected

    def handle_frame(self, frame: QuicStreamFrame) -> StreamDataReceived | None:
        end = frame.offset + len(frame.data)
        self.highest_offset = max(self.highest_offset, end)
        if frame.offset < self._expected < end:
            self._broken.append(
                f"stream {self._stream}: a frame at {frame.offset}..{end} overlaps what was delivered up to "
                f"{self._expected}: stalled for ever"
            )
            return None
        if frame.offset >= self._expected:
            self._chunks[frame.offset] = (frame.data, frame.fin)
        data, fin = b"", False
        while self._expected in self._chunks:
            chunk, fin = self._chunks.pop(self._expected)
            data += chunk
            self._expected += len(chunk)
            if not chunk:
                break
        self.is_finished = self.is_finished or fin
        return StreamDataReceived(data=data, end_stream=fin, stream_id=self._stream) if data or fin else None
