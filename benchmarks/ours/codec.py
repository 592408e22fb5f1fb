"""One codec on one term: ``python codec.py ours_native|pickle etf_small|etf_maps1000 COUNT``.

Prints ``result ENCODE_US DECODE_US``: CPU time, the best of fifteen series of COUNT / 15, because it can only be
disturbed upwards. Ours gets the terms that go over the wire; pickle, protocol 5, gets the same shape in plain tuples
and strings, for a pickle of our own classes would only make pickle look slow.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import partial
from time import thread_time
from typing import Any

SERIES = 15
NODE = "alice@127.0.0.1"
WORK = b"\7" * 64
Coding = tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


def ours_native() -> tuple[Coding, Any, Callable[[str], str]]:
    from barrel_p2p.term.codec import Codec
    from barrel_p2p.term.types import Atom, ImproperList, Pid, Reference

    node = Atom(NODE)
    alias = ImproperList((Atom("alias"),), Reference(node, 3, (1, 2, 3)))
    call = (Atom("$gen_call"), (Pid(node, 1, 2, 3), alias), (Atom("work"), WORK))
    codec = Codec()
    return (codec.encode, codec.decode), call, Atom


def pickled() -> tuple[Coding, Any, Callable[[str], str]]:
    call = ("$gen_call", ((NODE, 1, 2, 3), ["alias", (NODE, 3, (1, 2, 3))]), ("work", WORK))
    return (partial(pickle.dumps, protocol=5), pickle.loads), call, str


def maps1000(atom: Callable[[str], str]) -> list[dict[str, Any]]:
    """Five keys each; ``atom`` makes what is an atom in Erlang, once for each word as a program would."""
    key = {word: atom(word) for word in ("id", "name", "ok", "score", "tags", "a", "b")}
    return [
        {
            key["id"]: index,
            key["name"]: b"name-%d" % index,
            key["ok"]: True,
            key["score"]: index * 1.5,
            key["tags"]: [key["a"], key["b"]],
        }
        for index in range(1000)
    ]


def best_us(function: Callable[[Any], Any], argument: Any, count: int) -> float:
    function(argument)
    each, series = max(1, count // SERIES), []
    for _ in range(SERIES):
        start = thread_time()
        for _ in range(each):
            function(argument)
        series.append((thread_time() - start) / each * 1e6)
    return min(series)


def main(name: str, work: str, count: int) -> None:
    (encode, decode), call, atom = ours_native() if name == "ours_native" else pickled()
    term = call if work == "etf_small" else maps1000(atom)
    data = encode(term)
    if decode(data) != term:
        raise AssertionError(f"{name} does not give {work} back")
    figures = best_us(encode, term, count), best_us(decode, data, count)
    print("result", *(round(figure, 3) for figure in figures), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
