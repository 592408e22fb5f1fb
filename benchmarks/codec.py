"""The term codec beside pickle: microseconds of CPU time for one encode and one decode, best of 15 runs.

    .venv/bin/python benchmarks/codec.py

The pickled values are built of plain tuples and strings: pickling our classes would make pickle look slow.
"""

from __future__ import annotations

import pickle
import time
import timeit
from collections.abc import Callable
from typing import Any

from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, ImproperList, Pid, Reference

NODE = Atom("alice@127.0.0.1")
WORK = bytes(64)
CALL = (
    Atom("$gen_call"),
    (Pid(NODE, 1, 2, 3), ImproperList((Atom("alias"),), Reference(NODE, 3, (1, 2, 3)))),
    (Atom("work"), WORK),
)
PLAIN_CALL = ("$gen_call", (("alice@127.0.0.1", 1, 2, 3), ["alias", (3, (1, 2, 3))]), ("work", WORK))


def record(i: int, name: Callable[[str], str]) -> dict[str, Any]:
    return {
        name("id"): i,
        name("name"): b"name-%d" % i,
        name("ok"): True,
        name("score"): i * 1.5,
        name("tags"): [name("a"), name("b")],
    }


def best(work: Callable[[], object], number: int) -> float:
    return min(timeit.repeat(work, number=number, repeat=15, timer=time.thread_time)) / number * 1e6


def main() -> None:
    codec = Codec()
    words = {word: Atom(word) for word in ("id", "name", "ok", "score", "tags", "a", "b")}
    cases: list[tuple[str, Any, Any, int]] = [
        ("$gen_call with 64 bytes", CALL, PLAIN_CALL, 20_000),
        ("1,000 maps of 5 atom keys", [record(i, words.__getitem__) for i in range(1000)], None, 50),
    ]
    print(f"{'term':28}{'encode':>9}{'pickle':>9}{'decode':>9}{'pickle':>9}   (us)")
    for name, term, plain, number in cases:
        plain = plain or [record(i, str) for i in range(1000)]
        data, pickled = codec.encode(term), pickle.dumps(plain, 5)
        times = (
            best(lambda term=term: codec.encode(term), number),
            best(lambda plain=plain: pickle.dumps(plain, 5), number),
            best(lambda data=data: codec.decode(data), number),
            best(lambda pickled=pickled: pickle.loads(pickled), number),
        )
        print(f"{name:28}" + "".join(f"{micro:9.2f}" for micro in times))


if __name__ == "__main__":
    main()
