"""The one-process works, ours: ``python local.py DATA_DIR WORK COUNT [BATCH]`` prints ``result N``.

The shape is that of benchmarks/bare/local.py; change both or neither.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from time import perf_counter
from typing import Any

from barrel_p2p import Node, Pid, receive, self_pid, send, spawn


async def flood(count: int, batch: int) -> float:
    message = ("work", b"\7" * 64)

    async def receiver(done: Pid) -> None:
        await receive()
        first = perf_counter()
        for _ in range(count - 1):
            await receive()
        send(done, (count - 1) / (perf_counter() - first))

    async def sender(box: Pid) -> None:
        for index in range(count):
            send(box, message)
            if index % batch == batch - 1:
                await asyncio.sleep(0)

    spawn(sender, spawn(receiver, self_pid()))
    return float(await receive())


async def pingpong(rounds: int) -> float:
    async def echo() -> None:
        while True:
            reply_to, payload = await receive()
            send(reply_to, ("pong", payload))

    there, back, payload = spawn(echo), self_pid(), b"\7" * 64
    begin = perf_counter()
    for _ in range(rounds):
        send(there, (back, payload))
        await receive()
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
        spawn(short)
        if index % batch == batch - 1:
            await asyncio.sleep(0)
    await finished.wait()
    return count / (perf_counter() - begin)


async def idle(count: int) -> float:
    """Resident memory per process that waits on its mailbox."""

    async def waits() -> Any:
        return await receive()

    for _ in range(100):  # what the first ones load is not theirs
        spawn(waits)
    await asyncio.sleep(0)
    gc.collect()
    before = resident_bytes()
    for _ in range(count):
        spawn(waits)
    await asyncio.sleep(0.1)
    gc.collect()
    return (resident_bytes() - before) / count


def resident_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def freeze_imports() -> None:
    """As ``barrel start`` does: the collector need not walk over what the imports made."""
    gc.collect()
    gc.freeze()


async def main(data_dir: str, work: str, count: int, batch: int) -> None:
    async with Node("bench_local@127.0.0.1", data_dir=data_dir, discovery_dir=None, cookie="bench-cookie"):
        freeze_imports()
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
    DATA_DIR, WORK, COUNT, *BATCH = sys.argv[1:]
    asyncio.run(main(DATA_DIR, WORK, int(COUNT), int(BATCH[0]) if BATCH else 1))
