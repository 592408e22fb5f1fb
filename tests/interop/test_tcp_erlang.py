"""A Python node in a cluster of stock Erlang nodes (OTP 25 here): the carrier ``inet_tcp``, both ways."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    GenServer,
    HandshakeError,
    Node,
    NotConnected,
    RemoteError,
    alias,
    call,
    demonitor,
    exit,
    link,
    monitor,
    process_flag,
    receive,
    register,
    self_pid,
    send,
    spawn,
    unlink,
)
from harness.beside import PY, nothing_more, python, run
from harness.erlang import Epmd, Erlang

NOCONNECTION = Atom("noconnection")


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialer", ["python", "erlang"])
@pytest.mark.parametrize("published", [False, True])
def test_either_side_dials_and_the_other_sees_what_kind_of_node_it_is(
    epmd: Epmd, tmp_path: Path, dialer: str, published: bool
) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        if dialer == "python":
            assert await node.ping(erlang.name)
        assert await erlang.ask(f"net_adm:ping('{PY}').") == "pong"
        assert await node.ping(erlang.name)
        assert node.nodes() == [erlang.name]
        kind, other = ("visible", "hidden") if published else ("hidden", "visible")
        assert await erlang.ask(f"nodes({kind}).") == f"['{PY}']"
        assert await erlang.ask(f"nodes({other}).") == "[]"
        node.monitor_nodes()
        assert await erlang.ask(f"disconnect_node('{PY}').") in ("true", "ignored")
        assert await receive(timeout=5) == ("nodedown", erlang.name)

    run(story, epmd, tmp_path, published=published)


def test_the_creation_is_epmds_and_old_pids_are_dead(epmd: Epmd, tmp_path: Path) -> None:
    with Erlang(epmd, "erl") as erlang:

        async def life() -> int:
            async with python(epmd, tmp_path) as node:
                assert await node.ping(erlang.name)
                register("test", self_pid())
                await erlang.ask(f"{{test, '{PY}'}} ! self().")
                send(await receive(timeout=5), self_pid())
                await erlang.ask("Old = receive P when is_pid(P) -> P end.")
                return self_pid().creation

        async def next_life() -> None:
            async with python(epmd, tmp_path) as node:
                register("test", self_pid())
                assert await node.ping(erlang.name)
                await erlang.ask("Old ! for_the_dead.")
                await erlang.ask(f"{{test, '{PY}'}} ! for_the_living.")
                assert await receive(timeout=5) == "for_the_living"

        first = asyncio.run(life())
        assert 0 < first < 1 << 32
        asyncio.run(next_life())


def test_wrong_cookie_both_ways(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        with pytest.raises(HandshakeError, match="cookie"):
            await node.connect(erlang.name)
        assert await erlang.ask(f"net_adm:ping('{PY}').") == "pang"
        assert node.nodes() == []

    run(story, epmd, tmp_path, cookie="another one")


def test_both_dial_at_once_and_one_channel_comes_of_it(epmd: Epmd, tmp_path: Path) -> None:
    """The name of the Python node is the greater one here and the smaller one there: each side yields once."""

    async def main(name: str) -> None:
        async with asyncio.timeout(60), python(epmd, tmp_path, name) as node:
            register("test", self_pid())
            for i in range(20):
                asking = asyncio.create_task(
                    erlang.ask(f"[begin {{test, '{name}'}} ! {{erl, {i}, N}} end || N <- [1, 2, 3]], ok.")
                )
                await asyncio.sleep(0.002 * (i % 5))
                send((Atom("echo"), Atom(erlang.name)), (self_pid(), ("py", i)))
                await asking
                got = [await receive(timeout=10) for _ in range(4)]
                assert [m for m in got if m[0] == "erl"] == [(Atom("erl"), i, n) for n in (1, 2, 3)]
                assert [m for m in got if m[0] == "py"] == [("py", i)] or (b"py", i) in got
                assert node.nodes() == [erlang.name]
                node.disconnect(erlang.name)
                await erlang.ask("(fun W() -> case nodes(hidden) of [] -> ok; _ -> timer:sleep(5), W() end end)().")

    with Erlang(epmd, "erl") as erlang:
        erlang.eval("register(echo, spawn(fun L() -> receive {P, M} -> P ! M, L() end end)).")
        for name in ("aaa@127.0.0.1", "zzz@127.0.0.1"):
            asyncio.run(main(name))


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_by_pid_by_name_and_by_alias(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask("register(echo, spawn(fun L() -> receive {P, M} -> P ! M, L() end end)).")
        send(("echo", erlang.name), (self_pid(), Atom("by_name")))
        assert await receive(timeout=5) == "by_name"
        mine = alias()
        send(("echo", erlang.name), (mine, Atom("by_alias")))
        assert await receive(timeout=5) == "by_alias"
        await erlang.ask(f"{{test, '{PY}'}} ! {{whereis(echo), self(), make_ref(), node()}}.")
        echo, shell, ref, name = await receive(timeout=5)
        assert echo.node == name == erlang.name and ref.node == name
        for term in (ref, echo, self_pid(), [1, [2.5, b"x"]], {Atom("k"): {1: []}}, -(2**70), (), None, True):
            send(echo, (self_pid(), term))
            assert await receive(timeout=5) == term
        send(shell, (Atom("ref"), ref))
        assert (await erlang.ask("receive {ref, R} -> is_reference(R) andalso node(R) =:= node() end.")) == "true"
        await erlang.ask(f"{{test, '{PY}'}} ! fun(X) -> {{X, node(), echo}} end.")
        fun = await receive(timeout=5)  # made of bytes with atoms of the cache written out
        await erlang.ask("ok.")
        send(shell, fun)
        assert await erlang.ask("receive F when is_function(F) -> F(1) end.") == "{1,'erl@127.0.0.1',echo}"

    run(story, epmd, tmp_path)


@pytest.mark.parametrize("megabytes", [1, 64])
def test_large_messages_both_ways(epmd: Epmd, tmp_path: Path, megabytes: int) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask("register(echo, spawn(fun L() -> receive {P, M} -> P ! M, L() end end)).")
        large = bytes(range(256)) * (megabytes << 12)
        send(("echo", erlang.name), (self_pid(), large))
        assert await receive(timeout=60) == large

    run(story, epmd, tmp_path)


def test_thousands_of_atoms_collide_in_the_cache_and_stay_themselves(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask("register(echo, spawn(fun L() -> receive {P, M} -> P ! M, L() end end)).")
        for round in range(40):
            names = [f"atom_{round % 7}_{i * 13}" for i in range(400)] + ["é" * (round + 1), "true", "", "x" * 255]
            term = [Atom(name) for name in names if name != "true"]
            send(("echo", erlang.name), (self_pid(), term))
            assert await receive(timeout=10) == term
            await erlang.ask(
                f"""{{test, '{PY}'}} ! [list_to_atom("e_" ++ integer_to_list({round} rem 7 * 1000 + N))
                    || N <- lists:seq(1, 300)] ++ [list_to_atom(lists:duplicate(255, $y))], ok."""
            )
            expected = [Atom(f"e_{round % 7 * 1000 + n}") for n in range(1, 301)] + [Atom("y" * 255)]
            assert await receive(timeout=10) == expected

    run(story, epmd, tmp_path)


# --- links, monitors, exits -------------------------------------------------------------------------------------------


def test_deaths_over_there_are_told_here_with_their_reasons(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        process_flag("trap_exit", True)

        async def worker() -> Any:
            await erlang.ask(f"{{test, '{PY}'}} ! {{w, spawn(fun() -> receive {{die, R}} -> exit(R) end end)}}.")
            return (await receive(match=lambda m: m[0] == "w", timeout=5))[1]

        pid = await worker()
        link(pid)
        ref = monitor(pid)
        reason = (Atom("because"), 42, [b"x"])
        send(pid, (Atom("die"), reason))
        got = sorted([await receive(timeout=5), await receive(timeout=5)], key=lambda m: m[0])
        assert got == [("DOWN", ref, "process", pid, reason), ("EXIT", pid, reason)]
        ref = monitor(pid)
        assert await receive(timeout=5) == ("DOWN", ref, "process", pid, "noproc")
        link(pid)
        assert await receive(timeout=5) == ("EXIT", pid, "noproc")

        pid = await worker()
        ref = monitor(pid)
        exit(pid, "kill")
        assert await receive(timeout=5) == ("DOWN", ref, "process", pid, "killed")

        pid = await worker()
        link(pid)
        ref = monitor(pid)
        unlink(pid)
        demonitor(ref)
        exit(pid, Atom("unseen"))
        name_ref = monitor((Atom("nobody"), Atom(erlang.name)))
        assert (await receive(timeout=5))[:2] == ("DOWN", name_ref)
        await nothing_more()

    run(story, epmd, tmp_path)


def test_deaths_here_are_told_over_there_with_their_reasons(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        async def worker() -> None:
            exit((Atom("bye"), await receive()))

        await erlang.ask("process_flag(trap_exit, true).")
        pid = spawn(worker, name="worker")
        await erlang.ask(f"{{test, '{PY}'}} ! self(), Ref = monitor(process, {{worker, '{PY}'}}).")
        shell = await receive(timeout=5)
        send(shell, (Atom("pid"), pid))
        await erlang.ask("receive {pid, W} -> link(W), PRef = monitor(process, W), W end.")
        await erlang.ask("W ! 7.")
        for what in (
            "{'EXIT', W, {bye, 7}}",
            "{'DOWN', PRef, process, W, {bye, 7}}",
            "{'DOWN', Ref, process, _, {bye, 7}}",
        ):
            assert await erlang.ask(f"receive {what} -> seen after 5000 -> missing end.") == "seen", what
        assert await erlang.ask("link(W), receive {'EXIT', W, noproc} -> seen after 5000 -> missing end.") == "seen"
        assert await erlang.ask("receive X -> X after 100 -> silence end.") == "silence"

    run(story, epmd, tmp_path)


@pytest.mark.parametrize("dialer", ["python", "erlang"])
def test_kill_minus_nine_of_the_erlang_node(epmd: Epmd, tmp_path: Path, dialer: str) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        process_flag("trap_exit", True)
        node.monitor_nodes()
        if dialer == "python":
            await node.connect(erlang.name)
        await erlang.ask(f"{{test, '{PY}'}} ! self().")
        seen = [await receive(timeout=5), await receive(timeout=5)]
        shell = next(m for m in seen if not isinstance(m, tuple))
        link(shell)
        refs = [monitor(shell) for _ in range(3)]
        assert await node.ping(erlang.name)
        erlang.signal(signal.SIGKILL)
        got = [await receive(timeout=2) for _ in range(5)]
        assert ("EXIT", shell, NOCONNECTION) in got and ("nodedown", erlang.name) in got
        assert all(("DOWN", ref, "process", shell, NOCONNECTION) in got for ref in refs)
        await nothing_more()
        with pytest.raises(NotConnected):
            await node.connect(erlang.name)

    run(story, epmd, tmp_path)


def test_the_end_of_the_python_node(epmd: Epmd, tmp_path: Path) -> None:
    with Erlang(epmd, "erl") as erlang:

        async def life() -> None:
            async with python(epmd, tmp_path) as node:
                await node.connect(erlang.name)
                register("test", self_pid())
                await erlang.ask(f"monitor_node('{PY}', true), Ref = monitor(process, {{test, '{PY}'}}).")

        asyncio.run(life())
        assert erlang.eval("receive {'DOWN', Ref, process, _, R} -> R after 5000 -> missing end.") in (
            "noconnection",
            "shutdown",
            "normal",
            "noproc",
        )
        assert erlang.eval(f"receive {{nodedown, '{PY}'}} -> seen after 5000 -> missing end.") == "seen"
        assert erlang.eval(f"net_adm:ping('{PY}').") == "pang"


# --- servers and spawns -----------------------------------------------------------------------------------------------


class Adder(GenServer):
    async def init(self, start: int = 0) -> None:
        self.total = start

    async def handle_call(self, request: Any, from_: Any) -> Any:
        self.total += request
        return self.total


def test_calls_and_spawns_both_ways(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await Adder.start(40, name="adder")
        assert await erlang.ask(f"gen_server:call({{adder, '{PY}'}}, 2).") == "42"
        assert await call((Atom("kernel_sup"), Atom(erlang.name)), Atom("which_children"))
        assert await node.rpc(erlang.name, "lists", "reverse", [[1, 2, 300]]) == [300, 2, 1]
        with pytest.raises(RemoteError):
            await node.rpc(erlang.name, "no_such_module", "f", [])
        pid = await spawn("timer:sleep", 60_000, node=erlang.name)
        assert pid.node == erlang.name
        ref = monitor(pid)
        exit(pid, Atom("enough"))
        assert await receive(timeout=5) == ("DOWN", ref, "process", pid, "enough")

        async def worker(to: Any) -> None:
            send(to, (Atom("from"), self_pid()))

        node.export(worker, module="workers")
        answer = await erlang.ask(
            f"W = spawn('{PY}', workers, worker, [self()]), receive {{from, W}} -> node(W) after 5000 -> missing end."
        )
        assert answer == f"'{PY}'"
        refused = f"{{P, R}} = spawn_monitor('{PY}', os, system, [[]]), receive {{'DOWN', R, _, P, Why}} -> Why end."
        assert (await erlang.ask(refused)).startswith("{undef,")

    run(story, epmd, tmp_path)


# --- ticks ------------------------------------------------------------------------------------------------------------


def test_an_idle_link_stays_up_and_a_stopped_peer_is_noticed(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        node.monitor_nodes()
        await node.connect(erlang.name)
        assert await receive(timeout=5) == ("nodeup", erlang.name)
        await nothing_more(9)  # more than two tick times of silence on both sides
        assert node.nodes() == [erlang.name]
        assert await erlang.ask("nodes(hidden).") == f"['{PY}']"
        erlang.signal(signal.SIGSTOP)
        assert await receive(timeout=8) == ("nodedown", erlang.name)

    run(story, epmd, tmp_path, "-kernel", "net_ticktime", "4", net_ticktime_ms=4000)


def test_a_blocked_loop_goes_on_ticking(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        import time

        await node.connect(erlang.name)
        await erlang.ask(f"monitor_node('{PY}', true).")
        time.sleep(10)  # noqa: ASYNC251  (blocked is what this is about)
        assert await erlang.ask("receive Down -> Down after 100 -> alive end.") == "alive"
        assert await node.ping(erlang.name)

    run(story, epmd, tmp_path, "-kernel", "net_ticktime", "4", net_ticktime_ms=4000)
