"""The mapping between Python values and terms, and what has no exact form."""

from __future__ import annotations

import enum
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest

from barrel_p2p.errors import DecodeError, EncodeError
from barrel_p2p.term.codec import Codec, decode, encode
from barrel_p2p.term.maps import TermMap, exact_key
from barrel_p2p.term.reference import ReferenceCodec
from barrel_p2p.term.types import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference

codecs = pytest.mark.parametrize("codec", [Codec, ReferenceCodec])
NODE = Atom("a@b")


class Colour(enum.IntEnum):
    RED = 65


class Word(enum.StrEnum):
    YES = "yes"


class Plain(enum.Enum):
    A = 1


Point = namedtuple("Point", "x y")


@dataclass
class Data:
    x: int = 1


@codecs
@pytest.mark.parametrize(
    "term",
    [
        Atom("ok"),
        Atom(""),
        Atom("é"),
        Atom("€" * 255),
        True,
        False,
        None,
        0,
        255,
        256,
        -1,
        2**31,
        -(2**31) - 1,
        2**63 - 1,
        2**63,
        -(2**63),
        -(2**63) - 1,
        2**64,
        2**2040 - 1,
        -(2**2040),
        2**5000,
        0.0,
        -0.0,
        1.5,
        5e-324,
        b"",
        b"\0\xff",
        "text",
        "é€😀",
        "with\0nul",
        [],
        [1, 2, 255],
        [0] * 65_535,
        [0] * 65_536,
        [1, 256],
        [1, True],
        [[]],
        (),
        tuple(range(300)),
        {},
        {1: {2: {}}},
        {"a": 1, "b": [2]},
        {b"a": 1, Atom("a"): 2},
        {None: 1, True: 2, Atom("x"): 3},
        {(1, "a"): 1, (1, b"b"): 2},
        ImproperList((1, 2), 3),
        ImproperList((Atom("alias"),), Reference(NODE, 1, (1, 2, 3))),
        Pid(NODE, 1, 2, 3),
        Pid(Atom("é" * 200 + "@b"), 1, 2, 3),
        Port(NODE, 2**64 - 1, 2**32 - 1),
        Reference(NODE, 1, (1,)),
        Reference(NODE, 1, (1, 2, 3, 4, 5)),
        Reference(Atom("€" * 200), 1, (1, 2)),
        Reference(Atom("true"), 1, (1, 2)),
        Export(Atom("true"), Atom("undefined"), 255),
        BitString(b"\xff\xe0", 3),
        TermMap([(1, "a"), (1.0, "b"), (True, "c"), ([1], "d"), ({"x": 1}, "e"), (0.0, 1), (-0.0, 2)]),
    ],
    ids=lambda term: type(term).__name__,
)
def test_what_is_encoded_comes_back(term: Any, codec: type[Codec]) -> None:
    back = codec().decode(codec().encode(term))
    assert exact_key(back) == exact_key(term)
    assert codec().encode(term) == Codec().encode(term)


