"""Which nodes of this library live: each tells, again and again, for how long its word holds.

A word is ``#{Node => {Number, LeaseMs}}``; whoever hears a greater number than before counts the lease from then on.
One that has run out, or a lease of 0 (the node stops), means that the node is dead. Gray and Cheriton, "Leases", SOSP
1989, without the server.

A few times per lease each node renews its word, and with every tick it tells its neighbours all words that are news to
it (``news``), with what is left of each lease: one small message per neighbour however many nodes there are, after R.
van Renesse, Y. Minsky, M. Hayden, "A Gossip-Style Failure Detection Service", Middleware 1998. A broadcast of each
heartbeat would be some messages per node and second for *every* node, and many that cross each other keep Plumtree's
tree from settling. Erlang neighbours pass no such news on. Who has one therefore also broadcasts, once per beat, what
came from Python neighbours; all others do only when they come (a new neighbour) and go (``Goodbye``).

Beside ``leases``, which is upstream's and is for members that own partitions, this differs on purpose:

- A lease is counted by the time that passes here, not by comparing wall clocks: those of hosts may differ by a minute.
  Numbers are wall times of the sender only so that they grow over its restarts. Told of a greater number of its own, a
  node goes on above it; and it is told, by who remembers it as dead, so that one that starts again with an earlier
  clock is alive at once.
- Time in which we did not run (a stopped process, a blocked loop, a host that slept) doesn't count: we heard nobody
  then. ``Tick`` gives what has passed, and more than ``max_tick_ms`` of it is not believed.
- The number of a dead node is remembered for ``REMEMBER_MS``: copies and broadcasts on their way don't wake it.

It is a ``Replicated``; its changes are ``MemberUp`` and ``MemberDown``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.proto.leases import MAX_MEMBERS, MemberDown, MemberUp
from barrel_p2p.proto.names import is_node_name
from barrel_p2p.proto.replicated import Applied
from barrel_p2p.term.types import Atom

LEASE_MS: Final = 10_000  # a guess: a loop that is blocked for seconds keeps its node alive; upstream has 6,000
MAX_LEASE_MS: Final = 3_600_000  # a guess; longer ones count as this
MAX_AHEAD_MS: Final = 86_400_000  # a day: a number beyond that by our wall clock is no time
REMEMBER_MS: Final = 300_000  # as long as the broadcast keeps messages (``PlumtreeConfig``)


@dataclass(frozen=True, slots=True)
class Tick:
    """``elapsed_ms`` have passed since the last one.

    ``beat``: renew our own lease; ``spread``: broadcast that, and what neighbours told.
    """

    elapsed_ms: int
    beat: bool
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Heard:
    """A neighbour told its news."""

    news: Any


@dataclass(frozen=True, slots=True)
class Goodbye:
    """This node stops: its lease ends now."""


@dataclass(slots=True)
class _Lease:
    number: int
    left_ms: int  # of a dead node: 0 and below, down to -REMEMBER_MS


class NodeLeases:
    """The nodes that one node knows to live::

        applied = leases.write(Tick(1000, beat=True), wall_ms)
        leases.alive(node)

    Args:
        node: our node name; we always live.
        lease_ms: for how long our own word holds.
        max_tick_ms: what a tick counts at most; default: half a lease.
        max_nodes: nodes that are remembered, dead ones too.
    """

    def __init__(
        self,
        node: Atom,
        *,
        lease_ms: int = LEASE_MS,
        max_tick_ms: int | None = None,
        max_nodes: int = MAX_MEMBERS,
    ) -> None:
        self._node = node
        self._lease_ms = lease_ms
        self._max_tick = lease_ms // 2 if max_tick_ms is None else max_tick_ms
        self._max = max_nodes
        self._number = 0
        self._left = False
        self._leases: dict[Atom, _Lease] = {}  # of the others
        self._news: dict[Atom, None] = {}  # who renewed its word since ``news`` was asked
        self._near: dict[Atom, None] = {}  # of whom a neighbour told since we last broadcast

    def alive(self, node: Atom) -> bool:
        """Whether a node has a lease."""
        lease = self._leases.get(node)
        return node == self._node or (lease is not None and lease.left_ms > 0)

    def nodes(self) -> list[Atom]:
        """The nodes that have one, sorted; we are one of them."""
        return sorted([self._node, *(node for node, lease in self._leases.items() if lease.left_ms > 0)])

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, operation: Any, wall_ms: int) -> Applied:
        """Apply a ``Tick``, a ``Heard`` or a ``Goodbye``."""
        if isinstance(operation, Tick):
            return self._tick(operation, wall_ms)
        if isinstance(operation, Heard):
            return self._merge(operation.news, wall_ms, self._near)
        if isinstance(operation, Goodbye):
            self._left = True
            self._news[self._node] = None  # a broadcast may have to go through a node that stops as well
            return Applied(broadcast=[self._word(wall_ms)])
        raise TypeError(f"{type(operation).__name__} is no operation of leases")

    def _tick(self, tick: Tick, wall_ms: int) -> Applied:
        applied = Applied(changes=self._pass(min(tick.elapsed_ms, self._max_tick)))
        if tick.beat:
            word = self._word(wall_ms)
            self._news[self._node] = None
            if tick.spread:
                applied.broadcast = [word | self._told(self._near)]
            self._near.clear()
        return applied

    def news(self) -> dict[Atom, tuple[int, int]]:
        """What was heard and said since this was last asked, for the neighbours."""
        news = self._told(self._news)
        if self._node in self._news:
            news[self._node] = (self._number, self._given_ms)
        self._news.clear()
        return news

    def _told(self, nodes: Iterable[Atom]) -> dict[Atom, tuple[int, int]]:
        leases = [(node, self._leases.get(node)) for node in nodes]
        return {node: (lease.number, max(lease.left_ms, 0)) for node, lease in leases if lease is not None}

    @property
    def _given_ms(self) -> int:
        return 0 if self._left else self._lease_ms

    def _word(self, wall_ms: int) -> dict[Atom, tuple[int, int]]:
        self._number = max(self._number + 1, wall_ms)
        return {self._node: (self._number, self._given_ms)}

    def _pass(self, elapsed_ms: int) -> list[Any]:
        changes: list[Any] = []
        forgotten = []
        for node, lease in self._leases.items():
            alive = lease.left_ms > 0
            lease.left_ms -= elapsed_ms
            if alive and lease.left_ms <= 0:
                lease.left_ms = 0
                changes.append(MemberDown(node))
            elif lease.left_ms <= -REMEMBER_MS:
                forgotten.append(node)
        for node in forgotten:
            del self._leases[node]
        return changes

    # --- merging ------------------------------------------------------------------------------------------------------

    def merge(self, delta: Any, wall_ms: int) -> Applied:
        """Take what another node says, whatever the term is."""
        return self._merge(delta, wall_ms, None)

    def _merge(self, delta: Any, wall_ms: int, renewed: dict[Atom, None] | None) -> Applied:
        if not isinstance(delta, Mapping):
            return Applied(refused={"no_map": 1})
        if len(delta) > self._max:
            return Applied(refused={"too_many": len(delta)})
        changes: list[Any] = []
        refused: dict[str, int] = {}
        for node, word in delta.items():
            reason = _fault(node, word, wall_ms) or self._take(node, word, changes, renewed)
            if reason is not None:
                refused[reason] = refused.get(reason, 0) + 1
        return Applied(changes=changes, refused=refused)

    def _take(
        self, node: Atom, word: tuple[int, int], changes: list[Any], renewed: dict[Atom, None] | None
    ) -> str | None:
        number, lease_ms = word
        if node == self._node:
            self._number = max(self._number, number)
            return None
        known = self._leases.get(node)
        if known is not None and number <= known.number:
            # It refuses more than a day ahead of its clock, and those who have forgotten it would remember it again.
            if lease_ms and known.left_ms <= 0 and number < known.number <= number + MAX_AHEAD_MS:
                self._news[node] = None
            return None
        if known is None:
            if len(self._leases) >= self._max:
                return "too_many"
            known = self._leases[node] = _Lease(number, 0)
        was_alive = known.left_ms > 0
        known.number, known.left_ms = number, min(lease_ms, MAX_LEASE_MS)
        self._news[node] = None
        if renewed is not None:
            renewed[node] = None
        if known.left_ms and not was_alive:
            changes.append(MemberUp(node))
        elif was_alive and not known.left_ms:
            changes.append(MemberDown(node))
        return None

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        """Leases have none."""
        return Applied(refused={"unknown_broadcast": 1})

    def snapshot(self, wall_ms: int, *, python: bool) -> Iterator[Any]:
        """What is left of each lease; Erlang nodes have no use for it."""
        if python:
            alive = [node for node, lease in self._leases.items() if lease.left_ms > 0]
            yield self._told(alive) | self._word(wall_ms)

    def tidy(self, wall_ms: int) -> Applied:
        """Nothing: leases end by ``Tick``."""
        return Applied()

    def comparable(self) -> None:
        """A copy is small and never older than a few seconds: it is pulled whole."""
        return None


def _fault(node: Any, word: Any, wall_ms: int) -> str | None:
    if node.__class__ is not Atom or not is_node_name(node):
        return "bad_key"
    if word.__class__ is not tuple or len(word) != 2:
        return "invalid_value"
    number, lease_ms = word
    if number.__class__ is not int or lease_ms.__class__ is not int or number < 0 or lease_ms < 0:
        return "invalid_value"
    return "future" if number > wall_ms + MAX_AHEAD_MS else None


__all__ = ["LEASE_MS", "MAX_AHEAD_MS", "REMEMBER_MS", "Goodbye", "Heard", "NodeLeases", "Tick"]
