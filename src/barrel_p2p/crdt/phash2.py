"""``erlang:phash2``: the hash of a term that every node agrees on.

The function is fixed by Erlang's documentation to be the same on all machines and releases, so clusters decide by it
who owns what. It folds the term into 32 bits with Bob Jenkins' mix of three words ("lookup", 1996); what is mixed in
for each type, and with which constant, was learned from its outputs and is checked against a thousand of them.

A ``str`` hashes as the binary that Erlang sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import pack, unpack
from typing import Any, Final

from barrel_p2p.term.types import Atom, BitString, ImproperList, Pid

_M: Final = 0xFFFFFFFF
_GOLDEN: Final = 0x9E3779B9
_C: Final = [n * _GOLDEN & _M for n in range(20)]
_C2, _C3, _C4, _C5 = _C[2:6]
_C9, _C10, _C11, _C12, _C13 = _C[9:14]
_C15, _C16 = _C[15:17]
_C19 = _C[19]
_NIL: Final = 3468870702


def phash2(term: Any, limit: int = 1 << 27) -> int:
    """``erlang:phash2(term, limit)``: 0 to ``limit`` - 1 for a limit up to 2^32.

    >>> phash2(Atom("k1")), phash2(b"k1", 64)
    (1761, 37)

    Raises:
        ValueError: a value that has no portable hash: a reference, a port, a fun, or no term at all.
    """
    return hash_on(0, term) % limit


def hash_on(h: int, term: Any) -> int:
    """Fold a term into the 32-bit state ``h``."""
    if term is True or term is False:
        term = "true" if term else "false"
        return _atom(h, term)
    if term is None:
        return _atom(h, "undefined")
    if isinstance(term, Atom):
        return _atom(h, term)
    if isinstance(term, int):
        return hash_integer(h, term)
    if isinstance(term, (bytes, bytearray)):
        return _binary(h, bytes(term))
    if isinstance(term, str):
        return _binary(h, term.encode())
    if isinstance(term, tuple):
        return _tuple(h, term)
    if isinstance(term, list):
        return _list(h, term)
    if isinstance(term, Mapping):
        return _map(h, term)
    if isinstance(term, float):
        high, low = unpack(">II", pack(">d", term or 0.0))
        return _mix(_C12 + high, _C12 + low, h)
    if isinstance(term, ImproperList):
        return hash_on(_elements(h, term.elements), term.tail)
    if isinstance(term, Pid):
        return _mix(_C5 + term.id, _C5, h)
    if isinstance(term, BitString):
        h = _block(term.data[:-1], _C13 + h & _M)
        return _mix(_C15 + term.bits, _C15 + (term.data[-1] >> (8 - term.bits)), h)
    raise ValueError(f"no portable hash for {type(term).__name__}")


def hash_integer(h: int, x: int) -> int:
    """Fold an integer in."""
    if -(1 << 27) <= x < 1 << 27:
        if x < 0:
            h = _mix(_GOLDEN - x, _GOLDEN, h)
        return _mix(_GOLDEN + x, _GOLDEN, h)
    c = _C10 if x < 0 else _C11
    x = abs(x)
    while x:
        h = _mix(c + (x & _M), c + (x >> 32 & _M), h)
        x >>= 64
    return h


def hash_tuple_of(h: int, arity: int) -> int:
    """Fold the head of a tuple in; its elements follow."""
    return _mix(_C9 + arity, _C9, h)


def _mix(a: int, b: int, c: int) -> int:
    """Jenkins' mix; arguments may be wider than 32 bits, the result is not."""
    m = _M
    a = (a - b - c & m) ^ c >> 13
    b = (b - c - a & m) ^ a << 8 & m
    c = (c - a - b & m) ^ b >> 13
    a = (a - b - c & m) ^ c >> 12
    b = (b - c - a & m) ^ a << 16 & m
    c = (c - a - b & m) ^ b >> 5
    a = (a - b - c & m) ^ c >> 3
    b = (b - c - a & m) ^ a << 10 & m
    return (c - a - b & m) ^ b >> 15


def _mix3(a: int, b: int, c: int) -> tuple[int, int, int]:
    m = _M
    a = (a - b - c & m) ^ c >> 13
    b = (b - c - a & m) ^ a << 8 & m
    c = (c - a - b & m) ^ b >> 13
    a = (a - b - c & m) ^ c >> 12
    b = (b - c - a & m) ^ a << 16 & m
    c = (c - a - b & m) ^ b >> 5
    a = (a - b - c & m) ^ c >> 3
    b = (b - c - a & m) ^ a << 10 & m
    c = (c - a - b & m) ^ b >> 15
    return a, b, c


def _atom(h: int, name: str) -> int:
    value = _atom_value(name)
    return _mix(_C3 + value, _C3, h) if h else value


@lru_cache(maxsize=4096)
def _atom_value(name: str) -> int:
    h = 0
    for char in name:
        for byte in (ord(char),) if ord(char) < 256 else char.encode():
            h = (h << 4) + byte
            high = h & 0xF0000000
            if high:
                h = h ^ high >> 24 ^ high
    return h


def _binary(h: int, data: bytes) -> int:
    return _block(data, _C13 + h & _M) if data else _C13 + h & _M


def _block(data: bytes, c: int) -> int:
    a = b = _GOLDEN
    length = len(data)
    whole = length - length % 12
    for one, two, three in zip(*[iter(unpack(f"<{whole // 4}I", data[:whole]))] * 3, strict=True):
        a, b, c = _mix3(a + one & _M, b + two & _M, c + three & _M)
    tail = data[whole:]
    a += int.from_bytes(tail[:4], "little")
    b += int.from_bytes(tail[4:8], "little")
    c += length + (int.from_bytes(tail[8:], "little") << 8)
    return _mix(a & _M, b & _M, c & _M)


def _tuple(h: int, term: tuple[Any, ...]) -> int:
    h = _mix(_C9 + len(term), _C9, h)
    for item in term:
        h = hash_on(h, item)
    return h


def _list(h: int, term: list[Any]) -> int:
    if not term:
        return _end(h)
    return _end(_elements(h, term))


def _end(h: int) -> int:
    return _mix(_C2 + 2, _C2, h) if h else _NIL


def _elements(h: int, items: Any) -> int:
    """The elements of a list: those that are bytes are packed by four."""
    word = count = 0
    for item in items:
        if item.__class__ is int and 0 <= item <= 255:
            word = word << 8 | item
            count += 1
            if count == 4:
                h = _mix(_C4 + word, _C4, h)
                word = count = 0
            continue
        if count:
            h = _mix(_C4 + word, _C4, h)
            word = count = 0
        h = hash_on(h, item)
    return _mix(_C4 + word, _C4, h) if count else h


def _map(h: int, term: Mapping[Any, Any]) -> int:
    h = _mix(_C16 + len(term), _C16, h)
    if not term:
        return h
    total = 0
    for key, value in term.items():
        total ^= hash_on(hash_on(0, key), value)
    return _mix(_C19 + total, _C19, h)


__all__ = ["hash_integer", "hash_on", "hash_tuple_of", "phash2"]
