"""What a round of comparison between two replicas consists of: its numbers on the wire, and the check of a peer's.

Sums and versions are 64-bit numbers, many of them, so they travel as one binary each, most significant byte first.
Readers return None for what no Python node sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import pack, unpack
from typing import Any, Final

MAX_COUNT: Final = 1024  # buckets
VERSIONS_PER_MESSAGE: Final = 4096  # about; 32 KiB, and some 10 ms of work on either side


@dataclass(slots=True)
class Round:
    """A round that this replica began with a peer, the only one it has with it."""

    number: int
    began: float
    last: bool  # this is the second look
    fresh: bool = True  # nothing came back yet
    unanswered: int = 0  # ``held`` messages without their ``wanted``


def bucket_count(size: int) -> int:
    """Into how many buckets to file: so that one has about eight parts."""
    return min(max(1 << (size >> 3).bit_length(), 16), MAX_COUNT)


def write_numbers(numbers: list[int]) -> bytes:
    return pack(f">{len(numbers)}Q", *numbers)


def read_sums(data: Any) -> list[int] | None:
    """The sums of a power of two of buckets."""
    if data.__class__ is not bytes or len(data) % 8 or not 1 <= len(data) >> 3 <= MAX_COUNT:
        return None
    return _numbers(data) if valid_count(len(data) >> 3) else None


def read_versions(data: Any) -> list[int] | None:
    if data.__class__ is not bytes or len(data) % 8:
        return None
    return _numbers(data)


def valid_count(count: Any) -> bool:
    return count.__class__ is int and 1 <= count <= MAX_COUNT and not count & (count - 1)


def bucket_slices(buckets: list[int], width: int) -> list[list[int]]:
    """The buckets, of about ``width`` versions each, in as many lists as there will be messages."""
    step = max(VERSIONS_PER_MESSAGE // max(width, 1), 1)
    return [buckets[start : start + step] for start in range(0, len(buckets), step)]


def write_held(holding: Mapping[int, list[int]]) -> list[tuple[int, bytes]]:
    """``[{Bucket, Versions}]``."""
    return [(bucket, write_numbers(versions)) for bucket, versions in holding.items()]


def read_held(count: Any, parts: Any) -> dict[int, list[int]] | None:
    """What ``write_held`` gave: versions by bucket."""
    if not valid_count(count) or parts.__class__ is not list or len(parts) > count:
        return None
    held: dict[int, list[int]] = {}
    for part in parts:
        if part.__class__ is not tuple or len(part) != 2:
            return None
        bucket, data = part
        versions = read_versions(data)
        if versions is None or bucket.__class__ is not int or not 0 <= bucket < count:
            return None
        held[bucket] = versions
    return held


def _numbers(data: bytes) -> list[int]:
    return list(unpack(f">{len(data) >> 3}Q", data))


__all__ = [
    "MAX_COUNT",
    "Round",
    "bucket_count",
    "bucket_slices",
    "read_held",
    "read_sums",
    "read_versions",
    "valid_count",
    "write_held",
    "write_numbers",
]
