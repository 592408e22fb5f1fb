"""Who has to wait: peers that broke the protocol.

``Conduct`` remembers peers by their proven names. Each time one breaks the protocol its channel is closed and it has to
stay away for a while: 1 s, then twice as long each time, at most a minute. Ten minutes without an offence clear it. So
a peer with a bug, or an ill will, costs a handshake now and then, not one after the other.

The table is bounded. Where it is full the entry that has been quiet for the longest time goes. Who is not known by name
yet is held by his address (``rust/src/budget.rs``).
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_DELAY = 1.0  # seconds; this and the next two are guesses
LONGEST_DELAY = 60.0
CLEAN_AFTER = 600.0
MAX_PEERS = 1024  # a few hundred bytes each


@dataclass(slots=True)
class _Record:
    offences: int
    last: float
    until: float


class Conduct:
    """What peers have done, by name. Time is passed in, in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def offended(self, name: str, *, now: float) -> float:
        """The peer broke the protocol; returns for how many seconds it has to stay away."""
        record = self._records.pop(name, None)
        offences = 1 if record is None or now - record.last > CLEAN_AFTER else record.offences + 1
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(offences - 1, 16))
        if len(self._records) >= MAX_PEERS:
            del self._records[next(iter(self._records))]
        self._records[name] = _Record(offences, now, now + delay)
        return delay

    def wait(self, name: str, *, now: float) -> float:
        """Seconds until the peer is welcome, 0 if it is."""
        record = self._records.get(name)
        if record is None:
            return 0.0
        if now - record.last > CLEAN_AFTER:
            del self._records[name]
        return max(0.0, record.until - now)

    def __len__(self) -> int:
        return len(self._records)


__all__ = ["Conduct"]
