"""Keys are one exactly when Erlang sees one term."""

from __future__ import annotations

from typing import Any

import pytest

from barrel_p2p.crdt.keys import MAX_DEPTH, key_hash, term_key, term_map
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.maps import TermMap
from barrel_p2p.term.types import Atom, BitString, ImproperList, Pid, Reference

DISTINCT: list[Any] = [
    1,
    1.0,
    True,
    Atom("1"),
    b"1",
    [49],
    0,
    0.0,
    -0.0,
    False,
    None,
    Atom("a"),
    b"a",
    [Atom("a")],
    (Atom("a"),),
    ((),),
    (),
    [],
    {},
    {1: 2},
    TermMap([(1, 2), (1.0, 2)]),
    TermMap([(1, 2), (True, 2)]),
    (1, 2),
    (1, 2.0),
    (1, [2]),
    ImproperList((1,), 2),
    BitString(b"\xa0", 3),
    Pid(Atom("a@h"), 1, 2, 3),
    Reference(Atom("a@h"), 1, (2, 3)),
    2**80,
]


def test_distinct_terms_are_distinct_keys() -> None:
    assert len({term_key(term) for term in DISTINCT}) == len(DISTINCT)
    assert len({key_hash(term_key(term)) for term in DISTINCT}) == len(DISTINCT)


@pytest.mark.parametrize("term", DISTINCT, ids=repr)
def test_a_key_is_the_same_on_the_other_side(term: Any) -> None:
    there = decode(encode(term))
    assert term_key(there) == term_key(term)
    assert key_hash(term_key(there)) == key_hash(term_key(term))


def test_what_erlang_can_not_tell_apart_is_one_key() -> None:
    for one, other in [
        ("é", "é".encode()),
        (("svc", 1), (b"svc", 1)),
        (True, Atom("true")),
        (None, Atom("undefined")),
        ({"a": [True], 2: 3}, {2: 3, b"a": [Atom("true")]}),
        (bytearray(b"x"), b"x"),
    ]:
        assert term_key(one) == term_key(other)
        assert key_hash(term_key(one)) == key_hash(term_key(other))


def test_an_ordinary_key_stands_for_itself() -> None:
    for term in [Atom("a"), b"name", 7, (Atom("svc"), Atom("a@h")), (b"svc", (1, Atom("x")))]:
        assert term_key(term) is term


def test_no_key_is_too_strange_to_be_refused_clearly() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH + 1):
        deep = (deep,)
    for term in [deep, object(), {1}, (1, object())]:
        with pytest.raises(ValueError):
            term_key(term)


def test_a_map_of_keys_that_a_dict_would_merge_keeps_them() -> None:
    pairs = [(1, "a"), (1.0, "b"), (True, "c"), ([1], "d"), (Atom("x"), "e"), (b"x", "f")]
    there = decode(encode(term_map(pairs)))
    assert sorted((repr(key), value) for key, value in there.items()) == sorted((repr(k), v) for k, v in pairs)
    assert type(term_map([(Atom("a"), 1), (b"a", 2)])) is dict
