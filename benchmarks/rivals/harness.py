"""What the programs of the Python rivals share: ``serve`` on one side, ``drive ADDRESS...`` on the other.

The driving side reads the lines of ``plan.pair_command`` on its standard input, as ours/peer.py does, and answers
each with ``result NUMBER ...``. The serving side prints ``ready ADDRESS...`` and stays until its input ends.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any


class Rival:
    """One system; a method for each work that it can do, named as in the command line."""

    async def serve(self) -> list[str]:
        """Starts the answering side; returns the words that the driving side needs to reach it."""
        raise NotImplementedError

    async def stop_serving(self) -> None:
        """For what does not end with its event loop."""

    async def connect(self, address: list[str]) -> None:
        """Makes the driving side ready to work."""
        raise NotImplementedError


def main(rival: Rival) -> None:
    role, *address = sys.argv[1:]
    asyncio.run(_serve(rival) if role == "serve" else _drive(rival, address))


async def _serve(rival: Rival) -> None:
    print("ready", *await rival.serve(), flush=True)
    while await asyncio.to_thread(sys.stdin.readline) not in ("", "stop\n"):
        pass
    await rival.stop_serving()


async def _drive(rival: Rival, address: list[str]) -> None:
    await rival.connect(address)
    print("ready", flush=True)
    while (line := await asyncio.to_thread(sys.stdin.readline)) and line != "stop\n":
        work, *arguments = line.split()
        try:
            numbers = await _run(rival, work, [int(text) for text in arguments])
        except Exception:
            traceback.print_exc()
            print("error", work, flush=True)
        else:
            print("result", *(round(number, 3) for number in numbers), flush=True)


async def _run(rival: Rival, work: str, arguments: list[int]) -> list[float]:
    """A tenth of the work first, which isn't counted; all systems do so."""
    do = getattr(rival, work)
    match work, arguments:
        case "oneway", [pairs, count, size, batch]:
            await do(pairs, warm_up(count), size, batch)
            first, last = await do(pairs, count, size, batch)
            return [(pairs * count - 1) * 1e9 / (last - first)]
        case "pingpong", [rounds, size]:
            await do(warm_up(rounds), size)
            times = sorted(await do(rounds, size))
            return [times[int(part * len(times))] / 1e3 for part in (0.50, 0.99)]
        case "call", [callers, count, size]:
            await do(callers, warm_up(count), size)
            return [callers * count * 1e9 / await do(callers, count, size)]
        case "stream", [mib]:
            await do(warm_up(mib))
            return [mib * 2**20 * 1e3 / await do(mib)]
    raise ValueError(f"{work} {arguments}")


def warm_up(count: int) -> int:
    return max(2, count // 10)


async def round_trips(ask: Callable[[], Awaitable[Any]], rounds: int) -> list[int]:
    """One question after the other: the ns that each took."""
    times = []
    for _ in range(rounds):
        start = perf_counter_ns()
        await ask()
        times.append(perf_counter_ns() - start)
    return times


async def calls(ask: Callable[[], Awaitable[Any]], callers: int, count: int) -> int:
    """So many callers at once, each with one question after the other: the ns until all are done."""

    async def caller() -> None:
        for _ in range(count):
            await ask()

    start = perf_counter_ns()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return perf_counter_ns() - start


def hull(spans: list[tuple[int, int]]) -> tuple[int, int]:
    """From the first arrival at any receiver to the last at any: ``(first, last)`` of each, in ns of one clock."""
    return min(first for first, _ in spans), max(last for _, last in spans)
