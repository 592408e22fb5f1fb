"""What a log line is told of others' values: like repr, but bounded in length and in cost, whatever the value."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given

from barrel_p2p import Atom, Pid, RemoteError
from barrel_p2p.shown import Shown, printable, shown
from barrel_p2p.term.maps import TermMap
from barrel_p2p.term.types import BitString, ImproperList
from harness.terms import terms

PID = Pid(Atom("a@b"), 1, 2, 3)


@pytest.mark.parametrize(
    "value",
    [
        1, -(10**400), 1.5, None, True, "te'xt\n", b"\xff", Atom("an atom"), [], (), (1,), [1, [2, ("x",)]], PID,
        {"a": 1, (1, 2): [b""]}, ImproperList((1, Atom("alias")), 2), BitString(b"\xf0", 4),
    ],
)  # fmt: skip
def test_what_fits_is_shown_as_repr_does(value: Any) -> None:
    assert shown(value) == repr(value) == str(Shown(value))


@given(terms())
def test_any_term_is_shown_within_the_limit(term: Any) -> None:
    assert len(shown(term, 40)) <= 40
    assert shown(term, 40).isprintable()


def test_what_is_too_long_is_cut() -> None:
    assert shown([1] * 100, 20) == "[1, 1, 1, 1, 1, 1..."
    assert shown("x" * 100, 20) == "'xxxxxxxxxxxxxxxx..."


def test_an_integer_that_python_refuses_to_write_is_told_by_its_size() -> None:
    with pytest.raises(ValueError, match="4300 digits"):
        repr(1 << 20_000)
    assert shown([1 << 20_000]) == "[<an integer of 20001 bits>]"
    assert str(RemoteError("error", 1 << 20_000)) == "error: <an integer of 20001 bits>"


def test_what_can_not_be_shown_does_not_raise() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert shown((Broken(), 1)) == "(<Broken that can't be shown>, 1)"


def test_the_cost_is_that_of_the_limit() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    values = [b"x"] * 5_000_000
    for value in (deep, values, tuple(values), {"k": values}, TermMap([([1], values)]), b"x" * (100 << 20)):
        before = time.process_time()
        for _ in range(100):
            assert len(shown(value)) <= 500
        assert time.process_time() - before < 1, "a hundred times a millisecond at the most"


def test_texts_for_a_terminal() -> None:
    assert printable("plain; äöü") == "plain; äöü"
    assert printable("a\nb\x1b[2J\x9b1m\u202e\U000e0001") == "a\\nb\\x1b[2J\\x9b1m\\u202e\\U000e0001"
