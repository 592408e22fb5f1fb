"""The pytest plugin: the fixture ``barrel_cluster``, real nodes for the tests of your own project.

It is there once the package is installed::

    def test_counter(barrel_cluster):
        async def story(cluster):
            alice, bob = cluster.nodes
            await Counter.start_link(40, name="counter")             # on alice: the story is a process of hers
            assert await call(("counter", alice.name), 2, node=bob) == 42

        barrel_cluster(story, size=2)

With a plugin for async tests use ``LocalCluster`` itself: ``async with LocalCluster(2) as cluster``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from barrel_p2p.testing.local import LocalCluster

Story = Callable[["LocalCluster"], Awaitable[Any]]


@pytest.fixture
def barrel_cluster(tmp_path: Path) -> Callable[..., Any]:
    """A function that runs ``async def story(cluster)`` on a cluster of real nodes, and returns what it returns.

    ``barrel_cluster(story, size=3, limit=60.0, **options)``: ``limit`` in seconds for everything; the other arguments
    are those of ``barrel_p2p.testing.LocalCluster``.
    """
    from barrel_p2p.testing.local import LocalCluster

    count = 0

    def run(story: Story, size: int = 3, *, limit: float = 60.0, **options: Any) -> Any:
        nonlocal count
        count += 1
        directory = tmp_path / f"barrel_p2p-{count}"

        async def main() -> Any:
            async with LocalCluster(size, directory=directory, **options) as cluster:
                told = story(cluster)
                if not isawaitable(told):
                    raise TypeError(f"the story must be an async def, not {story!r}")
                return await told

        async def within_the_limit() -> Any:
            try:
                async with asyncio.timeout(limit) as timer:
                    return await main()
            except TimeoutError:
                if timer.expired():
                    raise TimeoutError(f"the story took longer than its limit of {limit:g} s") from None
                raise

        return asyncio.run(within_the_limit())

    return run
