"""Where a node listens: from its name to addresses, without a daemon.

Places are asked in this order; the first that knows the name wins, and all are asked anew at every dial:

1. the static table, ``{"bob@10.0.0.2": ("10.0.0.2", 9100)}``;
2. a function of the user's (``backend``), which asks a service catalogue, say;
3. a directory with one small file for each node (``endpoint_files.py``), shared by nodes of one host or file system;
4. DNS service records of the host after the ``@``, which give port and host, if they are asked for (``dns.py``);
5. the host after the ``@``, by address or DNS (A, then AAAA), with the port that this node listens on itself, or 4433.

1, 3 and 5 are upstream's chain. A stale answer costs one failed dial. A host with several addresses gives several
candidates, in the resolver's order.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.net.dns import SERVICE, ServiceRecords, resolve_host
from barrel_p2p.net.endpoint_files import EndpointFiles
from barrel_p2p.proto.names import host_of, validate_node_name
from barrel_p2p.term.types import Atom

Address = tuple[str, int]  # an IP address or host name as text, and a port
Resolver = Callable[[str], Awaitable[list[str]]]
Backend = Callable[[str], Sequence[Address] | Awaitable[Sequence[Address] | None] | None]

DEFAULT_PORT = 4433  # upstream's
RESOLVE_TIMEOUT = 5.0  # seconds for one place; a guess: the resolver's own first retry comes after 5
MAX_ADDRESSES = 64  # of one answer, each of which may be dialled; a guess

_log = logging.getLogger("barrel_p2p.discovery")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one place said about a node: ``text`` in words; ``addresses`` to dial, empty if it led nowhere."""

    place: str
    text: str
    addresses: tuple[Address, ...] = ()


