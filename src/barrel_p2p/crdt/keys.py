"""Keys that are equal exactly when they are the same Erlang term.

A replicated map is keyed by terms, and all replicas must agree on which keys are one. To Erlang ``1``, ``1.0`` and
``true`` are three keys; a ``str`` and its UTF-8 bytes are one (both are a binary, and a ``str`` that was relayed by an
Erlang node comes back as bytes). That last rule is why ``term.maps.exact_key``, which keeps the two apart, does not do.

Most keys stand for themselves, so that they cost no memory: an ``Atom`` never meets a ``str`` here, because a ``str``
becomes bytes. The rest is a tuple that begins with a class, which no term does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from hashlib import blake2b
from struct import pack
from typing import Any, Final

from barrel_p2p.errors import EncodeError
from barrel_p2p.term.codec import encode
from barrel_p2p.term.maps import TermMap
from barrel_p2p.term.types import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference

MAX_DEPTH: Final = 32  # of a key; a guess. Decoding allows 512, but a key is walked by Python.

_TRUE: Final = Atom("true")
_FALSE: Final = Atom("false")
_UNDEFINED: Final = Atom("undefined")
_OPAQUE: Final = (Pid, Reference, Port, BitString, Export, Fun)


def term_key(term: Any, depth: int = MAX_DEPTH) -> Hashable:
    """The stand-in of a key: hashable, and equal for two values exactly when Erlang sees one term.

    >>> term_key("a") == term_key(b"a"), term_key(1) == term_key(1.0), term_key(True) == term_key(Atom("true"))
    (True, False, True)

    Raises:
        ValueError: the value is no Erlang term, or nests deeper than ``MAX_DEPTH``.
    """
    kind = term.__class__
    if kind is Atom or kind is bytes or kind is int:
        return term  # type: ignore[no-any-return]
    if depth <= 0:
        raise ValueError(f"a key nests more than {MAX_DEPTH} deep")
    if kind is tuple:
        parts = tuple([term_key(item, depth - 1) for item in term])
        return term if all(map(_same, parts, term)) else parts
    if kind is str:
        return term.encode()  # type: ignore[no-any-return]
    if kind is bool:
        return _TRUE if term else _FALSE
    if term is None:
        return _UNDEFINED
    if kind is float:
        return (float, pack(">d", term))
    if kind is list:
        return (list, *[term_key(item, depth - 1) for item in term])
    if isinstance(term, Mapping):
        pairs = [(term_key(key, depth - 1), term_key(value, depth - 1)) for key, value in term.items()]
        return (dict, frozenset(pairs))
    if kind is ImproperList:
        return (ImproperList, term_key(term.elements, depth - 1), term_key(term.tail, depth - 1))
    if isinstance(term, _OPAQUE):
        return term
    return _subclass_key(term, depth)


def _same(one: object, other: object) -> bool:
    return one is other


def _subclass_key(term: Any, depth: int) -> Hashable:
    """The key of a value whose class is derived from a plain one, such as a named tuple or an ``IntEnum``."""
    if isinstance(term, (bytearray, memoryview)):
        return bytes(term)
    plains: tuple[Callable[[Any], Any], ...] = (Atom, bytes, int, float, str, tuple, list)
    for plain in plains:
        if isinstance(term, plain):  # type: ignore[arg-type]  # they are classes as well
            return term_key(plain(term), depth)
    raise ValueError(f"{type(term).__name__} is no Erlang term")


def key_hash(key: Hashable) -> int:
    """64 bits of what ``term_key`` gave, the same on every node."""
    return int.from_bytes(blake2b(canonical(key), digest_size=8).digest(), "big")


def canonical(key: Hashable) -> bytes:
    """Bytes for what ``term_key`` gave, the same on every node and different for different terms."""
    try:
        return encode(key)
    except EncodeError:
        return _canonical(key)  # a class stands in it


def _canonical(key: Any) -> bytes:
    if key.__class__ is tuple:
        return _framed(b"t", map(_canonical, key))
    if key.__class__ is frozenset:
        return _framed(b"m", sorted(map(_canonical, key)))
    if isinstance(key, type):
        return _framed(b"c", (key.__name__.encode(),))
    return _framed(b"e", (encode(key),))


def _framed(kind: bytes, parts: Iterable[bytes]) -> bytes:
    body = b"".join([pack(">I", len(part)) + part for part in parts])
    return kind + pack(">I", len(body)) + body


def term_map(pairs: list[tuple[Any, Any]]) -> Mapping[Any, Any]:
    """The Erlang map of pairs whose keys are distinct terms: a ``dict`` if one can hold them, else a ``TermMap``."""
    try:
        plain = dict(pairs)
    except TypeError:
        return TermMap(pairs)
    return plain if len(plain) == len(pairs) else TermMap(pairs)


__all__ = ["MAX_DEPTH", "canonical", "key_hash", "term_key", "term_map"]
