"""What a node knows about a peer that it is connected to."""

from __future__ import annotations

from dataclasses import dataclass

from barrel_p2p.node.channel import Channel
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.types import Atom


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A connected peer, as its handshakes showed it.

    Attributes:
        address: Where it is, host and port.
        public_key: The Ed25519 key that it proved to own; None where none was asked for.
        first_contact: Its key was not pinned before this connection.
        clock_offset_ms: How far its clock is ahead of ours, the way of one message included; None if it told no time.
        flags: The distribution flags that it offered.
    """

    name: Atom
    address: tuple[str, int]
    public_key: bytes | None
    first_contact: bool
    clock_offset_ms: int | None
    flags: Flags

    @classmethod
    def of(cls, channel: Channel) -> PeerInfo:
        proven = channel.proven
        return cls(
            channel.name,
            channel.connection.peer_address,
            channel.public_key,
            proven is not None and proven.first_contact,
            None if proven is None else proven.clock_offset_ms,
            Flags(channel.flags),
        )


__all__ = ["PeerInfo"]
