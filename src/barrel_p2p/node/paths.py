"""The path of a connection: what is known about it, and moving it to another one while it is in use.

Only the side that dialed can move a connection (RFC 9000, 9): the other one listens on a socket that all its peers
share. A node that was dialed by another node of this library asks it to move, with a call to ``barrel_p2p_paths``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.errors import (
    CallError,
    MigrationDisabled,
    MigrationError,
    MigrationTimeout,
    NotConnected,
    NotDialer,
    NotSupported,
)
from barrel_p2p.net.quic import Connection
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.options import Address, Way
from barrel_p2p.process.api import spawn
from barrel_p2p.process.call import call, reply
from barrel_p2p.process.gen_server import NOREPLY, GenServer
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto.flags import Flags
from barrel_p2p.shown import shown
from barrel_p2p.term.types import Atom, Pid

log = logging.getLogger("barrel_p2p.paths")

NAME: Final = Atom("barrel_p2p_paths")
MIGRATE: Final = Atom("migrate")
OK: Final = Atom("ok")
ERROR: Final = Atom("error")
#: Requests of one peer that wait for a move of its connection; more are told so at once (a guess).
MAX_WAITING: Final = 16
#: The longest that a peer may let us try to move (a guess): a bound for what it can keep us busy with.
MAX_SECONDS: Final = 60.0

_ERRORS: Final[dict[str, type[MigrationError]]] = {
    "timeout": MigrationTimeout,
    "disabled": MigrationDisabled,
    "not_dialer": NotDialer,
}
_WORDS: Final = {error: word for word, error in _ERRORS.items()}


@dataclass(frozen=True, slots=True)
class PathStats:
    """The path to a peer at one moment, as QUIC sees it from this side.

    Attributes:
        smoothed_rtt_ms: The round trip as a moving average (RFC 9002), in milliseconds.
        latest_rtt_ms: The last one that was measured, with the peer's delay of its acknowledgement.
        min_rtt_ms: The shortest on this path.
        congestion_window: Bytes that may be in flight.
        bytes_in_flight: Bytes sent and neither acknowledged nor lost, as of the last packet.
        lost_packets: Packets taken for lost since the connection was made.
        sent_packets: Packets sent since then.
        mtu: Bytes of the largest UDP payload that is sent.
        local_address: Our end; the host may be 0.0.0.0 where it was not asked for.
        peer_address: The peer's end as this side sees it: behind a NAT or relay the address of that.
        migrations: How often either end changed its address.
        streams: Open user streams, of both sides.
        is_dialer: Whether this side made the connection, and so can move it.
    """

    smoothed_rtt_ms: float
    latest_rtt_ms: float
    min_rtt_ms: float
    congestion_window: int
    bytes_in_flight: int
    lost_packets: int
    sent_packets: int
    mtu: int
    local_address: Address
    peer_address: Address
    migrations: int
    streams: int
    is_dialer: bool

    @classmethod
    def of(cls, channel: Channel) -> PathStats:
        connection = quic(channel)
        stats = connection.stats()
        if not stats:
            raise NotConnected(f"the connection to {channel.name} has just ended")
        return cls(
            smoothed_rtt_ms=stats["rtt_us"] / 1000,
            latest_rtt_ms=stats["latest_rtt_us"] / 1000,
            min_rtt_ms=stats["min_rtt_us"] / 1000,
            congestion_window=stats["cwnd"],
            bytes_in_flight=stats["in_flight"],
            lost_packets=stats["packets_lost"],
            sent_packets=stats["packets_sent"],
            mtu=stats["mtu"],
            local_address=connection.local_address,
            peer_address=connection.peer_address,
            migrations=stats["migrations"],
            streams=stats["streams"],
            is_dialer=connection.is_dialer,
        )


class Paths:
    """Moves connections. ``find`` gives the way to a node (the hook ``on_address`` of the user, asked anew)."""

    def __init__(
        self,
        up: Callable[[Atom], Channel | None],
        runtime: Callable[[], Runtime],
        find: Callable[[Atom, Address], Awaitable[Way]],
    ) -> None:
        self._up = up
        self._runtime = runtime
        self._find = find
        self._moving: dict[Atom, asyncio.Future[None]] = {}

    def stats(self, peer: Atom) -> PathStats:
        return PathStats.of(self._channel(peer))

    async def migrate(self, peer: Atom, timeout: float) -> None:
        """See ``Node.migrate_peer``."""
        channel = self._channel(peer)
        if quic(channel).is_dialer:
            await self.move(channel, timeout)
        else:
            await self._ask(channel, timeout)

    async def move(self, channel: Channel, timeout: float) -> None:
        """Move a connection that we made; one that moves already is waited for."""
        moving = self._moving.get(channel.name)
        if moving is not None:
            await asyncio.shield(moving)
            return
        moving = self._moving[channel.name] = asyncio.ensure_future(self._move(quic(channel), channel.name, timeout))
        try:
            await moving
        finally:
            del self._moving[channel.name]

    async def _move(self, connection: Connection, peer: Atom, timeout: float) -> None:
        address = connection.address or connection.peer_address
        before = connection.local_address
        try:
            async with asyncio.timeout(timeout):
                way = await self._find(peer, address)
        except TimeoutError:
            raise MigrationTimeout(f"on_address gave no way to {peer} within {timeout:g} s") from None
        fd = None if way.socket is None else way.socket.fileno()
        await connection.migrate(timeout, to=way.address, fd=fd)
        log.info(
            "the connection to %s moved from %s:%d to %s:%d",
            peer,
            *before,
            *connection.local_address,
            extra={"peer": peer},
        )

    async def _ask(self, channel: Channel, timeout: float) -> None:
        peer = channel.name
        if not channel.flags & Flags.PYTHON:
            raise NotDialer(
                f"{peer} made this connection, so only it can move it, and it is no node of this library that could "
                "be asked to"
            )
        request = (MIGRATE, round(timeout * 1000))
        try:
            answer = await call((NAME, peer), request, timeout=timeout + 1.0, node=self._runtime())
        except TimeoutError:
            raise MigrationTimeout(f"{peer} did not say within {timeout + 1.0:g} s that it has moved") from None
        except CallError as error:
            raise NotConnected(f"{peer} could not be asked to move: {error}") from error
        match answer:
            case "ok":
                return
            case ("error", str(word), text):
                message = text if isinstance(text, str) else f"{peer} did not move"
                raise _ERRORS.get(word, MigrationError)(message)
            case _:
                raise MigrationError(f"{peer} gave no sensible answer: {shown(answer, 100)}")

    def channel(self, peer: Atom) -> Channel | None:
        return self._up(peer)

    def _channel(self, peer: Atom) -> Channel:
        channel = self._up(peer)
        if channel is None:
            raise NotConnected(f"{peer} is not connected")
        return channel


class PathServer(GenServer):
    """Registered as ``barrel_p2p_paths``: a peer that we dialed may ask us to move the connection to it."""

    async def init(self, paths: Paths) -> None:
        self.paths = paths
        self.waiting: Counter[Atom] = Counter()

    async def handle_call(self, request: Any, from_: Any) -> Any:
        match request:
            case ("migrate", int(milliseconds)) if 0 < milliseconds <= MAX_SECONDS * 1000:
                caller: Pid = from_[0]
                channel = self.paths.channel(caller.node)
                if channel is None or not quic(channel).is_dialer:
                    return (ERROR, Atom("not_dialer"), "neither side says that it made this connection")
                if self.waiting[caller.node] >= MAX_WAITING:
                    return (ERROR, Atom("busy"), "too many requests for this connection wait already")
                self.waiting[caller.node] += 1
                spawn(self._move_for, channel, milliseconds / 1000, from_)
                return NOREPLY
        return (ERROR, Atom("unknown_call"), "what is asked is (migrate, milliseconds), up to a minute")

    async def _move_for(self, channel: Channel, timeout: float, from_: Any) -> None:
        peer = channel.name
        try:
            await self.paths.move(channel, timeout)
        except (MigrationError, NotConnected, OSError) as error:
            word = next((word for kind, word in _WORDS.items() if isinstance(error, kind)), "failed")
            reply(from_, (ERROR, Atom(word), str(error)))
        else:
            reply(from_, OK)
        finally:
            self.waiting[peer] -= 1
            if not self.waiting[peer]:
                del self.waiting[peer]


def quic(channel: Channel) -> Connection:
    connection = channel.connection
    if not isinstance(connection, Connection):
        raise NotSupported('paths need QUIC: this node speaks inet_tcp; use proto_dist="barrel_p2p" on both nodes')
    return connection


__all__ = ["NAME", "PathServer", "PathStats", "Paths"]
