"""Byte streams between two nodes: what a stream promises, and what it must not do to anything beside it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    BadTag,
    NameTaken,
    Node,
    NoProc,
    NotSupported,
    Pid,
    Stream,
    StreamClosed,
    StreamLost,
    StreamRefused,
    StreamReset,
    StreamStopped,
    call,
    exit,
    receive,
    self_pid,
    send,
    spawn,
)
from harness.cluster import Cluster, run

BOB = "bob@127.0.0.1"
MiB = 1 << 20


async def two(cluster: Cluster, **options: Any) -> tuple[Node, Node]:
    bob = await cluster.node("bob", **options)
    alice = await cluster.node("alice", **options)  # the last one: the test runs as a process of hers
    await alice.connect(bob.name)
    return alice, bob


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


def keep(node: Node) -> tuple[asyncio.Queue[Stream], asyncio.Event]:
    """``node`` takes streams tagged ``keep``, puts them into the queue and holds them until the event."""
    taken: asyncio.Queue[Stream] = asyncio.Queue()
    over = asyncio.Event()

    async def take(stream: Stream) -> None:
        taken.put_nowait(stream)
        await over.wait()

    node.streams.register_acceptor("keep", take)
    return taken, over


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acceptor_opens", [False, True], ids=["dialer opens", "acceptor opens"])
def test_bytes_come_back_whole_and_in_order(tmp_path: Path, acceptor_opens: bool) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        opener, taker = (bob, alice) if acceptor_opens else (alice, bob)
        taker.streams.register_acceptor("echo", echo)
        async with await opener.streams.open("echo", taker.name) as stream:
            assert (stream.tag, stream.peer) == (b"echo", taker.name)
            sent = pattern(5 * MiB + 17)

            async def write() -> None:
                for start in range(0, len(sent), 70_001):
                    await stream.write(sent[start : start + 70_001])
                await stream.close()

            writing = asyncio.create_task(write())
            assert await stream.read() == sent
            await writing
            assert await stream.read() == b"", "the end stays the end"

    run(story, tmp_path)


def test_any_buffer_can_be_written_and_reads_take_as_much_as_is_asked(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        bob.streams.register_acceptor(b"\xff\x00", echo)
        stream = await alice.streams.open(b"\xff\x00", BOB)
        block = bytearray(pattern(600_000))
        await stream.write(block)
        expected = bytes(block)
        block[:] = bytes(len(block))  # was copied before write returned
        await stream.write(memoryview(b"0123456789")[2:5])
        await stream.write(b"")
        await stream.close()
        assert await stream.read(0) == b""
        assert await stream.readexactly(600_000) == expected
        assert await stream.read(2) == b"23"
        assert await stream.read(100) == b"4"
        assert await stream.read(100) == b""
        with pytest.raises(asyncio.IncompleteReadError):
            await stream.readexactly(1)

    run(story, tmp_path)


def test_a_file_is_sent_with_its_progress(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        digests: asyncio.Queue[str] = asyncio.Queue()

        async def store(stream: Stream) -> None:
            digest = hashlib.sha256()
            async for chunk in stream:
                digest.update(chunk)
            digests.put_nowait(digest.hexdigest())

        bob.streams.register_acceptor("store", store)
        path = tmp_path / "file"
        path.write_bytes(pattern(3 * MiB + 5))
        seen: list[tuple[int, int]] = []
        async with await alice.streams.open("store", BOB) as stream:
            assert await stream.send_file(path, progress=lambda *now: seen.append(now)) == 3 * MiB + 5
        assert await digests.get() == hashlib.sha256(path.read_bytes()).hexdigest()
        assert seen[-1] == (3 * MiB + 5, 3 * MiB + 5)
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})

    run(story, tmp_path)


def test_two_hundred_streams_one_after_the_other_and_forty_at_once(tmp_path: Path) -> None:
    """Streams that have ended make room for others, or the peer's limit would be reached for good."""

    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        bob.streams.register_acceptor("echo", echo)

        async def once(text: bytes) -> None:
            async with await alice.streams.open("echo", BOB) as stream:
                await stream.write(text)
                await stream.close()
                assert await stream.read() == text

        for number in range(200):
            await once(b"%d" % number)
        for _ in range(10):
            await asyncio.gather(*(once(b"%d" % number * 999) for number in range(40)))
        await until(lambda: not alice.path_stats(BOB).streams and not bob.path_stats(alice.name).streams)

    run(story, tmp_path)


