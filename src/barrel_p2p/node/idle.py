"""Closes the channels that nobody uses, so that a node's connections stay bounded while its cluster grows.

A channel is in use while the membership needs it, while a link, a monitor or a spawn binds processes of both nodes,
while a byte stream is open, and for a while after each message of a user's process. What the library itself sends
(membership, gossip) does not count. How it is closed without losing anything is ``proto.retiring``; an Erlang node over
QUIC is not asked, as it asks nobody either. Nodes that never joined an overlay keep all their channels: nothing is
known about which they need.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from barrel_p2p.node.channel import Channel
from barrel_p2p.node.instruments import REAP
from barrel_p2p.node.routes import Routes
from barrel_p2p.node.telemetry import Telemetry
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto import retiring
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.idle")

NAME = Atom("barrel_p2p_channels")  # what nodes of this library send their questions to; ours, not upstream's
RELEASE_SECONDS = 2.0  # that a channel the membership gave up must have been unused; a guess: many round trips
RELEASE_TRIES = 30  # looks at such a channel before it is left to the sweep; a guess: a minute

_CLOSE, _AGREED, _REFUSED = Atom("close"), Atom("agreed"), Atom("refused")


@dataclass(slots=True)
class _Seen:
    """A channel, the users' messages it had carried, and since when that is so."""

    channel: Channel
    messages: int
    since: float
    tries: int = 0


class IdleChannels:
    """Looks at the channels of one node now and then.

    Args:
        needed: whether something of the node needs the channel to a peer.
        sweep_ms: time between two looks at all channels.
        min_age_ms: how long a channel must have been unused to be closed.
    """

    def __init__(
        self,
        routes: Routes,
        runtime: Runtime,
        needed: Callable[[Atom], bool],
        *,
        sweep_ms: int,
        min_age_ms: int,
        telemetry: Telemetry,
    ) -> None:
        self._routes = routes
        self._runtime = runtime
        self._needed = needed
        self._sweep_seconds = sweep_ms / 1000
        self._min_age = min_age_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._machine = retiring.Retiring()
        self._seen: dict[Atom, _Seen] = {}
        self._retired: dict[Atom, Channel] = {}
        self._timers: dict[Atom, asyncio.TimerHandle] = {}
        self._released: dict[Atom, asyncio.TimerHandle] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = 0
        self._telemetry = telemetry

    def start(self) -> None:
        """Sweep from now on."""
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)

    def stop(self) -> None:
        for timer in [*self._timers.values(), *self._released.values(), *([self._sweeper] if self._sweeper else [])]:
            timer.cancel()

    def release(self, peer: Atom) -> None:
        """The membership does not need the channel any more: close it soon if nobody else does."""
        if peer not in self._released and self._routes.up(peer) is not None:
            self._look(peer, self._routes.channels[peer]).tries = 0
            self._released[peer] = self._loop.call_later(RELEASE_SECONDS, self._try_released, peer)

    def closes(self, peer: Atom) -> bool:
        """Whether the channel to ``peer`` is about to be closed, by agreement."""
        return peer in self._retired

    def node_down(self, peer: Atom) -> None:
        self._seen.pop(peer, None)
        self._retired.pop(peer, None)
        timer = self._released.pop(peer, None)
        if timer is not None:
            timer.cancel()
        self._tell(retiring.ChannelGone(peer))

    def received(self, channel: Channel, message: Any) -> None:
        """``{close, Number}``, ``{agreed, Number}`` or ``{refused, Number}`` of a peer; anything else is no answer."""
        match message:
            case (Atom() as what, int() as number) if what in (_CLOSE, _AGREED, _REFUSED):
                peer = channel.name
                if what == _CLOSE:
                    used = peer not in self._retired and not self._unused(peer, channel, RELEASE_SECONDS)
                    self._tell(retiring.CloseAsked(peer, number, used))
                else:
                    self._tell(retiring.Answered(peer, number, "agreed" if what == _AGREED else "refused"))

    # --- what is unused -----------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)
        for peer, channel in self._routes.channels.items():
            if self._unused(peer, channel, self._min_age):
                self._close(peer, channel)

    def _try_released(self, peer: Atom) -> None:
        del self._released[peer]
        channel = self._routes.up(peer)
        if channel is None or self._needed(peer):
            return
        seen = self._look(peer, channel)
        seen.tries += 1
        if seen.tries <= RELEASE_TRIES:  # the peer may refuse at first: it has not looked at the channel before
            self._released[peer] = self._loop.call_later(RELEASE_SECONDS, self._try_released, peer)
        if self._unused(peer, channel, RELEASE_SECONDS):
            self._close(peer, channel)

    def _unused(self, peer: Atom, channel: Channel, seconds: float) -> bool:
        seen = self._look(peer, channel)
        return (
            self._loop.time() - seen.since >= seconds
            and peer not in self._runtime.peers
            and not self._needed(peer)
            and channel.connection.queued == 0
            and channel.connection.streams == 0
        )

    def _look(self, peer: Atom, channel: Channel) -> _Seen:
        seen = self._seen.get(peer)
        if seen is None or seen.channel is not channel:
            seen = self._seen[peer] = _Seen(channel, channel.user_messages, self._loop.time())
        elif seen.messages != channel.user_messages:
            seen.messages, seen.since = channel.user_messages, self._loop.time()
        return seen

    def _close(self, peer: Atom, channel: Channel) -> None:
        if channel.flags & Flags.PYTHON:
            self._tell(retiring.Unused(peer))
        else:
            self._disconnect(peer)

    # --- what the machine orders --------------------------------------------------------------------------------------

    def _tell(self, fact: retiring.Fact) -> None:
        for order in self._machine.handle(fact, now=self._loop.time()):
            peer = order.peer
            match order:
                case retiring.Retire():
                    channel = self._routes.retire(peer)
                    if channel is not None:
                        self._retired[peer] = channel
                case retiring.Restore():
                    self._retired.pop(peer, None)
                    self._routes.restore(peer)
                case retiring.Ask(number=number):
                    self._say(peer, (_CLOSE, number))
                case retiring.Reply(number=number, answer=answer):
                    self._say(peer, (Atom(answer), number))
                case retiring.Close():
                    self._disconnect(peer)
                case retiring.StartTimer(at=at):
                    self._stop_timer(peer)
                    self._timers[peer] = self._loop.call_at(at + 0.001, self._timer_fired, peer)
                case retiring.StopTimer():
                    self._stop_timer(peer)

    def _say(self, peer: Atom, message: tuple[Atom, int]) -> None:
        channel = self._retired.get(peer) or self._routes.up(peer)
        if channel is not None:
            channel.send_to_name(self._runtime.pid, NAME, message)

    def _disconnect(self, peer: Atom) -> None:
        log.info("the channel to %s is closed: nobody uses it", peer, extra={"peer": peer})
        self.closed += 1
        self._telemetry.count(REAP, peer)
        self._routes.disconnect(peer)

    def _stop_timer(self, peer: Atom) -> None:
        timer = self._timers.pop(peer, None)
        if timer is not None:
            timer.cancel()

    def _timer_fired(self, peer: Atom) -> None:
        del self._timers[peer]
        self._tell(retiring.TimerFired(peer))


__all__ = ["NAME", "IdleChannels"]
