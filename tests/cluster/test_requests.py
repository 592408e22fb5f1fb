"""``multi_call``, ``abcast`` and ``send_request`` among nodes: one answers, others are slow, nameless or dead."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from barrel_p2p import (
    Atom,
    CallTimeout,
    ChannelOverflow,
    NodeDown,
    NoProc,
    abcast,
    multi_call,
    receive,
    register,
    self_pid,
    send,
    send_request,
    spawn,
    wait_response,
)
from barrel_p2p.process import system
from barrel_p2p.process.current import current_process
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")
ADD = (Atom("add"), 1)
LIMIT = 20_000_000  # more than a kernel takes from a sender


def test_one_answers_one_is_slow_one_has_no_name_one_is_dead(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob, carol, dave = [await cluster.member(name) for name in ("bob", "carol", "dave")]
        for member in (bob, carol):
            await alice.rpc(member.name, "member", "start_adder", ["adder"])
        await system.suspend((Atom("adder"), carol.name))
        dead = Atom("ghost@127.0.0.1")
        nodes = [dead, bob.name, alice.name, carol.name, dave.name]
        bad = [dead, alice.name, carol.name, dave.name]
        assert await multi_call(nodes, "adder", ADD, 1.0) == ([(bob.name, 1)], bad)

        asking = asyncio.create_task(multi_call(nodes, "adder", ADD))
        await asyncio.sleep(0)
        slow = send_request(("adder", carol.name), ADD)
        with pytest.raises(CallTimeout):
            await wait_response(slow, 0)
        assert await send_request(("adder", bob.name), ADD) == 3
        with pytest.raises(NoProc):
            await send_request(("adder", dave.name), ADD)
        with pytest.raises(NodeDown):
            await send_request(("adder", dead), ADD)
        assert not asking.done()
        await system.resume((Atom("adder"), carol.name))
        assert await slow == 3, "behind the one whose answer was late"
        assert await asking == ([(bob.name, 2), (carol.name, 2)], [dead, alice.name, dave.name])

        await system.suspend((Atom("adder"), carol.name))
        asking = asyncio.create_task(multi_call([bob.name, carol.name], "adder", ADD))
        await asyncio.sleep(0)
        slow = send_request(("adder", carol.name), ADD)
        assert await send_request(("adder", bob.name), ADD) == 5
        carol.signal(signal.SIGKILL)
        assert await asking == ([(bob.name, 4)], [carol.name])
        with pytest.raises(NodeDown):
            await slow
        assert not alice.runtime.aliases and not alice.runtime.watching
        with pytest.raises(TimeoutError):
            await receive(timeout=0)

    run(story, tmp_path)


def test_abcast_reaches_every_server_that_is_there(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        members = [await cluster.member(name) for name in ("bob", "carol")]
        for member in members:
            await alice.rpc(member.name, "member", "start_trapper", [self_pid(), "trapper"])
        register("trapper", self_pid())
        abcast([Atom("ghost@127.0.0.1"), alice.name, *(member.name for member in members)], "trapper", "hello")
        assert await receive(timeout=5) == (Atom("$gen_cast"), "hello")
        for _ in members:
            assert await receive(timeout=5) == ("trapped", ("$gen_cast", "hello"))

    run(story, tmp_path)


def test_a_channel_that_overflows_costs_the_answer_of_its_node_alone(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", send_high_water=10_000, send_hard_limit=LIMIT)
        bob, carol = [await cluster.member(name) for name in ("bob", "carol")]
        for member in (bob, carol):
            await alice.rpc(member.name, "member", "start_adder", ["adder"])
            await alice.rpc(member.name, "member", "start_trapper", [self_pid(), "trapper"])

        async def fill(left: int) -> None:
            """Leave so many bytes of room, or a few more, in the channel to bob, who does not read."""
            await alice.connect(bob.name)
            bob.signal(signal.SIGSTOP)
            connection = alice._routes.channels[bob.name].connection
            while (room := LIMIT - connection.queued - left) > 100:
                send(("nobody", bob.name), bytes(min(room - 100, 50_000)))
                await asyncio.sleep(0)

        for left in (0, 500):  # the monitor does not fit, then the request
            await fill(left)
            with pytest.raises(ChannelOverflow):
                send_request(("adder", bob.name), bytes(1000))
            await asyncio.sleep(0)
            assert not alice.runtime.aliases and not alice.runtime.watching
            bob.signal(signal.SIGCONT)

        await fill(0)
        assert await multi_call([bob.name, carol.name], "adder", ADD, 5.0) == ([(carol.name, 1)], [bob.name])
        bob.signal(signal.SIGCONT)
        await fill(0)
        abcast([bob.name, carol.name], "trapper", "hello")
        assert await receive(timeout=5) == ("trapped", ("$gen_cast", "hello"))
        bob.signal(signal.SIGCONT)
        assert not alice.runtime.aliases and not alice.runtime.watching

    run(story, tmp_path)


def test_a_full_mailbox_does_not_hold_up_the_answers(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        await alice.rpc(bob.name, "member", "start_adder", ["adder"])
        echo = await alice.rpc(bob.name, "member", "start_echo", ["echo"])
        boss = self_pid()

        async def crowded() -> None:
            for number in range(20):
                send(echo, (self_pid(), number))
            while len(current_process().mailbox) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # nothing to await: a mailbox tells nobody that it is full
            send(boss, await multi_call([bob.name], "adder", ADD, 10.0))
            send(boss, [await receive() for _ in range(20)])

        spawn(crowded, max_mailbox=2)
        assert await receive(timeout=20) == ([(bob.name, 1)], [])
        assert await receive(timeout=5) == list(range(20))

    run(story, tmp_path)
