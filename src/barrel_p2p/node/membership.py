"""The membership of a node: runs ``proto.hyparview`` over its channels.

The machine decides whom to be connected to. This file tells it which channels there are and what came on them, performs
what it orders, and tells subscribers, those who wait for a join, and the broadcast (``gossip.py``) what became of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from barrel_p2p.errors import BarrelError, NotConnected
from barrel_p2p.net.contacts import Contacts
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.driver import Driver
from barrel_p2p.node.idle import IdleChannels
from barrel_p2p.node.instruments import JOINED, LEFT, PEER_DOWN, PEER_UP, PENDING_TIMEOUT, SHUFFLE
from barrel_p2p.node.options import Options
from barrel_p2p.node.routes import Routes
from barrel_p2p.node.telemetry import Telemetry
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.process.subscribers import Subscribers
from barrel_p2p.proto import hyparview_events as event
from barrel_p2p.proto.flags import Flags
from barrel_p2p.proto.hyparview import HyParView
from barrel_p2p.proto.hyparview_config import HyParViewConfig
from barrel_p2p.proto.hyparview_wire import PROCESS, HyParViewWire
from barrel_p2p.shown import Shown
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.membership")

EVENT = Atom("barrel_p2p_event")
#: Settings that users can give as options of the node, of the same name.
MEMBERSHIP_OPTIONS = tuple(item.name for item in fields(HyParViewConfig) if item.name in Options.__dataclass_fields__)


class Membership(Driver):
    """Who this node's neighbours are.

    Args:
        address: where this node listens, told in its messages.
        contacts: nodes to join through while there is no neighbour.
        learn_address: takes down where a contact listens, when a look-up told that as well.
        tell_broadcast: gets each event of the machine, and the loss of each channel, in order.
        rng: all randomness of the machine.
    """

    def __init__(
        self,
        name: Atom,
        config: HyParViewConfig,
        routes: Routes,
        runtime: Runtime,
        idle: IdleChannels,
        *,
        address: tuple[str, int],
        contacts: Contacts,
        learn_address: Callable[[Atom, tuple[str, int]], None],
        tell_broadcast: Callable[[event.Event | event.PeerLost], None],
        tcp: bool,
        telemetry: Telemetry,
        rng: random.Random | None = None,
    ) -> None:
        self._machine = HyParView(name, config, rng=rng or random.SystemRandom())
        super().__init__(self._machine, routes, runtime, PROCESS)
        self._name = name
        self._idle = idle
        self._contacts = contacts
        self._learn_address = learn_address
        self._tell_broadcast = tell_broadcast
        self._tcp = tcp
        self._telemetry = telemetry
        self._alone = True
        self._wire = HyParViewWire(name, address)
        self._strangers: dict[Atom, None] = {}  # stock Erlang nodes over TCP, which most likely have no membership
        self._joins: dict[asyncio.Future[None], Atom] = {}
        self._look_up: asyncio.Task[None] | None = None
        self.subscribers = Subscribers()

    def start(self) -> None:
        """From now on the views are looked after."""
        self.tell(event.Started())

    def stop(self) -> None:
        super().stop()
        if self._look_up is not None:
            self._look_up.cancel()
        self._settle(NotConnected(f"{self._name} stops"))

    # --- for users --------------------------------------------------------------------------------------------------

    @property
    def active(self) -> list[Atom]:
        return [Atom(peer) for peer in self._machine.active]

    @property
    def passive(self) -> list[Atom]:
        return [Atom(peer) for peer in self._machine.passive]

    @property
    def dropped(self) -> dict[str, int]:
        """How many messages of peers were dropped, by reason."""
        return dict(self._wire.dropped)

    def needs(self, peer: Atom) -> bool:
        """Whether the membership uses the channel to ``peer``."""
        return self._machine.needs(peer)

    async def join(self, seed: Atom) -> None:
        """Join the overlay through a connected node. Raises NotConnected when it takes us in no way."""
        if seed in self._strangers:
            del self._strangers[seed]
            self.tell(event.PeerConnected(seed, "erlang"))
        if seed in self._machine.active:
            return
        joined: asyncio.Future[None] = self._loop.create_future()
        self._joins[joined] = seed
        try:
            self.tell(event.JoinRequested(seed))
            await joined
        finally:
            self._joins.pop(joined, None)

    def leave(self) -> None:
        """Tell the neighbours, and have none from now on."""
        self.tell(event.LeaveRequested())
        self._settle(NotConnected(f"{self._name} leaves"))

    # --- what the node reports --------------------------------------------------------------------------------------

    def node_up(self, channel: Channel) -> None:
        if channel.flags & Flags.PYTHON:
            self.tell(event.PeerConnected(channel.name, "python"))
        elif self._tcp:
            self._strangers[channel.name] = None
        else:
            self.tell(event.PeerConnected(channel.name, "erlang"))

    def node_down(self, peer: Atom) -> None:
        if self._strangers.pop(peer, self) is self:  # it was none
            self._tell_broadcast(event.PeerLost(peer))
            self.tell(event.PeerLost(peer))

    def unreachable(self, peer: Atom) -> None:
        """No channel could be made."""
        self.tell(event.ConnectFailed(peer))

    def received(self, channel: Channel, term: Any) -> None:
        """What came for ``barrel_p2p_bridge``."""
        peer = channel.name
        message = self._wire.decode(term, peer)
        if message is None:
            log.debug("a malformed message of %s was dropped: %s", peer, Shown(term), extra={"peer": peer})
            return
        if peer in self._strangers:  # it has a membership after all
            del self._strangers[peer]
            self.tell(event.PeerConnected(peer, "erlang"))
        self.tell(event.MessageReceived(peer, message))

    # --- the machine ------------------------------------------------------------------------------------------------

    def _perform(self, order: event.Order) -> None:
        match order:
            case event.Send(peer, message):
                if isinstance(message, event.Shuffle) and message.peers[:1] == (self._name,):  # no other's, passed on
                    self._telemetry.count(SHUFFLE, peer)
                self._send(peer, self._wire.encode(message))
            case event.Notify(what):
                self._tell_broadcast(what)
                self._notify(what)
            case event.Connect(peer):
                if self._routes.route(Atom(peer)) is None:
                    self.tell(event.ConnectFailed(peer))
            case event.Release(peer, close):
                if close:
                    self._routes.disconnect(Atom(peer))
                else:
                    self._idle.release(Atom(peer))
            case event.StartTimer(timer, at):
                self._start_timer(timer, at)
            case event.StopTimer(timer):
                self._stop_timer(timer)

    def _notify(self, what: event.Event) -> None:
        match what:
            case event.PeerUp(peer):
                self._telemetry.count(PEER_UP, peer)
                if self._alone:
                    self._alone = False
                    self._telemetry.count(JOINED)
                log.info("%s is a neighbour", peer, extra={"peer": peer})
                self._idle.start()
                self._settle(None)
                self._publish((Atom("peer_up"), Atom(peer)))
            case event.PeerDown(peer, reason):
                self._telemetry.count(PEER_DOWN, peer, reason)
                self._alone = not self._machine.active
                log.info("%s is no neighbour any more: %s", peer, reason, extra={"peer": peer, "reason": reason})
                self._publish((Atom("peer_down"), Atom(peer), Atom(reason)))
            case event.JoinFailed(peer, why):
                if self._machine.active:
                    self._settle(None)
                else:
                    log.warning("could not join through %s", why, extra={"peer": peer})
                    self._settle(NotConnected(f"could not join through {why}"), Atom(peer))
            case event.Left():
                self._telemetry.count(LEFT)
                self._alone = True
                log.info("%s has left the overlay", self._name)
                self._publish(Atom("left"))

    def _publish(self, what: Any) -> None:
        self.subscribers.tell((EVENT, what))

    def _settle(self, error: BarrelError | None, seed: Atom | None = None) -> None:
        """End the waits for a join: all of them, or those through ``seed``."""
        for joined, through in list(self._joins.items()):
            if (seed is None or through == seed) and not joined.done():
                if error is None:
                    joined.set_result(None)
                else:
                    joined.set_exception(error)

    def _timer_fired(self, timer: event.Timer) -> None:
        if timer == "contact":
            self._look_up = self._loop.create_task(self._find_contacts())
        else:
            if timer == "pending":
                for peer in self._machine.overdue(self._loop.time()):
                    self._telemetry.count(PENDING_TIMEOUT, peer)
            self.tell(event.TimerFired(timer))

    async def _find_contacts(self) -> None:
        """Look the contacts up anew, then let the machine choose one."""
        try:
            contacts = await self._contacts.find()
            for contact in contacts:
                if contact.address is not None and contact.name != self._name:
                    self._learn_address(contact.name, contact.address)
            self.tell(event.ContactsFound(tuple(contact.name for contact in contacts)))
        finally:
            self.tell(event.TimerFired("contact"))


__all__ = ["EVENT", "Membership"]
