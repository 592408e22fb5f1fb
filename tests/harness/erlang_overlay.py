"""A model of upstream's overlay, with its faults: what an Erlang node does with what ours send it.

It takes the facts and gives the orders of our own machines, so a simulated cluster can have nodes of both kinds. The
fault that matters most: a promotion that completes crashes the membership's server, which starts again with empty views
(``crashes`` says when, and whose doing it was).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from barrel_p2p.proto import hyparview_events as membership
from barrel_p2p.proto import plumtree_events as broadcast
from barrel_p2p.proto.hyparview_wire import HyParViewWire
from barrel_p2p.testing.member import Member

ACTIVE, PASSIVE, ARWL, PRWL, SHUFFLE_LENGTH = 5, 30, 6, 3, 8
SHUFFLE_PERIOD, PENDING_TIMEOUT, CONTACT_RETRY, CLEANUP_PERIOD = 10.0, 30.0, 5.0, 60.0
MAX_FAILS = 5


@dataclass
class Pending:
    kind: str
    cause: str
    at: float


@dataclass
class Crash:
    """``cause``: what made the node look for a replacement, as ``what from whom``."""

    at: float
    cause: str


class ErlangMembership:
    """HyParView and its bridge, as upstream runs them."""

    def __init__(self, name: str, rng: Random, contacts: tuple[str, ...] = ()) -> None:
        self.name = name
        self.rng = rng
        self.contacts = [contact for contact in contacts if contact != name]
        self.crashes: list[Crash] = []
        self.evictions: list[str] = []  # what made a full view drop somebody, as ``what from whom``
        self.told: list[tuple[str, str]] = []  # messages received, as (kind, from)
        self.nodes: dict[str, None] = {}  # the connected ones
        self.requested: dict[str, None] = {}
        self._empty()
        self.left = False

    def _empty(self) -> None:
        self.view: dict[str, None] = {}
        self.candidates: dict[str, int] = {}  # passive view: fail counts
        self.pending: dict[str, Pending] = {}

    @property
    def active(self) -> list[str]:
        return list(self.view)

    @property
    def passive(self) -> list[str]:
        return list(self.candidates)

    def needs(self, peer: str) -> bool:
        return True  # the channel collector of upstream comes after minutes only

    def handle(self, fact: Any, *, now: float) -> list[Any]:
        self.now = now
        self.out: list[Any] = []
        self.cause = type(fact).__name__
        match fact:
            case membership.Started():
                self.out.append(membership.StartTimer("shuffle", now + SHUFFLE_PERIOD))
                self.out.append(membership.StartTimer("contact", now + 1.0))
            case membership.JoinRequested(peer):
                self._pend(peer, "join")
                self._request_connect(peer)
            case membership.PeerConnected(peer):
                self.nodes[peer] = None
                if peer in self.requested:
                    self._connected(peer)
            case membership.ConnectFailed(peer):
                self.requested.pop(peer, None)
                self._failed(peer, "connect_failed")
            case membership.PeerLost(peer):
                self.nodes.pop(peer, None)
                self.requested.pop(peer, None)
                self.cause = f"nodedown of {peer}"
                self._failed(peer, "nodedown")
            case membership.MessageReceived(peer, message):
                self.cause = f"{type(message).__name__} from {peer}"
                self.told.append((type(message).__name__, peer))
                self._message(peer, message)
            case membership.TimerFired("shuffle"):
                self._shuffle_tick()
                self.out.append(membership.StartTimer("shuffle", now + SHUFFLE_PERIOD))
            case membership.TimerFired("contact"):
                if not self.view:
                    for contact in self.contacts:
                        self._pend(contact, "join")
                        self._request_connect(contact)
                self.out.append(membership.StartTimer("contact", now + CONTACT_RETRY))
            case membership.TimerFired() | membership.TrafficSeen():
                pass
            case membership.LeaveRequested():
                for peer in self.view:
                    self._send(peer, membership.Disconnect())
                self._empty()
                self._tell(membership.Left())
        return self.out

    # --- the bridge ---------------------------------------------------------------------------------------------------

    def _request_connect(self, peer: str) -> None:
        if peer in self.nodes:
            self._connected(peer)
        elif peer not in self.requested:
            self.requested[peer] = None
            self.out.append(membership.Connect(peer))

    def _connected(self, peer: str) -> None:
        pending = self.pending.pop(peer, None)
        if pending is not None and self.now - pending.at > PENDING_TIMEOUT:
            pending = None
        if pending is None:
            if peer not in self.view:
                self._add(peer)
                self._up(peer)
        elif pending.kind == "join":
            self.view[peer] = None
            self._send(peer, membership.Join())
            self._up(peer)
        elif pending.kind == "connect":
            self._add(peer)
            self._up(peer)
        else:
            self.crashes.append(Crash(self.now, pending.cause))
            self._empty()

    # --- primitives ---------------------------------------------------------------------------------------------------

    def _add(self, peer: str) -> None:
        if len(self.view) >= ACTIVE:
            victim = self.rng.choice([other for other in self.view if other != peer])
            del self.view[victim]
            self.evictions.append(self.cause)
            self._send(victim, membership.Disconnect())
            self._tell(membership.PeerDown(victim, "dropped"))
            self._add_passive(victim)
        self.view[peer] = None

    def _add_passive(self, peer: str) -> None:
        if peer == self.name:
            return
        if peer not in self.candidates and len(self.candidates) >= PASSIVE:
            del self.candidates[self.rng.choice(list(self.candidates))]
        self.candidates[peer] = 0

    def _promote(self) -> None:
        if len(self.view) >= ACTIVE or not self.candidates:
            return
        peer = self.rng.choice(list(self.candidates))
        del self.candidates[peer]
        self._pend(peer, "neighbor")
        if peer in self.nodes:  # else the message is lost
            self._send(peer, membership.Neighbor(high=not self.view))
        self._request_connect(peer)

    def _pend(self, peer: str, kind: str) -> None:
        self.pending[peer] = Pending(kind, self.cause, self.now)

    def _failed(self, peer: str, reason: str) -> None:
        if peer in self.view:
            del self.view[peer]
            self._fail(peer)
            self._tell(membership.PeerDown(peer, "nodedown"))
            self._promote()
        else:
            pending = self.pending.pop(peer, None)
            self._fail(peer)
            if pending is not None and pending.kind == "neighbor":
                self._promote()

    def _fail(self, peer: str) -> None:
        if peer in self.candidates:
            self.candidates[peer] += 1
            if self.candidates[peer] >= MAX_FAILS:
                del self.candidates[peer]

    def _sample(self, count: int) -> tuple[str, ...]:
        pool = [self.name, *self.view, *self.candidates]
        return tuple(self.rng.sample(pool, min(count, len(pool))))

    # --- messages -----------------------------------------------------------------------------------------------------

    def _message(self, peer: str, message: Any) -> None:
        match message:
            case membership.Join():
                known = peer in self.view
                self._add(peer)
                if not known:
                    self._up(peer)
                for other in self.view:
                    if other != peer:
                        self._send(other, membership.ForwardJoin(peer, ARWL))
            case membership.ForwardJoin(joiner, ttl):
                self._forward_join(peer, joiner, ttl)
            case membership.Disconnect():
                if peer in self.view:
                    del self.view[peer]
                    self._add_passive(peer)
                    self._tell(membership.PeerDown(peer, "graceful"))
                    self._promote()
            case membership.Neighbor(high):
                accept = high or len(self.view) < ACTIVE
                self._send(peer, membership.NeighborReply(accept))
                if accept:
                    self._add(peer)
            case membership.NeighborReply(True):
                self._add(peer)
            case membership.NeighborReply(False):
                self._promote()
            case membership.Shuffle(ttl, peers):
                self._send(peer, membership.ShuffleReply(self._sample(len([p for p in peers if p != self.name]))))
                self._merge(peers)
                others = [other for other in self.view if other != peer]
                if ttl > 0 and others:
                    rest = tuple(p for p in peers if p != self.name)
                    self._send(self.rng.choice(others), membership.Shuffle(ttl - 1, rest))
            case membership.ShuffleReply(peers):
                self._merge(peers)

    def _forward_join(self, peer: str, joiner: str, ttl: int) -> None:
        if joiner == self.name:
            return
        if ttl == 0:
            self._add_passive(joiner)
            return
        if ttl == PRWL:
            self._add_passive(joiner)
        if len(self.view) < ACTIVE:
            self._pend(joiner, "connect")
            self._request_connect(joiner)
            return
        others = [other for other in self.view if other not in (peer, joiner)]
        if others:
            self._send(self.rng.choice(others), membership.ForwardJoin(joiner, ttl - 1))

    def _merge(self, peers: tuple[str, ...]) -> None:
        for peer in peers:
            if peer not in self.view:
                self._add_passive(peer)

    def _shuffle_tick(self) -> None:
        if self.view:
            target = self.rng.choice(list(self.view))
            self._send(target, membership.Shuffle(PRWL, self._sample(SHUFFLE_LENGTH)))

    def _send(self, peer: str, message: Any) -> None:
        self.out.append(membership.Send(peer, message))

    def _tell(self, event: Any) -> None:
        self.out.append(membership.Notify(event))

    def _up(self, peer: str) -> None:
        self._tell(membership.PeerUp(peer, "erlang"))


class ErlangBroadcast:
    """Plumtree, as upstream runs it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.eager: dict[str, None] = {}
        self.lazy: dict[str, None] = {}
        self.received: dict[bytes, broadcast.Gossip] = {}
        self.pending: dict[bytes, tuple[str, float]] = {}

    def handle(self, fact: Any, *, now: float) -> list[Any]:
        self.out: list[Any] = []
        match fact:
            case membership.PeerUp(peer):
                self.lazy.pop(peer, None)
                self.eager[peer] = None
            case membership.PeerDown(peer):
                self.eager.pop(peer, None)
                self.lazy.pop(peer, None)
            case broadcast.BroadcastRequested(id, tag, payload, size):
                self._take(broadcast.Gossip(id, tag, payload, size), None)
            case broadcast.MessageReceived(peer, message):
                self._message(peer, message, now)
            case broadcast.TimerFired("graft"):
                for id, (peer, at) in list(self.pending.items()):
                    if at <= now:
                        del self.pending[id]
                        if id not in self.received:
                            self._send(peer, broadcast.Graft(id))
                if self.pending:
                    self.out.append(broadcast.StartTimer("graft", min(at for _, at in self.pending.values())))
        return self.out

    def _message(self, peer: str, message: Any, now: float) -> None:
        match message:
            case broadcast.Gossip(id):
                if id in self.received:
                    self._send(peer, broadcast.Prune())
                else:
                    self._take(message, peer)
                    self.lazy.pop(peer, None)
                    self.eager[peer] = None  # even a stranger
            case broadcast.IHave(id):
                if id not in self.received and id not in self.pending:
                    self.pending[id] = (peer, now + 1.0)
                    self.out.append(broadcast.StartTimer("graft", min(at for _, at in self.pending.values())))
            case broadcast.Graft(id):
                self.lazy.pop(peer, None)
                self.eager[peer] = None
                if id in self.received:
                    self._send(peer, self.received[id])
            case broadcast.Prune():
                if peer in self.eager:
                    del self.eager[peer]
                    self.lazy[peer] = None

    def _take(self, gossip: broadcast.Gossip, peer: str | None) -> None:
        self.received[gossip.id] = gossip
        self.pending.pop(gossip.id, None)
        self.out.append(broadcast.Deliver(gossip.id, gossip.tag, gossip.payload, peer))
        for other in self.eager:
            if other != peer:
                self._send(other, gossip)
        for other in self.lazy:
            if other != peer:
                self._send(other, broadcast.IHave(gossip.id))

    def _send(self, peer: str, message: Any) -> None:
        self.out.append(broadcast.Send(peer, message))


class ErlangWire(HyParViewWire):
    """It takes a list of names as it is, with what stands in it twice."""

    def _names(self, records: Any) -> tuple[str, ...]:
        return tuple(record[1] for record in records)


def erlang_member(name: str, number: int, rng: Random, contacts: tuple[str, ...] = ()) -> Member:
    """An Erlang node of a simulated cluster."""
    member = Member(name, number, ErlangMembership(name, rng, contacts), ErlangBroadcast(name), kind="erlang")
    member.hyparview_wire = ErlangWire(name)
    return member


def promotions_caused_by(membership: ErlangMembership, names: set[str]) -> list[str]:
    """Crashes of an Erlang node that a message of one of ``names`` led to."""
    return [c.cause for c in membership.crashes if " from " in c.cause and c.cause.rsplit(" ", 1)[1] in names]
