"""Who is not let in, and what both sides are told about it."""

from __future__ import annotations

import asyncio
import logging
import resource
from pathlib import Path

import pytest

from barrel_p2p import AuthError, BarrelError, HandshakeError, Node, NotConnected, receive
from barrel_p2p.node import carrier_quic
from harness.cluster import COOKIE, Cluster, run


async def refused(cluster: Cluster, alice: Node, name: str, **options: object) -> BarrelError:
    """Start a node ``name`` that tries to connect to alice; return the error it gets."""
    other = Node(f"{name}@127.0.0.1", **cluster.options(name) | options)
    await other.start()
    try:
        with pytest.raises(BarrelError) as error:
            await other.connect(alice.name)
        return error.value
    finally:
        await other.stop()


@pytest.mark.usefixtures("carrier")
def test_a_dial_without_a_descriptor_to_spare_says_what_to_do(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(NotConnected) as error:
                await alice.connect("bob@127.0.0.1", ("127.0.0.1", 9))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert str(error.value).startswith("can't dial bob@127.0.0.1") and "ulimit -n" in str(error.value)

    run(story, tmp_path)


def test_a_wrong_cookie_is_told_on_both_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", setup_timeout_ms=2000)
        bob = await cluster.member("bob")
        error = await refused(cluster, alice, "eve", cookie="wrong", setup_timeout_ms=2000)
        assert isinstance(error, HandshakeError) and "cookie" in str(error)
        assert any("cookie" in r.getMessage() and "eve" in r.getMessage() for r in caplog.records)
        assert await alice.ping(bob.name)
        assert "eve@127.0.0.1" not in alice.keys.pins, "a node without the cookie is not pinned"

    run(story, tmp_path)


def test_what_somebody_has_to_mend_is_a_warning_where_it_was_dialled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that joins by ``contact_nodes`` has no caller who would see the error."""

    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", setup_timeout_ms=2000)
        await refused(cluster, alice, "eve", cookie="wrong", setup_timeout_ms=2000)
        with pytest.raises(NotConnected):
            await alice.connect("nobody@127.0.0.1", ("127.0.0.1", 1))
        said = {r.getMessage(): r.levelno for r in caplog.records if r.getMessage().startswith("no connection to")}
        assert {text.split()[3].rstrip(":"): level for text, level in said.items()} == {
            "alice@127.0.0.1": logging.WARNING,
            "nobody@127.0.0.1": logging.INFO,
        }

    caplog.set_level(logging.INFO)
    run(story, tmp_path)


def test_another_key_for_a_pinned_name_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        assert await alice.ping(bob.name)
        alice.monitor_nodes()
        await bob.kill()
        assert await receive(timeout=10) == ("nodedown", bob.name)

        error = await refused(cluster, alice, "bob", data_dir=str(cluster.directory / "other"))
        assert isinstance(error, AuthError) and error.reason == "rejected:key_mismatch"

        false_bob = await cluster.member("bob", data_dir=str(cluster.directory / "other"))
        with pytest.raises(AuthError) as ours:  # and when we dial it
            await alice.connect(false_bob.name)
        assert ours.value.reason == "key_mismatch"
        assert "is pinned for it" in caplog.text, "of what came in, too"
        assert alice.keys.fingerprint not in str(ours.value)
        assert ours.value.details["pinned"] == alice.keys.pins[false_bob.name] != ours.value.details["presented"]

        alice.keys.unpin(false_bob.name)  # the remedy that the message names
        await alice.connect(false_bob.name)

    run(story, tmp_path)


def test_strict_mode_lets_only_pinned_keys_in(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", trust_mode="strict")
        error = await refused(cluster, alice, "eve")
        assert isinstance(error, AuthError) and error.reason == "rejected:untrusted_key"

        friend = Node("friend@127.0.0.1", **cluster.options("friend"))
        await friend.start()
        try:
            alice.keys.pin(friend.name, friend.keys.public_key)
            await friend.connect(alice.name)
            assert alice.nodes() == [friend.name]
        finally:
            await friend.stop()

    run(story, tmp_path)


def test_a_clock_an_hour_off_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from barrel_p2p.node import establish

    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", auth_handshake_timeout_ms=3000)
        bob = await cluster.member("bob", auth_handshake_timeout_ms=3000)
        real = establish._wall_ms
        monkeypatch.setattr(establish, "_wall_ms", lambda: real() + 3_600_000)
        with pytest.raises(AuthError, match="clock"):
            await alice.connect(bob.name)
        monkeypatch.setattr(establish, "_wall_ms", real)
        await alice.connect(bob.name)

    run(story, tmp_path)


def test_cookie_only_nodes_need_no_key(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        patterns = ("*@127.0.0.1",)
        alice = await cluster.node("alice", cookie_only_nodes=patterns)
        bob = Node("bob@127.0.0.1", **cluster.options("bob"), cookie_only_nodes=patterns)
        await bob.start()
        try:
            await bob.connect(alice.name)
            assert await alice.ping(bob.name)
            assert not alice.keys.pins and not bob.keys.pins
        finally:
            await bob.stop()
        error = await refused(cluster, alice, "eve")  # alice skips the keys, eve does not accept that
        assert isinstance(error, AuthError)

    run(story, tmp_path)


@pytest.mark.parametrize("same_incarnation", [True, False])
def test_who_claims_a_name_that_needs_no_key_does_not_cut_its_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_incarnation: bool
) -> None:
    """The incarnation is no secret: every pid has it."""

    async def story(cluster: Cluster) -> None:
        cookie_only = {"cookie_only_nodes": ("*@127.0.0.1",)}
        alice = await cluster.node("alice", **cookie_only)
        bob = Node("bob@127.0.0.1", **cluster.options("bob"), **cookie_only)
        stranger, again = (
            Node(bob.name, **cluster.options(directory, discovery_dir=None, cookie=cookie), **cookie_only)
            for directory, cookie in (("stranger", "guessed"), ("again", COOKIE))
        )
        if same_incarnation:
            monkeypatch.setattr(carrier_quic.secrets, "randbelow", lambda bound: 1000)
        try:
            for node in (bob, stranger, again):
                await node.start()
            await bob.connect(alice.name)
            alice.monitor_nodes()
            with pytest.raises(HandshakeError) as error:
                await stranger.connect(alice.name, alice.listen_address)
            assert error.value.reason in ("closed", "not_allowed")
            assert await alice.ping(bob.name) and await bob.ping(alice.name)
            with pytest.raises(TimeoutError):
                await receive(timeout=0.1)
            if same_incarnation:  # with the cookie it is bob, who has lost the channel
                await again.connect(alice.name, alice.listen_address)
                assert await receive(timeout=5) == ("nodedown", bob.name)
                assert await receive(timeout=5) == ("nodeup", bob.name)
        finally:
            for node in (again, stranger, bob):
                await node.stop()

    run(story, tmp_path)


def test_bytes_that_are_no_quic_and_silent_connections_harm_nobody(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=alice.listen_address)
        for size in (0, 1, 20, 21, 1199, 1200, 1472, 9000):
            for first in (0x00, 0x40, 0xC0, 0xFF):
                transport.sendto(bytes([first]) * size)
        transport.close()
        assert await alice.ping(bob.name)

    run(story, tmp_path)


def test_a_port_where_nobody_listens_is_noticed_at_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        before = asyncio.get_running_loop().time()
        with pytest.raises(NotConnected) as error:
            await alice.connect("ghost@127.0.0.1", ("127.0.0.1", 9))
        assert error.value.reason == "unreachable"
        assert asyncio.get_running_loop().time() - before < 5

    run(story, tmp_path)


def test_refusals_are_warnings_in_the_log_with_peer_and_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", trust_mode="strict")
        await refused(cluster, alice, "eve")
        records = [r for r in caplog.records if r.levelno == logging.WARNING and "refused" in r.getMessage()]
        assert records and records[0].__dict__["reason"] == "untrusted_key"
        assert records[0].__dict__["peer"] == "eve@127.0.0.1"

    run(story, tmp_path)
