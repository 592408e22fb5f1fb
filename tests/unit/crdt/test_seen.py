"""What was seen of each writer: spans grow together, and who is silent is not waited for without end."""

from __future__ import annotations

from barrel_p2p.crdt.seen import MAX_WRITERS, Seen
from barrel_p2p.term.types import Atom

A, B, C = Atom("a@h"), Atom("b@h"), Atom("c@h")


def test_spans_that_touch_become_one_and_of_others_the_later_stays() -> None:
    seen = Seen()
    seen.advance(A, 10, 20)
    seen.advance(A, 15, 30)
    assert seen.covers(A, 10) and seen.covers(A, 30) and not seen.covers(A, 9) and not seen.covers(A, 31)
    seen.advance(A, 40, 50)
    assert seen.covers(A, 45) and not seen.covers(A, 20)
    seen.advance(A, 1, 5)
    assert seen.covers(A, 45) and not seen.covers(A, 3)
    seen.advance(A, 30, 45)
    assert seen.covers(A, 30)


def test_everyone_must_have_passed() -> None:
    seen = Seen()
    seen.advance(A, 0, 20)
    seen.advance(B, 0, 30)
    assert seen.stable(hard=0) == 20
    seen.meet(C, 25)
    assert seen.stable(hard=0) == -1 and seen.until(B, 0) == 30


def test_one_that_started_later_than_the_hard_horizon_is_waited_for() -> None:
    seen = Seen()
    seen.advance(A, 10, 20)
    assert seen.stable(hard=9) == -1 and seen.stable(hard=10) == 20


def test_one_that_was_not_heard_of_since_the_hard_horizon_is_not() -> None:
    seen = Seen()
    seen.advance(A, 0, 20)
    seen.advance(B, 0, 90)
    seen.meet(C, 30)
    assert seen.stable(hard=31) == 90
    seen.meet(C, 95)
    assert seen.stable(hard=31) == -1


def test_what_was_forgotten_is_let_in_again() -> None:
    seen = Seen()
    seen.advance(A, 0, 20)
    seen.forget(A)
    seen.forget(B)
    assert not seen.covers(A, 5) and len(seen) == 1


def test_names_are_bounded_and_the_longest_silent_go() -> None:
    seen = Seen()
    for number in range(MAX_WRITERS + 10):
        seen.meet(Atom(f"n{number}@h"), number)
    left = {node for node, _, _ in seen.items()}
    assert MAX_WRITERS // 2 < len(seen) <= MAX_WRITERS
    assert "n9@h" not in left and {f"n{number}@h" for number in range(MAX_WRITERS // 2, MAX_WRITERS + 10)} <= left


def test_a_flood_of_names_costs_no_look_at_all_others_for_each() -> None:
    """One message can hold a hundred thousand names. Heard-of times are compared when one is to go: they count."""

    class Counted(dict[Atom, int]):
        reads = 0

        def __getitem__(self, key: Atom) -> int:
            Counted.reads += 1
            return super().__getitem__(key)

    seen = Seen()
    seen._heard = Counted()
    for number in range(3 * MAX_WRITERS):
        seen.meet(Atom(f"n{number}@h"), number)
    assert Counted.reads < 100 * 3 * MAX_WRITERS