# --- who takes a stream -----------------------------------------------------------------------------------------------


def test_a_tag_that_nobody_takes_is_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        stream = await alice.streams.open("nobody", BOB)
        for _ in range(2):
            with pytest.raises(StreamRefused) as refused:
                await stream.read()
            assert refused.value.code == 0x100
        bob.streams.register_acceptor("somebody", echo)
        assert bob.streams.list_acceptors() == {b"somebody": echo}
        with pytest.raises(NameTaken):
            bob.streams.register_acceptor(b"somebody", echo)
        with pytest.raises(NoProc):
            bob.streams.register_acceptor("dead", Pid(bob.name, 1 << 27, 0, bob.runtime.creation))
        assert bob.streams.unregister_acceptor("somebody")
        assert not bob.streams.unregister_acceptor("somebody")
        stream = await alice.streams.open("somebody", BOB)
        with pytest.raises(StreamRefused):
            while True:
                await stream.write(b"x" * 1000)
                await asyncio.sleep(0.001)

    run(story, tmp_path)


@pytest.mark.parametrize("tag", ["", "x" * 256, "\N{SNOWMAN}" * 86, "barrel_p2p:internal", b"barrel_p2p:"])
def test_tags_that_can_not_be(tmp_path: Path, tag: str | bytes) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        with pytest.raises(BadTag):
            alice.streams.register_acceptor(tag, echo)
        with pytest.raises(BadTag):
            await alice.streams.open(tag, BOB)

    run(story, tmp_path)


def test_acceptors_and_tags_of_the_wrong_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        for tag, acceptor in (("tag", 5), (5, echo)):
            with pytest.raises(TypeError, match="not 5"):
                bob.streams.register_acceptor(tag, acceptor)  # type: ignore[arg-type]

        def plain(stream: Stream) -> None:
            pass

        bob.streams.register_acceptor("plain", plain)  # type: ignore[arg-type]
        stream = await alice.streams.open("plain", BOB)
        with pytest.raises(StreamReset):
            await stream.read()

    run(story, tmp_path)
    assert "an acceptor of streams must be an async def, which <function" in caplog.text


