"""The overlay over real channels: joins, views, events, deaths, leaving, and broadcasts to everybody."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    ConfigError,
    EncodeError,
    HandshakeError,
    Node,
    NotConnected,
    Stream,
    demonitor,
    monitor,
    receive,
    send,
)
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")

EVENT = Atom("barrel_p2p_event")


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state of several nodes, some of other programs
            await asyncio.sleep(0.02)


def symmetric(nodes: list[Node]) -> bool:
    """Whether the views agree, as far as they name each other."""
    views = {node.name: node.active_view() for node in nodes}
    return all(name in views[peer] for name, view in views.items() for peer in view if peer in views)


def connected(nodes: list[Node]) -> bool:
    """Whether a broadcast of one reaches all of them, through them alone."""
    views = {node.name: node.active_view() for node in nodes}
    reached, queue = {nodes[0].name}, [nodes[0].name]
    while queue:
        for peer in views.get(queue.pop(), ()):
            if peer in views and peer not in reached:
                reached.add(peer)
                queue.append(peer)
    return reached == set(views)


def neighbours(nodes: list[Node]) -> set[str]:
    """Whoever is in some active view."""
    return {peer for node in nodes for peer in node.active_view()}


def listen(nodes: list[Node], tag: str) -> dict[str, list[Any]]:
    """What each node gets of a tag, from now on."""
    got: dict[str, list[Any]] = {node.name: [] for node in nodes}
    for node in nodes:
        node.gossip.handle(tag, lambda payload, peer, name=node.name: got[name].append(payload))
    return got


def test_three_nodes_join_and_tell_their_subscribers(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        seed = await cluster.node("seed")
        alice = await cluster.node("alice")
        bob = await cluster.node("bob")  # the story is a process of bob
        bob.subscribe()
        await alice.join(seed.name)
        await bob.join(seed.name)
        assert seed.name in bob.active_view()
        assert await receive(timeout=5) == (EVENT, (Atom("peer_up"), seed.name))
        assert await receive(timeout=5) == (EVENT, (Atom("peer_up"), alice.name)), "the seed sent it on a walk"
        await until(lambda: symmetric([seed, alice, bob]) and len(alice.active_view()) == 2)
        await alice.leave()
        assert alice.active_view() == []
        assert await receive(timeout=5) == (EVENT, (Atom("peer_down"), alice.name, Atom("graceful")))
        await until(lambda: alice.name not in seed.active_view())
        assert await alice.ping(bob.name), "it left the overlay and can be reached all the same"
        await alice.join(bob.name)
        assert await receive(timeout=5) == (EVENT, (Atom("peer_up"), alice.name))
        await bob.leave()
        assert await receive(timeout=5) == (EVENT, Atom("left"))
        bob.subscribe(False)

    run(story, tmp_path)


def test_a_killed_neighbour_is_told_and_replaced(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        seed = await cluster.node("seed", active_size=1)
        victim = await cluster.member("victim", contact_nodes=[seed.name])
        await until(lambda: seed.active_view() == [victim.name])
        other = await cluster.node("other", active_size=1)
        victim.signal(signal.SIGKILL)
        await until(lambda: seed.active_view() == [], 5)
        await other.join(seed.name)
        assert other.active_view() == [seed.name]
        await until(lambda: seed.active_view() == [other.name])

    run(story, tmp_path)


def test_twenty_nodes_join_broadcast_and_survive_deaths_and_a_split(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        nodes = [await cluster.node(f"n{i}", net_ticktime_ms=3000) for i in range(18)]
        await asyncio.gather(*(node.join(nodes[0].name) for node in nodes[1:]))
        victim = await cluster.member("victim", contact_nodes=[nodes[3].name])
        sleeper = await cluster.member("sleeper", contact_nodes=[nodes[4].name], net_ticktime_ms=3000)
        outside = {victim.name, sleeper.name}
        everybody = {node.name for node in nodes} | outside
        await until(lambda: neighbours(nodes) == everybody and symmetric(nodes) and connected(nodes))
        assert all(len(node.active_view()) <= 5 for node in nodes)

        got = listen(nodes, "news")
        for number in range(50):
            nodes[number % 18].gossip.broadcast("news", number)
            await asyncio.sleep(0)
        await until(lambda: all(len(items) == 50 for items in got.values()))
        assert all(sorted(items) == list(range(50)) for items in got.values()), "each exactly once, everywhere"

        victim.signal(signal.SIGKILL)
        await until(lambda: victim.name not in neighbours(nodes) and symmetric(nodes))

        sleeper.signal(signal.SIGSTOP)  # its host is cut off: nothing comes from it, and nothing is refused
        await until(lambda: sleeper.name not in neighbours(nodes) and connected(nodes))
        nodes[0].gossip.broadcast("news", 50)
        await until(lambda: all(len(items) == 51 for items in got.values()))
        sleeper.signal(signal.SIGCONT)
        await until(lambda: sleeper.name in neighbours(nodes) and symmetric(nodes), 40)
        nodes[0].gossip.broadcast("news", 51)
        await until(lambda: all(len(items) == 52 for items in got.values()))

    run(story, tmp_path, 110)


def test_channels_that_nobody_uses_are_closed_and_open_again(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        options: dict[str, Any] = {
            "dist_gc_sweep_period_ms": 200,
            "dist_gc_min_age_ms": 500,
            "active_size": 1,
            "shuffle_period_ms": 2000,
        }
        seed = await cluster.node("seed", **options)
        nodes = [await cluster.node(f"n{i}", **options) for i in range(6)]
        alice = nodes[0]
        await alice.join(seed.name)
        await asyncio.gather(*(node.join(nodes[0].name) for node in nodes[1:]))
        *others, bob = nodes  # the story is a process of bob
        for node in others:
            assert await bob.ping(node.name)
        ref = monitor(("user", seed.name))
        await until(lambda: len(bob.nodes()) == 6)
        await until(lambda: set(bob.nodes()) == {seed.name, *bob.active_view()}, 30)
        for _ in range(100):
            for node in others:
                assert await node.ping(bob.name), "the next message opens a channel again"
        demonitor(ref)
        await until(lambda: set(bob.nodes()) == set(bob.active_view()), 30)

    run(story, tmp_path)


def test_an_open_stream_keeps_its_channel(tmp_path: Path, carrier: str) -> None:
    if carrier != "barrel_p2p":
        pytest.skip("streams need QUIC")

    async def story(cluster: Cluster) -> None:
        options: dict[str, Any] = {"dist_gc_sweep_period_ms": 100, "dist_gc_min_age_ms": 300, "active_size": 1}
        seed, middle, far = [await cluster.node(name, **options) for name in ("seed", "middle", "far")]
        await middle.join(seed.name)
        await far.join(middle.name)

        async def wait_for_end(stream: Stream) -> None:
            await stream.read()

        (neighbour,) = far.active_view()
        other = middle if neighbour == seed.name else seed
        other.streams.register_acceptor("quiet", wait_for_end)
        quiet = await far.streams.open("quiet", other.name)
        await asyncio.sleep(3)
        assert other.name in far.nodes()
        quiet.reset()
        await until(lambda: far.nodes() == [neighbour], 30)

    run(story, tmp_path)


def test_fifty_channels_on_demand_are_collected_and_all_answer_again(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        options: dict[str, Any] = {"dist_gc_sweep_period_ms": 200, "dist_gc_min_age_ms": 500}
        others = [await cluster.node(f"n{i}") for i in range(50)]
        neighbour = await cluster.node("neighbour")
        hub = await cluster.node("hub", **options)
        await hub.join(neighbour.name)
        for node in others:
            assert await hub.ping(node.name)
        assert len(hub.nodes()) == 51
        await until(lambda: hub.nodes() == hub.active_view() == [neighbour.name], 40)
        assert hub.statistics().overlay.closed_idle >= 50
        assert all(await asyncio.gather(*(hub.ping(node.name) for node in others)))

    run(story, tmp_path)


def test_malformed_and_forged_gossip_is_dropped_and_counted(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        mallory = await cluster.node("mallory")  # the story is a process of mallory
        await alice.join(mallory.name)
        me, other = _record(mallory.name), _record("eve@127.0.0.1")
        for message in (
            7,
            (Atom("$barrel_p2p_hyparview"), mallory.name, (Atom("join"), Atom("me"))),
            (Atom("$barrel_p2p_hyparview"), mallory.name, (Atom("join"), other)),
            (Atom("$barrel_p2p_hyparview"), mallory.name, (Atom("forward_join"), _record(alice.name), -5, me)),
            (Atom("$barrel_p2p_hyparview"), mallory.name, (Atom("shuffle"), 10**30, [other] * 100_000, me)),
            (Atom("$barrel_p2p_hyparview"), mallory.name, (Atom("neighbor"), Atom("urgent"), me)),
            (Atom("$barrel_p2p_hyparview"), mallory.name, ()),
        ):
            send(("barrel_p2p_bridge", alice.name), message)
        for message in (
            [],
            (Atom("$barrel_p2p_plumtree"), (Atom("gossip"), b"", Atom("t"), 1, mallory.name)),
            (Atom("$barrel_p2p_plumtree"), (Atom("gossip"), b"id", b"no atom", 1, mallory.name)),
            (Atom("$barrel_p2p_plumtree"), (Atom("ihave"), b"id", Atom("eve@127.0.0.1"))),
            (Atom("$barrel_p2p_plumtree"), (Atom("prune"), 1)),
        ):
            send(("barrel_p2p_plumtree", alice.name), message)
        send(("barrel_p2p_channels", alice.name), (Atom("close"), b"now"))
        assert await mallory.ping(alice.name), "the node lives, and so does the channel"
        counts = alice.statistics().overlay
        assert sum(counts.dropped.values()) >= 10, counts
        assert alice.active_view() == [mallory.name] and len(alice.passive_view()) <= 1

    run(story, tmp_path)


def _record(name: str) -> tuple[object, ...]:
    undefined = Atom("undefined")
    return (
        Atom("peer"), Atom(name), undefined, undefined, undefined, True, Atom("high"), undefined, 0, undefined,
    )  # fmt: skip


def test_contacts_are_tried_until_one_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        contacts = ("seed@127.0.0.1", "early@127.0.0.1", "nobody@host.invalid")
        early = await cluster.node("early", contact_nodes=contacts, contact_retry_ms=200, setup_timeout_ms=2000)
        await until(lambda: "could not join through seed@127.0.0.1" in caplog.text)
        seed = await cluster.node("seed")
        await until(lambda: early.active_view() == [seed.name])
        await early.leave()
        assert early.active_view() == []

    with caplog.at_level("INFO", "barrel_p2p"):
        run(story, tmp_path)


def test_a_join_that_fails_says_why(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", setup_timeout_ms=2000)
        with pytest.raises(ConfigError, match="itself"):
            await alice.join(alice.name)
        with pytest.raises(NotConnected):
            await alice.join("nobody@127.0.0.1")
        stranger = await cluster.node("stranger", cookie="another")
        with pytest.raises(HandshakeError, match="cookie"):
            await alice.join(stranger.name)
        assert alice.active_view() == stranger.active_view() == []

    run(story, tmp_path)


def test_broadcasts_reach_subscribed_processes_as_they_were_sent(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.node("bob")  # the story is a process of bob
        await bob.join(alice.name)
        bob.gossip.subscribe("prices")
        basket = ["apple"]
        alice.gossip.broadcast("prices", basket)
        basket.append("pear")
        bob.gossip.broadcast("prices", {Atom("n"): 2})
        got = [await receive(timeout=5), await receive(timeout=5)]
        tag = Atom("prices")
        assert sorted(m[1][1] == ["apple"] for m in got) == [False, True]
        assert (Atom("plumtree_broadcast"), (tag, {Atom("n"): 2})) in got
        with pytest.raises(EncodeError):
            alice.gossip.broadcast("prices", object())
        bob.gossip.unsubscribe("prices")
        alice.gossip.broadcast("prices", 3)
        with pytest.raises(TimeoutError):
            await receive(timeout=0.3)

    run(story, tmp_path)
