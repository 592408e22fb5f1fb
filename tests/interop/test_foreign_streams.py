"""User streams with a peer that has an Erlang node's habits: the bytes on the wire, and what a hostile one can do."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    MigrationError,
    Node,
    NotDialer,
    Stream,
    StreamRefused,
    StreamReset,
    StreamStopped,
    receive,
    self_pid,
    send,
)
from foreign import ForeignNode, Link

ALICE, ERL = Atom("alice@127.0.0.1"), Atom("erl@127.0.0.1")
COOKIE = "foreign cookie"
REFUSED = 0x100
SEND_SENDER = 22
Story = Callable[[Node, ForeignNode, Link], Awaitable[None]]


def run(story: Story, tmp_path: Path, *, dials: bool = False) -> None:
    """``dials``: the foreign node dials us instead of the other way round."""

    async def main() -> None:
        setup: dict[str, Any] = {"cookie": COOKIE, "data_dir": tmp_path / "alice", "discovery_dir": None}
        async with Node(ALICE, **setup) as alice, ForeignNode(ERL, cookie=COOKIE) as erl:
            if dials:
                channel = await erl.dial(ALICE, alice.listen_address)
                await until(lambda: alice.nodes() == [ERL])
            else:
                await alice.connect(ERL, await erl.listen())
                channel = await erl.accepted()
            channel.takes_streams = True
            await story(alice, erl, channel)
            assert channel.broken == []

    asyncio.run(asyncio.wait_for(main(), 90))


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


async def messages_flow(alice: Node, erl: ForeignNode, channel: Link) -> None:
    theirs = erl.pid()
    send(theirs, b"there")
    assert (await channel.recv_until(SEND_SENDER))[1] == b"there"
    channel.send((SEND_SENDER, theirs, self_pid()), b"back")
    assert await receive(timeout=5) == b"back"


def refused(alice: Node) -> dict[str, int]:
    counts = alice.streams.statistics()[ERL]
    return {"refused": counts.refused, "crowded": counts.crowded, "unfinished": counts.unfinished}


@pytest.mark.parametrize(("dials", "first"), [(True, 68), (False, 65)])
def test_its_preamble_may_come_byte_by_byte(tmp_path: Path, dials: bool, first: int) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        alice.streams.register_acceptor("echo", echo)
        stream = channel.next_stream()
        assert stream == first
        for byte in b"\x04echoabc":
            channel.wire.write(stream, bytes([byte]))
            await asyncio.sleep(0.002)
        assert await channel.wire.read_exactly(stream, 3, 5.0) == b"abc"
        channel.wire.write(stream, b"", fin=True)
        await until(lambda: stream in channel.wire.finished)
        whole = channel.next_stream()
        channel.wire.write(whole, b"\x04echo" + bytes(100_000), fin=True)
        assert await channel.wire.read_exactly(whole, 100_000, 5.0) == bytes(100_000)
        await until(lambda: whole in channel.wire.finished)

    run(story, tmp_path, dials=dials)


def test_tags_that_nobody_takes_and_empty_ones_are_reset_with_its_code(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        alice.streams.register_acceptor("echo", echo)
        for preamble in (b"\x06nobody", b"\x00", b"\x04Echo", b"\xff" + b"x" * 255 + b"more"):
            stream = channel.next_stream()
            channel.wire.write(stream, preamble)
            await until(lambda stream=stream: stream in channel.wire.reset)
            assert channel.wire.reset[stream] == REFUSED
        assert refused(alice) == {"refused": 4, "crowded": 0, "unfinished": 0}
        await messages_flow(alice, erl, channel)

    run(story, tmp_path)


@pytest.mark.parametrize(("dials", "first"), [(True, 65), (False, 68)])
def test_it_sees_our_preamble_and_our_bytes(tmp_path: Path, dials: bool, first: int) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        stream = await alice.streams.open("tag of ours", ERL)
        assert stream.id == first
        await stream.write(b"payload")
        await stream.close()
        assert await channel.wire.read_exactly(first, 19, 5.0) == b"\x0btag of ourspayload"
        await until(lambda: first in channel.wire.finished)
        channel.wire.write(first, b"answer", fin=True)
        assert await stream.read() == b"answer"

        stream = await alice.streams.open("tag of ours", ERL)
        await channel.wire.read_exactly(stream.id, 12, 5.0)
        channel.wire._quic.reset_stream(stream.id, REFUSED)
        channel.wire.transmit()
        with pytest.raises(StreamRefused):
            await stream.read()

    run(story, tmp_path, dials=dials)


def test_a_young_stream_of_ours_is_not_cut_off_before_it_carried_a_byte(tmp_path: Path) -> None:
    """A RESET_STREAM or STOP_SENDING before the first STREAM frame makes a broken record over there."""

    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        for cut in (lambda s: s.reset(5), lambda s: s.stop(6), lambda s: s.leave()):
            stream = await alice.streams.open("tag", ERL)
            cut(stream)
            assert await channel.wire.read_exactly(stream.id, 4, 5.0) == b"\x03tag"
            if stream.id == 68:
                await until(lambda: channel.wire.reset.get(68) == 5)
        await messages_flow(alice, erl, channel)
        await asyncio.sleep(0.1)  # all its frames would be here by now; ``broken`` says if one was amiss

    run(story, tmp_path)


def test_ten_thousand_streams_without_a_tag_cost_bounded_memory_and_are_counted(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        alice.streams.register_acceptor("echo", echo)
        await messages_flow(alice, erl, channel)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Some hold on: more than may be parked, and as many as may be open at all.
        for _ in range(150):
            channel.wire.write(channel.next_stream(), b"\xffab")
        await until(lambda: refused(alice)["crowded"] == 150 - 64)
        # And the rest ends in the middle of its tag.
        for begin in range(0, 10_000, 50):
            for _ in range(50):
                channel.wire._quic.send_stream_data(channel.next_stream(), b"\xff" + b"x" * 200, end_stream=True)
            channel.wire.transmit()
            goal = begin + 50
            await until(lambda goal=goal: sum(refused(alice).values()) >= goal + 86)
        counted = refused(alice)
        # One whose end comes in a packet of its own finds no place to wait for it.
        assert counted["unfinished"] > 9_000 and sum(counted.values()) == 10_086
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 << 10, f"{grown >> 10} MiB more, of which most is aioquic's own"
        assert alice.path_stats(ERL).streams <= 64
        await messages_flow(alice, erl, channel)
        stream = channel.next_stream()
        channel.wire.write(stream, b"\x04echostill", fin=True)
        assert await channel.wire.read_exactly(stream, 5, 5.0) == b"still"

    run(story, tmp_path)


def test_a_peer_that_stops_and_resets_at_random_moments_costs_its_streams_only(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        ends: asyncio.Queue[str] = asyncio.Queue()

        async def both(stream: Stream) -> None:
            try:
                while await stream.read(1000):
                    await stream.write(bytes(50_000))
                ends.put_nowait("complete")
            except StreamReset as reset:
                ends.put_nowait(type(reset).__name__)

        alice.streams.register_acceptor("both", both)
        quic = channel.wire._quic
        for number in range(60):
            stream = channel.next_stream()
            channel.wire.write(stream, b"\x04both" + bytes(1000 * (number % 7)))
            if number % 3:
                await asyncio.sleep(0.001 * (number % 5))
            if number % 2:
                if number % 7:
                    await until(lambda stream=stream: channel.wire.buffers.get(stream))
                if stream in quic._streams and quic._streams[stream].receiver.highest_offset:
                    quic.stop_stream(stream, 9)
            quic.reset_stream(stream, 8)
            channel.wire.transmit()
        # A reset may overtake the tag: then there was never a stream.
        await until(lambda: ends.qsize() + refused(alice)["unfinished"] == 60)
        seen = {ends.get_nowait() for _ in range(ends.qsize())}
        assert seen <= {"StreamReset", "StreamStopped"}
        await messages_flow(alice, erl, channel)

    run(story, tmp_path)


def test_a_foreign_dialer_can_not_be_asked_to_move(tmp_path: Path) -> None:
    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        with pytest.raises(NotDialer, match="no node of this library"):
            await alice.migrate_peer(ERL)
        assert issubclass(NotDialer, MigrationError) and issubclass(StreamStopped, StreamReset)

    run(story, tmp_path, dials=True)


def test_a_connection_to_it_can_move(tmp_path: Path) -> None:
    """It offers no spare connection ids, so the move keeps the one in use."""

    async def story(alice: Node, erl: ForeignNode, channel: Link) -> None:
        before = alice.path_stats(ERL).local_address
        for _ in range(3):
            await alice.migrate_peer(ERL)
            await messages_flow(alice, erl, channel)
        assert alice.path_stats(ERL).local_address != before

    run(story, tmp_path)
