"""Which way leads to which node: the table of channels, made on demand, one per peer.

A name is in one of three states: no entry, *pending* (being dialled; what is sent waits in a queue) or *up* (a
channel). What couples them:

- a send, link or monitor to a name without entry dials it;
- both sides dial at once: the dial of the greater name wins, as OTP decides it. The loser's connection is closed, never
  answered with ``nok``: an Erlang dialer that reads ``nok`` over QUIC hangs for good;
- a peer whose channel is up connects anew: it has lost the old channel (same incarnation), or it was restarted, or
  another node took its name. The old channel is asked for a sign of life before the newcomer is believed;
- a failed dial and a lost channel end alike: links and monitors to the name fire with ``noconnection``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from barrel_p2p.errors import BarrelError, NotConnected
from barrel_p2p.net.quic import CloseReason
from barrel_p2p.node.channel import Batch, Channel
from barrel_p2p.node.establish import Accepting, Dialing, DialYielded
from barrel_p2p.node.options import Options
from barrel_p2p.node.pending import Pending
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.connect")

SIGN_OF_LIFE_SECONDS = 1.0  # a guess: many round trips, yet short for a peer that waits to be let in


class RouteEvents(Protocol):
    """What the table tells the node."""

    def received(self, channel: Channel, batch: Batch) -> None: ...

    def node_up(self, channel: Channel) -> None: ...

    def node_down(self, name: Atom, reason: str) -> None: ...

    def unreachable(self, name: Atom) -> None: ...


class Routes:
    """``dial`` opens a connection to a name and returns its handshake driver; the rest is bookkeeping."""

    def __init__(
        self,
        name: Atom,
        options: Options,
        codec: Codec,
        events: RouteEvents,
        dial: Callable[[Pending], Awaitable[Dialing]],
    ) -> None:
        self._name = name
        self._options = options
        self._codec = codec
        self._events = events
        self._dial = dial
        self._channels: dict[Atom, Channel] = {}
        self._pending: dict[Atom, Pending] = {}
        self._accepting: dict[Atom, Accepting] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # --- outgoing ---------------------------------------------------------------------------------------------------

    def route(self, name: Atom) -> Channel | Pending | None:
        """The way to ``name``, dialled if there is none; None once the node stops."""
        channel = self._channels.get(name)
        if channel is not None:
            return channel
        return self._pending.get(name) or self._start_pending(name)

    def up(self, name: Atom) -> Channel | None:
        return self._channels.get(name)

    @property
    def channels(self) -> dict[Atom, Channel]:
        return self._channels

    async def connect(self, name: Atom) -> Channel:
        """The channel to ``name``. Raises NotConnected, AuthError or HandshakeError with what was tried."""
        route = self.route(name)
        if route is None:
            raise NotConnected(f"{self._name} is stopping; it makes no connection to {name}")
        if isinstance(route, Channel):
            return route
        return await asyncio.shield(route.future)

    def _start_pending(self, name: Atom) -> Pending | None:
        if self._closed:
            return None
        pending = Pending(
            name,
            self._codec,
            high_water=self._options.send_high_water,
            hard_limit=self._options.send_hard_limit,
        )
        self._pending[name] = pending
        pending.dial_task = self._task(self._run_dial(pending))
        return pending

    async def _run_dial(self, pending: Pending) -> None:
        try:
            for attempt in (1, 2):
                try:
                    dialing = await self._dial(pending)
                    self._established(await dialing.done)
                    return
                except DialYielded:
                    # The peer dialled us at the same time and its dial goes on; if that comes to nothing, ours gets
                    # another try.
                    timeout = self._options.setup_timeout_ms / 1000
                    if attempt == 1:
                        await asyncio.wait([pending.future], timeout=timeout)
                        if pending.future.done():
                            return
            raise NotConnected(f"{pending.name} dials this node and refuses its dial, again and again")
        except asyncio.CancelledError:
            if pending.dialing is not None:
                pending.dialing.abort("the peer's own connection is used instead")
            raise
        except (BarrelError, OSError) as error:
            self._dial_failed(pending, error)

    def _dial_failed(self, pending: Pending, error: Exception) -> None:
        if self._pending.get(pending.name) is not pending:
            return
        del self._pending[pending.name]
        lost = len(pending)
        log.warning(
            "no connection to %s: %s%s",
            pending.name,
            error,
            f"; {lost} queued messages are lost" if lost else "",
            extra={"peer": pending.name},
        )
        pending.fail(
            error if isinstance(error, BarrelError) else NotConnected(f"no connection to {pending.name}: {error}")
        )
        self._events.unreachable(pending.name)

    # --- incoming ---------------------------------------------------------------------------------------------------

    def peer_named(self, accepting: Accepting, name: Atom, creation: int) -> None:
        """An authenticated peer told its name in the distribution handshake: answer it, now or after a probe."""
        if name == self._name:
            accepting.turn_away("it claims this node's own name")
            return
        channel = self._channels.get(name)
        if channel is not None:
            if channel.creation == creation:
                self._replace(channel)
            else:
                self._task(self._probe_then_answer(channel, accepting, name))
                return
        older = self._accepting.get(name)
        if older is not None and older is not accepting:
            older.abort("a newer connection of the same peer takes over")
        pending = self._pending.get(name)
        self._accepting[name] = accepting
        if pending is None or pending.dialing is None or not pending.dialing.name_sent:
            self._stop_dial(pending)
            accepting.let_in()
        elif self._name > name:
            del self._accepting[name]
            accepting.yield_to_dial()
        else:
            self._stop_dial(pending)
            accepting.let_in(simultaneous=True)

    def _stop_dial(self, pending: Pending | None) -> None:
        if pending is not None and pending.dial_task is not None:
            pending.dial_task.cancel()
            pending.dial_task = None

    async def _probe_then_answer(self, channel: Channel, accepting: Accepting, name: Atom) -> None:
        if await channel.connection.probe(SIGN_OF_LIFE_SECONDS):
            accepting.turn_away(
                f"the name {name} is taken: a live node with that name is connected. Give each node a name of its own",
            )
            return
        if self._channels.get(name) is channel:
            self._replace(channel)
        if not accepting.over:
            self.peer_named(accepting, name, accepting.creation)

    def _replace(self, channel: Channel) -> None:
        channel.close("replaced by a newer connection of the same node")

    def accept_failed(self, accepting: Accepting, name: Atom | None) -> None:
        """An inbound handshake ended without a channel; a dial that had yielded to it starts again."""
        if name is None or self._accepting.get(name) is not accepting:
            return
        del self._accepting[name]
        pending = self._pending.get(name)
        if pending is not None and pending.dial_task is None and not self._closed:
            pending.dial_task = self._task(self._run_dial(pending))

    def accepted(self, accepting: Accepting, channel: Channel) -> None:
        if self._accepting.get(channel.name) is accepting:
            del self._accepting[channel.name]
        self._established(channel)

    # --- up and down ------------------------------------------------------------------------------------------------

    def _established(self, channel: Channel) -> None:
        old = self._channels.get(channel.name)
        if old is not None:
            self._replace(old)
        self._channels[channel.name] = channel
        pending = self._pending.pop(channel.name, None)
        if pending is not None:
            pending.hand_over(channel)
        self._events.node_up(channel)

    def received(self, channel: Channel, batch: Batch) -> None:
        self._events.received(channel, batch)

    def channel_closed(self, channel: Channel, reason: CloseReason) -> None:
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            self._events.node_down(channel.name, reason.text)

    def disconnect(self, name: Atom) -> bool:
        channel = self._channels.get(name)
        if channel is None:
            return False
        channel.close("disconnected on request")
        return True

    async def close(self) -> None:
        """Close every channel and give up every dial."""
        self._closed = True
        for accepting in list(self._accepting.values()):
            accepting.abort("the node stops")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pending in list(self._pending.values()):
            self._pending.pop(pending.name, None)
            pending.fail(NotConnected(f"{self._name} stopped"))
        for channel in list(self._channels.values()):
            channel.close("the node stops")

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a bug in the connection table", exc_info=task.exception())
