"""Asking the overlay who offers a service: for names that gossip has not brought to a node.

Whoever looks for a name asks its neighbours, these theirs, and so on for a few hops; the answer goes back the same way.
Upstream's messages (``routing_wire``) and rules, so that Erlang nodes ask us and we them. A pure machine; what this
node knows itself and who its neighbours are comes with the facts.

States: a *search* is a user's or another node's wish for one name; it has a few *asks* open, each at one neighbour.
The first answer that found something ends it, and whatever comes later finds no ask.

Departures from upstream, whose nodes can't tell:

- up to ``RACE`` neighbours are asked at once, not one after the other with 5 seconds for each;
- each hop waits less than the one before it, so that it answers while somebody still listens;
- a request for a name that is already being searched here for the same origin is answered ``not_found``: it came here
  by another way, and the race would else spread over all paths instead of all nodes;
- an answer comes from all we know of the cluster, not only from our own services, also to a request at its last hop.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from barrel_p2p.crdt.keys import term_key
from barrel_p2p.term.types import Atom, Pid

TTL: Final = 5  # hops from the origin, upstream's
RACE: Final = 3  # neighbours that are asked at the same time; a guess
WAIT_S: Final = 5.0  # for the whole of a user's search; upstream's for one neighbour
HOP_WAIT_S: Final = 0.9  # times the hops that are left: at most 3.6 s, and Erlang nodes wait for 5
MAX_SEARCHES: Final = 256  # for other nodes at the same time, upstream's router_max_in_flight
MAX_VISITED: Final = 64  # nodes in one request; a guess: no path is longer than ``TTL``

Where = tuple[Atom, Pid]
Failure = Literal["not_found", "ttl_expired", "overloaded"]

# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sought:
    """A user looks for a service; ``Found`` will bear ``token``."""

    token: Hashable
    name: Any
    neighbours: Sequence[Atom]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The user does not wait any more."""

    token: Hashable


@dataclass(frozen=True, slots=True)
class Request:
    """What a node asks."""

    name: Any
    ttl: int
    origin: Atom
    visited: tuple[Atom, ...]


@dataclass(frozen=True, slots=True)
class Requested:
    """``peer`` asks; ``here`` is what this node knows of the name."""

    peer: Atom
    request: Request
    reply_to: Any
    here: Where | None
    neighbours: Sequence[Atom]


@dataclass(frozen=True, slots=True)
class Answered:
    """The neighbour of an ``Ask`` answered; None: it found nothing."""

    ask: int
    where: Where | None


@dataclass(frozen=True, slots=True)
class PeerLost:
    """There is no channel to ``peer``, or none any more."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of ``StartTimer`` has come."""

    search: int


Fact = Sought | Abandoned | Requested | Answered | PeerLost | TimerFired

# --- orders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request to a neighbour; its answer is ``Answered(ask)``."""

    ask: int
    peer: Atom
    request: Request


