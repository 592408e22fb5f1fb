"""Our nodes as a star: ``python star.py hub DATA_DIR COOKIE`` and ``python star.py rim DATA_DIR COOKIE HUB_PORT``.

The hub says ``ready PORT`` and understands ``fan COUNT BYTES``: so many messages to its peers in turn, until all have
said that theirs arrived; ``result MESSAGES_PER_SECOND``. The rim understands ``join N`` and ``connect N``: it starts
nodes, all in this one OS process, until N of them are peers of the hub. What a hub costs is measured from outside.
benchmarks/erlang/bench_peer.erl does the same with a node in each OS process.
"""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter
from typing import Any

from barrel_p2p import Atom, Node, receive, register, self_pid, send

HUB = "bench_hub@127.0.0.1"
WORK, FLUSH, FLUSHED = Atom("work"), Atom("flush"), Atom("flushed")


def node(name: str, directory: str, cookie: str) -> Node:
    return Node(name, data_dir=f"{directory}/{name}", discovery_dir=None, cookie=cookie)


async def lines() -> Any:
    while (line := await asyncio.to_thread(sys.stdin.readline)) and line != "stop\n":
        yield line.split()


async def hub(directory: str, cookie: str) -> None:
    async with node(HUB, directory, cookie) as me:
        print("ready", me.listen_address[1], flush=True)
        async for words in lines():
            match words:
                case ["fan", count, size]:
                    await fan(me.nodes(), max(2, int(count) // 10), int(size))
                    print("result", round(await fan(me.nodes(), int(count), int(size)), 3), flush=True)


async def fan(peers: list[Atom], count: int, size: int) -> float:
    message = (WORK, b"\7" * size)
    targets = [("bench_count", peer) for peer in peers]
    start = perf_counter()
    for index in range(count):
        send(targets[index % len(targets)], message)
        if index % 100 == 99:
            await asyncio.sleep(0)
    for target in targets:
        send(target, (FLUSH, self_pid()))
    for _ in targets:
        await receive(timeout=120)
    return count / (perf_counter() - start)


async def rim(directory: str, cookie: str, port: int) -> None:
    peers: list[asyncio.Task[None]] = []
    print("ready", flush=True)
    async for how, count in lines():
        while len(peers) < int(count):
            up = asyncio.Event()
            peers.append(asyncio.create_task(peer(f"bench_{len(peers)}@127.0.0.1", directory, cookie, port, how, up)))
            waiting = asyncio.create_task(up.wait())
            await asyncio.wait([peers[-1], waiting], return_when=asyncio.FIRST_COMPLETED)
            if peers[-1].done():
                await peers[-1]  # says why
        print("result", len(peers), flush=True)
    for task in peers:
        task.cancel()
    await asyncio.gather(*peers, return_exceptions=True)


async def peer(name: str, directory: str, cookie: str, port: int, how: str, up: asyncio.Event) -> None:
    async with node(name, directory, cookie) as me:
        register("bench_count", self_pid())
        await (me.join if how == "join" else me.connect)(HUB, ("127.0.0.1", port))
        up.set()
        while True:
            match await receive():
                case ("flush", sender):
                    send(sender, FLUSHED)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hub", directory, cookie]:
            asyncio.run(hub(directory, cookie))
        case ["rim", directory, cookie, port]:
            asyncio.run(rim(directory, cookie, int(port)))
