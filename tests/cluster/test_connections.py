"""Who is connected to whom: on demand, at the same time, again, and how others hear of it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from barrel_p2p import ConfigError, Node, NodeDown, NotConnected, call, receive, self_pid, send
from harness.cluster import COOKIE, Cluster, run


def test_nodes_connect_ping_disconnect(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        assert alice.nodes() == []
        assert await alice.ping(bob.name)
        assert alice.nodes() == [bob.name]
        assert await alice.rpc(bob.name, "member", "nodes", []) == [alice.name]
        await alice.connect(bob.name)
        await alice.connect(alice.name)
        assert await alice.ping(alice.name)
        assert alice.disconnect(bob.name)
        assert not alice.disconnect(bob.name)
        assert alice.nodes() == []
        assert await alice.ping(bob.name), "a disconnected node can be reached again"
        assert not await alice.ping("nobody@127.0.0.1")
        for address in ("127.0.0.1:9100", ("127.0.0.1", "9100"), ("127.0.0.1", 0)):
            with pytest.raises(ConfigError, match="is a pair of host and port such as"):
                await alice.connect("nobody@127.0.0.1", address)  # type: ignore[arg-type]

    run(story, tmp_path)


def test_monitor_nodes_tells_of_every_change(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        alice.monitor_nodes()
        await alice.connect(bob.name)
        assert await receive(timeout=5) == ("nodeup", bob.name)
        alice.disconnect(bob.name)
        assert await receive(timeout=5) == ("nodedown", bob.name)
        await alice.connect(bob.name)
        assert await receive(timeout=5) == ("nodeup", bob.name)
        await bob.stop()
        assert await receive(timeout=5) == ("nodedown", bob.name)
        alice.monitor_nodes(False)

    run(story, tmp_path)


def test_both_dial_at_once_and_end_with_one_connection(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        nodes = [Node(f"n{i}@127.0.0.1", **cluster.options(f"n{i}")) for i in range(4)]
        for node in nodes:
            await node.start()
        try:
            for _ in range(10):
                await asyncio.gather(*(one.connect(other.name) for one in nodes for other in nodes if one is not other))
                for node in nodes:
                    assert sorted(node.nodes()) == sorted(o.name for o in nodes if o is not node)
                    assert await asyncio.gather(*(node.ping(o.name) for o in nodes)) == [True] * 4
                for node in nodes[::2]:
                    for other in list(node.nodes()):
                        node.disconnect(other)
        finally:
            for node in nodes:
                await node.stop()

    run(story, tmp_path)


def test_a_restarted_node_is_believed_at_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        await alice.rpc(bob.name, "member", "start_echo", ["echo"])
        alice.monitor_nodes()
        bob.signal(signal.SIGKILL)
        again = await cluster.member("bob")
        await alice.rpc(again.name, "member", "start_echo", ["echo"], timeout=10) if alice.nodes() == [] else None
        assert await receive(timeout=5) == ("nodedown", bob.name)
        assert await alice.ping(again.name)
        assert await receive(timeout=5) == ("nodeup", bob.name)

    run(story, tmp_path)


def test_a_name_that_a_live_node_has_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        await alice.connect(bob.name)
        (cluster.directory / "copy").mkdir()
        import shutil

        shutil.copytree(cluster.directory / "bob" / "keys", cluster.directory / "copy" / "keys")
        twin = Node(bob.name, **cluster.options("copy") | {"discovery_dir": None})
        await twin.start()
        try:
            with pytest.raises(Exception, match="not let") as refused:
                await twin.connect(alice.name, alice.listen_address)
            assert getattr(refused.value, "reason", None) == "not_allowed"
        finally:
            await twin.stop()
        assert "taken" in caplog.text
        assert alice.nodes() == [bob.name]
        assert await alice.ping(bob.name)

    run(story, tmp_path)


def test_an_unreachable_node_is_reported_not_waited_for(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", setup_timeout_ms=1500)
        with pytest.raises(NotConnected, match="ghost"):
            await alice.connect("ghost@no-such-host.invalid")
        with pytest.raises(NotConnected):
            await alice.connect("ghost@127.0.0.1", ("127.0.0.1", 9))
        with pytest.raises(NodeDown):
            await call(("anyone", "ghost@127.0.0.1"), "hello", timeout=5)
        send(("anyone", "ghost@127.0.0.1"), "silent")

    run(story, tmp_path)


def test_bad_options_say_what_to_do(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        with pytest.raises(ConfigError, match="name@host"):
            Node("alice")
        with pytest.raises(ConfigError, match="listen_port"):
            Node("alice@127.0.0.1", listen_prt=1)
        with pytest.raises(ConfigError, match="0 to 65535"):
            Node("alice@127.0.0.1", listen_port=70000)
        with pytest.raises(ConfigError, match="cookie"):
            Node("alice@127.0.0.1", cookie_only_nodes=("*@*",))

        alice = await cluster.node("alice")
        taken = Node("bob@127.0.0.1", **cluster.options("bob"), listen_port=alice.listen_address[1])
        with pytest.raises(ConfigError, match=str(alice.listen_address[1])):
            await taken.start()
        shared = Node("carol@127.0.0.1", **cluster.options("alice"))
        with pytest.raises(ConfigError, match="alice"):
            await shared.start()

        blocked = cluster.directory / "a file"
        blocked.write_text("no directory")
        with pytest.raises(ConfigError, match="a file"):
            await Node("dave@127.0.0.1", **cluster.options("x") | {"data_dir": str(blocked)}).start()
        (cluster.directory / "half" / "keys").mkdir(parents=True)
        half = cluster.directory / "half" / "keys" / "node.key"
        half.write_bytes(b"x" * 16)
        half.chmod(0o600)
        with pytest.raises(ConfigError, match=r"node\.key"):
            await Node("dave@127.0.0.1", **cluster.options("half")).start()
        assert half.read_bytes() == b"x" * 16, "a damaged key is never replaced"

    run(story, tmp_path)


def test_several_nodes_live_in_one_program(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        async with (
            Node("a@127.0.0.1", **cluster.options("a")) as a,
            Node("b@127.0.0.1", **cluster.options("b")) as b,
        ):
            assert self_pid().node == b.name, "the innermost block is the current process"
            assert await a.ping(b.name) and await b.ping(a.name)
            assert a.options.cookie == COOKIE

    run(story, tmp_path)
