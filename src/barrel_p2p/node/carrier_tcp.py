"""The carrier ``inet_tcp``: stock Erlang distribution, with epmd and a cookie, in the clear."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass

from barrel_p2p.disk.keys import NodeKeys
from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.net.epmd import Epmd, Registration
from barrel_p2p.net.tcp import Connection, TcpTransport
from barrel_p2p.node.attempt import Attempt
from barrel_p2p.node.carrier import MakeChannel, bind_host, first_that_answers, handshake_config
from barrel_p2p.node.establish_tcp import TcpAccepting, TcpDialing
from barrel_p2p.node.establishing import AcceptEvents
from barrel_p2p.node.handshake_counts import HandshakeCounts
from barrel_p2p.node.options import DEFAULT_COOKIE, Address, Options
from barrel_p2p.node.telemetry import Telemetry
from barrel_p2p.proto.flags import Flags
from barrel_p2p.proto.handshake import Framing, HandshakeConfig
from barrel_p2p.proto.names import host_of, is_long_name
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.connect")


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a node brings into every handshake (``establishing.Settings``)."""

    dist: HandshakeConfig
    max_message: int
    make_channel: MakeChannel
    counts: HandshakeCounts


class TcpCarrier:
    def __init__(self, name: Atom, options: Options, codec: Codec, exact_codec: Codec) -> None:
        self.keys: NodeKeys | None = None
        self.tells_lost_links = True
        self.addresses: dict[Atom, Address] = {}
        self.counts = HandshakeCounts(Telemetry())
        self._name = name
        self._options = options
        self._codec = codec
        self._exact_codec = exact_codec
        self._epmd = Epmd(options.epmd_port, timeout=options.setup_timeout_ms / 1000)
        self._transport: TcpTransport | None = None
        self._registration: Registration | None = None

    async def prepare(self) -> int:
        """Bind the port and register it: epmd gives the creation, which every pid of this node holds."""
        options = self._options
        if options.cookie == DEFAULT_COOKIE:
            raise ConfigError(
                "over inet_tcp the cookie is all that keeps strangers out, and it is the public default: set cookie= "
                "(BARREL_COOKIE, --cookie)",
                "cookie",
            )
        self._transport = TcpTransport(
            self._codec,
            exact_codec=self._exact_codec,
            on_accept=self._accept,
            tick_time_ms=options.net_ticktime_ms,
            max_unauthenticated=options.max_unauthenticated,
            high_water=options.send_high_water,
            busy_wait_us=options.busy_wait_us,
        )
        self._address = self._transport.listen(bind_host(self._name, options), options.listen_port)
        self._registration = Registration(
            self._epmd, self._name, self._address[1], hidden=not options.published, start=options.start_epmd
        )
        return await self._registration.open()

    async def start(self, creation: int, events: AcceptEvents, make_channel: MakeChannel) -> Address:
        assert self._transport is not None
        self._events = events
        self._settings = _Settings(
            dist=handshake_config(self._name, self._options, creation, Framing.LENGTH16, Flags.DIST_HDR_ATOM_CACHE),
            max_message=self._options.max_message,
            make_channel=make_channel,
            counts=self.counts,
        )
        self._transport.serve()
        log.info("%s speaks inet_tcp: nothing is encrypted, and who knows the cookie is let in", self._name)
        return self._address

    async def dial(self, attempt: Attempt) -> TcpDialing:
        connection = await self._connect(attempt.name)
        try:
            return TcpDialing(connection, self._settings, attempt.name, attempt)
        except BaseException:
            connection.close(0, "the handshake could not begin")
            raise

    def turned_away(self) -> dict[str, int]:
        return {} if self._transport is None else self._transport.turned_away()

    def strangers(self) -> int:
        return 0 if self._transport is None else self._transport.strangers()

    async def close(self) -> None:
        async with AsyncExitStack() as stack:  # each step is taken even if one before it fails or is cancelled
            if self._transport is not None:
                stack.push_async_callback(self._transport.close)
            if self._registration is not None:
                stack.push_async_callback(self._registration.close)

    async def _connect(self, name: Atom) -> Connection:
        transport = self._transport
        assert transport is not None
        timeout = self._options.setup_timeout_ms / 1000
        connection, _ = await first_that_answers(
            name,
            await self._lookup(name),
            self._options,
            lambda way: transport.dial(*way.address, timeout=timeout),
        )
        log.info("TCP connection to %s at %s:%d: not encrypted", name, *connection.peer_address, extra={"peer": name})
        return connection

    async def _lookup(self, name: Atom) -> list[Address]:
        if is_long_name(name) != is_long_name(self._name):
            kinds = ("short", "long") if is_long_name(self._name) else ("long", "short")
            raise NotConnected(
                f"{name} is a {kinds[0]} name and {self._name} a {kinds[1]} one: as in Erlang such nodes don't talk. "
                "Give both a host with dots (-name) or both one without (-sname)",
                "name_form",
            )
        known = self.addresses.get(name) or self._options.peers.get(name)
        if known is not None:
            return await self._epmd.resolve(*known)
        return await self._epmd.lookup(name.partition("@")[0], host_of(name))

    def _accept(self, connection: Connection) -> None:
        TcpAccepting(connection, self._settings, self._events)