@dataclass(frozen=True, slots=True)
class Forget:
    """Nobody waits for the answer to an ``Ask`` any more."""

    ask: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request."""

    reply_to: Any
    answer: Where | Failure


@dataclass(frozen=True, slots=True)
class Found:
    """The end of a user's search."""

    token: Hashable
    where: Where | None


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Tell ``TimerFired(search)`` at ``at`` (monotonic seconds)."""

    search: int
    at: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """A search is over."""

    search: int


Order = Ask | Forget | Reply | Found | StartTimer | StopTimer

# --- the machine ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Search:
    request: Request  # as it is passed on
    key: Hashable
    left: list[Atom]  # neighbours to be asked yet
    reply_to: Any
    tokens: dict[Hashable, None] = field(default_factory=dict)  # users that wait
    asks: dict[int, Atom] = field(default_factory=dict)


class Routing:
    """The searches of one node::

        orders = routing.handle(Sought(1, "db", neighbours), now=now)

    Args:
        rng: the order in which neighbours are asked.
    """

    def __init__(self, name: Atom, *, rng: random.Random) -> None:
        self._name = name
        self._rng = rng
        self._searches: dict[int, _Search] = {}
        self._by_key: dict[Hashable, int] = {}
        self._of_ask: dict[int, int] = {}
        self._serving = 0
        self._number = 0

    def handle(self, fact: Fact, *, now: float) -> list[Order]:
        """Take a fact (``now`` in monotonic seconds) and return the orders that follow from it."""
        match fact:
            case Sought():
                return self._sought(fact, now)
            case Requested():
                return self._requested(fact, now)
            case Answered(ask, where):
                return self._answered(ask, where)
            case PeerLost(peer):
                return self._lost(peer)
            case Abandoned(token):
                return self._abandoned(token)
            case TimerFired(search):
                return self._end(search, None) if search in self._searches else []

    @property
    def serving(self) -> int:
        """Searches for other nodes that are under way."""
        return self._serving

    def _sought(self, fact: Sought, now: float) -> list[Order]:
        key = (term_key(fact.name), self._name)
        under_way = self._by_key.get(key)
        if under_way is not None:
            self._searches[under_way].tokens[fact.token] = None
            return []
        request = Request(fact.name, TTL - 1, self._name, (self._name,))
        search = self._begin(request, key, fact.neighbours, None)
        self._searches[search].tokens[fact.token] = None
        return self._go_on(search) or [StartTimer(search, now + WAIT_S), *self._asked(search)]

    def _requested(self, fact: Requested, now: float) -> list[Order]:
        asked = fact.request
        if fact.here is not None:
            return [Reply(fact.reply_to, fact.here)]
        if asked.ttl <= 0:
            return [Reply(fact.reply_to, "ttl_expired")]
        key = (term_key(asked.name), asked.origin)
        if asked.origin == self._name or key in self._by_key:
            return [Reply(fact.reply_to, "not_found")]
        if self._serving >= MAX_SEARCHES:
            return [Reply(fact.reply_to, "overloaded")]
        ttl = min(asked.ttl, TTL) - 1
        shunned = {*asked.visited, asked.origin, fact.peer}
        neighbours = [peer for peer in fact.neighbours if peer not in shunned] if ttl > 0 else []
        request = Request(asked.name, ttl, asked.origin, (self._name, *asked.visited))
        self._serving += 1
        search = self._begin(request, key, neighbours, fact.reply_to)
        return self._go_on(search) or [StartTimer(search, now + HOP_WAIT_S * ttl), *self._asked(search)]

    def _begin(self, request: Request, key: Hashable, neighbours: Sequence[Atom], reply_to: Any) -> int:
        left = sorted(neighbours)
        self._rng.shuffle(left)
        self._number += 1
        self._searches[self._number] = _Search(request, key, left, reply_to)
        self._by_key[key] = self._number
        return self._number

    def _go_on(self, number: int) -> list[Order]:
        """Open as many asks as the race has room for; orders only if there is nobody to ask: the end."""
        search = self._searches[number]
        while search.left and len(search.asks) < RACE:
            self._number += 1
            search.asks[self._number] = search.left.pop()
            self._of_ask[self._number] = number
        return [] if search.asks else self._end(number, None)

    def _asked(self, number: int, after: int = 0) -> list[Order]:
        search = self._searches[number]
        return [Ask(ask, peer, search.request) for ask, peer in search.asks.items() if ask > after]

    def _answered(self, ask: int, where: Where | None) -> list[Order]:
        number = self._of_ask.pop(ask, None)
        if number is None:
            return []
        del self._searches[number].asks[ask]
        if where is not None:
            return self._end(number, where)
        newest = self._number
        return self._go_on(number) or self._asked(number, after=newest)

    def _lost(self, peer: Atom) -> list[Order]:
        orders: list[Order] = []
        for number in list(self._searches):
            search = self._searches[number]
            search.left = [other for other in search.left if other != peer]
            for ask in [ask for ask, asked in search.asks.items() if asked == peer]:
                orders += [Forget(ask), *self._answered(ask, None)]
        return orders

    def _abandoned(self, token: Hashable) -> list[Order]:
        for number, search in self._searches.items():
            if token in search.tokens:
                del search.tokens[token]
                return [] if search.tokens else self._end(number, None)
        return []

    def _end(self, number: int, where: Where | None) -> list[Order]:
        search = self._searches.pop(number)
        del self._by_key[search.key]
        orders: list[Order] = [StopTimer(number)]
        for ask in search.asks:
            del self._of_ask[ask]
            orders.append(Forget(ask))
        orders += [Found(token, where) for token in search.tokens]
        if search.request.origin != self._name:
            self._serving -= 1
            orders.append(Reply(search.reply_to, where or "not_found"))
        return orders


__all__ = [
    "MAX_SEARCHES",
    "MAX_VISITED",
    "RACE",
    "TTL",
    "WAIT_S",
    "Abandoned",
    "Answered",
    "Ask",
    "Fact",
    "Forget",
    "Found",
    "Order",
    "PeerLost",
    "Reply",
    "Request",
    "Requested",
    "Routing",
    "Sought",
    "StartTimer",
    "StopTimer",
    "TimerFired",
]
