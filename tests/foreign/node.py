"""``ForeignNode``: dials and listens as a node with upstream's carrier does."""

from __future__ import annotations

import asyncio
import itertools
from types import TracebackType
from typing import Any, Self

from aioquic.asyncio.server import QuicServer
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from barrel_p2p.term.types import Atom, Pid, Reference

from .auth import Exchange
from .behaviour import Behaviour
from .handshake import Handshake
from .link import Link
from .stack import certificate, configuration, der
from .wire import Wire

Address = tuple[str, int]


class ForeignNode:
    """A node that is not ours.

    Attributes:
        behaviour: How it differs from a healthy Erlang node; every keyword of ``Behaviour`` is one of the constructor.
        failures: What went wrong with connections it accepted.
    """

    def __init__(self, name: str, *, cookie: str, key: Ed25519PrivateKey | None = None, **behaviour: Any) -> None:
        self.name = Atom(name)
        self.cookie = cookie
        self.key = key or Ed25519PrivateKey.generate()
        self.behaviour = Behaviour(**behaviour)
        self.links: list[Link] = []
        self.failures: list[Exception] = []
        self.address: Address | None = None
        self._numbers = itertools.count(100)
        self._transports: list[asyncio.BaseTransport] = []
        self._accepted: asyncio.Queue[Link | Exception] = asyncio.Queue()
        self._wires: list[Wire] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # --- connecting ---------------------------------------------------------------------------------------------------

    async def dial(self, peer: str, address: Address) -> Link:
        """Connect to a node.

        Raises:
            ForeignError: it refused, or did what an Erlang dialer can't stand.
            ConnectionError: no QUIC connection.
            TimeoutError: it fell silent.
        """
        wire = await self.connect(address)
        seen = wire._quic.tls._peer_certificate
        assert seen is not None
        exchange = Exchange(wire, self.name, self.key, der(seen), self.behaviour)
        await exchange.as_dialer()
        return await self._hand_shake(wire, exchange, dialer=True)

    async def connect(self, address: Address) -> Wire:
        """A bare QUIC connection, for a test that speaks for itself from there."""
        wire = await self._open(configuration(client=True, alpn=self.behaviour.alpn), address)
        await wire.up(self.behaviour.timeout)
        return wire

    async def _open(self, config: Any, address: Address) -> Wire:
        loop = asyncio.get_running_loop()
        transport, wire = await loop.create_datagram_endpoint(
            lambda: Wire(QuicConnection(configuration=config)), local_addr=(address[0], 0)
        )
        self._transports.append(transport)
        self._wires.append(wire)
        wire.connect(address)
        return wire

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> Address:
        """Accept connections from now on; ``accepted`` gives them."""
        config = configuration(client=False, alpn=self.behaviour.alpn, stolen=self.behaviour.stolen_certificate)
        tickets: dict[bytes, Any] = {}

        def protocol(quic: QuicConnection, stream_handler: Any = None) -> Wire:
            wire = Wire(quic, stream_handler)
            self._wires.append(wire)
            task = asyncio.get_running_loop().create_task(self._accept(wire))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return wire

        def server() -> QuicServer:
            return QuicServer(
                configuration=config,
                create_protocol=protocol,
                # it offers tickets with early data; a dialer that took it up would run into its resumption bug
                session_ticket_handler=lambda ticket: tickets.__setitem__(ticket.ticket, ticket),
                session_ticket_fetcher=lambda label: None,
            )

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(server, local_addr=(host, port))
        self._transports.append(transport)
        bound = transport.get_extra_info("sockname")
        self.address = (bound[0], bound[1])
        return self.address

    async def accepted(self, timeout: float = 10.0) -> Link:
        """The next connection that came up; raises what ended the attempt if it failed."""
        async with asyncio.timeout(timeout):
            result = await self._accepted.get()
        if isinstance(result, Exception):
            raise result
        return result

    async def _accept(self, wire: Wire) -> None:
        try:
            await wire.up(self.behaviour.timeout)
            exchange = Exchange(wire, self.name, self.key, der(certificate()[0]), self.behaviour)
            await exchange.as_acceptor()
            self._accepted.put_nowait(await self._hand_shake(wire, exchange, dialer=False))
        except Exception as error:  # a test may expect it: it is told by accepted(), nothing is closed (S7)
            self.failures.append(error)
            self._accepted.put_nowait(error)

    async def _hand_shake(self, wire: Wire, exchange: Exchange, *, dialer: bool) -> Link:
        handshake = Handshake(wire, self.name, self.cookie, self.behaviour)
        if self.behaviour.stop_after not in ("hello", "auth"):
            await (handshake.as_dialer() if dialer else handshake.as_acceptor())
        link = Link(wire, handshake, exchange.peer_key, self.behaviour, dialer=dialer)
        self.links.append(link)
        return link

    # --- its processes ------------------------------------------------------------------------------------------------

    def pid(self) -> Pid:
        """A new pid of this node."""
        return Pid(self.name, next(self._numbers), 0, self.behaviour.creation)

    def ref(self) -> Reference:
        """A new reference of this node."""
        return Reference(self.name, self.behaviour.creation, (next(self._numbers), 7, 11))

    # --- the latest link, for tests with one --------------------------------------------------------------------------

    def send(self, control: tuple[Any, ...], message: Any = ...) -> int:
        return self.links[-1].send(control) if message is ... else self.links[-1].send(control, message)

    async def recv_message(self, timeout: float = 5.0) -> tuple[tuple[Any, ...], Any]:
        return await self.links[-1].recv_message(timeout)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def kill(self) -> None:
        """``kill -9``: its sockets are gone at once, without a word."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self.links:
            await link.aclose()
        for wire in self._wires:
            wire.vanish()
        for transport in self._transports:
            transport.close()
