"""Random terms for property tests and for the talk with a real Erlang."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from barrel_p2p.errors import EncodeError
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.maps import TermMap, exact_key
from barrel_p2p.term.types import Atom, BitString, Export, ImproperList, Pid, Port, Reference

u32 = st.integers(0, 2**32 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
atoms = st.one_of(st.sampled_from(["ok", "true", "undefined", "nil", ""]), text).map(Atom)
nodes = st.sampled_from([Atom("a@b"), Atom("é@host"), Atom("node@127.0.0.1")])
pids = st.builds(Pid, nodes, u32, u32, u32)
ports = st.builds(Port, nodes, st.integers(0, 2**64 - 1), u32)
references = st.builds(Reference, nodes, u32, st.lists(u32, min_size=1, max_size=5).map(tuple))
exports = st.builds(Export, atoms, atoms, st.integers(0, 255))
integers = st.one_of(st.integers(-300, 300), st.integers(-(2**33), 2**33), st.integers(-(2**70), 2**70), st.integers())
floats = st.floats(allow_nan=False, allow_infinity=False)
bit_strings = st.builds(BitString, st.binary(min_size=1, max_size=6), st.integers(1, 7))

leaves = st.one_of(
    atoms,
    st.none(),
    st.booleans(),
    integers,
    floats,
    st.binary(max_size=20),
    text,
    pids,
    ports,
    references,
    exports,
    bit_strings,
    st.lists(st.integers(0, 255), max_size=8),
)


def improper(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    tails = items.filter(lambda tail: not isinstance(tail, (list, ImproperList)))
    return st.builds(ImproperList, st.lists(items, min_size=1, max_size=3).map(tuple), tails)


def maps(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.lists(st.tuples(items, items), max_size=5, unique_by=lambda pair: exact_key(pair[0]))
    return pairs.map(as_map)


def as_map(pairs: list[tuple[Any, Any]]) -> Any:
    try:
        plain = dict(pairs)
    except TypeError:
        return TermMap(pairs)
    return plain if len(plain) == len(pairs) else TermMap(pairs)


def containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=5)
    return st.one_of(lists, lists.map(tuple), improper(items), maps(items))


def terms() -> st.SearchStrategy[Any]:
    """Values of every kind that both codecs know, but for funs, which only Erlang makes."""
    return st.recursive(leaves, containers, max_leaves=20)


def as_erlang_has_it(term: Any) -> Any:
    """The value that comes back from a node that knows no ``str``: binaries."""
    match term:
        case Atom() | Pid():
            return term
        case str():
            return term.encode()
        case list():
            return [as_erlang_has_it(item) for item in term]
        case tuple():
            return tuple(as_erlang_has_it(item) for item in term)
        case ImproperList():
            return ImproperList(as_erlang_has_it(term.elements), as_erlang_has_it(term.tail))
        case dict() | TermMap():
            return TermMap([(as_erlang_has_it(k), as_erlang_has_it(v)) for k, v in term.items()])
    return term


def many_terms(count: int, rng: random.Random) -> list[Any]:
    """Terms of every kind for tests that send many at once; hypothesis would take a hundred times longer.

    Left out are maps with two keys that Erlang takes for one, and -0.0, which OTP 25 and 26 may refuse beside 0.0.
    """
    found: list[Any] = []
    codec = Codec()
    while len(found) < count:
        term = _random_term(rng, rng.choice((0, 0, 1, 2, 3)))
        try:
            data = codec.encode(term)
        except EncodeError:
            continue
        if b"\x46\x80\0\0\0\0\0\0\0" not in data:
            found.append(term)
    return found


def _random_term(rng: random.Random, depth: int) -> Any:
    if depth:
        items = [_random_term(rng, depth - 1) for _ in range(rng.randrange(6))]
        match rng.randrange(4):
            case 0:
                return items
            case 1:
                return tuple(items)
            case 2:
                tail = _random_term(rng, 0)
                return ImproperList(tuple(items), tail) if items and not isinstance(tail, list) else items
        keys = {exact_key(key): key for key in (_random_term(rng, rng.choice((0, depth - 1))) for _ in items)}
        return as_map(list(zip(keys.values(), items, strict=False)))
    node = rng.choice((Atom("a@b"), Atom("é@host"), Atom("node@127.0.0.1")))
    word = rng.getrandbits
    match rng.randrange(16):
        case 0:
            return Atom(_random_text(rng))
        case 1:
            return rng.choice((None, True, False, Atom("ok"), Atom("nil"), Atom("")))
        case 2 | 3:
            return rng.choice((1, -1)) * (word(rng.choice((1, 8, 31, 33, 63, 65, 200, 2100))) + rng.randrange(2))
        case 4 | 5:
            return rng.choice(
                (0.0, -0.0, 1.0, rng.random(), rng.uniform(-1e300, 1e300), 5e-324, 1.7e308, float(word(60)))
            )
        case 6:
            return rng.randbytes(rng.choice((0, 1, 20, 300)))
        case 7:
            return _random_text(rng)
        case 8:
            return Pid(node, word(32), word(32), word(32))
        case 9:
            return Port(node, word(64), word(32))
        case 10:
            return Reference(node, word(32), tuple(word(32) for _ in range(rng.randint(1, 5))))
        case 11:
            return Export(Atom(_random_text(rng)), Atom(_random_text(rng)), word(8))
        case 12:
            return BitString(rng.randbytes(rng.randint(1, 6)), rng.randint(1, 7))
        case 13:
            return list(rng.randbytes(rng.choice((1, 8, 300))))
        case 14:
            return rng.choice(([], (), {}, b""))
    return [word(9) for _ in range(rng.randrange(8))]


def _random_text(rng: random.Random) -> str:
    return "".join(rng.choice(("a", "Z", "0", "_", " ", "'", "\n", "é", "€", "😀")) for _ in range(rng.randrange(12)))
