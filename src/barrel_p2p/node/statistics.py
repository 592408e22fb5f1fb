"""What a node counts, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from barrel_p2p.node.channel import Channel
from barrel_p2p.node.telemetry import Metric
from barrel_p2p.term.types import Atom


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One connected peer: messages and bytes since it came up, bytes that wait to be sent.

    ``round_trip_ms`` is None over TCP, which doesn't tell; ``busy_seconds`` is how long senders had to wait in all.
    """

    sent_messages: int
    received_messages: int
    queued_bytes: int
    busy: bool
    sent_bytes: int
    received_bytes: int
    round_trip_ms: float | None
    busy_seconds: float

    @classmethod
    def of(cls, channel: Channel) -> PeerStatistics:
        transport = channel.connection.stats()
        round_trip = transport.get("rtt_us")
        return cls(
            channel.sent_messages,
            channel.received_messages,
            channel.connection.queued,
            channel.gate.closed,
            transport.get("bytes_sent", 0),
            transport.get("bytes_received", 0),
            None if round_trip is None else round_trip / 1000,
            channel.busy_time,
        )


@dataclass(frozen=True, slots=True)
class OverlayStatistics:
    """The overlay as this node sees it.

    Attributes:
        active, passive: Sizes of the views.
        eager, lazy: Neighbours that get broadcasts in full, and those that are told the ids only.
        dropped: Messages of peers that were malformed or forged, by what was wrong.
        closed_idle: Channels that were closed because nobody used them.
        refused: Parts of replicated states, and requests to services, that were refused, as ``"instance: reason"``.
    """

    active: int
    passive: int
    eager: int
    lazy: int
    dropped: dict[str, int]
    closed_idle: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """A node at one moment.

    Attributes:
        metrics: Everything that is measured, by the name of the instrument: ``docs/reference/metrics.md`` lists them.
    """

    processes: int
    peers: dict[Atom, PeerStatistics]
    overlay: OverlayStatistics
    metrics: Mapping[str, Metric]


__all__ = ["OverlayStatistics", "PeerStatistics", "Statistics"]
