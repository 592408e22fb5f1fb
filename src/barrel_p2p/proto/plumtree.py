"""How a broadcast reaches every node: Plumtree, a tree of links that carry it in full, repaired by announcements.

A pure machine over the links of ``hyparview``, whose events are facts here. After J. Leitao, J. Pereira, L. Rodrigues,
"Epidemic Broadcast Trees", SRDS 2007; on the wire it is upstream's dialect (``plumtree_wire``).

=========  =========================================================================================================
eager      neighbours that get broadcasts in full: the branches of the tree; a new neighbour starts here
lazy       neighbours that only get the ids (IHAVE)
seen       ids of the last five minutes: a broadcast is delivered once
cache      the broadcasts themselves, for who asks
missing    ids that were announced and have not come, with their announcers
=========  =========================================================================================================

A broadcast that comes a second time shows that its link is not needed: PRUNE makes it lazy on both sides. One that was
announced and does not come within a second shows that the tree is broken: GRAFT fetches it from an announcer and makes
that link eager on both sides.

Departures from the paper, none of which an Erlang node can tell from its own kind:

- Announcements are sent at once and one by one: upstream's message holds one id, and no hop count. So there is no
  optimisation by hops; ``optimize_ms`` offers one by time.
- A GRAFT that brings nothing is tried with each announcer in turn, then again, up to ``max_grafts`` times.
- A new Python neighbour is told what was received lately: while a link was replaced neither end could announce to
  the other, and a node cut off for some seconds misses nothing.
- Everything is bounded (see ``plumtree_config``), by count, bytes and age.

Erlang nodes. One that takes us into its view because of a NEIGHBOR tells nobody, its own broadcast included, and would
send us nothing. A GRAFT for an id that nobody has makes it send, and asks for nothing else.

Strangers. A message may come from a peer outside the view: one we dropped just now, or an Erlang node that took us in
without a word. Its broadcasts count as any other, it becomes no branch of the tree, and the membership gets a hint.
Erlang nodes known to have us in their view (``PeerLingers``) are kept as lazy peers until their channel is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any, ClassVar, Final

from barrel_p2p.proto.fact_machine import FactMachine
from barrel_p2p.proto.hyparview_events import Kind
from barrel_p2p.proto.plumtree_cache import Cache
from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.proto.plumtree_events import (
    BroadcastRequested,
    Deliver,
    Fact,
    Gossip,
    Graft,
    Hint,
    IHave,
    JoinFailed,
    Left,
    Message,
    MessageReceived,
    Order,
    PeerDown,
    PeerLingers,
    PeerLost,
    PeerUp,
    Prune,
    Send,
    StartTimer,
    TimerFired,
)

CLEANUP_PERIOD: Final = 60.0  # seconds; upstream's value
NO_ID: Final = b"barrel_p2p: graft the link alone"  # an id nobody has: asks for nothing but an eager link


@dataclass(slots=True)
class _Missing:
    """A broadcast that was announced: by whom, and since when."""

    since: float
    owner: str  # who announced it first, on whose account it is
    announcers: list[str] = field(default_factory=list)
    grafts: int = 0


def new_id(rng: Random) -> bytes:
    """A fresh id for a broadcast: 32 bytes, as long as upstream's."""
    return rng.randbytes(32)


