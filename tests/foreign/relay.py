"""An attacker on the path: ends the TLS of both sides, and passes what they say on.

``Relay(target)`` listens where the victim believes the target to be. With ``copy=True`` it shows a copy of the target's
certificate, which is public, but has not its key; unless that was stolen and is given as ``key``.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Self

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic import events
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.asymmetric import ec

from .stack import configuration

Address = tuple[str, int]


class Leg(QuicConnectionProtocol):
    """One of the two connections; all bytes of its streams go to ``other``, on the same stream."""

    def __init__(self, quic: QuicConnection, stream_handler: Any = None) -> None:
        super().__init__(quic, stream_handler)
        self.other: Leg | None = None
        self.waiting: list[events.StreamDataReceived] = []
        self.up = asyncio.Event()
        self.passed = 0
        self.ended = False

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.HandshakeCompleted):
            self.up.set()
        elif isinstance(event, events.StreamDataReceived):
            self.waiting.append(event)
            self.pass_on()
        elif isinstance(event, events.ConnectionTerminated):
            self.ended = True
            self.up.set()
            if self.other is not None and not self.other.ended:
                self.other._quic.close()
                self.other.transmit()

    def pass_on(self) -> None:
        if self.other is None or not self.other.up.is_set() or self.other.ended:
            return
        waiting, self.waiting = self.waiting, []
        for event in waiting:
            # the two legs have the same roles as the two nodes, so a stream has the same number on both
            self.other._quic.send_stream_data(event.stream_id, event.data, event.end_stream)
            self.passed += len(event.data)
        self.other.transmit()


class Relay:
    """``passed`` counts the bytes that went from one node to the other."""

    def __init__(self, target: Address, *, copy: bool, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        self._target = target
        self._copy = copy
        self._transports: list[asyncio.BaseTransport] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.legs: list[Leg] = []
        self.address: Address = ("", 0)

    @property
    def passed(self) -> int:
        return sum(leg.passed for leg in self.legs)

    async def __aenter__(self) -> Self:
        config = configuration(client=False)
        if self._copy:
            probe = await self._dial()
            seen = probe._quic.tls._peer_certificate
            assert seen is not None
            config.certificate, config.private_key = seen, self._key
            probe._quic.close()
            probe.transmit()
            self.legs.clear()

        def protocol(quic: QuicConnection, stream_handler: Any = None) -> Leg:
            leg = Leg(quic, stream_handler)
            self.legs.append(leg)
            self._tasks.append(asyncio.get_running_loop().create_task(self._join(leg)))
            return leg

        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: QuicServer(configuration=config, create_protocol=protocol), local_addr=("127.0.0.1", 0)
        )
        self._transports.append(transport)
        self.address = transport.get_extra_info("sockname")[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        for leg in self.legs:
            if not leg.ended:
                leg._quic.close()
                leg.transmit()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in self._transports:
            transport.close()

    async def _dial(self) -> Leg:
        config = configuration(client=True)
        config.verify_mode = ssl.CERT_NONE
        transport, leg = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Leg(QuicConnection(configuration=config)), local_addr=("127.0.0.1", 0)
        )
        self._transports.append(transport)
        self.legs.append(leg)
        leg.connect(self._target)
        await asyncio.wait_for(leg.up.wait(), 10)
        return leg

    async def _join(self, victim: Leg) -> None:
        target = await self._dial()
        victim.other, target.other = target, victim
        await victim.up.wait()
        victim.pass_on()
        target.pass_on()


__all__ = ["Relay"]
