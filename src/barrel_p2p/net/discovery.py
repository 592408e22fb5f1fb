"""Where a node listens: from its name to addresses, without a daemon.

Three places are asked in this order, as upstream does; the first that knows the name wins:

1. the static table, ``{"bob@10.0.0.2": ("10.0.0.2", 9100)}``;
2. a directory with one small file for each node, ``bob@10.0.0.2.endpoint``, shared by nodes of one host or
   file system; the content is one Erlang term, ``{"10.0.0.2", 9100}.``, so Erlang and Python nodes find each
   other;
3. the host after the ``@``, by address or DNS (A, then AAAA), with the port that this node listens on itself,
or 4433.

A stale file costs one failed dial. A host with several addresses gives several candidates, in the resolver's
order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from barrel_p2p.disk.files import make_directory, unusable, write_atomic
from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.proto.names import host_of, is_node_name, validate_node_name
from barrel_p2p.term.types import Atom

Address = tuple[str, int]  # an IP address as text, and a port
Resolver = Callable[[str], Awaitable[list[str]]]

DEFAULT_PORT = 4433  # upstream's
RESOLVE_TIMEOUT = 5.0  # seconds; a guess: the resolver's own first retry comes after 5
MAX_ENDPOINT_FILE = 4096  # bytes
MAX_NODE_NAME_IN_FILE = 240  # bytes of a name that still fit a file name with its suffixes

_ENDPOINT = re.compile(
    r"""\s*\{\s*
    (?: "(?P<text>[^"\\]*)" | <<\s*"(?P<binary>[^"\\]*)"\s*>> | \{(?P<tuple>[\d\s,]*)\} )
    \s*,\s*(?P<port>\d{1,5})\s*\}\s*\.\s*""",
    re.VERBOSE,
)

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
        directory: for the endpoint files, or None to do without.
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
        directory: Path | str | None = None,
        own_port: int = 0,
        resolve: Resolver | None = None,
    ) -> None:
        self.own_port = own_port
        self._directory = Path(directory) if directory is not None else None
        self._resolve = resolve if resolve is not None else resolve_host
        self._static = {validate_node_name(name): _checked(name, entry) for name, entry in (static or {}).items()}
        if self._directory is not None:
            make_directory(self._directory)

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
        for place, entry in self._places(validate_node_name(name)):
            if isinstance(entry, str):
                yield Answer(place, entry)
                continue
            host, port = entry
            addresses = tuple((address, port) for address in await self._addresses(host))
            text = f"says {host}:{port}"
            yield Answer(place, text if addresses else f"{text}, but the host name {host} does not resolve", addresses)

    def publish(self, name: str, port: int) -> None:
        """Write this node's endpoint file: its host (after the ``@``) and the port it really listens on.

        Raises:
            ConfigError: the file can't be written.
        """
        if self._directory is None:
            return
        node = validate_node_name(name)
        path = self._path(node)
        if path is None:
            raise ConfigError(f"{node[:60]}... is too long for a file name: at most {MAX_NODE_NAME_IN_FILE} characters")
        text = f'{{"{host_of(node)}",{port}}}.\n'
        try:
            write_atomic(path, text.encode("ascii"), mode=0o644)
        except OSError as error:
            raise unusable(path, "write", error) from None

    def unpublish(self, name: str, port: int) -> None:
        """Remove this node's endpoint file, unless a successor has written its own port there meanwhile."""
        node = validate_node_name(name)
        path = self._path(node)
        if path is not None and self._read_file(path) == (host_of(node), port):
            with contextlib.suppress(OSError):
                path.unlink()

    def names(self) -> list[Atom]:
        """The nodes of the static table and the directory, sorted."""
        found = set(self._static)
        if self._directory is not None:
            with contextlib.suppress(OSError):
                for path in self._directory.glob("*.endpoint"):
                    name = path.name.removesuffix(".endpoint")
                    if is_node_name(name) and isinstance(self._read_file(path), tuple):
                        found.add(Atom(name))
        return sorted(found)

    # --- the three places -----------------------------------------------------------------------------------

    def _places(self, node: Atom) -> Iterator[tuple[str, Address | str]]:
        """Each place with the host and port that it gives, or with what is wrong in words."""
        yield "the static table", self._static.get(node, "does not list it")
        path = self._path(node)
        if path is not None:
            yield str(path), self._read_file(path)
        yield "its name", (host_of(node), self.own_port or DEFAULT_PORT)

    def _path(self, node: Atom) -> Path | None:
        if self._directory is None or len(node) > MAX_NODE_NAME_IN_FILE:
            return None
        return self._directory / f"{node}.endpoint"

    def _read_file(self, path: Path) -> Address | str:
        """The entry of an endpoint file, or what is wrong with it."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_ENDPOINT_FILE)
        except FileNotFoundError:
            return "is not there"
        except OSError as error:
            return f"can't be read ({error.strerror})"
        entry = parse_endpoint(data)
        if entry is None:
            _log.warning('%s is no endpoint file: it must hold {"host", port}. and nothing else', path)
            return 'does not hold {"host", port}.'
        return entry

    async def _addresses(self, host: str) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        try:
            return await asyncio.wait_for(self._resolve(host), RESOLVE_TIMEOUT)
        except (
            OSError,
            UnicodeError,
        ):  # no such host, no resolver, or no answer in time (TimeoutError is an OSError)
            return []


def parse_endpoint(data: bytes) -> Address | None:
    """Read the content of an endpoint file: ``{"host", port}.``, also with a binary or an address tuple as
    host.
    """
    match = _ENDPOINT.fullmatch(data.decode("latin-1"))
    if match is None:
        return None
    port = int(match["port"])
    host = match["text"] or match["binary"]
    if match["tuple"] is not None:
        host = _host_of_tuple(match["tuple"])
    return (host, port) if host and 0 < port < 65536 and host.isascii() and host.isprintable() else None


async def resolve_host(host: str) -> list[str]:
    """The addresses of a host name by the system's resolver (hosts file, then DNS), IPv4 first as upstream
    has it.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    v4 = [str(entry[4][0]) for entry in found if entry[0] == socket.AF_INET]
    v6 = [str(entry[4][0]) for entry in found if entry[0] == socket.AF_INET6]
    return list(dict.fromkeys(v4 + v6))


def _host_of_tuple(text: str) -> str | None:
    try:
        numbers = [int(part) for part in text.split(",")]
        if len(numbers) == 4:
            return str(ipaddress.IPv4Address(bytes(numbers)))
        if len(numbers) == 8:
            return str(ipaddress.IPv6Address(b"".join(number.to_bytes(2, "big") for number in numbers)))
    except (ValueError, OverflowError):
        pass
    return None


def _checked(name: str, entry: object) -> Address:
    match entry:
        case (str(host), int(port)) if host and 0 < port < 65536:
            return host, port
    raise ConfigError(f"the address of {name} is a pair of host and port such as ('10.0.0.2', 9100), not {entry!r:.60}")


__all__ = ["DEFAULT_PORT", "Address", "Answer", "Discovery", "parse_endpoint", "resolve_host"]
