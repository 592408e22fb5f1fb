"""pyzmq with asyncio: PUSH to PULL for one-way messages, DEALER to ROUTER for what is answered; msgpack inside.

ZeroMQ has no calls; a user writes them as here, with a number in each request and a future for each number.
Neither encrypted nor authenticated.
"""

from __future__ import annotations

import asyncio
from itertools import count as numbers
from time import perf_counter_ns
from typing import Any

import zmq
import zmq.asyncio
from msgpack import packb, unpackb

import harness

HERE = "tcp://127.0.0.1"


class Zmq(harness.Rival):
    def __init__(self) -> None:
        self._context = zmq.asyncio.Context()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> list[str]:
        router = self._context.socket(zmq.ROUTER)
        port = router.bind_to_random_port(HERE)
        self._start(self._answer(router))
        return [str(port)]

    async def connect(self, address: list[str]) -> None:
        self._dealer = self._context.socket(zmq.DEALER)
        self._dealer.connect(f"{HERE}:{address[0]}")

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, *request: Any) -> Any:
        await self._dealer.send(packb(request))
        return unpackb(await self._dealer.recv())

    # --- the answering side

    async def _answer(self, router: Any) -> None:
        while True:
            who, request = await router.recv_multipart()
            match unpackb(request):
                case ["receivers", pairs, count]:
                    sockets = [self._context.socket(zmq.PULL) for _ in range(pairs)]
                    ports = [socket.bind_to_random_port(HERE) for socket in sockets]
                    await router.send_multipart([who, packb(ports)])
                    self._start(_collect(router, who, sockets, count))
                case [number, payload]:
                    await router.send_multipart([who, packb((number, payload))])

    # --- the driving side

    async def oneway(self, pairs: int, count: int, size: int, batch: int) -> tuple[int, int]:
        message = ("work", b"\7" * size)

        async def flood(port: int) -> None:
            push = self._context.socket(zmq.PUSH)
            push.connect(f"{HERE}:{port}")
            for index in range(count):
                await push.send(packb(message))
                if index % batch == batch - 1:
                    await asyncio.sleep(0)
            push.close()

        await asyncio.gather(*map(flood, await self._ask("receivers", pairs, count)))
        first, last = unpackb(await self._dealer.recv())
        return first, last

    async def pingpong(self, rounds: int, size: int) -> list[int]:
        payload, times = b"\7" * size, []
        for number in range(rounds):
            start = perf_counter_ns()
            await self._ask(number, payload)
            times.append(perf_counter_ns() - start)
        return times

    async def call(self, callers: int, count: int, size: int) -> int:
        payload, fresh, loop = b"\7" * size, numbers(), asyncio.get_running_loop()
        waiting: dict[int, asyncio.Future[Any]] = {}

        async def replies() -> None:
            for _ in range(callers * count):
                number, reply = unpackb(await self._dealer.recv())
                waiting.pop(number).set_result(reply)

        async def caller() -> None:
            for _ in range(count):
                number = next(fresh)
                waiting[number] = future = loop.create_future()
                await self._dealer.send(packb((number, payload)))
                await asyncio.wait_for(future, 60)

        start = perf_counter_ns()
        await asyncio.gather(replies(), *(caller() for _ in range(callers)))
        return perf_counter_ns() - start


async def _collect(router: Any, who: bytes, sockets: list[Any], count: int) -> None:
    async def receiver(socket: Any) -> tuple[int, int]:
        unpackb(await socket.recv())
        first = perf_counter_ns()
        for _ in range(count - 1):
            unpackb(await socket.recv())
        return first, perf_counter_ns()

    spans = await asyncio.gather(*map(receiver, sockets))
    for socket in sockets:
        socket.close()
    await router.send_multipart([who, packb(harness.hull(spans))])


if __name__ == "__main__":
    harness.main(Zmq())
