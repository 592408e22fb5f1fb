"""Which nodes live: ``node.overlay.lives``.

Nodes of this library tell it by ``proto.node_leases``, on an instance and under a name of their own. Erlang nodes do on
upstream's ``barrel_p2p_members_replica``: there we listen and pass on, and say nothing of ourselves, because whoever
has a lease there owns partitions and must fire reminders. A node lives while either says so; that it left a view means
nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from barrel_p2p.errors import BarrelError
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.clock_watch import ClockWatch
from barrel_p2p.node.dispatch import Dispatch
from barrel_p2p.node.replication import Replication, wall_ms
from barrel_p2p.node.routes import Routes
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto.hyparview_events import Event, PeerUp
from barrel_p2p.proto.leases import TTL_MS, Leases, MemberDown, MemberUp
from barrel_p2p.proto.node_leases import Goodbye, Heard, NodeLeases, Tick
from barrel_p2p.proto.registry_events import NodeAlive, NodeDead
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.lives")

OURS: Final = Atom("barrel_p2p_leases")
UPSTREAMS: Final = Atom("barrel_p2p_members_replica")
TICKS: Final = 10  # per lease, and a heartbeat with every second one: five may be lost but one
SOON: Final = 0.05  # seconds from a new neighbour to the broadcast for all behind it
NEWS: Final = Atom("barrel_p2p_news")  # what Python neighbours send their news to

Watcher = Callable[[NodeAlive | NodeDead], None]


class Lives:
    """Who is alive, and who is told when that changes.

    Args:
        lease_ms: how long this node counts as alive after its last heartbeat.
    """

    def __init__(
        self, runtime: Runtime, routes: Routes, dispatch: Dispatch, replication: Replication, *, lease_ms: int
    ) -> None:
        self._runtime = runtime
        self._routes = routes
        self._name = runtime.name
        self._loop = asyncio.get_running_loop()
        self._tick_s = lease_ms / 1000 / TICKS
        self._max_tick_s = lease_ms / 2000
        self._replication = replication
        self._watchers: list[Watcher] = []
        self._alive: dict[Atom, None] = {}
        self._leases = NodeLeases(runtime.name, lease_ms=lease_ms)
        self._members = Leases(runtime.name, clock=replication.clock, member=False)
        self._clock_watch = ClockWatch(runtime.name, replication.clock)
        self._patient_until = 0.0  # for we did not run for a while, and upstream's leases go by the wall clock
        self._ours = replication.open(OURS, self._leases, notify=self._changed)
        replication.open(UPSTREAMS, self._members, notify=self._changed)
        dispatch.deliver_to(NEWS, self._received)
        self._ticked = self._loop.time()
        self._ticks = 0
        self._soon: asyncio.TimerHandle | None = None
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    def alive(self, node: Atom) -> bool:
        """Whether a node has a lease; this node always has."""
        return node in self._alive or node == self._name

    def nodes(self) -> list[Atom]:
        """All that have one, sorted, this node among them."""
        return sorted([self._name, *self._alive])

    def watch(self, watcher: Watcher) -> None:
        """Give ``watcher`` every ``NodeAlive`` and ``NodeDead`` from now on, once for each change."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def say_goodbye(self) -> None:
        """The node stops: it is dead for all others at once."""
        self.stop()
        self._ours.write(Goodbye())
        self._tell_news()

    def stop(self) -> None:
        self._timer.cancel()
        if self._soon is not None:
            self._soon.cancel()

    def membership_changed(self, what: Event) -> None:
        """A new neighbour may lead to many nodes that have not heard of us for long."""
        if isinstance(what, PeerUp) and self._soon is None:
            self._soon = self._loop.call_later(SOON, self._beat_soon)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._tick_s, self._tick)
        self._ticks += 1
        self._clock_watch.look(monotonic_s=self._loop.time(), wall_ms=wall_ms())
        self._write_tick(beat=self._ticks % 2 == 0, spread=self._replication.mixed)

    def _beat_soon(self) -> None:
        self._soon = None
        self._write_tick(beat=True, spread=True)

    def _write_tick(self, *, beat: bool, spread: bool) -> None:
        now = self._loop.time()
        elapsed, self._ticked = now - self._ticked, now
        if elapsed > self._max_tick_s:
            self._patient_until = now + TTL_MS / 1000
        self._ours.write(Tick(round(elapsed * 1000), beat and self._replication.connected, spread))
        self._tell_news()
        if now >= self._patient_until:
            self._bury([node for node in self._alive if not self._has_lease(node)])

    def _tell_news(self) -> None:
        news = self._leases.news()
        if not news:
            return
        for peer in self._replication.kin:
            channel = self._routes.up(peer)
            if channel is not None and not channel.gate.closed:
                with suppress(BarrelError):  # the channel is overrun and closes: its loss is told
                    channel.send_to_name(self._runtime.pid, NEWS, news)

    def _received(self, channel: Channel, news: Any) -> None:
        self._ours.write(Heard(news))

    # --- changes ------------------------------------------------------------------------------------------------------

    def _changed(self, changes: Sequence[Any]) -> None:
        for change in changes:
            match change:
                case MemberUp(node) if node not in self._alive and node != self._name:
                    self._alive[node] = None
                    log.debug("%s has a lease", node, extra={"peer": node})
                    self._tell(NodeAlive(node))
                case MemberDown(node) if node in self._alive and not self._has_lease(node):
                    if self._loop.time() >= self._patient_until and not self._overslept():
                        self._bury([node])

    def _overslept(self) -> bool:
        """Whether we come back from a pause and the tick that tells is still to come."""
        return self._loop.time() - self._ticked > self._max_tick_s

    def _has_lease(self, node: Atom) -> bool:
        return self._leases.alive(node) or self._members.alive(node)

    def _bury(self, dead: list[Atom]) -> None:
        for node in dead:
            del self._alive[node]
            log.info("%s counts as dead: it has stopped, or its lease has ended", node, extra={"peer": node})
            self._tell(NodeDead(node))

    def _tell(self, event: NodeAlive | NodeDead) -> None:
        for watcher in list(self._watchers):
            try:
                watcher(event)
            except Exception:  # the others must hear of it
                log.exception("internal error: a watcher failed on %r", event)


__all__ = ["OURS", "UPSTREAMS", "Lives"]
