"""The one-process works on bare asyncio: ``python local.py WORK COUNT [BATCH]`` prints ``result N``.

The shape is that of benchmarks/ours/local.py; change both or neither.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from collections.abc import Coroutine
from time import perf_counter
from typing import Any


class Mailbox:
    """What a hand-written actor would have: a deque, and a future while its owner waits."""

    __slots__ = ("_messages", "_waiter")

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, message: Any) -> None:
        self._messages.append(message)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def get(self) -> Any:
        while not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        return self._messages.popleft()


TASKS: set[asyncio.Task[None]] = set()


def start(coroutine: Coroutine[Any, Any, None]) -> None:
    """The loop keeps only weak references to tasks, so whoever starts one has to hold it."""
    task = asyncio.create_task(coroutine)
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


async def flood(count: int, batch: int) -> float:
    box, done = Mailbox(), Mailbox()
    message = ("work", b"\7" * 64)

    async def receiver() -> None:
        await box.get()
        first = perf_counter()
        for _ in range(count - 1):
            await box.get()
        done.put((count - 1) / (perf_counter() - first))

    async def sender() -> None:
        for index in range(count):
            box.put(message)
            if index % batch == batch - 1:
                await asyncio.sleep(0)

    start(receiver())
    start(sender())
    return float(await done.get())


async def pingpong(rounds: int) -> float:
    there, back = Mailbox(), Mailbox()

    async def echo() -> None:
        while True:
            reply_to, payload = await there.get()
            reply_to.put(("pong", payload))

    start(echo())
    payload = b"\7" * 64
    begin = perf_counter()
    for _ in range(rounds):
        there.put((back, payload))
        await back.get()
    return rounds / (perf_counter() - begin)


async def spawns(count: int, batch: int) -> float:
    left, finished = count, asyncio.Event()

    async def short() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            finished.set()

    begin = perf_counter()
    for index in range(count):
        start(short())
        if index % batch == batch - 1:
            await asyncio.sleep(0)
    await finished.wait()
    return count / (perf_counter() - begin)


async def idle(count: int) -> float:
    """Resident memory per task that waits on its own mailbox."""

    async def waits(box: Mailbox) -> None:
        await box.get()

    def more(many: int) -> None:
        for _ in range(many):
            start(waits(Mailbox()))

    more(100)  # what the first ones load is not theirs
    await asyncio.sleep(0)
    gc.collect()
    before = resident_bytes()
    more(count)
    await asyncio.sleep(0.1)
    gc.collect()
    return (resident_bytes() - before) / count


def resident_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


async def main(work: str, count: int, batch: int) -> None:
    gc.collect()
    gc.freeze()  # what the imports made, as in ours/local.py
    match work:
        case "local_flood":
            await flood(count // 10, batch)
            value = await flood(count, batch)
        case "local_pingpong":
            await pingpong(count // 10)
            value = await pingpong(count)
        case "spawn":
            await spawns(count // 10, batch)
            value = await spawns(count, batch)
        case "idle":
            value = await idle(count)
        case _:
            raise ValueError(work)
    print("result", round(value, 3), flush=True)


if __name__ == "__main__":
    WORK, COUNT, *BATCH = sys.argv[1:]
    asyncio.run(main(WORK, int(COUNT), int(BATCH[0]) if BATCH else 1))
