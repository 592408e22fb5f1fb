"""What the parts of a node know anyhow, read for its telemetry when somebody asks.

A counter must not fall when a channel is closed and another one is made: what a lost channel had carried is added up
for its peer. That is done for ``MAX_PEERS`` of them; who was lost longest ago goes into the sum of ``other``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from barrel_p2p.node import instruments as i
from barrel_p2p.node.carrier import Carrier
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.overlay import Overlay
from barrel_p2p.node.routes import Routes
from barrel_p2p.node.telemetry import OTHER, Telemetry, Values
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.term.types import Atom

MAX_PEERS: Final = 256  # lost peers whose counts are kept apart; a guess

ROUTER: Final = "barrel_p2p_router"  # as it counts what it refuses (``services.router``)

_Number = tuple[Values, float]


@dataclass(slots=True)
class _Carried:
    """What channels to one peer have carried."""

    sent_messages: int = 0
    received_messages: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    busy_time: float = 0.0
    packets_lost: int = 0
    streams_refused: int = 0
    streams_crowded: int = 0

    def __add__(self, other: _Carried) -> _Carried:
        return _Carried(
            self.sent_messages + other.sent_messages,
            self.received_messages + other.received_messages,
            self.sent_bytes + other.sent_bytes,
            self.received_bytes + other.received_bytes,
            self.busy_time + other.busy_time,
            self.packets_lost + other.packets_lost,
            self.streams_refused + other.streams_refused,
            self.streams_crowded + other.streams_crowded,
        )


@dataclass(slots=True)
class _Seen:
    """A channel, and what its transport said last: nothing any more once the connection is gone."""

    channel: Channel
    transport: dict[str, int] = field(default_factory=dict)

    def look(self) -> dict[str, int]:
        self.transport = self.channel.connection.stats() or self.transport
        return self.transport

    def carried(self) -> _Carried:
        transport = self.look()
        return _Carried(
            self.channel.sent_messages,
            self.channel.received_messages,
            transport.get("bytes_sent", 0),
            transport.get("bytes_received", 0),
            self.channel.busy_time,
            transport.get("packets_lost", 0),
            transport.get("streams_refused", 0),
            transport.get("preambles_crowded", 0),
        )


class Readings:
    """Made when all parts of the node are there."""

    def __init__(
        self, telemetry: Telemetry, runtime: Runtime, routes: Routes, overlay: Overlay, carrier: Carrier
    ) -> None:
        self._runtime = runtime
        self._routes = routes
        self._overlay = overlay
        self._up: dict[Atom, _Seen] = {}
        self._past: dict[str, _Carried] = {}
        telemetry.each_second.append(self._look)
        self._read_strangers(telemetry, carrier)
        self._read_channels(telemetry)
        self._read_overlay(telemetry)
        self._read_processes(telemetry)

    def node_up(self, channel: Channel) -> None:
        self._up[channel.name] = _Seen(channel)

    def node_down(self, name: Atom) -> None:
        seen = self._up.pop(name, None)
        if seen is None:
            return
        past = self._past.pop(name, _Carried()) + seen.carried()
        self._past[name] = past
        if len(self._past) > MAX_PEERS:
            longest_ago = next(peer for peer in self._past if peer != OTHER)
            self._past[OTHER] = self._past.get(OTHER, _Carried()) + self._past.pop(longest_ago)

    def _look(self) -> None:
        for seen in self._up.values():
            seen.look()

    # --- who is not known yet -----------------------------------------------------------------------------------------

    def _read_strangers(self, telemetry: Telemetry, carrier: Carrier) -> None:
        telemetry.observe(i.STRANGERS, lambda: _one(carrier.strangers()))
        telemetry.observe(i.TURNED_AWAY, lambda: [((why,), count) for why, count in carrier.turned_away().items()])

    # --- channels -----------------------------------------------------------------------------------------------------

    def _read_channels(self, telemetry: Telemetry) -> None:
        telemetry.observe(i.CHANNELS, lambda: _one(len(self._up)))
        telemetry.observe(
            i.MESSAGES,
            lambda: self._both_ways(lambda carried: (carried.sent_messages, carried.received_messages)),
        )
        telemetry.observe(
            i.BYTES, lambda: self._both_ways(lambda carried: (carried.sent_bytes, carried.received_bytes))
        )
        telemetry.observe(i.BUSY_TIME, lambda: [((peer,), carried.busy_time) for peer, carried in self._carried()])
        telemetry.observe(
            i.QUEUED, lambda: [((peer,), seen.channel.connection.queued) for peer, seen in self._up.items()]
        )
        telemetry.observe(i.ROUND_TRIP, lambda: self._transport("rtt_us", 1e-6))
        telemetry.observe(i.STREAMS, lambda: self._transport("streams", 1))
        telemetry.observe(i.PREAMBLE_DROPPED, lambda: [((), one.streams_crowded) for _, one in self._carried()])
        telemetry.observe(i.STREAMS_REFUSED, lambda: [((peer,), one.streams_refused) for peer, one in self._carried()])
        telemetry.observe(
            i.PACKETS_LOST, lambda: [((peer,), carried.packets_lost) for peer, carried in self._carried()]
        )

    def _carried(self) -> list[tuple[str, _Carried]]:
        return [*self._past.items(), *((peer, seen.carried()) for peer, seen in self._up.items())]

    def _both_ways(self, read: Callable[[_Carried], tuple[int, int]]) -> Iterable[_Number]:
        for peer, carried in self._carried():
            sent, received = read(carried)
            yield (peer, "sent"), sent
            yield (peer, "received"), received

    def _transport(self, what: str, unit: float) -> Iterable[_Number]:
        for peer, seen in self._up.items():
            number = seen.look().get(what)
            if number is not None:
                yield (peer,), number * unit

    # --- the overlay --------------------------------------------------------------------------------------------------

    def _read_overlay(self, telemetry: Telemetry) -> None:
        overlay = self._overlay
        telemetry.observe(i.ACTIVE, lambda: _one(len(overlay.membership.active)))
        telemetry.observe(i.PASSIVE, lambda: _one(len(overlay.membership.passive)))
        telemetry.observe(i.EAGER, lambda: _one(len(overlay.gossip.eager)))
        telemetry.observe(i.LAZY, lambda: _one(len(overlay.gossip.lazy)))
        telemetry.observe(i.MISSING, lambda: _one(overlay.gossip.missing))
        telemetry.observe(i.DROPPED, self._dropped)
        telemetry.observe(i.REFUSED, self._refused)
        telemetry.observe(i.REQUEST_DROPPED, lambda: _one(overlay.refused[f"{ROUTER}: overloaded"]))
        telemetry.observe(i.ENTRIES, lambda: [((name,), size) for name, size in overlay.replication.sizes.items()])

    def _dropped(self) -> Iterable[_Number]:
        for protocol, part in (("hyparview", self._overlay.membership), ("plumtree", self._overlay.gossip)):
            for reason, count in part.dropped.items():
                yield (protocol, reason), count

    def _refused(self) -> Iterable[_Number]:
        for text, count in self._overlay.statistics().refused.items():
            instance, _, reason = text.rpartition(": ")
            yield (instance, reason), count

    # --- processes ----------------------------------------------------------------------------------------------------

    def _read_processes(self, telemetry: Telemetry) -> None:
        processes = self._runtime.processes
        telemetry.observe(i.PROCESSES, lambda: _one(len(processes)))
        telemetry.observe(i.MAILBOXES, lambda: _one(sum(len(each.mailbox) for each in processes.values())))
        telemetry.observe(
            i.LONGEST_MAILBOX, lambda: _one(max((len(each.mailbox) for each in processes.values()), default=0))
        )


def _one(number: float) -> list[_Number]:
    return [((), number)]


__all__ = ["MAX_PEERS", "Readings"]
