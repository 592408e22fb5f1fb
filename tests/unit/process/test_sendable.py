"""What another node is shown of values that have no form as terms."""

from __future__ import annotations

from typing import Any

from barrel_p2p import Atom
from barrel_p2p.process.sendable import MAX_TEXT, sendable
from barrel_p2p.term.codec import encode


class Door:
    def __repr__(self) -> str:
        return "Door()"


class Faulty:
    def __repr__(self) -> str:
        raise RuntimeError


def test_what_has_a_form_stays_as_it_is() -> None:
    term = {Atom("a"): [1, ("b", 2.0)]}
    assert sendable(term) is term


def test_parts_without_a_form_are_texts_and_the_others_stay() -> None:
    state = {Atom("n"): 1, Door(): [Door(), (2, Door())], ("key", Door()): Faulty()}
    assert sendable(state) == {
        "n": 1,
        "Door()": ["Door()", (2, "Door()")],
        ("key", "Door()"): "<Faulty that can't be shown>",
    }


def test_whatever_comes_out_has_a_form_and_a_bounded_size() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = Door()
    for _ in range(500):
        deep = [deep]
    for value in (endless, deep, "\ud800" * 10**6, {1.0: Door(), 2: {Door()}}):
        assert len(encode(sendable(value))) < 2 * MAX_TEXT
