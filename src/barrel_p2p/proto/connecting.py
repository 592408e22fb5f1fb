"""Who may connect: which of the connections between this node and a peer becomes the one channel of that peer.

A pure machine, one table for all names. The driver tells what happened (a fact) and performs what it gets back (orders,
in their order). A connection is a number, given out when it is opened, so of two connections the greater number is the
younger. A name without an entry is a name nobody has to do with; otherwise it has at most one of each of these:

========  ========================================================================================================
queue     somebody waits for a connection to the name: what he sent is held back until ``Up`` or ``GiveUp``
dial      our own attempt; *named* once our name went out on it, for from then on the peer may know of it
accept    the peer's attempt, after it told its name: let in, or waiting until a probe of the channel is answered
channel   the connection in use, with the incarnation (creation) of the peer at its other end
timer     runs while the peer said that another connection goes on, and that one has not come yet
========  ========================================================================================================

What couples them: a dial excludes an accept that was let in and a channel, and it needs a queue. An accept that was let
in beside a channel replaces it when it comes up, not before: until then it has not proved the cookie, and on some
carriers its name is nothing but a claim.

Rules, as OTP has them (``net_kernel``, ``dist_util``) but for the last three:

1. Both dial at once: the dial of the greater name goes on. The greater side *yields* the peer's attempt, the smaller
   side drops its own and lets the other in. A dial that is not named yet never stands in the way.
2. A connection that was yielded is closed, never answered with ``nok`` (an Erlang dialer that reads ``nok`` over QUIC
   hangs for good). Whose dial was yielded waits for the other connection; if none comes he dials again.
3. Whose dial fails after he yielded for it dials again: the peer waits for him. ``MAX_DIALS`` bounds both.
4. While the peer's attempt is under way we do not dial: a second connection would break the first one.
5. An attempt of the same incarnation that is younger than the channel is let in: the peer has lost the channel. One
   that is older is left over from the time when both dialled, only late; it is yielded. A channel of our own dial
   counts as old as the moment it came up, since the peer dialled in ignorance until then.
6. An attempt of another incarnation waits until the channel was probed. A sign of life: the name is taken, the newcomer
   is turned away. Silence: the old incarnation is most likely dead, the newcomer is let in.
7. Of two attempts of a peer the younger counts.

On the carrier of stock Erlang nodes (``asks``, which is TCP), rules 5 and 6 are OTP's own: the peer is asked whether
the channel is dead (status ``alive``) instead of a probe. A yielded connection is answered with ``nok`` there.

A fact about a connection that the table does not know (any more) is ignored, but for one that comes up: it is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.errors import BarrelError, NotConnected
from barrel_p2p.proto.connecting_events import (
    AcceptFailed,
    AcceptUp,
    AskAlive,
    ChannelLost,
    Close,
    Dial,
    DialFailed,
    DialNamed,
    DialUp,
    DialYielded,
    DisconnectAsked,
    Down,
    Drop,
    Fact,
    GiveUp,
    LetIn,
    Order,
    PeerNamed,
    Probe,
    Probed,
    Queue,
    StartTimer,
    Stopped,
    StopTimer,
    TimerFired,
    TurnAway,
    Up,
    Wanted,
    Yield,
)
from barrel_p2p.term.types import Atom

MAX_DIALS: Final = 4  # for one queue, then it is given up; a guess: each needs an attempt of the peer that failed, too
MAX_QUEUES: Final = 1024  # names waited for at once; a guess. A peer can make us send to any name (``From`` of a call).


@dataclass(slots=True)
class _Peer:
    """What there is for one name."""

    name: Atom
    queue: bool = False
    dials: int = 0  # made for this queue
    dial: int | None = None
    named: bool = False  # our name went out on ``dial``
    owed: bool = False  # the peer gave up its attempt for ``dial``
    accept: int | None = None
    accept_creation: int = 0
    waiting: bool = False  # ``accept`` is answered once the channel was probed
    channel: int | None = None
    creation: int = 0
    age: int = 0  # number of the youngest connection that the peer may have opened in ignorance of ``channel``
    probing: bool = False  # ``channel`` was asked for a sign of life
    timer: bool = False

    @property
    def idle(self) -> bool:
        return self.dial is None and self.accept is None and self.channel is None


class Connecting:
    """The connections of one node::

        orders = connecting.handle(PeerNamed(name, accept=number, creation=4), now=loop.time())

    Args:
        name: our node name.
        patience: seconds to wait for the connection in whose favour our dial was yielded.
        max_accepts: peers that told their name and have not proved the cookie yet, or wait for a probe.
        max_queues: names waited for at once.
        asks: whether a peer that has a channel is asked, instead of believed, when it connects anew.
    """

    def __init__(
        self,
        name: Atom,
        *,
        patience: float,
        max_accepts: int,
        max_queues: int = MAX_QUEUES,
        max_dials: int = MAX_DIALS,
        asks: bool = False,
    ) -> None:
        self._name = name
        self._patience = patience
        self._max_accepts = max_accepts
        self._max_queues = max_queues
        self._max_dials = max_dials
        self._asks = asks
        self._peers: dict[Atom, _Peer] = {}
        self._accepts = 0
        self._queues = 0
        self._number = 0
        self._stopped = False
        self._handlers: dict[type, Callable[[Any, float], list[Order]]] = {
            Wanted: self._wanted,
            DialNamed: self._dial_named,
            DialUp: self._dial_up,
            DialYielded: self._dial_yielded,
            DialFailed: self._dial_failed,
            PeerNamed: self._peer_named,
            AcceptUp: self._accept_up,
            AcceptFailed: self._accept_failed,
            ChannelLost: self._channel_lost,
            Probed: self._probed,
            TimerFired: self._timer_fired,
            DisconnectAsked: self._disconnect_asked,
            Stopped: self._stop,
        }

    def number(self) -> int:
        """The number of a connection that a peer opens right now."""
        self._number += 1
        return self._number

    def handle(self, fact: Fact, *, now: float) -> list[Order]:
        """Take a fact (``now`` in monotonic seconds); perform what comes back, in order."""
        orders = self._handlers[type(fact)](fact, now)
        if not isinstance(fact, Stopped):
            self._tidy(fact.name)
        return orders

    @property
    def names(self) -> list[Atom]:
        """Every name there is an entry for."""
        return list(self._peers)

    def _peer(self, name: Atom) -> _Peer:
        """The entry of a name, or a new one; ``_tidy`` drops it again if nothing comes of it."""
        return self._peers.setdefault(name, _Peer(name))

    def _tidy(self, name: Atom) -> None:
        peer = self._peers.get(name)
        if peer is not None and peer.idle and not peer.queue:
            del self._peers[name]

    # --- our side wants a connection ----------------------------------------------------------------------------------

    def _wanted(self, fact: Wanted, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if self._stopped or peer.queue or peer.channel is not None:
            return []
        if self._queues >= self._max_queues:
            text = f"{self._queues} nodes are being connected already; no connection to {fact.name}"
            return [GiveUp(fact.name, NotConnected(text))]
        peer.queue = True
        peer.dials = 0
        self._queues += 1
        return [Queue(fact.name), *([] if peer.accept is not None else self._dial(peer))]

    def _dial(self, peer: _Peer) -> list[Order]:
        peer.dials += 1
        peer.dial = self.number()
        peer.named = peer.owed = False
        return [Dial(peer.name, peer.dial)]

    def _dial_again(self, peer: _Peer, error: BarrelError) -> list[Order]:
        return self._dial(peer) if peer.dials < self._max_dials else self._give_up(peer, error)

    def _give_up(self, peer: _Peer, error: BarrelError) -> list[Order]:
        peer.queue = False
        self._queues -= 1
        return [*self._stop_timer(peer), GiveUp(peer.name, error)]

    def _dial_named(self, fact: DialNamed, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.dial == fact.dial:
            peer.named = True
        return []

    def _dial_up(self, fact: DialUp, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.dial != fact.dial:
            return [Close(fact.dial, "this node gave up the attempt")]
        peer.dial = None
        return self._up(peer, fact.dial, fact.creation, age=self._number)

    def _dial_yielded(self, fact: DialYielded, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.dial != fact.dial:
            return []
        peer.dial = None
        peer.timer = True
        return [StartTimer(peer.name, now + self._patience)]

    def _timer_fired(self, fact: TimerFired, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if not peer.timer:
            return []
        peer.timer = False
        text = f"{peer.name} refuses our dial in favour of a connection of its own that never comes"
        return self._dial_again(peer, NotConnected(text))

    def _dial_failed(self, fact: DialFailed, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.dial != fact.dial:
            return []
        peer.dial = None
        return self._dial_again(peer, fact.error) if peer.owed else self._give_up(peer, fact.error)

    # --- the peer wants a connection ----------------------------------------------------------------------------------

    def _peer_named(self, fact: PeerNamed, now: float) -> list[Order]:
        if self._stopped:
            return [Drop(fact.accept, "the node stops")]
        if fact.name == self._name:
            return [TurnAway(fact.accept, "it claims this node's own name")]
        peer = self._peer(fact.name)
        if peer.accept is not None:
            if fact.accept < peer.accept:
                return [Yield(fact.accept)]
        elif self._accepts >= self._max_accepts:
            return [Drop(fact.accept, f"{self._accepts} peers are being let in already")]
        if peer.channel is None:
            return [*self._drop_accept(peer), *self._answer(peer, fact.accept, fact.creation)]
        if self._asks and (fact.creation != peer.creation or fact.accept > peer.age):
            orders = self._drop_accept(peer)
            self._set_accept(peer, fact.accept, fact.creation)
            return [*orders, AskAlive(fact.accept)]
        if fact.creation != peer.creation:
            orders = self._drop_accept(peer)
            self._set_accept(peer, fact.accept, fact.creation)
            peer.waiting = True
            return [*orders, *self._probe(peer)]
        if fact.accept <= peer.age:
            return [Yield(fact.accept)]
        orders = self._drop_accept(peer)
        self._set_accept(peer, fact.accept, fact.creation)
        return [*orders, LetIn(fact.accept)]

    def _answer(self, peer: _Peer, accept: int, creation: int) -> list[Order]:
        """There is no channel and no other attempt of the peer: it and our own dial compete (rule 1)."""
        if peer.dial is not None and peer.named and self._name > peer.name:
            peer.owed = True
            return [Yield(accept)]
        simultaneous = peer.dial is not None and peer.named
        orders = [*self._drop_dial(peer), *self._stop_timer(peer)]
        self._set_accept(peer, accept, creation)
        return [*orders, LetIn(accept, simultaneous)]

    def _set_accept(self, peer: _Peer, accept: int | None, creation: int = 0) -> None:
        self._accepts += (accept is not None) - (peer.accept is not None)
        peer.accept, peer.accept_creation, peer.waiting = accept, creation, False

    def _drop_accept(self, peer: _Peer) -> list[Order]:
        accept = peer.accept
        self._set_accept(peer, None)
        return [] if accept is None else [Drop(accept, "a younger connection of the same peer takes over")]

    def _drop_dial(self, peer: _Peer) -> list[Order]:
        dial, peer.dial = peer.dial, None
        return [] if dial is None else [Drop(dial, "the peer's own connection is used instead")]

    def _probe(self, peer: _Peer) -> list[Order]:
        if peer.probing or peer.channel is None:
            return []
        peer.probing = True
        return [Probe(peer.name, peer.channel)]

    def _probed(self, fact: Probed, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.channel != fact.channel or not peer.probing:
            return []
        peer.probing = False
        accept = peer.accept
        if accept is None or not peer.waiting:
            return []
        if fact.alive:
            self._set_accept(peer, None)
            live = "a live node with that name is connected. Give each node a name of its own"
            return [TurnAway(accept, f"the name {peer.name} is taken: {live}")]
        peer.waiting = False
        return [LetIn(accept)]

    def _accept_up(self, fact: AcceptUp, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.accept != fact.accept:
            return [Close(fact.accept, "another connection took its place")]
        creation = peer.accept_creation
        self._set_accept(peer, None)
        orders = self._replace(peer) if peer.channel is not None else []
        return orders + self._up(peer, fact.accept, creation, age=fact.accept)

    def _accept_failed(self, fact: AcceptFailed, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.accept != fact.accept:
            return []
        self._set_accept(peer, None)
        if not peer.queue:
            return []
        text = f"{peer.name} dials this node and fails, again and again"
        return self._dial_again(peer, NotConnected(text))

    # --- up and down --------------------------------------------------------------------------------------------------

    def _up(self, peer: _Peer, connection: int, creation: int, *, age: int) -> list[Order]:
        peer.channel, peer.creation, peer.age = connection, creation, age
        peer.probing = False
        self._queues -= peer.queue
        peer.queue = False
        return [*self._stop_timer(peer), Up(peer.name, connection)]

    def _replace(self, peer: _Peer) -> list[Order]:
        channel, peer.channel = peer.channel, None
        assert channel is not None
        why = "replaced by a newer connection of the same node"
        return [Close(channel, why), Down(peer.name, why, "connection_closed")]

    def _channel_lost(self, fact: ChannelLost, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        if peer.channel != fact.channel:
            return []
        peer.channel = None
        return [Down(peer.name, fact.why, fact.reason), *self._let_in_the_next(peer)]

    def _disconnect_asked(self, fact: DisconnectAsked, now: float) -> list[Order]:
        peer = self._peer(fact.name)
        channel, peer.channel = peer.channel, None
        if channel is None:
            return []
        why = "disconnected on request"
        return [Close(channel, why), Down(peer.name, why, "disconnect"), *self._let_in_the_next(peer)]

    def _let_in_the_next(self, peer: _Peer) -> list[Order]:
        """The channel is gone: who waited for its probe need not wait any longer."""
        if peer.accept is None or not peer.waiting:
            return []
        peer.waiting = False
        return [LetIn(peer.accept)]

    def _stop_timer(self, peer: _Peer) -> list[Order]:
        timer, peer.timer = peer.timer, False
        return [StopTimer(peer.name)] if timer else []

    def _stop(self, fact: Stopped, now: float) -> list[Order]:
        """End everything; from now on nothing is let in or dialled."""
        self._stopped = True
        why = "the node stops"
        orders: list[Order] = []
        for peer in self._peers.values():
            orders += [Drop(number, why) for number in (peer.dial, peer.accept) if number is not None]
            if peer.queue:
                orders += self._give_up(peer, NotConnected(f"{self._name} stopped"))
            if peer.channel is not None:
                orders += [Close(peer.channel, why), Down(peer.name, why, "net_kernel_terminated")]
        self._peers.clear()
        self._accepts = self._queues = 0
        return orders


__all__ = ["MAX_DIALS", "MAX_QUEUES", "Connecting"]
