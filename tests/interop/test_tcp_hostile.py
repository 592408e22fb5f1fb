"""What a node over TCP does with peers that are old, wrong, slow, many or broken: it says why, and lives on."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    Node,
    Pid,
    exit,
    monitor,
    receive,
    register,
    self_pid,
    send,
    spawn,
)
from barrel_p2p.net import tcp
from barrel_p2p.proto import handshake_messages as wire
from barrel_p2p.proto.flags import DEFAULT, MANDATORY, Flags
from barrel_p2p.proto.handshake import Connected
from harness.erlang import COOKIE, Epmd
from harness.tcp_peer import NAME, Peer, config, node

HEADER = b"\x83D\0"


def run(story: Callable[[Node], Awaitable[None]], epmd: Epmd, directory: Path, **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), node(epmd, directory, **options) as py:
            register("test", self_pid())
            await story(py)
            await friend_gets_in(py)

    asyncio.run(main())


async def friend_gets_in(py: Node) -> None:
    """The node still does what it should: a well-behaved peer connects and its message arrives."""
    peer = await Peer.connect(py)
    name = Atom("friend@127.0.0.1")
    assert isinstance(await peer.shake(py, config(COOKIE, name)), Connected)
    peer.message((6, Pid(name, 1, 0, 5), Atom(""), Atom("test")), Atom("hello"))
    assert await receive(match=lambda m: m == "hello", timeout=5)
    peer.close()


# --- handshakes that fail ---------------------------------------------------------------------------------------------


def test_a_missing_flag_is_named(epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(py: Node) -> None:
        for flag in MANDATORY:
            caplog.clear()
            peer = await Peer.connect(py)
            lacking = DEFAULT & ~Flags.MANDATORY_25_DIGEST & ~flag
            answer = await peer.shake(py, config(COOKIE, flags=lacking))
            assert not isinstance(answer, Connected) and answer.reason == "not_allowed"
            await peer.ended()
            assert flag.name is not None and f"distribution flags {flag.name}." in caplog.text

    run(story, epmd, tmp_path)


def test_an_old_handshake_is_refused(epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        old = b"n\0\x05\x07\xff\xff\xffold@127.0.0.1"
        peer.writer.write(len(old).to_bytes(2, "big") + old)
        assert await peer.ended() == b"\0\x0csnot_allowed"
        assert "OTP 25 or newer is needed" in caplog.text

    run(story, epmd, tmp_path)


def test_a_wrong_cookie_is_refused(epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        assert not isinstance(await peer.shake(py, config("guessed")), Connected)
        assert "has another cookie" in caplog.text
        assert py.nodes() == []

    run(story, epmd, tmp_path)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0\x01N", b"\0\x03xyz"])
def test_what_is_no_handshake_is_refused(epmd: Epmd, tmp_path: Path, data: bytes) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        peer.writer.write(data)
        await peer.ended()

    run(story, epmd, tmp_path)


def test_a_flood_of_connects_is_bounded_and_passes(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        peers = [await Peer.connect(py) for _ in range(300)]
        started = time.monotonic()
        ended = await asyncio.gather(*(_ended_after(peer, started) for peer in peers))
        assert sum(seconds < 1 for seconds in ended) == 300 - 16, "turned away at once"
        assert sum(2 < seconds < 5 for seconds in ended) == 16, "the limit of the first step"
        for peer in peers:
            peer.close()

    run(story, epmd, tmp_path, max_unauthenticated=16, setup_timeout_ms=3000)


def test_an_address_whose_handshakes_fail_is_turned_away_and_others_are_not(
    epmd: Epmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "HandshakeBudget", functools.partial(tcp.HandshakeBudget, burst=4, per_second=0))

    async def story(py: Node) -> None:
        py.monitor_nodes()
        for _ in range(10):
            peer = await Peer.connect(py, "127.0.0.2")
            assert isinstance(await peer.shake(py, config(COOKIE)), Connected)
            peer.close()
            assert await receive(match=lambda m: m == ("nodedown", NAME), timeout=5)
        for tries in range(1, 7):
            peer = await Peer.connect(py, "127.0.0.2")
            assert not isinstance(await peer.shake(py, config("guessed")), Connected)
            metrics = py.statistics().metrics
            begun = metrics["barrel_p2p.dist.handshakes"].series
            assert begun[("incoming", "ok")] == 10
            assert sum(begun.values()) == 10 + min(tries, 4)
            turned_away = metrics["barrel_p2p.dist.turned_away"].series
            assert turned_away == {("refused_address",): max(0, tries - 4), ("refused_load",): 0}

    run(story, epmd, tmp_path)


async def _ended_after(peer: Peer, started: float) -> float:
    await peer.ended(timeout=10)
    return time.monotonic() - started


# --- handshakes that stall --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [0, 1, 2])
def test_a_dialer_that_stalls_is_let_go(epmd: Epmd, tmp_path: Path, messages: int) -> None:
    """After the connect, in the middle of its name, after its name (our challenge stays without an answer)."""

    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        started = time.monotonic()
        name = b"N" + (DEFAULT | 0).to_bytes(8, "big") + bytes(3) + b"\x05" + b"\0\x12" + NAME.encode()
        framed = len(name).to_bytes(2, "big") + name
        peer.writer.write([b"", framed[:20], framed][messages])
        got = await peer.ended()
        assert 0.3 < time.monotonic() - started < 2
        assert got.startswith(b"\0\x03sok") == (messages == 2)

    run(story, epmd, tmp_path, setup_timeout_ms=400)


@pytest.mark.parametrize("drop", [b"\x01", b"\0\0"], ids=["bytes", "ticks"])
def test_a_dialer_that_drips_gains_no_time(epmd: Epmd, tmp_path: Path, drop: bytes) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        started = time.monotonic()

        async def drip() -> None:
            while True:  # a message of 257 bytes would take thirteen seconds
                peer.writer.write(drop)
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        await peer.ended()
        dripping.cancel()
        assert 0.3 < time.monotonic() - started < 2

    run(story, epmd, tmp_path, setup_timeout_ms=400)


def test_who_is_asked_whether_the_channel_is_dead_and_stalls_leaves_it(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        first = await Peer.connect(py)
        assert isinstance(await first.shake(py, config(COOKIE)), Connected)
        second = await Peer.connect(py)
        started = time.monotonic()
        second.tell(wire.name(DEFAULT, 5, NAME))
        assert await second.told() == b"salive"
        assert await second.ended() == b""
        assert 0.3 < time.monotonic() - started < 2
        first.message((6, Pid(NAME, 1, 0, 5), Atom(""), Atom("test")), Atom("still here"))
        assert await receive(timeout=5) == "still here"
        first.close()

    run(story, epmd, tmp_path, setup_timeout_ms=400)


def test_bytes_cut_at_every_boundary_make_the_same_channel(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        py.monitor_nodes()
        named = wire.name(config(COOKIE).flags, 5, NAME)
        for cut in range(2 + len(named) + 21):
            peer = await Peer.connect(py)
            peer.writer.write(framed(named)[:cut])
            await asyncio.sleep(0.002)
            peer.writer.write(framed(named)[cut:])
            assert await peer.told() == b"sok"
            challenge = int.from_bytes((await peer.told())[9:13], "big")
            answer = framed(wire.answer(7, wire.digest(COOKIE.encode(), challenge)))
            late = max(0, cut - len(framed(named)))
            peer.writer.write(answer[:late])
            await asyncio.sleep(0.002)
            peer.writer.write(answer[late:])
            assert (await peer.told())[:1] == b"a"
            peer.message((6, Pid(NAME, 1, 0, 5), Atom(""), Atom("test")), cut)
            assert await receive(match=lambda m: not isinstance(m, tuple), timeout=5) == cut
            peer.close()
            assert await receive(match=lambda m: m == ("nodedown", NAME), timeout=5)

    run(story, epmd, tmp_path)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


# --- channels that break the rules ------------------------------------------------------------------------------------


def fragment(kind: bytes, sequence: int, number: int, body: bytes) -> bytes:
    return b"\x83" + kind + sequence.to_bytes(8, "big") + number.to_bytes(8, "big") + body


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([b"\x83D\x01\x00\x07R\x00"], "slot 7 of the atom cache, which is empty"),
        ([HEADER + b"h\x01R\x03"], "without a cached atom"),
        ([b"\x83D\x05\x00"], "cut off"),
        ([fragment(b"E", 1, 3, b"\0a"), fragment(b"F", 1, 1, b"b")], "where 2 was due"),
        ([fragment(b"F", 1, 2, b"b")], "unknown sequence"),
        ([fragment(b"E", 1, 3, b"\0a"), fragment(b"E", 1, 3, b"\0a")], "started twice"),
        ([b"p\x83h\x00"], "headers were negotiated"),
        ([b"\x00"], "single byte"),
        ([HEADER + b"h\xff"], "can't be decoded"),
        ([HEADER + b"a\x01"], "no tuple"),
    ],
)
def test_a_broken_frame_costs_its_sender_the_channel(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture, frames: list[bytes], text: str
) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        assert isinstance(await peer.shake(py, config(COOKIE)), Connected)
        peer.message((6, Pid(NAME, 1, 0, 5), Atom(""), Atom("test")), Atom("before"))
        assert await receive(timeout=5) == "before"
        for frame in frames:
            peer.frame(frame)
        await peer.ended()
        assert text in caplog.text
        assert py.nodes() == []

    caplog.set_level(logging.INFO)
    run(story, epmd, tmp_path)


def test_a_frame_that_claims_too_much_is_refused_at_its_length(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        assert isinstance(await peer.shake(py, config(COOKIE)), Connected)
        peer.writer.write((2**31).to_bytes(4, "big"))
        await peer.ended()

    run(story, epmd, tmp_path)


def test_fragments_that_never_end_are_bounded(epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        assert isinstance(await peer.shake(py, config(COOKIE)), Connected)
        for sequence in range(5000):
            peer.frame(fragment(b"E", sequence, 2, b"\0x"))
        await peer.ended()
        assert "more than 4096 fragmented messages" in caplog.text

    caplog.set_level(logging.INFO)
    run(story, epmd, tmp_path)


def test_a_name_that_is_connected_is_asked_and_replaced_only_with_the_cookie(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        first = await Peer.connect(py)
        assert isinstance(await first.shake(py, config(COOKIE)), Connected)
        ref = monitor(Pid(NAME, 1, 0, 5))
        thief = await Peer.connect(py)
        assert not isinstance(await thief.shake(py, config("guessed")), Connected)
        first.message((6, Pid(NAME, 1, 0, 5), Atom(""), Atom("test")), Atom("still here"))
        assert await receive(timeout=5) == "still here"
        again = await Peer.connect(py)
        assert isinstance(await again.shake(py, config(COOKIE)), Connected)
        assert await receive(timeout=5) == ("DOWN", ref, "process", Pid(NAME, 1, 0, 5), "noconnection")
        await first.ended()
        assert py.nodes() == [NAME]
        again.close()
        thief.close()

    run(story, epmd, tmp_path)


def test_a_peer_that_reads_nothing_holds_its_senders_not_the_memory(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        peer = await Peer.connect(py)
        assert isinstance(await peer.shake(py, config(COOKIE)), Connected)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                send(Pid(NAME, 1, 0, 5), b"x" * 10_000)
                sent += 1
                await asyncio.sleep(0)

        flooder = spawn(flood)
        await asyncio.sleep(1)
        stalled = sent
        await asyncio.sleep(0.3)
        assert sent == stalled
        assert py.statistics().peers[NAME].queued_bytes < 3 << 20
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while sent == stalled:
                await peer.read()
        exit(flooder, "kill")
        peer.close()

    run(story, epmd, tmp_path)
