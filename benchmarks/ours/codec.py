"""One codec on one term: ``python codec.py ours_native|pickle etf_small|etf_maps1000 COUNT``.

Prints ``result ENCODE_US DECODE_US``: the best of five series of COUNT / 5, because it can only be disturbed
upwards. Both codecs get the very same plain Python values; pickle would only be slower on our own classes.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

SMALL: Any = ("work", 4711, 3.25, b"\7" * 64, True, {"id": 17})
MAPS: Any = [
    {"id": index, "name": f"sensor-{index}", "value": index * 0.5, "tags": ["a", "b"], "raw": b"0123456789"}
    for index in range(1000)
]


def codec(name: str) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    if name == "pickle":
        return partial(pickle.dumps, protocol=pickle.HIGHEST_PROTOCOL), pickle.loads
    from barrel_p2p.term.codec import decode, encode

    return encode, decode


def best_us(function: Callable[[Any], Any], argument: Any, count: int) -> float:
    function(argument)
    series = []
    for _ in range(5):
        start = perf_counter()
        for _ in range(count // 5):
            function(argument)
        series.append((perf_counter() - start) / (count // 5) * 1e6)
    return min(series)


def main(name: str, work: str, count: int) -> None:
    encode, decode = codec(name)
    term = SMALL if work == "etf_small" else MAPS
    data = encode(term)
    if decode(data) != term:
        raise AssertionError(f"{name} does not give {work} back")
    figures = best_us(encode, term, count), best_us(decode, data, count)
    print("result", *(round(figure, 3) for figure in figures), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
