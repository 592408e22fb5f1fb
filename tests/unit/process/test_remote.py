"""Two runtimes joined by a fake network: which signal goes out, and what an incoming one does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    CallTimeout,
    GenServer,
    NodeDown,
    Pid,
    alias,
    call,
    demonitor,
    exit,
    link,
    monitor,
    process_flag,
    receive,
    self_pid,
    send,
    spawn,
    stop,
    unlink,
)
from barrel_p2p.process.process import Process
from harness.processes import Network, check_empty, mailbox

A, B = Atom("a@127.0.0.1"), Atom("b@127.0.0.1")


async def idle() -> None:
    await receive(match=lambda _: False)


def between(test: Callable[[Network, Process], Awaitable[None]]) -> None:
    """Run ``test`` as a process of a; it gets the network and a process of b."""

    async def main() -> None:
        network = Network(A, B)
        a, b = network.runtimes[A], network.runtimes[B]
        async with asyncio.timeout(10):
            with a.block():
                await test(network, b.spawn(idle))
            network.deliver()
            for runtime in (a, b):
                await runtime.stop(timeout=0.05)
            network.deliver()
        for runtime in (a, b):
            check_empty(runtime)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_sends() -> None:
    async def test(network: Network, _: Process) -> None:
        b = network.runtimes[B]
        seen: list[Any] = []

        async def listener() -> None:
            while True:
                seen.append(await receive())

        there = b.spawn(listener, name="listener")
        ref = b.alias(there)
        send(there.pid, 1)
        send(("listener", B), 2)
        send(ref, 3)
        send(("nobody", B), 4)
        send(Pid(B, 999, 0, 7), 5)
        send(Pid(B, there.pid.id, 0, 6), "to an earlier life of b")
        network.deliver()
        await asyncio.sleep(0.01)
        assert seen == [1, 2, 3]

        mine = alias()
        b.route(there, mine, "back")
        network.deliver()
        assert await mailbox() == ["back"]

    between(test)


def test_a_link_fires_on_either_side_once() -> None:
    async def test(network: Network, there: Process) -> None:
        process_flag("trap_exit", True)
        b = network.runtimes[B]
        link(there.pid)
        link(there.pid)
        network.deliver()
        assert list(there.links or ()) == [self_pid()]
        b.terminate(there, Atom("gone"))
        await asyncio.sleep(0.01)
        network.deliver()
        network.cut(A, B)
        assert await mailbox() == [(Atom("EXIT"), there.pid, Atom("gone"))]

        other = b.spawn(idle)

        async def linked() -> None:
            link(other.pid)
            exit("mine")

        spawn(linked)
        await asyncio.sleep(0.01)
        network.deliver()
        assert other.exit_reason == "mine"

        link(there.pid)  # dead by now
        network.deliver()
        assert await mailbox() == [(Atom("EXIT"), there.pid, Atom("noproc"))]
        assert [signal for _, signal, *_ in network.log].count("link_in") == 3

    between(test)


def test_an_exit_of_a_removed_link_is_not_heard() -> None:
    async def test(network: Network, there: Process) -> None:
        process_flag("trap_exit", True)
        link(there.pid)
        network.deliver()
        network.runtimes[B].terminate(there, Atom("gone"))
        await asyncio.sleep(0.01)
        unlink(there.pid)  # while its EXIT is on the way
        network.deliver()
        assert await mailbox() == []

    between(test)


def test_exit_signals() -> None:
    async def test(network: Network, there: Process) -> None:
        exit(there.pid, "normal")
        network.deliver()
        assert there.exit_reason is None
        exit(there.pid, "kill")
        network.deliver()
        assert there.exit_reason == "killed"

    between(test)


def test_monitors() -> None:
    async def test(network: Network, there: Process) -> None:
        b = network.runtimes[B]
        b.register("there", there.pid)
        by_pid, by_name = monitor(there.pid), monitor(("there", B))
        gone = monitor(there.pid)
        missing = monitor(("missing", B))
        demonitor(gone)
        network.deliver()
        b.terminate(there, Atom("over"))
        await asyncio.sleep(0.01)
        network.deliver()
        network.cut(A, B)
        process = Atom("process")
        down = Atom("DOWN")
        assert await mailbox() == [
            (down, missing, process, (Atom("missing"), B), Atom("noproc")),
            (down, by_pid, process, there.pid, Atom("over")),
            (down, by_name, process, (Atom("there"), B), Atom("over")),
        ]

    between(test)


def test_a_lost_connection_fires_everything_once_and_leaves_nothing() -> None:
    async def test(network: Network, there: Process) -> None:
        process_flag("trap_exit", True)
        a, b = network.runtimes[A], network.runtimes[B]
        link(there.pid)
        ref = monitor(there.pid)
        here = a.spawn(idle)

        async def watching() -> None:
            link(here.pid)
            monitor(here.pid)
            process_flag("trap_exit", True)
            await idle()

        watcher = b.spawn(watching)
        await asyncio.sleep(0.01)
        network.deliver()
        assert len(watcher.links or ()) == 1 and len(here.monitored_by or ()) == 1
        network.cut(A, B)
        network.cut(A, B)
        assert await mailbox() == [
            (Atom("EXIT"), there.pid, Atom("noconnection")),
            (Atom("DOWN"), ref, Atom("process"), there.pid, Atom("noconnection")),
        ]
        assert there.exit_reason == "noconnection"
        assert here.exit_reason == "noconnection"
        assert [message[0] for message in watcher.mailbox] == ["EXIT", "DOWN"]
        assert a.peers == {} and b.peers == {}

    between(test)


def test_a_down_counts_only_from_the_node_it_is_about() -> None:
    async def test(network: Network, there: Process) -> None:
        ref = monitor(there.pid)
        network.runtimes[A].down_in(there.pid, ref, Atom("faked"), node=Atom("evil@127.0.0.1"))
        assert await mailbox() == []
        demonitor(ref)

    between(test)


class Echo(GenServer):
    async def handle_call(self, request: Any, from_: Any) -> Any:
        return request


def test_calls() -> None:
    async def test(network: Network, there: Process) -> None:
        b = network.runtimes[B]
        pid = await Echo.start(name="echo", node=b)

        async def pump() -> None:
            while True:
                network.deliver()
                await asyncio.sleep(0)

        pumping = asyncio.create_task(pump())
        assert await call(pid, "by pid") == "by pid"
        assert await call(("echo", B), "by name") == "by name"
        with pytest.raises(CallTimeout):
            await call(there.pid, 1, timeout=0.01)
        lost = asyncio.create_task(call(there.pid, 1))
        await asyncio.sleep(0.01)
        network.cut(A, B)
        with pytest.raises(NodeDown) as down:
            await lost
        assert down.value.reason == (Atom("nodedown"), B)
        await stop(pid)
        pumping.cancel()
        await asyncio.sleep(0)

    between(test)


def test_expected_deaths_of_remote_spawns() -> None:
    async def test(network: Network, there: Process) -> None:
        from barrel_p2p.process.current import current_process

        a = network.runtimes[A]
        ref = a.reference()
        a.expect_down(B, self_pid(), current_process(), ref)
        a.down_in(there.pid, ref, Atom("quick"), node=B)
        assert await mailbox() == [(Atom("DOWN"), ref, Atom("process"), there.pid, Atom("quick"))]
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        monitor_ = a.expect_down(B, self_pid(), future, a.reference())
        network.cut(A, B)
        assert await future == "noconnection"
        a.end_monitor(monitor_)

    between(test)
