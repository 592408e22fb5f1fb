"""Processes without a network: run a test inside a block, and join several runtimes by a fake one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from barrel_p2p import Atom, Pid, Reference, receive
from barrel_p2p.process.process import Process
from barrel_p2p.process.runtime import Runtime


def new_runtime(name: str = "a@127.0.0.1", **options: Any) -> Runtime:
    return Runtime(Atom(name), creation=7, **options)


def in_process(test: Callable[[], Awaitable[Any]], **options: Any) -> Any:
    """Run ``test`` as a process, then stop the runtime and check that it left nothing behind."""

    async def main() -> Any:
        runtime = new_runtime(**options)
        async with asyncio.timeout(10):
            with runtime.block():
                result = await test()
                await runtime.stop(timeout=2.0)
        check_empty(runtime)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(main())


def check_empty(runtime: Runtime) -> None:
    assert runtime.processes == {}
    assert runtime.names == {}
    assert runtime.aliases == {}
    assert runtime.watching == {}
    assert runtime.peers == {}
    assert runtime.timers == {}
    assert runtime.supervisors == {}


async def mailbox() -> list[Any]:
    """All messages that are in the mailbox, after the loop had some turns to bring them."""
    for _ in range(10):
        await asyncio.sleep(0)
    messages = []
    while True:
        try:
            messages.append(await receive(timeout=0))
        except TimeoutError:
            return messages


class Network:
    """Joins runtimes: signals wait in one queue per direction until ``deliver``; ``cut`` loses a connection."""

    def __init__(self, *names: str) -> None:
        self.runtimes = {Atom(name): new_runtime(name) for name in names}
        self.queues: dict[tuple[Atom, Atom], list[tuple[Any, ...]]] = {}
        self.log: list[tuple[Any, ...]] = []
        for runtime in self.runtimes.values():
            runtime.remote = FakeRemote(self, runtime.name)

    def push(self, source: Atom, target: Atom, signal: str, *args: Any, **options: Any) -> None:
        self.log.append((source, signal, *args))
        if target not in self.runtimes:
            self.runtimes[source].loop.call_soon(self.runtimes[source].connection_lost, target)
        else:
            self.queues.setdefault((source, target), []).append((signal, args, options))

    def deliver(self) -> None:
        """Deliver everything, also what the delivery itself causes."""
        while any(self.queues.values()):
            for (_, target), queue in list(self.queues.items()):
                while queue:
                    signal, args, options = queue.pop(0)
                    getattr(self.runtimes[target], signal)(*args, **options)

    def cut(self, one: str, other: str) -> None:
        for source, target in ((Atom(one), Atom(other)), (Atom(other), Atom(one))):
            self.queues.pop((source, target), None)
            self.runtimes[source].connection_lost(target)


class FakeRemote:
    def __init__(self, network: Network, name: Atom) -> None:
        self.network = network
        self.name = name

    def send(self, sender: Process | None, to: Any, message: Any) -> None:
        if isinstance(to, Pid):
            self.network.push(self.name, to.node, "deliver", to, message)
        elif isinstance(to, Reference):
            self.network.push(self.name, to.node, "deliver_alias", to, message)
        else:
            self.network.push(self.name, to[1], "deliver_name", to[0], message)

    def link(self, local: Pid, remote: Pid) -> None:
        self.network.push(self.name, remote.node, "link_in", local, remote)

    def unlink(self, local: Pid, remote: Pid) -> None:
        self.network.push(self.name, remote.node, "unlink_in", local, remote)

    def exit_link(self, local: Pid, remote: Pid, reason: Any) -> None:
        self.network.push(self.name, remote.node, "exit_in", local, remote, reason, linked=True)

    def exit(self, sender: Pid, remote: Pid, reason: Any) -> None:
        self.network.push(self.name, remote.node, "exit_in", sender, remote, reason, linked=False)

    def monitor(self, watcher: Pid, target: Any, ref: Reference) -> None:
        node, what = (target.node, target) if isinstance(target, Pid) else (target[1], target[0])
        self.network.push(self.name, node, "monitor_in", watcher, what, ref)

    def demonitor(self, watcher: Pid, target: Any, ref: Reference) -> None:
        node = target.node if isinstance(target, Pid) else target[1]
        self.network.push(self.name, node, "demonitor_in", watcher, ref)

    def down(self, target: Any, watcher: Pid, ref: Reference, reason: Any) -> None:
        self.network.push(self.name, watcher.node, "down_in", target, ref, reason, node=self.name)

    def spawn_request(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError
