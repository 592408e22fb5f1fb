"""A node in an OS process of its own, steered by remote calls: ``python member.py JSON-OPTIONS``.

Prints ``ready PORT`` once it listens and ends when its standard input closes. What it exports as module ``member`` is
everything a test can ask of it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import resource
import sys
import time
from typing import Any

from barrel_p2p import (
    Atom,
    GenServer,
    Node,
    Pid,
    Stream,
    call,
    exit,
    process_flag,
    receive,
    register,
    self_pid,
    send,
    spawn,
    whereis,
)

node: Node


def pid_of(name: str) -> Pid | None:
    return whereis(name)


def block(seconds: float) -> str:
    """Block the event loop, as careless user code does."""
    time.sleep(seconds)
    return "unblocked"


def rss_mb() -> float:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def nodes() -> list[Atom]:
    return node.nodes()


async def connect(name: str) -> str:
    await node.connect(name)
    return "connected"


def os_pid() -> int:
    return os.getpid()


async def sleep_for(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "slept"


def fail(text: str) -> None:
    raise ValueError(text)


def echo_back(term: Any) -> Any:
    return term


async def _echo() -> None:
    while True:
        sender, message = await receive()
        send(sender, message)


def start_echo(name: str) -> Pid:
    pid = spawn(_echo)
    register(name, pid)
    return pid


async def _collect(expected: int, report_to: Pid, delay: float) -> None:
    """Take ``expected`` numbered messages; report how many came and the first that was out of order."""
    wrong = None
    for i in range(expected):
        got = await receive()
        if delay:
            await asyncio.sleep(delay)
        if wrong is None and got[0] != i:
            wrong = (i, got[0])
    send(report_to, ("collected", expected, wrong))


def start_collector(expected: int, report_to: Pid, delay: float, max_mailbox: int | None) -> Pid:
    return spawn(_collect, expected, report_to, delay, max_mailbox=max_mailbox)


async def _trapper(report_to: Pid) -> None:
    process_flag("trap_exit", True)
    while True:
        message = await receive()
        if message == "stop":
            return
        send(report_to, ("trapped", message))


def start_trapper(report_to: Pid, name: str | None = None) -> Pid:
    pid = spawn(_trapper, report_to)
    if name is not None:
        register(name, pid)
    return pid


class Adder(GenServer):
    async def init(self, start: int = 0) -> None:
        self.total = start

    async def handle_call(self, request: Any, from_: Any) -> Any:
        match request:
            case "slow":
                await asyncio.sleep(0.05)
                return "slow"
            case "crash":
                raise RuntimeError("crash on request")
            case ("add", n):
                self.total += n
                return self.total
        return ("echo", request)


async def start_adder(name: str) -> Pid:
    return await Adder.start(name=name)


async def register_global(name: Any) -> bool:
    return await node.global_.register_name(name, spawn(_echo))


def global_pid_of(name: Any) -> Pid | None:
    return node.global_.whereis_name(name)


async def _hold(lock: Any, on: Atom, told: asyncio.Future[bool]) -> None:
    told.set_result(await call((Atom("global_name_server"), on), (Atom("set_lock"), (lock, self_pid()))))
    await receive()


async def take_global_lock(on: Atom) -> bool:
    """Take the lock of all names on a node, and keep it."""
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    spawn(_hold, Atom("global"), on, told)
    return await told


async def echo_stream(stream: Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


def open_map(name: str, options: dict[str, Any]) -> int:
    return len(node.maps.open(name, **options))


def close_map(name: str) -> None:
    node.maps.close(name)


def map_items(name: str) -> list[tuple[Any, Any]]:
    return list(node.maps.open(name).items())


def map_put(name: str, key: Any, value: Any) -> None:
    node.maps.open(name)[key] = value


def map_discard(name: str, key: Any) -> None:
    node.maps.open(name).discard(key)


def map_refused(name: str) -> dict[str, int]:
    return node.maps.open(name).statistics().refused


def map_write(name: str, number: int, keys: int) -> None:
    """Step ``number`` of a story of writes that a test can tell as well."""
    key = number * 7919 % keys
    if number % 5 == 4:
        node.maps.open(name).discard(key)
    else:
        node.maps.open(name)[key] = number


async def _writer(name: str, first: int, keys: int, report_to: Pid) -> None:
    for number in itertools.count(first):
        map_write(name, number, keys)
        send(report_to, ("written", number))
        if not number % 8:
            await asyncio.sleep(0)


async def _counter(name: str, tag: str, first: int, report_to: Pid) -> None:
    for number in itertools.count(first):
        node.maps.open(name)[tag, number] = number
        send(report_to, ("counted", tag, number))
        if not number % 8:
            await asyncio.sleep(0)


def start_counter(name: str, tag: str, first: int, report_to: Pid) -> Pid:
    """Put ``(tag, first)``, ``(tag, first + 1)``, ... without end; each put that returned is reported."""
    return spawn(_counter, name, tag, first, report_to)


def map_holds(name: str, counts: dict[str, int]) -> bool:
    """Whether all numbers of each tag below its count are there."""
    keys = node.maps.open(name)
    return all((tag, number) in keys for tag, count in counts.items() for number in range(count))


def start_writer(name: str, first: int, keys: int, report_to: Pid) -> Pid:
    """Write without end; each write that returned is reported."""
    return spawn(_writer, name, first, keys, report_to)


def register_services(name: str, count: int) -> Pid:
    """Offer ``count`` services, ``name 0``, ``name 1``, ..., all by one process."""
    pid = spawn(_echo)
    for number in range(count):
        node.registry.register(f"{name} {number}", pid, {"number": number})
    return pid


def unregister_service(name: str) -> None:
    node.registry.unregister(name)


def services_of(name: str) -> list[tuple[Atom, Pid]]:
    return [(service.node, service.pid) for service in node.registry.lookup(name)]


def service_names() -> list[Any]:
    return node.registry.list()


def end(pid: Pid, reason: str) -> None:
    exit(pid, Atom(reason))


async def loop_worker(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def main() -> None:
    global node
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=options.pop("log_level", "WARNING"), stream=sys.stderr)
    async with Node(**options) as node:
        for function in (
            pid_of,
            block,
            rss_mb,
            nodes,
            connect,
            os_pid,
            sleep_for,
            fail,
            echo_back,
            start_echo,
            start_collector,
            start_trapper,
            start_adder,
            register_global,
            global_pid_of,
            take_global_lock,
            register_services,
            unregister_service,
            services_of,
            service_names,
            end,
            loop_worker,
            open_map,
            close_map,
            map_items,
            map_put,
            map_discard,
            map_refused,
            start_writer,
            start_counter,
            map_holds,
        ):
            node.export(function, module="member")
        if node.options.proto_dist == "barrel_p2p":
            node.streams.register_acceptor("echo", echo_stream)
        print("ready", node.listen_address[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
