"""Bytes over one stream of aioquic, the QUIC of Python alone; TLS 1.3, the client doesn't check the certificate.

The sender writes blocks of 1 MiB, the receiver reads them all and answers with their number, as ours/peer.py does.
The windows are opened to 8 and 16 MiB; with its defaults aioquic is slower.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns

sys.path.insert(0, str(Path(__file__).parent.parent))

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration

import harness
from certificates import write_certificates

MiB = 1 << 20
BLOCK = bytes(MiB)


class Aioquic(harness.Rival):
    async def serve(self) -> list[str]:
        config = QuicConfiguration(
            is_client=False, alpn_protocols=["bench"], max_stream_data=8 * MiB, max_data=16 * MiB
        )
        with tempfile.TemporaryDirectory() as directory:
            authority, certificate, key = (Path(directory) / name for name in ("ca.crt", "node.crt", "node.key"))
            write_certificates(authority, certificate, key)
            config.load_cert_chain(certificate, key)
        self._sinks: set[asyncio.Task[None]] = set()
        server = await serve("127.0.0.1", 0, configuration=config, stream_handler=self._take)
        return [str(server._transport.get_extra_info("sockname")[1])]

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def sink() -> None:
            count = 0
            while chunk := await reader.read(1 << 18):
                count += len(chunk)
            writer.write(count.to_bytes(8))
            writer.write_eof()

        self._sinks.add(task := asyncio.create_task(sink()))
        task.add_done_callback(self._sinks.discard)

    async def connect(self, address: list[str]) -> None:
        config = QuicConfiguration(alpn_protocols=["bench"], verify_mode=ssl.CERT_NONE)
        self._opening = connect("127.0.0.1", int(address[0]), configuration=config)
        self._client: QuicConnectionProtocol = await self._opening.__aenter__()

    async def stream(self, mib: int) -> int:
        start = perf_counter_ns()
        reader, writer = await self._client.create_stream()
        for _ in range(mib):
            writer.write(BLOCK)
            await writer.drain()
        writer.write_eof()
        assert int.from_bytes(await reader.readexactly(8)) == mib * MiB
        return perf_counter_ns() - start


if __name__ == "__main__":
    harness.main(Aioquic())