def test_a_tag_of_255_bytes_is_the_longest(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        bob.streams.register_acceptor("x" * 255, echo)
        async with await alice.streams.open("x" * 255, BOB) as stream:
            await stream.write(b"here")
            assert await stream.readexactly(4) == b"here"

    run(story, tmp_path)


def test_a_process_takes_streams_until_it_dies(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        ready: asyncio.Queue[Any] = asyncio.Queue()

        async def taker() -> None:
            while True:
                message = await receive()
                ready.put_nowait(message)

        pid = spawn(taker, node=bob)
        bob.streams.register_acceptor("for a process", pid)
        stream = await alice.streams.open("for a process", BOB)
        await stream.write(b"hello")
        what, theirs, opened, peer = await ready.get()
        assert (what, opened, peer) == ("mstream", "opened", alice.name)
        assert theirs.owner == pid
        assert await theirs.readexactly(5) == b"hello"
        exit(pid, "kill")
        with pytest.raises(StreamReset) as reset:
            await stream.read()
        assert reset.value.code == 0, "upstream's code when the owner died"
        assert bob.streams.list_acceptors() == {}
        stream = await alice.streams.open("for a process", BOB)
        with pytest.raises(StreamRefused):
            await stream.read()

    run(story, tmp_path)


def test_over_tcp_there_are_no_streams_and_the_error_says_so(tmp_path: Path, epmd: Any) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster, proto_dist="inet_tcp", epmd_port=epmd.port)
        with pytest.raises(NotSupported, match="QUIC"):
            await alice.streams.open("echo", BOB)
        with pytest.raises(NotSupported, match="QUIC"):
            await alice.migrate_peer(BOB)
        with pytest.raises(NotSupported, match="QUIC"):
            bob.path_stats(alice.name)

    run(story, tmp_path)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_each_way_ends_on_its_own(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)

        async def answer(stream: Stream) -> None:
            question = await stream.read()
            await stream.write(question[::-1])

        bob.streams.register_acceptor("answer", answer)
        stream = await alice.streams.open("answer", BOB)
        await stream.write(b"abc")
        await stream.close()
        await stream.close()
        with pytest.raises(StreamClosed):
            await stream.write(b"more")
        assert await stream.read() == b"cba"

    run(story, tmp_path)


def test_a_reset_and_a_stop_tell_the_other_side_their_codes(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        taken, over = keep(bob)
        stream = await alice.streams.open("keep", BOB)
        theirs = await taken.get()
        stream.reset(42)
        stream.reset(43)
        for _ in range(2):
            with pytest.raises(StreamReset) as reset:
                await theirs.read()
            assert reset.value.code == 42
        with pytest.raises(StreamClosed):
            await stream.write(b"x")
        with pytest.raises(StreamClosed):
            await stream.read()

        stream = await alice.streams.open("keep", BOB)
        theirs = await taken.get()
        theirs.stop(7)
        with pytest.raises(StreamStopped) as stopped:
            while True:  # also a writer that waits for room is told
                await stream.write(bytes(MiB))
        assert stopped.value.code == 7
        await theirs.write(b"still")
        assert await stream.readexactly(5) == b"still"
        with pytest.raises(ValueError, match="2\\*\\*62"):
            stream.reset(-1)
        over.set()

    run(story, tmp_path)


def test_a_handler_that_fails_resets_its_stream_is_logged_once_and_hurts_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)

        async def faulty(stream: Stream) -> None:
            await stream.readexactly(3)
            raise RuntimeError("a bug in the handler")

        bob.streams.register_acceptor("faulty", faulty)
        bob.streams.register_acceptor("not async", lambda stream: None)  # type: ignore[arg-type,return-value]
        bob.streams.register_acceptor("echo", echo)
        other = await alice.streams.open("echo", BOB)
        for tag in ("faulty", "not async"):
            caplog.clear()
            stream = await alice.streams.open(tag, BOB)
            await stream.write(b"abc")
            with pytest.raises(StreamReset) as reset:
                await stream.read()
            assert reset.value.code == 0
            assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
        await other.write(b"alive")
        assert await other.readexactly(5) == b"alive"
        assert await alice.ping(BOB)

    run(story, tmp_path)


def test_the_death_of_the_opener_resets_and_a_stream_that_was_given_away_lives_on(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        bob.streams.register_acceptor("echo", echo)
        ends: asyncio.Queue[str] = asyncio.Queue()

        async def until_end(stream: Stream) -> None:
            try:
                await stream.read()
                ends.put_nowait("complete")
            except StreamReset as reset:
                ends.put_nowait(f"reset {reset.code}")

        bob.streams.register_acceptor("until end", until_end)

        async def opens(report: Any, give: bool) -> None:
            stream = await alice.streams.open("until end" if not give else "echo", BOB)
            await stream.write(b"x")
            if give:
                stream.give_to(report)
                send(report, stream)

        spawn(opens, self_pid(), False)
        assert await ends.get() == "reset 0"
        spawn(opens, self_pid(), True)
        stream = await receive(timeout=5)
        await asyncio.sleep(0.05)  # its first owner is dead by now
        assert stream.owner == self_pid()
        await stream.write(b"y")
        assert await stream.readexactly(2) == b"xy"

    run(story, tmp_path)


def test_a_handler_may_give_its_stream_away_and_a_reset_by_the_peer_is_no_fault_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)

        async def keeper() -> None:
            await echo(await receive())

        async def give(stream: Stream) -> None:
            stream.give_to(pid)
            send(pid, stream)

        pid = spawn(keeper, node=bob)
        bob.streams.register_acceptor("give", give)
        bob.streams.register_acceptor("echo", echo)
        stream = await alice.streams.open("give", BOB)
        await stream.write(b"kept")
        assert await stream.readexactly(4) == b"kept"
        with pytest.raises(StreamClosed):
            stream.give_to(pid)  # a process of another node
        caplog.clear()
        other = await alice.streams.open("echo", BOB)
        await other.write(b"x")
        assert await other.readexactly(1) == b"x"
        other.reset(3)
        await until(lambda: bob.streams.statistics()[alice.name].open == 1)
        assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []

    run(story, tmp_path)


def test_a_block_that_raises_resets(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        ends: asyncio.Queue[int] = asyncio.Queue()

        async def until_end(stream: Stream) -> None:
            try:
                await stream.read()
            except StreamReset as reset:
                ends.put_nowait(reset.code)

        bob.streams.register_acceptor("until end", until_end)
        with pytest.raises(ZeroDivisionError):
            async with await alice.streams.open("until end", BOB) as stream:
                await stream.write(b"x")
                _ = 1 / 0
        assert await ends.get() == 0

    run(story, tmp_path)


def test_what_was_complete_before_the_connection_ended_is_read_to_its_end(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        taken, over = keep(bob)
        complete = await alice.streams.open("keep", BOB)
        await complete.write(pattern(2 * MiB))
        await complete.close()
        partial = await alice.streams.open("keep", BOB)
        await partial.write(b"part")
        one, two_ = await taken.get(), await taken.get()
        assert await two_.read(1) == b"p"
        waiting = asyncio.create_task(partial.read())
        await asyncio.sleep(0.05)
        alice.disconnect(BOB)
        with pytest.raises(StreamLost):
            await waiting
        with pytest.raises(StreamLost):
            await partial.write(b"x")
        await until(lambda: not bob.nodes())
        assert await one.read() == pattern(2 * MiB)
        assert await two_.read(10) == b"art"
        with pytest.raises(StreamLost):
            await two_.read(10)
        over.set()

    run(story, tmp_path)


# --- back-pressure ----------------------------------------------------------------------------------------------------


def test_a_slow_reader_stalls_its_own_writer_and_nobody_else(tmp_path: Path) -> None:
    """Twenty streams that nobody reads: their windows together are far above that of the connection."""

    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        over = asyncio.Event()

        async def never_reads(stream: Stream) -> None:
            await over.wait()

        bob.streams.register_acceptor("never reads", never_reads)
        bob.streams.register_acceptor("echo", echo)
        written = [0] * 20

        async def pour(number: int) -> None:
            stream = await alice.streams.open("never reads", BOB)
            while True:
                await stream.write(bytes(MiB))
                written[number] += 1

        pouring = [asyncio.create_task(pour(number)) for number in range(20)]
        before: list[int] = []
        while before != written:
            before = list(written)
            await asyncio.sleep(0.3)
            assert await alice.ping(BOB)
        assert max(written) <= 12, "a window of 8 MiB and the queue"
        async with await alice.streams.open("echo", BOB) as stream:
            for _ in range(50):
                await stream.write(pattern(100_000))
                assert await stream.readexactly(100_000) == pattern(100_000)
        assert await call(("net_kernel", bob.name), ("is_auth", alice.name), timeout=2) == "yes"
        for task in pouring:
            task.cancel()
        await asyncio.gather(*pouring, return_exceptions=True)
        over.set()

    run(story, tmp_path)
