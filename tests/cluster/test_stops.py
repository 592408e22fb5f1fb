"""Nodes that stop, or fail to start, at an inconvenient moment; handshakes that fail in the middle."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import AuthError, Node, NotConnected
from barrel_p2p.net.quic import Connection, QuicTransport
from barrel_p2p.node import establish
from barrel_p2p.node.membership import Membership
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto.handshake import HandshakeAcceptor
from harness.cluster import Cluster, run


def test_a_node_stops_while_it_dials(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 0))
        alice = Node("alice@127.0.0.1", **cluster.options("alice"))
        await alice.start()
        try:
            dial = asyncio.create_task(alice.connect("bob@127.0.0.1", silent.getsockname()))
            await asyncio.get_running_loop().run_in_executor(None, silent.recv, 2000)
            async with asyncio.timeout(3):
                await alice.stop()
                with pytest.raises(NotConnected, match="stopped"):
                    await dial
        finally:
            silent.close()
            await alice.stop()
        with pytest.raises(NotConnected):
            await alice.connect("bob@127.0.0.1")

    run(story, tmp_path)


def test_neighbours_of_a_node_that_stops_tell_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", base_backoff_ms=100)
        guest = await cluster.member("guest", contact_nodes=[alice.name])
        async with asyncio.timeout(20):
            while guest.name not in alice.active_view():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            caplog.clear()
            await guest.stop()
            while (logging.DEBUG, f"no connection to {guest.name}") not in told():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [text for level, text in told() if level >= logging.INFO] == [f"{guest.name} is down"]

    def told() -> list[tuple[int, str]]:
        records = [record for record in caplog.records if record.name == "barrel_p2p.connect"]
        return [(record.levelno, record.getMessage().partition(":")[0]) for record in records]

    caplog.set_level(logging.DEBUG)
    run(story, tmp_path)


def test_a_start_that_fails_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        def fails(_: Any) -> None:
            raise RuntimeError("half-way")

        alice = Node("alice@127.0.0.1", **cluster.options("alice"))
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="half-way"):
            patch.setattr(Membership, "start", fails)
            await alice.start()
        assert list((cluster.directory / "discovery").iterdir()) == []
        again = Node(alice.name, **cluster.options("alice"), listen_port=alice.listen_address[1])
        async with again:
            bob = await cluster.member("bob")
            assert await again.ping(bob.name)

    run(story, tmp_path)


@pytest.mark.parametrize("step", [(Runtime, "stop"), (QuicTransport, "close")])
def test_a_stop_that_fails_in_one_step_takes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str]
) -> None:
    async def story(cluster: Cluster) -> None:
        real = getattr(*step)

        async def fails(self: Any, *args: Any) -> None:
            await real(self, *args)
            raise RuntimeError("in the middle")

        alice = Node("alice@127.0.0.1", **cluster.options("alice"))
        await alice.start()
        port = alice.listen_address[1]
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="in the middle"):
            patch.setattr(*step, fails)
            await alice.stop()
        async with Node(alice.name, **cluster.options("alice"), listen_port=port):
            pass

    run(story, tmp_path)


def test_a_peer_that_allows_no_stream_fails_the_dial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        def full(self: Connection) -> int:
            raise NotConnected("the peer allows no more streams")

        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        with monkeypatch.context() as patch, pytest.raises(NotConnected, match="no more streams"):
            patch.setattr(Connection, "open_bi", full)
            async with asyncio.timeout(5):
                await alice.connect(bob.name)
        await alice.connect(bob.name)

    run(story, tmp_path)


def test_a_connection_that_ends_as_it_comes_up_fails_the_dial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        def gone(self: Connection, **_: Any) -> None:
            raise NotConnected("the connection is gone")

        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        with monkeypatch.context() as patch, pytest.raises(NotConnected, match="is gone"):
            patch.setattr(Connection, "start_dist", gone)
            async with asyncio.timeout(5):
                await alice.connect(bob.name)
        await alice.connect(bob.name)

    run(story, tmp_path)


def test_a_dialer_that_is_gone_before_it_is_heard_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Cluster) -> None:
        open_uni = Connection.open_uni

        def gone(self: Connection) -> int:
            if self.is_dialer:
                return open_uni(self)
            raise NotConnected("the connection is closed, or the peer allows no further stream")

        alice, bob = await cluster.node("alice"), await cluster.node("bob")
        with monkeypatch.context() as patch, pytest.raises((NotConnected, AuthError)):
            patch.setattr(Connection, "open_uni", gone)
            await bob.connect(alice.name)
        assert not alice._routes._connections and "internal error" not in caplog.text
        await bob.connect(alice.name)

    run(story, tmp_path)


def test_a_dialer_that_reads_nok_waits_and_dials_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Erlang node says so when it dials us at the same time."""
    noks = []

    def nok_once(self: establish.Accepting, *, simultaneous: bool = False) -> None:
        if noks:
            let_in(self, simultaneous=simultaneous)
        else:
            noks.append(self)
            assert isinstance(self._handshake, HandshakeAcceptor)
            self._handshake.answer("nok", now=asyncio.get_running_loop().time())
            self._pump()

    let_in = establish.Accepting.let_in

    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", setup_timeout_ms=500)
        async with Node("bob@127.0.0.1", **cluster.options("bob")) as bob:
            monkeypatch.setattr(establish.Accepting, "let_in", nok_once)
            await alice.connect(bob.name)
            assert len(noks) == 1 and alice.nodes() == [bob.name]

    run(story, tmp_path)
