"""A malicious member of a simulated cluster: it takes part as all do, and says what nobody should.

It knows what a member can know. What honest nodes send is taken down, bent in all ways that come to mind, and sent to
honest nodes under the names that real messages go to, at a steady rate: fields swapped, numbers huge or below zero,
other nodes' names as the source, stamps from far ahead and behind, too deep, too long, again, of the wrong type, as
bytes that are no term; and terms made up from nothing in the envelopes of the protocols.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Final

from barrel_p2p.errors import EncodeError
from barrel_p2p.node.idle import NAME as CHANNELS
from barrel_p2p.node.lives import NEWS, OURS, UPSTREAMS
from barrel_p2p.node.replication import REPLICA
from barrel_p2p.proto import hyparview_wire, plumtree_wire, routing_wire
from barrel_p2p.services.registry import REPLICA as REGISTRY
from barrel_p2p.term.codec import encode
from barrel_p2p.term.types import Atom, ImproperList, Pid, Reference
from barrel_p2p.testing.member import Member
from barrel_p2p.testing.services import Services
from barrel_p2p.testing.shared import ANSWERS, INSTANCES, WALL_MS, service_of

PROCESSES: Final = (hyparview_wire.PROCESS, plumtree_wire.PROCESS, routing_wire.PROCESS, NEWS, CHANNELS, ANSWERS)
HEARD: Final = 24  # messages that are remembered of each kind
WEIGHT: Final = 8192  # bytes of one that is worth remembering
NAMES: Final = 400  # of nodes that don't exist
DAY_MS: Final = 86_400_000
LONG: Final = 2000  # elements of a long list
LARGE: Final = 100_000  # bytes of a large binary
WORDS: Final = (
    "value", "tombstone", "timestamp", "true", "false", "undefined", "peer", "high", "low", "delta", "custom", "digest",
    "full_sync", "request_sync", "agreed", "buckets", "held", "wanted", "gossip", "ihave", "graft", "prune", "join",
    "forward_join", "neighbor", "neighbor_reply", "shuffle", "shuffle_reply", "disconnect", "close", "refused", "alive",
    "service_entry", "$down", "$reason", "", "x" * 255,
)  # fmt: skip
NUMBERS: Final = (
    0, 1, -1, 2, 6, 7, 32, 255, 256, 1024, 65535, 65536, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 48, (1 << 63) - 1,
    1 << 63, 1 << 64, -(1 << 63), 1 << 4000, -(1 << 4000), WALL_MS, WALL_MS + DAY_MS, WALL_MS - DAY_MS,
)  # fmt: skip
AHEAD_MS: Final = (
    0, 1, -1, 1000, 59_000, 61_000, -DAY_MS, DAY_MS - 1, DAY_MS, DAY_MS + 1, 1 << 40, -(1 << 50),
)  # fmt: skip
COUNTS: Final = (0, 1, 7, (1 << 16) - 1, (1 << 31) - 2, 1 << 31, 1 << 32, -1)


class Malice:
    """Makes ``member`` malicious from now on.

    Args:
        per_minute: messages that it sends beside those of an honest member.
        until_ms: when it gives up, and is as honest as the others.
    """

    def __init__(self, cluster: Services, member: Member, *, per_minute: float, until_ms: int) -> None:
        self._cluster = cluster
        self._member = member
        self._every_ms = 60_000 / per_minute
        self._until_ms = until_ms
        self._rng = Random(cluster.rng.getrandbits(64))
        self._heard: dict[tuple[Atom, str], deque[Any]] = {}
        self._bender = Bender(
            self._rng,
            Atom(member.name),
            members=lambda: [Atom(name) for name in cluster.members],
            wall_ms=lambda: WALL_MS + cluster.clock.ms,
        )
        self._begun_ms = cluster.clock.ms
        self.sent = 0
        member.malicious = True
        if self._rng.random() < 0.3:
            member.kind = "erlang"  # on its next channels: what honest nodes do for the other kind is tried as well
        cluster.overhear = self._overhear
        cluster.clock.at(cluster.clock.ms, self._act)

    def _overhear(self, name: Atom, term: Any) -> None:
        kept = self._heard.setdefault((name, _kind(term)), deque(maxlen=HEARD))
        if (len(kept) < HEARD or self._rng.random() < 0.01) and plumtree_wire.weigh(term) <= WEIGHT:
            kept.append(term)

    def _act(self, _: Any, __: Any, ___: Any) -> None:
        cluster, member, rng = self._cluster, self._member, self._rng
        if cluster.clock.ms >= self._until_ms:
            return
        cluster.clock.at(int(self._begun_ms + (self.sent + 1) * self._every_ms), self._act)
        self.sent += 1
        targets = cluster.honest
        target = targets[int(rng.random() * len(targets))]
        end = member.ends.get(target.name)
        if end is None:
            cluster.network.connect(member, target.name)
            if not member.ends:
                return
            end = list(member.ends.values())[int(rng.random() * len(member.ends))]
        name, term = self._message()
        try:
            data = encode(term)
        except (EncodeError, RecursionError):
            return  # this is one that it can't say
        if rng.random() < 0.005:
            data = self._bender.bytes_bent(data)
        cluster.post_bytes(end, name, data)

    def _message(self) -> tuple[Atom, Any]:
        rng = self._rng
        if rng.random() < 0.4 or not self._heard:
            return self._bender.invented()
        kinds = list(self._heard)
        name, kind = kinds[int(rng.random() * len(kinds))]
        kept = self._heard[name, kind]
        if not kept:
            return self._bender.invented()
        term = kept[int(rng.random() * len(kept))]
        if rng.random() < 0.1:
            return name, term  # the words of another node, again
        return name, self._bender.bent(term)


class Bender:
    """Bends terms, and makes some up.

    Args:
        me: the name of the node that will send them.
        members: the names of all nodes.
        wall_ms: the time, for stamps.
    """

    def __init__(self, rng: Random, me: Atom, *, members: Callable[[], list[Atom]], wall_ms: Callable[[], int]) -> None:
        self._rng = rng
        self._me = me
        self._members = members
        self._wall_ms = wall_ms
        self._strangers = [Atom(f"nobody{number}@nowhere") for number in range(NAMES)]

    def bent(self, term: Any) -> Any:
        """``term`` with some things in it changed, mostly in this node's own name."""
        rng = self._rng
        if rng.random() < 0.8:
            term = self._in_my_name(term, 3)
        share = rng.choice((0.0, 1, 2, 4)) / max(_size(term), 1)
        return self._bend(term, share)

    def _in_my_name(self, term: Any, depth: int) -> Any:
        """The outer parts of a term with every node in them replaced: who claims to be another is not heard at all."""
        if isinstance(term, Atom) and "@" in term:
            return self._me
        if isinstance(term, Pid) and depth < 3:
            return Pid(self._me, term.id, term.serial, term.creation)
        if isinstance(term, tuple) and depth and len(term) != 10:
            return tuple(self._in_my_name(part, depth - 1) for part in term)
        if isinstance(term, tuple) and len(term) == 10:
            return (term[0], self._node(), *term[2:]) if self._rng.random() < 0.5 else (term[0], self._me, *term[2:])
        return term

    def _bend(self, term: Any, share: float) -> Any:
        if self._rng.random() < share:
            return self._other(term)
        if isinstance(term, tuple):
            if len(term) == 3 and term[0] == "timestamp" and self._rng.random() < 0.3:
                return self._stamp()
            return tuple(self._bend(part, share) for part in term)
        if isinstance(term, list):
            return [self._bend(part, share) for part in term]
        if isinstance(term, dict):
            return dict(self._pairs(term.items(), share))
        return term

    def _pairs(self, items: Any, share: float) -> Any:
        for key, value in items:
            bent = self._bend(key, share)
            try:
                hash(bent)
            except TypeError:
                bent = key
            yield bent, self._bend(value, share)

    def _other(self, term: Any) -> Any:
        rng = self._rng
        if rng.random() < 0.25:
            return self.invention(3)
        if isinstance(term, bool) or term is None:
            return rng.choice((not term, 1, Atom("maybe")))
        if isinstance(term, int):
            return rng.choice((*NUMBERS, term + 1, term - 1, -term, term * 1000, float(term % 1000)))
        if isinstance(term, Atom):
            return self._node() if "@" in term else Atom(rng.choice(WORDS))
        if isinstance(term, bytes):
            return rng.choice((b"", term[:-1], term + b"\0", term * 2, self.bytes_bent(term), term.hex(), b"x" * LARGE))
        if isinstance(term, tuple):
            return self._other_tuple(term)
        if isinstance(term, list):
            return rng.choice(([], term * 2, tuple(term), self._long(term), [term], [*term, self.invention(2)]))
        if isinstance(term, dict):
            extra = {self.key(): self.invention(2) for _ in range(rng.choice((1, 3, 50)))}
            return rng.choice(({}, {**term, **extra}, list(term.items()), extra))
        if isinstance(term, Pid):
            return Pid(self._node(), rng.randrange(1 << 32), rng.randrange(1 << 32), term.creation)
        return self.invention(3)

    def _other_tuple(self, term: tuple[Any, ...]) -> Any:
        rng = self._rng
        parts = list(term)
        if len(parts) > 1:
            one, two = rng.sample(range(len(parts)), 2)
            parts[one], parts[two] = parts[two], parts[one]
        return rng.choice((tuple(parts), term[1:], term[:-1], (*term, self.invention(2)), list(term), (term,), ()))

    def _long(self, term: list[Any]) -> list[Any]:
        seeds = term or [self.invention(2)]
        return [seeds[at % len(seeds)] for at in range(self._rng.choice((10, 65, 300, LONG)))]

    def bytes_bent(self, data: bytes) -> bytes:
        """Bytes with one bit wrong, or an end missing."""
        rng = self._rng
        if not data or rng.random() < 0.2:
            return data[: int(rng.random() * len(data))]
        at = int(rng.random() * len(data))
        return data[:at] + bytes([data[at] ^ 1 << int(rng.random() * 8)]) + data[at + 1 :]

    # --- made up ------------------------------------------------------------------------------------------------------

    def invented(self) -> tuple[Atom, Any]:
        """A message that nobody sent before: a name, and what is sent to it."""
        rng = self._rng
        word, some = Atom(rng.choice(WORDS)), [self.invention(3) for _ in range(rng.randrange(5))]
        if rng.random() < 0.4:
            instance = rng.choice(INSTANCES)
            broadcast = rng.random() < 0.5
            body = (Atom("delta") if broadcast else Atom("full_sync"), self._node(), self._delta(instance))
            if broadcast:
                id = rng.randbytes(32)
                return plumtree_wire.PROCESS, (plumtree_wire.TAG, (Atom("gossip"), id, instance, body, self._me))
            return instance, (REPLICA, body)
        name = rng.choice((*PROCESSES, *INSTANCES))
        if name == hyparview_wire.PROCESS:
            return name, (hyparview_wire.TAG, self._me, (word, *some, self._me))
        if name == plumtree_wire.PROCESS:
            number = rng.choice((rng.randbytes(32), b"", b"x" * 65, 7))
            return name, (plumtree_wire.TAG, (word, number, *some, self._me))
        if name == NEWS:
            return name, {self._node(): (rng.choice(NUMBERS), rng.choice(NUMBERS)) for _ in range(rng.randrange(30))}
        return name, rng.choice(((REPLICA, (word, *some)), (word, *some), self.invention(4)))

    def _delta(self, instance: Atom) -> Any:
        """Entries as the instance has them, of whom it pleases."""
        rng = self._rng
        entries: dict[Any, Any] = {}
        for _ in range(rng.choice((1, 1, 1, 3, 20))):
            node = self._node()
            stamp, number = self._stamp(), rng.choice(NUMBERS)
            key, value = self.key(), self.invention(2)
            if instance == REGISTRY:
                service = service_of(self._node()) if rng.random() < 0.5 else Atom(rng.choice(WORDS))
                key = (service, node)
                value = (Atom("service_entry"), service, Pid(node, rng.randrange(1 << 20), 0, 1), node, {})
            elif instance == UPSTREAMS:
                key, value = node, (Atom("alive"), number)
            if instance == OURS:
                entries[node] = (number, rng.choice(NUMBERS))
            elif rng.random() < 0.3:
                entries[key] = (Atom("tombstone"), stamp)
            else:
                entries[key] = (Atom("value"), value, {(node, stamp): True})
        return entries

    def _stamp(self) -> Any:
        return (Atom("timestamp"), self._wall_ms() + self._rng.choice(AHEAD_MS), self._rng.choice(COUNTS))

    def key(self) -> Any:
        """A key of a map: one of those that honest nodes write, or another."""
        rng = self._rng
        return rng.choice((rng.randrange(16), float(rng.randrange(16)), f"key {rng.randrange(300)}", (1, (2.0, b"x"))))

    def invention(self, depth: int) -> Any:
        """Any term."""
        rng = self._rng
        choice = rng.random()
        if depth > 0 and choice < 0.35:
            parts = [self.invention(depth - 1) for _ in range(rng.randrange(4))]
            kind = rng.randrange(4)
            if kind == 0:
                return tuple(parts)
            if kind == 1:
                return parts
            if kind == 2:
                return {self.key(): part for part in parts}
            return ImproperList(tuple(parts) or (1,), 2)
        if choice < 0.37:
            return self._deep(rng.choice((33, 100, 400, 600)))
        if choice < 0.39:
            return [0] * LONG
        made = (
            rng.choice(NUMBERS),
            Atom(rng.choice(WORDS)),
            self._node(),
            rng.randbytes(rng.choice((0, 1, 8, 32, 64, 65, 8192))),
            rng.random() * 10 ** rng.randrange(-300, 300),
            Pid(self._node(), rng.randrange(1 << 32), rng.randrange(1 << 32), rng.randrange(1 << 32)),
            Reference(self._node(), rng.randrange(1 << 32), (rng.randrange(1 << 18), 2, 3)),
            rng.choice(("", "text", "@", "a@b", "\U0001f600" * 300)),
            rng.choice((True, False, None)),
            self._stamp(),
        )
        return rng.choice(made)

    def _deep(self, levels: int) -> Any:
        term: Any = 0
        for _ in range(levels):
            term = [term] if self._rng.random() < 0.5 else (term,)
        return term

    def _node(self) -> Atom:
        rng = self._rng
        choice = rng.random()
        if choice < 0.5:
            return rng.choice(self._members())
        if choice < 0.95:
            return rng.choice(self._strangers)
        return Atom(rng.choice(("@", "a@", "@b", "no name", "a@b@c", "x" * 200 + "@h", "n0@sim\n")))


def _kind(term: Any) -> str:
    """What sort of message it is, so that rare ones are remembered beside those that are sent all the time."""
    while isinstance(term, tuple) and term and isinstance(term[-1], tuple) and term[0] != "route_request":
        term = term[-1]
    if not isinstance(term, tuple) or not term:
        return type(term).__name__
    return f"{term[0]} {term[2]}" if term[0] == "gossip" else str(term[0])


def _size(term: Any) -> int:
    """How many parts a term has."""
    count, todo = 0, [term]
    while todo:
        part = todo.pop()
        count += 1
        if isinstance(part, (tuple, list)):
            todo.extend(part)
        elif isinstance(part, dict):
            todo.extend(part)
            todo.extend(part.values())
    return count


__all__ = ["Bender", "Malice"]