class Discovery:
    """Looks up nodes and makes this one known.

    Example::

        discovery = Discovery(static={"bob@10.0.0.2": ("10.0.0.2", 9100)}, directory="data/discovery")
        addresses = await discovery.lookup("bob@10.0.0.2")

    Args:
        static: addresses that win over everything else; hosts are addresses or names.
        backend: from a node's name to its addresses, plain or async; None or an empty list if it does not know it.
        directory: for the endpoint files, or None to do without.
        services: asks DNS for service records, or None to do without.
        own_port: the port that this node listens on, taken for nodes known by host alone; 0 if it listens on
            a random one.
        resolve: from a host name to addresses; by default the system's resolver.

    Raises:
        ConfigError: an entry of the static table or the directory can't be used.
    """

    def __init__(
        self,
        *,
        static: Mapping[str, Address] | None = None,
        backend: Backend | None = None,
        directory: Path | str | None = None,
        services: ServiceRecords | None = None,
        own_port: int = 0,
        resolve: Resolver | None = None,
    ) -> None:
        self.own_port = own_port
        self._backend = backend
        self._files = EndpointFiles(Path(directory)) if directory is not None else None
        self._services = services
        self._resolve = resolve if resolve is not None else resolve_host
        self._static = {
            validate_node_name(name): checked_address(name, entry) for name, entry in (static or {}).items()
        }

    async def lookup(self, name: str) -> list[Address]:
        """The addresses to dial for a node, best first; never empty.

        Raises:
            ConfigError: ``name`` is no node name.
            NotConnected: no place knows it; the message says what each of them answered.
        """
        tried: list[str] = []
        async for answer in self.ask(name):
            if answer.addresses:
                return list(answer.addresses)
            tried.append(f"{answer.place} {answer.text}")
        raise NotConnected(f"nobody knows where {name} listens: {'; '.join(tried)}", "unknown_address")

    async def ask(self, name: str) -> AsyncIterator[Answer]:
        """What each place says about a node, one after the other; ``lookup`` takes the first with addresses.

        Raises:
            ConfigError: ``name`` is no node name.
        """
        for place, look in self._places(validate_node_name(name)):
            entries = await look()
            if isinstance(entries, str):
                yield Answer(place, entries)
                continue
            found: dict[Address, None] = {}
            for host, port in entries[:MAX_ADDRESSES]:
                found |= {(address, port): None for address in await self._addresses(host)}
            text = f"says {', '.join(f'{host}:{port}' for host, port in entries[:3])}"
            if not found:
                text += f", but the host name {entries[0][0]} does not resolve"
            yield Answer(place, text, tuple(found)[:MAX_ADDRESSES])

    def publish(self, name: str, port: int) -> None:
        """Write this node's endpoint file: its host (after the ``@``) and the port it really listens on.

        Raises:
            ConfigError: the file can't be written.
        """
        if self._files is not None:
            self._files.publish(validate_node_name(name), port)

    def unpublish(self, name: str, port: int) -> None:
        """Remove this node's endpoint file, unless a successor has written its own port there meanwhile."""
        if self._files is not None:
            self._files.unpublish(validate_node_name(name), port)

    def names(self) -> list[Atom]:
        """The nodes of the static table and the directory, sorted."""
        return sorted({*self._static, *(self._files.names() if self._files is not None else ())})

    # --- the places: each gives hosts and ports, or says in words why it does not -------------------------------------

    def _places(self, node: Atom) -> Iterator[tuple[str, Callable[[], Awaitable[Sequence[Address] | str]]]]:
        yield "the static table", lambda: self._in_table(node)
        if self._backend is not None:
            yield "the discover function", lambda: self._of_backend(node)
        if self._files is not None and (path := self._files.path(node)) is not None:
            yield str(path), lambda: self._in_file(path)
        if self._services is not None and not _is_ip(host_of(node)):
            yield f"the DNS record {SERVICE}.{host_of(node)}", lambda: self._of_services(node)
        yield "its name", lambda: self._of_name(node)

    async def _in_table(self, node: Atom) -> Sequence[Address] | str:
        entry = self._static.get(node)
        return "does not list it" if entry is None else [entry]

    async def _of_backend(self, node: Atom) -> Sequence[Address] | str:
        assert self._backend is not None
        try:
            found = self._backend(node)
            if inspect.isawaitable(found):
                found = await asyncio.wait_for(found, RESOLVE_TIMEOUT)
            return [checked_address(node, entry) for entry in found or ()] or "does not know it"
        except TimeoutError:
            return f"gave no answer within {RESOLVE_TIMEOUT:g} s"
        except Exception as error:  # the user's code; a dial must end with an error that says so, not with a crash
            _log.warning("the discover function failed for %s", node, exc_info=error)
            return f"failed: {error!r}"

    async def _in_file(self, path: Path) -> Sequence[Address] | str:
        assert self._files is not None
        entry = self._files.read(path)
        return entry if isinstance(entry, str) else [entry]

    async def _of_services(self, node: Atom) -> Sequence[Address] | str:
        assert self._services is not None
        try:
            found = await asyncio.wait_for(self._services.lookup(f"{SERVICE}.{host_of(node)}"), RESOLVE_TIMEOUT)
        except TimeoutError:
            return f"gave no answer within {RESOLVE_TIMEOUT:g} s"
        return found if isinstance(found, str) else list(found) or "is not there"

    async def _of_name(self, node: Atom) -> Sequence[Address] | str:
        return [(host_of(node), self.own_port or DEFAULT_PORT)]

    async def _addresses(self, host: str) -> list[str]:
        if _is_ip(host):
            return [str(ipaddress.ip_address(host))]
        try:
            return await asyncio.wait_for(self._resolve(host), RESOLVE_TIMEOUT)
        except (
            OSError,
            UnicodeError,
        ):  # no such host, no resolver, or no answer in time (TimeoutError is an OSError)
            return []


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def checked_address(name: str, entry: object) -> Address:
    """``entry`` if it is a host and a port, else ConfigError."""
    match entry:
        case (str(host), int(port)) if host and 0 < port < 65536:
            return host, port
    raise ConfigError(f"the address of {name} is a pair of host and port such as ('10.0.0.2', 9100), not {entry!r:.60}")


__all__ = ["DEFAULT_PORT", "Address", "Answer", "Backend", "Discovery", "checked_address"]
