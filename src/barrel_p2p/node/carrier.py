"""What a node asks of its carrier, the way its bytes travel: QUIC (``carrier_quic.py``) or TCP (``carrier_tcp.py``)."""

from __future__ import annotations

import inspect
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from barrel_p2p.disk.keys import NodeKeys
from barrel_p2p.errors import NotConnected
from barrel_p2p.net.connection import Connection
from barrel_p2p.node.attempt import Attempt
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.establishing import AcceptEvents, DialingRole
from barrel_p2p.node.handshake_counts import HandshakeCounts
from barrel_p2p.node.options import Address, Options, Way
from barrel_p2p.proto.flags import DEFAULT, Flags
from barrel_p2p.proto.handshake import Connected, Framing, HandshakeConfig
from barrel_p2p.proto.names import host_of
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.connect")

MakeChannel = Callable[[Atom, Connection, Connected, bytes | None], Channel]
AnyConnection = TypeVar("AnyConnection", bound=Connection)


class Carrier(Protocol):
    """Made by a node that starts; ``close`` is called in any case, however far the start came.

    Attributes:
        keys: Identity and pins, None if the carrier has no keys.
        addresses: Where peers listen, as far as the user of the node said so; wins over every look-up.
        counts: Where the outcome of each handshake is counted; the node gives its own before ``start``.
        tells_lost_links: Whether an Erlang peer that drops the link is sure to end the connection.
    """

    keys: NodeKeys | None
    tells_lost_links: bool
    addresses: dict[Atom, Address]
    counts: HandshakeCounts

    async def prepare(self) -> int:
        """Get hold of keys, ports and whatever may be refused; returns the creation, the number of this start."""

    async def start(self, creation: int, events: AcceptEvents, make_channel: MakeChannel) -> Address:
        """Let peers in, and be found by them; returns the address that is listened on."""

    async def dial(self, attempt: Attempt) -> DialingRole:
        """Connect to a node and begin the handshake. Raises NotConnected."""

    def turned_away(self) -> dict[str, int]:
        """How many dialers were not let in to a handshake, by reason."""

    def strangers(self) -> int:
        """How many inbound connections are in their handshake."""

    async def close(self) -> None:
        """Close all connections, take back what made this node known. Idempotent."""


def handshake_config(name: Atom, options: Options, creation: int, framing: Framing, more: Flags) -> HandshakeConfig:
    flags = DEFAULT | more
    return HandshakeConfig(
        name=name,
        cookie=options.cookie,
        creation=creation,
        flags=flags if options.published else flags & ~Flags.PUBLISHED,
        framing=framing,
        setup_time=options.setup_timeout_ms / 1000,
    )


async def first_that_answers(
    name: Atom,
    addresses: list[Address],
    options: Options,
    dial: Callable[[Way], Awaitable[AnyConnection]],
) -> tuple[AnyConnection, Address]:
    """A connection to the first address of ``name`` that answers, and that address. Raises NotConnected with what the
    last one said."""
    failure: NotConnected | None = None
    for address in addresses:
        way = await way_to(name, address, options)
        try:
            return await dial(way), address
        except NotConnected as error:
            failure = error
    raise failure or NotConnected(f"{name} has no address", "unknown_address")


async def way_to(name: Atom, address: Address, options: Options) -> Way:
    """How to reach ``name`` at ``address``, as the hook ``on_address`` wants it."""
    if options.on_address is None:
        return Way(address)
    chosen = options.on_address(name, address)
    if inspect.isawaitable(chosen):
        chosen = await chosen
    return chosen if isinstance(chosen, Way) else Way(chosen)


def bind_host(name: Atom, options: Options) -> str:
    """An IP address in the name is the one to listen on; a host name can be any of this host's, so all of them."""
    if options.listen_host is not None:
        return options.listen_host
    host = host_of(name)
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return "0.0.0.0"
