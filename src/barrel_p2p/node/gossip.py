"""Broadcasts to every node of the overlay: runs ``proto.plumtree`` over the channels to the neighbours."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from barrel_p2p.node.channel import Channel
from barrel_p2p.node.driver import Driver
from barrel_p2p.node.instruments import GOSSIP_RECEIVED, GOSSIP_SENT, GRAFT_SENT, IHAVE_SENT, PRUNE_SENT
from barrel_p2p.node.routes import Routes
from barrel_p2p.node.telemetry import Telemetry
from barrel_p2p.process.current import current_process
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.process.subscribers import Subscribers
from barrel_p2p.proto import plumtree_events as event
from barrel_p2p.proto.plumtree import Plumtree, new_id
from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.proto.plumtree_wire import PROCESS, PlumtreeWire, weigh
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom

BROADCAST = Atom("plumtree_broadcast")
Handler = Callable[[Any, str | None], None]


class Gossip(Driver):
    """``node.gossip``: what one node broadcasts reaches every node of the overlay once.

    ::

        node.gossip.subscribe("prices")
        node.gossip.broadcast("prices", {"apple": 3})   # on any node
        await receive()                                  # (plumtree_broadcast, (prices, {b"apple": 3})), here as well

    For state that nodes share take a replicated map instead: a node that was away gets no broadcast again.
    """

    def __init__(
        self,
        name: Atom,
        config: PlumtreeConfig,
        routes: Routes,
        runtime: Runtime,
        codec: Codec,
        hint: Callable[[str], None],
        telemetry: Telemetry,
        rng: random.Random | None = None,
    ) -> None:
        self._machine = Plumtree(name, config)
        super().__init__(self._machine, routes, runtime, PROCESS)
        self._codec = codec
        self._hint = hint
        self._telemetry = telemetry
        self._rng = rng or random.SystemRandom()
        self._wire = PlumtreeWire(name)
        self._handlers: dict[str, Handler] = {}
        self._subscribers: dict[str, Subscribers] = {}

    # --- for users --------------------------------------------------------------------------------------------------

    def broadcast(self, tag: str, payload: Any) -> None:
        """Send ``payload`` to all who subscribed to ``tag``, on every node of the overlay, this one included.

        It never blocks. Delivery is as good as the overlay is connected: a node that is cut off for longer than half a
        minute misses what was said meanwhile. There is no order between two broadcasts.

        Args:
            tag: Whom it is for; an atom on the wire. Names of the library begin with ``barrel_p2p``.
            payload: Any term. All nodes see it, whether or not anybody subscribed there.

        Raises:
            EncodeError: The payload has no form as a term; nothing was sent.
        """
        data = self._codec.encode(payload)  # what is kept to be sent again must not change with the caller's value
        self.tell(event.BroadcastRequested(new_id(self._rng), Atom(tag), self._codec.decode(data), len(data)))

    def subscribe(self, tag: str) -> None:
        """The current process gets ``(plumtree_broadcast, (tag, payload))`` for each broadcast from now on."""
        self._subscribers.setdefault(Atom(tag), Subscribers()).add(current_process())

    def unsubscribe(self, tag: str) -> None:
        """The current process gets them no longer."""
        if tag in self._subscribers:
            self._subscribers[tag].remove(current_process())

    @property
    def eager(self) -> list[Atom]:
        """Neighbours that get broadcasts in full: branches of the tree."""
        return [Atom(peer) for peer in self._machine.eager]

    @property
    def lazy(self) -> list[Atom]:
        """Neighbours that are told the ids only."""
        return [Atom(peer) for peer in self._machine.lazy]

    @property
    def missing(self) -> int:
        """Broadcasts that were announced and have not come."""
        return self._machine.missing

    @property
    def dropped(self) -> dict[str, int]:
        """How many messages of peers were dropped, by reason."""
        return dict(self._wire.dropped)

    # --- for the services -------------------------------------------------------------------------------------------

    def publish(self, tag: str, payload: Any) -> None:
        """Broadcast a term that nobody changes any more."""
        self.tell(event.BroadcastRequested(new_id(self._rng), tag, payload, weigh(payload)))

    def handle(self, tag: str, handler: Handler | None) -> None:
        """Give broadcasts of a tag to ``handler(payload, peer)``; ``peer`` passed it on, None: this node made it."""
        if handler is None:
            self._handlers.pop(tag, None)
        else:
            self._handlers[tag] = handler

    # --- what the node reports --------------------------------------------------------------------------------------

    def received(self, channel: Channel, term: Any) -> None:
        """What came for ``barrel_p2p_plumtree``."""
        message = self._wire.decode(term, channel.name)
        if message is not None:
            if isinstance(message, event.Gossip):
                self._telemetry.count(GOSSIP_RECEIVED, channel.name)
            self.tell(event.MessageReceived(channel.name, message))

    def _perform(self, order: event.Order) -> None:
        match order:
            case event.Send(peer, message):
                self._send_message(Atom(peer), message)
            case event.Deliver(_, tag, payload, peer):
                self._deliver(tag, payload, peer)
            case event.Hint(peer):
                self._hint(peer)
            case event.StartTimer(timer, at):
                self._start_timer(timer, at)

    def _send_message(self, peer: Atom, message: event.Message) -> None:
        if isinstance(message, event.Gossip):
            channel = self._routes.up(peer)
            if channel is not None and channel.gate.closed:  # it will ask for it when it has caught up
                message = event.IHave(message.id)
        match message:
            case event.Gossip():
                self._telemetry.count(GOSSIP_SENT)
            case event.IHave():
                self._telemetry.count(IHAVE_SENT)
            case event.Graft():
                self._telemetry.count(GRAFT_SENT, peer)
            case event.Prune():
                self._telemetry.count(PRUNE_SENT, peer)
        self._send(peer, self._wire.encode(message))

    def _deliver(self, tag: str, payload: Any, peer: str | None) -> None:
        handler = self._handlers.get(tag)
        if handler is not None:
            handler(payload, peer)
        subscribers = self._subscribers.get(tag)
        if subscribers is not None:
            subscribers.tell((BROADCAST, (Atom(tag), payload)))

    def _timer_fired(self, timer: event.Timer) -> None:
        self.tell(event.TimerFired(timer))


__all__ = ["BROADCAST", "Gossip"]
