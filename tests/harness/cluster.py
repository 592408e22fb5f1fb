"""A small cluster for tests: one node in the test itself, others in OS processes of their own.

::

    def test_something(tmp_path):
        async def story(cluster):
            alice = await cluster.node("alice")
            bob = await cluster.member("bob")
            assert await alice.ping(bob.name)

        run(story, tmp_path)
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from barrel_p2p import Atom, Node

MEMBER = Path(__file__).with_name("member.py")
COOKIE = "test cookie"

#: Options of every node, such as those that choose the carrier (see ``tests/cluster/conftest.py``).
common: dict[str, Any] = {}


class Member:
    """An OS process that runs a node."""

    def __init__(self, name: Atom, process: asyncio.subprocess.Process, port: int) -> None:
        self.name = name
        self.process = process
        self.port = port

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """End it the polite way: its node stops in order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


class Cluster:
    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        self._stack = stack

    def options(self, name: str, **more: Any) -> dict[str, Any]:
        return {
            "data_dir": str(self.directory / name),
            "discovery_dir": str(self.directory / "discovery"),
            "cookie": COOKIE,
            **common,
            **more,
        }

    async def node(self, name: str, **options: Any) -> Node:
        """A node in this OS process; its block (and so the test) becomes the current process."""
        full = f"{name}@127.0.0.1"
        node = Node(full, **self.options(name, **options))
        return await self._stack.enter_async_context(node)

    async def member(self, name: str, **options: Any) -> Member:
        """A node in an OS process of its own, killed when the test ends."""
        full = Atom(f"{name}@127.0.0.1")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(MEMBER),
            json.dumps({"name": full, **self.options(name, **options)}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode().split()
        if line[:1] != ["ready"]:
            process.kill()
            raise AssertionError(f"{full} did not start: {line}")
        member = Member(full, process, int(line[1]))
        self._stack.push_async_callback(member.kill)
        return member


def run(story: Callable[[Cluster], Awaitable[None]], directory: Path, limit: float = 60.0) -> None:
    """Run ``story`` with a cluster, tear everything down, and fail if a task is left behind."""

    async def main() -> None:
        async with asyncio.timeout(limit), AsyncExitStack() as stack:
            await story(Cluster(directory, stack))
        await asyncio.sleep(0)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, f"tasks left behind: {left}"

    asyncio.run(main())
