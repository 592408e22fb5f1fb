"""Connections with a peer that has an Erlang node's habits: both dial, one falls silent, one comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, AuthError, HandshakeError, Node, NotConnected, link, monitor, process_flag, receive, send
from barrel_p2p.node.establish import Accepting, Dialing
from foreign import ForeignError, ForeignNode, Link

ALICE = Atom("alice@127.0.0.1")
GREATER, SMALLER = "erl@127.0.0.1", "aaa@127.0.0.1"
COOKIE = "foreign cookie"


def run(story: Callable[[Node], Awaitable[None]], tmp_path: Path, **options: Any) -> None:
    async def main() -> None:
        setup = {"cookie": COOKIE, "data_dir": tmp_path / "alice", "discovery_dir": None, **options}
        async with Node(ALICE, **setup) as alice:
            await story(alice)

    asyncio.run(asyncio.wait_for(main(), 60))


async def pair(alice: Node, erl: ForeignNode, dialer: str = "alice") -> Link:
    """A channel between the two; afterwards both know each other's address."""
    if dialer == "alice":
        await alice.connect(erl.name, await erl.listen())
        return await erl.accepted()
    alice.monitor_nodes()
    channel = await erl.dial(ALICE, alice.listen_address)
    assert await receive(timeout=5) == ("nodeup", erl.name)
    alice.monitor_nodes(False)
    return channel


async def until(condition: Callable[[], Any]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.005)


def coming_in(alice: Node) -> bool:
    """Whether a peer has told its name and was let in, but its channel is not up yet."""
    return any(isinstance(c, Accepting) and c.creation for c in alice._routes._connections.values())


# --- both dial at the same time ---------------------------------------------------------------------------------------


def test_a_greater_peer_says_nok_to_our_dial_and_its_own_is_used(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, status="nok") as erl:
            theirs = erl.pid()
            dial = asyncio.create_task(alice.connect(erl.name, await erl.listen()))
            for number in range(10):
                send(theirs, number)
            with pytest.raises(ForeignError, match="nok"):
                await erl.accepted()
            channel = await erl.dial(ALICE, alice.listen_address)
            await dial
            assert [(await channel.recv_message())[1] for _ in range(10)] == list(range(10))

    run(story, tmp_path)


def test_a_smaller_peer_is_never_told_nok(tmp_path: Path) -> None:
    """An Erlang node that reads ``nok`` over QUIC hangs for good; its connection is closed instead."""

    async def story(alice: Node) -> None:
        go_on = asyncio.Event()
        async with ForeignNode(SMALLER, cookie=COOKIE, status="ok_simultaneous", holds={"status": go_on}) as erl:
            dial = asyncio.create_task(alice.connect(erl.name, await erl.listen()))
            await until(lambda: any(0 in wire.buffers for wire in erl._wires))  # our name is there
            with pytest.raises(ForeignError, match="connection ended"):
                await erl.dial(ALICE, alice.listen_address)
            go_on.set()
            await dial
            channel = await erl.accepted()
            send(erl.pid(), "one connection")
            assert (await channel.recv_message())[1] == "one connection"

    run(story, tmp_path)


def test_nothing_is_dialled_while_the_peer_is_on_its_way_in(tmp_path: Path) -> None:
    """Our own dial on top of it would end with the peer throwing the first connection away."""

    async def story(alice: Node) -> None:
        go_on = asyncio.Event()
        async with ForeignNode(GREATER, cookie=COOKIE, holds={"reply": go_on}) as erl:
            alice._parts.addresses[erl.name] = await erl.listen()
            alice.monitor_nodes()
            coming = asyncio.create_task(erl.dial(ALICE, alice.listen_address))
            await until(lambda: coming_in(alice))
            send(erl.pid(), "early")
            await asyncio.sleep(0.05)
            go_on.set()
            channel = await coming
            assert await receive(timeout=5) == ("nodeup", erl.name)
            assert (await channel.recv_message())[1] == "early"
            assert len(erl._wires) == 1, "it was dialled all the same"

    run(story, tmp_path)


