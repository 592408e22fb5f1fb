"""Messages from and to a peer with an Erlang node's habits, and what of a hostile one costs it its connection."""

from __future__ import annotations

import asyncio
import logging
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    Node,
    link,
    process_flag,
    receive,
    self_pid,
    send,
    spawn_link,
    spawn_monitor,
    unlink,
)
from foreign import ForeignNode, Link
from foreign.payload import CODEC, bare, framed

ALICE, ERL, BOB = Atom("alice@127.0.0.1"), Atom("erl@127.0.0.1"), Atom("bob@127.0.0.1")
COOKIE = "foreign cookie"
SEND, REG_SEND, SEND_SENDER, PAYLOAD_EXIT, PAYLOAD_MONITOR_P_EXIT, EXIT, MONITOR_P_EXIT = 2, 6, 22, 24, 28, 3, 21
SPAWN_REQUEST, SPAWN_REPLY, UNLINK_ID, UNLINK_ID_ACK, LINK = 29, 31, 35, 36, 1

Story = Callable[[Node, ForeignNode, Link], Awaitable[None]]


def run(story: Story, tmp_path: Path, *, healthy: bool = True, **options: Any) -> None:
    async def main() -> None:
        setup = {"cookie": COOKIE, "data_dir": tmp_path / "alice", "discovery_dir": None, **options}
        async with Node(ALICE, **setup) as alice, ForeignNode(ERL, cookie=COOKIE) as erl:
            await alice.connect(ERL, await erl.listen())
            channel = await erl.accepted()
            await story(alice, erl, channel)
            assert channel.broken == [] or not healthy

    asyncio.run(asyncio.wait_for(main(), 60))


# --- what an Erlang node needs ----------------------------------------------------------------------------------------


def test_large_messages_to_it_leave_in_fragments(tmp_path: Path) -> None:
    """Its reader copies an unfinished frame with every packet; a megabyte in one frame takes it a second."""

    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        theirs = erl.pid()
        for size in (1, 65_000, 65_536, 70_000, 131_072, 1_000_000):
            message = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
            send(theirs, message)
            assert (await channel.recv_message(timeout=20))[1] == message
        assert channel.largest_frame <= 65_536 + 32

    run(story, tmp_path)


