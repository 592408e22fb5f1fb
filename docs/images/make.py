"""Makes the pictures of this folder, from a real cluster of five nodes, and shows the metrics of one of them::

.venv/bin/python docs/images/make.py
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from barrel_p2p import Node, export_observer, receive, self_pid, send, spawn
from barrel_p2p.metrics import prometheus_text

NAMES = ("seed", "alice", "bob", "carol", "dave")
HERE = Path(__file__).parent
SETTLED = 25.0  # seconds: some shuffles, and a second round of whatever the first left over


async def echo() -> None:
    while True:
        sender, number = await receive()
        send(sender, number)


async def ask(other: object) -> None:
    """A process that talks with another, some fifty times a second."""
    number = 0
    while True:
        send(other, (self_pid(), number))
        number = await receive() + 1
        await asyncio.sleep(0.02)


async def slow() -> None:
    """One that can't keep up."""
    while True:
        await receive()
        await asyncio.sleep(0.3)


async def feed(other: object) -> None:
    while True:
        send(other, b"work")
        await asyncio.sleep(0.05)


async def barrel(home: str, *words: str) -> None:
    environment = {**os.environ, "BARREL_COOKIE": "secret", "COLUMNS": "90", "XDG_DATA_HOME": home}
    command = await asyncio.create_subprocess_exec(sys.executable, "-m", "barrel_p2p.cli", *words, env=environment)
    assert await command.wait() == 0, words


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = Path(directory) / "discovery"
        nodes = [
            Node(
                f"{name}@127.0.0.1",
                cookie="secret",
                data_dir=Path(directory) / name,
                discovery_dir=found,
                active_size=2,
            )
            for name in NAMES
        ]
        for node in nodes:
            await node.start()
            export_observer(node)
            if node is not nodes[0]:
                await node.join(nodes[0].name)
        seed = nodes[0]
        prices, *_ = [node.maps.open("prices") for node in nodes]
        for number, node in enumerate(nodes):
            counter = spawn(echo, node=node)
            node.registry.register("counter", counter, {"shard": number})
            spawn(ask, counter, node=nodes[number - 1])
            prices[node.name] = number
        late = spawn(slow, node=seed)
        spawn(feed, late, node=nodes[2])
        await asyncio.sleep(SETTLED)
        for number in range(200):
            prices["apple"] = number
            await asyncio.sleep(0.01)
        where = "--discovery-dir", str(found)
        await barrel(directory, "top", seed.name, *where, "--once", "--rows", "6", "--svg", str(HERE / "top.svg"))
        await barrel(directory, "graph", seed.name, *where, "--output", str(HERE / "overlay.svg"))
        print(prometheus_text(seed))
        for node in reversed(nodes):  # who asks is gone before who answers
            await node.stop()


if __name__ == "__main__":
    asyncio.run(main())
