"""What a node counts, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from barrel_p2p.term.types import Atom


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One connected peer: messages since it came up, bytes that wait to be sent."""

    sent_messages: int
    received_messages: int
    queued_bytes: int
    busy: bool


@dataclass(frozen=True, slots=True)
class OverlayStatistics:
    """The overlay as this node sees it.

    Attributes:
        active, passive: Sizes of the views.
        eager, lazy: Neighbours that get broadcasts in full, and those that are told the ids only.
        dropped: Messages of peers that were malformed or forged, by what was wrong.
        closed_idle: Channels that were closed because nobody used them.
        refused: Parts of replicated states that other nodes sent and that were refused, as ``"instance: reason"``.
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
    """A node at one moment."""

    processes: int
    peers: dict[Atom, PeerStatistics]
    overlay: OverlayStatistics


__all__ = ["OverlayStatistics", "PeerStatistics", "Statistics"]
