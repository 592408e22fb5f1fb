"""What a node remembers of broadcasts: their ids for long, themselves for as long as there is room."""

from __future__ import annotations

from barrel_p2p.proto.plumtree_config import PlumtreeConfig
from barrel_p2p.proto.plumtree_events import Gossip


class Cache:
    """Both are in the order of receipt, so that what goes is at the front.

    ``seen`` maps an id to when it was received.
    """

    __slots__ = ("_age", "_bytes", "_gossips", "_max_bytes", "_max_count", "_max_ids", "seen")

    def __init__(self, config: PlumtreeConfig) -> None:
        self._age = config.id_age_ms / 1000
        self._max_ids = config.max_ids
        self._max_bytes = config.max_cache_bytes
        self._max_count = config.max_cached
        self.seen: dict[bytes, float] = {}
        self._gossips: dict[bytes, Gossip] = {}
        self._bytes = 0

    def add(self, gossip: Gossip, now: float) -> bool:
        """Remember a new broadcast; whether the cache was empty before."""
        first = not self.seen
        self.seen[gossip.id] = now
        self._gossips[gossip.id] = gossip
        self._bytes += gossip.size
        while self._bytes > self._max_bytes or len(self._gossips) > self._max_count:
            self._drop_oldest()
        if len(self.seen) > self._max_ids:
            del self.seen[next(iter(self.seen))]
        return first

    def get(self, id: bytes) -> Gossip | None:
        return self._gossips.get(id)

    def latest(self, count: int, since: float) -> list[bytes]:
        """Ids of up to ``count`` broadcasts received after ``since``, the latest first, that are still here."""
        ids: list[bytes] = []
        for id in reversed(self._gossips):
            if len(ids) >= count or self.seen.get(id, since) <= since:
                break
            ids.append(id)
        return ids

    def expire(self, now: float) -> bool:
        """Forget what is too old; whether something is left."""
        while self.seen:
            id = next(iter(self.seen))
            if now - self.seen[id] < self._age:
                return True
            del self.seen[id]
            gossip = self._gossips.pop(id, None)
            if gossip is not None:
                self._bytes -= gossip.size
        return False

    def _drop_oldest(self) -> None:
        self._bytes -= self._gossips.pop(next(iter(self._gossips))).size


__all__ = ["Cache"]
