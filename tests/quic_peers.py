"""Peers of QUIC tests: handlers that record, pairs of connections, and a peer in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from barrel_p2p.net.quic import Batch, CloseReason, Connection, QuicTransport
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, Pid

PROGRAM = Path(__file__).resolve()
MAX_FRAME = 32 << 20
RESET_KEY = b"a key that survives restarts".ljust(64, b".")
CONTROL = (2, Atom(""), Pid(Atom("bob@127.0.0.1"), 5, 0, 9))


@functools.cache
def identity() -> tuple[bytes, bytes]:
    """A self-signed certificate and its key, as DER; the same for every peer of a test run."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    return certificate, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


class Recorder:
    """A handler that keeps what it is told; ``until`` waits for a condition on it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.streams: dict[int, bytes] = {}
        self.finished: set[int] = set()
        self.received: list[Any] = []
        self.reason: CloseReason | None = None
        self.writable_calls = 0
        self._changed = asyncio.Event()
        connection.handler = self

    def stream_data(self, stream: int, data: bytes, fin: bool) -> None:
        self.streams[stream] = self.streams.get(stream, b"") + data
        if fin:
            self.finished.add(stream)
        self._changed.set()

    def messages(self, batch: Batch) -> None:
        self.received += batch
        self._changed.set()

    def writable(self) -> None:
        self.writable_calls += 1
        self._changed.set()

    def closed(self, reason: CloseReason) -> None:
        assert self.reason is None, "closed twice"
        self.reason = reason
        self._changed.set()

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_received(self, count: int) -> None:
        """Waits for so many messages, or the end."""
        await self.until(lambda: len(self.received) >= count or self.reason)

    async def end(self, seconds: float = 10.0) -> CloseReason:
        await self.until(lambda: self.reason, seconds)
        assert self.reason is not None
        return self.reason

    def start(self, *, fragments: bool = True, max_frame: int = MAX_FRAME) -> Recorder:
        self.connection.start_dist(fragments=fragments, max_frame=max_frame)
        return self

    def write_raw(self, stream: int, data: bytes, fin: bool = False) -> None:
        """Write on any bidirectional stream of ours, past the distribution."""
        opened = self.connection.open_bi()
        while opened < stream:
            opened = self.connection.open_bi()
        assert opened == stream
        self.connection.write(stream, data)
        if fin:
            self.connection.finish(stream)


class Site:
    """A transport that records whom it accepted."""

    def __init__(self, **options: Any) -> None:
        certificate, key = identity()
        self.accepted: asyncio.Queue[Recorder] = asyncio.Queue()
        self.recorders: list[Recorder] = []
        settings = {"certificate": certificate, "private_key": key, "reset_key": RESET_KEY, **options}
        self.transport = QuicTransport(Codec(), on_accept=self._accept, **settings)
        self.address = ("", 0)

    def _accept(self, connection: Connection) -> None:
        recorder = Recorder(connection)
        self.recorders.append(recorder)
        self.accepted.put_nowait(recorder)

    async def listen(self, port: int = 0, host: str = "127.0.0.1") -> Site:
        self.address = await self.transport.listen(host, port)
        return self

    async def dial(self, to: Site | int) -> Recorder:
        host, port = ("127.0.0.1", to) if isinstance(to, int) else to.address
        return Recorder(await self.transport.dial(host, port, timeout=5.0))


@contextlib.asynccontextmanager
async def sites(**options: Any) -> AsyncIterator[tuple[Site, Site]]:
    """Two transports, both listening."""
    left, right = await Site(**options).listen(), await Site(**options).listen()
    try:
        yield left, right
    finally:
        await left.transport.close()
        await right.transport.close()


@contextlib.asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """The two ends of one connection, dialer first; no distribution yet."""
    async with sites(**options) as (left, right):
        dialer = await left.dial(right)
        async with asyncio.timeout(5):
            yield dialer, await right.accepted.get()


class LossyPath(asyncio.DatagramProtocol):
    """Stands between a dialer and an acceptor; drops, doubles and reorders datagrams."""

    def __init__(self, target: tuple[str, int], rng: random.Random) -> None:
        self._target = target
        self._rng = rng
        self._dialer: tuple[str, int] | None = None
        self._late: list[tuple[bytes, tuple[str, int]]] = []
        self.dropped = 0

    async def open(self) -> int:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        port: int = self.transport.get_extra_info("sockname")[1]
        return port

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        if sender != self._target:
            self._dialer = sender
        assert self._dialer is not None
        to = self._dialer if sender == self._target else self._target
        chance = self._rng.random()
        if chance < 0.03:
            self.dropped += 1
        elif chance < 0.06:
            self._late.append((data, to))
        else:
            for _ in range(2 if chance < 0.08 else 1):
                self.transport.sendto(data, to)
            while self._late:
                self.transport.sendto(*self._late.pop())


class Child:
    """A peer in a process of its own, driven by lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0

    async def ask(self, command: str, **arguments: Any) -> Any:
        await self.tell(command, **arguments)
        return await self.answer()

    async def tell(self, command: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        await self.process.stdin.drain()

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return json.loads(await self.process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@contextlib.asynccontextmanager
async def child(*, port: int = 0, **options: int) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        json.dumps({"port": port, **options}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    peer = Child(process)
    try:
        peer.port = await peer.answer()
        yield peer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()


async def run_child(options: dict[str, Any]) -> None:
    """The child's side: listens, starts the distribution on every connection, and obeys."""
    port = options.pop("port")
    site = Site(**options)
    original = site._accept

    def accept(connection: Connection) -> None:
        original(connection)
        site.recorders[-1].start()

    site.transport._on_accept = accept
    await site.listen(port)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def say(value: Any) -> None:
        print(json.dumps(value), flush=True)

    say(site.address[1])
    while line := await reader.readline():
        command, arguments = json.loads(line)
        match command:
            case "dial":
                site.recorders.append((await site.dial(arguments["port"])).start())
                say("ok")
            case "block":  # the loop, with everything that arrives meanwhile left to the watcher
                say("blocking")
                time.sleep(arguments["seconds"])  # noqa: ASYNC251 - that is the point
                say({"stood_in": site.transport.stood_in})
            case "wait":
                recorder = site.recorders[0]
                await recorder.until_received(arguments["count"])
                numbers = [message for _, message in recorder.received]
                say(
                    {
                        "count": len(numbers),
                        "ordered": numbers == sorted(numbers),
                        "reason": str(recorder.reason),
                    }
                )
            case "send":
                site.recorders[0].connection.send(CONTROL, arguments["value"])
                say("ok")


if __name__ == "__main__":
    asyncio.run(run_child(json.loads(sys.argv[1])))
