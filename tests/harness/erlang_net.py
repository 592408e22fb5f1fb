"""Erlang nodes and published Python nodes on one epmd, for tests of ``global``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from barrel_p2p import Node
from harness.cluster import Cluster, Member
from harness.erlang import COOKIE, Epmd, Erlang

#: A process that answers calls, as an Erlang expression.
ECHO = """spawn(fun L() -> receive
  {'$gen_call', {_, _} = From, M} -> gen_server:reply(From, {echo, M}), L();
  stop -> ok end end)"""


class Net:
    """Erlang nodes and Python nodes on one epmd."""

    def __init__(self, epmd: Epmd, directory: Path, stack: AsyncExitStack, erlangs: ExitStack) -> None:
        self.epmd = epmd
        self._directory = directory
        self._stack = stack
        self._erlangs = erlangs

    async def erlang(self, name: str, *flags: str) -> Erlang:
        started = await asyncio.get_running_loop().run_in_executor(None, lambda: Erlang(self.epmd, name, *flags))
        return self._erlangs.enter_context(started)

    async def python(self, name: str = "py", **options: Any) -> Node:
        full = f"{name}@127.0.0.1"
        options = {"published": True, "cookie": COOKIE, "data_dir": self._directory / name, **options}
        node = Node(full, proto_dist="inet_tcp", epmd_port=self.epmd.port, **options)
        return await self._stack.enter_async_context(node)

    async def member(self, name: str) -> Member:
        """A Python node in an OS process of its own."""
        options = {"proto_dist": "inet_tcp", "epmd_port": self.epmd.port, "published": True, "cookie": COOKIE}
        return await Cluster(self._directory, self._stack).member(name, **options)


def run(story: Callable[[Net], Awaitable[None]], epmd: Epmd, directory: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(100), AsyncExitStack() as stack:
            await story(Net(epmd, directory, stack, erlangs))

    with ExitStack() as erlangs:
        asyncio.run(main())


async def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Names travel in messages of which nobody is told."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


async def until_erlang(erlang: Erlang, condition: str) -> None:
    await erlang.ask(f"(fun W() -> case {condition} of true -> ok; false -> timer:sleep(5), W() end end)().")


async def trio(net: Net) -> tuple[Node, Erlang, Erlang]:
    """Two Erlang nodes and a Python node, all in sync."""
    one, two = await net.erlang("erl1"), await net.erlang("erl2")
    node = await net.python()
    assert await one.ask(f"net_adm:ping('{two.name}').") == "pong"
    await node.connect(one.name)
    await until(lambda: sorted(node.global_.nodes()) == [one.name, two.name])
    for erlang in (one, two):
        await until_erlang(erlang, "length(nodes()) =:= 2 andalso global:sync() =:= ok")
    await node.global_.sync()
    return node, one, two
