"""gRPC with asyncio: a client stream for one-way messages, unary calls for what is answered; msgpack inside.

Generic handlers take the place of generated code, so that no protoc is needed. Insecure channel: neither encrypted
nor authenticated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter_ns
from typing import Any

import grpc
from msgpack import packb, unpackb

import harness

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Grpc(harness.Rival):
    async def serve(self) -> list[str]:
        codec = {"request_deserializer": unpackb, "response_serializer": packb}
        handlers = {
            "flood": grpc.stream_unary_rpc_method_handler(_flooded, **codec),
            "call": grpc.unary_unary_rpc_method_handler(_called, **codec),
        }
        self._server = grpc.aio.server(options=UNLIMITED)
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench", handlers)])
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return [str(port)]

    async def stop_serving(self) -> None:
        await self._server.stop(None)

    async def connect(self, address: list[str]) -> None:
        codec = {"request_serializer": packb, "response_deserializer": unpackb}
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{address[0]}", options=UNLIMITED)
        self._flood = channel.stream_unary("/bench/flood", **codec)
        self._call = channel.unary_unary("/bench/call", **codec)
        await channel.channel_ready()

    async def oneway(self, pairs: int, count: int, size: int, batch: int) -> tuple[int, int]:
        message = ("work", b"\7" * size)

        async def flood() -> tuple[int, int]:
            stream = self._flood()
            for _ in range(count):
                await stream.write(message)
            await stream.done_writing()
            first, last = await stream
            return first, last

        return harness.hull(await asyncio.gather(*(flood() for _ in range(pairs))))

    async def pingpong(self, rounds: int, size: int) -> list[int]:
        ping = ("ping", b"\7" * size)
        return await harness.round_trips(lambda: self._call(ping), rounds)

    async def call(self, callers: int, count: int, size: int) -> int:
        request = ("work", b"\7" * size)
        return await harness.calls(lambda: self._call(request, timeout=60), callers, count)


async def _flooded(messages: AsyncIterator[Any], _context: Any) -> tuple[int, int]:
    await anext(messages)
    first = perf_counter_ns()
    async for _ in messages:
        pass
    return first, perf_counter_ns()


async def _called(request: Any, _context: Any) -> Any:
    return request[1]


if __name__ == "__main__":
    harness.main(Grpc())
