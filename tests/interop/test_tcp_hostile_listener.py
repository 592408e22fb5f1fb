"""What a node over TCP does when whom it dials is old, wrong, slow, silent or broken: it says why, and lives on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, BarrelError, HandshakeError, Node, NotConnected, Pid, monitor, receive, register, self_pid
from barrel_p2p.proto import handshake_messages as wire
from barrel_p2p.proto.flags import DEFAULT, Flags
from harness.erlang import COOKIE, Epmd
from harness.tcp_peer import Listener, Peer

PY, BOB = Atom("py@127.0.0.1"), Atom("bob@127.0.0.1")
STEP_MS = 400
FLAGS = DEFAULT | Flags.DIST_HDR_ATOM_CACHE
CHALLENGE = wire.challenge(FLAGS, 9, 5, BOB)
Script = Callable[[Peer], Awaitable[None]]


def run(story: Callable[[Node], Awaitable[None]], epmd: Epmd, directory: Path, **options: Any) -> None:
    options = {"cookie": COOKIE, "epmd_port": epmd.port, "data_dir": directory, "setup_timeout_ms": STEP_MS, **options}

    async def main() -> None:
        async with asyncio.timeout(60), Node(PY, proto_dist="inet_tcp", **options) as py:
            register("test", self_pid())
            await story(py)
            async with Listener(good) as listener:  # the node still does what it should
                await py.connect("friend@127.0.0.1", listener.address)

    async def good(peer: Peer) -> None:
        await shake(peer, Atom("friend@127.0.0.1"))

    asyncio.run(main())


async def shake(peer: Peer, name: Atom = BOB, cookie: bytes = COOKIE.encode()) -> None:
    """Be the acceptor of a handshake as it should be, unless the cookie is another one."""
    assert (await peer.told())[:1] == b"N"
    peer.tell(wire.status("ok"))
    peer.tell(wire.challenge(FLAGS, 9, 5, name))
    answer = await peer.told()
    peer.tell(wire.ack(wire.digest(cookie, int.from_bytes(answer[1:5], "big"))))


async def refusal(py: Node, script: Script) -> BarrelError:
    """Why the node does not connect to bob, who does what the script says."""
    async with Listener(script) as listener:
        with pytest.raises(BarrelError) as failure:
            await py.connect(BOB, listener.address)
    assert py.nodes() == []
    return failure.value


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def writes(data: bytes) -> Script:
    async def script(peer: Peer) -> None:
        peer.writer.write(data)

    return script


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_flags_that_are_missing_are_named(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        lacking = FLAGS & ~Flags.MANDATORY_25_DIGEST & ~Flags.MAP_TAG
        error = await refusal(py, writes(framed(b"sok") + framed(wire.challenge(lacking, 9, 5, BOB))))
        assert isinstance(error, HandshakeError) and error.reason == "missing_flags"
        assert error.details["missing_flags"] == ["MAP_TAG"] and "MAP_TAG" in str(error)

    run(story, epmd, tmp_path)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (framed(b"sok") + framed(b"n\0\x05" + bytes(8) + BOB.encode()), "old_version"),
        (framed(b"sok") + framed(wire.challenge(FLAGS, 9, 5, Atom("carol@127.0.0.1"))), "name_mismatch"),
        (framed(b"snot_allowed"), "not_allowed"),
        (framed(b"snamed:" + b"\0\x03x@y" + bytes(4)), "malformed"),
        (framed(b"sno_such_status"), "malformed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "malformed"),
        (b"\xff" * 100, "malformed"),
        (framed(b"sok") + framed(b"r" + bytes(20)), "unexpected_message"),
        (framed(b"sok") + framed(CHALLENGE) + framed(b"a" + bytes(15)), "malformed"),
    ],
)
def test_who_answers_wrongly_is_refused_with_the_reason(epmd: Epmd, tmp_path: Path, answer: bytes, reason: str) -> None:
    async def story(py: Node) -> None:
        started = time.monotonic()
        error = await refusal(py, writes(answer))
        assert isinstance(error, HandshakeError) and error.reason == reason
        assert time.monotonic() - started < 1

    run(story, epmd, tmp_path, setup_timeout_ms=7000)


def test_a_wrong_cookie_is_found_by_us_too(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        error = await refusal(py, lambda peer: shake(peer, cookie=b"guessed"))
        assert isinstance(error, HandshakeError) and error.reason == "bad_cookie"

    run(story, epmd, tmp_path)


def test_nok_without_the_connection_it_promises_is_given_up(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        error = await refusal(py, writes(framed(b"snok")))
        assert isinstance(error, NotConnected) and "never comes" in str(error)

    run(story, epmd, tmp_path)


# --- silence ----------------------------------------------------------------------------------------------------------

STEPS = [
    (b"", "status"),
    (framed(b"sok")[:3], "status"),
    (framed(b"sok"), "challenge"),
    (framed(b"sok") + framed(CHALLENGE)[:20], "challenge"),
    (framed(b"sok") + framed(CHALLENGE), "ack"),
    (framed(b"sok") + framed(CHALLENGE) + framed(b"a" + bytes(16))[:9], "ack"),
]


@pytest.mark.parametrize(("said", "waiting_for"), STEPS)
@pytest.mark.parametrize("closes", [False, True])
def test_a_listener_that_stalls_or_closes_at_any_step_is_given_up(
    epmd: Epmd, tmp_path: Path, said: bytes, waiting_for: str, closes: bool
) -> None:
    async def script(peer: Peer) -> None:
        peer.writer.write(said)
        if closes:
            await asyncio.sleep(0.05)
            peer.close()

    async def story(py: Node) -> None:
        started = time.monotonic()
        error = await refusal(py, script)
        passed = time.monotonic() - started
        assert isinstance(error, HandshakeError) and error.reason == ("closed" if closes else "timeout")
        assert error.details["waiting_for"] == waiting_for
        assert ("cookie" in str(error)) == (waiting_for == "ack")
        assert passed < 0.3 if closes else STEP_MS / 1000 <= passed < 2

    run(story, epmd, tmp_path)


@pytest.mark.parametrize("drop", [framed(b"sok")[:1], b"\0\0", b"\0\0\0\0"], ids=["bytes", "ticks", "double ticks"])
def test_a_listener_that_drips_gains_no_time(epmd: Epmd, tmp_path: Path, drop: bytes) -> None:
    async def script(peer: Peer) -> None:
        rest = iter(framed(CHALLENGE))  # a name of that length never ends within the step
        while True:
            peer.writer.write(drop if len(drop) > 1 else bytes([next(rest, 0)]))
            await peer.writer.drain()
            await asyncio.sleep(0.05)

    async def story(py: Node) -> None:
        started = time.monotonic()
        error = await refusal(py, script)
        assert isinstance(error, HandshakeError) and error.reason in ("timeout", "malformed", "unexpected_message")
        assert time.monotonic() - started < 2

    run(story, epmd, tmp_path)


# --- cuts, and broken channels ----------------------------------------------------------------------------------------


def test_bytes_cut_at_every_boundary_make_the_same_channel(epmd: Epmd, tmp_path: Path) -> None:
    """The handshake byte by byte, and the first message glued to its end."""

    async def script(peer: Peer) -> None:
        await peer.told()
        for byte in framed(b"sok") + framed(CHALLENGE):
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        answer = await peer.told()
        plain = Peer(peer.reader, _Recorder())  # type: ignore[arg-type]
        plain.tell(wire.ack(wire.digest(COOKIE.encode(), int.from_bytes(answer[1:5], "big"))))
        plain.message((6, Pid(BOB, 1, 0, 5), Atom(""), Atom("test")), Atom("hello"))
        data = plain.writer.data  # type: ignore[attr-defined]
        cut = cuts.pop()
        peer.writer.write(data[:cut])
        await asyncio.sleep(0.005)
        peer.writer.write(data[cut:])

    async def story(py: Node) -> None:
        async with Listener(script) as listener:
            while cuts:
                await py.connect(BOB, listener.address)
                assert await receive(timeout=5) == "hello"
                py.disconnect(BOB)

    cuts = list(range(70))
    run(story, epmd, tmp_path, setup_timeout_ms=7000)


class _Recorder:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def test_a_broken_frame_costs_whom_we_dialled_the_channel_too(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: Peer) -> None:
        await shake(peer)
        await asyncio.sleep(0.1)
        peer.frame(b"\x83D\x01\x00\x07R\x00")

    async def story(py: Node) -> None:
        async with Listener(script) as listener:
            await py.connect(BOB, listener.address)
            pid = Pid(BOB, 1, 0, 5)
            ref = monitor(pid)
            assert await receive(timeout=5) == ("DOWN", ref, "process", pid, "noconnection")
        assert "slot 7 of the atom cache, which is empty" in caplog.text

    caplog.set_level(logging.INFO)
    run(story, epmd, tmp_path)
