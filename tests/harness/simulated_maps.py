"""One replicated map in the simulator: the membership, broadcast, replica and map of each node are those of a real one.

``story`` plays writes at random nodes while a part of the cluster is cut off and other nodes crash and come back with
their disks, then leaves the cluster alone for a while. ``Maps.problems`` tells what is wrong at the end: copies that
differ, a write that was lost, a removed value that came back.
"""

from __future__ import annotations

from random import Random
from typing import Any

from barrel_p2p.crdt.keys import canonical, term_key, term_map
from barrel_p2p.proto import hyparview_events as membership
from barrel_p2p.proto import plumtree_events as broadcast
from barrel_p2p.proto import replica_events as event
from barrel_p2p.proto.map_state import HARD_HORIZONS, Announce, Commit, MapState, Put, Remove
from barrel_p2p.proto.plumtree import new_id
from barrel_p2p.proto.replica import Replica
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom
from barrel_p2p.testing.cluster import Cluster
from barrel_p2p.testing.faults import Faults
from barrel_p2p.testing.member import End, Member
from barrel_p2p.testing.scenario import Fault, JoinPlan, Network, Scenario

TAG = Atom("barrel_p2p_map_replica$sim")
WALL_MS = 1_795_337_344_000
TTL_MS = 60_000
KEYS: list[Any] = [*range(12), 1.0, True, "k", Atom("k"), (1, [2.0])]
SKEW_MS = 200


class _Node:
    """What a member has beside its overlay."""

    def __init__(self, state: MapState, replica: Replica, skew: int) -> None:
        self.state = state
        self.replica = replica
        self.skew = skew


class Maps(Cluster):
    """A simulated cluster whose members share one map."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.nodes: dict[Member, _Node] = {}
        self.disks: dict[str, dict[bytes, Any]] = {}
        self.testimonies: dict[str, Any] = {}
        self.skews: dict[str, int] = {}
        self.writes: dict[int, list[tuple[int, bool, str, Any]]] = {number: [] for number in range(len(KEYS))}
        self.written = 0
        self.collected = 0
        super().__init__(scenario, seed)

    def _make_python(self, name: str, number: int, rng: Random) -> Member:
        member = super()._make_python(name, number, rng)
        skew = self.skews.setdefault(name, rng.randrange(-SKEW_MS, SKEW_MS))
        begun = WALL_MS + self.clock.ms + skew
        if name not in self.disks:
            begun -= HARD_HORIZONS * TTL_MS  # its map is old: removals don't have to wait for a newcomer
        state = MapState(Atom(name), begun, tombstone_ttl_ms=TTL_MS)
        if name in self.disks:
            state.restore(list(self.disks[name].values()), None, WALL_MS + self.clock.ms + skew)
            state.restore((), self.testimonies.get(name), WALL_MS + self.clock.ms + skew)
        self.disks.setdefault(name, {})
        replica = Replica(Atom(name), state, rng=rng, durable=True)
        self.nodes[member] = _Node(state, replica, skew)
        self._perform_replica(member, replica.start(now=self.clock.ms / 1000))
        return member

    def wall_ms(self, member: Member) -> int:
        return WALL_MS + self.clock.ms + self.nodes[member].skew

    # --- the replica --------------------------------------------------------------------------------------------------

    def tell_replica(self, member: Member, fact: event.Fact) -> None:
        if member.alive:
            node = self.nodes[member]
            before = node.state.map.tombstones if isinstance(fact, event.TimerFired) else 0
            self._perform_replica(
                member, node.replica.handle(fact, now=self.clock.ms / 1000, wall_ms=self.wall_ms(member))
            )
            self.collected += max(before - node.state.map.tombstones, 0)

    def _perform_replica(self, member: Member, orders: list[event.Order]) -> None:
        for order in orders:
            match order:
                case event.Persist(delta):
                    self.disks[member.name].update(
                        {canonical(term_key(key)): term_map([(key, entry)]) for key, entry in delta.items()}
                    )
                case event.Forget(parts):
                    for key in parts:
                        del self.disks[member.name][canonical(term_key(key))]
                    self.testimonies[member.name] = self.nodes[member].state.testimony(self.wall_ms(member))
                case event.Broadcast(payload):
                    request = broadcast.BroadcastRequested(new_id(self.rng), TAG, encode(payload), 64)
                    self.tell_broadcast(member, request)
                case event.SendTo(peer, message):
                    end = member.ends.get(peer)
                    if end is not None:
                        self.network.send(end, encode(message), self._replica_arrived)
                case event.AwaitDrain(peer):
                    self.clock.at(self.clock.ms + 5, self._drained, member, peer)
                case event.StartTimer(timer, at):
                    self.clock.at(int(at * 1000) + 1, self._replica_timer, member, timer)

    def _replica_arrived(self, end: End, message: bytes, _: Any) -> None:
        if end.open:
            self.tell_replica(end.member, event.DirectReceived(Atom(end.peer.name), decode(message)))

    def _drained(self, member: Member, peer: Atom, _: Any) -> None:
        self.tell_replica(member, event.Drained(peer) if peer in member.ends else event.PeerDown(peer))

    def _replica_timer(self, member: Member, timer: str, _: Any) -> None:
        self.tell_replica(member, event.TimerFired(timer))

    # --- the overlay tells it -----------------------------------------------------------------------------------------

    def _deliver(self, member: Member, order: broadcast.Deliver) -> None:
        if order.peer is not None:
            self.tell_replica(member, event.BroadcastReceived(decode(order.payload)))

    def _notify(self, member: Member, order: membership.Notify) -> None:
        super()._notify(member, order)
        match order.event:
            case membership.PeerUp(peer, kind):
                self.tell_replica(member, event.PeerUp(Atom(peer), kind == "python"))
            case membership.PeerDown(peer):
                self.tell_replica(member, event.PeerDown(Atom(peer)))

    # --- the story ----------------------------------------------------------------------------------------------------

    def write(self, member: Member) -> None:
        """A write of a user's, as ``services.map`` does it: on disk, then in memory, then told."""
        node, number = self.nodes[member], self.rng.randrange(len(KEYS))
        key, put = KEYS[number], self.rng.random() < 0.6
        self.written += 1
        entry = node.state.prepare(Put(key, self.written) if put else Remove(key), self.wall_ms(member))
        (delta,) = node.state.deltas([entry])
        self.disks[member.name][canonical(entry.index)] = delta
        self.writes[number].append((entry.stamp, put, member.name if put else "", self.written if put else None))
        self.tell_replica(member, event.WriteAsked(Commit(entry)))
        self.tell_replica(member, event.WriteAsked(Announce([entry.index])))

    def problems(self) -> list[str]:
        """What is wrong with the copies of the live members."""
        found = []
        for member in self.live:
            for number, key in enumerate(KEYS):
                last = max(self.writes[number], default=(0, False, "", None))
                value = self.nodes[member].state.map.get(key)
                if value != last[3]:
                    what = "lost" if last[1] else "resurrected"
                    found.append(f"{what}: {member.name} has {value!r} for {key!r}, last written was {last}")
        roots = {self.nodes[member].state.root() for member in self.live}
        if len(roots) > 1:
            found.append(f"{len(roots)} different copies")
        return found


