"""``Node``: one node of a cluster, as its user sees it; what it is made of is in ``parts.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from barrel_p2p.disk.keys import NodeKeys
from barrel_p2p.errors import BarrelError, ConfigError
from barrel_p2p.net.discovery import checked_address
from barrel_p2p.node.exports import Exports
from barrel_p2p.node.gossip import Gossip
from barrel_p2p.node.instruments import MIGRATE
from barrel_p2p.node.node_monitors import How, NodeType
from barrel_p2p.node.options import Address, Options
from barrel_p2p.node.overlay import Overlay
from barrel_p2p.node.parts import Parts
from barrel_p2p.node.paths import PathStats
from barrel_p2p.node.peer_info import PeerInfo
from barrel_p2p.node.propagation import Propagation
from barrel_p2p.node.rotation import Rotation
from barrel_p2p.node.routes import Routes
from barrel_p2p.node.spawner import Spawner
from barrel_p2p.node.statistics import OverlayStatistics, PeerStatistics, Statistics
from barrel_p2p.node.telemetry import Telemetry
from barrel_p2p.process.call import call
from barrel_p2p.process.current import current_process
from barrel_p2p.process.runtime import Block, Runtime
from barrel_p2p.proto.names import validate_node_name
from barrel_p2p.proto.replicated import Replicated
from barrel_p2p.term.types import Atom

if TYPE_CHECKING:
    from barrel_p2p.services.global_names import Global
    from barrel_p2p.services.maps import Maps
    from barrel_p2p.services.registry import Registry
    from barrel_p2p.services.replicate import Replica
    from barrel_p2p.services.streams import Streams

Part = TypeVar("Part")


class Node:
    """A node: a name, a key, a port, and the processes that live on it.

    ::

        async with Node("alice@127.0.0.1", cookie="secret") as node:
            await node.connect("bob@127.0.0.1")

    The block is itself a process: it can ``receive``, ``link``, ``monitor`` and has a pid. When it ends the node
    stops, and all its processes end with reason ``shutdown``.

    Args:
        name: ``name@host``. The host is where other nodes find this one: an IP address or a host name.
        options: Every field of ``node.options.Options`` as a keyword: ``listen_port``, ``data_dir``, ``cookie``, ...

    Raises:
        ConfigError: The name or an option can't be used; says which and what to do.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name: Atom = validate_node_name(name)
        self.options = Options.of(options)
        self.exports = Exports()
        self.telemetry = Telemetry()
        self.propagation = Propagation()
        self._parts = Parts(self)
        self._block: Block | None = None
        self._streams: Streams | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Node:
        await self.start()
        self._block = self.runtime.block()
        self._block.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._block is not None:
                self._block.__exit__(kind, error, trace)
        finally:
            self._block = None
            await self.stop()

    async def start(self) -> None:
        """Load keys, bind the port, publish it. ``async with`` does this; call it only if you can't use a block."""
        await self._parts.start()

    async def stop(self) -> None:
        """End all processes, close all connections, release the port. Idempotent."""
        await self._parts.stop()

    @property
    def listen_address(self) -> Address:
        """Where this node listens, ``(host, port)``."""
        return self._made(self._parts.listen_address)

    @property
    def runtime(self) -> Runtime:
        """The process layer of this node (internal to the library)."""
        return self._made(self._parts.runtime)

    @property
    def overlay(self) -> Overlay:
        """The parts of the overlay (internal to the library)."""
        return self._made(self._parts.overlay)

    @property
    def spawner(self) -> Spawner:
        """Spawns on other nodes (internal to the library)."""
        return self._made(self._parts.spawner)

    @property
    def keys(self) -> NodeKeys:
        """This node's key, and the pins of its peers. Over ``inet_tcp`` there are none: AttributeError."""
        carrier = self._parts.carrier
        if carrier is None or carrier.keys is None:
            raise AttributeError(f"{self.name} has no keys: it does not run, or its carrier is inet_tcp")
        return carrier.keys

    async def rotate_identity(self) -> None:
        """Change this node's Ed25519 key, now. The old pair goes to ``keys/backups/``; channels stay up.

        ::

            await node.rotate_identity()

        The old key endorses the new one. Nodes of this library that pinned the old key check that and move their pin:
        connected ones at once, others when they meet this node again, also after several changes. Erlang nodes refuse
        the new key (``key_mismatch``) until their pin is removed. After a theft of the old key, ``unpin`` and
        ``pin`` on the peers instead: the thief can endorse keys as well.

        Raises:
            ConfigError: The disk refused, and the old key stays; or the carrier is ``inet_tcp``, which has no keys.
        """
        self._rotation.rotate_identity()

    async def rotate_cert(self) -> None:
        """Change this node's TLS certificate, now: connections to come use it, live ones stay. Nobody pins it.

        Raises:
            ConfigError: The disk refused, or the carrier is ``inet_tcp``, which has no certificate.
        """
        self._rotation.rotate_certificate()

    @property
    def global_(self) -> Global:
        """Names that all connected nodes share: ``register_name``, ``whereis_name``, ..."""
        return self._made(self._parts.global_)

    @property
    def registry(self) -> Registry:
        """Services by name, found from every node of the overlay: ``register``, ``lookup``, ``whereis``, ..."""
        return self._made(self._parts.registry)

    # --- connections ------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Atom]:
        """The nodes this one has a channel to."""
        return list(self._routes.channels)

    async def connect(self, name: str, address: Address | None = None) -> None:
        """Connect to a node, unless it is connected already.

        ::

            await node.connect("bob@127.0.0.1")
            await node.connect("bob@bobs.house", ("10.0.0.2", 9100))

        It is seldom needed: a send, a link or a call connects by itself. This one says why it fails.

        Args:
            name: The node's name.
            address: Where it listens, ``(host, port)``; default: static ``peers``, the discovery directory, DNS.

        Raises:
            AuthError: The peer is not who it should be, or does not accept us; ``reason`` says why.
            HandshakeError: Wrong cookie, missing capability, or the name is taken.
            NotConnected: The node was not found or does not answer.
            ConfigError: ``name`` or ``address`` can't be used.
        """
        peer = validate_node_name(name)
        if peer == self.name:
            return
        if address is not None:
            self._parts.addresses[peer] = checked_address(peer, address)
        await self._routes.connect(peer)

    def disconnect(self, name: str) -> bool:
        """Close the channel to a node: its links and monitors fire with ``noconnection``. False if there was none.

        ::

            node.disconnect("bob@127.0.0.1")   # the next message to it connects again
        """
        return self._routes.disconnect(Atom(name))

    async def ping(self, name: str, timeout: float = 7.0) -> bool:
        """Whether a node answers, connecting to it first if need be (``net_adm:ping``)."""
        peer = validate_node_name(name)
        if peer == self.name:
            return True
        try:
            answer = await call((Atom("net_kernel"), peer), (Atom("is_auth"), self.name), timeout=timeout, node=self)
        except (BarrelError, OSError):
            return False
        return bool(answer == "yes")

    def monitor_nodes(
        self, on: bool = True, *, node_type: NodeType | None = None, nodedown_reason: bool = False
    ) -> None:
        """The current process gets ``("nodeup", node)`` and ``("nodedown", node)`` from now on, or no longer.

        ::

            node.monitor_nodes(node_type="all", nodedown_reason=True)
            await receive()   # ("nodedown", "bob@127.0.0.1", {"node_type": "visible", "nodedown_reason": "disconnect"})

        With an option it is ``("nodeup", node, info)``, and ``info`` holds what was asked for. Each set of options is a
        subscription of its own, and ends by the same options with ``on=False``.

        Args:
            on: False ends the subscription.
            node_type: Tell of ``visible`` nodes, of ``hidden`` ones, or of ``all``, and which of both a node is.
                Without it all are told of; OTP leaves hidden ones out.
            nodedown_reason: Tell OTP's word for why: ``connection_closed``, ``disconnect`` (by this node),
                ``net_tick_timeout`` or ``shutdown``.

        Raises:
            ConfigError: There is no such ``node_type``.
        """
        how = How(node_type, nodedown_reason)
        if on:
            self._parts.monitors.add(current_process(), how)
        else:
            self._parts.monitors.remove(current_process(), how)

    def peer_info(self, name: str) -> PeerInfo | None:
        """What is known about a connected node: address, key, clock, flags. None if it is not connected."""
        channel = self._routes.up(Atom(name))
        return None if channel is None else PeerInfo.of(channel)

    def statistics(self) -> Statistics:
        """Counts of this moment, as plain data."""
        return Statistics(
            processes=len(self.runtime.processes),
            peers={name: PeerStatistics.of(channel) for name, channel in self._routes.channels.items()},
            overlay=self.overlay.statistics(),
            metrics=self.telemetry.metrics(),
        )

    # --- the overlay ------------------------------------------------------------------------------------------------

    async def join(self, seed: str, address: Address | None = None) -> None:
        """Join the overlay of a cluster through one of its nodes.

        ::

            await node.join("seed@10.0.0.1")

        The node gets a few neighbours, its active view, and is reachable from everywhere at once. With the option
        ``contact_nodes`` it joins by itself, and again whenever it has lost all neighbours.

        Args:
            seed: Any member.
            address: Where it listens, as in ``connect``.

        Raises:
            AuthError, HandshakeError, NotConnected: As ``connect`` does; or the seed did not take this node in.
            ConfigError: ``seed`` is this node itself.
        """
        peer = validate_node_name(seed)
        if peer == self.name:
            raise ConfigError(f"{self.name} can't join through itself: name another member")
        await self.connect(peer, address)
        await self.overlay.membership.join(peer)

    async def leave(self) -> None:
        """Leave the overlay: the neighbours know at once. Channels stay for as long as somebody uses them, and ``join``
        brings the node back."""
        self.overlay.membership.leave()

    def active_view(self) -> list[Atom]:
        """This node's neighbours in the overlay."""
        return self.overlay.membership.active

    def passive_view(self) -> list[Atom]:
        """Members that may take the place of a neighbour."""
        return self.overlay.membership.passive

    def subscribe(self, on: bool = True) -> None:
        """The current process gets membership events from now on, or no longer.

        They are ``(barrel_p2p_event, What)``: ``(peer_up, node)``, ``(peer_down, node, reason)`` with reason
        ``graceful``, ``dropped`` or ``nodedown``, and ``left`` when this node left.
        """
        if on:
            self.overlay.membership.subscribers.add(current_process())
        else:
            self.overlay.membership.subscribers.remove(current_process())

    @property
    def gossip(self) -> Gossip:
        """Broadcasts to all nodes of the overlay: ``broadcast``, ``subscribe``."""
        return self.overlay.gossip

    # --- streams and paths ------------------------------------------------------------------------------------------

    @property
    def streams(self) -> Streams:
        """Tagged byte streams to other nodes: ``register_acceptor``, ``open``. Over QUIC only."""
        if self._streams is None:
            from barrel_p2p.services.streams import Streams

            self._streams = Streams(self, lambda name: self._routes.connect(name), lambda: self._routes.channels)
        return self._streams

    async def migrate_peer(self, name: str, timeout: float = 5.0) -> None:
        """Move the connection to a peer to a new local socket, and wait until the new path is proven.

        ::

            await node.migrate_peer("bob@127.0.0.1")   # the address of this host has changed, say

        Messages, links, monitors and streams ride through; other connections stay where they are. Asks ``on_address``
        again where to send. If the peer made the connection it is asked to move it.

        Raises:
            NotConnected: There is no connection to the peer, or it was lost meanwhile.
            MigrationTimeout: Nothing came on the new path within ``timeout`` seconds; the old one is in use again.
            MigrationDisabled: The peer does not let connections move.
            NotDialer: The peer made the connection and is no node of this library that could be asked.
            MigrationError: This host has no way to the peer, or no socket to spare.
            NotSupported: The carrier is ``inet_tcp``.
        """
        peer = validate_node_name(name)
        outcome = "fail"
        try:
            await self._parts.paths.migrate(peer, timeout)
            outcome = "ok"
        finally:
            self.telemetry.count(MIGRATE, peer, outcome)

    def path_stats(self, name: str) -> PathStats:
        """Round trips, losses, addresses, migrations of the path to a connected peer. Raises NotConnected."""
        return self._parts.paths.stats(validate_node_name(name))

    @property
    def maps(self) -> Maps:
        """Replicated maps: ``open``, ``close``, ``delete``, ``names``."""
        return self._made(self._parts.maps)

    def replicate(
        self,
        name: str,
        state: Replicated,
        *,
        notify: Callable[[Sequence[Any]], object] | None = None,
        anti_entropy_ms: int = 30_000,
    ) -> Replica:
        """Replicate a data type of one's own with the replicas of that name on other nodes.

        ::

            visits = node.replicate("visits", Counter(node.name))
            visits.write(1)

        ``docs/how-to/own-crdt.md`` builds a counter.

        Args:
            name: At most 236 characters; an atom on the wire.
            state: What merges. It is called by the node from now on, never at the same time.
            notify: Gets the list of changes of each write and merge, soon after it.
            anti_entropy_ms: Time between two comparisons with some neighbour, give or take a quarter; 0: never.

        Raises:
            ConfigError: The name can't be used, or is in use on this node.
        """
        from barrel_p2p.services.replicate import Replica

        codec = self.options.codec(exact_empty_str=True)
        return Replica(self.overlay.replication, codec, name, state, notify, anti_entropy_ms)

    # --- remote calls -----------------------------------------------------------------------------------------------

    def export(
        self, what: ModuleType | Callable[..., Any], *, module: str | None = None, name: str | None = None
    ) -> None:
        """Let other nodes call and spawn a function, or all public functions of a module. See ``Exports.add``."""
        self.exports.add(what, module=module, name=name)

    async def rpc(
        self, node: str, module: str, function: str, args: list[Any] | tuple[Any, ...] = (), timeout: float | None = 5.0
    ) -> Any:
        """Run ``module:function(*args)`` on a node and return its result (``erpc:call``).

        ::

            await node.rpc("bob@127.0.0.1", "math", "sqrt", [2.0])   # bob said: node.export(math)

        Raises:
            RemoteError: The function raised, exited or is not exported there (``undef``).
            NodeDown: The node can't be reached, or was lost during the call.
            CallTimeout: No result within ``timeout`` seconds.
            TypeError: ``args`` is no list or tuple.
        """
        from barrel_p2p.services.rpc import rpc

        if not isinstance(args, (list, tuple)):
            raise TypeError(f"args must be a list or tuple of the arguments, not {args!r}: [{args!r}] for one")

        return await rpc(self, validate_node_name(node), module, function, list(args), timeout)

    @property
    def _routes(self) -> Routes:
        return self._made(self._parts.routes)

    @property
    def _rotation(self) -> Rotation:
        return self._made(self._parts.rotation)

    def _made(self, part: Part | None) -> Part:
        if part is None:
            raise ConfigError(f"{self.name} is not running: use `async with Node(...)`, or await node.start()")
        return part

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


__all__ = ["Node", "OverlayStatistics", "PathStats", "PeerInfo", "PeerStatistics", "Statistics"]
