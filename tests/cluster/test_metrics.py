"""What nodes measure while they talk, over each carrier; read as plain data, for Prometheus and by OpenTelemetry."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import ConfigError, GenServer, HandshakeError, Node, NotConnected, call, receive, self_pid, send, spawn
from barrel_p2p.metrics import instrument, prometheus_text
from barrel_p2p.node.telemetry import Distribution
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")


async def until(condition: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)


def series(node: Node, name: str) -> Any:
    return node.statistics().metrics[f"barrel_p2p.{name}"].series


class Echo(GenServer):
    async def handle_call(self, request: Any, from_: Any) -> Any:
        return request


def test_a_conversation_is_measured_on_both_sides_and_stays_counted_when_it_ends(tmp_path: Path, carrier: str) -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")
        alice = await cluster.node("alice")
        await Echo.start(name="echo", node=bob)
        for number in range(20):
            assert await call(("echo", bob.name), number) == number
        await call(("echo", bob.name), b"x" * 100_000)
        assert series(alice, "channel.messages")[bob.name, "sent"] >= 21
        assert series(bob, "channel.messages")[alice.name, "received"] >= 21
        assert series(alice, "channel.bytes")[bob.name, "received"] > 100_000
        assert series(alice, "channel.count")[()] == 1
        assert series(alice, "dist.handshakes") == {("outgoing", "ok"): 1}
        assert series(bob, "dist.handshakes") == {("incoming", "ok"): 1}
        peer = alice.statistics().peers[bob.name]
        assert peer.sent_bytes > 100_000 and (peer.round_trip_ms is None) == (carrier == "inet_tcp")
        if carrier == "barrel_p2p":
            assert series(alice, "dist.auth.attempts") == {("outgoing", "ok"): 1}
            assert series(bob, "dist.auth.duration_ms")["incoming", "ok"].count == 1
            assert 0 < series(alice, "channel.round_trip")[bob.name,] < 5
        else:
            assert not series(alice, "dist.auth.attempts") and not series(alice, "channel.round_trip")
        await until(lambda: series(alice, "loop.lag"))  # each second bytes are looked at as well
        before = series(alice, "channel.messages"), series(alice, "channel.bytes")
        alice.disconnect(bob.name)
        await until(lambda: not alice.nodes())
        assert series(alice, "channel.messages") == before[0] and series(alice, "channel.count")[()] == 0
        assert series(alice, "channel.bytes")[bob.name, "received"] >= before[1][bob.name, "received"]
        await call(("echo", bob.name), "again")
        assert series(alice, "channel.messages")[bob.name, "sent"] > before[0][bob.name, "sent"]
        assert series(alice, "channel.bytes")[bob.name, "received"] > 100_000

    run(story, tmp_path)


def test_a_refusal_is_counted_with_its_reason(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")
        alice = await cluster.node("alice", cookie="another")
        with pytest.raises(HandshakeError):
            await alice.connect(bob.name)
        await until(lambda: series(bob, "dist.handshakes"))
        assert series(bob, "dist.handshakes") == {("incoming", "bad_cookie"): 1}
        durations = series(bob, "dist.handshake.duration")
        assert list(durations) == [("incoming", "fail")] and durations["incoming", "fail"].count == 1
        assert [role for role, _ in series(alice, "dist.handshakes")] == ["outgoing"]

    run(story, tmp_path)


def test_the_overlay_counts_neighbours_and_broadcasts(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.node("bob")
        await bob.join(alice.name)
        bob.gossip.subscribe("news")
        alice.gossip.broadcast("news", 1)
        await receive(timeout=5)
        assert series(bob, "hyparview.joined") == {(): 1}
        assert series(bob, "hyparview.peer_up") == {(alice.name,): 1}
        assert series(alice, "plumtree.gossip.sent")[()] >= 1
        assert series(bob, "plumtree.gossip.received")[alice.name,] >= 1
        assert series(alice, "hyparview.active")[()] == series(alice, "plumtree.eager")[()] == 1
        send(("barrel_p2p_bridge", alice.name), "nonsense")
        await until(lambda: series(alice, "overlay.dropped"))
        assert series(alice, "overlay.dropped") == {("hyparview", "not an envelope"): 1}
        await bob.leave()
        assert series(bob, "hyparview.left") == {(): 1}
        await until(lambda: series(alice, "hyparview.peer_down"))
        assert series(alice, "hyparview.peer_down") == {(bob.name, "graceful"): 1}
        await bob.join(alice.name)
        assert series(bob, "hyparview.joined") == {(): 2}

    run(story, tmp_path)


def test_mailboxes_and_a_busy_channel_show(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.node("alice", send_high_water=10_000)
        member = await cluster.member("bob")

        async def sleeper() -> None:
            await asyncio.sleep(60)

        pid = spawn(sleeper)
        for _ in range(7):
            send(pid, "wait")
        assert series(node, "process.mailbox.longest")[()] == 7
        assert series(node, "process.mailbox.messages")[()] >= 7
        assert await node.ping(member.name)
        send(("nobody", member.name), b"x" * 16_000_000)  # more than QUIC or the kernel takes at once
        assert node.statistics().peers[member.name].busy
        await asyncio.sleep(0)  # suspended until the channel has room
        await until(lambda: not node.statistics().peers[member.name].busy)
        busy = series(node, "channel.busy_time")[member.name,]
        assert 0 < busy < 30
        assert series(node, "channel.busy_time")[member.name,] == busy

    run(story, tmp_path)


def test_a_blocked_event_loop_shows_in_its_lag(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        node = await cluster.node("alice")
        time.sleep(1.5)  # noqa: ASYNC251 - the fault of a user
        await asyncio.sleep(0.05)
        lag = series(node, "loop.lag")[()]
        assert isinstance(lag, Distribution) and lag.total > 0.4

    run(story, tmp_path)


# --- OpenTelemetry ----------------------------------------------------------------------------------------------------


def points(reader: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found.setdefault(metric.name, []).extend(metric.data.data_points)
    return found


def provider() -> tuple[Any, Any]:
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    return reader, sdk.MeterProvider([reader])


def test_a_reader_in_its_own_thread_sees_all_nodes_of_the_program(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        reader, meters = provider()
        bob = Node("bob@127.0.0.1", **cluster.options("bob"))
        ended = [instrument(bob, meters)]  # before it starts, so that no handshake is missed
        async with bob:
            alice = await cluster.node("alice")
            ended.append(instrument(alice, meters))
            await alice.connect(bob.name)
            found = await asyncio.to_thread(points, reader)
            counts = {p.attributes["node"]: p.value for p in found["barrel_p2p.channel.count"]}
            assert counts == {"alice@127.0.0.1": 1, "bob@127.0.0.1": 1}
            sent = [p for p in found["barrel_p2p.channel.messages"] if p.attributes["direction"] == "sent"]
            assert {p.attributes["peer"] for p in sent} == {"alice@127.0.0.1", "bob@127.0.0.1"}
            handshakes = found["barrel_p2p.dist.handshake.duration"]
            assert [(p.attributes["node"], p.count) for p in handshakes if p.attributes["role"] == "incoming"] == [
                ("bob@127.0.0.1", 1)
            ]
            assert points(reader)["barrel_p2p.process.count"], "also in the event loop itself"
            for one in ended:
                one.stop()
            assert "barrel_p2p.channel.count" not in await asyncio.to_thread(points, reader)
        await asyncio.to_thread(meters.shutdown)

    run(story, tmp_path)


def test_a_reader_does_not_wait_for_long_when_the_loop_is_blocked_or_gone(tmp_path: Path) -> None:
    seen: list[tuple[float, dict[str, list[Any]]]] = []
    reader, meters = provider()

    def read() -> None:
        started = time.monotonic()
        found = points(reader)
        seen.append((time.monotonic() - started, found))

    async def story(cluster: Cluster) -> None:
        instrument(await cluster.node("alice"), meters)
        await asyncio.to_thread(read)
        await asyncio.sleep(0.3)
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()  # as a program does that shuts its exporter down in the event loop
        read()  # in the loop

    run(story, tmp_path)
    read()  # after its end
    times, found = zip(*seen, strict=True)
    assert found[0]["barrel_p2p.process.count"] and found[1]["barrel_p2p.process.count"], "the last readings stand"
    assert max(times) < 5
    assert "barrel_p2p.process.count" not in found[3]


def test_a_provider_that_raises_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = pytest.importorskip("opentelemetry.metrics")

    class Histogram:
        def record(self, *_: Any) -> None:
            raise RuntimeError("the exporter is broken")

    class Meter(metrics.NoOpMeter):  # type: ignore[misc, name-defined]
        def create_observable_gauge(self, *_: Any, **__: Any) -> Any:
            raise ValueError("no gauges here")

        def create_histogram(self, *_: Any, **__: Any) -> Any:
            return Histogram()

    class Provider(metrics.NoOpMeterProvider):  # type: ignore[misc, name-defined]
        def get_meter(self, *_: Any, **__: Any) -> Any:
            return Meter("barrel_p2p")

    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        instrument(alice, Provider())
        bob = await cluster.node("bob")
        await bob.connect(alice.name)
        assert await alice.ping(bob.name)
        assert series(alice, "dist.handshake.duration")["incoming", "ok"].count == 1
        assert "barrel_p2p_channel_count" in prometheus_text(alice)

    run(story, tmp_path)
    assert "does not take the instrument barrel_p2p.channel.count" in caplog.text
    assert len([r for r in caplog.records if "a listener" in r.message]) == 1


def test_without_the_package_instrument_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"barrel-p2p\[otel\]"):
        instrument(Node("alice@127.0.0.1"))


# --- what services count ----------------------------------------------------------------------------------------------


def test_registry_and_maps_show_their_sizes_and_what_they_refuse(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")
        alice = await cluster.node("alice")
        await alice.join(bob.name)
        before = sum(series(bob, "replica.entries").values())
        alice.registry.register("counter", self_pid())
        prices = alice.maps.open("prices")
        for number in range(5):
            prices[f"apple {number}"] = number
        bob.maps.open("prices")
        await until(lambda: sum(series(bob, "replica.entries").values()) >= before + 6)
        sizes = series(bob, "replica.entries")
        assert [size for (name,), size in sizes.items() if "prices" in name] == [5]
        send(("barrel_p2p_router", bob.name), "nonsense")
        await until(lambda: series(bob, "replica.refused"))
        assert ("barrel_p2p_router", "malformed") in series(bob, "replica.refused")

    run(story, tmp_path)


def test_streams_and_moves_of_connections_are_counted(tmp_path: Path, carrier: str) -> None:
    if carrier == "inet_tcp":
        return  # it has neither

    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")
        alice = await cluster.node("alice")

        async def hold(stream: Any) -> None:
            async for _ in stream:
                pass

        bob.streams.register_acceptor("hold", hold)
        await alice.connect(bob.name)
        stream = await alice.streams.open("hold", bob.name)
        await stream.write(b"x")
        assert series(alice, "streams.open")[bob.name,] == 1
        await stream.close()
        unwanted = await alice.streams.open("nobody", bob.name)
        await unwanted.write(b"x")
        await until(lambda: series(bob, "streams.refused").get((alice.name,)))
        await alice.migrate_peer(bob.name)
        with pytest.raises(NotConnected):
            await alice.migrate_peer("nobody@127.0.0.1")
        assert series(alice, "dist.migrate") == {(bob.name, "ok"): 1, ("nobody@127.0.0.1", "fail"): 1}

    run(story, tmp_path)
