"""Links and monitors across nodes: each fires exactly once, with the reason that Erlang gives."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from barrel_p2p import (
    Atom,
    CallError,
    CallTimeout,
    Node,
    NodeDown,
    Pid,
    call,
    demonitor,
    exit,
    link,
    monitor,
    process_flag,
    receive,
    self_pid,
    send,
    spawn,
    unlink,
)
from barrel_p2p.proto.control import Op
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")

NOCONNECTION = Atom("noconnection")


async def nothing_more(seconds: float = 0.3) -> None:
    with pytest.raises(TimeoutError):
        message = await receive(timeout=seconds)
        print("unexpected:", message)


async def watched(alice: Node, member: Atom, seconds: float = 60.0) -> Pid:
    return await spawn("member:loop_worker", seconds, node=member)


def test_a_channel_that_is_closed_for_a_bug_of_ours_is_lost_like_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")

        def bug(*_: object) -> None:
            raise RuntimeError("a bug")

        pids = [await watched(alice, bob.name) for _ in range(2)]
        refs = {monitor(pid) for pid in pids}
        alice._parts._dispatch._handlers[Op.PAYLOAD_MONITOR_P_EXIT] = bug
        exit(pids[0], Atom("news that meets the bug"))
        down = [await receive(timeout=5) for _ in pids]
        assert {message[1] for message in down} == refs and {message[4] for message in down} == {NOCONNECTION}
        assert bob.name not in alice.nodes()
        assert await alice.ping(bob.name), "the next connection is made as usual"

    run(story, tmp_path)
    assert "a bug" in caplog.text


def test_a_process_that_ends_is_told_with_its_reason(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        process_flag("trap_exit", True)

        pid = await watched(alice, bob.name)
        link(pid)
        ref = monitor(pid)
        exit(pid, (Atom("because"), 42))
        got = sorted([await receive(timeout=5), await receive(timeout=5)], key=lambda m: m[0])
        reason = (Atom("because"), 42)
        assert got == [("DOWN", ref, "process", pid, reason), ("EXIT", pid, reason)]

        gone = monitor(pid)
        assert await receive(timeout=5) == ("DOWN", gone, "process", pid, "noproc")
        link(pid)
        assert await receive(timeout=5) == ("EXIT", pid, "noproc")
        by_name = monitor(("nobody", bob.name))
        assert await receive(timeout=5) == (
            "DOWN",
            by_name,
            "process",
            ("nobody", bob.name),
            "noproc",
        )
        await nothing_more()

    run(story, tmp_path)


def test_unlink_and_demonitor_are_the_end_of_it(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        process_flag("trap_exit", True)
        pid = await watched(alice, bob.name)
        for _ in range(50):  # unlink races with the death, yet no EXIT of a removed link arrives
            link(pid)
            unlink(pid)
        ref = monitor(pid)
        demonitor(ref)
        exit(pid, "kill")
        await nothing_more()

    run(story, tmp_path)


def test_our_death_reaches_the_other_node(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        trapper = await alice.rpc(bob.name, "member", "start_trapper", [self_pid()])

        async def short() -> None:
            link(trapper)
            await receive(match=lambda m: m == "go")
            exit((Atom("bye"), 1))

        child = spawn(short)
        send(child, "go")
        assert await receive(timeout=5) == ("trapped", ("EXIT", child, ("bye", 1)))

    run(story, tmp_path)


def test_kill_minus_nine_fires_everything_once_within_a_second(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        process_flag("trap_exit", True)
        alice.monitor_nodes()
        for dials in ("we dial", "we are dialled"):
            name = "bob" if dials == "we dial" else "carol"
            member = await cluster.member(name)
            if dials == "we are dialled":
                helper = await cluster.member("helper")
                await alice.rpc(helper.name, "member", "nodes", [])
                assert await receive(timeout=5) == ("nodeup", helper.name)
                await _ask_to_dial(cluster, member.name, alice)
            pid = await watched(alice, member.name)
            assert await receive(timeout=5) == ("nodeup", member.name)
            link(pid)
            refs = [monitor(pid) for _ in range(3)]
            waiting = asyncio.create_task(call(("adder", member.name), "x", timeout=10))
            assert await alice.ping(member.name)
            with pytest.raises(CallError):
                await waiting

            before = time.monotonic()
            member.signal(signal.SIGKILL)
            got = [await receive(timeout=5) for _ in range(5)]
            took = time.monotonic() - before
            assert ("EXIT", pid, NOCONNECTION) in got
            assert ("nodedown", member.name) in got
            for ref in refs:
                assert ("DOWN", ref, "process", pid, NOCONNECTION) in got
            assert took < 1.5, f"{dials}: noticed after {took:.2f} s"
            await nothing_more()

    run(story, tmp_path)


async def _ask_to_dial(cluster: Cluster, name: Atom, alice: Node) -> None:
    """Let ``name`` dial alice, through a third node that alice does not share a channel with."""
    alice.export(lambda: "unused", module="alice", name="unused")
    go_between = Node("gobetween@127.0.0.1", **cluster.options("gobetween"))
    await go_between.start()
    try:
        await go_between.rpc(name, "member", "connect", [alice.name])
    finally:
        await go_between.stop()


def test_a_call_to_a_dying_node_says_so(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        adder = await alice.rpc(bob.name, "member", "start_adder", ["adder"])
        with pytest.raises(CallTimeout):
            await call(adder, "slow", timeout=0.01)
        with pytest.raises(CallError) as crash:
            await call(adder, "crash", timeout=5)
        assert not isinstance(crash.value, CallTimeout | NodeDown)
        adder = await alice.rpc(bob.name, "member", "start_adder", ["adder"])
        waiting = asyncio.create_task(call(adder, "slow", timeout=10))
        await asyncio.sleep(0.01)
        bob.signal(signal.SIGKILL)
        with pytest.raises(NodeDown):
            await waiting
        with pytest.raises(NodeDown):
            await call(adder, "slow", timeout=10)
        await nothing_more(0.1)

    run(story, tmp_path)


def test_a_silent_host_is_down_after_the_tick_time_and_a_slow_one_never(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", net_ticktime_ms=3000)
        bob = await cluster.member("bob", net_ticktime_ms=3000)
        pid = await watched(alice, bob.name)
        ref = monitor(pid)
        bob.signal(signal.SIGSTOP)  # slow: comes back before the tick time is over
        await nothing_more(1.5)
        bob.signal(signal.SIGCONT)
        await nothing_more(0.5)
        assert await alice.ping(bob.name)
        bob.signal(signal.SIGSTOP)  # vanished: not a packet ever again
        assert await receive(timeout=10) == ("DOWN", ref, "process", pid, NOCONNECTION)
        assert alice.nodes() == []

    run(story, tmp_path)


def test_a_blocked_loop_is_not_a_dead_node(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", net_ticktime_ms=4000)
        bob = await cluster.member("bob", net_ticktime_ms=4000)
        alice.monitor_nodes()
        adder = await alice.rpc(bob.name, "member", "start_adder", ["adder"], timeout=5)
        assert await receive(timeout=5) == ("nodeup", bob.name)
        blocking = asyncio.create_task(alice.rpc(bob.name, "member", "block", [20], timeout=40))
        await asyncio.sleep(0.2)
        calls = [asyncio.create_task(call(adder, ("add", 1), timeout=40)) for _ in range(100)]
        assert await blocking == "unblocked"
        assert sorted(await asyncio.gather(*calls)) == list(range(1, 101))
        await nothing_more(0.1)

    run(story, tmp_path, limit=60)
