"""Control messages: what passes and what is named as wrong."""

from __future__ import annotations

from typing import Any

import pytest

from barrel_p2p.errors import ProtocolError
from barrel_p2p.proto.control import MAX_UNLINK_ID, Op, check
from barrel_p2p.term.types import Atom, Pid, Port, Reference

A, B = Pid(Atom("a@h"), 1, 0, 4), Pid(Atom("b@h"), 2, 0, 4)
REF = Reference(Atom("a@h"), 4, (1, 2, 3))
NAME = Atom("server")
MFA = (Atom("m"), Atom("f"), 2)

GOOD: list[tuple[tuple[Any, ...], bool]] = [
    ((1, A, B), False),
    ((2, Atom(""), B), True),
    ((3, A, B, Atom("normal")), False),
    ((4, A, B), False),
    ((5,), False),
    ((6, A, Atom(""), NAME), True),
    ((6, A, Atom(""), None), True),  # the atom undefined, as the codec decodes it
    ((7, A, B), False),
    ((8, A, B, ("any", "reason")), False),
    ((12, Atom(""), B, []), True),
    ((13, A, B, [], Atom("kill")), False),
    ((16, A, Atom(""), NAME, []), True),
    ((18, A, B, [], Atom("kill")), False),
    ((19, A, B, REF), False),
    ((19, A, NAME, REF), False),
    ((20, A, NAME, REF), False),
    ((21, NAME, B, REF, Atom("noproc")), False),
    ((21, Port(Atom("a@h"), 1, 4), B, REF, Atom("noproc")), False),
    ((22, A, B), True),
    ((23, A, B, []), True),
    ((24, A, B), True),
    ((25, A, B, []), True),
    ((26, A, B), True),
    ((27, A, B, []), True),
    ((28, A, B, REF), True),
    ((29, REF, A, A, MFA, [Atom("link")]), True),
    ((30, REF, A, A, MFA, [], []), True),
    ((31, REF, A, 3, B), False),
    ((31, REF, A, 0, Atom("badarg")), False),
    ((32, REF, A, 0, B, []), False),
    ((33, A, REF), True),
    ((34, A, REF, []), True),
    ((35, 1, A, B), False),
    ((36, MAX_UNLINK_ID, A, B), False),
    ((37, 4, A, REF), True),
    ((37, 6, A, REF, []), True),
]

BAD: list[tuple[Any, bool, str]] = [
    ([1, A, B], False, "tuple"),
    ((), False, "tuple"),
    (("link", A, B), False, "operation"),
    ((True, A, B), False, "operation"),
    ((1, A), False, "2 fields"),
    ((1, A, B, B), False, "2 fields"),
    ((1, A, NAME), False, "its to"),
    ((3, A, B), False, "3 fields"),
    ((6, A, Atom(""), "server"), True, "its to"),
    ((19, A, B, 7), False, "its ref"),
    ((19, A, "x", REF), False, "its target"),
    ((29, REF, A, A, (Atom("m"), Atom("f"), -1), []), True, "module"),
    ((29, REF, A, A, MFA, ()), True, "options"),
    ((31, REF, A, -1, B), False, "flags"),
    ((35, 0, A, B), False, "its id"),
    ((35, 1 << 64, A, B), False, "its id"),
    ((35, True, A, B), False, "its id"),
    ((22, A, B), False, "without the term"),
    ((1, A, B), True, "too many"),
]


def test_every_operation_has_a_good_example() -> None:
    assert {control[0] for control, _ in GOOD} == set(Op)


@pytest.mark.parametrize(("control", "payload"), GOOD, ids=lambda v: repr(v)[:40])
def test_good_messages_pass(control: tuple[Any, ...], payload: bool) -> None:
    assert check(control, has_payload=payload) == control[0]


@pytest.mark.parametrize(("control", "payload", "word"), BAD, ids=lambda v: repr(v)[:40])
def test_bad_messages_are_named(control: Any, payload: bool, word: str) -> None:
    with pytest.raises(ProtocolError, match=word):
        check(control, has_payload=payload)


def test_unknown_operations_are_for_the_driver_to_skip() -> None:
    assert check((99, "whatever"), has_payload=True) is None


def test_huge_terms_are_not_printed_whole() -> None:
    with pytest.raises(ProtocolError) as caught:
        check((1, "x" * 100_000, B), has_payload=False)
    assert len(str(caught.value)) < 300
