"""Supervisors of one language with children of the other, and what each side sees of a crash."""

from __future__ import annotations

import asyncio
from enum import Enum
from pathlib import Path
from typing import Any

from barrel_p2p import (
    Atom,
    ChildSpec,
    GenServer,
    Node,
    Stop,
    Supervisor,
    call,
    exit,
    link,
    monitor,
    process_flag,
    receive,
    self_pid,
    send,
    spawn_link,
)
from harness.beside import PY, load, nothing_more, run, shell_of
from harness.erlang import Epmd, Erlang


class Adder(GenServer):
    async def init(self, n: int = 0, tell: Any = None) -> None:
        self.n = n
        self._tell = tell

    async def handle_call(self, request: Any, from_: Any) -> Any:
        if request == "crash":
            raise ValueError("as told")
        self.n += request
        return self.n


async def down(ref: Any) -> Any:
    message = await receive(match=lambda m: isinstance(m, tuple) and len(m) == 5 and m[1] == ref, timeout=10)
    return message[4]


# --- Erlang asks a Python supervisor ----------------------------------------------------------------------------------


def test_a_python_supervisor_is_asked_from_erlang(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        process_flag("trap_exit", True)
        specs = [
            ChildSpec("one", (Adder, (1,)), name="one"),
            ChildSpec(Atom("two"), (Adder, (2,)), restart="transient"),
            ChildSpec(Atom("sub"), (Supervisor.start_link, ([],)), type="supervisor"),
        ]
        pid = await Supervisor.start_link(specs, name="sup")
        sup = f"{{sup, '{PY}'}}"
        assert await erlang.ask(f"supervisor:count_children({sup}).") == (
            "[{specs,3},{active,3},{supervisors,1},{workers,2}]"
        )
        children = await erlang.ask(f"[{{I, is_pid(P), T}} || {{I, P, T, _}} <- supervisor:which_children({sup})].")
        assert children == '[{sub,true,supervisor},{two,true,worker},{<<"one">>,true,worker}]'
        await erlang.ask(f"{{two, Two, _, _}} = lists:keyfind(two, 1, supervisor:which_children({sup})).")
        assert await erlang.ask("gen_server:call(Two, 1).") == "3"
        assert await erlang.ask(f"supervisor:terminate_child({sup}, two).") == "ok"
        assert await erlang.ask(f"lists:keyfind(two, 1, supervisor:which_children({sup})).") == (
            "{two,undefined,worker,['Adder']}"
        )
        assert (await erlang.ask(f"supervisor:restart_child({sup}, two).")).startswith("{ok,<")
        assert await erlang.ask(f"supervisor:restart_child({sup}, two).") == "{error,running}"
        assert await erlang.ask(f"supervisor:terminate_child({sup}, nobody).") == "{error,not_found}"
        assert await erlang.ask(f"supervisor:terminate_child({sup}, two), supervisor:delete_child({sup}, two).") == "ok"
        refused = f"element(1, supervisor:start_child({sup}, #{{id => x, start => {{m, f, []}}}}))."
        assert await erlang.ask(refused) == "error"
        # a child that Erlang kills is restarted
        await erlang.ask(f"exit(element(2, sys:get_status({{one, '{PY}'}})), kill).")
        again = f"(fun W() -> try gen_server:call({{one, '{PY}'}}, 1) catch exit:_ -> timer:sleep(5), W() end end)()."
        assert await erlang.ask(again) == "2"
        ref = monitor(pid)
        assert await erlang.ask(f"gen_server:stop({sup}, shutdown, 5000).") == "ok"
        assert await down(ref) == "shutdown"

    run(story, epmd, tmp_path)


# --- an Erlang supervisor with Python children ------------------------------------------------------------------------


def test_what_a_python_supervisor_tells_of_its_children(epmd: Epmd, tmp_path: Path) -> None:
    class Kind(Enum):
        PLAIN = 1

    async def story(node: Node, erlang: Erlang) -> None:
        specs = [
            ChildSpec(Atom("one"), (Adder, (1,)), shutdown=2.5),
            ChildSpec(Atom("two"), (Adder, (1, Kind.PLAIN)), restart="temporary", shutdown="brutal_kill"),
            ChildSpec(Kind.PLAIN, Adder),
        ]
        await Supervisor.start_link(specs, name="sup")
        sup = f"{{sup, '{PY}'}}"
        assert await erlang.ask(f"supervisor:get_callback_module({sup}).") == "'Supervisor'"
        one = "#{id => one, start => {'Adder', start_link, [1]}, restart => permanent, significant => false,"
        one += " shutdown => 2500, type => worker, modules => ['Adder']}"
        assert await erlang.ask(f"supervisor:get_childspec({sup}, one) =:= {{ok, {one}}}.") == "true"
        shown = "{ok, #{start := {_, _, [1, Text]}, restart := temporary, shutdown := brutal_kill}}"
        assert await erlang.ask(f"{shown} = supervisor:get_childspec({sup}, two), Text.") == '<<"<Kind.PLAIN: 1>">>'
        assert await erlang.ask(f"supervisor:get_childspec({sup}, three).") == "{error,not_found}"
        ids = f"[Id || {{Id, _, _, _}} <- supervisor:which_children({sup})]."
        assert await erlang.ask(ids) == '[<<"<Kind.PLAIN: 1>">>,two,one]'
        assert [child[0] for child in await Supervisor.which_children("sup")] == [Kind.PLAIN, "two", "one"]

    run(story, epmd, tmp_path)


def test_an_erlang_supervisor_restarts_python_processes(epmd: Epmd, tmp_path: Path) -> None:
    started: list[Any] = []
    ended: list[Any] = []

    class Told(Adder):
        async def init(self, *args: Any) -> None:
            await Adder.init(self, 1)
            process_flag("trap_exit", True)

        async def handle_info(self, message: Any) -> Any:
            match message:
                case (Atom("EXIT"), _, reason):
                    return Stop(reason)

        async def terminate(self, reason: Any) -> None:
            ended.append(reason)

    async def work() -> None:
        send("test", (Atom("works"), None))
        while True:
            message = await receive()
            if message == "crash":
                raise KeyError("lost")

    async def start_adder(tell: Any) -> Any:
        pid = await Told.start()
        started.append(pid)
        return pid

    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "py_sup")
        node.export(work, module="workers")
        node.export(start_adder, module="workers")

        async def worker_up() -> None:
            assert await receive(match=lambda m: m == ("works", None), timeout=10)

        await erlang.ask(f"process_flag(trap_exit, true), {{ok, Sup}} = py_sup:start_link('{PY}', self()).")
        await worker_up()
        child = "P%d = element(2, lists:keyfind(%s, 1, supervisor:which_children(Sup))), node(P%d)."
        assert await erlang.ask(child % (1, "worker", 1)) == f"'{PY}'"
        # the Python worker crashes, and the supervisor starts another
        await erlang.ask("M1 = monitor(process, P1), P1 ! crash.")
        reason = await erlang.ask("receive {'DOWN', M1, _, _, {Why, _}} -> Why after 5000 -> missing end.")
        assert reason == '{exception,<<"KeyError">>,<<"\'lost\'">>}'
        await worker_up()
        assert await erlang.ask(child % (2, "worker", 2)) == f"'{PY}'"
        assert await erlang.ask("P1 =/= P2.") == "true"
        # the Python server crashes in a call
        assert await erlang.ask(child % (3, "server", 3)) == f"'{PY}'"
        assert await erlang.ask("gen_server:call(P3, 4).") == "5"
        assert (await erlang.ask("catch gen_server:call(P3, crash).")).startswith("{'EXIT',{{{exception,")
        another = "(fun W() -> case lists:keyfind(server, 1, supervisor:which_children(Sup)) of "
        another += (
            "{_, P, _, _} when is_pid(P), P =/= P3 -> gen_server:call(P, 0); _ -> timer:sleep(5), W() end end)()."
        )
        assert await erlang.ask(another) == "1"
        assert len(started) == 2 and len(ended) == 1
        # the supervisor ends, and its Python children with it
        ref = monitor(started[1])
        workers = [p for p in node.runtime.processes.values() if isinstance(p.label, tuple) and p.label[3] == "work"]
        assert len(workers) == 1
        worker_ref = monitor(workers[0].pid)
        await erlang.ask("gen_server:stop(Sup, shutdown, 10000).")
        assert await down(ref) == "shutdown" and await down(worker_ref) == "shutdown"
        assert ended[1:] == ["shutdown"]
        await nothing_more()

    run(story, epmd, tmp_path)


