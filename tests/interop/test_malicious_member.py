"""A member that is let in and then says what nobody should, over a real connection: thousands of terms.

What it says is made as in the simulator (``barrel_p2p.testing.malice``), from what the node sends it. The peer is a
QUIC stack that is not ours; the node is a real one, with a second one beside it that must not notice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from barrel_p2p import Atom, Node, Pid, receive, spawn
from barrel_p2p.errors import EncodeError
from barrel_p2p.proto import hyparview_wire
from barrel_p2p.proto.handshake import Connected
from barrel_p2p.proto.hyparview_events import Join
from barrel_p2p.term.codec import encode
from barrel_p2p.term.types import ImproperList
from barrel_p2p.testing.malice import Bender
from foreign import ForeignError, ForeignNode
from harness import erlang
from harness.erlang import Epmd
from harness.tcp_peer import Peer, config, node

COOKIE = "malicious cookie"
EVE = Atom("eve@127.0.0.1")
TERMS = 6000
SERVERS = ("global_name_server", "net_kernel", "rex", "user", "barrel_p2p_router", "nobody", "barrel_p2p_keys")


class Eve:
    """What she has heard, and what she makes of it."""

    def __init__(self, seed: int, members: list[Atom]) -> None:
        self.rng = Random(seed)
        self.bender = Bender(self.rng, EVE, members=lambda: members, wall_ms=lambda: time.time_ns() // 1_000_000)
        self.heard: dict[Atom, deque[Any]] = {}

    def hear(self, control: tuple[Any, ...], message: Any) -> None:
        if control[0] == 6:  # REG_SEND
            self.heard.setdefault(control[3], deque(maxlen=50)).append(message)

    def term(self, me: Pid) -> tuple[Atom, Any]:
        """A name, and what is sent to it."""
        rng, choice = self.rng, self.rng.random()
        if choice < 0.4 and self.heard:
            name = rng.choice(list(self.heard))
            return name, self.bender.bent(rng.choice(list(self.heard[name])))
        if choice < 0.8:
            name, term = self.bender.invented()
            return Atom(name.replace("$shared", "$prices")), term
        name, body = Atom(rng.choice(SERVERS)), self.request(me)
        tag = rng.choice((7, ImproperList((Atom("alias"),), 1), self.bender.invention(2)))
        calls = (Atom("$gen_call"), (me, tag), body), (Atom("$gen_call"), self.bender.invention(2), body)
        return name, rng.choice((*calls, (Atom("$gen_cast"), body), body, self.bender.invention(3)))

    def request(self, me: Pid) -> Any:
        """For a server. ``lost_connection`` is not among them: by OTP's rules a member may ask others to part."""
        bender, rng = self.bender, self.rng
        name, pid = bender.key(), rng.choice((me, bender.invention(1)))
        parts = [bender.invention(3) for _ in range(4)]
        return rng.choice(
            (
                (Atom("register"), name, pid, parts[0]),
                (Atom("unregister"), name),
                (Atom("set_lock"), (name, pid)),
                (Atom("sync"), [EVE, parts[0]]),
                (Atom("init_connect"), (8, parts[0]), EVE, (Atom("locker"), 1, 2, me)),
                (Atom("exchange"), EVE, parts, parts[0], parts[1]),
                (Atom("resolved"), EVE, parts, parts, parts, parts, parts[0]),
                (Atom("is_auth"), parts[0]),
                (Atom("call"), Atom("os"), Atom("system"), ["true"], Atom("user")),
                (Atom("io_request"), me, parts[0], (Atom("put_chars"), Atom("unicode"), parts[1])),
                tuple(parts),
            )
        )


async def drain(eve: ForeignNode, ears: Eve) -> None:
    while not eve.links[-1]._messages.empty():
        ears.hear(*await eve.recv_message())


def test_a_node_lives_through_thousands_of_terms_of_a_malicious_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with asyncio.timeout(100):
            options: dict[str, Any] = {"cookie": COOKIE, "discovery_dir": None, "on_output": lambda text: None}
            alice = Node("alice@127.0.0.1", data_dir=tmp_path / "alice", **options)
            bob = Node("bob@127.0.0.1", data_dir=tmp_path / "bob", **options)
            async with alice, bob, ForeignNode(EVE, cookie=COOKIE) as eve:
                await bob.connect(alice.name, alice.listen_address)
                await bob.join(alice.name)
                await attack(alice, bob, eve)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text[-4000:]