@codecs
@pytest.mark.parametrize(
    ("term", "back"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        ("", b""),
        (Colour.RED, 65),
        ([Colour.RED], [65]),
        (Word.YES, "yes"),
        (Point(1, "y"), (1, "y")),
        (OrderedDict([(1, 2)]), {1: 2}),
        (Atom("true"), True),
        (Atom("undefined"), None),
        (Atom("nil"), Atom("nil")),
        (Reference(NODE, 1, (7,)), Reference(NODE, 1, (7,))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, memoryview) else repr(value),
)
def test_what_comes_back_as_something_simpler(term: Any, back: Any, codec: type[Codec]) -> None:
    assert exact_key(codec().decode(codec().encode(term))) == exact_key(back)


LOOP: list[Any] = []
LOOP.append({"x": LOOP})


@codecs
@pytest.mark.parametrize(
    ("term", "message"),
    [
        (float("nan"), "float nan has no Erlang form"),
        ([1, 2, {"x": (float("inf"),)}], "at [2]['x'][0]: float inf has no Erlang form"),
        ({1: float("-inf")}, "at [1]: float -inf has no Erlang form"),
        ({(1, float("nan")): 1}, "at <key (1, nan)>[1]: float nan has no Erlang form"),
        (ImproperList((1,), {2}), "at .tail: set has no Erlang form"),
        (TermMap([([1], 1j)]), "at [[1]]: complex has no Erlang form"),
        (frozenset(), "frozenset has no Erlang form"),
        (Plain.A, "Plain has no Erlang form"),
        (Data(), "Data has no Erlang form"),
        (Data, "type has no Erlang form"),
        (Atom("x" * 256), "atom of"),
        ("\ud800", "str with a surrogate has no Erlang form"),
        (Atom("\ud800"), "atom with a surrogate has no Erlang form"),
        (LOOP, "nested deeper than max_depth=512"),
        (2 ** (65_535 * 64), "integer of 524281 bytes"),
        (Pid(NODE, 2**32, 0, 0), "Pid has no Erlang form"),
        (Pid(Atom("x" * 256), 0, 0, 0), "Pid has no Erlang form"),
        (Reference(NODE, 0, ()), "Reference has no Erlang form"),
        (Reference(NODE, 0, (1,) * 6), "Reference has no Erlang form"),
        (Port(NODE, 2**64, 0), "Port"),
        (Export(NODE, NODE, -1), "arity of an Export"),
        (Fun(b"a\1"), "data of a Fun is no NEW_FUN_EXT"),
        (Fun(b"p\0\0\0"), "data of a Fun is broken"),
        ({"a": 1, b"a": 2}, "two keys of the map are one term in Erlang"),
        ({"": 1, b"": 2}, "two keys of the map are one term in Erlang"),
        ({(1, ("a",)): 1, (1, (b"a",)): 2}, "two keys of the map are one term in Erlang"),
        ({True: 1, Atom("true"): 2}, "two keys of the map are one term in Erlang"),
        ({None: 1, Atom("undefined"): 2}, "two keys of the map are one term in Erlang"),
        (
            TermMap([({"a": 1, "b": 2}, 1), ({b"b": 2, "a": 1}, 2)]),
            "two keys of the map are one term in Erlang",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and value.isascii() else type(value).__name__,
)
def test_what_has_no_exact_form_is_refused_with_its_place(term: Any, message: str, codec: type[Codec]) -> None:
    with pytest.raises(EncodeError) as error:
        codec().encode(term)
    assert message in str(error.value)


def test_nil_of_elixir() -> None:
    codec = Codec(none_atom="nil")
    assert codec.encode(None) == b"\x83w\x03nil"
    assert codec.decode(b"\x83w\x03nil") is None
    assert repr(codec.decode(b"\x83w\x09undefined")) == "Atom('undefined')"
    with pytest.raises(ValueError, match="none_atom"):
        Codec(none_atom="null")


@codecs
def test_an_exact_empty_str_is_for_python_nodes_only(codec: type[Codec]) -> None:
    exact = codec(exact_empty_str=True)
    assert exact.encode("") == b"\x83M\0\0\0\0\x08"
    assert exact.decode(exact.encode("")) == ""
    assert exact.decode(exact.encode(b"")) == b""
    with pytest.raises(DecodeError):
        codec().decode(exact.encode(""))


@codecs
def test_a_fun_holds_nothing_that_erlang_nodes_refuse(codec: type[Codec]) -> None:
    exact = codec(exact_empty_str=True)
    head = b"p" + bytes(4) + b"\0" + bytes(20) + b"\0\0\0\1" + b"w\1m" + b"a\0a\0" + b"Xw\3a@b" + bytes(12)
    with pytest.raises(DecodeError, match="bit string of 0 bytes"):
        exact.decode(b"\x83" + head + exact.encode("")[1:])
    fun, text = exact.decode(b"\x83h\2" + head + b"j" + exact.encode("")[1:])
    assert (type(fun), text) == (Fun, "")


def test_one_pid_is_one_object() -> None:
    codec = Codec()
    data = codec.encode([Pid(NODE, 1, 2, 3), Pid(NODE, 1, 2, 3)])
    first, second = codec.decode(data)
    assert first is second is codec.decode(data)[0]
    assert codec.decode(data)[0].node is codec.decode(codec.encode(NODE))


def test_a_reference_is_read_when_it_is_asked_for() -> None:
    reference = decode(encode(Reference(NODE, 7, (1, 2, 3))))
    assert reference == Reference(NODE, 7, (1, 2, 3))
    assert (reference.node, reference.creation, reference.ids) == (NODE, 7, (1, 2, 3))
    with pytest.raises(AttributeError):
        _ = reference.serial


def test_encode_into_appends_or_leaves_the_buffer_alone() -> None:
    buffer = bytearray(b"head")
    Codec().encode_into(buffer, 1)
    Codec().encode_into(buffer, (), version=False)
    with pytest.raises(EncodeError):
        Codec().encode_into(buffer, [1, float("nan")])
    assert buffer == b"head\x83a\x01h\x00"


def test_terms_one_behind_the_other() -> None:
    data = b"xx" + encode("one") + Codec().encode((2,))[1:] + b"rest"
    one, offset = Codec().decode_prefix(data, 2)
    two, offset = Codec().decode_prefix(data, offset, version=False)
    assert (one, two, data[offset:]) == ("one", (2,), b"rest")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_are_read(kind: Any) -> None:
    assert decode(kind(encode([1, 2]))) == [1, 2]
    with pytest.raises(TypeError):
        decode("text")  # type: ignore[arg-type]


def test_term_maps_compare_keys_exactly() -> None:
    terms = TermMap([(1, "int"), (1.0, "float"), (True, "true"), ([1], "list"), (Atom("a"), "atom"), ("a", "str")])
    assert [terms[key] for key in (1, 1.0, True, [1], Atom("a"), "a")] == [
        "int",
        "float",
        "true",
        "list",
        "atom",
        "str",
    ]
    assert (1,) not in terms and [1.0] not in terms and b"a" not in terms
    assert terms == TermMap(reversed(list(terms.items()))) and terms != {1: "int"}
    with pytest.raises(KeyError):
        terms[2]
    with pytest.raises(ValueError, match="duplicate key"):
        TermMap([([1], 1), ([1], 2)])
