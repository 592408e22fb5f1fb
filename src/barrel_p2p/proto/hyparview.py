"""Who this node's neighbours are: HyParView, a partial view of the membership for each node, repaired by gossip.

A pure machine. The driver tells what happened (a fact) and performs what it gets back (orders, in their order).
After J. Leitao, J. Pereira, L. Rodrigues, "HyParView: a membership protocol for reliable gossip-based broadcast",
DSN 2007; on the wire it is upstream's dialect (``hyparview_wire``).

============  ======================================================================================================
active view   at most ``active_size`` peers with a channel: broadcasts go to them. Links are symmetric: who is in our
              view has us in its own, but for messages under way
passive view  at most ``passive_size`` names that may take the place of a lost neighbour (``hyparview_passive``)
pending       peers we try to win, and what for: ``join``, ``promote`` (fill a place), ``accept`` (of a walk that ended
              here), ``rejoin`` (a neighbour lost before)
lost          neighbours whose channel broke, at most ``MAX_LOST``: they are looked for again, which heals a split
lingering     Erlang nodes that have us in their view although we don't have them in ours
============  ======================================================================================================

How nodes talk. A new node sends JOIN to a contact, which takes it in and sends FORWARD_JOIN on random walks; where a
walk ends, that node asks the new one to be its neighbour. Who has a free place asks passive peers: NEIGHBOR, ``high``
if it has nobody (never refused), else ``low`` (refused when full). Who needs a place drops a random peer: DISCONNECT.
SHUFFLE exchanges names.

Between Python nodes the paper holds, with these departures:

- NEIGHBOR has an answer, and is sent after the channel is up; both sides add each other on the answer. An answer nobody
  waits for gets a DISCONNECT, so that a late one leaves no one-sided link. So does a shuffle of a stranger.
- The end of a walk asks the new node with ``low`` before it drops somebody: the new node may be full by then.
- Several places are filled at a time. While there is a neighbour, a shuffle period ends with one refusal more
  than there are free places: each costs a connection.
- Who ends a shuffle's walk answers to the hop before, not to the origin: no connection is made for it, and upstream's
  message has no origin. Erlang nodes answer at every hop, and get an answer at once.
- A peer that fails stays a candidate with a growing wait (upstream's ``max_fail_count``, ``base_backoff_ms``), and
  neighbours that were lost are looked for again after a minute: the paper forgets them, and a split never heals.

An Erlang node (upstream) loses its views when it has to fill a place: the promotion crashes its server. So we never
make it need one, nor rely on more than it does (the numbers are used in the comments below and in the tests):

1. join: NEIGHBOR low first, then ask for names; JOIN, which evicts somebody over there, only if all that fails, and
   once a channel. 2. the end of a walk connects and asks. 3. connect first, ask then. 4. NEIGHBOR is answered at once.
5. no DISCONNECT, no ``high``; eviction is silent (the peer *lingers*) and leaving closes the channel.
6. a ``low`` to Erlang neighbours with each shuffle brings us back into a view that was lost; a refusal means nothing.
7. after leaving NEIGHBOR is refused. 8. traffic of a stranger is a hint that it has us in its view.
9. hops are clamped. 10. no name is told but our own: a replacement that it knows is what
makes it crash when a neighbour dies. Our own, repeated, gets as many names in return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from barrel_p2p.proto.hyparview_config import FILL_DELAY, MAX_BACKOFF
from barrel_p2p.proto.hyparview_events import (
    ConnectFailed,
    ContactsFound,
    Disconnect,
    ForwardJoin,
    Join,
    JoinRequested,
    Kind,
    LeaveRequested,
    Left,
    Message,
    MessageReceived,
    Neighbor,
    NeighborReply,
    Notify,
    PeerConnected,
    PeerLost,
    Release,
    Shuffle,
    ShuffleReply,
    Started,
    StartTimer,
    StopTimer,
    TimerFired,
    TrafficSeen,
)
from barrel_p2p.proto.hyparview_links import FIRST_CONTACT, MAX_CONTACT_WAIT, NAME_ROUNDS, Links
from barrel_p2p.proto.hyparview_passive import some_of
from barrel_p2p.proto.hyparview_wire import MAX_NAMES

WALKS_INTERVAL: Final = 1.0  # seconds between two JOINs of a peer that send out walks, one for each neighbour; a guess
HEARSAY: Final = 15.0  # seconds in which a small cluster hears of its contacts: a shuffle and a half; a guess
MAX_ROUND: Final = 16  # contacts tried one after the other before the next wait; a guess
MAX_LED_ON: Final = NAME_ROUNDS * MAX_NAMES  # names of a contact that are remembered while we join: one shuffle a round
SHUFFLED_ACTIVE: Final = 3  # active peers in a shuffle (the paper's)


class HyParView(Links):
    """The membership of one node::

        orders = hyparview.handle(PeerLost("bob@host"), now=loop.time())

    Args:
        name: our node name.
        config: the settings.
        rng: where all randomness comes from.
    """

    @property
    def active(self) -> list[str]:
        """The active view, longest members first."""
        return list(self._active)

    @property
    def passive(self) -> list[str]:
        """The passive view."""
        return list(self._passive.names)

    # --- what the node tells ------------------------------------------------------------------------------------------

    def _start(self, fact: Started) -> None:
        self._started = True
        self._left = False
        self._start_shuffles()
        self._start_contacts(min(FIRST_CONTACT, self.config.contact_retry_ms / 1000))

    def _join_requested(self, fact: JoinRequested) -> None:
        if not self._started or self._left:
            self._start(Started())
        if fact.peer != self.name and fact.peer not in self._active:
            self._attempt(fact.peer, "join")

    def _leave(self, fact: LeaveRequested) -> None:
        for peer, kind in self._active.items():
            if kind == "python":
                self._send(peer, Disconnect())
            self._out.append(Release(peer, close=kind == "erlang"))  # rule 5
        for peer in self._lingering:
            self._out.append(Release(peer, close=True))
        for peer in self._pending:
            if peer in self._kinds and peer not in self._lingering:
                self._out.append(Release(peer))
        self._active.clear()
        self._passive.clear()
        self._lingering.clear()
        self._pending.clear()
        self._pending_at = None
        self._lost.clear()
        self._contacted = None
        self._left = True
        self._out += [StopTimer("shuffle"), StopTimer("contact"), StopTimer("fill"), StopTimer("pending")]
        self._out.append(Notify(Left()))

    def _peer_connected(self, fact: PeerConnected) -> None:
        peer = fact.peer
        self._kinds[peer] = fact.kind
        pending = self._pending.get(peer)
        if pending is not None and not pending.asked:
            self._ask(peer, pending)

    def _connect_failed(self, fact: ConnectFailed) -> None:
        if fact.peer in self._pending:
            self._pace.count(self._now)
            self._attempt_failed(fact.peer, "no connection could be made")
            self._fill()

    def _peer_lost(self, fact: PeerLost) -> None:
        peer = fact.peer
        self._kinds.pop(peer, None)
        self._lingering.pop(peer, None)
        self._joined.pop(peer, None)
        self._walks_sent.pop(peer, None)
        self._hints_taken.pop(peer, None)
        if peer in self._pending:
            self._attempt_failed(peer, "the connection was lost")
        if peer in self._active:
            self._pace.count(self._now)
            self._remove(peer, "nodedown")
            self._passive.add(peer, self._now)
            self._passive.failed(peer, self._now)
            self._lost.add(peer, self._now)
        if not self._left:
            self._fill()

    def _traffic_seen(self, fact: TrafficSeen) -> None:
        peer = fact.peer
        if self._left or self._kinds.get(peer) != "erlang" or peer in self._active or peer in self._pending:
            return
        if len(self._active) < self._full and self._not_since(self._hints_taken, peer, self._pace.period):  # rule 8
            self._attempt(peer, "promote")

    # --- messages -----------------------------------------------------------------------------------------------------

    def _received(self, fact: MessageReceived) -> None:
        message = fact.message
        peer = fact.peer
        if peer not in self._kinds:
            return  # its channel is gone
        if self._left:
            self._answer_after_leaving(peer, message)
        else:
            self._messages[type(message)](self, peer, message)

    def _answer_after_leaving(self, peer: str, message: Message) -> None:
        if isinstance(message, Neighbor):
            self._send(peer, NeighborReply(False))  # rule 7
        elif isinstance(message, Join | Shuffle) and self._kinds[peer] == "python":
            self._send(peer, Disconnect())

    def _join(self, peer: str, message: Join) -> None:
        self._pace.count(self._now)
        if peer not in self._active:
            self._add(peer, joins=True)
        if self._not_since(self._walks_sent, peer, WALKS_INTERVAL):
            walk = ForwardJoin(peer, self.config.arwl)
            for other in self._active:
                if other != peer:
                    self._send(other, walk)

    def _forward_join(self, peer: str, message: ForwardJoin) -> None:
        joiner, ttl = message.joiner, min(message.ttl, self.config.arwl)  # rule 9
        if joiner == self.name:
            return
        if joiner not in self._active:
            if ttl <= 0 or len(self._active) <= 1:
                self._accept(joiner)
                return
            if ttl == self.config.prwl:
                self._passive.add(joiner, self._now)
                if len(self._active) < self._full:
                    self._out.append(StartTimer("fill", self._now + FILL_DELAY))
        elif ttl <= 0:
            return
        # rule 10: an Erlang node keeps the joiner as a replacement where a walk ends, and with ``prwl`` hops left
        next_ttl = ttl - 1
        spares_erlang = next_ttl not in (0, self.config.prwl)
        others = [
            p for p, kind in self._active.items() if p != peer and p != joiner and (kind == "python" or spares_erlang)
        ]
        if others:
            self._send(self._one_of(others), ForwardJoin(joiner, next_ttl))
        elif joiner not in self._active:
            self._accept(joiner)

    def _accept(self, joiner: str) -> None:
        """A walk ends here. Attempts are bounded, since any peer can send walks."""
        if len(self._pending) < 2 * self._full:
            self._attempt(joiner, "accept")
        else:
            self._passive.add(joiner, self._now)

    def _disconnect(self, peer: str, message: Disconnect) -> None:
        self._lingering.pop(peer, None)
        if peer in self._active:
            self._pace.count(self._now)
            self._remove(peer, "graceful")
            self._passive.add(peer, self._now)
            self._passive.refused(peer, self._now, self._pace.period)
            self._release(peer)
            self._fill()

    def _neighbor(self, peer: str, message: Neighbor) -> None:
        accept = peer in self._active or message.high or len(self._active) < self._full
        self._send(peer, NeighborReply(accept))  # rule 4
        if accept and peer not in self._active:
            self._add(peer)

    def _neighbor_reply(self, peer: str, message: NeighborReply) -> None:
        pending = self._pending.get(peer)
        asked = pending is not None and pending.asked
        if not message.accept:
            if pending is not None and asked:
                self._refusals += 1
                if pending.purpose == "promote":
                    del self._pending[peer]
                    self._passive.refused(peer, self._now, self._pace.period)
                    self._release(peer)
                else:
                    self._refused(peer, "it has no room for another neighbour")
                self._fill()
            return  # else the answer of a full Erlang node to rule 6
        if peer in self._active:
            return
        if pending is not None and asked and (pending.purpose != "promote" or len(self._active) < self._full):
            self._add(peer)
            return
        self._pending.pop(peer, None)  # an answer that comes too late: the place is taken, or nobody waits for it
        if self._kinds[peer] == "python":
            self._send(peer, Disconnect())
            self._release(peer)
        elif len(self._active) < self._full:
            self._add(peer)
        else:
            self._linger(peer)

    # --- exchange of names --------------------------------------------------------------------------------------------

    def _shuffle(self, peer: str, message: Shuffle) -> None:
        kind = self._kinds[peer]
        if peer not in self._active and peer not in self._pending:
            self._shuffled_by_stranger(peer, kind)
        ttl = min(message.ttl, self.config.arwl)  # rule 9
        if ttl > 0:
            others = [p for p, kind in self._active.items() if p != peer and kind == "python"]  # rule 10
            if others:
                self._send(self._one_of(others), Shuffle(ttl - 1, message.peers))
                if kind == "python":
                    return
        self._exchange(peer, kind, message.peers)

    def _exchange(self, peer: str, kind: Kind, names: tuple[str, ...]) -> None:
        """Answer a shuffle with as many names, and take in its own."""
        if kind == "python":
            mine = self._passive.sample(len(names), peer)
            if len(mine) < len(names):
                mine += some_of(list(self._active), len(names) - len(mine), peer, self._rng)
        else:
            mine = []  # rule 10
        self._send(peer, ShuffleReply(tuple(mine)))
        self._merge(names, mine)

    def _shuffled_by_stranger(self, peer: str, kind: Kind) -> None:
        """Who shuffles with us has us in its view."""
        if kind == "python":
            self._send(peer, Disconnect())
        elif len(self._active) < self._full:
            self._add(peer)
        else:
            self._linger(peer)

    def _shuffle_reply(self, peer: str, message: ShuffleReply) -> None:
        pending = self._pending.get(peer)
        if pending is not None and pending.rounds:
            pending.names = (*pending.names, *message.peers)[:MAX_LED_ON]
        self._merge(message.peers, self._sent)

    def _merge(self, names: tuple[str, ...], sent: list[str]) -> None:
        add, now, active, me = self._passive.add, self._now, self._active, self.name
        for name in names:
            if name not in active and name != me:
                add(name, now, sent)
        if len(active) < self._full:
            self._fill()

    # --- timers -------------------------------------------------------------------------------------------------------

    def _timer_fired(self, fact: TimerFired) -> None:
        if self._left or not self._started:
            return
        if fact.timer == "shuffle":
            self._shuffle_tick()
        elif fact.timer == "pending":
            self._pending_tick()
        elif fact.timer == "contact":
            self._contact_tick()
        else:
            self._fill(desperate=not self._active)

    def _shuffle_tick(self) -> None:
        self._refusals = 0
        if self._active:
            self._start_shuffle(self._one_of(list(self._active)))
            for peer, kind in self._active.items():
                if kind == "erlang":
                    self._send(peer, Neighbor(high=False))  # rule 6
        if self._pace.cleanup_due(self._now):
            self._passive.expire(self._now)
        lost = self._lost.due(self._now)
        if lost is not None:
            self._attempt(lost, "rejoin")
        self._fill()
        self._start_shuffles()

    def _start_shuffle(self, target: str) -> None:
        if self._active[target] == "python":
            names = [self.name, *some_of(list(self._active), SHUFFLED_ACTIVE, target, self._rng)]
            self._sent = self._passive.sample(self.config.shuffle_length - len(names), target)
            self._send(target, Shuffle(self.config.arwl, (*names, *self._sent)))
        else:
            self._sent = []
            self._send(target, Shuffle(0, (self.name,) * self.config.shuffle_length))  # rule 10

    def _start_shuffles(self) -> None:
        wait = self._pace.next_period(self._now) * (0.9 + self._rng.random() / 5)
        self._out.append(StartTimer("shuffle", self._now + wait))

    def _contact_tick(self) -> None:
        contacts = [p for p in self._contacts if p != self.name and p not in self._pending]
        if not self._active or self._contacted is None:
            self._round = some_of(contacts, MAX_ROUND, "", self._rng)
            self._next_contact()
        else:
            wait = self._contacted + HEARSAY - self._now
            unheard = self._unheard(contacts)
            if unheard and wait > 0:
                self._start_contacts(wait)
                return
            if unheard:
                self._attempt(self._one_of(unheard), "rejoin")
            if self._is_contact and not (unheard and self._passive.has_room()):
                self._start_contacts(MAX_BACKOFF)
                return
            if not unheard:
                return
        retry = self.config.contact_retry_ms / 1000
        self._start_contacts(max(retry, min(2 * self._contact_wait, MAX_CONTACT_WAIT * retry)))

    def _unheard(self, contacts: list[str]) -> list[str]:
        """Contacts of which nobody spoke, in a cluster so small that everybody hears of everybody: they may be another
        cluster, which came to be when two contacts found each other and two others did.

        A contact looks for the others in a large cluster, too, and never stops: after a long split they may be all
        that the nodes of either side still know of the other. Hearsay doesn't count there, for the names of nodes out
        of reach go round for long where nobody needs a neighbour. They are few, so nobody is asked often."""
        strangers = [peer for peer in contacts if peer not in self._active]
        if self._passive.has_room():
            return [peer for peer in strangers if peer not in self._passive.names]
        return strangers if self._is_contact else []

    @property
    def _is_contact(self) -> bool:
        return self.name in self._contacts

    def _contacts_found(self, fact: ContactsFound) -> None:
        self._contacts = fact.peers

    _facts: ClassVar[dict[type, Callable[[HyParView, Any], None]]] = {
        Started: _start,
        JoinRequested: _join_requested,
        ContactsFound: _contacts_found,
        PeerConnected: _peer_connected,
        ConnectFailed: _connect_failed,
        PeerLost: _peer_lost,
        MessageReceived: _received,
        TrafficSeen: _traffic_seen,
        TimerFired: _timer_fired,
        LeaveRequested: _leave,
    }
    _messages: ClassVar[dict[type, Callable[[HyParView, str, Any], None]]] = {
        Join: _join,
        ForwardJoin: _forward_join,
        Disconnect: _disconnect,
        Neighbor: _neighbor,
        NeighborReply: _neighbor_reply,
        Shuffle: _shuffle,
        ShuffleReply: _shuffle_reply,
    }


__all__ = ["HyParView"]
