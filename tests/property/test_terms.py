"""Native and reference codec are one: on random terms, random bytes, and terms with a few bytes changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from barrel_p2p.errors import DecodeError, EncodeError
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.maps import exact_key
from barrel_p2p.term.reference import ReferenceCodec
from harness.terms import terms

# the strategy is recursive, and hypothesis wonders at the length of its repr
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

CASES = settings(max_examples=400, deadline=None)


def outcome(codec: Any, data: bytes) -> Any:
    try:
        term, end = codec.decode_prefix(data)
    except DecodeError:
        return DecodeError
    return exact_key(term), end


def both_read_the_same(data: bytes) -> None:
    options: list[dict[str, Any]] = [
        {},
        {"exact_empty_str": True, "none_atom": "nil"},
        {"max_depth": 3},
    ]
    for option in options:
        native, reference = outcome(Codec(**option), data), outcome(ReferenceCodec(**option), data)
        assert native == reference, data.hex()


@CASES
@given(terms())
def test_both_write_the_same_bytes_and_read_them_back(term: Any) -> None:
    try:
        data = ReferenceCodec().encode(term)
    except EncodeError:  # two keys that are one in Erlang
        try:
            Codec().encode(term)
        except EncodeError:
            return
        raise AssertionError("only the reference refused") from None
    assert Codec().encode(term) == data
    assert exact_key(Codec().decode(data)) == exact_key(ReferenceCodec().decode(data))
    assert Codec().encode(Codec().decode(data)) == data


@CASES
@given(st.binary(max_size=80))
@example(b"")
def test_random_bytes(data: bytes) -> None:
    both_read_the_same(b"\x83" + data)
    both_read_the_same(data)


tagged = st.sampled_from(bytes([*range(65, 91), *range(97, 122)])).map(lambda tag: bytes([tag]))
small_bytes = st.sampled_from(
    [b"\0", b"\1", b"\2", b"\3", b"\0\0\0\1", b"\0\0\0\2", b"w\1a", b"a\1", b"j", b"M\0\0\0\1\x08a"]
)


@CASES
@given(st.lists(st.one_of(tagged, small_bytes, st.binary(max_size=3)), max_size=30).map(b"".join))
def test_bytes_that_look_like_terms(data: bytes) -> None:
    both_read_the_same(b"\x83" + data)


@CASES
@given(terms(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4), st.integers(0, 50))
def test_terms_with_a_few_bytes_changed(term: Any, changes: list[tuple[int, int]], cut: int) -> None:
    try:
        data = bytearray(ReferenceCodec().encode(term))
    except EncodeError:
        return
    for position, byte in changes:
        data[position % len(data)] = byte
    both_read_the_same(bytes(data))
    both_read_the_same(bytes(data[: len(data) - cut]))
