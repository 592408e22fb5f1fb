"""The passive view: nodes that may take the place of a lost neighbour, and what is known against some of them.

A candidate that failed waits longer after each failure and is forgotten after ``max_fail_count`` of them; one that
refused waits for a shuffle period. Neither is told to others, and those that failed make room first: after a mass
failure dead names would otherwise keep going round.
"""

from __future__ import annotations

from collections.abc import Container
from random import Random

from barrel_p2p.proto.hyparview_config import MAX_BACKOFF, HyParViewConfig


class PassiveView:
    """At most ``passive_size`` names::

    passive.add("bob@host", now)
    peer = passive.candidate(now, taken)
    """

    __slots__ = ("_age", "_backoff", "_faults", "_max_fails", "_rng", "_size", "names")

    def __init__(self, config: HyParViewConfig, rng: Random) -> None:
        self._size = config.passive_size
        self._backoff = config.base_backoff_ms / 1000
        self._max_fails = config.max_fail_count
        self._age = config.passive_max_age_ms / 1000
        self._rng = rng
        self.names: dict[str, float] = {}  # when it was last heard of
        self._faults: dict[str, tuple[int, float]] = {}  # failures, and when it may be tried again

    def add(self, peer: str, now: float, sent: list[str] | None = None) -> None:
        """Take ``peer`` in; where there is no room one that failed goes, or one of ``sent`` (the other side has it now:
        the paper's rule), or a random one."""
        names = self.names
        if peer not in names and len(names) >= self._size:
            self._make_room(sent)
        names[peer] = now

    def _make_room(self, sent: list[str] | None) -> None:
        for peer, (fails, _) in self._faults.items():
            if fails:
                self.discard(peer)
                return
        while sent:
            peer = sent.pop()
            if peer in self.names:
                self.discard(peer)
                return
        self.discard(self._one_of(list(self.names)))

    def discard(self, peer: str) -> None:
        self.names.pop(peer, None)
        if self._faults:
            self._faults.pop(peer, None)

    def has_room(self) -> bool:
        return len(self.names) < self._size

    def failed(self, peer: str, now: float) -> None:
        """An attempt to reach ``peer`` failed."""
        if peer not in self.names:
            return
        fails = self._faults.get(peer, (0, 0.0))[0] + 1
        if fails >= self._max_fails:
            self.discard(peer)
        else:
            wait = min(self._backoff * 2**fails, MAX_BACKOFF)
            self._faults[peer] = (fails, now + wait * (0.75 + self._rng.random() / 2))

    def refused(self, peer: str, now: float, wait: float) -> None:
        """``peer`` is well but has no room for us."""
        if peer in self.names:
            self._faults[peer] = (0, now + wait * (0.75 + self._rng.random() / 2))

    def candidate(self, now: float, taken: Container[str], *, desperate: bool = False) -> str | None:
        """A random peer that may be tried now, of those that never failed if there is one; ``desperate``: a refusal
        just now does not matter."""
        faults = self._faults
        good = [p for p in self.names if p not in taken and (p not in faults or self._may_retry(p, now, failed=False))]
        if not good and desperate:
            good = [p for p, (fails, _) in faults.items() if not fails and p not in taken]
        if not good and faults:
            good = [p for p in faults if p not in taken and self._may_retry(p, now, failed=True)]
        return self._one_of(good) if good else None

    def _may_retry(self, peer: str, now: float, *, failed: bool) -> bool:
        fails, retry_at = self._faults[peer]
        return retry_at <= now and (fails > 0) == failed

    def sample(self, count: int, without: str) -> list[str]:
        """Up to ``count`` random names that never failed."""
        if not self._faults:
            pool = list(self.names)
        else:
            pool = [p for p in self.names if p not in self._faults or not self._faults[p][0]]
        return some_of(pool, count, without, self._rng)

    def expire(self, now: float) -> None:
        """Forget who was not heard of for long."""
        for peer in [p for p, heard in self.names.items() if now - heard >= self._age]:
            self.discard(peer)

    def clear(self) -> None:
        self.names.clear()
        self._faults.clear()

    def _one_of(self, names: list[str]) -> str:
        return names[int(self._rng.random() * len(names))]


def some_of(pool: list[str], count: int, without: str, rng: Random) -> list[str]:
    """Up to ``count`` random members of ``pool`` (which is shuffled by it) other than ``without``."""
    chosen: list[str] = []
    left = len(pool)
    while left and len(chosen) < count:
        at = int(rng.random() * left)
        left -= 1
        name, pool[at] = pool[at], pool[left]
        if name != without:
            chosen.append(name)
    return chosen


__all__ = ["PassiveView", "some_of"]
