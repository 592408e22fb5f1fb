"""The same questions put to an OTP server and to its twin in Python, which must give the same answers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    ChildSpec,
    GenServer,
    Node,
    Pid,
    RemoteError,
    Supervisor,
    exit,
    process_flag,
    receive,
    send,
    spawn_monitor,
)
from barrel_p2p.term import io_lib
from harness.beside import PY, load, run
from harness.erlang import Epmd, Erlang


class Twin(GenServer):
    """``tests/interop/erlang/twin.erl``, in Python."""

    async def init(self, n: Any) -> None:
        self.n = n

    def get_state(self) -> Any:
        return self.n

    async def handle_call(self, request: Any, from_: Any) -> Any:
        match request:
            case ("timeout", ms, pid):
                self.who = pid
                self.set_timeout(ms / 1000)
        return self.n

    async def handle_cast(self, request: Any) -> None:
        self.n = request[1]

    async def handle_info(self, message: Any) -> None:
        if message == "timeout":
            send(self.who, message)


async def obey(how: Any) -> None:
    await asyncio.sleep(0.01)
    match how:
        case ("exit", reason):
            exit(reason)
        case ("throw" | "error" as kind, reason):
            raise RemoteError(kind, reason)


#: Expressions over ``T``, the server's ``{Name, Node}``, and ``N``, its node.
SERVER = [
    # a look at a server that waits for its timeout changes nothing
    "gen_server:call(T, {timeout, 100, self()}), sys:get_status(T), receive timeout -> ok after 2000 -> missing end",
    "gen_server:call(T, {timeout, 100, self()}), sys:suspend(T), timer:sleep(200), sys:resume(T),"
    " receive timeout -> ok after 2000 -> missing end",
    "gen_server:call(T, {timeout, 1000, self()}), gen_server:cast(T, {set, 2}),"
    " receive timeout -> ok after 1500 -> none end",
    "sys:suspend(T), sys:suspend(T), sys:resume(T), sys:resume(T)",
    # the shape of a status is taken apart by others
    "{status, P, Module, [Dictionary, State, _, Debug, Misc]} = sys:get_status(T), true = is_pid(P),"
    " [{header, Header} | Data] = Misc, {Module, State, Debug, Header, lists:sort(proplists:get_keys(Dictionary)),"
    " tuple_size(proplists:get_value('$initial_call', Dictionary)), [K || {data, L} <- Data, {K, _} <- L]}",
]

#: How a process ends.
ENDS = [
    "return",
    "{exit, normal}",
    "{exit, {shutdown, 1.5}}",
    "{exit, kill}",
    "{exit, [list]}",
    "{throw, thrown}",
    "{error, wrong}",
    "{error, {badmatch, \"x\"}}",
]  # fmt: skip


def test_a_server_and_its_twin(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "twin")
        for expressions in SERVER:
            answers = []
            for where in (erlang.name, PY):
                twin = await start(node, erlang, where)
                ask = f"(fun(T, N) -> {expressions} end)({{twin, '{where}'}}, '{where}')."
                answers.append((await erlang.ask(ask)).replace(where, "NODE"))
                await twin
            assert answers[0] == answers[1], expressions

    run(story, epmd, tmp_path)


async def start(node: Node, erlang: Erlang, where: str) -> Any:
    """Start the twin there; what stops it."""
    if where == PY:
        await Twin.start(1, name="twin", node=node)
    else:
        await erlang.ask("twin:start(1).")
    return GenServer.stop(("twin", where))


def test_a_process_and_its_twin_end(epmd: Epmd, tmp_path: Path) -> None:
    """Seen by a monitor and by a link: the reason, and for an error a stack of frames as Erlang has them."""

    async def story(node: Node, erlang: Erlang) -> None:
        node.export(obey, module="twin")
        await load(erlang, "twin")
        await erlang.ask("process_flag(trap_exit, true).")
        frame = "fun({M, F, A, L}) when is_atom(M), is_atom(F), is_integer(A) -> [_, _] = proplists:get_keys(L) end"
        for how in ENDS:
            answers = []
            for where in (erlang.name, PY):
                ask = f"""(fun() ->
                    {{P, M}} = spawn_opt('{where}', twin, obey, [{how}], [link, monitor]),
                    R = receive {{'DOWN', M, process, P, Why}} -> Why end,
                    R = receive {{'EXIT', P, Same}} -> Same end,
                    case R of
                        {{Error, [_|_] = Stack}} -> lists:foreach({frame}, Stack), {{Error, stack}};
                        {{Error, []}} -> {{Error, stack}};
                        _ -> R
                    end end)()."""
                answers.append(await erlang.ask(ask))
            assert answers[0] == answers[1], how

    run(story, epmd, tmp_path)


def test_a_python_error_has_a_stack_that_erlang_reads(epmd: Epmd, tmp_path: Path) -> None:
    async def wrong() -> None:
        raise ValueError("no")

    async def story(node: Node, erlang: Erlang) -> None:
        node.export(wrong, module="twin")
        seen = await erlang.ask(f"spawn_monitor('{PY}', twin, wrong, []), receive {{'DOWN', _, _, _, R}} -> R end.")
        frame = '{test_twins,wrong,0,[{file,"test_twins.py"},{line,LINE}]}'
        assert re.sub(r"line,\d+", "line,LINE", seen) == f'{{{{exception,<<"ValueError">>,<<"no">>}},[{frame}]}}'

    run(story, epmd, tmp_path)


ANY, ALL = "any_significant", "all_significant"
ONE, TWO = ("one", "transient", True), ("two", "temporary", True)
PLAIN, LASTING = ("plain", "temporary", False), ("lasting", "permanent", False)

#: ``auto_shutdown``, the children as ``(id, restart, significant)``, and which of them end how, one after the other.
SHUTDOWNS = [
    (ANY, [ONE, LASTING], [("one", "normal")]),
    (ANY, [ONE, LASTING], [("one", "fault")]),
    (ANY, [ONE, PLAIN, LASTING], [("plain", "normal"), ("lasting", "normal")]),
    (ANY, [TWO, LASTING], [("two", "fault")]),
    (ALL, [ONE, TWO, LASTING], [("one", "shutdown")]),
    (ALL, [ONE, TWO, LASTING], [("two", "fault"), ("one", "normal")]),
    (ALL, [ONE, TWO, PLAIN], [("plain", "fault"), ("two", "normal")]),
    ("never", [PLAIN, LASTING], [("plain", "normal")]),
]


@pytest.mark.parametrize(("auto", "specs", "ends"), SHUTDOWNS)
def test_a_supervisor_and_its_twin_shut_down(epmd: Epmd, tmp_path: Path, auto: str, specs: Any, ends: Any) -> None:
    async def child() -> None:
        _, reason = await receive()
        exit(reason)

    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "twin")
        terms = [(Atom(id), Atom(restart), significant) for id, restart, significant in specs]
        await erlang.ask("process_flag(trap_exit, true).")
        await erlang.ask(f"{{ok, S}} = twin:start_sup({auto}, {io_lib.write(terms)}).")
        left = "(fun() -> receive {'EXIT', S, R} -> R after 1000 -> [I || {I, P, _, _} <- supervisor:which_children(S),"
        left += " is_pid(P)] end end)()."
        for id, reason in ends:
            await erlang.ask(f"{id} ! {{exit, {reason}}}.")
        expected = await erlang.ask(left)

        process_flag("trap_exit", True)
        kinds = [ChildSpec(Atom(id), child, name=id, restart=r, significant=s) for id, r, s in specs]
        supervisor = await Supervisor.start_link(kinds, auto_shutdown=auto)
        for id, reason in ends:
            send(id, (Atom("exit"), Atom(reason)))
        stays = expected.startswith("[")
        try:
            *_, result = await receive(match=lambda m: m[:2] == ("EXIT", supervisor), timeout=1 if stays else 20)
        except TimeoutError:
            children = await Supervisor.which_children(supervisor)
            result = [id for id, pid, *_ in children if isinstance(pid, Pid)]
        assert io_lib.write(result) == expected

    run(story, epmd, tmp_path)


@pytest.mark.parametrize("kind", ["error", "exit", "throw"])
def test_an_error_of_erlang_that_python_does_not_catch(epmd: Epmd, tmp_path: Path, kind: str) -> None:
    """It ends the Python process as it would have ended an Erlang one."""

    async def story(node: Node, erlang: Erlang) -> None:
        async def passes_on() -> None:
            await node.rpc(erlang.name, "erlang", "raise" if kind == "error" else kind, arguments)

        arguments = [Atom("error"), Atom("wrong"), []] if kind == "error" else [Atom("wrong")]
        process_flag("trap_exit", True)
        _, ref = spawn_monitor(passes_on)
        *_, reason = await receive(match=lambda m: m[1] == ref, timeout=10)
        match kind:
            case "exit":
                assert reason == "wrong"
            case "throw":
                assert reason[0] == ("nocatch", "wrong")
            case "error":
                assert reason[0] == "wrong" and isinstance(reason[1], list)

    run(story, epmd, tmp_path)
