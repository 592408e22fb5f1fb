"""The carrier ``barrel_p2p``: QUIC, each peer known by its Ed25519 key."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from dataclasses import replace

from barrel_p2p.disk import reset_key
from barrel_p2p.disk.directory import DataDir
from barrel_p2p.disk.keys import KeyStore, NodeKeys, TrustStore
from barrel_p2p.net import certificate
from barrel_p2p.net.discovery import Discovery
from barrel_p2p.net.dns import ServiceRecords
from barrel_p2p.net.quic import Connection, QuicTransport
from barrel_p2p.node.attempt import Attempt
from barrel_p2p.node.carrier import MakeChannel, bind_host, first_that_answers, handshake_config, log
from barrel_p2p.node.establish import Accepting, Dialing, Identity
from barrel_p2p.node.establishing import AcceptEvents
from barrel_p2p.node.handshake_counts import HandshakeCounts
from barrel_p2p.node.options import Address, Options, Way
from barrel_p2p.node.telemetry import Telemetry
from barrel_p2p.proto.auth import AuthConfig
from barrel_p2p.proto.endorsement import Chain
from barrel_p2p.proto.flags import Flags
from barrel_p2p.proto.handshake import Framing
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom


class QuicCarrier:
    def __init__(self, name: Atom, options: Options, data_dir: DataDir, codec: Codec, exact_codec: Codec) -> None:
        self.keys: NodeKeys | None = None
        self.tells_lost_links = False
        self.addresses: dict[Atom, Address] = {}
        self.chain: Chain = ()
        self.counts = HandshakeCounts(Telemetry())
        self._name = name
        self._options = options
        self._data_dir = data_dir
        self._codec = codec
        self._exact_codec = exact_codec
        self._transport: QuicTransport | None = None
        self._published_port: int | None = None

    async def prepare(self) -> int:
        self._store = KeyStore(self._data_dir.keys)
        self._own_identity = self._store.load_or_create()
        self.chain = self._store.chain(self._own_identity)
        self._trust = TrustStore(self._data_dir.keys, self._options.trust_mode)
        self.keys = NodeKeys(self._own_identity, self._trust)
        self._certificate = certificate.load_or_create(self._data_dir.quic)
        return 4 + secrets.randbelow((1 << 32) - 4)

    async def start(self, creation: int, events: AcceptEvents, make_channel: MakeChannel) -> Address:
        options, own = self._options, self._own_identity
        self._events = events
        self._identity = Identity(
            auth=AuthConfig(
                name=self._name,
                sign=own.sign,
                public_key=own.public_key,
                window_ms=options.auth_timestamp_window_ms,
                timeout=options.auth_handshake_timeout_ms / 1000,
                cookie_only=options.cookie_only_nodes,
                chain=self.chain,
            ),
            dist=handshake_config(self._name, options, creation, Framing.RAW, Flags(0)),
            check_pin=self._trust.verdict,
            pin=self._trust.pin,
            move_pin=self._trust.move,
            max_message=options.max_message,
            make_channel=make_channel,
            counts=self.counts,
        )
        self._discovery = Discovery(
            static=options.peers,
            backend=options.discover,
            directory=options.discovery_dir,
            services=ServiceRecords() if options.dns_srv else None,
            own_port=options.listen_port,
        )
        self._transport = QuicTransport(
            self._codec,
            exact_codec=self._exact_codec,
            certificate=self._certificate.certificate_der,
            private_key=self._certificate.private_key_der,
            reset_key=reset_key.load_or_create(self._data_dir.quic, own.seed),
            on_accept=self._accept,
            idle_timeout_ms=options.net_ticktime_ms,
            keep_alive_ms=options.net_ticktime_ms // 4,
            max_unauthenticated=options.max_unauthenticated,
            high_water=options.send_high_water,
            busy_wait_us=options.busy_wait_us,
        )
        address = await self._transport.listen(bind_host(self._name, options), options.listen_port)
        self._discovery.publish(self._name, address[1])
        self._published_port = address[1]
        return address

    async def dial(self, attempt: Attempt) -> Dialing:
        connection = await self._connect(attempt.name)
        try:
            return Dialing(connection, self._identity, attempt.name, attempt)
        except BaseException:
            connection.close(0, "the handshake could not begin")
            raise

    def turned_away(self) -> dict[str, int]:
        return {} if self._transport is None else self._transport.turned_away()

    def strangers(self) -> int:
        return 0 if self._transport is None else self._transport.strangers()

    def rotate_identity(self) -> None:
        """Take a new key for the connections to come. Raises ConfigError if the disk refuses: the old one stays."""
        assert self.keys is not None
        own = self._own_identity = self._store.rotate(self._name)
        self.chain = self._store.chain(own)
        self.keys.replace(own)
        auth = replace(self._identity.auth, sign=own.sign, public_key=own.public_key, chain=self.chain)
        self._identity = replace(self._identity, auth=auth)

    def rotate_certificate(self) -> None:
        """Take a new TLS certificate for the connections to come. Raises ConfigError if the disk refuses."""
        assert self._transport is not None
        self._certificate = certificate.rotate(self._data_dir.quic)
        self._transport.set_certificate(self._certificate.certificate_der, self._certificate.private_key_der)

    async def close(self) -> None:
        async with AsyncExitStack() as stack:  # each step is taken even if one before it fails or is cancelled
            if self._published_port is not None:
                stack.callback(self._discovery.unpublish, self._name, self._published_port)
                self._published_port = None
            if self._transport is not None:
                stack.push_async_callback(self._transport.close)

    async def _connect(self, name: Atom) -> Connection:
        known = self.addresses.get(name)
        addresses = [known] if known is not None else await self._discovery.lookup(name)
        transport = self._transport
        assert transport is not None
        timeout = self._options.setup_timeout_ms / 1000

        async def dial(way: Way) -> Connection:
            fd = None if way.socket is None else way.socket.fileno()
            return await transport.dial(*way.address, timeout=timeout, fd=fd)

        connection, address = await first_that_answers(name, addresses, self._options, dial)
        connection.address = address
        log.info(
            "QUIC connection to %s at %s:%d: encrypted with TLS 1.3 after %.1f ms",
            name,
            *connection.peer_address,
            connection.setup_seconds * 1000,
            extra={"peer": name},
        )
        return connection

    def _accept(self, connection: Connection) -> None:
        Accepting(connection, self._identity, self._events)
