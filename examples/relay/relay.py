"""A UDP relay: passes datagrams on to one address, and the answers back to where they came from."""

from __future__ import annotations

import asyncio
from typing import Any

Address = tuple[str, int]


class Relay(asyncio.DatagramProtocol):
    """Listens on a port of its own; each sender gets a port of its own towards the target.

    It sees encrypted packets only, and can neither read nor change them.
    """

    def __init__(self, target: Address) -> None:
        self.target = target
        self.passed = 0
        self.deaf = False  # drop everything, as a path does that leads nowhere any more
        self._ways: dict[Address, asyncio.DatagramTransport] = {}
        self._opening: dict[Address, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> Address:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        return host, port

    def close(self) -> None:
        for transport in (self._transport, *self._ways.values()):
            transport.close()
        for task in self._tasks:
            task.cancel()

    # --- datagrams ----------------------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, sender: Address) -> None:
        if self.deaf:
            return
        self.passed += 1
        way = self._ways.get(sender)
        if way is not None:
            way.sendto(data)
        elif sender in self._opening:
            self._opening[sender].append(data)
        else:
            self._opening[sender] = [data]
            task = asyncio.get_running_loop().create_task(self._add_way(sender))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _add_way(self, sender: Address) -> None:
        loop = asyncio.get_running_loop()
        way, _ = await loop.create_datagram_endpoint(lambda: _Back(self, sender), remote_addr=self.target)
        self._ways[sender] = way
        for data in self._opening.pop(sender):
            way.sendto(data)

    def answer(self, data: bytes, to: Address) -> None:
        if not self.deaf:
            self.passed += 1
            self._transport.sendto(data, to)


class _Back(asyncio.DatagramProtocol):
    """The answers for one sender."""

    def __init__(self, relay: Relay, sender: Address) -> None:
        self._relay = relay
        self._sender = sender

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._relay.answer(data, self._sender)
