"""The registry over real channels: services that come and go, nodes that die, bad input, names, proxies, the router."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    GenServer,
    NameTaken,
    Node,
    NoProc,
    NotInProcess,
    Pid,
    StartError,
    call,
    cast,
    exit,
    is_alive,
    monitor,
    receive,
    self_pid,
    send,
    spawn,
    stop,
    via,
)
from barrel_p2p.crdt.hlc import pack, to_term
from barrel_p2p.node.replication import wall_ms
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")

EVENT = Atom("barrel_p2p_service_event")
REGISTERED, UNREGISTERED, DOWN = Atom("service_registered"), Atom("service_unregistered"), Atom("service_down")
REPLICA, SYNC = Atom("barrel_p2p_registry_replica"), Atom("$barrel_p2p_replica")


class Counter(GenServer):
    async def init(self, start: int = 0) -> None:
        self.n = start

    async def handle_call(self, request: Any, from_: Any) -> Any:
        self.n += request
        return self.n

    async def handle_cast(self, request: Any) -> None:
        self.n += request


async def idle() -> None:
    await receive()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait for something that nothing tells of; how long it took."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state of several nodes
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def until_there(node: Node, member: Atom, name: Any) -> None:
    """Wait until a node in another program knows a service."""
    async with asyncio.timeout(10):
        while name not in await node.rpc(member, "member", "service_names"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def pair(cluster: Cluster, **options: Any) -> tuple[Node, Node]:
    """Two neighbours; the story is a process of the second."""
    alice = await cluster.node("alice", **options)
    bob = await cluster.node("bob", **options)
    await bob.join(alice.name)
    await until(lambda: bob.name in alice.active_view())
    return alice, bob


def nodes_of(node: Node, name: Any) -> list[Atom]:
    return [service.node for service in node.registry.lookup(name)]


def refused(node: Node, instance: str) -> dict[str, int]:
    counts = node.statistics().overlay.refused
    return {key.partition(": ")[2]: count for key, count in counts.items() if key.startswith(f"{instance}: ")}


# --- services ---------------------------------------------------------------------------------------------------------


def test_a_service_is_found_everywhere_and_gone_with_its_process(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        bob.registry.subscribe()
        pid = await Counter.start(40, node=alice)
        alice.registry.register("counter", pid, {"shard": 1})
        assert await receive(timeout=5) == (EVENT, (REGISTERED, "counter", alice.name))
        [service] = bob.registry.lookup("counter")
        assert (service.name, service.pid, service.node, service.meta) == ("counter", pid, alice.name, {"shard": 1})
        assert bob.registry.lookup(b"counter") == [service] and bob.registry.lookup(Atom("counter")) == []
        assert bob.registry.lookup_local("counter") is None and alice.registry.lookup_local("counter") == service
        assert bob.registry.list() == ["counter"]
        assert await call(service.pid, 2) == 42

        bob.registry.register("counter", meta={"shard": 2})  # the story itself
        assert await receive(timeout=5) == (EVENT, (REGISTERED, "counter", bob.name))
        assert nodes_of(bob, "counter") == [bob.name, alice.name], "our own first"
        await until(lambda: nodes_of(alice, "counter") == [alice.name, bob.name])
        with pytest.raises(NameTaken):
            bob.registry.register(b"counter", pid)
        assert (await bob.registry.whereis("counter")).pid == self_pid()  # type: ignore[union-attr]

        bob.registry.unregister("counter")
        bob.registry.unregister("counter")
        assert await receive(timeout=5) == (EVENT, (UNREGISTERED, "counter", bob.name))
        exit(pid, Atom("boom"))
        assert await receive(timeout=1) == (EVENT, (DOWN, "counter", alice.name, Atom("boom"))), "the reason, too"
        assert bob.registry.lookup("counter") == [] == alice.registry.lookup("counter")
        assert await bob.registry.whereis("counter", retries=1) is None

    run(story, tmp_path)


def test_what_cannot_be_registered_says_why(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        dead = spawn(idle)
        exit(dead, Atom("kill"))
        await until(lambda: not is_alive(dead))
        for arguments, error in (
            (("x", dead), NoProc),
            ((7,), ValueError),
            (("x", 7), ValueError),
            (("x", None, [1]), ValueError),
            (("x", None, {"big": b"x" * 70_000}), ValueError),
            (("x", None, {"object": object()}), Exception),
            (("x" * 5000,), ValueError),
        ):
            with pytest.raises(error):
                alice.registry.register(*arguments)
        assert alice.registry.list() == []
        with pytest.raises(NotInProcess):
            await asyncio.get_running_loop().run_in_executor(None, alice.registry.register, "x")
        meta = {"a": 1}
        alice.registry.register("x", meta=meta)
        meta["a"] = 2
        assert alice.registry.lookup("x")[0].meta == {"a": 1}, "as it was registered"
        assert alice.registry.lookup([1]) == [] and alice.registry.lookup_local({}) is None  # type: ignore[arg-type]

    run(story, tmp_path)


def test_events_are_filtered_by_name_or_pattern(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        bob.registry.subscribe("db")
        alice.registry.register(Atom("db"))
        alice.registry.register("db")
        assert await receive(timeout=5) == (EVENT, (REGISTERED, "db", alice.name))
        bob.registry.subscribe(pattern="^cache")
        for name in ("db2", Atom("cache_a"), b"cache \xff"):
            bob.registry.register(name)
        assert await receive(timeout=5) == (EVENT, (REGISTERED, Atom("cache_a"), bob.name))
        assert await receive(timeout=5) == (EVENT, (REGISTERED, b"cache \xff", bob.name))
        with pytest.raises(ValueError):
            bob.registry.subscribe("db", pattern="x")
        bob.registry.unsubscribe()
        bob.registry.unregister(Atom("cache_a"))
        with pytest.raises(TimeoutError):
            await receive(timeout=0.2)

    run(story, tmp_path)


def test_a_node_that_joins_late_learns_everything(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        pid = spawn(idle)
        for number in range(500):
            bob.registry.register(f"service {number}", pid)
        for number in range(0, 500, 2):
            bob.registry.unregister(f"service {number}")
        carol = await cluster.node("carol")
        await carol.join(alice.name)
        await until(lambda: len(carol.registry.list()) == 250)
        assert nodes_of(carol, "service 1") == [bob.name] and nodes_of(carol, "service 2") == []

    run(story, tmp_path)


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_the_services_of_a_killed_node_go_with_its_lease(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster, lease_ms=2000)
        victim = await cluster.member("victim", lease_ms=2000, contact_nodes=[alice.name])
        pid = await bob.rpc(victim.name, "member", "register_services", ["s", 3])
        await until(lambda: len(bob.registry.list()) == len(alice.registry.list()) == 3)
        bob.registry.subscribe()
        proxy = await bob.registry.proxy("s 0")
        ref = monitor(proxy)
        send(proxy, (self_pid(), "there?"))
        assert await receive(timeout=5) == "there?"
        victim.signal(signal.SIGKILL)
        await until(lambda: not bob.registry.list() and not alice.registry.list())
        gone = Atom("nodedown")
        expected = [(EVENT, (DOWN, f"s {number}", victim.name, gone)) for number in range(3)]
        expected.append((Atom("DOWN"), ref, Atom("process"), proxy, (Atom("shutdown"), gone)))  # type: ignore[arg-type]
        got = [await receive(timeout=5) for _ in range(4)]
        assert sorted(map(repr, got)) == sorted(map(repr, expected))
        assert bob.overlay.lives.nodes() == [alice.name, bob.name] and not bob.overlay.lives.alive(victim.name)
        again = await cluster.member("victim", lease_ms=2000, contact_nodes=[alice.name])
        pid2 = await bob.rpc(again.name, "member", "register_services", ["s", 1])
        assert pid2 != pid
        await until(
            lambda: [service.pid for service in bob.registry.lookup("s 0")] == [pid2] and bob.registry.list() == ["s 0"]
        )
        await asyncio.sleep(0.5)
        assert bob.registry.list() == alice.registry.list() == ["s 0"], "nothing of the last life came back"

    run(story, tmp_path)


def test_who_is_lost_or_does_not_answer_comes_last_until_it_is_back(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster, lease_ms=60_000)
        first, second = [
            await cluster.member(name, lease_ms=60_000, contact_nodes=[alice.name]) for name in ("a1", "a2")
        ]
        for member in (first, second):
            await bob.rpc(member.name, "member", "register_services", ["s", 1])
        await until(lambda: nodes_of(bob, "s 0") == [first.name, second.name])
        await first.kill()
        while await bob.ping(first.name):
            pass
        assert nodes_of(bob, "s 0") == [second.name, first.name], "its lease has not ended: it may live for others"
        service = await bob.registry.whereis("s 0")
        assert service is not None and service.node == second.name
        bob.registry.register("s 0")
        assert nodes_of(bob, "s 0") == [bob.name, second.name, first.name]
        bob.registry.unregister("s 0")
        await second.kill()
        while await bob.ping(second.name):
            pass
        assert nodes_of(bob, "s 0") == [first.name, second.name], "who failed last comes last"
        again = await cluster.member("a2", lease_ms=60_000, contact_nodes=[alice.name])
        assert await bob.ping(again.name)
        await bob.rpc(again.name, "member", "register_services", ["s", 1])
        await until(lambda: nodes_of(bob, "s 0") == [again.name, first.name])

    run(story, tmp_path)


def test_a_channel_that_is_closed_by_agreement_is_no_loss(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        options: dict[str, Any] = {"dist_gc_sweep_period_ms": 100, "dist_gc_min_age_ms": 300, "active_size": 1}
        nodes = far, middle, seed = [await cluster.node(name, **options) for name in ("far", "middle", "seed")]
        await middle.join(seed.name)
        await far.join(middle.name)
        for node in nodes:
            node.registry.register("s", await Counter.start(node=node))
        (neighbour,) = far.active_view()
        other = middle if neighbour == seed.name else seed
        for _ in range(4):  # either side may be the one that closes it
            assert await far.ping(other.name)
            await until(lambda: far.nodes() == [neighbour], 30)
            for node in nodes:
                await until(lambda node=node: len(nodes_of(node, "s")) == 3)  # type: ignore[misc]
                first, *rest = nodes_of(node, "s")
                assert first == node.name and rest == sorted(rest)

    run(story, tmp_path)


def test_a_frozen_node_loses_its_services_and_has_them_back_when_it_thaws(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster, lease_ms=2000, net_ticktime_ms=60_000)
        sleeper = await cluster.member("sleeper", lease_ms=2000, contact_nodes=[alice.name])
        await bob.rpc(sleeper.name, "member", "register_services", ["s", 1])
        bob.registry.register("mine")
        await until(lambda: bool(alice.registry.lookup("s 0") and bob.registry.lookup("s 0")))
        await until_there(bob, sleeper.name, "mine")
        sleeper.signal(signal.SIGSTOP)
        await until(lambda: not bob.registry.lookup("s 0") and not alice.registry.lookup("s 0"), 5)
        await asyncio.sleep(2)
        sleeper.signal(signal.SIGCONT)
        assert "mine" in await bob.rpc(sleeper.name, "member", "service_names"), "it does not take us for dead"
        await until(lambda: bool(alice.registry.lookup("s 0") and bob.registry.lookup("s 0")), 5)

    run(story, tmp_path)


def test_a_node_that_is_nobodys_neighbour_for_a_moment_keeps_its_services(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster, lease_ms=3000)
        carol = await cluster.node("carol", lease_ms=3000)
        await carol.join(alice.name)
        bob.registry.register("b", await Counter.start(node=bob))
        await until(lambda: bool(carol.registry.lookup("b") and alice.registry.lookup("b")))
        carol.registry.subscribe()
        bob.disconnect(alice.name)
        bob.disconnect(carol.name)
        await asyncio.sleep(0.5)
        assert nodes_of(alice, "b") == nodes_of(carol, "b") == [bob.name]
        await bob.join(carol.name)
        await asyncio.sleep(4)
        assert nodes_of(alice, "b") == nodes_of(carol, "b") == [bob.name]
        with pytest.raises(TimeoutError):
            await receive(lambda m: m[1][0] == DOWN and m[1][3] == "nodedown", timeout=0)

    run(story, tmp_path)


def test_a_node_that_stops_is_dead_at_once(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster, lease_ms=30_000)
        guest = await cluster.member("guest", lease_ms=30_000, contact_nodes=[alice.name])
        await bob.rpc(guest.name, "member", "register_services", ["s", 50])
        await until(lambda: len(bob.registry.list()) == 50 and bob.overlay.lives.alive(guest.name))
        await guest.stop()
        await until(lambda: not bob.registry.list() and not alice.registry.list(), 3)
        await until(lambda: not bob.overlay.lives.alive(guest.name), 3)

    run(story, tmp_path)


def test_twenty_nodes_agree_and_survive_deaths(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        nodes = [await cluster.node(f"n{i}", lease_ms=4000) for i in range(18)]
        await asyncio.gather(*(node.join(nodes[0].name) for node in nodes[1:]))
        victim = await cluster.member("victim", contact_nodes=[nodes[3].name], lease_ms=4000)
        guest = await cluster.member("guest", contact_nodes=[nodes[4].name], lease_ms=4000)
        everybody = sorted([*(node.name for node in nodes), victim.name, guest.name])
        await until(lambda: all(node.overlay.lives.nodes() == everybody for node in nodes), 20)
        pids = [await Counter.start(number, node=node) for number, node in enumerate(nodes)]
        for node, pid in zip(nodes, pids, strict=True):
            node.registry.register("counter", pid)
        await nodes[0].rpc(victim.name, "member", "register_services", ["v", 20])
        await nodes[0].rpc(guest.name, "member", "register_services", ["g", 20])
        await until(lambda: all(len(node.registry.list()) == 41 for node in nodes), 20)
        await until(lambda: all(len(node.registry.lookup("counter")) == 18 for node in nodes), 5)
        exit(pids[7], Atom("boom"))
        await until(lambda: all(len(node.registry.lookup("counter")) == 17 for node in nodes))
        victim.signal(signal.SIGKILL)
        await until(lambda: all(len(node.registry.list()) == 21 for node in nodes), 15)
        assert all(node.overlay.lives.nodes() == [n for n in everybody if n != victim.name] for node in nodes)

    run(story, tmp_path, 110)


# --- names, proxies ---------------------------------------------------------------------------------------------------


def test_servers_start_and_are_called_by_a_name_in_the_registry(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        pid = await Counter.start(1, name=via("registry", "db"), node=alice)
        await until(lambda: nodes_of(bob, "db") == [alice.name])
        with pytest.raises(StartError) as failed:
            await Counter.start(name=via("registry", "db"), node=alice)
        assert failed.value.reason == (Atom("already_started"), pid)
        assert await call(via("registry", "db"), 2) == 3
        cast(via("registry", "db"), 4)
        assert await call(via("registry", "db"), 0) == 7
        mine = await Counter.start(100, name=via("registry", "db"))  # bob's own
        assert await call(via("registry", "db"), 1) == 101
        await stop(mine)
        assert await call(via("registry", "db"), 1) == 8
        await stop(via("registry", "db"))
        await until(lambda: nodes_of(bob, "db") == [] == nodes_of(alice, "db"))
        with pytest.raises(NoProc):
            await call(via("registry", "db"), 1)

    run(story, tmp_path)


def test_a_proxy_follows_its_service_and_ends_with_the_last_one(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        first, second = await Counter.start(0, node=alice), await Counter.start(100, node=bob)
        alice.registry.register("c", first)
        await until(lambda: nodes_of(bob, "c") == [alice.name])
        proxy = await bob.registry.proxy("c")
        assert proxy.node == bob.name and await bob.registry.proxy("c") == proxy
        assert await call(proxy, 1) == 1
        cast(proxy, 1)
        assert await call(proxy, 1) == 3
        assert await call(proxy, 1, node=alice) == 4, "other nodes can use it, too"
        bob.registry.register("c", second)
        assert await call(proxy, 1) == 5, "it keeps to the one that it has"
        exit(first, Atom("kill"))
        await until(lambda: nodes_of(bob, "c") == [bob.name])
        assert await call(proxy, 1) == 101
        ref = monitor(proxy)
        bob.registry.unregister("c")
        reason = (Atom("shutdown"), Atom("service_unregistered"))
        assert await receive(timeout=5) == (Atom("DOWN"), ref, Atom("process"), proxy, reason)
        with pytest.raises(NoProc):
            await bob.registry.proxy("c", retries=0)

    run(story, tmp_path)


def test_a_service_gets_a_global_name_by_way_of_a_proxy(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        pid = await Counter.start(0, node=alice)
        alice.registry.register(Atom("c"), pid)
        await until(lambda: nodes_of(bob, Atom("c")) == [alice.name])
        proxy = await bob.registry.global_register(Atom("c"))
        assert proxy.node == bob.name and bob.global_.whereis_name(Atom("c")) == proxy
        await until(lambda: alice.global_.whereis_name(Atom("c")) == proxy)
        with pytest.raises(NameTaken):
            await alice.registry.global_register(Atom("c"))
        with pytest.raises(NoProc):
            await asyncio.wait_for(alice.registry.global_register(Atom("nobody")), 20)
        exit(pid, Atom("kill"))
        await until(lambda: bob.global_.whereis_name(Atom("c")) is None)
        assert await alice.rpc(bob.name, "barrel_p2p_service_proxy", "relay", [Atom("c"), bob.name, 1, {}]) == (
            Atom("error"),
            Atom("badarg"),
        )

    run(story, tmp_path)


def test_the_relay_serves_proxies_of_other_nodes(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        await Counter.start(0, name="named", node=alice)
        alice.registry.register("offered", await Counter.start(10, node=alice))

        async def relay(name: Any, ttl: Any = 5, node: Atom = alice.name) -> Any:
            context = {Atom("ttl"): ttl, Atom("visited"): [bob.name]}
            args = [name, alice.name, 1, context]
            return await bob.rpc(node, "barrel_p2p_service_proxy", "relay", args, timeout=15)

        async def casts(name: Any) -> Any:
            return await bob.rpc(alice.name, "gen_server", "cast", [(name, alice.name), 1])

        assert await relay(Atom("named")) == 1 and await relay(Atom("named"), node=bob.name) == 2
        assert await relay("offered") == 11
        assert await relay(Atom("nobody")) == (Atom("error"), Atom("service_not_found"))
        assert await relay(Atom("named"), ttl=0) == (Atom("error"), Atom("ttl_expired"))
        assert await casts(Atom("named")) == Atom("ok") == await casts(Atom("nobody"))
        assert await relay(Atom("named")) == 4

    run(story, tmp_path)


# --- the router -------------------------------------------------------------------------------------------------------

ROUTE, REQUEST, REQ = Atom("$barrel_p2p_route"), Atom("route_request"), Atom("route_req")


def ask(to: Node, name: Any, ttl: Any = 4, visited: Any = (), origin: Any = None, ref: Any = None) -> Any:
    """Ask as an Erlang node does; the reference that its answer bears."""
    from barrel_p2p.process.current import current_process

    process = current_process()
    ref = ref or process.runtime.reference()
    body = (REQ, name, ttl, origin or process.runtime.name, list(visited))
    send(("barrel_p2p_router", to.name), (ROUTE, (REQUEST, body, (process.pid, ref))))
    return ref


def test_requests_of_other_nodes_are_answered(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, _ = await pair(cluster)
        alice.registry.register("a", spawn(idle))
        [service] = alice.registry.lookup("a")
        found = (Atom("found"), alice.name, service.pid)
        error = Atom("error")
        assert await receive_answer(ask(alice, "a")) == found
        assert await receive_answer(ask(alice, b"a", ttl=0)) == found
        assert await receive_answer(ask(alice, "b")) == (error, Atom("not_found"))
        assert await receive_answer(ask(alice, "b", ttl=0)) == (error, Atom("ttl_expired"))
        assert await receive_answer(ask(alice, "b", ttl=10**30)) == (error, Atom("not_found"))

    run(story, tmp_path)


async def receive_answer(ref: Any) -> Any:
    return (await receive(lambda message: message[0] == ref, timeout=5))[1]


def test_the_overlay_finds_what_gossip_has_not_brought(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        chain = [await cluster.node(f"n{i}", active_size=2) for i in range(4)]
        for one, other in pairwise(chain):
            await other.join(one.name)
        first, last = chain[0], chain[-1]
        for node in chain[:-1]:  # these hear nothing of services
            node.overlay.replication.close(REPLICA)
        pid = spawn(idle)
        last.registry.register("far", pid)
        found = await first.registry.whereis("far", retries=2)
        assert found is not None and (found.node, found.pid) == (last.name, pid)
        began = time.monotonic()
        assert await first.registry.whereis("nowhere", retries=0) is None
        assert time.monotonic() - began < 3, "all say no, nobody waits"
        both = await asyncio.gather(*(first.registry.whereis("far") for _ in range(50)))
        assert all(service is not None and service.pid == pid for service in both)

    run(story, tmp_path)


# --- bad input --------------------------------------------------------------------------------------------------------


def dot(node: Any, at: int | None = None) -> dict[Any, bool]:
    return {(node, to_term(pack(at or wall_ms()))): True}


def test_bad_entries_are_refused_one_by_one_and_the_rest_is_applied(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, mallory = await pair(cluster)  # the story is a process of mallory
        alice.registry.register("alices", spawn(idle))
        value, entry, me = Atom("value"), Atom("service_entry"), mallory.name
        pid = self_pid()

        def offer(name: Any, node: Any = me, meta: Any = None, stamp: Any = None) -> Any:
            return (value, (entry, name, pid, node, meta or {}), stamp or dot(node))

        bad = {
            ("x", me, 1): offer("x"),
            (1, me): offer(1),
            ("x", b"node"): offer("x"),
            ("other", me): offer("not the same"),
            ("foreign", Atom("eve@h")): (value, (entry, "foreign", pid, Atom("eve@h"), {}), dot(me)),
            ("nodots", me): (value, (entry, "nodots", pid, me, {}), {}),
            ("year", me): offer("year", stamp=dot(me, 253_402_300_000_000)),
            ("dots", me): offer("dots", stamp={(me, (Atom("timestamp"), Atom("a"), 0)): True}),
            ("huge", me): offer("huge", meta={"x": b"x" * 1_000_000}),
            ("k" * 10_000, me): offer("k" * 10_000),
            ("tomb", me): (Atom("tombstone"), (Atom("timestamp"), -1, 0)),
            ("shape", me): [1, 2],
            ("alices", alice.name): offer("alices", alice.name, stamp=dot(alice.name)),
        }
        good = {("good", me): offer("good")}
        send((REPLICA, alice.name), (SYNC, (Atom("full_sync"), me, {**bad, **good})))
        await until(lambda: nodes_of(alice, "good") == [me])
        assert alice.registry.list() == ["alices", "good"]
        assert alice.registry.lookup("alices")[0].pid != pid, "about our own we know best"
        assert sum(refused(alice, REPLICA).values()) == len(bad), refused(alice, REPLICA)
        for junk in (
            7,
            (SYNC, 7),
            (SYNC, ()),
            (SYNC, (Atom("full_sync"), me, 7)),
            (SYNC, (Atom("digest"), 1, 2, 3, 4)),
        ):
            send((REPLICA, alice.name), junk)
        deep: Any = 1
        for _ in range(400):
            deep = [deep]
        hint = (Atom("$down"), Atom("$reason"))
        for payload in (
            (Atom("delta"), me, {hint: (hint[0], deep), ("good", me): (Atom("tombstone"), (Atom("timestamp"), 0, 0))}),
            (Atom("delta"), me, {hint: 1, ("x",): 2}),
            (Atom("delta"), me, {hint: (hint[0], 1)}),
            (Atom("custom"), me, 1),
            7,
        ):
            mallory.gossip.broadcast(REPLICA, payload)
        assert await mallory.ping(alice.name)
        mallory.registry.register("after", spawn(idle))
        await until(lambda: nodes_of(alice, "after") == [me])
        assert nodes_of(alice, "good") == [] or nodes_of(alice, "good") == [me]

    run(story, tmp_path)


def test_hostile_requests_to_the_router_are_dropped_and_counted(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, mallory = await pair(cluster)
        other = Pid(Atom("eve@127.0.0.1"), 1, 0, 1)
        ref = alice.runtime.reference()
        body = (REQ, "x", 4, mallory.name, [])
        bad = [
            7,
            (ROUTE, 7),
            (ROUTE, (REQUEST, body, 7)),
            (ROUTE, (REQUEST, body, (other, ref))),
            (ROUTE, (REQUEST, (REQ, [1], 4, mallory.name, []), (self_pid(), ref))),
            (ROUTE, (REQUEST, (REQ, "x" * 5000, 4, mallory.name, []), (self_pid(), ref))),
            (ROUTE, (REQUEST, (REQ, "x", -1, mallory.name, []), (self_pid(), ref))),
            (ROUTE, (REQUEST, (REQ, "x", 4.0, mallory.name, []), (self_pid(), ref))),
            (ROUTE, (REQUEST, (REQ, "x", 4, "no atom", []), (self_pid(), ref))),
            (ROUTE, (REQUEST, (REQ, "x", 4, mallory.name, ["no atom"]), (self_pid(), ref))),
            (ROUTE, (REQUEST, (REQ, "x", 4, mallory.name, [mallory.name] * 1000), (self_pid(), ref))),
        ]
        for message in bad:
            send(("barrel_p2p_router", alice.name), message)
        await until(lambda: refused(alice, "barrel_p2p_router") == {"malformed": len(bad)})
        exit(alice.runtime.names["barrel_p2p_router"].pid, Atom("kill"))
        send(alice.runtime.names["barrel_p2p_router"].pid, (ref, (Atom("found"), alice.name, other)))
        await until(lambda: refused(alice, "barrel_p2p_router").get("late") == 1)
        with pytest.raises(TimeoutError):
            await receive(timeout=0)

    run(story, tmp_path)


def test_forged_and_malformed_leases_are_refused(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, mallory = await pair(cluster, lease_ms=2000)
        leases, now = "barrel_p2p_leases", wall_ms()
        sync = Atom("full_sync")
        bad = {
            b"n@h": (now, 1000),
            Atom("noname"): (now, 1000),
            Atom("a@h"): now,
            Atom("b@h"): (now, -1),
            Atom("c@h"): (253_402_300_000_000, 1000),
            Atom("d@h"): (now, 1000.0),
        }
        for junk in (7, [], {1: 2}, {Atom("x@h"): ()}):
            send(("barrel_p2p_news", alice.name), junk)
        await until(lambda: refused(alice, leases) == {"no_map": 2, "bad_key": 1, "invalid_value": 1})
        send((leases, alice.name), (SYNC, (sync, mallory.name, {**bad, Atom("e@h"): (now, 10**30)})))
        await until(lambda: alice.overlay.lives.alive(Atom("e@h")))
        assert sum(refused(alice, leases).values()) == len(bad) + 4
        send((leases, alice.name), (SYNC, (sync, mallory.name, {alice.name: (now + 3_600_000, 0)})))
        members = "barrel_p2p_members_replica"
        send(
            (members, alice.name), (SYNC, (sync, mallory.name, {b"x": now, Atom("m@h"): now, Atom("f@h"): now + 10**9}))
        )
        await until(lambda: alice.overlay.lives.alive(Atom("m@h")))
        assert sum(refused(alice, members).values()) == 2
        await asyncio.sleep(3)
        assert mallory.overlay.lives.alive(alice.name), "its own word goes on above the forged one"
        left = [alice.name, mallory.name, Atom("e@h")]
        await until(lambda: alice.overlay.lives.nodes() == left), "upstream's lease has ended"

    run(story, tmp_path)
