"""A Python node beside a real Elixir node: GenServers, a Registry, supervisors, errors and output, both ways."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    NOREPLY,
    Atom,
    CallError,
    CallTimeout,
    GenServer,
    Node,
    NoProc,
    RemoteError,
    call,
    cast,
    monitor,
    receive,
    self_pid,
    send,
    stop,
    via,
)
from harness.beside import PY, nothing_more, tell
from harness.elixir import Elixir
from harness.erlang import Epmd

Story = Callable[[Node, Elixir], Awaitable[None]]
TILL = Atom("Elixir.Shop.Till")


@pytest.fixture(scope="module")
def elixir(epmd: Epmd) -> Iterator[Elixir]:
    with Elixir(epmd, "ex") as node:
        node.compile("shop.ex")
        yield node


def told(story: Story, elixir: Elixir, epmd: Epmd, directory: Path, **options: Any) -> None:
    """Run a story beside the Elixir node of this file."""
    tell(lambda node, _: story(node, elixir), elixir, epmd, directory, **options)


def test_a_gen_server_of_elixir(epmd: Epmd, elixir: Elixir, tmp_path: Path) -> None:
    async def story(node: Node, elixir: Elixir) -> None:
        await elixir.run("{:ok, _} = Shop.Till.start(Shop.Till, 10)")
        till = (TILL, Atom(elixir.name))
        assert await call(till, (Atom("add"), 5)) == 15
        assert await call(till, Atom("state")) == {Atom("total"): 15, Atom("last"): 5}
        cast(till, (Atom("tell"), self_pid()))
        assert await receive(timeout=5) == ("told", 15)
        assert await call(till, (Atom("later"), 20)) == ("late", 15)
        with pytest.raises(CallTimeout):
            await call(till, (Atom("later"), 100), timeout=0.02)
        await nothing_more(0.25)
        with pytest.raises(CallError) as crash:
            await call(till, Atom("crash"))
        exception, stack = crash.value.reason
        assert exception[Atom("__struct__")] == "Elixir.ArgumentError" and exception[Atom("message")] == b"no change"
        assert stack[0][0] == TILL
        with pytest.raises(NoProc):
            await call(till, Atom("state"))
        assert await elixir.run("{:ok, _} = Shop.Till.start(Shop.Till, 0); :ok") == "ok"
        assert (await call(till, Atom("state")))[Atom("last")] is None, "nil, with none_atom='nil'"
        await stop(till)

    told(story, elixir, epmd, tmp_path, none_atom="nil")


def test_names_in_a_registry_of_elixir(epmd: Epmd, elixir: Elixir, tmp_path: Path) -> None:
    async def story(node: Node, elixir: Elixir) -> None:
        start = """
            test = self()
            spawn(fn -> Shop.start_names(); send(test, :names_up); Process.sleep(:infinity) end)
            receive do :names_up -> :ok end
            {:ok, _} = Shop.Till.start(Shop.via("till-1"), 1)
            {:ok, _} = Shop.Till.start(Shop.via({:till, 2}), 2)
            :ok
        """
        assert await elixir.run(start) == "ok"
        names = (Atom("Elixir.Registry"), Atom(elixir.name))
        assert await call(via(names, (Atom("Elixir.Shop.Names"), b"till-1")), (Atom("add"), 1)) == 2
        assert await call(via(names, (Atom("Elixir.Shop.Names"), (Atom("till"), 2))), (Atom("add"), 1)) == 3
        with pytest.raises(NoProc):
            await call(via(names, (Atom("Elixir.Shop.Names"), b"till-3")), (Atom("add"), 1))
        await stop(via(names, (Atom("Elixir.Shop.Names"), b"till-1")))
        with pytest.raises(NoProc):
            await call(via(names, (Atom("Elixir.Shop.Names"), b"till-1")), (Atom("add"), 1))

    told(story, elixir, epmd, tmp_path)


class Counter(GenServer):
    async def init(self, n: int = 0) -> None:
        self.n = n

    async def handle_call(self, request: Any, from_: Any) -> Any:
        match request:
            case ("add", int(n)):
                self.n += n
                return (Atom("ok"), self.n)
            case "never":
                return NOREPLY
        raise KeyError("what?")

    async def handle_cast(self, request: Any) -> None:
        self.n = request


def test_elixir_calls_a_python_server(epmd: Epmd, elixir: Elixir, tmp_path: Path) -> None:
    async def story(node: Node, elixir: Elixir) -> None:
        pid = await Counter.start(1, name="counter")
        server = f'{{:counter, :"{PY}"}}'
        assert await elixir.run(f'Node.ping(:"{PY}")') == "pong"
        assert await elixir.run(f"GenServer.call({server}, {{:add, 2}})") == "{ok,3}"
        assert await elixir.run(f"GenServer.cast({server}, 40); GenServer.call({server}, {{:add, 2}})") == "{ok,42}"
        late = f"try do GenServer.call({server}, :never, 30) catch :exit, {{why, _}} -> why end"
        assert await elixir.run(late) == "timeout"
        state = await elixir.run(f":sys.get_state({server})")
        assert state in ("#{n => 42}", "{ok,#{n => 42}}"), "OTP 25 shows what later ones take off"
        crash = f"try do GenServer.call({server}, :nonsense) catch :exit, {{{{why, _}}, _}} -> why end"
        assert await elixir.run(crash) == '{exception,<<"KeyError">>,<<"\'what?\'">>}'
        ref = monitor(pid)
        assert (await receive(timeout=5))[:2] == ("DOWN", ref)
        await Counter.start(1, name="counter")
        assert await elixir.run(f"GenServer.stop({server})") == "ok"
        assert await elixir.run(f"try do GenServer.call({server}, 1) catch :exit, {{why, _}} -> why end") == "noproc"

    told(story, elixir, epmd, tmp_path)


def test_remote_calls_and_their_errors(epmd: Epmd, elixir: Elixir, tmp_path: Path) -> None:
    async def story(node: Node, elixir: Elixir) -> None:
        def add(a: int, b: int) -> int:
            return a + b

        def fail() -> None:
            raise ValueError("no stock")

        node.export(add, module="shop")
        node.export(fail, module="Elixir.Shop.Python")
        assert await elixir.run(f':erpc.call(:"{PY}", :shop, :add, [1, 2])') == "3"
        rescued = f"""
            try do :erpc.call(:"{PY}", Shop.Python, :fail, []) rescue e in ErlangError -> elem(e.original, 1) end
        """
        assert await elixir.run(rescued) == '{exception,<<"ValueError">>,<<"no stock">>}'
        assert await elixir.run(f'elem(:rpc.call(:"{PY}", :shop, :steal, []), 0)') == "badrpc"
        text = "Grüße"
        assert await node.rpc(elixir.name, "Elixir.String", "upcase", [text]) == "GRÜSSE".encode()
        with pytest.raises(RemoteError) as failed:
            await node.rpc(elixir.name, "Elixir.String", "to_integer", [b"x"])
        assert (failed.value.kind, failed.value.reason) == ("error", "badarg")
        with pytest.raises(RemoteError) as raised:
            await node.rpc(elixir.name, "Elixir.Enum", "fetch!", [[], 0])
        assert raised.value.reason[Atom("__struct__")] == "Elixir.Enum.OutOfBoundsError"

    told(story, elixir, epmd, tmp_path)


def test_what_elixir_prints_for_python_appears_here(epmd: Epmd, elixir: Elixir, tmp_path: Path) -> None:
    printed: list[str] = []

    async def story(node: Node, elixir: Elixir) -> None:
        assert await node.rpc(elixir.name, "Elixir.Shop", "shout", ["grüße"]) == "shouted"
        assert "".join(printed) == "GRÜSSE\n%{done: true}\n"
        printed.clear()
        user = f':erpc.call(:"{PY}", :shop, :user, [])'
        node.export(lambda: node.runtime.user, module="shop", name="user")
        assert await elixir.run(f'IO.write({user}, ["a", ?b, "€"]); IO.gets({user}, "> ")') == "eof"
        assert "".join(printed) == "ab€"

    told(story, elixir, epmd, tmp_path, on_output=printed.append)


def test_an_elixir_supervisor_with_a_python_child(epmd: Epmd, elixir: Elixir, tmp_path: Path) -> None:
    async def story(node: Node, elixir: Elixir) -> None:
        async def work() -> None:
            send("test", (Atom("works"), self_pid()))
            if await receive() == "crash":
                raise RuntimeError("as told")

        node.export(work, module="workers")
        keep = f'spawn(fn -> {{:ok, _}} = Shop.supervise(:"{PY}"); Process.sleep(:infinity) end)'
        await elixir.run(keep)
        _, first = await receive(timeout=10)
        send(first, Atom("crash"))
        _, second = await receive(timeout=10)
        assert first != second
        # count_children would crash an OTP supervisor whose child lives on another node
        children = "[{:worker, pid, _, _}] = Supervisor.which_children(Shop.Supervisor); node(pid)"
        assert await elixir.run(children) == f"'{PY}'"
        ref = monitor(second)
        await elixir.run("Supervisor.stop(Shop.Supervisor)")
        assert (await receive(timeout=10)) == ("DOWN", ref, "process", second, "shutdown")

    told(story, elixir, epmd, tmp_path)


def test_the_page_about_elixir(epmd: Epmd, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/erlang-cluster.md").read_text()
    section = page.partition("## Elixir")[2].partition("\n## ")[0]
    modules, python = (re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("elixir", "python"))
    starts = re.findall(r"`(Shop\.Till\.start\(.*?\)|Registry\.start_link\(.*?\))`", section.replace("\n", " "))
    calls = re.findall(r"`(GenServer\.call\(.*?\}\))`|`(:erpc\.call\(.*?\))`", section.replace("\n", " "))
    assert len(modules) == len(python) == 1 and len(starts) == 3 and len(calls) == 2

    async def story(node: Node, elixir: Elixir) -> None:
        await elixir.run(modules[0])
        for start in sorted(starts):  # the Registry first
            keep = f"{{:ok, _}} = {start}; send(test, :up); Process.sleep(:infinity)"
            await elixir.run(f"test = self(); spawn(fn -> {keep} end)")
            assert await elixir.run("receive do :up -> :up end") == "up"
        scope: dict[str, Any] = {}
        exec(python[0], scope)
        await scope["use_the_shop"](node)
        await Counter.start(0, name="counter")
        node.export(lambda name: 3.5, module="shop", name="price")
        assert [await elixir.run("".join(call)) for call in calls] == ["{ok,2}", "3.5"]

    with Elixir(epmd, "shop") as elixir:
        told(story, elixir, epmd, tmp_path)


def test_the_questions_of_the_how_to_are_answered(epmd: Epmd, elixir: Elixir, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/erlang-cluster.md").read_text()
    code: dict[str, Any] = {}
    exec(re.search(r"```python\n(from barrel_p2p import is_alive.*?)```", page, re.DOTALL)[1], code)  # type: ignore[index]

    async def story(node: Node, elixir: Elixir) -> None:
        code["answer_erlang"](node)
        ask = f"""
            py = :"{PY}"
            pid = :rpc.call(py, :erlang, :whereis, [:test])
            alive = [:rpc.call(py, :erlang, :is_process_alive, [pid]), :rpc.call(py, Process, :alive?, [pid])]
            {{alive, :rpc.call(py, :erlang, :whereis, [:nobody]), :rpc.call(py, :erlang, :node, [])}}
        """
        assert await elixir.run(ask) == f"{{[true,true],undefined,'{PY}'}}"

    told(story, elixir, epmd, tmp_path)
