"""One replica of one replicated state: how it hears of writes, and how it catches up with what it didn't hear of.

A pure machine, one for each instance (a map, the registry, the leases, ...) on each node. Writes travel by broadcast
(Plumtree, elsewhere), as deltas. A broadcast can be missed, so replicas also compare: when a neighbour appears, and
every now and then with a neighbour picked at random (anti-entropy, Demers et al., "Epidemic Algorithms for Replicated
Database Maintenance", PODC 1987). The state itself is a ``Replicated``; this machine knows nothing of its kind.

Upstream's messages, which Erlang nodes send and understand::

    {delta, Node, Map}  {custom, Node, Term}            by broadcast
    {full_sync, Node, Map}  {request_sync, Node}        to one node

and those between Python nodes, which an Erlang node would ignore; one *round* of A with B::

    A  {digest, A, Round, Root, Testimony}     here is a sum of all I have
    B  {agreed, B, Round, Testimony}           mine is the same: the end. Or
    B  {buckets, B, Round, Sums}               here are the sums of my buckets
    A  {held, A, Round, Count, [{Bucket, Versions}]}   in these we differ: that is what I hold there
    B  {full_sync, B, Map} ...                 what you don't hold
    B  {wanted, B, Round, Versions}            what I don't hold
    A  {full_sync, A, Map} ... {digest, ...}   there it is; and now? (asked once)

So equal replicas exchange some 100 bytes, and others, beside what they lack, 8 bytes for each of up to 1024 buckets and
for each entry in a bucket that differs. A side that has nothing is sent everything at once. A *testimony* is what a
replica has seen of each writer (``crdt.seen``); it grows with the number of nodes and is sent only every
``TESTIMONY_S``, when both were found equal it is believed.

What is long goes out in parts, a few per turn, the rest when the channel has drained; one queue per peer (``outflows``)
keeps all messages of rounds in order.

Departures from upstream, beside the digests:

- a write has one stamp, the same here and in the broadcast; its echo changes nothing;
- a new neighbour that runs Erlang is asked for its state as well as sent ours: it may have accepted us without any
  event of its own. A state of tombstones alone is an answer, too;
- all instances run anti-entropy, also the registry;
- a neighbour that leaves the view keeps its entries: leaving the view is not dying;
- ``request_sync`` is answered to the node that asked, not to the name in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.proto.outflows import Message, Outflows
from barrel_p2p.proto.replica_events import (
    Broadcast,
    BroadcastReceived,
    DirectReceived,
    Drained,
    Fact,
    Forget,
    Notify,
    Order,
    PeerDown,
    PeerUp,
    Persist,
    SendTo,
    StartTimer,
    TimerFired,
    WriteAsked,
)
from barrel_p2p.proto.replica_rounds import (
    MAX_COUNT,
    Round,
    bucket_count,
    bucket_slices,
    read_held,
    read_sums,
    read_versions,
    write_held,
    write_numbers,
)
from barrel_p2p.proto.replicated import Applied, Comparable, Replicated
from barrel_p2p.term.types import Atom

ANTI_ENTROPY_S: Final = 30.0  # upstream's replica_anti_entropy_ms
TIDY_S: Final = 5.0  # a guess; upstream scans every second
TESTIMONY_S: Final = 300.0  # a guess: a twelfth of the horizon of tombstones, so that it crosses any network in time
ROUND_S: Final = 10.0  # after that a round without an answer counts as lost; a guess
ANTI_ENTROPY: Final = "anti_entropy"
TIDY: Final = "tidy"


@dataclass(slots=True)
class _Peer:
    python: bool
    testified: float | None = None  # when a testimony was last exchanged


class Replica:
    """The replica of one instance on one node::

        orders = replica.handle(WriteAsked(Put(key, value)), now=loop.time(), wall_ms=unix_ms)

    Args:
        name: our node name.
        state: what is replicated.
        rng: where randomness comes from.
        anti_entropy_s: seconds between two rounds, give or take a quarter; 0 for never.
        durable: whether ``Persist`` and ``Forget`` are wanted.
    """

    def __init__(
        self,
        name: Atom,
        state: Replicated,
        *,
        rng: random.Random,
        anti_entropy_s: float = ANTI_ENTROPY_S,
        durable: bool = False,
    ) -> None:
        self._name = name
        self._state = state
        self._rng = rng
        self._period = anti_entropy_s
        self._durable = durable
        self._peers: dict[Atom, _Peer] = {}
        self._rounds: dict[Atom, Round] = {}
        self._outflows = Outflows()
        self._number = 0
        self._now = 0.0  # of the fact being handled
        self._wall_ms = 0
        self.refused: dict[str, int] = {}  # parts of messages that were refused, by reason
        self._handlers: dict[type, Callable[[Any, float, int], list[Order]]] = {
            WriteAsked: self._write_asked,
            BroadcastReceived: self._broadcast_received,
            DirectReceived: self._direct_received,
            PeerUp: self._peer_up,
            PeerDown: self._peer_down,
            Drained: self._drained,
            TimerFired: self._timer_fired,
        }
        self._messages: dict[tuple[str, int], Callable[[Atom, Message, float, int], list[Order]]] = {
            ("full_sync", 3): self._full_sync,
            ("request_sync", 2): self._request_sync,
            ("digest", 5): self._digest,
            ("agreed", 4): self._agreed,
            ("buckets", 4): self._buckets,
            ("held", 5): self._held,
            ("wanted", 4): self._wanted,
        }

    def start(self, *, now: float) -> list[Order]:
        """What to do before the first fact; ``PeerUp`` for each neighbour should follow."""
        timers: list[Order] = [StartTimer(TIDY, now + TIDY_S)]
        return timers + ([StartTimer(ANTI_ENTROPY, now + self._jitter())] if self._period else [])

    def handle(self, fact: Fact, *, now: float, wall_ms: int) -> list[Order]:
        """Take a fact (``now`` in monotonic seconds, ``wall_ms`` in Unix milliseconds); perform the orders in order."""
        self._now, self._wall_ms = now, wall_ms
        return self._handlers[type(fact)](fact, now, wall_ms)

    @property
    def peers(self) -> list[Atom]:
        """The neighbours that are told and compared with."""
        return list(self._peers)

    # --- writes and merges --------------------------------------------------------------------------------------------

    def _write_asked(self, fact: WriteAsked, now: float, wall_ms: int) -> list[Order]:
        return self._applied(self._state.write(fact.operation, wall_ms))

    def _broadcast_received(self, fact: BroadcastReceived, now: float, wall_ms: int) -> list[Order]:
        payload = fact.payload
        if payload.__class__ is tuple and len(payload) == 3 and payload[0].__class__ is Atom:
            if payload[0] == "delta":
                self._meet(payload[1])
                return self._applied(self._state.merge(payload[2], wall_ms))
            if payload[0] == "custom":
                return self._applied(self._state.merge_custom(payload[2], wall_ms))
        return self._refuse("unknown_broadcast")

    def _full_sync(self, peer: Atom, message: Message, now: float, wall_ms: int) -> list[Order]:
        applied = self._state.merge(message[2], wall_ms)
        applied.broadcast += applied.answers  # the peer may have offered it to others as well
        if peer in self._rounds:
            self._rounds[peer].began = now
        return self._applied(applied)

    def _applied(self, applied: Applied) -> list[Order]:
        for reason, count in applied.refused.items():
            self._refuse(reason, count)
        orders: list[Order] = [Persist(delta) for delta in applied.merged] if self._durable else []
        if self._durable and applied.forgotten:
            orders.append(Forget(applied.forgotten))
        orders += [Broadcast((Atom("delta"), self._name, delta)) for delta in applied.broadcast]
        orders += [Broadcast((Atom("custom"), self._name, term)) for term in applied.custom]
        orders += [SendTo(node, (Atom("request_sync"), self._name)) for node in applied.ask]
        if applied.dropped:
            self._rounds.clear()  # what an equal copy testifies is no longer true of ours
        if applied.changes:
            orders.append(Notify(applied.changes))
        return orders

    def _meet(self, node: Any) -> None:
        ours = self._state.comparable()
        if ours is not None and node.__class__ is Atom:
            ours.meet(node, self._wall_ms)

    def _refuse(self, reason: str, count: int = 1) -> list[Order]:
        self.refused[reason] = self.refused.get(reason, 0) + count
        return []

    # --- neighbours and timers ----------------------------------------------------------------------------------------

    def _peer_up(self, fact: PeerUp, now: float, wall_ms: int) -> list[Order]:
        peer = fact.peer
        if peer == self._name:
            return []
        self._peer_down(PeerDown(peer), now, wall_ms)  # what was under way with it is lost
        self._peers[peer] = _Peer(fact.python)
        self._meet(peer)
        if fact.python and self._state.comparable() is not None:
            return self._compare(peer, now)
        return [*self._send_whole(peer, wall_ms), SendTo(peer, (Atom("request_sync"), self._name))]

    def _peer_down(self, fact: PeerDown, now: float, wall_ms: int) -> list[Order]:
        self._peers.pop(fact.peer, None)
        self._rounds.pop(fact.peer, None)
        self._outflows.drop(fact.peer)
        return []

    def _timer_fired(self, fact: TimerFired, now: float, wall_ms: int) -> list[Order]:
        if fact.timer == TIDY:
            self._rounds = {peer: one for peer, one in self._rounds.items() if now - one.began < ROUND_S}
            return [*self._applied(self._state.tidy(wall_ms)), StartTimer(TIDY, now + TIDY_S)]
        if not self._period:
            return []
        orders: list[Order] = [StartTimer(ANTI_ENTROPY, now + self._jitter())]
        if self._peers:
            peer = self._rng.choice(list(self._peers))
            if self._peers[peer].python and self._state.comparable() is not None:
                return orders + self._compare(peer, now)
            orders.append(SendTo(peer, (Atom("request_sync"), self._name)))
        return orders

    def _jitter(self) -> float:
        return self._period * self._rng.uniform(0.75, 1.25)  # as upstream, so that nodes started together drift apart

    # --- messages -----------------------------------------------------------------------------------------------------

    def _direct_received(self, fact: DirectReceived, now: float, wall_ms: int) -> list[Order]:
        message = fact.message
        if message.__class__ is not tuple or not message or message[0].__class__ is not Atom:
            return self._refuse("unknown_message")
        handler = self._messages.get((message[0], len(message)))
        if handler is None:
            return self._refuse("unknown_message")
        return handler(fact.peer, message, now, wall_ms)

    def _request_sync(self, peer: Atom, message: Message, now: float, wall_ms: int) -> list[Order]:
        return self._send_whole(peer, wall_ms)

    def _digest(self, peer: Atom, message: Message, now: float, wall_ms: int) -> list[Order]:
        ours = self._state.comparable()
        if ours is None:
            return self._refuse("unknown_message")
        return [*self._heed(ours, message[4], wall_ms), *self._answer_digest(peer, message, ours, now, wall_ms)]

    def _heed(self, ours: Comparable, testimony: Any, wall_ms: int) -> list[Order]:
        return [] if testimony is None else self._applied(ours.heed(testimony, wall_ms))

    def _answer_digest(self, peer: Atom, message: Message, ours: Comparable, now: float, wall_ms: int) -> list[Order]:
        mine = self._rounds.get(peer)
        if mine is not None and mine.fresh and now - mine.began < ROUND_S and self._name < peer:
            # Both began at once: one round tells both, and ours goes on. Or ours found no replica, for the peer has
            # opened it since. So it is sent again, and whichever of the two is answered counts.
            return self._send(peer, self._digest_when_sent(mine, message[4] is not None))
        _, _, number, root, testimony = message
        if root == ours.root():
            answer = None
            if testimony is not None:
                answer = ours.testimony(wall_ms)
                ours.believe(testimony, wall_ms)
                if peer in self._peers:
                    self._peers[peer].testified = now
            return self._send(peer, iter([(Atom("agreed"), self._name, number, answer)]))
        count = bucket_count(ours.size())
        sums = write_numbers(ours.sums(count))
        return self._send(peer, iter([(Atom("buckets"), self._name, number, sums)]))

    def _agreed(self, peer: Atom, message: Message, now: float, wall_ms: int) -> list[Order]:
        _, _, number, testimony = message
        mine = self._rounds.get(peer)
        ours = self._state.comparable()
        if mine is None or mine.number != number or ours is None:
            return []
        del self._rounds[peer]
        orders = self._heed(ours, testimony, wall_ms)
        if testimony is not None and peer in self._peers:
            ours.believe(testimony, wall_ms)
            self._peers[peer].testified = now
        return orders

    def _buckets(self, peer: Atom, message: Message, now: float, wall_ms: int) -> list[Order]:
        _, _, number, data = message
        mine, ours = self._rounds.get(peer), self._state.comparable()
        if mine is None or mine.number != number or not mine.fresh or ours is None:
            return []
        theirs = read_sums(data)
        if theirs is None:
            return self._refuse("bad_digest")
        mine.fresh, mine.began = False, now
        count = len(theirs)
        if not ours.size():
            del self._rounds[peer]
            return [SendTo(peer, (Atom("request_sync"), self._name))]
        if not any(theirs) and not mine.last:  # still none: it has tombstones of what we sent, and no round of its own
            return [*self._send_whole(peer, wall_ms), *self._ask_again(peer, mine, now, wall_ms)]
        differ = [
            bucket for bucket, sums in enumerate(zip(ours.sums(count), theirs, strict=True)) if sums[0] != sums[1]
        ]
        slices = bucket_slices(differ, ours.size() // count)
        mine.unanswered = len(slices)
        if not slices:
            return self._ask_again(peer, mine, now, wall_ms)
        return self._send(peer, self._holdings(ours, number, count, slices))

    def _holdings(self, ours: Comparable, number: int, count: int, slices: list[list[int]]) -> Iterator[Message]:
        """The ``held`` messages, each made when it is sent: to look up a great many versions takes its time."""
        for buckets in slices:
            holding: dict[int, list[int]] = {bucket: [] for bucket in buckets}
            for version in ours.versions(holding.keys(), count):
                holding[ours.bucket_of(version, count)].append(version)
            yield (Atom("held"), self._name, number, count, write_held(holding))

    def _held(self, peer: Atom, message: Message, now: float, wall_ms: int) -> list[Order]:
        _, _, number, count, parts = message
        ours = self._state.comparable()
        held = read_held(count, parts)
        if ours is None or held is None:
            return self._refuse("bad_digest")
        theirs = {version for versions in held.values() for version in versions}
        mine = ours.versions(held.keys(), count)
        lacking = [part for version, part in mine.items() if version not in theirs]
        wanted = write_numbers([version for versions in held.values() for version in versions if version not in mine])
        orders = self._send(peer, self._syncs(ours.deltas(lacking)))
        return orders + self._send(peer, iter([(Atom("wanted"), self._name, number, wanted)]))

    def _wanted(self, peer: Atom, message: Message, now: float, wall_ms: int) -> list[Order]:
        _, _, number, data = message
        mine, ours = self._rounds.get(peer), self._state.comparable()
        if mine is None or mine.number != number or mine.unanswered <= 0 or ours is None:
            return []
        versions = read_versions(data)
        if versions is None:
            return self._refuse("bad_digest")
        mine.unanswered -= 1
        mine.began = now
        orders: list[Order] = []
        if versions:
            here = ours.versions({ours.bucket_of(version, MAX_COUNT) for version in versions}, MAX_COUNT)
            parts = [here[version] for version in versions if version in here]
            orders = self._send(peer, self._syncs(ours.deltas(parts)))
        return orders if mine.unanswered else orders + self._ask_again(peer, mine, now, wall_ms)

    # --- rounds -------------------------------------------------------------------------------------------------------

    def _compare(self, peer: Atom, now: float) -> list[Order]:
        """Begin a round, unless one is under way."""
        one = self._rounds.get(peer)
        if one is not None and now - one.began < ROUND_S:
            return []
        return self._begin(peer, now, last=False)

    def _ask_again(self, peer: Atom, one: Round, now: float, wall_ms: int) -> list[Order]:
        """All is sent: compare again, to find out that we are equal now; but not for ever if writes go on."""
        if one.last:
            self._rounds.pop(peer, None)
            return []
        return self._begin(peer, now, last=True)

    def _begin(self, peer: Atom, now: float, *, last: bool) -> list[Order]:
        self._number += 1
        number = self._number
        one = self._rounds[peer] = Round(number, now, last)
        known = self._peers.get(peer)
        testify = known is not None and (known.testified is None or now - known.testified >= TESTIMONY_S)
        return self._send(peer, self._digest_when_sent(one, testify))

    def _digest_when_sent(self, one: Round, testify: bool) -> Iterator[Message]:
        """The digest as of the moment when it goes out, behind all that waits before it."""
        ours = self._state.comparable()
        assert ours is not None
        one.began = self._now
        testimony = ours.testimony(self._wall_ms) if testify else None
        yield (Atom("digest"), self._name, one.number, ours.root(), testimony)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _send_whole(self, peer: Atom, wall_ms: int) -> list[Order]:
        known = self._peers.get(peer)
        python = known is not None and known.python
        messages = self._syncs(self._state.snapshot(wall_ms, python=python))
        return self._sent(self._outflows.copy(peer, messages))

    def _syncs(self, deltas: Iterator[Any]) -> Iterator[Message]:
        return ((Atom("full_sync"), self._name, delta) for delta in deltas)

    def _send(self, peer: Atom, messages: Iterator[Message]) -> list[Order]:
        return self._sent(self._outflows.send(peer, messages))

    def _sent(self, orders: list[Order] | None) -> list[Order]:
        return self._refuse(self._outflows.refused) if orders is None else orders

    def _drained(self, fact: Drained, now: float, wall_ms: int) -> list[Order]:
        return self._outflows.drained(fact.peer)


__all__ = ["ANTI_ENTROPY_S", "TESTIMONY_S", "Comparable", "Replica"]
