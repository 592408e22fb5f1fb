"""Names that all nodes share, among Python nodes, over each carrier."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    CallError,
    CallTimeout,
    EncodeError,
    GenServer,
    Node,
    NoProc,
    StartError,
    call,
    global_,
    is_alive,
    receive,
    self_pid,
    send,
    spawn,
    stop,
    whereis,
)
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")


async def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Names travel in messages of which nobody is told."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


async def idle() -> None:
    await receive()


async def pair(cluster: Cluster) -> tuple[Node, Node]:
    alice, bob = await cluster.node("alice"), await cluster.node("bob")
    await alice.connect(bob.name, bob.listen_address)
    await alice.global_.sync()
    await bob.global_.sync()
    return alice, bob


class Counter(GenServer):
    async def init(self) -> None:
        self.n = 0

    async def handle_call(self, request: Any, from_: Any) -> Any:
        self.n += request
        return self.n


def test_a_name_registered_on_one_node_is_known_on_the_other(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        assert await bob.global_.register_name("me", self_pid())
        assert (
            alice.global_.whereis_name("me") == bob.global_.whereis_name(b"me") == self_pid() == whereis(global_("me"))
        )
        assert alice.global_.registered_names() == ["me"]  # a str stays one among Python nodes
        other = spawn(idle)
        assert not await alice.global_.register_name("me", other)
        assert not await bob.global_.register_name("another", self_pid())  # one name for a process
        await alice.global_.re_register_name("me", other)
        assert bob.global_.whereis_name("me") == other
        await bob.global_.unregister_name("me")
        assert alice.global_.whereis_name("me") is None
        await bob.global_.unregister_name("nobody")
        with pytest.raises(NoProc):
            send(global_("me"), "hello")

    run(story, tmp_path)


def test_names_are_any_terms_and_must_be_terms(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        pids = {}
        for name in (Atom("x"), "x", ("x", 1), ("x", 1.0), [1, [2]], {"k": [1]}, 7, None, True):
            pids[repr(name)] = (name, spawn(idle))
            assert await alice.global_.register_name(*pids[repr(name)])
        for name, pid in pids.values():
            assert bob.global_.whereis_name(name) == pid
        with pytest.raises(EncodeError):
            await alice.global_.register_name(object(), self_pid())

    run(story, tmp_path)


def test_arguments_in_the_wrong_order_lock_nobody_out(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        for register in (alice.global_.register_name, alice.global_.re_register_name):
            with pytest.raises(TypeError, match="given to a pid, not to 'leader'"):
                await register(self_pid(), "leader")  # type: ignore[arg-type]
        assert await bob.global_.register_name("leader", self_pid(), timeout=10.0)

    run(story, tmp_path)


def test_a_server_with_a_global_name(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        pid = await Counter.start(name=global_("counter"), node=alice)
        assert [await call(global_("counter"), 2, node=node) for node in (alice, bob)] == [2, 4]
        with pytest.raises(StartError) as taken:
            await Counter.start(name=global_("counter"), node=bob)
        assert taken.value.reason == (Atom("already_started"), pid)
        await stop(global_("counter"), node=bob)
        await until(lambda: bob.global_.whereis_name("counter") is None)
        assert alice.global_.whereis_name("counter") is None
        await Counter.start(name=global_("counter"), node=bob)

    run(story, tmp_path)


def test_nodes_that_meet_resolve_a_clash(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.node("alice"), await cluster.node("bob")
        boss = self_pid()

        async def tell() -> None:
            while True:
                send(boss, await receive())

        pids: dict[str, list[Any]] = {}
        for method in ("random_exit_name", "random_notify_name", "notify_all_name", "none"):
            for node in (alice, bob):
                pid = node.runtime.spawn(tell).pid
                pids.setdefault(method, []).append(pid)
                assert await node.global_.register_name(method, pid, resolve=method)  # type: ignore[arg-type]
        await alice.connect(bob.name, bob.listen_address)
        await alice.global_.sync()
        await bob.global_.sync()
        for node in (alice, bob):
            assert node.global_.whereis_name("random_exit_name") == pids["random_exit_name"][0]
            assert node.global_.whereis_name("random_notify_name") == pids["random_notify_name"][0]
            assert node.global_.whereis_name("notify_all_name") is node.global_.whereis_name("none") is None
        loser = pids["random_exit_name"][1]
        await until(lambda: bob.runtime.find(loser) is None)
        conflict = Atom("global_name_conflict")
        a, b = pids["notify_all_name"]
        told = [await receive(timeout=5) for _ in range(3)]
        for message in (
            (conflict, "random_notify_name"),
            (conflict, "notify_all_name", b),
            (conflict, "notify_all_name", a),
        ):
            assert message in told

    run(story, tmp_path)


def test_the_names_of_a_killed_node_vanish(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, member = await cluster.node("alice"), await cluster.member("bob")
        await alice.connect(member.name)
        await alice.global_.sync()
        assert await alice.rpc(member.name, "member", "register_global", ["of_bob"])
        assert alice.global_.whereis_name("of_bob").node == member.name  # type: ignore[union-attr]
        member.signal(signal.SIGKILL)
        await until(lambda: alice.global_.whereis_name("of_bob") is None)
        assert alice.global_.nodes() == []
        assert await alice.global_.register_name("of_bob", self_pid(), timeout=5)

    run(story, tmp_path)


def test_a_node_that_dies_with_the_lock_blocks_nobody(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, member = await cluster.node("alice"), await cluster.member("bob")
        await alice.connect(member.name)
        await alice.global_.sync()
        assert await alice.rpc(member.name, "member", "take_global_lock", [alice.name])
        with pytest.raises(CallTimeout):
            await alice.global_.register_name("mine", self_pid(), timeout=0.5)
        member.signal(signal.SIGKILL)
        assert await alice.global_.register_name("mine", self_pid(), timeout=20)

    run(story, tmp_path)


def test_a_stopped_node_costs_time_and_no_more(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, member = await cluster.node("alice"), await cluster.member("bob")
        await alice.connect(member.name)
        await alice.global_.sync()
        member.signal(signal.SIGSTOP)
        with pytest.raises(CallTimeout):
            await alice.global_.register_name("mine", self_pid(), timeout=0.5)
        member.signal(signal.SIGCONT)
        assert await alice.global_.register_name("mine", self_pid(), timeout=40)
        assert await alice.rpc(member.name, "member", "global_pid_of", ["mine"]) == self_pid()

    run(story, tmp_path)


def test_many_register_at_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        pids = [node.runtime.spawn(idle).pid for node in (alice, bob) * 50]
        asked = [node.global_.register_name(i // 4, pids[i], timeout=50) for i, node in enumerate((alice, bob) * 50)]
        done = await asyncio.gather(*asked)
        assert [sum(done[i : i + 4]) for i in range(0, 100, 4)] == [1] * 25  # of four who want a name one gets it
        for i in range(25):
            assert alice.global_.whereis_name(i) == bob.global_.whereis_name(i) is not None

    run(story, tmp_path)


def test_users_who_wait_are_told_when_the_node_stops(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, member = await cluster.node("alice"), await cluster.member("bob")
        await alice.connect(member.name)
        await alice.global_.sync()
        assert await alice.rpc(member.name, "member", "take_global_lock", [alice.name])
        waiting = asyncio.create_task(alice.global_.register_name("mine", self_pid()))
        await asyncio.sleep(0)
        await alice.stop()
        with pytest.raises(CallError, match="stops"):
            await waiting
        with pytest.raises(CallError, match="stops"):
            await alice.global_.register_name("mine", self_pid())

    run(story, tmp_path)


def test_who_uses_no_global_names_pays_nothing_for_them(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob, carol = [await cluster.node(name) for name in ("alice", "bob", "carol")]
        await alice.connect(bob.name)
        await bob.connect(carol.name)
        await asyncio.sleep(0.5)
        assert alice.statistics().peers[bob.name].sent_messages == 0
        pid = spawn(idle)  # on carol
        assert await carol.global_.register_name("late", pid)
        await until(lambda: bob.global_.whereis_name("late") == pid)
        assert alice.statistics().peers[bob.name].sent_messages == 0, "bob was asked by carol, and asks nobody himself"
        assert await alice.global_.register_name("early", alice.runtime.spawn(idle).pid), "alice wakes, and wakes bob"
        await until(lambda: bob.global_.whereis_name("early") is not None)

    run(story, tmp_path)


def test_without_a_mesh_a_name_is_known_to_the_neighbours(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        left, middle, right = [await cluster.node(name) for name in ("left", "middle", "right")]
        for end in (left, right):
            await middle.connect(end.name, end.listen_address)
        for node in (left, middle, right):
            await node.global_.sync()
        pid = left.runtime.spawn(idle).pid
        assert await left.global_.register_name("x", pid)
        assert middle.global_.whereis_name("x") == pid
        assert right.global_.whereis_name("x") is None
        assert right.nodes() == [middle.name] == right.global_.nodes()
        # yet nobody near gets it as well, for the node between them could know one of the two only
        assert not await right.global_.register_name("x", right.runtime.spawn(idle).pid)
        await right.connect(left.name, left.listen_address)
        await right.global_.sync()
        assert right.global_.whereis_name("x") == pid

    run(story, tmp_path)


def test_the_process_of_the_service_is_told_nothing_it_does_not_understand(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        server = (Atom("global_name_server"), bob.name)
        for term in ("x", 7, (), [], (Atom("DOWN"), 1, 2, 3, 4), (Atom("EXIT"), self_pid(), "x"), {"a": {}}, (1, 2)):
            send(server, term)
        assert await call(server, Atom("get_protocol_version"), node=alice) == 8
        assert await call(server, Atom("get_known"), node=alice) == [alice.name]
        assert is_alive(self_pid())

    run(story, tmp_path)
