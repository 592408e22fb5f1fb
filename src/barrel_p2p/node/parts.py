"""What a node is made of: the parts are put together when it starts, told what its connections report, taken apart
when it stops."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from barrel_p2p.disk.directory import DataDir
from barrel_p2p.net.connection import Connection
from barrel_p2p.net.contacts import Contacts
from barrel_p2p.net.quic import Connection as QuicConnection
from barrel_p2p.node import logger_proxy
from barrel_p2p.node.carrier import Carrier, way_to
from barrel_p2p.node.carrier_quic import QuicCarrier
from barrel_p2p.node.carrier_tcp import TcpCarrier
from barrel_p2p.node.channel import Batch, Channel
from barrel_p2p.node.dispatch import Dispatch
from barrel_p2p.node.handshake_counts import HandshakeCounts
from barrel_p2p.node.liveness import Liveness
from barrel_p2p.node.net_kernel import NetKernel
from barrel_p2p.node.node_monitors import NodeMonitors
from barrel_p2p.node.options import Address
from barrel_p2p.node.overlay import Overlay
from barrel_p2p.node.paths import NAME as PATHS
from barrel_p2p.node.paths import Paths, PathServer
from barrel_p2p.node.readings import Readings
from barrel_p2p.node.remote import RemoteSignals
from barrel_p2p.node.rex import Rex
from barrel_p2p.node.rotation import Rotation
from barrel_p2p.node.routes import Routes
from barrel_p2p.node.spawner import Spawner
from barrel_p2p.node.user import MAX_WAITING, serve, to_stdout
from barrel_p2p.process.names import Resolver
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto.connecting_events import DownReason
from barrel_p2p.proto.handshake import Connected
from barrel_p2p.term.types import Atom

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node
    from barrel_p2p.services.global_names import Global
    from barrel_p2p.services.maps import Maps
    from barrel_p2p.services.registry import Registry

log = logging.getLogger("barrel_p2p.node")
log_connect = logging.getLogger("barrel_p2p.connect")


class Parts:
    """Made with the node. What is None is there once ``start`` has come so far, and stays when the node stops.

    Attributes:
        addresses: Where peers listen, as far as the user said so or contacts showed.
        monitors: The processes that asked for ``nodeup`` and ``nodedown``.
    """

    def __init__(self, node: Node) -> None:
        options = node.options
        self._node = node
        self._data_dir = DataDir(options.data_dir or Path("data") / node.name)
        self._contacts = Contacts(options.contact_nodes)
        self.addresses: dict[Atom, Address] = {}
        self.monitors = NodeMonitors()
        self.carrier: Carrier | None = None
        self.runtime: Runtime | None = None
        self.routes: Routes | None = None
        self.spawner: Spawner | None = None
        self.rotation: Rotation | None = None
        self.listen_address: Address | None = None
        self.overlay: Overlay | None = None
        self.global_: Global | None = None
        self.maps: Maps | None = None
        self.registry: Registry | None = None
        self.paths = Paths(
            lambda name: node._routes.up(name),
            lambda: node.runtime,
            lambda name, address: way_to(name, address, options),
        )

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._data_dir.lock()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        from barrel_p2p.services.global_names import Global
        from barrel_p2p.services.maps import Maps
        from barrel_p2p.services.registry import Registry

        node, options = self._node, self._node.options
        codec, exact_codec = options.codec(), options.codec(exact_empty_str=True)
        if options.proto_dist == "inet_tcp":
            self.carrier = TcpCarrier(node.name, options, codec, exact_codec)
        else:
            self.carrier = QuicCarrier(node.name, options, self._data_dir, codec, exact_codec)
        self.carrier.addresses = self.addresses
        self.carrier.counts = counts = HandshakeCounts(node.telemetry)
        creation = await self.carrier.prepare()
        self.runtime = runtime = Runtime(node.name, creation)
        self.routes = routes = Routes(node.name, options, exact_codec, self, counts.counted(self.carrier.dial))
        self.spawner = spawner = Spawner(runtime, codec, node.exports, routes.route, node.propagation)
        self._dispatch = Dispatch(runtime, spawner, node.propagation)
        runtime.remote = RemoteSignals(routes.route, runtime.pid, spawner, node.propagation)
        runtime.far_resolver = self._far_names
        output = options.on_output or to_stdout
        runtime.user = runtime.spawn(serve, (output,), name="user", max_mailbox=MAX_WAITING).pid
        runtime.spawn(logger_proxy.serve, name="logger_proxy", max_mailbox=logger_proxy.MAX_WAITING, when_full="drop")
        await NetKernel.start(name="net_kernel", node=node)
        await Rex.start(runtime, spawner.guests, node.exports, name="rex", node=node)
        if options.proto_dist == "barrel_p2p":
            await PathServer.start(self.paths, name=PATHS, node=node)
        self.global_ = await Global.start(node)
        self.rotation = Rotation(self.carrier, routes, runtime, self._dispatch)
        runtime.kernel = dict.fromkeys(process.pid for process in runtime.processes.values())
        # the first peer can come from now on
        self.listen_address = await self.carrier.start(creation, routes, self._make_channel)
        self.overlay = Overlay(
            options,
            routes,
            runtime,
            self._dispatch,
            exact_codec,
            address=self.listen_address,
            contacts=self._contacts,
            learn_address=self.addresses.__setitem__,
            telemetry=node.telemetry,
        )
        self.maps = Maps(node, self.overlay.replication, self._data_dir.maps)
        self.registry = Registry(node, self._dispatch, routes)
        self._readings = Readings(node.telemetry, runtime, routes, self.overlay, self.carrier)
        node.telemetry.start()
        keys = self.carrier.keys
        key = f"key {keys.fingerprint}" if keys is not None else "inet_tcp"
        log.info("%s listens on %s:%d, %s", node.name, *self.listen_address, key)

    async def stop(self) -> None:
        async with AsyncExitStack() as stack:  # each step is taken even if one before it fails or is cancelled
            stack.callback(self._data_dir.release)
            if self.carrier is not None:
                stack.push_async_callback(self.carrier.close)
            stack.callback(self._node.telemetry.stop)
            if self.runtime is not None and self.routes is not None:
                stack.push_async_callback(self.routes.close)
                if self.overlay is not None:
                    stack.callback(self.overlay.stop)
                    stack.push_async_callback(self.overlay.say_goodbye)
                if self.maps is not None:
                    stack.callback(self.maps.stop)
                if self.registry is not None:
                    stack.callback(self.registry.stop)
                stack.push_async_callback(self.runtime.stop)

    def _far_names(self, module: Atom, peer: Atom) -> Resolver:
        from barrel_p2p.services.far_names import FarNames

        return FarNames(self._node, module, peer)

    # --- what the connections report --------------------------------------------------------------------------------

    def _make_channel(
        self, name: Atom, connection: Connection, connected: Connected, public_key: bytes | None
    ) -> Channel:
        channel = Channel(
            name,
            connection,
            self._node._routes,
            flags=connected.flags,
            creation=connected.creation,
            public_key=public_key,
            high_water=self._node.options.send_high_water,
            hard_limit=self._node.options.send_hard_limit,
        )
        if isinstance(connection, QuicConnection):
            connection.on_stream = lambda stream, tag: self._node.streams.opened(channel, stream, tag)
        return channel

    def received(self, channel: Channel, batch: Batch) -> None:
        self._dispatch.received(channel, batch)

    def node_up(self, channel: Channel) -> None:
        node = self._node
        assert self.carrier is not None and self.rotation is not None
        if not self.carrier.tells_lost_links:
            Liveness(channel, node.runtime.pid, node.runtime.reference, node.options.net_ticktime_ms)
        self.rotation.node_up(channel)
        self._readings.node_up(channel)
        node.overlay.node_up(channel)
        node.global_.node_up(channel)
        node.registry.node_up(channel.name)
        self.monitors.up(channel)

    def node_down(self, channel: Channel, why: str, reason: DownReason) -> None:
        node, name = self._node, channel.name
        assert self.rotation is not None
        log_connect.info("%s is down: %s", name, why, extra={"peer": name})
        self._readings.node_down(name)
        self._lost(name)
        self.rotation.node_down(name)
        node.global_.node_down(name)
        lost = reason in ("connection_closed", "net_tick_timeout") and not node.overlay.idle.closes(name)
        node.overlay.node_down(name)
        node.registry.node_down(name, lost=lost)
        self.monitors.down(channel, reason)

    def unreachable(self, name: Atom) -> None:
        self._lost(name)
        if self.overlay is not None:
            self.overlay.unreachable(name)
        if self.registry is not None:
            self.registry.unreachable(name)

    def _lost(self, name: Atom) -> None:
        self._node.spawner.node_lost(name)
        self._node.runtime.connection_lost(name)


__all__ = ["Parts"]
