"""``global`` among real Erlang nodes and published Python nodes, over ``inet_tcp``."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    CallTimeout,
    GenServer,
    NoProc,
    Pid,
    StartError,
    call,
    cast,
    global_,
    is_alive,
    receive,
    self_pid,
    send,
    spawn,
    stop,
)
from barrel_p2p.process.current import current_process
from barrel_p2p.proto.global_core import pid_order
from harness.erlang import Epmd
from harness.erlang_net import ECHO, Net, run, trio, until, until_erlang

SERVER = Atom("global_name_server")
X = Atom("x")
PY = Atom("py@127.0.0.1")


class Adder(GenServer):
    async def init(self, start: int = 0) -> None:
        self.total = start

    async def handle_call(self, request: Any, from_: Any) -> Any:
        self.total += request
        return self.total

    async def handle_cast(self, request: Any) -> None:
        self.total += request


async def idle() -> None:
    await receive()


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_of_each_node_are_known_on_each(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        mine = spawn(idle)
        assert await node.global_.register_name(Atom("of_py"), mine)
        assert await one.ask(f"global:register_name(of_erl1, {ECHO}).") == "yes"
        assert await two.ask(f'global:register_name({{owned, ["erl2", 2.5]}}, {ECHO}).') == "yes"
        for erlang in (one, two):
            assert await erlang.ask("node(global:whereis_name(of_py)).") == f"'{PY}'"
            assert await erlang.ask("lists:sort(global:registered_names()).") == '[of_erl1,of_py,{owned,["erl2",2.5]}]'
        assert node.global_.whereis_name(Atom("of_py")) == mine
        assert node.global_.whereis_name(Atom("of_erl1")).node == one.name  # type: ignore[union-attr]
        of_two = global_((Atom("owned"), [list(b"erl2"), 2.5]))
        assert await call(of_two, Atom("hello")) == (Atom("echo"), Atom("hello"))
        assert len(node.global_.registered_names()) == 3
        # nobody gets a name that somebody has
        assert await one.ask("global:register_name(of_py, self()).") == "no"
        assert not await node.global_.register_name(Atom("of_erl1"), self_pid())
        # taken away on any node, it is gone on all
        await node.global_.unregister_name(Atom("of_erl1"))
        assert await two.ask("global:whereis_name(of_erl1).") == "undefined"
        assert await one.ask("global:unregister_name(of_py).") == "ok"
        assert node.global_.whereis_name(Atom("of_py")) is None

    run(story, epmd, tmp_path)


def test_servers_are_called_by_global_names_both_ways(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        _, one, two = await trio(net)
        pid = await Adder.start(10, name=global_(Atom("adder")))
        assert await one.ask("gen_server:call({global, adder}, 5).") == "15"
        assert await two.ask("gen_server:cast({global, adder}, 5), gen_server:call({global, adder}, 0).") == "20"
        assert await call(global_(Atom("adder")), 1) == 21
        cast(global_(Atom("adder")), 1)
        assert await two.ask("global:send(adder, hello) =:= global:whereis_name(adder).") == "true"
        with pytest.raises(StartError) as taken:
            await Adder.start(name=global_(Atom("adder")))
        assert taken.value.reason == (Atom("already_started"), pid)
        await stop(global_(Atom("adder")))
        await until_erlang(one, "global:whereis_name(adder) =:= undefined")
        with pytest.raises(NoProc):
            await call(global_(Atom("adder")), 1)

        assert await two.ask(f'global:register_name(<<"echo">>, {ECHO}).') == "yes"
        assert await call(global_("echo"), 7) == (Atom("echo"), 7)  # a str is a binary over there
        assert await call(global_(b"echo"), 7) == (Atom("echo"), 7)
        assert await one.ask("global:register_name(shell, self()).") == "yes"
        send(global_(Atom("shell")), (Atom("from"), self_pid()))
        await one.ask("receive {from, P} -> P ! {thanks, self()} end.")
        assert (await receive(timeout=5))[0] == "thanks"

    run(story, epmd, tmp_path)


def test_re_register_takes_the_name_over(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        assert await one.ask("global:register_name(x, self()).") == "yes"
        await node.global_.re_register_name(X, self_pid())
        assert await two.ask("node(global:whereis_name(x)).") == f"'{PY}'"
        assert await two.ask("global:re_register_name(x, self()).") == "yes"
        assert node.global_.whereis_name(X).node == two.name  # type: ignore[union-attr]
        # a process of another node, named from here and from there
        pid = node.global_.whereis_name(X)
        await node.global_.unregister_name(X)
        assert await node.global_.register_name(Atom("y"), pid)
        assert await two.ask("global:whereis_name(y) =:= self().") == "true"

    run(story, epmd, tmp_path)


def test_a_dead_process_loses_its_name_everywhere(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        mine = spawn(idle)
        assert await node.global_.register_name(X, mine)
        send(mine, "end")
        await until(lambda: node.global_.whereis_name(X) is None)
        for erlang in (one, two):
            await until_erlang(erlang, "global:whereis_name(x) =:= undefined")
        await one.ask(f"P = {ECHO}, yes = global:register_name(x, P), P ! stop.")
        await until(lambda: node.global_.whereis_name(X) is None)
        assert await node.global_.register_name(X, self_pid())

    run(story, epmd, tmp_path)


def test_the_names_of_a_killed_node_vanish_and_can_be_had_again(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        assert await one.ask("global:register_name(of_erl1, self()).") == "yes"
        assert await two.ask("global:register_name(of_erl2, self()).") == "yes"
        assert await node.global_.register_name(Atom("of_py"), self_pid())
        one.kill()
        await until(lambda: node.global_.whereis_name(Atom("of_erl1")) is None)
        await until_erlang(two, "global:whereis_name(of_erl1) =:= undefined")
        # the others stay together
        assert node.nodes() == [two.name] == node.global_.nodes()
        assert await two.ask("nodes().") == f"['{PY}']"
        other = spawn(idle)
        assert await node.global_.register_name(Atom("of_erl1"), other, timeout=10)
        assert await two.ask("node(global:whereis_name(of_erl1)).") == f"'{PY}'"
        await node.stop()
        await until_erlang(two, "nodes() =:= [] andalso global:registered_names() =:= [of_erl2]")

    run(story, epmd, tmp_path)


def test_a_late_joiner_gets_all_names(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, _ = await trio(net)
        assert await node.global_.register_name(Atom("of_py"), self_pid())
        assert await one.ask("global:register_name(of_erl1, self()).") == "yes"
        late = await net.erlang("late")
        assert await late.ask(f"{{net_adm:ping('{PY}'), global:sync()}}.") == "{pong,ok}"
        await until_erlang(late, "length(nodes()) =:= 3")
        assert await late.ask("lists:sort(global:registered_names()).") == "[of_erl1,of_py]"
        other = await net.python("snake")
        await other.connect(late.name)
        await until(lambda: len(other.global_.nodes()) == 4 and len(other.nodes()) == 4)
        assert other.global_.whereis_name(Atom("of_py")) is not None
        assert other.global_.whereis_name(Atom("of_erl1")) is not None
        await until(lambda: len(node.global_.nodes()) == 4)

    run(story, epmd, tmp_path)


# --- two have the same name -------------------------------------------------------------------------------------------

ERLANG_METHODS = {
    "random_exit_name": "fun global:random_exit_name/3",
    "random_notify_name": "fun global:random_notify_name/3",
    "notify_all_name": "fun global:notify_all_name/3",
    "none": "fun(_, _, _) -> none end",
}


@pytest.mark.parametrize("method", list(ERLANG_METHODS))
@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_clash_is_resolved_as_said_at_the_registration(epmd: Epmd, tmp_path: Path, name: str, method: Any) -> None:
    """The process on the node of the greater name loses; which node decides depends on the names, too."""

    async def story(net: Net) -> None:
        erlang, node = await net.erlang("mid"), await net.python(name)
        mine = spawn(tell_all, self_pid())
        assert await node.global_.register_name(X, mine, resolve=method)
        tell = "spawn(fun L() -> receive M -> S ! {heard, M}, L() end end)"
        await erlang.ask(f"S = self(), P = {tell}.")
        assert await erlang.ask(f"global:register_name(x, P, {ERLANG_METHODS[method]}).") == "yes"
        await node.connect(erlang.name)
        await node.global_.sync()
        await until_erlang(erlang, "global:sync() =:= ok")
        wins = name < "mid"
        here = node.global_.whereis_name(X)
        there = await erlang.ask("global:whereis_name(x).")
        if method in ("none", "notify_all_name"):
            assert here is None and there == "undefined"
        elif wins:
            assert here == mine and there != "undefined"
            assert await erlang.ask("P =:= global:whereis_name(x).") == "false"
        else:
            assert here is not None and here.node == erlang.name
            assert await erlang.ask("P =:= global:whereis_name(x).") == "true"
        loses_life = method == "random_exit_name"
        if loses_life and not wins:
            await until(lambda: not is_alive(mine))
        else:
            assert is_alive(mine)
        assert await erlang.ask("is_process_alive(P).") == ("false" if loses_life and wins else "true")
        if method == "notify_all_name":
            told = await receive(timeout=5)
            assert told[1][:2] == (Atom("global_name_conflict"), X) and told[1][2].node == erlang.name
            assert await erlang.ask("receive {heard, {global_name_conflict, x, Q}} -> node(Q) end.") == f"'{node.name}'"
        elif method == "random_notify_name" and wins:
            assert await erlang.ask("receive {heard, M} -> M end.") == "{global_name_conflict,x}"
        elif method == "random_notify_name":
            assert await receive(timeout=5) == (Atom("told"), (Atom("global_name_conflict"), X))

    run(story, epmd, tmp_path)


async def tell_all(boss: Pid) -> None:
    while True:
        send(boss, (Atom("told"), await receive()))


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_the_default_functions_of_both_sides_meet(epmd: Epmd, tmp_path: Path, name: str) -> None:
    """``global:register_name/2`` sends a fun that only Erlang can run, and here the process it is for is ours."""

    async def story(net: Net) -> None:
        erlang, other, node = await net.erlang("mid"), await net.erlang("far"), await net.python(name)
        mine = spawn(idle)
        await node.connect(erlang.name)
        await node.global_.sync()
        await erlang.ask("register(shell, self()).")
        send((Atom("shell"), Atom(erlang.name)), mine)
        assert await erlang.ask("receive Pid -> global:register_name(x, Pid) end.") == "yes"
        assert node.global_.whereis_name(X) == mine
        assert await other.ask(f"global:register_name(x, {ECHO}).") == "yes"
        await node.connect(other.name)
        await until(lambda: len(node.global_.nodes()) == 2)
        await node.global_.sync()
        keeper = min(node.name, other.name)
        assert node.global_.whereis_name(X).node == keeper  # type: ignore[union-attr]
        for each in (erlang, other):
            await until_erlang(each, "length(nodes()) =:= 2 andalso global:sync() =:= ok")
        assert await erlang.ask("node(global:whereis_name(x)).") == f"'{keeper}'"
        assert is_alive(mine) == (keeper == node.name)

    run(story, epmd, tmp_path)


# --- nobody is held up ------------------------------------------------------------------------------------------------


def test_registering_goes_on_while_our_loop_is_blocked(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        _, one, two = await trio(net)
        one.send("{T, yes} = timer:tc(fun() -> global:register_name(x, self()) end), T div 1000.")
        time.sleep(1.0)  # noqa: ASYNC251 - the blocked loop is what is tested
        millis = int(await asyncio.get_running_loop().run_in_executor(None, one.answer))
        assert millis < 5000
        assert (
            await two.ask(f"{{T, yes}} = timer:tc(fun() -> global:register_name(y, {ECHO}) end), T < 5000000.")
            == "true"
        )

    run(story, epmd, tmp_path)


def test_a_python_node_that_is_killed_with_the_lock_blocks_nobody(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        member = await net.member("snake")
        await node.connect(member.name)
        await until(lambda: len(node.global_.nodes()) == 3)
        assert await node.rpc(member.name, "member", "take_global_lock", [one.name])
        one.send(f"{{T, yes}} = timer:tc(fun() -> global:register_name(x, {ECHO}) end), T div 1000.")
        await asyncio.sleep(0.5)
        member.signal(signal.SIGKILL)
        millis = int(await asyncio.get_running_loop().run_in_executor(None, one.answer))
        assert 300 < millis < 15_000
        assert await two.ask("is_pid(global:whereis_name(x)).") == "true"
        assert node.global_.whereis_name(X) is not None

    run(story, epmd, tmp_path)


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3, 0.5])
def test_a_python_node_that_stands_still_while_it_joins_gets_in_afterwards(
    epmd: Epmd, tmp_path: Path, after: float
) -> None:
    async def story(net: Net) -> None:
        one, member = await net.erlang("erl1"), await net.member("snake")
        assert await one.ask(f"net_adm:ping('{member.name}').") == "pong"
        await asyncio.sleep(after)  # somewhere in the exchange of names
        member.signal(signal.SIGSTOP)
        one.send(f"{{T, yes}} = timer:tc(fun() -> global:register_name(x, {ECHO}) end), T div 1000.")
        await asyncio.sleep(2.0)
        member.signal(signal.SIGCONT)
        millis = int(await asyncio.get_running_loop().run_in_executor(None, one.answer))
        assert millis < 20_000
        assert await one.ask("global:sync().") == "ok"
        there = f"rpc:call('{member.name}', member, global_pid_of, [x])"
        await until_erlang(one, f"{there} =:= global:whereis_name(x)")

    run(story, epmd, tmp_path)


def test_we_order_pids_as_erlang_does(epmd: Epmd, tmp_path: Path) -> None:
    """Both lockers make the id of their lock out of their two pids, in order."""
    rng = random.Random(7)
    nodes = [Atom("a@h"), Atom("b@h"), Atom("erl@127.0.0.1"), PY]
    pids = [Pid(rng.choice(nodes), rng.randrange(4), rng.randrange(3), rng.randrange(3)) for _ in range(60)]

    async def story(net: Net) -> None:
        erlang, node = await net.erlang("erl"), await net.python()
        await node.connect(erlang.name)
        send((Atom("shell"), Atom(erlang.name)), 1)
        await erlang.ask("register(shell, self()).")
        send((Atom("shell"), Atom(erlang.name)), (self_pid(), pids))
        await erlang.ask("receive {P, L} -> P ! lists:sort(L) end.")
        assert await receive(timeout=5) == sorted(pids, key=pid_order)

    run(story, epmd, tmp_path)


def test_malformed_messages_change_nothing(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, _ = await trio(net)
        assert await node.global_.register_name(X, self_pid())
        to = f"{{global_name_server, '{PY}'}}"
        for term in (
            "x", "[]", "{}", "{init_connect, 8, a, b}", "{init_connect, {8, 1}, 'no@where', {locker, a, b, self()}}",
            "{init_connect, {8}, node(), {locker, a, b, c}}", "{exchange, node(), [x|y], [], 1}",
            "{exchange, node(), [{a, b, c}, 1], [], 1}", "{resolved, node(), [{insert, x}], y, z, [], 1}",
            "{new_nodes, node(), [{insert, {x, y, z}}, {delete}], [], [a, {b, c}], d}", "{in_sync, 1, 2}",
            "{lock_set, self(), perhaps, []}", "{lock_set, self(), true, [], 77}", "{lock_set, self(), false, []}",
            "{lost_connection, a, b, c, d}", "{lost_connection, a, 1, 2, b}", "{remove_connection, 7}",
            "{cancel_connect, node(), 99}", "{init_connect_ack, 'x@y', 1, 2}", "{whereis, x, y}",
            "#{1 => 2, 1.0 => 3}", "fun() -> x end", "{async_del_name, a, b}", "{register, a, b, c}",
        ):  # fmt: skip
            assert await one.ask(f"{to} ! {term}, gen_server:cast({to}, {term}), ok.") == "ok"
            assert await one.ask(f"{to} ! {{'$gen_call', {{self(), make_ref()}}, {term}}}, ok.") == "ok"
            assert await one.ask(f"{to} ! {{'$gen_call', nobody, {term}}}, ok.") == "ok"
        deep = "lists:foldl(fun(_, A) -> [A] end, [], lists:seq(1, 500))"
        await one.ask(f"{to} ! {{'$gen_call', {{self(), make_ref()}}, {{set_lock, {{{deep}, 1}}}}}}, ok.")
        assert await one.ask(f"gen_server:call({to}, get_protocol_version).") == "8"
        assert await one.ask(f"gen_server:call({to}, get_names_ext).") == "[]"
        assert await one.ask("global:register_name(still, self()).") == "yes"
        assert node.global_.whereis_name(Atom("still")) is not None
        assert node.global_.whereis_name(X) == self_pid()

    run(story, epmd, tmp_path)


def test_a_lock_that_is_never_released_ends_in_a_timeout_and_goes_with_its_holder(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        assert await one.ask("global:set_lock({global, me}).") == "true"
        with pytest.raises(CallTimeout, match="lock"):
            await node.global_.register_name(X, self_pid(), timeout=1)
        one.kill()
        assert await node.global_.register_name(X, self_pid(), timeout=20)
        assert await two.ask("node(global:whereis_name(x)).") == f"'{PY}'"

    run(story, epmd, tmp_path)


def test_erlang_locks_reach_us_too(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        assert await one.ask("global:set_lock({res, a}, [node() | nodes()], 0).") == "true"
        assert await two.ask(f"global:set_lock({{res, b}}, ['{PY}'], 0).") == "false"
        assert await call((SERVER, PY), (Atom("set_lock"), (Atom("res"), Atom("b"))), node=node) is False
        assert await one.ask("global:del_lock({res, a}).") == "true"
        assert await two.ask(f"global:set_lock({{res, b}}, ['{PY}'], 0).") == "true"
        assert await one.ask("global:trans({other, self()}, fun() -> done end).") == "done"

    run(story, epmd, tmp_path)


# --- partitions -------------------------------------------------------------------------------------------------------


def test_a_python_node_that_leaves_an_erlang_node_leaves_alone(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        node.disconnect(one.name)
        await until(lambda: node.nodes() == [] and node.global_.nodes() == [])
        for erlang, other in ((one, two), (two, one)):
            await until_erlang(erlang, f"nodes() =:= ['{other.name}']")

    run(story, epmd, tmp_path)


def test_erlang_nodes_that_lose_each_other_leave_no_bridge_behind(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        await one.ask(f"erlang:disconnect_node('{two.name}').")
        # nobody is left between two that lost each other; a message under way can bring one link back, as in OTP
        await until(lambda: len(node.nodes()) < 2)
        for erlang in (one, two):
            await until_erlang(erlang, "length(nodes()) < 2")
        # and everybody can come together again
        assert await one.ask(f"net_adm:ping('{two.name}').") == "pong"
        await node.connect(two.name)
        await until(lambda: sorted(node.global_.nodes()) == [one.name, two.name])
        assert await node.global_.register_name(X, self_pid())
        assert await one.ask("node(global:whereis_name(x)).") == f"'{PY}'"

    run(story, epmd, tmp_path)


def test_python_nodes_that_lose_each_other_both_leave_the_erlang_node(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        node, one, two = await trio(net)
        other = await net.python("snake")
        await other.connect(one.name)
        for each in (node, other):
            await until(lambda each=each: len(each.global_.nodes()) == 3 == len(each.nodes()))  # type: ignore[misc]
        for erlang in (one, two):  # nobody is still about to connect to somebody
            await until_erlang(erlang, "length(gen_server:call(global_name_server, get_synced)) =:= 3")
        for each in (node, other):
            server = (SERVER, each.name)
            await call(server, (Atom("sync"), [*each.nodes()]), node=each)
        node.disconnect(other.name)
        await until(lambda: node.nodes() == [] and other.nodes() == [])
        for erlang, peer in ((one, two), (two, one)):
            await until_erlang(erlang, f"nodes() =:= ['{peer.name}']")

    run(story, epmd, tmp_path)


def test_a_hidden_node_keeps_its_names_from_erlang_nodes(epmd: Epmd, tmp_path: Path) -> None:
    async def story(net: Net) -> None:
        erlang, node = await net.erlang("erl"), await net.python("hidden", published=False)
        other = await net.python("other", published=False)
        await node.connect(erlang.name)
        await node.connect(other.name)
        await node.global_.sync()
        assert await node.global_.register_name(X, current_process().pid)
        assert other.global_.whereis_name(X) is not None
        assert await erlang.ask("{global:whereis_name(x), global:register_name(x, self())}.") == "{undefined,yes}"
        assert node.global_.nodes() == [other.name]

    run(story, epmd, tmp_path)


def test_a_hidden_node_takes_locks_of_programs(epmd: Epmd, tmp_path: Path) -> None:
    """As a hidden Erlang node does: ``global`` leaves it out, but who names it means it."""

    async def story(net: Net) -> None:
        erlang, node = await net.erlang("erl"), await net.python("hidden", published=False)
        await node.connect(erlang.name)
        hidden = f"['{node.name}']"
        assert await erlang.ask(f"global:trans({{res, self()}}, fun() -> done end, {hidden}, 1).") == "done"
        holder = f"H = spawn(fun() -> global:set_lock({{res, h}}, {hidden}), receive stop -> ok end end)"
        taken = f"F = fun F() -> case global:set_lock({{res, x}}, {hidden}, 0) of true -> global:del_lock({{res, x}}, "
        taken += f"{hidden}), F(); false -> held end end, F()."
        assert await erlang.ask(f"{holder}, {taken}") == "held"
        assert await erlang.ask(f"H ! stop, global:set_lock({{res, x}}, {hidden}).") == "true"

    run(story, epmd, tmp_path)
