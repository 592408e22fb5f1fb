"""Connections that move to another path while they are in use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Node,
    NotConnected,
    call,
    link,
    monitor,
    process_flag,
    receive,
    self_pid,
    send,
)
from harness.cluster import Cluster, run

BOB, CAROL = "bob@127.0.0.1", "carol@127.0.0.1"
MiB = 1 << 20


async def two(cluster: Cluster, **options: Any) -> tuple[Node, Node]:
    bob = await cluster.node("bob")
    alice = await cluster.node("alice", **options)
    await alice.connect(bob.name)
    return alice, bob


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


def test_the_dialer_moves_to_another_port_and_both_sides_see_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        carol = await cluster.member("carol")
        await alice.connect(carol.name)
        before, others = alice.path_stats(BOB), alice.path_stats(CAROL)
        await alice.migrate_peer(BOB)
        after = alice.path_stats(BOB)
        assert after.local_address != before.local_address
        assert after.peer_address == before.peer_address
        assert (before.migrations, after.migrations) == (0, 1)
        theirs = bob.path_stats(alice.name)
        assert theirs.peer_address[1] == after.local_address[1]
        assert theirs.migrations == 1
        assert await alice.ping(BOB)
        assert alice.path_stats(CAROL).local_address == others.local_address
        assert bob.nodes() == [alice.name]

    run(story, tmp_path)


def test_the_side_that_was_dialed_asks_the_other_one_to_move(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        before = alice.path_stats(BOB)
        assert (before.is_dialer, bob.path_stats(alice.name).is_dialer) == (True, False)
        await bob.migrate_peer(alice.name)
        assert alice.path_stats(BOB).local_address != before.local_address
        assert bob.path_stats(alice.name).migrations == 1
        await asyncio.gather(*(bob.migrate_peer(alice.name) for _ in range(5)), alice.migrate_peer(BOB))
        assert await alice.ping(BOB)

    run(story, tmp_path)


def test_a_node_that_is_not_connected_can_not_be_moved(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        for action in (alice.migrate_peer(BOB),):
            with pytest.raises(NotConnected):
                await action
        with pytest.raises(NotConnected):
            alice.path_stats(BOB)

    run(story, tmp_path)


def test_path_statistics_tell_of_the_path(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await two(cluster)
        for _ in range(20):
            assert await alice.ping(BOB)
        stats = alice.path_stats(BOB)
        assert 0 < stats.min_rtt_ms <= stats.smoothed_rtt_ms < 1000
        assert 0 < stats.latest_rtt_ms < 1000
        assert stats.congestion_window >= stats.mtu >= 1200
        assert stats.bytes_in_flight <= stats.congestion_window
        assert stats.lost_packets <= stats.sent_packets
        assert stats.peer_address == bob.listen_address

    run(story, tmp_path)


def test_links_monitors_messages_and_streams_ride_through_a_hundred_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        process_flag("trap_exit", True)
        adder = await alice.rpc(BOB, "member", "start_adder", ["adder"])
        link(adder)
        monitor(adder)
        echo = await alice.rpc(BOB, "member", "start_echo", ["echo"])
        stream = await alice.streams.open("echo", BOB)
        over = False
        gaps: list[float] = []
        received = 0
        sent = 0

        async def talk() -> None:
            """10,000 numbered messages a second, there and back, in steps of 5 ms."""
            nonlocal sent
            start = time.monotonic()
            while not over:
                due = int((time.monotonic() - start) * 10_000)
                while sent < due:
                    send(echo, (self_pid(), sent))
                    sent += 1
                await asyncio.sleep(0.005)
            send(echo, (self_pid(), "over"))

        async def listen() -> None:
            nonlocal received
            last = time.monotonic()
            while (number := await receive(timeout=5)) != "over":
                assert number == received, "lost, doubled or out of order"
                received += 1
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        written = bytearray()
        returned = bytearray()

        async def pour() -> None:
            number = 0
            while not over:
                block = number.to_bytes(8) * 8192
                written.extend(block)
                await stream.write(block)
                number += 1
                await asyncio.sleep(0.002)
            await stream.close()

        async def drain() -> None:
            async for chunk in stream:
                returned.extend(chunk)

        async def work() -> None:
            await asyncio.gather(talk(), listen())

        working = [asyncio.create_task(coroutine) for coroutine in (work(), pour(), drain())]
        took = []
        for _ in range(100):
            begin = time.monotonic()
            await alice.migrate_peer(BOB)
            took.append(time.monotonic() - begin)
            await asyncio.sleep(0.02)
        over = True
        async with asyncio.timeout(20):
            await asyncio.gather(*working)
        assert received == sent > 10_000
        assert returned == written and len(written) > MiB
        assert await call(adder, ("add", 1)) == 1
        assert alice.path_stats(BOB).migrations == 100
        assert alice.nodes() == [BOB]
        with capsys.disabled():
            print(
                f"\n  {received} messages and {len(written) >> 20} MiB over 100 moves: longest gap between messages "
                f"{max(gaps) * 1000:.0f} ms, slowest move {max(took) * 1000:.0f} ms, lost packets "
                f"{alice.path_stats(BOB).lost_packets}"
            )
        await bob.kill()
        events = [await receive(timeout=5) for _ in range(2)]
        assert sorted(str(event[0]) for event in events) == ["DOWN", "EXIT"]

    run(story, tmp_path, limit=90)
