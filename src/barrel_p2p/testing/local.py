"""``LocalCluster``: real nodes on loopback for tests, started, joined and torn down together."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from barrel_p2p.node.node import Node

COOKIE = "a cookie for tests"


class LocalCluster:
    """Some nodes in this OS process, members of one overlay.

    ::

        async with LocalCluster(3) as cluster:
            alice, bob, carol = cluster.nodes
            await alice.rpc(bob.name, "math", "sqrt", [2.0])

    Everything is real: QUIC, keys, handshakes, the overlay. The first node is the one that the others join through; the
    block is a process of it. Ports are free ones and files are in a temporary directory, so clusters don't disturb each
    other.

    Args:
        size: How many nodes there are at first.
        names: Their names before the ``@``; default: node1, node2, ...
        directory: For keys and ports; default: a temporary one, removed at the end.
        options: Options of every node, such as ``proto_dist``.

    Raises:
        ConfigError, NotConnected: A node did not start or join.
    """

    def __init__(
        self, size: int = 3, *, names: tuple[str, ...] = (), directory: Path | None = None, **options: Any
    ) -> None:
        self._names = list(names) or [f"node{i + 1}" for i in range(size)]
        self._options = options
        self._directory = directory
        self._stack = AsyncExitStack()
        self.nodes: list[Node] = []

    async def __aenter__(self) -> LocalCluster:
        try:
            if self._directory is None:
                self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="barrel_p2p-")))
            for name in self._names:
                await self.add(name, join=False)
            if len(self.nodes) > 1:
                await asyncio.gather(*(node.join(self.nodes[0].name) for node in self.nodes[1:]))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.nodes.clear()
        return await self._stack.__aexit__(kind, error, trace)

    async def add(self, name: str, *, join: bool = True, **options: Any) -> Node:
        """Start one more node; it joins through the first."""
        assert self._directory is not None, "use the cluster in `async with`"
        node = Node(
            f"{name}@127.0.0.1",
            **{
                "cookie": COOKIE,
                "data_dir": self._directory / name,
                "discovery_dir": self._directory / "discovery",
                **self._options,
                **options,
            },
        )
        if self.nodes:
            await node.start()
            self._stack.push_async_callback(node.stop)
        else:
            await self._stack.enter_async_context(node)
        self.nodes.append(node)
        if join and len(self.nodes) > 1:
            await node.join(self.nodes[0].name)
        return node

    async def stop(self, node: Node) -> None:
        """Stop one of the nodes; the others see it go."""
        self.nodes.remove(node)
        await node.stop()


__all__ = ["COOKIE", "LocalCluster"]
