"""Ray: an actor in a process of its own, driven from this one. Neither encrypted nor authenticated.

Ray listens on every address it finds, so the benchmark starts this program in a network namespace that has nothing
but loopback. No dashboard, a small object store, and `ray.shutdown()` ends what `ray.init()` started.
"""

from __future__ import annotations

import asyncio
import os
import sys
from time import perf_counter_ns
from typing import Any

import harness

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
import ray

STORE_BYTES = 256 << 20


@ray.remote(num_cpus=0)
class Receiver:
    """Counts what it is told to expect; answers calls."""

    def __init__(self) -> None:
        self._left, self._first, self._done = 0, 0, asyncio.Event()

    async def expect(self, count: int) -> None:
        self._left, self._first = count, 0
        self._done.clear()

    async def take(self, message: Any) -> None:
        self._first = self._first or perf_counter_ns()
        self._left -= 1
        if self._left == 0:
            self._last = perf_counter_ns()
            self._done.set()

    async def span(self) -> tuple[int, int]:
        await self._done.wait()
        return self._first, self._last

    async def reply(self, request: Any) -> Any:
        return request[1]


class Ray(harness.Rival):
    async def connect(self, address: list[str]) -> None:
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=STORE_BYTES, _temp_dir=address[0],
            _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR",
        )  # fmt: skip
        self._actor = Receiver.remote()

    async def oneway(self, pairs: int, count: int, size: int, batch: int) -> tuple[int, int]:
        """One pair: ten actors are ten OS processes, which on few cores measures the scheduler."""
        assert pairs == 1
        await self._actor.expect.remote(count)
        message = ("work", b"\7" * size)
        for index in range(count):
            self._actor.take.remote(message)
            if index % batch == batch - 1:
                await asyncio.sleep(0)
        first, last = await self._actor.span.remote()
        return first, last

    async def pingpong(self, rounds: int, size: int) -> list[int]:
        ping = ("ping", b"\7" * size)
        return await harness.round_trips(lambda: self._actor.reply.remote(ping), rounds)

    async def call(self, callers: int, count: int, size: int) -> int:
        request = ("work", b"\7" * size)
        return await harness.calls(lambda: asyncio.wait_for(self._actor.reply.remote(request), 60), callers, count)


if __name__ == "__main__":
    try:
        harness.main(Ray())
    finally:
        ray.shutdown()
        sys.stdout.flush()
