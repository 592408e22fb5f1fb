"""Bytes from anybody: one clear DecodeError, little memory, and a thread's small stack is enough."""

from __future__ import annotations

import string
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from barrel_p2p.errors import DecodeError, EncodeError
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.reference import ReferenceCodec
from barrel_p2p.term.types import Atom, Fun, ImproperList

codecs = pytest.mark.parametrize("codec", [Codec, ReferenceCodec])


def in_small_stack(run: Callable[[], Any]) -> Any:
    """Runs it in a thread with a stack of 512 KiB; if that overflows the whole test run dies."""
    result: list[Any] = []
    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=lambda: result.append(run()))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert result, "the thread raised"
    return result[0]


NESTINGS = {
    "tuple": (b"h\1", b"", lambda term: (term,)),
    "large tuple": (b"i\0\0\0\1", b"", lambda term: (term,)),
    "list": (b"l\0\0\0\1", b"j", lambda term: [term]),
    "map value": (b"t\0\0\0\1a\1", b"", lambda term: {1: term}),
    "mixed": (b"h\1t\0\0\0\1a\1h\1", b"", lambda term: ({1: (term,)},)),
    "improper": (b"l\0\0\0\1", b"a\1", lambda term: ImproperList((term,), 1)),
}


@pytest.mark.parametrize("max_depth", [512, 1024])
@pytest.mark.parametrize("head,tail,wrap", NESTINGS.values(), ids=NESTINGS)
def test_depth_is_bounded_before_the_stack_ends(
    head: bytes, tail: bytes, wrap: Callable[[Any], Any], max_depth: int
) -> None:
    codec = Codec(max_depth=max_depth)

    def nested(n: int) -> bytes:
        return b"\x83" + head * n + b"h\0" + tail * n

    def work() -> int:
        levels = head.count(b"h\1") + head.count(b"t") or 1
        value = codec.decode(nested((max_depth - 1) // levels))
        data = codec.encode(value)
        assert codec.encode(codec.decode(data)) == data
        for n in (max_depth, 100_000):
            with pytest.raises(DecodeError, match="max_depth"):
                codec.decode(nested(n))
        with pytest.raises(EncodeError, match="max_depth"):
            codec.encode(wrap(wrap(wrap(value))))
        return 1

    in_small_stack(work)


KEYS = {
    "improper": (b"l\0\0\0\1", b"a\1"),
    "list": (b"l\0\0\0\1", b"j"),
    "tuple of list": (b"h\1l\0\0\0\1", b"j"),
}


@pytest.mark.parametrize("max_depth", [512, 1024])
@pytest.mark.parametrize("head,tail", KEYS.values(), ids=KEYS)
def test_keys_that_python_can_not_hash_are_decode_errors(head: bytes, tail: bytes, max_depth: int) -> None:
    """Python hashes and compares keys by recursion with a limit of its own: no error of another class."""

    def work() -> int:
        n = (max_depth - 2) // head.count(b"\1")
        for two in (b"a\1", b"F\x3f\xf0" + bytes(6)):
            keys = [head * n + leaf + tail * n for leaf in (b"a\1", two)]
            with pytest.raises(DecodeError):
                Codec(max_depth=max_depth).decode(b"\x83t\0\0\0\2" + keys[0] + b"a\0" + keys[1] + b"a\0")
        return 1

    in_small_stack(work)


def test_funs_in_funs_count_as_depth_too() -> None:
    head = b"p" + bytes(4) + b"\0" + bytes(20) + b"\0\0\0\1" + b"w\1m" + b"a\0a\0" + b"Xw\3a@b" + bytes(12)
    fun = b"\x83" + head * 512 + b"a\1"
    term = in_small_stack(lambda: Codec().decode(fun))
    assert type(term) is Fun and Codec().encode(term) == fun
    with pytest.raises(DecodeError, match="max_depth"):
        Codec().decode(b"\x83" + head * 513 + b"a\1")


def test_more_depth_than_a_stack_holds_can_not_be_asked_for() -> None:
    with pytest.raises(ValueError, match="max_depth"):
        Codec(max_depth=1025)


@codecs
@pytest.mark.parametrize(
    "lie",
    [
        b"l\xff\xff\xff\xff",
        b"i\xff\xff\xff\xff",
        b"t\xff\xff\xff\xff",
        b"m\xff\xff\xff\xff",
        b"o\xff\xff\xff\xff\0",
    ],
    ids=repr,
)
def test_a_length_that_lies_costs_no_memory(lie: bytes, codec: type[Codec]) -> None:
    data = b"\x83" + lie + b"a\1" * 10
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            codec().decode(data)
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_lengths_are_held_against_the_bytes_of_all_open_containers() -> None:
    """Each of 500 nested lists claims as many elements as bytes are left: only one claim may be believed."""
    data = b"\x83" + b"".join(b"l" + (1_000_000).to_bytes(4, "big") for _ in range(500)) + b"j" * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            Codec().decode(data)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def compressed(term: bytes, claim: int) -> bytes:
    return b"\x83P" + claim.to_bytes(4, "big") + zlib.compress(term)


@codecs
def test_a_compressed_bomb_is_not_inflated(codec: type[Codec]) -> None:
    term = b"m" + (2**25).to_bytes(4, "big") + bytes(2**25)
    small = codec(max_bytes=2**20)
    for claim in (2**25 + 5, 2**20, 100, 0):
        tracemalloc.start()
        try:
            with pytest.raises(DecodeError):
                small.decode(compressed(term, claim))
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()
    assert codec().decode(compressed(term, len(term))) == bytes(2**25)


@codecs
def test_compressed_bytes_are_whole_and_of_the_claimed_size(codec: type[Codec]) -> None:
    term = b"m\0\0\0\x64" + b"z" * 100
    good = compressed(term, len(term))
    assert codec().decode_prefix(good + b"rest")[1] == len(good)
    bad = [
        compressed(term, len(term) - 1),
        compressed(term, len(term) + 1),
        good[:-1],
        good[:-4] + b"aaaa",
        compressed(good[1:], len(good) - 1),
        b"\x83h\x01" + good[1:],
    ]
    for data in bad:
        with pytest.raises(DecodeError):
            codec().decode(data)


def atoms(names: Iterable[str]) -> bytes:
    parts = [b"w" + bytes([len(name)]) + name.encode() for name in names]
    return b"\x83l" + len(parts).to_bytes(4, "big") + b"".join(parts) + b"j"


def test_atoms_are_kept_within_a_bound_and_no_new_one_is_ever_refused() -> None:
    codec = Codec()
    hot = ["ok", "true", "false", "undefined", "hot"]
    codec.decode(atoms(hot))
    blocks = sys.getallocatedblocks()
    for turn in range(10):
        names = [f"{turn}_{i}" for i in range(30_000)]
        term = codec.decode(atoms([*names, *names[:100], *hot]))
        assert term == [*names, *names[:100], "ok", True, False, None, "hot"]
        assert [type(item) for item in term[-5:]] == [Atom, bool, bool, type(None), Atom]
        assert 0 < codec.atoms <= 8192
        del term
    assert sys.getallocatedblocks() - blocks < 150_000, "300,000 atoms are 550,000 blocks"


def test_an_atom_is_one_object_while_it_is_kept() -> None:
    codec = Codec()
    one, two = codec.decode(atoms(["again", "again"]))
    assert one is two and codec.decode(atoms(["again"]))[0] is one
    codec.decode(atoms(str(i) for i in range(10_000)))
    assert codec.decode(atoms(["again"])) == [one]


def test_a_message_full_of_new_atoms_takes_no_more_than_one_full_of_empty_lists() -> None:
    def cost(data: bytes) -> float:
        codec = Codec()
        tracemalloc.start()
        try:
            codec.decode(data)
            return tracemalloc.get_traced_memory()[1] / len(data)
        finally:
            tracemalloc.stop()

    short = [a + b + c for a in string.ascii_letters for b in string.ascii_letters for c in string.digits]
    assert cost(atoms(short)) < cost(b"\x83l" + (20_000).to_bytes(4, "big") + b"j" * 20_001)


@codecs
def test_size_is_bounded(codec: type[Codec]) -> None:
    small = codec(max_bytes=100)
    assert small.decode(b"\x83m\0\0\0\x5a" + bytes(90)) == bytes(90)
    with pytest.raises(DecodeError, match="max_bytes"):
        small.decode(b"\x83m\0\0\0\x64" + bytes(100))
    with pytest.raises(EncodeError, match="max_bytes"):
        small.encode([bytes(50), bytes(50)])


@codecs
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x83",
        b"\x82a\1",
        b"\x83y" + bytes(8) + b"a\1",
        b"\x83R\0",
        b"\x83\xff",
        b"\x83Xa\1" + bytes(12),
        b"\x83d\1\0" + b"a" * 256,
        b"\x83v\1\0" + b"a" * 256,
        b"\x83w\2\xed\xa0",
        b"\x83w\3\xed\xa0\x80",
        b"\x83F\x7f\xf0" + bytes(6),
        b"\x83cnan" + bytes(28),
        b"\x83c1e5" + bytes(28),
        b"\x83c1.0e400" + bytes(24),
        b"\x83c 1.0" + bytes(27),
        b"\x83M\0\0\0\1\0a",
        b"\x83M\0\0\0\1\x09a",
        b"\x83M\0\0\0\0\x08",
        b"\x83qw\1aw\1bw\1c",
        b"\x83gw\1a" + bytes(8) + b"\4",
        b"\x83ew\1a\xff\xff\xff\xff\1",
        b"\x83Z\0\0w\1a" + bytes(8),
        b"\x83Z\0\6w\1a" + bytes(28),
        b"\x83t\0\0\0\2a\1a\1a\1a\2",
        b"\x83t\0\0\0\2k\0\1aa\1l\0\0\0\1a\x61ja\2",
        b"\x83t\0\0\0\2m\0\0\0\1aa\1M\0\0\0\1\x08aa\2",
        b"\x83t\0\0\0\2h\1m\0\0\0\1aa\1h\1M\0\0\0\1\x08aa\2",
        b"\x83t\0\0\0\2gw\1a" + bytes(8) + b"\1a\1Xw\1a" + bytes(11) + b"\1a\1",
    ],
    ids=lambda data: data[:12].hex(),
)
def test_what_otp_calls_badarg_is_a_decode_error(data: bytes, codec: type[Codec]) -> None:
    with pytest.raises(DecodeError, match="at offset"):
        codec().decode(data)


def test_a_key_that_is_text_and_one_that_is_no_text_live_together() -> None:
    terms = [{"a": 1, b"b": 2}, {("a", 1): 1, (b"b", 1): 2, b"a": 3}, {"": 1, b"x": 2}]
    for term in terms:
        assert len(Codec().decode(Codec().encode(term))) == len(term)
