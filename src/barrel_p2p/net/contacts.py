"""The nodes to join a cluster through, looked up anew at every attempt.

A contact is a node name, ``seed@10.0.0.1``, or all nodes behind a DNS name, where one name stands for many hosts, as a
headless service of Kubernetes does:

- ``dns:shop@members.example``: a node ``shop@ADDRESS`` for each IPv4 address of ``members.example``;
- ``srv:shop@_barrel-p2p._udp.members.example``: a node ``shop@TARGET`` for each service record, at the record's port.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from barrel_p2p.errors import ConfigError
from barrel_p2p.net.discovery import RESOLVE_TIMEOUT
from barrel_p2p.net.dns import ServiceRecords, resolve_host
from barrel_p2p.proto.names import is_node_name, validate_node_name
from barrel_p2p.term.types import Atom

MAX_CONTACTS = 64  # taken from one DNS name; a guess: one of them is enough to join

_log = logging.getLogger("barrel_p2p.discovery")


@dataclass(frozen=True, slots=True)
class Contact:
    """A node that may be there, and where it listens if the look-up told that too."""

    name: Atom
    address: tuple[str, int] | None = None


class Contacts:
    """The contacts of one node.

    Args:
        entries: as above.
        services: for ``srv:`` entries; made if there are any.

    Raises:
        ConfigError: an entry has another form, or the ``dns`` extra is missing for an ``srv:`` entry.
    """

    def __init__(
        self,
        entries: Sequence[str],
        *,
        services: ServiceRecords | None = None,
        resolve: Callable[[str], Awaitable[list[str]]] = resolve_host,
    ) -> None:
        self._entries = [_parsed(entry) for entry in entries]
        self._services = services
        self._resolve = resolve
        if services is None and any(kind == "srv" for kind, _, _ in self._entries):
            self._services = ServiceRecords()

    def __bool__(self) -> bool:
        return bool(self._entries)

    async def find(self) -> list[Contact]:
        """The contacts of this moment, this node too if it is one; what can't be resolved is logged and left out."""
        found: dict[Atom, Contact] = {}
        for kind, alive, host in self._entries:
            for contact in await self._behind(kind, alive, host):
                found.setdefault(contact.name, contact)
        return list(found.values())

    async def _behind(self, kind: str, alive: str, host: str) -> list[Contact]:
        if kind == "node":
            return [Contact(Atom(f"{alive}@{host}"))]
        named: list[tuple[str, tuple[str, int] | None]]
        try:
            if kind == "dns":
                hosts = await asyncio.wait_for(self._resolve(host), RESOLVE_TIMEOUT)
                named = [(address, None) for address in hosts if ipaddress.ip_address(address).version == 4]
                missing = "has no IPv4 address"
            else:
                assert self._services is not None
                records = await asyncio.wait_for(self._services.lookup(host), RESOLVE_TIMEOUT)
                named = [] if isinstance(records, str) else [(target, (target, port)) for target, port in records]
                missing = records if isinstance(records, str) else ""
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            named, missing = [], f"does not resolve ({error or 'no answer in time'})"
        if not named:
            _log.warning("no contact behind %s: it %s", host, missing)
        names = [(f"{alive}@{target}", address) for target, address in named[:MAX_CONTACTS]]
        return [Contact(Atom(name), address) for name, address in names if is_node_name(name)]


def _parsed(entry: str) -> tuple[Literal["node", "dns", "srv"], str, str]:
    kind, colon, rest = entry.partition(":") if isinstance(entry, str) else ("", "", "")
    if colon and kind in ("dns", "srv"):
        alive, at, host = rest.partition("@")
        if at and is_node_name(f"{alive}@{host}"):
            return ("dns" if kind == "dns" else "srv"), alive, host
        raise ConfigError(f"contact_nodes: {entry!r:.80} has to be {kind}:name@host", "contact_nodes")
    try:
        name = validate_node_name(entry)
    except ConfigError as error:
        raise ConfigError(f"contact_nodes: {error}", "contact_nodes") from None
    alive, _, host = name.partition("@")
    return "node", alive, host


__all__ = ["MAX_CONTACTS", "Contact", "Contacts"]
