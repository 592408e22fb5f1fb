"""How a key that is replaced vouches for the one that follows it.

A node that changes its key signs, with the old key and the new one, "from this moment on my key is that one". A peer
that pinned the old key can check this and move its pin without a human. Each change adds one link, so that a peer
which was away for several of them finds the way from the key it knows to the key it sees::

    pinned here                                    presented
    key 1  --endorsement-->  key 2  --endorsement-->  key 3

What an endorsement is worth: as much as the old key. Who stole that key can write one, too; so after a theft peers are
told by hand (``unpin``, ``pin``). To keep old keys from mattering for ever a statement is believed for a year only, and
a peer goes on from the key it has pinned: one that led to it, or past it, is of no use to anybody any more.

The signature of the new key shows that its owner wanted this. Without it a node could endorse a key of somebody else.

A link has 200 bytes: ``old``:32 ``new``:32 ``time``:64 bits (ms since 1970) ``signature of old``:64 ``of new``:64. Both
signatures are over ``CONTEXT``, the length of the node's name in 16 bits, the name, ``old``, ``new`` and ``time``: at
least 134 bytes. A RESPONSE of the exchange signs 104, so that neither can be taken for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from barrel_p2p.term.types import Atom

KEY_SIZE = 32
SIGNATURE_SIZE = 64
LINK_SIZE = 2 * KEY_SIZE + 8 + 2 * SIGNATURE_SIZE
CONTEXT = b"barrel_p2p: this node changes its Ed25519 key, version 1\x00"
MAX_LINKS = 16  # of one chain; a guess: more than a key change a month within the lifetime
_DAY_MS = 24 * 3_600_000
LIFETIME_MS = 365 * _DAY_MS  # how long a peer may have been away; a guess, as long as a certificate lives
MAX_AHEAD_MS = _DAY_MS  # how far the clock of the signer may have been ahead of ours; a guess

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Endorsement:
    """One link: the owner of ``old`` says that ``new`` takes its place. ``time`` is in ms since 1970."""

    old: bytes
    new: bytes
    time: int
    by_old: bytes
    by_new: bytes

    def encode(self) -> bytes:
        return self.old + self.new + self.time.to_bytes(8, "big") + self.by_old + self.by_new

    @classmethod
    def decode(cls, data: bytes) -> Endorsement:
        """Read ``LINK_SIZE`` bytes; says nothing about whether the signatures are right."""
        if len(data) != LINK_SIZE:
            raise ValueError(f"an endorsement has {LINK_SIZE} bytes, not {len(data)}")
        return cls(data[:32], data[32:64], int.from_bytes(data[64:72], "big"), data[72:136], data[136:])

    def is_signed_for(self, name: Atom) -> bool:
        """Whether both keys signed this for the node ``name``."""
        text = endorsed_text(name, self.old, self.new, self.time)
        return _verified(self.old, self.by_old, text) and _verified(self.new, self.by_new, text)


Chain = tuple[Endorsement, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A chain that does not lead from the pinned key to the presented one; ``why`` is for the log."""

    why: str


def endorse(name: Atom, *, old: bytes, new: bytes, time: int, sign_old: Sign, sign_new: Sign) -> Endorsement:
    """The statement of the node ``name`` that it changes its key from ``old`` to ``new`` (public keys)."""
    text = endorsed_text(name, old, new, time)
    return Endorsement(old, new, time, sign_old(text), sign_new(text))


def endorsed_text(name: Atom, old: bytes, new: bytes, time: int) -> bytes:
    """What both keys sign."""
    raw = name.encode("utf-8")
    return CONTEXT + len(raw).to_bytes(2, "big") + raw + old + new + time.to_bytes(8, "big")


def follow(
    chain: Sequence[Endorsement], name: Atom, *, pinned: bytes, presented: bytes, wall_ms: int
) -> Chain | Broken:
    """The links of ``chain`` that lead from the pinned key to the presented one, all checked; or why there are none.

    Nothing is verified before a link that starts at the pinned key was found, and nothing after the first fault, so
    that a stranger can't make us compute much.
    """
    if len(chain) > MAX_LINKS:
        return Broken(f"it has {len(chain)} links, {MAX_LINKS} are allowed")
    starts = [number for number, link in enumerate(chain) if link.old == pinned]
    if not starts:
        return Broken("it does not start at the pinned key")
    way: list[Endorsement] = []
    at = pinned
    for link in chain[starts[0] :]:
        if link.old != at:
            return Broken("its links don't join")
        if wall_ms - link.time > LIFETIME_MS:
            days, allowed = (wall_ms - link.time) // _DAY_MS, LIFETIME_MS // _DAY_MS
            return Broken(f"it is {days} days old, {allowed} are allowed")
        if link.time - wall_ms > MAX_AHEAD_MS:
            return Broken(f"it was written {(link.time - wall_ms) / 3_600_000:.0f} hours after our clock's now")
        if not link.is_signed_for(name):
            return Broken(f"a signature is wrong, or for another node than {name}")
        way.append(link)
        at = link.new
        if at == presented:
            return tuple(way)
    return Broken("it does not lead to the presented key")


def encode_chain(chain: Sequence[Endorsement]) -> bytes:
    return b"".join(link.encode() for link in chain)


def decode_chain(data: bytes) -> Chain:
    """Read links that stand one after the other. ValueError for bytes that are none, or for more than ``MAX_LINKS``."""
    if len(data) % LINK_SIZE or len(data) > MAX_LINKS * LINK_SIZE:
        raise ValueError(f"{len(data)} bytes are no chain of at most {MAX_LINKS} endorsements of {LINK_SIZE} bytes")
    return tuple(Endorsement.decode(data[at : at + LINK_SIZE]) for at in range(0, len(data), LINK_SIZE))


def _verified(key: bytes, signature: bytes, text: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


__all__ = [
    "KEY_SIZE",
    "LIFETIME_MS",
    "LINK_SIZE",
    "MAX_AHEAD_MS",
    "MAX_LINKS",
    "Broken",
    "Chain",
    "Endorsement",
    "decode_chain",
    "encode_chain",
    "endorse",
    "endorsed_text",
    "follow",
]
