"""What a type checker must see of the public API; checked by ``mypy --strict``, never run."""

from __future__ import annotations

from typing import Any, assert_type

from barrel_p2p import (
    Atom,
    GenServer,
    MapStatistics,
    Node,
    PathStats,
    Pid,
    Reference,
    ReplicatedMap,
    Request,
    Stream,
    call,
    monitor,
    multi_call,
    receive,
    self_pid,
    send,
    send_request,
    spawn,
    spawn_link,
    spawn_monitor,
)


class Counter(GenServer):
    async def init(self, start: int = 0) -> None:
        self.n = start

    async def handle_call(self, request: Any, from_: Any) -> int:
        self.n += 1
        return self.n


async def worker(n: int) -> None:
    await receive(timeout=float(n))


async def main() -> None:
    async with Node("alice@127.0.0.1", listen_port=9100, data_dir="data/alice", cookie="secret") as node:
        assert_type(node.name, Atom)
        assert_type(node.nodes(), list[Atom])
        assert_type(await node.ping("bob@127.0.0.1"), bool)
        assert_type(self_pid(), Pid)
        stream = await node.streams.open("backup", "bob@127.0.0.1")
        assert_type(stream, Stream)
        assert_type(await stream.read(100), bytes)
        assert_type(await stream.send_file("file"), int)
        async for chunk in stream:
            assert_type(chunk, bytes)
        await node.migrate_peer("bob@127.0.0.1", timeout=1.0)
        assert_type(node.path_stats("bob@127.0.0.1"), PathStats)
        prices = node.maps.open("prices", persist=True, validator=lambda value: isinstance(value, int))
        assert_type(prices, ReplicatedMap)
        assert_type(prices["apple"], Any)
        assert_type(len(prices), int)
        assert_type(prices.statistics(), MapStatistics)
        assert_type(spawn(worker, 1), Pid)
        assert_type(await spawn("module:function", 1, node="bob@127.0.0.1"), Pid)
        assert_type(spawn_link(worker, 1), Pid)
        assert_type(await spawn_link(worker, 1, node="bob@127.0.0.1"), Pid)
        assert_type(spawn_monitor(worker, 1), tuple[Pid, Reference])
        assert_type(await spawn_monitor("module:function", node="bob@127.0.0.1"), tuple[Pid, Reference])
        pid = await Counter.start_link(10, name="counter")
        assert_type(pid, Pid)
        assert_type(monitor(pid), Reference)
        send(pid, ("work", b"payload"))
        pid.send("work")
        assert_type(await call(pid, "inc", timeout=5.0), Any)
        assert_type(send_request(pid, "inc"), Request)
        assert_type(await send_request(pid, "inc"), Any)
        assert_type(await multi_call(node.nodes(), "counter", "inc", 1.0), tuple[list[tuple[Atom, Any]], list[Atom]])
