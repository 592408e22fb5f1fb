"""Which way leads to which node: channels made on demand, one per peer, and queues while they are made.

Who may connect is decided by ``proto.connecting``; this file tells it what happened and does what it orders. A failed
dial and a lost channel end alike: links and monitors to the name fire with ``noconnection``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from barrel_p2p.errors import BarrelError, NotConnected
from barrel_p2p.net.connection import CloseKind, CloseReason
from barrel_p2p.node.attempt import Attempt, Connect
from barrel_p2p.node.channel import Batch, Channel
from barrel_p2p.node.establishing import AcceptingRole, DialingRole, DialYielded
from barrel_p2p.node.options import Options
from barrel_p2p.node.pending import Pending
from barrel_p2p.proto import connecting_events as event
from barrel_p2p.proto.conduct import Conduct
from barrel_p2p.proto.connecting import Connecting
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.connect")

_INCOMPLETE = "not all that waited for the connection could be sent"

#: What OTP calls the ends of a connection (``net_kernel:monitor_nodes/2``).
_DOWN_REASONS: dict[CloseKind, event.DownReason] = {
    "local": "shutdown",
    "protocol": "shutdown",
    "timeout": "net_tick_timeout",
    "application": "connection_closed",
    "transport": "connection_closed",
    "unreachable": "connection_closed",
    "reset": "connection_closed",
}

MAX_AWAY = 1024  # nodes of which is remembered that they are away; a guess. Past it the earliest is told anew.
SIGN_OF_LIFE_SECONDS = 1.0  # a guess: many round trips, yet short for a peer that waits to be let in


class RouteEvents(Protocol):
    """What the table tells the node."""

    def received(self, channel: Channel, batch: Batch) -> None: ...

    def node_up(self, channel: Channel) -> None: ...

    def node_down(self, channel: Channel, why: str, reason: event.DownReason) -> None: ...

    def unreachable(self, name: Atom) -> None: ...


class Routes:
    """``dial`` opens a connection for an attempt and returns its handshake; the rest is bookkeeping."""

    def __init__(self, name: Atom, options: Options, codec: Codec, events: RouteEvents, dial: Connect) -> None:
        self._name = name
        self._options = options
        self._codec = codec
        self._events = events
        self._dial = dial
        self._conduct = Conduct()
        self._loop = asyncio.get_running_loop()
        self._table = Connecting(
            name,
            patience=options.setup_timeout_ms / 1000,
            max_accepts=options.max_unauthenticated,
            asks=options.proto_dist == "inet_tcp",
        )
        self._channels: dict[Atom, Channel] = {}
        self._retired: dict[Atom, Channel] = {}  # about to be closed: what is sent waits in ``_pending``
        self._pending: dict[Atom, Pending] = {}
        self._connections: dict[int, Attempt | AcceptingRole | Channel] = {}  # by the number the table knows them by
        self._away: dict[Atom, None] = {}  # of which the log has told that they are away
        self._timers: dict[Atom, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._performers: dict[type, Callable[[Any], None]] = {
            event.Queue: self._queue,
            event.Dial: self._start_dial,
            event.LetIn: self._let_in,
            event.AskAlive: self._ask_alive,
            event.TurnAway: self._turn_away,
            event.Yield: self._yield,
            event.Drop: self._drop,
            event.Probe: self._probe,
            event.Up: self._up,
            event.Close: self._close,
            event.Down: self._down,
            event.GiveUp: self._give_up,
            event.StartTimer: self._start_timer,
            event.StopTimer: self._stop_timer,
        }

    # --- what the node asks -----------------------------------------------------------------------------------------

    def route(self, name: Atom) -> Channel | Pending | None:
        """The way to ``name``, dialled if there is none; None if none can be made, because the node stops, say."""
        channel = self._channels.get(name)
        if channel is not None:
            return channel
        if name not in self._pending:
            if name in self._retired:
                self._pending[name] = self._new_pending(name)
            else:
                self._tell(event.Wanted(name))
        return self._pending.get(name)

    def existing(self, name: Atom) -> Channel | Pending | None:
        """The way to ``name`` if there is a channel already; none is made."""
        return self.route(name) if name in self._channels or name in self._retired else None

    def up(self, name: Atom) -> Channel | None:
        return self._channels.get(name)

    @property
    def channels(self) -> dict[Atom, Channel]:
        return self._channels | self._retired

    async def connect(self, name: Atom) -> Channel:
        """The channel to ``name``. Raises NotConnected, AuthError or HandshakeError with what was tried."""
        route = self.route(name)
        if route is None:
            raise NotConnected(f"{self._name} stops, or connects to too many nodes at once; no connection to {name}")
        if isinstance(route, Channel):
            return route
        return await asyncio.shield(route.future)

    def disconnect(self, name: Atom) -> bool:
        connected = name in self._channels or name in self._retired
        self._tell(event.DisconnectAsked(name))
        return connected

    def retire(self, name: Atom) -> Channel | None:
        """Hold back what is sent to ``name``; returns its channel, which is about to be closed or restored."""
        channel = self._channels.pop(name, None)
        if channel is not None:
            self._retired[name] = channel
        return channel

    def restore(self, name: Atom) -> None:
        """Send on a retired channel again, first what was held back."""
        channel = self._retired.pop(name, None)
        if channel is not None and not self._use(name, channel):
            channel.close(_INCOMPLETE)

    async def close(self) -> None:
        """Close every channel and end every attempt."""
        self._stopped = True
        self._tell(event.Stopped())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._connections.values()):  # peers that have not told their names
            if isinstance(connection, AcceptingRole):
                connection.abort("the node stops")

    # --- what the connections report --------------------------------------------------------------------------------

    def dial_named(self, attempt: Attempt) -> None:
        self._tell(event.DialNamed(attempt.name, attempt.number))

    def dial_up(self, attempt: Attempt, channel: Channel) -> None:
        self._promote(attempt.number, channel)
        self._tell(event.DialUp(attempt.name, attempt.number, channel.creation))

    def dial_failed(self, attempt: Attempt, error: BarrelError) -> None:
        self._connections.pop(attempt.number, None)
        if isinstance(error, DialYielded):
            self._tell(event.DialYielded(attempt.name, attempt.number))
        else:
            self._tell(event.DialFailed(attempt.name, attempt.number, error))

    def arrived(self, accepting: AcceptingRole) -> int:
        """A peer opened a connection; returns the number it has from now on."""
        number = self._table.number()
        self._connections[number] = accepting
        return number

    def peer_named(self, accepting: AcceptingRole, name: Atom, creation: int) -> None:
        """An authenticated peer told its name in the distribution handshake: answer it, now or after a probe."""
        wait = self._conduct.wait(name, now=self._loop.time())
        if wait:
            self._connections.pop(accepting.number, None)
            accepting.turn_away(f"{name} broke the protocol and is welcome again in {wait:.1f} s")
            return
        self._tell(event.PeerNamed(name, accepting.number, creation))

    def accept_failed(self, accepting: AcceptingRole, name: Atom | None) -> None:
        """An inbound handshake ended without a channel; ``name`` if the peer had told it."""
        self._connections.pop(accepting.number, None)
        if name is not None:
            self._tell(event.AcceptFailed(name, accepting.number))

    def accepted(self, accepting: AcceptingRole, channel: Channel) -> None:
        self._promote(accepting.number, channel)
        self._tell(event.AcceptUp(channel.name, accepting.number))

    def received(self, channel: Channel, batch: Batch) -> None:
        self._events.received(channel, batch)

    def channel_closed(self, channel: Channel, reason: CloseReason) -> None:
        if self._connections.get(channel.number) is channel:
            del self._connections[channel.number]
            if reason.kind == "protocol":
                log.error(
                    "%s broke the distribution protocol, its channel is closed and it stays away for %g s: %s",
                    channel.name,
                    self._conduct.offended(channel.name, now=self._loop.time()),
                    reason.text,
                    extra={"peer": channel.name},
                )
            self._tell(event.ChannelLost(channel.name, channel.number, reason.text, _DOWN_REASONS[reason.kind]))

    def _promote(self, number: int, channel: Channel) -> None:
        channel.number = number
        self._connections[number] = channel

    # --- what the table orders --------------------------------------------------------------------------------------

    def _tell(self, fact: event.Fact) -> None:
        for order in self._table.handle(fact, now=self._loop.time()):
            try:
                self._performers[type(order)](order)
            except Exception:  # the others have to be performed all the same, or the table knows what is not so
                log.exception("internal error: %s failed", order)

    def _queue(self, order: event.Queue) -> None:
        if order.name not in self._pending:
            self._pending[order.name] = self._new_pending(order.name)

    def _new_pending(self, name: Atom) -> Pending:
        return Pending(
            name,
            self._codec,
            high_water=self._options.send_high_water,
            hard_limit=self._options.send_hard_limit,
        )

    def _start_dial(self, order: event.Dial) -> None:
        attempt = self._connections[order.dial] = Attempt(order.dial, order.name, self._dial_if_welcome, self)
        self._track(attempt.task)

    async def _dial_if_welcome(self, attempt: Attempt) -> DialingRole:
        wait = self._conduct.wait(attempt.name, now=self._loop.time())
        if wait:
            raise NotConnected(
                f"{attempt.name} broke the protocol and is left alone for {wait:.1f} s more", "misbehaved"
            )
        return await self._dial(attempt)

    def _let_in(self, order: event.LetIn) -> None:
        accepting = self._connections[order.accept]
        assert isinstance(accepting, AcceptingRole)
        accepting.let_in(simultaneous=order.simultaneous)

    def _ask_alive(self, order: event.AskAlive) -> None:
        accepting = self._connections[order.accept]
        assert isinstance(accepting, AcceptingRole)
        accepting.ask_if_alive()

    def _turn_away(self, order: event.TurnAway) -> None:
        accepting = self._connections.pop(order.accept)
        assert isinstance(accepting, AcceptingRole)
        accepting.turn_away(order.why)

    def _yield(self, order: event.Yield) -> None:
        accepting = self._connections.pop(order.accept)
        assert isinstance(accepting, AcceptingRole)
        accepting.yield_to_dial()

    def _drop(self, order: event.Drop) -> None:
        attempt = self._connections.pop(order.connection)
        assert not isinstance(attempt, Channel)
        attempt.abort(order.why)

    def _probe(self, order: event.Probe) -> None:
        self._track(self._loop.create_task(self._ask_for_sign(order, self.channels[order.name])))

    async def _ask_for_sign(self, order: event.Probe, channel: Channel) -> None:
        alive = True  # if the question fails by a bug, the name stays with whom it belongs to
        try:
            alive = await channel.connection.probe(SIGN_OF_LIFE_SECONDS)
        finally:
            self._tell(event.Probed(order.name, order.channel, alive))

    def _up(self, order: event.Up) -> None:
        channel = self._connections[order.connection]
        assert isinstance(channel, Channel)
        complete = self._use(order.name, channel)
        self._events.node_up(channel)
        if not complete:  # a gap in what was sent must not pass in silence: links and monitors fire
            channel.close(_INCOMPLETE)

    def _use(self, name: Atom, channel: Channel) -> bool:
        """Send on ``channel`` from now on, first what waits; whether all of that could be sent."""
        self._channels[name] = channel
        self._away.pop(name, None)
        pending = self._pending.pop(name, None)
        return pending is None or self._hand_over(pending, channel)

    def _hand_over(self, pending: Pending, channel: Channel) -> bool:
        try:
            pending.hand_over(channel)
        except Exception:
            log.exception("internal error: messages that waited for %s are lost", pending.name)
            return False
        return True

    def _close(self, order: event.Close) -> None:
        channel = self._connections.pop(order.connection)
        assert isinstance(channel, Channel)
        channel.close(order.why)

    def _down(self, order: event.Down) -> None:
        retired = self._retired.pop(order.name, None)
        channel = self._channels.pop(order.name) if retired is None else retired
        if retired is None and order.reason in ("connection_closed", "net_tick_timeout"):
            self._is_away(order.name)
        self._events.node_down(channel, order.why, order.reason)
        if retired is not None and order.name in self._pending:
            self._tell(event.Wanted(order.name))
            if self._stopped:
                self._pending.pop(order.name).fail(NotConnected(f"{self._name} stopped"))

    def _give_up(self, order: event.GiveUp) -> None:
        pending = self._pending.pop(order.name, None)
        lost = 0 if pending is None else len(pending)
        # that a peer is away passes; a wrong cookie, a key that changed, a full disk of ours need somebody's hand
        passes = isinstance(order.error, NotConnected) and bool(order.error.reason)
        quiet = logging.WARNING if not passes else logging.DEBUG if self._is_away(order.name) else logging.INFO
        log.log(
            logging.WARNING if lost else logging.DEBUG if self._stopped else quiet,
            "no connection to %s: %s%s",
            order.name,
            order.error,
            f"; {lost} queued messages are lost" if lost else "",
            extra={"peer": order.name},
        )
        if pending is not None:
            pending.fail(order.error)
            self._events.unreachable(order.name)
        else:  # who asked for the way is about to note a link or monitor, which has to fire
            self._loop.call_soon(self._events.unreachable, order.name)

    def _is_away(self, name: Atom) -> bool:
        """Note that a node is away; whether that was known. The overlay looks for nodes that were lost, or have
        stopped, again and again: once is news."""
        known = name in self._away
        self._away[name] = None
        if len(self._away) > MAX_AWAY:
            del self._away[next(iter(self._away))]
        return known

    def _start_timer(self, order: event.StartTimer) -> None:
        self._timers[order.name] = self._loop.call_at(order.at, self._timer_fired, order.name)

    def _stop_timer(self, order: event.StopTimer) -> None:
        self._timers.pop(order.name).cancel()

    def _timer_fired(self, name: Atom) -> None:
        del self._timers[name]
        self._tell(event.TimerFired(name))

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a bug in the connection table", exc_info=task.exception())
