"""The overlay of a node: membership, broadcast, replicated states, and the closing of channels that nobody needs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from barrel_p2p.net.contacts import Contacts
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.dispatch import Dispatch
from barrel_p2p.node.gossip import Gossip
from barrel_p2p.node.idle import NAME as IDLE_CHANNELS
from barrel_p2p.node.idle import IdleChannels
from barrel_p2p.node.lives import Lives
from barrel_p2p.node.membership import MEMBERSHIP_OPTIONS, Membership
from barrel_p2p.node.options import Address, Options
from barrel_p2p.node.replication import Replication
from barrel_p2p.node.routes import Routes
from barrel_p2p.node.statistics import OverlayStatistics
from barrel_p2p.node.telemetry import Telemetry
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto import hyparview_wire, plumtree_wire
from barrel_p2p.proto.hyparview_config import HyParViewConfig
from barrel_p2p.proto.hyparview_events import Event, PeerLost, TrafficSeen
from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom

GOODBYE_SECONDS: Final = 0.01  # between two looks whether all has left; a guess: many round trips in one place
GOODBYE_LOOKS: Final = 20


class Overlay:
    """Made when the node listens; ``learn_address`` takes down where a contact listens."""

    def __init__(
        self,
        options: Options,
        routes: Routes,
        runtime: Runtime,
        dispatch: Dispatch,
        codec: Codec,
        *,
        address: Address,
        contacts: Contacts,
        learn_address: Callable[[Atom, Address], None],
        telemetry: Telemetry,
    ) -> None:
        self._routes = routes
        self.idle = IdleChannels(
            routes,
            runtime,
            self._needed,
            sweep_ms=options.dist_gc_sweep_period_ms,
            min_age_ms=options.dist_gc_min_age_ms,
            telemetry=telemetry,
        )
        self.gossip = Gossip(
            runtime.name,
            PlumtreeConfig(),
            routes,
            runtime,
            codec,
            lambda peer: self.membership.tell(TrafficSeen(peer)),
            telemetry,
        )
        self.replication = Replication(routes, runtime, dispatch, self.gossip)
        self.lives = Lives(runtime, routes, dispatch, self.replication, lease_ms=options.lease_ms)
        #: Messages for services that were refused, by reason; the services count.
        self.refused: Counter[str] = Counter()
        self.membership = Membership(
            runtime.name,
            HyParViewConfig(**{name: getattr(options, name) for name in MEMBERSHIP_OPTIONS}),
            routes,
            runtime,
            self.idle,
            address=address,
            contacts=contacts,
            learn_address=learn_address,
            tell_broadcast=self._membership_changed,
            tcp=options.proto_dist == "inet_tcp",
            telemetry=telemetry,
        )
        dispatch.deliver_to(hyparview_wire.PROCESS, self.membership.received)
        dispatch.deliver_to(plumtree_wire.PROCESS, self.gossip.received)
        dispatch.deliver_to(IDLE_CHANNELS, self.idle.received)
        self.membership.start()

    async def say_goodbye(self) -> None:
        """Tell the others that this node stops, and give what is queued for the neighbours a moment to leave: a channel
        that is closed drops it."""
        if self.replication.connected:
            self.lives.say_goodbye()
            for _ in range(GOODBYE_LOOKS):
                await asyncio.sleep(GOODBYE_SECONDS)
                channels = [self._routes.up(peer) for peer in self.membership.active]
                if not any(channel is not None and channel.connection.queued for channel in channels):
                    break

    def stop(self) -> None:
        self.lives.stop()
        self.membership.stop()
        self.replication.stop()
        self.gossip.stop()
        self.idle.stop()

    def node_up(self, channel: Channel) -> None:
        self.membership.node_up(channel)

    def node_down(self, name: Atom) -> None:
        self.idle.node_down(name)
        self.membership.node_down(name)

    def unreachable(self, name: Atom) -> None:
        self.membership.unreachable(name)

    def statistics(self) -> OverlayStatistics:
        return OverlayStatistics(
            active=len(self.membership.active),
            passive=len(self.membership.passive),
            eager=len(self.gossip.eager),
            lazy=len(self.gossip.lazy),
            dropped=dict(Counter(self.membership.dropped) + Counter(self.gossip.dropped)),
            closed_idle=self.idle.closed,
            refused={**self.replication.refused, **self.refused},
        )

    def _membership_changed(self, what: Event | PeerLost) -> None:
        self.gossip.tell(what)
        if not isinstance(what, PeerLost):
            self.replication.membership_changed(what)
            self.lives.membership_changed(what)

    def _needed(self, peer: Atom) -> bool:
        return self.membership.needs(peer)


__all__ = ["Overlay"]
