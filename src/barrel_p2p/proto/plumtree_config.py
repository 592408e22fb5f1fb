"""The settings of the broadcast, each with its default and where the default comes from."""

from __future__ import annotations

from dataclasses import dataclass, fields

from barrel_p2p.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlumtreeConfig:
    """What ``Plumtree`` can be told. No name is upstream's: its values are constants."""

    graft_ms: int = 1_000
    """Wait for a broadcast after its first announcement, then ask for it (upstream's value)."""
    graft_retry_ms: int = 500
    """Wait until the next announcer is asked, doubled once all were (a guess, some round trips; the paper: one)."""
    max_grafts: int = 8
    """Attempts to get one announced broadcast (a guess)."""
    max_announcers: int = 8
    """Announcers remembered for one broadcast (a guess: more than neighbours)."""
    max_missing: int = 10_000
    """Broadcasts announced and not received; one peer may account for a quarter of them (a guess)."""
    id_age_ms: int = 300_000
    """How long a broadcast is known for one that was delivered (upstream's value)."""
    max_ids: int = 200_000
    """As a count: 666 broadcasts a second for five minutes, some 30 MB (a guess)."""
    max_cache_bytes: int = 32 << 20
    """Broadcasts kept to be sent again on request; the oldest go first (a guess; upstream has no bound)."""
    max_cached: int = 20_000
    """As a count (a guess)."""
    announce_ms: int = 30_000
    """A new neighbour is told what was received within this time, in case it missed it meanwhile (a guess: longer than
    the detection of a dead neighbour takes)."""
    max_announced: int = 64
    """As a count, the latest (a guess)."""
    optimize_ms: int = 0
    """Make a branch of a link that announced a broadcast so much earlier than it came (0: never). The paper compares
    hops, which upstream's messages don't carry."""
    max_strangers: int = 64
    """Erlang nodes outside the active view that broadcasts are announced to (a guess)."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 0 if item.name in ("optimize_ms", "max_announced", "announce_ms") else 1
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{item.name} is a whole number from {least} on, not {value!r}", option=item.name)


__all__ = ["PlumtreeConfig"]