def story(seed: int, *, nodes: int = 8, parted: float = 600.0, loss: float = 0.02) -> Maps:
    """Play it; the caller looks at ``problems``."""
    faults = (
        Fault(kind="partition", at=30, lasts=parted, share=0.4),
        Fault(kind="crash", at=90, share=0.2, restart=60),
        Fault(kind="crash", at=parted - 60, share=0.2, restart=200),  # some come back after the partition
    )
    settled = 330.0  # neighbours that were lost are looked for at growing intervals; some rounds of anti-entropy
    plan = Scenario(
        name="maps",
        nodes=nodes,
        duration=parted + 30 + settled,
        join=JoinPlan(within=5, settle=20, contacts=2),
        network=Network(loss=loss),
        faults=faults,
    )
    cluster = Maps(plan, seed)
    clock, rng = cluster.clock, cluster.rng
    for number in range(nodes):
        contact = None if number == 0 else f"n{rng.randrange(min(number, 2))}@sim"
        clock.at(number * 500, lambda name, to, _: cluster.start(name, to), f"n{number}@sim", contact)
    ready = int(plan.ready * 1000)
    Faults(cluster, ready)

    def write(*_: Any) -> None:
        cluster.write(rng.choice(cluster.live))

    def testify(*_: Any) -> None:
        for member in cluster.live:
            cluster.testimonies[member.name] = cluster.nodes[member].state.testimony(cluster.wall_ms(member))

    last = ready + int((parted + 60) * 1000)
    for at in range(ready, last, 1500):
        clock.at(at + rng.randrange(1500), write)
    for at in range(ready, last, 30_000):
        clock.at(at, testify)
    clock.run(ready + int(plan.duration * 1000))
    return cluster


__all__ = ["KEYS", "Maps", "story"]
