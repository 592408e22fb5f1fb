"""Runs the members of a simulated cluster: what happens goes to their machines, what those order is performed.

This is the driver of a real node in small, so it has no opinion; it counts, and tells its ``Ledger`` of the broadcasts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any

from barrel_p2p.proto import hyparview_events as membership
from barrel_p2p.proto import plumtree_events as broadcast
from barrel_p2p.proto.hyparview import HyParView
from barrel_p2p.proto.hyparview_wire import HyParViewWire
from barrel_p2p.proto.plumtree import Plumtree, new_id
from barrel_p2p.proto.plumtree_wire import PlumtreeWire
from barrel_p2p.term.types import Atom
from barrel_p2p.testing.broadcasts import Entry, Ledger
from barrel_p2p.testing.clock import Clock
from barrel_p2p.testing.member import End, Member
from barrel_p2p.testing.network import SimulatedNetwork
from barrel_p2p.testing.scenario import Scenario

JOIN_AGAIN_MS = 1000  # after a join failed
JOINING_MS = 10_000  # who is alone so soon, and after as long again, lost its contact before it knew anybody else

MakeMember = Callable[[str, int, Random], Member]


class Cluster:
    """The nodes of one simulation.

    Args:
        scenario: how they are set up.
        seed: of all randomness.
        make: makes a member, for tests that mix in nodes of another kind.
    """

    def __init__(self, scenario: Scenario, seed: int, make: MakeMember | None = None) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.rng = Random(seed)
        self.members: dict[str, Member] = {}  # the latest member of each name
        self.network = SimulatedNetwork(
            scenario.network,
            self.clock,
            self.rng,
            self.members,
            connected=self._connected,
            failed=self._connect_failed,
            lost=self._lost,
        )
        self.ledger = Ledger(self.clock)
        self.sent: dict[type, int] = {}  # messages by kind
        self.made = 0  # members so far
        self.sides: dict[str, int] = {}  # of a partition, by name
        self.disturbed_ms = 0  # when something went wrong last, or somebody came or went
        self._config = scenario.membership
        if scenario.join.configured:
            contacts = tuple(f"n{number}@sim" for number in range(min(scenario.join.contacts, scenario.nodes)))
            self._config = dataclasses.replace(scenario.membership, contact_nodes=contacts)
        self._make = make or self._make_python
        self._performers: dict[type, Callable[[Member, Any], None]] = {
            membership.Send: self._send,
            membership.Notify: self._notify,
            membership.StartTimer: self._start_timer,
            membership.StopTimer: self._stop_timer,
            membership.Connect: self._connect,
            membership.Release: self._release,
            broadcast.Send: self._send_broadcast,
            broadcast.Deliver: self._deliver,
            broadcast.Hint: self._hint,
            broadcast.StartTimer: self._start_broadcast_timer,
        }

    # --- members come and go ------------------------------------------------------------------------------------------

    def start(self, name: str, contact: str | None = None) -> Member:
        """Start a node, which joins through ``contact``."""
        name = Atom(name)
        member = self.members[name] = self._make(name, self.made, self.rng)
        self.made += 1
        member.side = self.sides.get(name, 0)
        clocks = self.scenario.clocks
        if clocks.offset or clocks.drift_ppm:
            member.offset = (self.rng.random() * 2 - 1) * clocks.offset
            member.rate = 1 + (self.rng.random() * 2 - 1) * clocks.drift_ppm / 1e6
        if self.scenario.wire:
            member.hyparview_wire = member.hyparview_wire or HyParViewWire(name)
            member.plumtree_wire = member.plumtree_wire or PlumtreeWire(name)
        else:
            member.hyparview_wire = member.plumtree_wire = None
        self.tell(member, membership.Started())
        if contact is not None and not self.scenario.join.configured:
            self.tell(member, membership.JoinRequested(contact))
        self.disturbed_ms = self.clock.ms
        return member

    def _make_python(self, name: str, number: int, rng: Random) -> Member:
        scenario = self.scenario
        return Member(name, number, HyParView(name, self._config, rng=rng), Plumtree(name, scenario.broadcast))

    def crash(self, member: Member) -> None:
        """``member`` dies without a word."""
        member.alive = False
        member.died_ms = self.disturbed_ms = self.clock.ms
        self.network.detach(member)

    def leave(self, member: Member) -> None:
        """``member`` leaves, and stops once its peers know."""
        self.tell(member, membership.LeaveRequested())
        self.disturbed_ms = self.clock.ms
        self.clock.at(self.clock.ms + 1000, self._stop, member)

    def _stop(self, member: Member, _: Any, __: Any) -> None:
        if member.alive:
            self.crash(member)

    def cut(self, sides: dict[str, int], *, one_way: bool) -> None:
        """Part the cluster: nothing gets from one side to the other, or only nothing from side 0 to side 1."""
        self.sides = sides
        for member in self.members.values():
            member.side = sides.get(member.name, 0)
        self.network.cut((lambda a, b: a.side < b.side) if one_way else (lambda a, b: a.side != b.side))
        self.disturbed_ms = self.clock.ms

    def heal(self) -> None:
        """The partition is over."""
        self.sides = {}
        self.network.heal()
        self.disturbed_ms = self.clock.ms

    @property
    def contacts(self) -> tuple[str, ...]:
        """The ``contact_nodes`` of every node."""
        return self._config.contact_nodes

    @property
    def live(self) -> list[Member]:
        """The members that run, in the order of their names' first start."""
        return [member for member in self.members.values() if member.alive]

    @property
    def honest(self) -> list[Member]:
        """Those of them that are not malicious: whose promises are kept."""
        return [member for member in self.live if not member.malicious]

    # --- facts --------------------------------------------------------------------------------------------------------

    def tell(self, member: Member, fact: membership.Fact) -> None:
        """Tell a fact to the membership of a member."""
        now = self.clock.ms / 1000 * member.rate + member.offset
        self._perform(member, member.hyparview.handle(fact, now=now))

    def tell_broadcast(self, member: Member, fact: broadcast.Fact) -> None:
        """Tell a fact to the broadcast of a member."""
        now = self.clock.ms / 1000 * member.rate + member.offset
        self._perform(member, member.plumtree.handle(fact, now=now))

    def send_out(self, member: Member, label: str = "") -> Entry:
        """Let a member broadcast something."""
        quiet = self.clock.ms - self.disturbed_ms >= self.scenario.quiet * 1000
        entry = self.ledger.open(new_id(self.rng), label, self.made, quiet=quiet)
        self.tell_broadcast(member, broadcast.BroadcastRequested(entry.id, Atom("sim"), entry.number, 64))
        return entry

    def _perform(self, member: Member, orders: list[Any]) -> None:
        performers = self._performers
        for order in orders:
            performers[type(order)](member, order)

    def _arrived(self, end: End, message: Any, _: Any) -> None:
        if end.open:
            member = end.member
            if member.hyparview_wire is not None:
                message = member.hyparview_wire.decode(message, end.peer.name)
                if message is None:
                    return
            self.tell(member, membership.MessageReceived(end.peer.name, message))

    def _broadcast_arrived(self, end: End, message: Any, _: Any) -> None:
        if end.open:
            member = end.member
            if member.plumtree_wire is not None:
                message = member.plumtree_wire.decode(message, end.peer.name)
                if message is None:
                    return
            self.tell_broadcast(member, broadcast.MessageReceived(end.peer.name, message))

    def _connected(self, member: Member, peer: Member) -> None:
        self.tell(member, membership.PeerConnected(peer.name, peer.kind))

    def _connect_failed(self, member: Member, peer: str) -> None:
        self.tell(member, membership.ConnectFailed(peer))

    def _lost(self, member: Member, peer: str) -> None:
        self.tell(member, membership.PeerLost(peer))
        self.tell_broadcast(member, membership.PeerLost(peer))

    def _timer(self, member: Member, timer: Any, at_ms: int) -> None:
        if member.alive and member.timers.get(timer) == at_ms:
            del member.timers[timer]
            self.tell(member, membership.TimerFired(timer))

    def _broadcast_timer(self, member: Member, timer: Any, at_ms: int) -> None:
        if member.alive and member.timers.get(timer) == at_ms:
            del member.timers[timer]
            self.tell_broadcast(member, broadcast.TimerFired(timer))

    # --- orders -------------------------------------------------------------------------------------------------------

    def _send(self, member: Member, order: membership.Send) -> None:
        message: Any = order.message
        end = member.ends.get(order.peer)
        if end is not None:
            kind = type(message)
            self.sent[kind] = self.sent.get(kind, 0) + 1
            if member.hyparview_wire is not None:
                message = member.hyparview_wire.encode(message)
            self.network.send(end, message, self._arrived)

    def _send_broadcast(self, member: Member, order: broadcast.Send) -> None:
        message: Any = order.message
        end = member.ends.get(order.peer)
        if end is not None:
            kind = type(message)
            self.sent[kind] = self.sent.get(kind, 0) + 1
            if kind is broadcast.Gossip:
                self.ledger.count_payload(message.id)
            if member.plumtree_wire is not None:
                message = member.plumtree_wire.encode(message)
            self.network.send(end, message, self._broadcast_arrived)

    def _deliver(self, member: Member, order: broadcast.Deliver) -> None:
        end = member.ends.get(order.peer) if order.peer is not None else None
        self.ledger.delivered(order.id, member, end.peer if end is not None else None)

    def _hint(self, member: Member, order: broadcast.Hint) -> None:
        self.tell(member, membership.TrafficSeen(order.peer))

    def _notify(self, member: Member, order: membership.Notify) -> None:
        if type(order.event) is membership.PeerUp:
            if member.up_ms < 0:
                member.up_ms = self.clock.ms
        elif not self.scenario.join.configured:
            self._watch_join(member, order.event)
        self.tell_broadcast(member, order.event)

    def _watch_join(self, member: Member, event: membership.Event) -> None:
        if type(event) is membership.JoinFailed:
            self.clock.at(self.clock.ms + JOIN_AGAIN_MS, self._join_again, member, False)
            return
        joining = self.clock.ms - member.up_ms < JOINING_MS
        if joining and type(event) is membership.PeerDown and not member.hyparview.active:
            self.clock.at(self.clock.ms + JOINING_MS, self._join_again, member, True)

    def _join_again(self, member: Member, if_alone: bool, _: Any) -> None:
        """As a user would: through another node."""
        live = [other for other in self.live if other is not member]
        if member.alive and live and not (if_alone and member.hyparview.active):
            contact = live[int(self.rng.random() * len(live))]
            self.tell(member, membership.JoinRequested(contact.name))

    def _start_timer(self, member: Member, order: membership.StartTimer) -> None:
        at_ms = member.timers[order.timer] = self._clock_ms(member, order.at)
        self.clock.at(at_ms, self._timer, member, order.timer, at_ms)

    def _start_broadcast_timer(self, member: Member, order: broadcast.StartTimer) -> None:
        at_ms = member.timers[order.timer] = self._clock_ms(member, order.at)
        self.clock.at(at_ms, self._broadcast_timer, member, order.timer, at_ms)

    def _clock_ms(self, member: Member, at: float) -> int:
        """When the clock of ``member`` shows ``at``: never before, for a timer that fires early fires for nothing."""
        return max(-int(-(at - member.offset) / member.rate * 1000 // 1), self.clock.ms + 1)

    def _stop_timer(self, member: Member, order: membership.StopTimer) -> None:
        member.timers.pop(order.timer, None)

    def _connect(self, member: Member, order: membership.Connect) -> None:
        self.network.connect(member, order.peer)

    def _release(self, member: Member, order: membership.Release) -> None:
        end = member.ends.get(order.peer)
        if end is not None:
            self.network.close(end, politely=not order.close)


__all__ = ["Cluster", "MakeMember"]