def test_the_death_of_an_erlang_supervisor_reaches_its_python_child(epmd: Epmd, tmp_path: Path) -> None:
    async def work() -> None:
        send("test", (Atom("works"), self_pid()))
        await receive()

    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "py_sup")
        node.export(work, module="workers")
        start = f"{{ok, P}} = py_sup:spawn_worker('{PY}'), receive die -> exit(P, normal), exit(gone) end"
        await erlang.ask(f"S = spawn(fun() -> {start} end).")
        _, pid = await receive(timeout=5)
        ref = monitor(pid)
        await erlang.ask("S ! die.")
        assert await down(ref) == "gone"

    run(story, epmd, tmp_path)


# --- a Python supervisor with children on the Erlang node -------------------------------------------------------------


class Far:
    """Starts children on an Erlang node: each way gives the pid of a process that is linked with the supervisor."""

    node: Node
    name: str

    @classmethod
    async def sleeper(cls) -> Any:
        return await spawn_link("timer:sleep", Atom("infinity"), node=cls.name)

    @classmethod
    async def counter(cls, n: int) -> Any:
        _, pid = await cls.node.rpc(cls.name, "counter", "start", [n])
        link(pid)
        return pid


def test_a_python_supervisor_restarts_erlang_processes(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        Far.node, Far.name = node, erlang.name
        await load(erlang, "counter")
        specs = [ChildSpec("sleeper", Far.sleeper), ChildSpec("counter", (Far.counter, (7,)))]
        sup = await Supervisor.start_link(specs, intensity=5)

        async def children() -> dict[Any, Any]:
            return {id: pid for id, pid, _, _ in await Supervisor.which_children(sup)}

        async def replaced(id: str, old: Any) -> Any:
            async with asyncio.timeout(10):
                while True:
                    pid = (await children())[id]
                    if pid != old and pid != "restarting":
                        return pid
                    await asyncio.sleep(0.005)

        first = await children()
        assert {pid.node for pid in first.values()} == {erlang.name}
        assert await call(first["counter"], Atom("inc")) == 8
        exit(first["sleeper"], "kill")
        assert await replaced("sleeper", first["sleeper"])
        shell = await shell_of(erlang)
        send(shell, (Atom("pid"), first["counter"]))
        await erlang.ask("receive {pid, C} -> exit(C, crashed) end.")
        counter = await replaced("counter", first["counter"])
        assert await call((Atom("counter"), Atom(erlang.name)), Atom("inc")) == 8
        ref = monitor(counter)
        await Supervisor.terminate_child(sup, "counter")
        assert await down(ref) == "shutdown"
        await Supervisor.restart_child(sup, "counter")
        refs = [monitor(pid) for pid in (await children()).values()]
        await Supervisor.stop(sup)
        assert [await down(ref) for ref in refs] == ["shutdown", "shutdown"]
        assert await erlang.ask("whereis(counter).") == "undefined"

    run(story, epmd, tmp_path)


def test_the_loss_of_the_erlang_node_restarts_its_children_until_the_supervisor_gives_up(
    epmd: Epmd, tmp_path: Path
) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        process_flag("trap_exit", True)
        Far.node, Far.name = node, erlang.name
        sup = await Supervisor.start_link([ChildSpec("sleeper", Far.sleeper)], intensity=3)
        erlang.kill()
        assert await receive(timeout=30) == ("EXIT", sup, "shutdown")

    run(story, epmd, tmp_path)
