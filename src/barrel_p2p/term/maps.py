"""Maps whose keys Python can't tell apart, or can't hash.

Erlang compares the keys of a map exactly: ``1``, ``1.0`` and ``true`` are three keys, an atom and a binary
never meet, and lists and maps may be keys. A ``dict`` merges the first three and refuses the last. A map that
no ``dict`` can hold without loss is decoded as a :class:`TermMap`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from struct import pack
from typing import Any

from barrel_p2p.term.types import Atom, ImproperList


class TermMap(Mapping[Any, Any]):
    """An immutable Erlang map with exact keys.

    >>> m = TermMap([(1, "int"), (1.0, "float"), ([1], "list")])
    >>> m[1.0]
    'float'

    Args:
        pairs: the ``(key, value)`` pairs, or a mapping.

    Raises:
        ValueError: two keys are the same Erlang term.
    """

    __slots__ = ("_entries", "_exact")

    def __init__(self, pairs: Iterable[tuple[Any, Any]] | Mapping[Any, Any] = ()) -> None:
        if isinstance(pairs, Mapping):
            pairs = pairs.items()
        self._entries: dict[Hashable, tuple[Any, Any]] = {}
        self._exact: Hashable = None
        for key, value in pairs:
            exact = exact_key(key)
            if exact in self._entries:
                raise ValueError(f"duplicate key {key!r:.80}")
            self._entries[exact] = (key, value)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._entries[exact_key(key)][1]
        except KeyError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        return exact_key(key) in self._entries

    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TermMap):
            mine, theirs = self._entries, other._entries
            return mine.keys() == theirs.keys() and all(theirs[k][1] == v for k, (_, v) in mine.items())
        if isinstance(other, Mapping):
            return len(self) == len(other) and self == TermMap(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as for dict: the values may be anything

    def __repr__(self) -> str:
        return f"TermMap([{', '.join(f'({k!r}, {v!r})' for k, v in self._entries.values())}])"

    def __reduce__(self) -> tuple[Any, ...]:
        return (TermMap, (list(self._entries.values()),))


def exact_key(term: Any) -> Hashable:
    """A hashable stand-in that is equal for two values exactly when they are the same Erlang term of the same
    Python type.

    ``bytes`` and ``str`` are kept apart, although Erlang sees a binary in both: an encoder must look after
    that itself.
    """
    kind = term.__class__
    if kind is int or kind is bool or kind is bytes or kind is Atom:
        return (kind, term)
    if isinstance(term, float):
        return (float, pack(">d", term))  # 0.0 and -0.0 are two keys since OTP 27
    if isinstance(term, tuple):
        return (tuple, tuple([exact_key(item) for item in term]))
    if isinstance(term, list):
        return (list, tuple([exact_key(item) for item in term]))
    if isinstance(term, TermMap):
        if term._exact is None:
            term._exact = frozenset([(key, exact_key(value)) for key, (_, value) in term._entries.items()])
        return (dict, term._exact)
    if isinstance(term, dict):
        return (dict, frozenset([(exact_key(key), exact_key(value)) for key, value in term.items()]))
    if isinstance(term, ImproperList):
        return (ImproperList, exact_key(term.elements), exact_key(term.tail))
    if isinstance(term, (bytes, bytearray, memoryview)):
        return (bytes, bytes(term))
    for plain in (int, Atom, str):
        if isinstance(term, plain):
            return (plain, plain(term))
    return (kind, term)
