"""Who owns what: a key belongs to a partition, a partition to the member with the highest score.

Rendezvous (highest random weight) hashing, Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates",
IEEE/ACM Transactions on Networking 6(1), 1998: whoever knows the members knows the owner, and when a member goes only
its own partitions move. Scores and partitions are upstream's, so that mixed clusters agree:
``phash2({Node, Partition})``, the greater atom if two are equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from barrel_p2p.crdt.phash2 import hash_integer, hash_on, hash_tuple_of, phash2
from barrel_p2p.term.types import Atom

RING_SIZE: Final = 64  # upstream's; every node of a cluster must have the same
_27_BITS: Final = (1 << 27) - 1


def partition(key: Any, ring_size: int = RING_SIZE) -> int:
    """The partition of a key: 0 to ``ring_size`` - 1.

    Raises:
        ValueError: the key has no portable hash (see ``phash2``).
    """
    return phash2(key, ring_size)


def owner(members: Iterable[Atom], part: int) -> Atom | None:
    """The member that owns a partition; None if there are no members."""
    best = max(((score(node, part), node) for node in members), default=None)
    return None if best is None else best[1]


def owners(members: Iterable[Atom], part: int, count: int) -> list[Atom]:
    """The first ``count`` members for a partition, the owner first: each takes over when those before it are gone."""
    return [node for _, node in sorted(((score(node, part), node) for node in members), reverse=True)[:count]]


def owned(members: Iterable[Atom], node: Atom, ring_size: int = RING_SIZE) -> list[int]:
    """The partitions that ``node`` owns, ascending."""
    everyone = list(members)
    return [part for part in range(ring_size) if owner(everyone, part) == node]


def score(node: Atom, part: int) -> int:
    """``phash2({Node, Partition})``."""
    return hash_integer(_started(node), part) & _27_BITS


@lru_cache(maxsize=4096)
def _started(node: Atom) -> int:
    """The state of the hash after the tuple and the node, which all scores of the node share."""
    return hash_on(hash_tuple_of(0, 2), node)


__all__ = ["RING_SIZE", "owned", "owner", "owners", "partition", "score"]
