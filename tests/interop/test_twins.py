"""The same questions put to an OTP server and to its twin in Python, which must give the same answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from barrel_p2p import GenServer, Node, send
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


#: Expressions over ``T``, the server's ``{Name, Node}``, and ``N``, its node.
SERVER = [
    # a look at a server that waits for its timeout changes nothing
    "gen_server:call(T, {timeout, 100, self()}), sys:get_status(T), receive timeout -> ok after 2000 -> missing end",
    "gen_server:call(T, {timeout, 100, self()}), sys:suspend(T), timer:sleep(200), sys:resume(T),"
    " receive timeout -> ok after 2000 -> missing end",
    "gen_server:call(T, {timeout, 300, self()}), gen_server:cast(T, {set, 2}),"
    " receive timeout -> ok after 600 -> none end",
    "sys:suspend(T), sys:suspend(T), sys:resume(T), sys:resume(T)",
]


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
