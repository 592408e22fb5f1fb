"""Values on the command line: what is printed can be given back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p import Atom, Pid
from barrel_p2p.cli.terms import as_json, parse, show

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(Atom),
    st.binary(max_size=20),
)
keys = st.one_of(st.integers(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.binary(max_size=5))
values = st.recursive(
    scalars,
    lambda items: st.one_of(
        st.lists(items, max_size=4), st.lists(items, max_size=4).map(tuple), st.dictionaries(keys, items, max_size=4)
    ),
    max_leaves=20,
)


def same(one: object, other: object) -> bool:
    return one == other and repr(one) == repr(other)  # 1 and True, a str and an Atom are equal but not the same


@given(values, st.sampled_from([20, 100, 10_000]))
def test_what_is_printed_can_be_given_back(value: object, width: int) -> None:
    assert same(parse(show(value, width)), value)


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text()), st.lists, max_leaves=10))
def test_json_is_understood(value: object) -> None:
    assert same(parse(json.dumps(value)), value)


ERROR = (Atom("error"), Atom("no such thing"), {Atom("a"): [1.5]})


def test_short_forms() -> None:
    assert same(parse(":ok"), Atom("ok"))
    assert same(parse('(:error, :"no such thing", {:a: [1.5]})'), ERROR)
    assert same(parse(r'b"\xff\n\"\\ü"'), b'\xff\n"\\\xc3\xbc')
    assert same(parse(":bob@127.0.0.1"), Atom("bob@127.0.0.1"))
    assert same(parse("(1,)"), (1,)) and same(parse("()"), ())
    assert show((Atom("ok"), b"hi", None)) == '(:ok, b"hi", null)'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("hello", "quotes"),
        ("", "too early"),
        ("[1, 2", "the value ends"),
        ("[1 2]", "',' or ']'"),
        ("1 2", "left over"),
        ('"open', "closing quote"),
        ('b"open', "closing quote"),
        (r'b"\q"', "means nothing"),
        (": x", "no atom"),
        ('{"a" 1}', "':' is missing"),
        ("{[1]: 2}", "can't be a key"),
        ("[" * 200, "levels"),
        ("nullable", "quotes"),
        (':"' + "x" * 256 + '"', "255"),
    ],
)
def test_what_can_not_be_read_is_explained(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse(text)
    assert word in str(error.value)


def test_a_long_value_is_broken_over_lines() -> None:
    text = show({"numbers": list(range(40)), "name": Atom("bob")}, width=60)
    assert text.startswith('{\n  "numbers": [\n') and max(map(len, text.splitlines())) <= 60


def test_json_output_is_json_whatever_the_value() -> None:
    pid = Pid(Atom("bob@127.0.0.1"), 7, 0, 4)
    value = {Atom("ok"): (1, b"x\xff"), 2: pid, (1, 2): [Atom("a")]}
    assert json.loads(as_json(value)) == {"ok": [1, "x\\xff"], "2": "<bob@127.0.0.1.7.0>", "(1, 2)": ["a"]}


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\x9b1m\x07", "\u202etxt", "tag\U000e0001"])
def test_what_a_terminal_might_obey_is_escaped_and_can_be_given_back(text: str) -> None:
    for value in (text, Atom(text), [text], {text: (text,)}):
        assert show(value).isprintable() and as_json(value).isprintable()
        assert parse(show(value)) == value
    assert json.loads(as_json([text])) == [text]
    assert show(Pid(Atom(text), 1, 2, 3)).isprintable()
    assert show("äöü – ok") == '"äöü – ok"'
