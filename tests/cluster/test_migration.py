"""Connections that move to another path while they are in use."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    MigrationTimeout,
    Node,
    NotConnected,
    Way,
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


def test_the_hook_is_asked_again_and_may_be_async_or_give_a_socket(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
            mine.bind(("127.0.0.1", 0))
            asked: list[tuple[str, tuple[str, int]]] = []

            async def on_address(name: str, address: tuple[str, int]) -> tuple[str, int] | Way:
                asked.append((name, address))
                await asyncio.sleep(0)
                return Way(address, mine) if len(asked) == 1 else address

            alice, bob = await two(cluster, on_address=on_address)
            assert bob.path_stats(alice.name).peer_address == mine.getsockname()
            await alice.migrate_peer(BOB)
            assert bob.path_stats(alice.name).peer_address != mine.getsockname()
            assert asked == [(BOB, bob.listen_address)] * 2

    run(story, tmp_path)


def test_a_hook_that_leads_nowhere_or_waits_too_long_leaves_the_connection_as_it_was(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
            hole.bind(("127.0.0.1", 0))
            asked = 0

            async def on_address(name: str, address: tuple[str, int]) -> tuple[str, int]:
                nonlocal asked
                asked += 1
                if asked == 2:
                    return hole.getsockname()  # type: ignore[no-any-return]
                if asked == 3:
                    await asyncio.sleep(60)
                return address

            alice, bob = await two(cluster, on_address=on_address)
            before = alice.path_stats(BOB).local_address
            with pytest.raises(MigrationTimeout):
                await alice.migrate_peer(BOB, timeout=0.3)
            with pytest.raises(MigrationTimeout, match="on_address"):
                await bob.migrate_peer(alice.name, timeout=0.3)
            assert alice.path_stats(BOB).local_address == before
            assert await alice.ping(BOB) and alice.path_stats(BOB).migrations == 0

    run(story, tmp_path)


def test_a_peer_can_keep_us_busy_with_moves_of_its_own_connection_only(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
            hole.bind(("127.0.0.1", 0))
            asked = 0

            def on_address(name: str, address: tuple[str, int]) -> tuple[str, int]:
                nonlocal asked
                asked += 1
                return address if asked == 1 else hole.getsockname()

            alice, bob = await two(cluster, on_address=on_address)
            paths = (Atom("barrel_p2p_paths"), alice.name)
            for nonsense in ("migrate", (Atom("migrate"), 0), (Atom("migrate"), 10**9), (Atom("migrate"), "soon")):
                assert (await call(paths, nonsense, node=bob))[0] == "error"
            asking = [bob.migrate_peer(alice.name, timeout=0.5) for _ in range(40)]
            answers = await asyncio.gather(*asking, return_exceptions=True)
            kinds = [type(answer).__name__ for answer in answers]
            assert kinds.count("MigrationTimeout") == 16 and kinds.count("MigrationError") == 24
            assert await bob.ping(alice.name)

    run(story, tmp_path)


EXAMPLE = Path(__file__).parents[2] / "examples" / "relay"


@pytest.mark.parametrize(("program", "number"), [("swap.py", 0), ("watchdog.py", 1)])
def test_the_relay_examples_print_what_they_promise(program: str, number: int) -> None:
    promised = re.findall(r"^```text\n(.*?)^```", (EXAMPLE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, str(EXAMPLE / program)], capture_output=True, text=True, timeout=60)
    assert done.stdout == promised[number], done.stderr
    assert "Traceback" not in done.stderr


def test_the_watchdog_of_the_documentation_is_the_one_that_runs() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "how-to" / "migration.md").read_text()
    shown = re.search(r"^```python\n(async def watch.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert shown is not None and shown[1] in (EXAMPLE / "watchdog.py").read_text()


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
