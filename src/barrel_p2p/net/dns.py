"""DNS: addresses by the system's resolver, and service records (SRV, RFC 2782) with the ``dns`` extra."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from barrel_p2p.errors import ConfigError

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

SERVICE = "_barrel-p2p._udp"  # the port's name and protocol in a service, as Kubernetes makes the record
LOOKUP_SECONDS = 4.0  # for the servers of one look-up; a guess, less than a place of discovery is waited for
MAX_RECORDS = 64  # of one answer; a guess


async def resolve_host(host: str) -> list[str]:
    """The addresses of a host name by the system's resolver (hosts file, then DNS), IPv4 first as upstream
    has it.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    v4 = [str(entry[4][0]) for entry in found if entry[0] == socket.AF_INET]
    v6 = [str(entry[4][0]) for entry in found if entry[0] == socket.AF_INET6]
    return list(dict.fromkeys(v4 + v6))


class ServiceRecords:
    """Looks up service records.

    Example::

        records = await ServiceRecords().lookup("_barrel-p2p._udp.shop.example")   # [("a.shop.example", 9100), ...]

    Args:
        resolver: asks the name servers; by default those of the system.
        rng: draws among records of the same priority.

    Raises:
        ConfigError: the ``dns`` extra is not installed.
    """

    def __init__(self, resolver: Resolver | None = None, rng: random.Random | None = None) -> None:
        try:
            import dns.asyncresolver
        except ImportError:
            raise ConfigError("DNS service records need the dns extra: pip install 'barrel-p2p[dns]'") from None
        self._resolver = resolver
        self._make = dns.asyncresolver.Resolver
        self._rng = rng or random.SystemRandom()

    async def lookup(self, name: str) -> Sequence[tuple[str, int]] | str:
        """Hosts and ports of a service, best first; or in words why there are none."""
        import dns.exception
        import dns.resolver

        try:
            resolver = self._resolver or self._make()
            answer = await resolver.resolve(name, "SRV", lifetime=LOOKUP_SECONDS)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return "is not there"
        except (dns.exception.DNSException, OSError) as error:
            return f"can't be looked up ({error})"
        records = [
            (record.priority, record.weight, record.target.to_text(omit_final_dot=True), record.port)
            for record in list(answer)[:MAX_RECORDS]
            if record.port and record.target.to_text() != "."  # "." says that there is no such service here
        ]
        return [(host, port) for _, _, host, port in in_order(records, self._rng)] or "offers no service"


def in_order(records: list[tuple[int, int, str, int]], rng: random.Random) -> list[tuple[int, int, str, int]]:
    """Records (priority, weight, host, port) in the order to try them: by priority, then drawn by weight (RFC 2782)."""
    ordered = []
    rest = sorted(records)
    while rest:
        same = [record for record in rest if record[0] == rest[0][0]]
        weights = [record[1] for record in same]
        drawn = rng.choices(same, weights)[0] if any(weights) else rng.choice(same)
        ordered.append(drawn)
        rest.remove(drawn)
    return ordered


__all__ = ["SERVICE", "ServiceRecords", "in_order", "resolve_host"]
