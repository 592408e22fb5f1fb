"""A peer over TCP that does what the test wants: our handshake machines on a bare socket, and raw frames after it.

``Peer`` dials a node; a ``Listener`` is dialled, and does with each connection what its script says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from barrel_p2p import Atom, Node
from barrel_p2p.proto.flags import DEFAULT, Flags
from barrel_p2p.proto.handshake import Connected, Framing, HandshakeConfig, HandshakeDialer
from barrel_p2p.proto.machine import Failed
from barrel_p2p.term.codec import Codec
from harness.erlang import COOKIE, Epmd

NAME = Atom("stranger@127.0.0.1")


def node(epmd: Epmd, directory: Path, name: str = "py@127.0.0.1", **options: Any) -> Node:
    """A node over TCP beside the peers of a test."""
    options = {"cookie": COOKIE, "epmd_port": epmd.port, "data_dir": directory / name, **options}
    return Node(name, proto_dist="inet_tcp", **options)


def config(cookie: str, name: Atom = NAME, flags: Flags = DEFAULT | Flags.DIST_HDR_ATOM_CACHE) -> HandshakeConfig:
    return HandshakeConfig(name=name, cookie=cookie, creation=5, flags=flags, framing=Framing.LENGTH16)


class Peer:
    """A connection to ``node`` whose bytes the test writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, node: Node, source: str = "127.0.0.1") -> Peer:
        return cls(*await asyncio.open_connection(*node.listen_address, local_addr=(source, 0)))

    async def shake(self, node: Node, config: HandshakeConfig) -> Connected | Failed:
        """Go through the handshake as dialer; an early end of the connection is ``Failed``, too."""
        loop = asyncio.get_running_loop()
        machine = HandshakeDialer(config, peer=node.name, challenge=b"abcd", now=loop.time())
        while True:
            for message in machine.data_to_send():
                self.writer.write(message)
            event = machine.next_event()
            if isinstance(event, Connected | Failed):
                return event
            data = await self.read()
            if data:
                machine.receive_data(data, now=loop.time())
            else:
                machine.connection_lost()

    def tell(self, message: bytes) -> None:
        """Write one message of the handshake."""
        self.writer.write(len(message).to_bytes(2, "big") + message)

    async def told(self) -> bytes:
        """Read one message of the handshake."""
        return await self.reader.readexactly(int.from_bytes(await self.reader.readexactly(2), "big"))

    def frame(self, payload: bytes) -> None:
        self.writer.write(len(payload).to_bytes(4, "big") + payload)

    def message(self, control: Any, message: Any) -> None:
        codec = Codec()
        self.frame(b"\x83D\0" + codec.encode(control)[1:] + codec.encode(message)[1:])

    async def read(self) -> bytes:
        try:
            return await self.reader.read(1 << 16)
        except ConnectionResetError:
            return b""

    async def ended(self, timeout: float = 5.0) -> bytes:
        """Wait until the node closes the connection; returns what came before."""
        got = bytearray()
        async with asyncio.timeout(timeout):
            while data := await self.read():
                got += data
        return bytes(got)

    def close(self) -> None:
        self.writer.close()


class Listener:
    """Listens on loopback; ``script`` gets every connection as a ``Peer``, which is closed when the node closes it."""

    def __init__(self, script: Callable[[Peer], Awaitable[None]]) -> None:
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> tuple[str, int]:
        address: tuple[str, int] = self._server.sockets[0].getsockname()
        return address

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._script(peer)
                while await peer.read():
                    pass
        finally:
            peer.close()
            self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