class Plumtree(FactMachine[Fact, Order]):
    """The broadcasts of one node::

        orders = plumtree.handle(BroadcastRequested(new_id(rng), Atom("chat"), b"hello"), now=loop.time())

    Args:
        name: our node name.
        config: the settings.
    """

    __slots__ = ("_cache", "_eager", "_lazy", "_missing", "_owned", "_waits", "_wake", "config", "name")

    def __init__(self, name: str, config: PlumtreeConfig) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self._eager: dict[str, Kind] = {}
        self._lazy: dict[str, Kind] = {}
        self._cache = Cache(config)
        self._missing: dict[bytes, _Missing] = {}
        self._owned: dict[str, int] = {}  # entries of ``missing`` on a peer's account
        self._waits: list[tuple[float, bytes]] = []  # heap of when to ask for what is missing
        self._wake: float | None = None  # when the timer ``graft`` fires

    @property
    def eager(self) -> list[str]:
        """Neighbours that get broadcasts in full."""
        return list(self._eager)

    @property
    def lazy(self) -> list[str]:
        """Neighbours that get announcements."""
        return list(self._lazy)

    @property
    def missing(self) -> int:
        """Broadcasts that were announced and have not come."""
        return len(self._missing)

    def knows(self, id: bytes) -> bool:
        """Whether the broadcast was delivered here, as far as is remembered."""
        return id in self._cache.seen

    # --- what the membership tells ------------------------------------------------------------------------------------

    def _peer_up(self, fact: PeerUp) -> None:
        self._lazy.pop(fact.peer, None)
        self._eager[fact.peer] = fact.kind
        if fact.kind == "python":
            since = self._now - self.config.announce_ms / 1000
            for id in self._cache.latest(self.config.max_announced, since):
                self._out.append(Send(fact.peer, IHave(id)))
        else:
            self._out.append(Send(fact.peer, Graft(NO_ID)))

    def _peer_down(self, fact: PeerDown | PeerLost) -> None:
        self._eager.pop(fact.peer, None)
        self._lazy.pop(fact.peer, None)

    def _peer_lingers(self, fact: PeerLingers) -> None:
        if fact.peer not in self._eager and len(self._lazy) < self.config.max_strangers:
            self._lazy[fact.peer] = "erlang"

    def _left(self, fact: Left) -> None:
        self._eager.clear()
        self._lazy.clear()

    def _ignore(self, fact: JoinFailed) -> None:
        pass

    # --- broadcasts ---------------------------------------------------------------------------------------------------

    def _broadcast(self, fact: BroadcastRequested) -> None:
        if fact.id not in self._cache.seen:
            self._take(Gossip(fact.id, fact.tag, fact.payload, fact.size), None)

    def _gossip(self, peer: str, message: Gossip) -> None:
        if message.id in self._cache.seen:
            self._out.append(Send(peer, Prune()))
            self._make_lazy(peer)
            return
        entry = self._drop_missing(message.id) if self._missing else None
        self._take(message, peer)
        self._make_eager(peer)
        if entry is not None and self.config.optimize_ms:
            self._optimize(peer, entry)

    def _take(self, message: Gossip, peer: str | None) -> None:
        """Deliver a new broadcast and pass it on."""
        if self._cache.add(message, self._now):
            self._out.append(StartTimer("cleanup", self._now + CLEANUP_PERIOD))
        out = self._out
        out.append(Deliver(message.id, message.tag, message.payload, peer))
        for other in self._eager:
            if other != peer:
                out.append(Send(other, message))
        if self._lazy:
            announcement = IHave(message.id)
            for other in self._lazy:
                if other != peer:
                    out.append(Send(other, announcement))

    def _optimize(self, peer: str, entry: _Missing) -> None:
        """``peer`` brought what another had announced long before: take that link, too. The next broadcast comes over
        both, and the second copy prunes the slower one; to prune it here would leave neither for a moment."""
        faster = entry.announcers[0]
        if faster != peer and faster in self._lazy and self._now - entry.since >= self.config.optimize_ms / 1000:
            self._make_eager(faster)
            self._out.append(Send(faster, Graft(NO_ID)))

    def _prune(self, peer: str, message: Prune) -> None:
        self._make_lazy(peer)

    def _make_lazy(self, peer: str) -> None:
        kind = self._eager.pop(peer, None)
        if kind is not None:
            self._lazy[peer] = kind

    def _make_eager(self, peer: str) -> None:
        if peer not in self._eager:
            kind = self._lazy.pop(peer, None)
            if kind is not None:
                self._eager[peer] = kind
            else:
                self._out.append(Hint(peer))

    # --- repair of the tree -------------------------------------------------------------------------------------------

    def _ihave(self, peer: str, message: IHave) -> None:
        id = message.id
        if id in self._cache.seen:
            return
        entry = self._missing.get(id)
        if entry is None:
            owned = self._owned.get(peer, 0)
            if len(self._missing) >= self.config.max_missing or owned * 4 >= self.config.max_missing:
                return
            self._owned[peer] = owned + 1
            entry = self._missing[id] = _Missing(self._now, peer)
            self._wait(id, self.config.graft_ms / 1000)
        if len(entry.announcers) < self.config.max_announcers and peer not in entry.announcers:
            entry.announcers.append(peer)

    def _graft(self, peer: str, message: Graft) -> None:
        self._make_eager(peer)
        gossip = self._cache.get(message.id)
        if gossip is not None:
            self._out.append(Send(peer, gossip))

    def _graft_tick(self) -> None:
        self._wake = None
        while self._waits and self._waits[0][0] <= self._now:
            _, id = heappop(self._waits)
            entry = self._missing.get(id)
            if entry is not None:
                self._ask_for(id, entry)
        if self._waits:
            self._wake_at(self._waits[0][0])

    def _ask_for(self, id: bytes, entry: _Missing) -> None:
        if entry.grafts >= self.config.max_grafts:
            self._drop_missing(id)
            return
        rounds = entry.grafts // len(entry.announcers)
        peer = self._announcer(entry)
        entry.grafts += 1
        self._out.append(Send(peer, Graft(id)))
        self._make_eager(peer)
        self._wait(id, self.config.graft_retry_ms / 1000 * 2**rounds)

    def _announcer(self, entry: _Missing) -> str:
        """The one not asked for longest, of those still linked if any is."""
        linked = (p for p in entry.announcers if p in self._eager or p in self._lazy)
        peer = next(linked, entry.announcers[0])
        entry.announcers.remove(peer)
        entry.announcers.append(peer)
        return peer

    def _wait(self, id: bytes, seconds: float) -> None:
        at = self._now + seconds
        heappush(self._waits, (at, id))
        self._wake_at(at)

    def _wake_at(self, at: float) -> None:
        if self._wake is None or at < self._wake:
            self._wake = at
            self._out.append(StartTimer("graft", at))

    def _drop_missing(self, id: bytes) -> _Missing | None:
        entry = self._missing.pop(id, None)
        if entry is not None:
            left = self._owned[entry.owner] - 1
            if left:
                self._owned[entry.owner] = left
            else:
                del self._owned[entry.owner]
        return entry

    # --- dispatch -----------------------------------------------------------------------------------------------------

    def _received(self, fact: MessageReceived) -> None:
        message = fact.message
        self._messages[type(message)](self, fact.peer, message)

    def _timer_fired(self, fact: TimerFired) -> None:
        if fact.timer == "graft":
            self._graft_tick()
        elif self._cache.expire(self._now):
            self._out.append(StartTimer("cleanup", self._now + CLEANUP_PERIOD))

    _facts: ClassVar[dict[type, Callable[[Plumtree, Any], None]]] = {
        PeerUp: _peer_up,
        PeerDown: _peer_down,
        PeerLost: _peer_down,
        PeerLingers: _peer_lingers,
        JoinFailed: _ignore,
        Left: _left,
        BroadcastRequested: _broadcast,
        MessageReceived: _received,
        TimerFired: _timer_fired,
    }
    _messages: ClassVar[dict[type[Message], Callable[[Plumtree, str, Any], None]]] = {
        Gossip: _gossip,
        IHave: _ihave,
        Graft: _graft,
        Prune: _prune,
    }


__all__ = ["NO_ID", "Plumtree", "new_id"]
