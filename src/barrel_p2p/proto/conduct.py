"""Who has to wait: peers that broke the protocol, and addresses that begin many handshakes and finish none.

``Conduct`` remembers peers by their proven names. Each time one breaks the protocol its channel is closed and it has to
stay away for a while: 1 s, then twice as long each time, at most a minute. Ten minutes without an offence clear it. So
a peer with a bug, or an ill will, costs a handshake now and then, not one after the other.

``Budget`` counts the handshakes that each source address has begun and that did not end with a channel, a wrong cookie
included: a bucket of tokens. A success gives its token back, so that many good nodes behind one address don't wait for
each other. An IPv6 host owns at least 2**64 addresses, so the first half of the address counts.

Both tables are bounded. Where one is full the entry that has been quiet for the longest time goes; an attacker with
thousands of addresses gets round this, and is held by ``max_unauthenticated`` alone.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

FIRST_DELAY = 1.0  # seconds; this and the next two are guesses
LONGEST_DELAY = 60.0
CLEAN_AFTER = 600.0
MAX_PEERS = 1024  # a few hundred bytes each

BURST = 256  # handshakes that an address may have begun at once; four times the default of max_unauthenticated
PER_SECOND = 16.0  # failed handshakes of one address that we bear for long; some 2 ms of CPU each, a guess
MAX_ADDRESSES = 4096


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


@dataclass(slots=True)
class _Bucket:
    tokens: float
    last: float


class Budget:
    """Handshakes by source address."""

    def __init__(self, *, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._buckets: dict[str, _Bucket] = {}

    def begin(self, host: str, *, now: float) -> bool:
        """A handshake from ``host`` (an IP address) begins; False if it has begun too many."""
        bucket = self._bucket(host, now)
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def succeeded(self, host: str, *, now: float) -> None:
        """A handshake from ``host`` ended with a channel: it costs nothing."""
        bucket = self._bucket(host, now)
        bucket.tokens = min(self._burst, bucket.tokens + 1.0)

    def __len__(self) -> int:
        return len(self._buckets)

    def _bucket(self, host: str, now: float) -> _Bucket:
        source = source_of(host)
        bucket = self._buckets.pop(source, None)
        if bucket is None:
            if len(self._buckets) >= MAX_ADDRESSES:
                del self._buckets[next(iter(self._buckets))]
            bucket = _Bucket(self._burst, now)
        else:
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.last) * self._per_second)
            bucket.last = now
        self._buckets[source] = bucket  # at the end: the first one has been quiet for the longest time
        return bucket


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, the first 64 bits of an IPv6 one."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


__all__ = ["Budget", "Conduct", "source_of"]
