"""Our node and a foreign one with upstream's habits (tests/foreign), dialling in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, Node, NodeDown, NoProc, call, link, monitor, process_flag, receive, self_pid, send, spawn
from foreign import ERLANG_FLAGS, FRAGMENTS, NO_MESSAGE, ForeignNode, Link

ALICE, ERL = Atom("alice@127.0.0.1"), Atom("erl@127.0.0.1")
COOKIE = "foreign cookie"
LINK, SEND, EXIT, REG_SEND, MONITOR_P, MONITOR_P_EXIT, SEND_SENDER = 1, 2, 3, 6, 19, 21, 22
PAYLOAD_EXIT, PAYLOAD_MONITOR_P_EXIT, ALIAS_SEND = 24, 28, 33

Story = Callable[[Node, ForeignNode, Link], Awaitable[None]]
DIRECTIONS = pytest.mark.parametrize("dialer", ["alice", "erl"])


def run(story: Story, tmp_path: Path, dialer: str, **behaviour: Any) -> None:
    async def main() -> None:
        options = {"cookie": COOKIE, "data_dir": tmp_path / "alice", "discovery_dir": None}
        async with Node(ALICE, **options) as alice, ForeignNode(ERL, cookie=COOKIE, **behaviour) as erl:
            channel = await connect(alice, erl, dialer)
            await story(alice, erl, channel)
            assert channel.broken == []

    asyncio.run(asyncio.wait_for(main(), 60))


async def connect(alice: Node, erl: ForeignNode, dialer: str) -> Link:
    if dialer == "erl":
        alice.monitor_nodes()
        channel = await erl.dial(ALICE, alice.listen_address)
        assert await receive(timeout=5) == ("nodeup", ERL)
        alice.monitor_nodes(False)
        return channel
    await alice.connect(ERL, await erl.listen())
    return await erl.accepted()


@DIRECTIONS
@pytest.mark.parametrize("flags", [ERLANG_FLAGS, ERLANG_FLAGS & ~FRAGMENTS])
def test_messages_both_ways_small_and_large(tmp_path: Path, dialer: str, flags: int) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        theirs = erl.pid()
        for message in ("text", {Atom("a"): [1, 2.5]}, b"z" * (4 << 20)):
            send(theirs, message)
            control, got = await channel.recv_message(timeout=20)
            assert control[0] in (SEND, SEND_SENDER) and control[2] == theirs
            assert got == message
            channel.send((SEND_SENDER, theirs, self_pid()), message)
            assert await receive(timeout=20) == message

    run(story, tmp_path, dialer, flags=flags)


@DIRECTIONS
def test_order_holds_within_a_pair_over_sixteen_streams(tmp_path: Path, dialer: str) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        senders = [erl.pid() for _ in range(20)]
        used = {channel.send((SEND_SENDER, s, self_pid()), (s, n)) for n in range(50) for s in senders}
        assert len(used) >= 4, "the senders share no stream"
        seen: dict[Any, list[int]] = {}
        for _ in range(50 * len(senders)):
            sender, number = await receive(timeout=10)
            seen.setdefault(sender, []).append(number)
        assert all(numbers == list(range(50)) for numbers in seen.values())

    run(story, tmp_path, dialer)


@DIRECTIONS
def test_a_reader_that_takes_one_read_for_one_message(tmp_path: Path, dialer: str) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        assert channel.peer == ALICE

    run(story, tmp_path, dialer, read_delay=0.003)


@DIRECTIONS
def test_links_and_monitors_fire_once_with_noconnection_when_it_dies(tmp_path: Path, dialer: str) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        process_flag("trap_exit", True)
        theirs = erl.pid()
        link(theirs)
        assert await channel.recv_message() == ((LINK, self_pid(), theirs), NO_MESSAGE)
        reference = monitor(theirs)
        assert (await channel.recv_message())[0][:3] == (MONITOR_P, self_pid(), theirs)
        channel.close()
        got = [await receive(timeout=5) for _ in range(2)]
        assert (Atom("EXIT"), theirs, Atom("noconnection")) in got
        assert (Atom("DOWN"), reference, Atom("process"), theirs, Atom("noconnection")) in got
        with pytest.raises(TimeoutError):
            await receive(timeout=0.1)

    run(story, tmp_path, dialer)


@DIRECTIONS
def test_it_monitors_links_and_calls_by_name(tmp_path: Path, dialer: str) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        async def short() -> str:
            return str(await receive())

        ours, theirs, reference = spawn(short, name="short"), erl.pid(), erl.ref()
        channel.send((MONITOR_P, theirs, Atom("short"), reference))
        channel.send((LINK, theirs, ours))
        channel.send((REG_SEND, theirs, Atom(""), Atom("short")), "end")
        controls = [(await channel.recv_message())[0] for _ in range(2)]
        assert {control[0] for control in controls} <= {EXIT, MONITOR_P_EXIT, PAYLOAD_EXIT, PAYLOAD_MONITOR_P_EXIT}
        assert len({control[0] for control in controls}) == 2
        caller = asyncio.create_task(call(("server", ERL), "question", timeout=5, node=alice))
        (_, _, _, name), (tag, (pid, call_reference), question) = await channel.recv_until(REG_SEND)
        assert (name, tag, question) == ("server", "$gen_call", "question")
        assert pid.node == ALICE
        channel.send((ALIAS_SEND, theirs, call_reference.tail), (call_reference, "answer"))
        assert await caller == "answer"

    run(story, tmp_path, dialer)


@DIRECTIONS
def test_a_new_connection_replaces_one_that_it_left_in_silence(tmp_path: Path, dialer: str) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        alice.monitor_nodes()
        channel.disconnect()
        again = await erl.dial(ALICE, alice.listen_address)
        assert await receive(timeout=5) == ("nodedown", ERL)
        assert await receive(timeout=5) == ("nodeup", ERL)
        send(erl.pid(), "still there")
        assert (await again.recv_message())[1] == "still there"

    run(story, tmp_path, dialer)


def test_a_call_to_a_node_that_vanishes_ends(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        caller = asyncio.create_task(call(("server", ERL), "question", timeout=20, node=alice))
        await channel.recv_until(REG_SEND)
        await erl.kill()  # the kernel answers for the closed port
        with pytest.raises((NodeDown, NoProc)):
            await asyncio.wait_for(caller, 5)

    run(story, tmp_path, "alice")
