"""Bounded memory: a receiver that is ten times slower than its senders makes them wait, and nobody else."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

import pytest

from barrel_p2p import ChannelOverflow, call, link, process_flag, receive, self_pid, send, spawn
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")

MB = 64.0


def own_rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


async def flood(to: object, count: int, payload: bytes) -> None:
    for i in range(count):
        send(to, (i, payload))
        await asyncio.sleep(0)


def test_a_slow_process_holds_its_senders_on_another_node(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        carol = await cluster.member("carol")
        process_flag("trap_exit", True)
        adder = await alice.rpc(carol.name, "member", "start_adder", ["adder"])
        link(adder)
        before_here = own_rss_mb()
        before_there = await alice.rpc(carol.name, "member", "rss_mb", [])
        bob_before = await alice.rpc(bob.name, "member", "rss_mb", [])

        count, payload = 3000, bytes(100_000)  # 300 MB in all, 1 ms for each: far more than any buffer
        slow = await alice.rpc(bob.name, "member", "start_collector", [count, self_pid(), 0.001, 50])
        sender = spawn(flood, slow, count, payload)
        peak = 0.0
        done = None
        while done is None:
            assert await call(adder, ("add", 1), timeout=2) > 0, "calls to other nodes go on"
            peak = max(peak, own_rss_mb())
            try:
                done = await receive(timeout=0.05, match=lambda m: m[0] == "collected")
            except TimeoutError:
                continue
        assert done == ("collected", count, None)
        assert peak - before_here < MB, f"the sending node grew by {peak - before_here:.0f} MB"
        bob_after = await alice.rpc(bob.name, "member", "rss_mb", [])
        assert bob_after - bob_before < MB, f"the receiving node grew by {bob_after - bob_before:.0f} MB"
        assert before_there > 0 and sender is not None

    run(story, tmp_path, limit=60)


def test_a_slow_loop_holds_the_senders_too(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        count, payload = 1500, bytes(200_000)  # 300 MB
        sink = await alice.rpc(bob.name, "member", "start_collector", [count, self_pid(), 0, None])
        bob_before = await alice.rpc(bob.name, "member", "rss_mb", [])
        here_before = own_rss_mb()
        blocked = asyncio.create_task(alice.rpc(bob.name, "member", "block", [3], timeout=30))
        await asyncio.sleep(0.1)
        spawn(flood, sink, count, payload)
        peak = 0.0
        while not blocked.done():
            peak = max(peak, own_rss_mb())
            await asyncio.sleep(0.05)
        assert await receive(timeout=30) == ("collected", count, None)
        assert peak - here_before < MB, f"the sending node grew by {peak - here_before:.0f} MB"
        bob_after = await alice.rpc(bob.name, "member", "rss_mb", [])
        assert bob_after - bob_before < MB, f"the receiving node grew by {bob_after - bob_before:.0f} MB"

    run(story, tmp_path, limit=60)


def test_a_sender_that_never_awaits_is_told_and_the_node_lives_on(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", send_high_water=100_000, send_hard_limit=20_000_000)
        bob = await cluster.member("bob")
        echo = await alice.rpc(bob.name, "member", "start_echo", ["echo"])
        with pytest.raises(ChannelOverflow, match="await"):
            for _ in range(10_000):
                send(echo, (self_pid(), bytes(100_000)))
        assert alice.nodes() == []
        assert await alice.ping(bob.name)
        with pytest.raises(ChannelOverflow, match="await"):
            for _ in range(10_000):
                send(("nobody", "ghost@127.0.0.1"), bytes(100_000))

    run(story, tmp_path)
