"""What nodes share beside the overlay, in a simulated cluster: maps, services, leases, searches, unused channels.

As in ``cluster``, the machines are those of a real node. What they say goes from node to node as on a real one, too: as
the bytes of a term, sent to a registered name, and read by the same readers before a machine sees it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from barrel_p2p.errors import DecodeError
from barrel_p2p.node.idle import NAME as CHANNELS
from barrel_p2p.node.idle import RELEASE_SECONDS
from barrel_p2p.node.lives import NEWS, OURS, TICKS, UPSTREAMS
from barrel_p2p.node.replication import REPLICA
from barrel_p2p.proto import hyparview_events as membership
from barrel_p2p.proto import hyparview_wire, plumtree_wire, retiring, routing, routing_wire
from barrel_p2p.proto import plumtree_events as broadcast
from barrel_p2p.proto import replica_events as event
from barrel_p2p.proto.leases import MemberDown, MemberUp
from barrel_p2p.proto.map_state import Put
from barrel_p2p.proto.node_leases import Heard, Tick
from barrel_p2p.proto.plumtree import new_id
from barrel_p2p.proto.registry_events import NodeAlive, NodeDead, Register
from barrel_p2p.proto.replica import Replica
from barrel_p2p.services.registry import REPLICA as REGISTRY
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, Pid, Reference
from barrel_p2p.testing.cluster import Cluster, MakeMember
from barrel_p2p.testing.growth import Growth
from barrel_p2p.testing.member import End, Member
from barrel_p2p.testing.scenario import Scenario
from barrel_p2p.testing.shared import (
    ANSWERS,
    INSTANCES,
    KEYS,
    LEASE_MS,
    REWRITTEN_S,
    SHARED,
    SKEW_MS,
    WALL_MS,
    Shared,
    bounds_of_overlay,
    bounds_of_services,
    service_of,
)


class Services(Cluster):
    """A simulated cluster whose members run the services of a node.

    ``writes`` holds what users wrote last to each key of the shared map, and ``offers`` who offers a service.
    """

    def __init__(self, scenario: Scenario, seed: int, make: MakeMember | None = None) -> None:
        self.shared: dict[Member, Shared] = {}
        self.growth = Growth()
        self.overhear: Callable[[Atom, Any], None] | None = None
        self.writes: dict[int, Any] = {}
        self.offers: dict[str, Pid] = {}
        self.searched = self.ended = self.found = 0
        self.broken_off = 0  # channels, because of what no codec can read
        self._codec = Codec()
        super().__init__(scenario, seed, make)
        self._performers[retiring.Retire] = self._retire
        self._performers[retiring.Restore] = self._restore
        self._performers[retiring.Ask] = self._ask_to_close
        self._performers[retiring.Reply] = self._answer_close
        self._performers[retiring.Close] = self._close
        self._performers[retiring.StartTimer] = self._start_retiring_timer
        self._performers[retiring.StopTimer] = lambda member, order: None
        self._performers[routing.Ask] = self._ask_for_service
        self._performers[routing.Forget] = self._forget_ask
        self._performers[routing.Reply] = self._answer_search
        self._performers[routing.Found] = self._search_ended
        self._performers[routing.StartTimer] = self._start_routing_timer
        self._performers[routing.StopTimer] = lambda member, order: None
        self._readers: dict[Atom, Callable[[End, Any], None]] = {
            hyparview_wire.PROCESS: self._for_membership,
            plumtree_wire.PROCESS: self._for_broadcast,
            routing_wire.PROCESS: self._for_routing,
            NEWS: self._for_lives,
            CHANNELS: self._for_retiring,
            ANSWERS: self._for_searches,
        }
        for name in INSTANCES:
            self._readers[name] = lambda end, term, name=name: self._for_replica(name, end, term)  # type: ignore[misc]

    # --- a member -----------------------------------------------------------------------------------------------------

    def start(self, name: str, contact: str | None = None) -> Member:
        member = super().start(name, contact)
        shared = self.shared[member]
        for tag in INSTANCES:
            replica = shared.replicas[tag] = Replica(Atom(name), shared.state(tag), rng=self.rng)
            self._perform_replica(member, tag, replica.start(now=self.clock.seconds))
        self.clock.at(self.clock.ms + LEASE_MS // TICKS, self._tick, member, 0)
        return member

    def _make_python(self, name: str, number: int, rng: Random) -> Member:
        member = super()._make_python(name, number, rng)
        skew = rng.randrange(-SKEW_MS, SKEW_MS)
        self.shared[member] = Shared.make(Atom(name), number, skew, WALL_MS + self.clock.ms + skew, rng)
        return member

    def wall_ms(self, member: Member) -> int:
        """What the wall clock of a member shows."""
        return WALL_MS + self.clock.ms + self.shared[member].skew

    # --- what users do ------------------------------------------------------------------------------------------------

    def use(self, until_ms: int) -> None:
        """Let the users of honest members offer services, write to the shared map and look for services."""
        for member in self.honest:
            pid = self.offers[member.name] = self.shared[member].pid
            self._write(member, REGISTRY, Register(service_of(member.name), pid))
        for key in KEYS:
            self.clock.at(self.clock.ms + key * REWRITTEN_S * 1000 // len(KEYS), self._use, key, until_ms)

    def _use(self, key: int, until_ms: int, _: Any) -> None:
        if self.clock.ms > until_ms:
            return
        self.clock.at(self.clock.ms + REWRITTEN_S * 1000, self._use, key, until_ms)
        honest = self.honest
        writer, seeker = (honest[int(self.rng.random() * len(honest))] for _ in range(2))
        self.writes[key] = self.clock.ms
        self._write(writer, SHARED, Put(key, self.clock.ms))
        self.searched += 1
        sought = service_of(honest[int(self.rng.random() * len(honest))].name)
        self._tell_routing(seeker, routing.Sought(self.searched, sought, self._neighbours(seeker)))

    def _neighbours(self, member: Member) -> list[Atom]:
        return [Atom(peer) for peer in member.hyparview.active]

    # --- messages -----------------------------------------------------------------------------------------------------

    def post(self, member: Member, peer: str, name: Atom, term: Any) -> None:
        """Send a term to a registered name of a peer, if there is a channel to it."""
        end = member.ends.get(peer)
        if end is None:
            return
        held = self.shared[member].held.get(peer)
        if held is not None:
            held.append((name, term))
            return
        if self.overhear is not None and not member.malicious:
            self.overhear(name, term)
        self.network.send(end, (name, self._codec.encode(term)), self._bytes_arrived)

    def post_bytes(self, end: End, name: Atom, data: bytes) -> None:
        """Send anything."""
        self.network.send(end, (name, data), self._bytes_arrived)

    def _bytes_arrived(self, end: End, message: tuple[Atom, bytes], _: Any) -> None:
        name, data = message
        if not end.open:
            return
        try:
            term = self._codec.decode(data)
        except DecodeError:
            self.broken_off += 1
            self.network.close(end, politely=False)
            return
        reader = self._readers.get(name)
        if reader is not None:
            reader(end, term)

    def _send(self, member: Member, order: membership.Send) -> None:
        assert member.hyparview_wire is not None
        self._count(order.message)
        self.post(member, order.peer, hyparview_wire.PROCESS, member.hyparview_wire.encode(order.message))

    def _send_broadcast(self, member: Member, order: broadcast.Send) -> None:
        assert member.plumtree_wire is not None
        message = order.message
        self._count(message)
        if isinstance(message, broadcast.Gossip) and order.peer in member.ends:
            self.ledger.count_payload(message.id)
        self.post(member, order.peer, plumtree_wire.PROCESS, member.plumtree_wire.encode(message))

    def _count(self, message: Any) -> None:
        self.sent[type(message)] = self.sent.get(type(message), 0) + 1

    def _for_membership(self, end: End, term: Any) -> None:
        assert end.member.hyparview_wire is not None
        message = end.member.hyparview_wire.decode(term, end.peer.name)
        if message is not None:
            self.tell(end.member, membership.MessageReceived(end.peer.name, message))

    def _for_broadcast(self, end: End, term: Any) -> None:
        assert end.member.plumtree_wire is not None
        message = end.member.plumtree_wire.decode(term, end.peer.name)
        if message is not None:
            self.tell_broadcast(end.member, broadcast.MessageReceived(end.peer.name, message))

    # --- replicas -----------------------------------------------------------------------------------------------------

    def _for_replica(self, name: Atom, end: End, term: Any) -> None:
        match term:
            case (Atom() as tag, message) if tag == REPLICA:
                self._tell_replica(end.member, name, event.DirectReceived(Atom(end.peer.name), message))

    def _tell_replica(self, member: Member, name: Atom, fact: event.Fact) -> None:
        if member.alive:
            self._perform_replica(member, name, self._replica_orders(member, name, fact))

    def _replica_orders(self, member: Member, name: Atom, fact: event.Fact) -> list[event.Order]:
        replica = self.shared[member].replicas[name]
        return replica.handle(fact, now=self.clock.seconds, wall_ms=self.wall_ms(member))

    def _write(self, member: Member, name: Atom, operation: Any) -> None:
        self._tell_replica(member, name, event.WriteAsked(operation))

    def _perform_replica(self, member: Member, name: Atom, orders: list[event.Order]) -> None:
        for order in orders:
            match order:
                case event.Broadcast(payload):
                    size = plumtree_wire.weigh(payload)
                    request = broadcast.BroadcastRequested(new_id(self.rng), name, payload, size)
                    self.tell_broadcast(member, request)
                case event.SendTo(peer, message):
                    self.post(member, peer, name, (REPLICA, message))
                case event.AwaitDrain(peer):
                    self.clock.at(self.clock.ms + 5, self._drained, member, name, peer)
                case event.StartTimer(timer, at):
                    self.clock.at(int(at * 1000) + 1, self._replica_timer, member, name, timer)
                case event.Notify(changes) if name in (OURS, UPSTREAMS):
                    self._judge(member, changes)

    def _drained(self, member: Member, name: Atom, peer: Atom) -> None:
        self._tell_replica(member, name, event.Drained(peer) if peer in member.ends else event.PeerDown(peer))

    def _replica_timer(self, member: Member, name: Atom, timer: str) -> None:
        self._tell_replica(member, name, event.TimerFired(timer))

    def _deliver(self, member: Member, order: broadcast.Deliver) -> None:
        super()._deliver(member, order)
        tag = Atom(order.tag)
        if order.peer is not None and tag in self.shared[member].replicas:
            self._tell_replica(member, tag, event.BroadcastReceived(order.payload))

    def _notify(self, member: Member, order: membership.Notify) -> None:
        super()._notify(member, order)
        match order.event:
            case membership.PeerUp(peer, kind):
                for name in self.shared[member].replicas:
                    self._tell_replica(member, name, event.PeerUp(Atom(peer), kind == "python"))
            case membership.PeerDown(peer):
                for name in self.shared[member].replicas:
                    self._tell_replica(member, name, event.PeerDown(Atom(peer)))

    # --- who lives: ``node.lives`` in small ---------------------------------------------------------------------------

    def _tick(self, member: Member, count: int, _: Any) -> None:
        if not member.alive:
            return
        shared = self.shared[member]
        neighbours = [end.peer for peer in member.hyparview.active if (end := member.ends.get(peer)) is not None]
        mixed = any(peer.kind != "python" for peer in neighbours)
        self._write(member, OURS, Tick(LEASE_MS // TICKS, count % 2 == 0 and bool(member.hyparview.active), mixed))
        news = shared.leases.news()
        if news:
            for peer in neighbours:
                if peer.kind == "python":
                    self.post(member, peer.name, NEWS, news)
        self.clock.at(self.clock.ms + LEASE_MS // TICKS, self._tick, member, count + 1)

    def _for_lives(self, end: End, term: Any) -> None:
        self._write(end.member, OURS, Heard(term))

    def _judge(self, member: Member, changes: Any) -> None:
        shared = self.shared[member]
        for change in changes:
            node = change.node
            match change:
                case MemberUp() if node not in shared.alive and node != member.name:
                    shared.alive[node] = None
                    self._write(member, REGISTRY, NodeAlive(node))
                case MemberDown() if node in shared.alive and not shared.leases.alive(node):
                    if node not in shared.members.members():
                        del shared.alive[node]
                        self._write(member, REGISTRY, NodeDead(node))

    # --- searches -----------------------------------------------------------------------------------------------------

    def _tell_routing(self, member: Member, fact: routing.Fact) -> None:
        if member.alive:
            self._perform(member, self.shared[member].routing.handle(fact, now=self.clock.seconds))

    def _for_routing(self, end: End, term: Any) -> None:
        peer = Atom(end.peer.name)
        read = routing_wire.decode_request(term, peer)
        if read is not None:
            request, reply_to = read
            known = next(iter(self.shared[end.member].registry.lookup(request.name)), None)
            here = None if known is None else (known.node, known.pid)
            fact = routing.Requested(peer, request, reply_to, here, self._neighbours(end.member))
            self._tell_routing(end.member, fact)

    def _for_searches(self, end: End, term: Any) -> None:
        shared = self.shared[end.member]
        match term:
            case (Reference() as ref, answer) if ref in shared.asks:
                ask = shared.asks.pop(ref)
                del shared.refs[ask]
                self._tell_routing(end.member, routing.Answered(ask, routing_wire.decode_answer(answer)))

    def _ask_for_service(self, member: Member, order: routing.Ask) -> None:
        shared = self.shared[member]
        if order.peer not in member.ends:
            self._tell_routing(member, routing.PeerLost(order.peer))
            return
        shared.numbers += 1
        ref = shared.refs[order.ask] = Reference(shared.pid.node, shared.pid.creation, (shared.numbers, 0, 0))
        shared.asks[ref] = order.ask
        term = routing_wire.encode_request(order.request, (shared.pid, ref))
        self.post(member, order.peer, routing_wire.PROCESS, term)

    def _forget_ask(self, member: Member, order: routing.Forget) -> None:
        shared = self.shared[member]
        ref = shared.refs.pop(order.ask, None)
        if ref is not None:
            del shared.asks[ref]

    def _answer_search(self, member: Member, order: routing.Reply) -> None:
        pid, ref = order.reply_to
        self.post(member, pid.node, ANSWERS, (ref, routing_wire.encode_answer(order.answer)))

    def _search_ended(self, member: Member, order: routing.Found) -> None:
        self.ended += 1
        self.found += order.where is not None

    def _start_routing_timer(self, member: Member, order: routing.StartTimer) -> None:
        self.clock.at(int(order.at * 1000) + 1, self._routing_timer, member, order.search)

    def _routing_timer(self, member: Member, search: int, _: Any) -> None:
        self._tell_routing(member, routing.TimerFired(search))

    # --- channels that nobody uses ------------------------------------------------------------------------------------

    def _release(self, member: Member, order: membership.Release) -> None:
        if order.close:
            super()._release(member, order)
        else:
            self.clock.at(self.clock.ms + int(RELEASE_SECONDS * 1000), self._unused, member, order.peer)

    def _unused(self, member: Member, peer: str, _: Any) -> None:
        if peer in member.ends and not member.hyparview.needs(peer):
            self._tell_retiring(member, retiring.Unused(Atom(peer)))

    def _for_retiring(self, end: End, term: Any) -> None:
        member, peer = end.member, Atom(end.peer.name)
        match term:
            case (Atom() as what, int() as number) if what == "close":
                used = peer not in self.shared[member].held and member.hyparview.needs(peer)
                self._tell_retiring(member, retiring.CloseAsked(peer, number, used))
            case (Atom() as what, int() as number) if what in ("agreed", "refused"):
                answer: retiring.Answer = "agreed" if what == "agreed" else "refused"
                self._tell_retiring(member, retiring.Answered(peer, number, answer))

    def _tell_retiring(self, member: Member, fact: retiring.Fact) -> None:
        if member.alive:
            self._perform(member, self.shared[member].retiring.handle(fact, now=self.clock.seconds))

    def _retire(self, member: Member, order: retiring.Retire) -> None:
        self.shared[member].held[order.peer] = []

    def _restore(self, member: Member, order: retiring.Restore) -> None:
        for name, term in self.shared[member].held.pop(order.peer, ()):
            self.post(member, order.peer, name, term)

    def _ask_to_close(self, member: Member, order: retiring.Ask) -> None:
        self._say(member, order.peer, (Atom("close"), order.number))

    def _answer_close(self, member: Member, order: retiring.Reply) -> None:
        self._say(member, order.peer, (Atom(order.answer), order.number))

    def _say(self, member: Member, peer: str, term: Any) -> None:
        """Past what is held back."""
        end = member.ends.get(peer)
        if end is not None:
            self.post_bytes(end, CHANNELS, self._codec.encode(term))

    def _close(self, member: Member, order: retiring.Close) -> None:
        end = member.ends.get(order.peer)
        if end is not None:
            self.network.close(end, politely=False)

    def _start_retiring_timer(self, member: Member, order: retiring.StartTimer) -> None:
        self.clock.at(int(order.at * 1000) + 1, self._retiring_timer, member, order.peer)

    def _retiring_timer(self, member: Member, peer: Atom, _: Any) -> None:
        self._tell_retiring(member, retiring.TimerFired(peer))

    def _lost(self, member: Member, peer: str) -> None:
        shared = self.shared[member]
        shared.held.pop(peer, None)
        self._tell_retiring(member, retiring.ChannelGone(Atom(peer)))
        self._tell_routing(member, routing.PeerLost(Atom(peer)))
        super()._lost(member, peer)

    @property
    def refused(self) -> Counter[str]:
        """What honest members refused, by reason."""
        counts = Counter({"no term": self.broken_off})
        for member in self.honest:
            for dropped in (member.hyparview_wire, member.plumtree_wire, *self.shared[member].replicas.values()):
                counts.update(dropped.refused if isinstance(dropped, Replica) else dropped.dropped)  # type: ignore[union-attr]
        return counts

    # --- bounds -------------------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Note how large each table of each honest member is."""
        self.growth.sample(
            [
                {"hyparview": member.hyparview, "plumtree": member.plumtree, "shared": self.shared[member]}
                for member in self.honest
            ]
        )

    def bounds(self) -> dict[str, int]:
        """The most that a table may hold, for those with a bound of their own. Tables without one must not grow."""
        return {
            "hyparview._kinds": self.made,
            **bounds_of_overlay(self.scenario.membership, self.scenario.broadcast),
            **bounds_of_services(),
        }


__all__ = ["Services"]