def test_a_node_over_tcp_does_so_with_a_node_of_its_own_kind(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There she takes part in ``global``, too, with a mesh and with names of her own."""

    async def main() -> None:
        async with asyncio.timeout(100), AsyncExitStack() as stack:
            alice, bob = [
                await stack.enter_async_context(
                    node(epmd, tmp_path, f"{name}@127.0.0.1", published=True, on_output=lambda text: None)
                )
                for name in ("alice", "bob")
            ]
            await bob.join(alice.name)
            prices, copy = alice.maps.open("prices"), bob.maps.open("prices")
            ears, me = Eve(1, [alice.name, bob.name, EVE]), Pid(EVE, 7, 0, 5)
            peer = await Peer.connect(alice)
            assert isinstance(await peer.shake(alice, config(erlang.COOKIE, EVE)), Connected)
            stack.callback(peer.close)
            reader = asyncio.create_task(read_all(peer))
            stack.callback(reader.cancel)
            peer.message((6, me, Atom(""), hyparview_wire.PROCESS), hyparview_wire.HyParViewWire(EVE).encode(Join()))
            await until(lambda: EVE in alice.active_view())
            for sent in range(TERMS):
                name, term = ears.term(me)
                with suppress(EncodeError, RecursionError):
                    peer.message((6, me, Atom(""), name), term)
                if sent % 50 == 0:
                    await peer.writer.drain()
                    assert await alice.ping(bob.name)
                    assert EVE in alice.nodes(), "her channel is closed for what is well-formed"
            peer.close()
            await others_are_served(alice, bob, prices, copy)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.text[-4000:]


async def read_all(peer: Peer) -> None:
    while await peer.read():
        pass


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def attack(alice: Node, bob: Node, eve: ForeignNode) -> None:
    prices, copy = alice.maps.open("prices"), bob.maps.open("prices")
    alice.maps.open("tight", max_entries=100)
    ears = Eve(1, [alice.name, bob.name, EVE])
    wire = hyparview_wire.HyParViewWire(EVE)
    sent = refused = visits = 0
    while sent < TERMS:
        if EVE not in alice.nodes():
            visits += 1
            assert visits <= 5, "her channel is closed for what is well-formed"
            await dial(eve, alice)
            eve.send((6, eve.pid(), Atom(""), hyparview_wire.PROCESS), wire.encode(Join()))
        name, term = ears.term(eve.pid())
        try:
            encode(term)
        except (EncodeError, RecursionError):
            refused += 1
            continue
        eve.send((6, eve.pid(), Atom(""), name), term)
        sent += 1
        if sent % 50 == 0:
            await drain(eve, ears)
            assert await alice.ping(bob.name)
    assert len(ears.heard) >= 4, "she has heard little of the protocols"
    assert alice.overlay.statistics().dropped and alice.overlay.statistics().refused
    await others_are_served(alice, bob, prices, copy)


async def dial(eve: ForeignNode, alice: Node) -> None:
    while EVE not in alice.nodes():  # who broke the protocol has to stay away for a while
        try:
            await eve.dial(alice.name, alice.listen_address)
        except (ForeignError, ConnectionError):
            await asyncio.sleep(0.2)


async def others_are_served(alice: Node, bob: Node, prices: Any, copy: Any) -> None:
    copy["apple"] = 3
    prices["pear"] = 5
    async with asyncio.timeout(30):
        while prices.get("apple") != 3 or copy.get("pear") != 5:  # noqa: ASYNC110 - nothing tells of both
            await asyncio.sleep(0.01)
    pid = spawn(idle, node=bob)
    bob.registry.register("desk", pid)
    found = await alice.registry.whereis("desk")
    assert found is not None and found.pid == pid
    assert bob.name in alice.active_view()
    assert await bob.global_.register_name("one", pid), "global is stuck"


async def idle() -> None:
    await receive()
