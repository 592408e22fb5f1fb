"""The cycle collector is spared what can't be part of a cycle, and nothing else."""

from __future__ import annotations

import gc
import weakref

import pytest

from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom, Pid


@pytest.mark.parametrize(
    "term",
    [
        (Atom("work"), b"payload", 1, 2.5, "text", None, True),
        (Atom("nested"), (1, (2, (3, ())))),
        (22, Pid(Atom("a@b"), 1, 0, 4), Pid(Atom("a@b"), 2, 0, 4)),
        Pid(Atom("a@b"), 3, 0, 4),
    ],
)
def test_plain_terms_are_not_tracked(term: object) -> None:
    assert not gc.is_tracked(decode(encode(term)))


@pytest.mark.parametrize("term", [(1, []), (1, {}), (1, (2, [3])), [1], ({Atom("a"): 1},)])
def test_what_can_be_changed_is_tracked_and_so_is_what_holds_it(term: object) -> None:
    back = decode(encode(term))
    assert back == term
    assert gc.is_tracked(back)


def test_a_cycle_through_a_decoded_tuple_is_collected() -> None:
    class Mark:
        pass

    mark = Mark()
    gone = weakref.ref(mark)
    back = decode(encode((1, [], {})))
    back[1].append(back)
    back[2]["mark"] = mark
    del back, mark
    gc.collect()
    assert gone() is None
