"""How often a node shuffles, and when it looks again for neighbours it lost."""

from __future__ import annotations

from random import Random
from typing import Final

from barrel_p2p.proto.hyparview_config import (
    BUSY_CHURN,
    MAX_BACKOFF,
    MAX_LOST,
    MAX_SHUFFLE_PERIOD,
    MIN_SHUFFLE_PERIOD,
    WILD_CHURN,
    HyParViewConfig,
)

CLEANUP_PERIOD: Final = 60.0  # seconds; upstream's value


class Pace:
    """Shuffles come faster while members come and go (upstream's rule): counted over windows of ``churn_window_ms``."""

    __slots__ = ("_base", "_changes", "_cleaned", "_window", "_window_start", "period")

    def __init__(self, config: HyParViewConfig) -> None:
        self._base = config.shuffle_period_ms / 1000
        self._window = config.churn_window_ms / 1000
        self._window_start = float("-inf")
        self._changes = 0
        self._cleaned: float | None = None
        self.period = self._base

    def count(self, now: float) -> None:
        """A member came or went."""
        self._restart_window(now)
        self._changes += 1

    def next_period(self, now: float) -> float:
        """Seconds until the next shuffle."""
        self._restart_window(now)
        if self._changes > WILD_CHURN:
            period = MIN_SHUFFLE_PERIOD
        elif self._changes > BUSY_CHURN:
            period = max(MIN_SHUFFLE_PERIOD, self._base / 2)
        else:
            period = min(max(self._base, MIN_SHUFFLE_PERIOD), MAX_SHUFFLE_PERIOD)
        self.period = period
        return period

    def cleanup_due(self, now: float) -> bool:
        """Whether the passive view is to be cleaned, once in a minute."""
        if self._cleaned is None or now - self._cleaned < CLEANUP_PERIOD:
            self._cleaned = now if self._cleaned is None else self._cleaned
            return False
        self._cleaned = now
        return True

    def _restart_window(self, now: float) -> None:
        if now - self._window_start >= self._window:
            self._window_start = now
            self._changes = 0


class Lost:
    """Neighbours whose channel broke, the latest ``MAX_LOST`` of them, each with the wait until the next attempt."""

    __slots__ = ("_peers", "_rng", "_wait")

    def __init__(self, config: HyParViewConfig, rng: Random) -> None:
        self._wait = config.rejoin_ms / 1000
        self._rng = rng
        self._peers: dict[str, tuple[float, float]] = {}  # the wait, and when it is over

    def add(self, peer: str, now: float) -> None:
        self._peers.pop(peer, None)
        if len(self._peers) >= MAX_LOST:
            del self._peers[next(iter(self._peers))]
        self._set(peer, self._wait, now)

    def failed(self, peer: str, now: float) -> None:
        if peer in self._peers:
            self._set(peer, min(self._peers[peer][0] * 2, MAX_BACKOFF), now)

    def due(self, now: float) -> str | None:
        """One whose wait is over."""
        if not self._peers:
            return None
        return next((peer for peer, (_, at) in self._peers.items() if at <= now), None)

    def discard(self, peer: str) -> None:
        if self._peers:
            self._peers.pop(peer, None)

    def clear(self) -> None:
        self._peers.clear()

    def _set(self, peer: str, wait: float, now: float) -> None:
        self._peers[peer] = (wait, now + wait * (0.5 + self._rng.random()))


__all__ = ["Lost", "Pace"]
