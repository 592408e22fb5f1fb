"""Raw asyncio streams with length-prefixed msgpack: the floor of a data path in Python.

One TCP connection for each pair of sender and receiver, and one for all callers, whose requests carry numbers.
The first frame of a connection says what it is for. Neither encrypted nor authenticated.
"""

from __future__ import annotations

import asyncio
from itertools import count as numbers
from time import perf_counter_ns
from typing import Any

from msgpack import packb, unpackb

import harness


class Frames:
    """Terms over a stream: four bytes of length, then msgpack."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.drain, self.close = writer.drain, writer.close

    def send(self, term: Any) -> None:
        body = packb(term)
        self._writer.write(len(body).to_bytes(4) + body)

    async def receive(self) -> Any:
        return unpackb(await self._reader.readexactly(int.from_bytes(await self._reader.readexactly(4))))


class AsyncioMsgpack(harness.Rival):
    async def serve(self) -> list[str]:
        self._server = await asyncio.start_server(_accepted, "127.0.0.1", 0)
        return [str(self._server.sockets[0].getsockname()[1])]

    async def connect(self, address: list[str]) -> None:
        self._port = int(address[0])

    async def _open(self, *purpose: Any) -> Frames:
        frames = Frames(*await asyncio.open_connection("127.0.0.1", self._port))
        frames.send(purpose)
        return frames

    async def oneway(self, pairs: int, count: int, size: int, batch: int) -> tuple[int, int]:
        links = [await self._open("count", count) for _ in range(pairs)]
        message = ("work", b"\7" * size)

        async def flood(link: Frames) -> tuple[int, int]:
            for index in range(count):
                link.send(message)
                if index % batch == batch - 1:
                    await link.drain()
                    await asyncio.sleep(0)
            first, last = await link.receive()
            link.close()
            return first, last

        return harness.hull(await asyncio.gather(*map(flood, links)))

    async def pingpong(self, rounds: int, size: int) -> list[int]:
        link, ping, times = await self._open("echo"), ("ping", b"\7" * size), []
        for _ in range(rounds):
            start = perf_counter_ns()
            link.send(ping)
            await link.receive()
            times.append(perf_counter_ns() - start)
        link.close()
        return times

    async def call(self, callers: int, count: int, size: int) -> int:
        link, request = await self._open("serve"), ("work", b"\7" * size)
        waiting: dict[int, asyncio.Future[Any]] = {}
        fresh, loop = numbers(), asyncio.get_running_loop()

        async def replies() -> None:
            while True:
                number, reply = await link.receive()
                waiting.pop(number).set_result(reply)

        async def caller() -> None:
            for _ in range(count):
                number = next(fresh)
                waiting[number] = future = loop.create_future()
                link.send((number, request))
                await asyncio.wait_for(future, 60)

        reading = asyncio.create_task(replies())
        start = perf_counter_ns()
        await asyncio.gather(*(caller() for _ in range(callers)))
        elapsed = perf_counter_ns() - start
        reading.cancel()
        link.close()
        return elapsed


async def _accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    link = Frames(reader, writer)
    try:
        match await link.receive():
            case ["count", count]:
                await link.receive()
                first = perf_counter_ns()
                for _ in range(count - 1):
                    await link.receive()
                link.send((first, perf_counter_ns()))
                await link.drain()
            case ["echo"]:
                while True:
                    _, payload = await link.receive()
                    link.send(("pong", payload))
            case ["serve"]:
                while True:
                    number, (_, payload) = await link.receive()
                    link.send((number, payload))
    except asyncio.IncompleteReadError:
        pass  # the driver has what it wanted
    finally:
        link.close()


if __name__ == "__main__":
    harness.main(AsyncioMsgpack())