def test_our_dial_is_over_before_the_peer_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Erlang node that reads our name after that waits for itself, for good."""

    async def story(alice: Node) -> None:
        async with (
            ForeignNode(SMALLER, cookie=COOKIE, instead={"challenge": b""}) as slow,
            ForeignNode(SMALLER, cookie=COOKIE, key=slow.key) as erl,
        ):
            made: list[Dialing] = []
            begin, let_in, over = Dialing.__init__, Accepting.let_in, []

            def begun(self: Dialing, *args: Any) -> None:
                begin(self, *args)
                made.append(self)

            def watched(self: Accepting, *, simultaneous: bool = False) -> None:
                over.append([dialing.over for dialing in made])
                let_in(self, simultaneous=simultaneous)

            monkeypatch.setattr(Dialing, "__init__", begun)
            monkeypatch.setattr(Accepting, "let_in", watched)
            dial = asyncio.create_task(alice.connect(slow.name, await slow.listen()))
            await until(lambda: made)
            await erl.dial(ALICE, alice.listen_address)
            await dial
            assert over == [[True]]

    run(story, tmp_path)


def test_a_dial_follows_when_the_peer_on_its_way_in_gives_up(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, stop_after="name") as erl:
            alice._parts.addresses[erl.name] = await erl.listen()
            halfway = await erl.dial(ALICE, alice.listen_address)
            await until(lambda: coming_in(alice))
            send(erl.pid(), "early")
            erl.behaviour.stop_after = None
            halfway.close()
            assert (await (await erl.accepted()).recv_message())[1] == "early"

    run(story, tmp_path)


# --- a name that is connected already ---------------------------------------------------------------------------------


def test_a_peer_that_takes_us_for_connected_is_told_that_the_old_link_is_dead(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, status="alive") as erl:
            await pair(alice, erl)

    run(story, tmp_path)


@pytest.mark.parametrize("dialer", ["alice", "erl"])
def test_a_peer_that_dropped_the_link_in_silence_is_down_within_the_tick_time(tmp_path: Path, dialer: str) -> None:
    """``disconnect_node`` of Erlang: its QUIC stack goes on acknowledging and pinging."""

    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, keep_alive=0.1) as erl:
            channel = await pair(alice, erl, dialer)
            process_flag("trap_exit", True)
            theirs = erl.pid()
            link(theirs)
            reference = monitor(theirs)
            await asyncio.sleep(1.5)
            assert alice.nodes() == [erl.name], "idle is not dead"
            assert channel.questions > 1
            channel.disconnect()
            got = [await receive(timeout=3) for _ in range(2)]
            assert ("EXIT", theirs, "noconnection") in got
            assert ("DOWN", reference, "process", theirs, "noconnection") in got
            assert (await channel.closed())[0] == 0, "the zombie is told at last"
            if dialer == "alice":
                send(theirs, "again")
                assert (await (await erl.accepted()).recv_message())[1] == "again"

    run(story, tmp_path, net_ticktime_ms=800)


# --- peers that stall -------------------------------------------------------------------------------------------------


def test_a_connection_is_renewed_before_erlang_could_no_longer_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE) as erl:
            alice.monitor_nodes()
            await pair(alice, erl)
            assert await receive(timeout=5) == ("nodeup", erl.name)
            monkeypatch.setattr("barrel_p2p.node.liveness.MAX_PACKETS", 10)
            assert await receive(timeout=5) == ("nodedown", erl.name)
            monkeypatch.undo()
            await alice.connect(erl.name)
            assert await receive(timeout=5) == ("nodeup", erl.name)

    run(story, tmp_path, net_ticktime_ms=800)


@pytest.mark.parametrize("message", ["hello", "challenge", "response", "name", "reply"])
def test_a_dialer_that_stalls_is_let_go_of(tmp_path: Path, message: str, caplog: pytest.LogCaptureFixture) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, instead={message: b""}) as erl:
            with pytest.raises(ForeignError, match=r"connection ended|FAIL timeout"):
                await erl.dial(ALICE, alice.listen_address)
        assert len(refusals(caplog)) == 1
        assert alice.nodes() == []

    run(story, tmp_path, auth_handshake_timeout_ms=300, setup_timeout_ms=300)


@pytest.mark.parametrize("message", ["hello", "challenge", "response", "ok", "status", "dist_challenge", "ack"])
def test_an_acceptor_that_stalls_is_given_up(tmp_path: Path, message: str) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, instead={message: b""}) as erl:
            with pytest.raises((AuthError, HandshakeError), match="we waited for its") as error:
                await alice.connect(erl.name, await erl.listen())
            assert error.value.reason == "timeout"
            if message == "ack":
                await (await erl.accepted()).closed()
            else:
                with pytest.raises(ForeignError, match="connection ended"):
                    await erl.accepted()

    run(story, tmp_path, auth_handshake_timeout_ms=300, setup_timeout_ms=300)


def test_an_erlang_acceptor_with_another_cookie_just_falls_silent(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie="another") as erl:
            with pytest.raises(HandshakeError, match="cookie"):
                await alice.connect(erl.name, await erl.listen())

    run(story, tmp_path, setup_timeout_ms=300)


# --- who may be there -------------------------------------------------------------------------------------------------


def test_an_acceptor_without_the_key_of_its_certificate_is_refused(tmp_path: Path) -> None:
    """One in the middle can replay the certificate of a node, but not sign with its key: TLS has to notice."""

    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, stolen_certificate=True) as erl:
            with pytest.raises(NotConnected, match=r"(?i)tls|signature|decrypt"):
                await alice.connect(erl.name, await erl.listen())

    run(story, tmp_path, setup_timeout_ms=3000)


@pytest.mark.parametrize("dialer", ["alice", "erl"])
def test_another_alpn_is_refused(tmp_path: Path, dialer: str) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, alpn="h3") as erl:
            if dialer == "alice":
                with pytest.raises(NotConnected, match="ALPN"):
                    await alice.connect(erl.name, await erl.listen())
            else:
                with pytest.raises(ConnectionError):
                    await erl.dial(ALICE, alice.listen_address)

    run(story, tmp_path, setup_timeout_ms=3000)


FAULTS = {
    "unsupported_version": {"hello_version": 1},
    "signature_invalid": {"wrong_binding": True},
    "clock_skew": {"clock_offset_ms": 3_600_000},
    "name_mismatch": {"dist_name": "carol@127.0.0.1"},
    "bad_name": {"hello_name": "no name"},
    "bad_cookie": {"forge_digest": True},
    "missing_flags": {"flags": 0x1},
}


@pytest.mark.parametrize("reason", FAULTS)
def test_what_is_wrong_with_a_dialer_is_logged_in_one_line(
    tmp_path: Path, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE, **FAULTS[reason]) as erl:
            with pytest.raises(ForeignError):
                await erl.dial(ALICE, alice.listen_address)
        (record,) = refusals(caplog)
        assert record.__dict__["reason"] == reason
        assert not alice.keys.pins

    run(story, tmp_path)


def test_a_cookie_only_peer_is_let_in_both_ways(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        for dialer in ("alice", "erl"):
            async with ForeignNode(GREATER, cookie=COOKIE, cookie_only=True) as erl:
                await pair(alice, erl, dialer)
                alice.disconnect(erl.name)
        assert not alice.keys.pins

    run(story, tmp_path, cookie_only_nodes=("erl@*",))


def refusals(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [r for r in caplog.records if r.levelno >= logging.WARNING and "refused" in r.getMessage()]


# --- last words -------------------------------------------------------------------------------------------------------


def test_a_strangers_last_words_begin_no_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = "bye\n12:00:00 INFO barrel_p2p.keys: all is well\x1b[2J\x9b\u202e"

    async def story(alice: Node) -> None:
        async with ForeignNode(GREATER, cookie=COOKIE) as erl:
            wire = await erl.connect(alice.listen_address)
            await until(lambda: alice._routes._connections)
            wire.close_app(7, words)
            await until(ours)

    def ours() -> list[str]:
        texts = [record.getMessage() for record in caplog.records if record.name.startswith("barrel_p2p")]
        return [text for text in texts if "all is well" in text]

    run(story, tmp_path)
    (text,) = ours()
    assert text.isprintable()