def test_str_leaves_as_what_the_beam_takes_for_a_binary(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        theirs = erl.pid()
        send(theirs, ["text", "", b"", b"bytes", "\N{SNOWMAN}"])
        _, message = await channel.recv_message()
        assert message == ["text", b"", b"", b"bytes", "\N{SNOWMAN}"], "an exact empty str is badarg over there"
        channel.send((SEND_SENDER, theirs, self_pid()), [b"text", b""])
        assert await receive(timeout=5) == [b"text", b""]

    run(story, tmp_path)


def test_no_more_streams_are_opened_than_are_reserved(tmp_path: Path) -> None:
    """Its streams are told apart by their numbers: one unidirectional, stream 0, and sixteen for data."""

    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        for number in range(500):
            send(erl.pid(), number)
        for _ in range(500):
            await channel.recv_message()
        ours = {stream for stream in channel.wire.buffers if stream % 2 == 0}
        assert {s for s in ours if s % 4 == 2} == {2}
        assert max(s for s in ours if s % 4 == 0) <= 64
        assert len(ours) <= 1 + 17

    run(story, tmp_path)


# --- signals that overtake each other on its sixteen streams ----------------------------------------------------------


def test_a_death_may_come_before_the_reply_to_its_spawn(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        process_flag("trap_exit", True)
        born = erl.pid()
        starting = asyncio.ensure_future(spawn_monitor("m:f", 1, node=ERL))
        control, args = await channel.recv_until(SPAWN_REQUEST)
        _, reference, owner, _leader, mfa, options = control
        assert (mfa, args, options) == (("m", "f", 1), [1], ["monitor"])
        channel.send((PAYLOAD_MONITOR_P_EXIT, born, owner, reference), Atom("quick"))
        await asyncio.sleep(0.05)
        channel.send((SPAWN_REPLY, reference, owner, 2, born))
        assert await starting == (born, reference)
        assert await receive(timeout=5) == ("DOWN", reference, "process", born, "quick")

        starting = asyncio.ensure_future(spawn_link("m:f", 1, node=ERL))
        control, _ = await channel.recv_until(SPAWN_REQUEST)
        _, reference, owner, *_ = control
        channel.send((PAYLOAD_EXIT, born, owner), Atom("quick"))
        await asyncio.sleep(0.05)
        channel.send((SPAWN_REPLY, reference, owner, 1, born))
        assert await starting == born
        assert await receive(timeout=5) == ("EXIT", born, "quick")

    run(story, tmp_path)


def test_an_exit_that_crossed_our_unlink_is_ignored(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        process_flag("trap_exit", True)
        theirs = erl.pid()
        link(theirs)
        await channel.recv_until(LINK)
        unlink(theirs)
        (_, number, ours, _), _ = await channel.recv_until(UNLINK_ID)
        link(theirs)
        await channel.recv_until(LINK)
        channel.send((EXIT, theirs, ours, Atom("old")))
        channel.send((UNLINK_ID_ACK, number, theirs, ours))
        with pytest.raises(TimeoutError):
            await receive(timeout=0.2)
        channel.send((EXIT, theirs, ours, Atom("new")))
        assert await receive(timeout=5) == ("EXIT", theirs, "new")

    run(story, tmp_path)


# --- what a newer or a published node sends ---------------------------------------------------------------------------


def test_an_unknown_operation_is_skipped_and_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        for number in range(3):
            for control in ((99, erl.pid(), self_pid()), (99,), (77, number)):
                channel.send_raw(framed(b"\x83\x44\x00" + bare(control) + bare("payload")))
        channel.send((SEND, Atom(""), self_pid()), b"after")
        assert await receive(timeout=5) == b"after"
        told = [r.getMessage() for r in caplog.records if "unknown control message" in r.getMessage()]
        assert len(told) == 2

    run(story, tmp_path)


def test_messages_to_names_that_nobody_has_vanish(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        theirs = erl.pid()
        for name, message in (
            ("rex", (Atom("features_request"), theirs)),
            ("global_name_server", (Atom("$gen_cast"), (Atom("init_connect"), (8, ERL), {(1, 2): theirs}))),
            ("true", b""),
            ("undefined", b""),
        ):
            channel.send((REG_SEND, theirs, Atom(""), Atom(name)), message)
        channel.tick()
        channel.send_raw(b"\0\0\0\0")
        channel.send((SEND, Atom(""), self_pid()), b"after")
        assert await receive(timeout=5) == b"after"
        assert not [r for r in caplog.records if r.levelno >= logging.WARNING]

    run(story, tmp_path)


@pytest.mark.parametrize("published", [False, True])
def test_global_leaves_an_erlang_node_alone_over_quic(tmp_path: Path, published: bool) -> None:
    """Its own would connect all nodes to all, and part them when an overlay closes a connection."""

    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        theirs, name = erl.pid(), Atom("global_name_server")
        init = (Atom("init_connect"), (8, 1), ERL, (Atom("locker"), Atom("no_longer_a_pid"), {}, theirs))
        channel.send((REG_SEND, theirs, Atom(""), name), (Atom("$gen_cast"), init))
        lock = (Atom("set_lock"), (Atom("global"), theirs))
        channel.send((REG_SEND, theirs, Atom(""), name), (Atom("$gen_call"), (theirs, Atom("tag")), lock))
        channel.send((REG_SEND, theirs, Atom(""), name), (Atom("remove_connection"), ERL))
        channel.send((SEND, Atom(""), self_pid()), b"after")
        assert await receive(timeout=5) == b"after"
        assert await alice.global_.register_name("mine", self_pid(), timeout=1)  # nobody else has a say
        assert alice.global_.nodes() == [] and alice.nodes() == [ERL]
        send((Atom("shell"), ERL), Atom("done"))
        while (received := await channel.recv_message())[1] != "done":
            assert "global_name_server" not in repr(received)
            assert "tag" not in repr(received)

    run(story, tmp_path, published=published)


# --- hostile messages -------------------------------------------------------------------------------------------------


def message(term: bytes) -> bytes:
    """A message to a pid whose term is ``term``."""
    return framed(b"\x83\x44\x00" + bare((SEND, Atom(""), _SOMEBODY)) + term)


def control(term: Any, *more: Any) -> bytes:
    return framed(b"\x83\x44\x00" + bare(term) + b"".join(bare(t) for t in more))


def bomb() -> bytes:
    raw = b"m" + struct.pack(">I", 1 << 30) + b"\0" * (1 << 24)
    return b"P" + struct.pack(">I", 5 + (1 << 30)) + zlib.compress(raw)


_SOMEBODY = CODEC.decode(CODEC.encode(ForeignNode(str(ALICE), cookie="").pid()))
_THEIRS = ForeignNode(str(ERL), cookie="").pid()
_STRANGER = ForeignNode("carol@127.0.0.1", cookie="").pid()

HOSTILE = {
    "a frame of 4 GiB": b"\xff\xff\xff\xff" + b"\x83\x44\x00",
    "a frame above the limit": struct.pack(">I", 200 << 20) + b"\x83\x44\x00",
    "a frame of one byte": framed(b"\x83"),
    "an unknown header": framed(b"\x42\x42\x42\x42"),
    "a header of the other form": framed(b"\x70" + CODEC.encode((SEND, Atom(""), _THEIRS)) + CODEC.encode(1)),
    "an atom cache": framed(b"\x83\x44\x01\x00\x00"),
    "a fragment of nothing": framed(b"\x83\x46" + struct.pack(">QQ", 7, 1) + b"x"),
    "fragments out of order": framed(b"\x83\x45" + struct.pack(">QQ", 7, 3) + b"\0" + bare((1,)))
    + framed(b"\x83\x46" + struct.pack(">QQ", 7, 1) + b"x"),
    "no term": message(b"\xff\xff"),
    "half a term": message(b"m\x00\x00\x10\x00abc"),
    "bytes behind the message": message(bare(1) + bare(2)),
    "a nest without end": message(b"l\0\0\0\1" * 100_000),
    "a claim of 4 billion elements": message(b"l\xff\xff\xff\xff"),
    "a compressed bomb": message(bomb()),
    "a control message that is no tuple": control(1),
    "a control message with fields missing": control((LINK, _THEIRS)),
    "a link in the name of another node": control((LINK, _STRANGER, _SOMEBODY)),
    "an exit in the name of another node": control((PAYLOAD_EXIT, _STRANGER, _SOMEBODY), Atom("kill")),
    "a spawn in the name of another node": control(
        (SPAWN_REQUEST, ForeignNode("carol@127.0.0.1", cookie="").ref(), _STRANGER, _STRANGER, ("m", "f", 0), []), []
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_message_costs_one_connection_and_one_line(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        async with ForeignNode(BOB, cookie=COOKIE) as bob:
            await alice.connect(BOB, await bob.listen())
            friend = await bob.accepted()
            alice.monitor_nodes()
            channel.send_raw(HOSTILE[what])
            assert await receive(timeout=10) == ("nodedown", ERL)
            await channel.closed()
            assert alice.nodes() == [BOB]
            send(bob.pid(), "hello")
            assert (await friend.recv_message())[1] == "hello"
            lines = [r for r in caplog.records if r.levelno >= logging.WARNING]
            assert len(lines) == 1, [r.getMessage() for r in lines]
            assert ERL in lines[0].getMessage()

    run(story, tmp_path, healthy=False)


def test_half_a_frame_and_then_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        alice.monitor_nodes()
        channel.send_raw(HOSTILE["half a term"][:10])
        await asyncio.sleep(0.05)
        channel.close()
        assert await receive(timeout=5) == ("nodedown", ERL)
        assert alice.nodes() == []

    run(story, tmp_path, healthy=False)
