"""``erpc`` and ``rpc`` of a stock Erlang node ask a Python node, and ``node.rpc`` asks it: each class of outcome."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    CallTimeout,
    Node,
    NodeDown,
    RemoteError,
    exit,
    receive,
    self_pid,
    send,
    spawn,
)
from barrel_p2p.node import guests, rex
from harness.beside import PY, run
from harness.erlang import Epmd, Erlang

CATCH = "(fun() -> try {ok, %s} catch C:R -> {C, R} end end)()."


def add(a: int, b: int) -> int:
    return a + b


def fail(text: bytes) -> None:
    raise ValueError(text.decode())


def leave(reason: Any) -> None:
    exit(reason)


def throw(term: Any) -> None:
    raise RemoteError("throw", term)


def relay(kind: str, reason: Any, stack: Any) -> None:
    raise RemoteError(kind, reason, stack)


def killed() -> None:
    exit(self_pid(), "kill")


def formless() -> object:
    return object()


async def slow(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return Atom("slept")


async def note(what: Any) -> None:
    send("test", (Atom("note"), what))


def export(node: Node) -> None:
    for function in (add, fail, leave, throw, relay, killed, formless, slow, note):
        node.export(function, module="shop")


async def noted() -> Any:
    return (await receive(match=lambda m: isinstance(m, tuple) and m[0] == "note", timeout=5))[1]


# --- Erlang asks Python -----------------------------------------------------------------------------------------------


def test_erpc_call_tells_each_class(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        export(node)

        async def call(mfa: str, timeout: str = "5000") -> str:
            return await erlang.ask(CATCH % f"erpc:call('{PY}', {mfa}, {timeout})")

        assert await call("shop, add, [1, 2]") == "{ok,3}"
        failed = await call('shop, fail, [<<"no stock">>]')
        assert failed.startswith(
            '{error,{exception,{exception,<<"ValueError">>,<<"no stock">>},[{test_rpc_erlang,fail,0,'
        )
        assert await call("shop, leave, [{sold, out}]") == "{exit,{exception,{sold,out}}}"
        assert await call("shop, throw, [{ball, 1}]") == "{throw,{ball,1}}"
        assert await call("shop, relay, [exit, bye, []]") == "{exit,{exception,bye}}"
        assert await call("shop, relay, [error, badarg, [{m,f,1,[]}]]") == "{error,{exception,badarg,[{m,f,1,[]}]}}"
        # as an Erlang node has it when its erpc is asked for what does not exist
        assert await call("shop, steal, [all]") == "{error,{exception,undef,[{shop,steal,[all],[]}]}}"
        assert await call("shop, add, [1]") == "{error,{exception,undef,[{shop,add,[1],[]}]}}"
        assert await call('os, cmd, ["id"]') == '{error,{exception,undef,[{os,cmd,["id"],[]}]}}'
        assert await call("shop, killed, []") == "{exit,{signal,killed}}"
        assert "EncodeError" in await call("shop, formless, []")
        assert await call("shop, slow, [9.0]", "50") == "{error,{erpc,timeout}}"
        assert await call("shop, slow, [0.01]", "infinity") == "{ok,slept}"
        assert (
            await erlang.ask(CATCH % "erpc:call('nobody@127.0.0.1', shop, add, [1, 2])")
            == "{error,{erpc,noconnection}}"
        )

    run(story, epmd, tmp_path)


def test_the_other_functions_of_erpc(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        export(node)
        assert await erlang.ask(f"erpc:cast('{PY}', shop, note, [cast]).") == "ok"
        assert await noted() == "cast"
        assert await erlang.ask(f"erpc:cast('{PY}', shop, fail, [<<>>]), erpc:cast('{PY}', no, such, [thing]).") == "ok"
        assert await erlang.ask(f"erpc:multicast([node(), '{PY}'], shop, note, [multicast]).") == "ok"
        assert await noted() == "multicast"
        request = f"Id = erpc:send_request('{PY}', shop, slow, [0.05]), "
        assert await erlang.ask(request + "erpc:receive_response(Id, 5000).") == "slept"
        waited = "{W1, W2} = {erpc:wait_response(Id2, 0), erpc:wait_response(Id2, 5000)}."
        assert await erlang.ask(request.replace("Id", "Id2") + waited) == "{no_response,{response,slept}}"
        many = await erlang.ask(f"erpc:multicall(['{PY}', node(), 'nobody@127.0.0.1', '{PY}'], shop, add, [40, 2]).")
        assert many == (
            "[{ok,42},{error,{exception,undef,[{shop,add,[40,2],[]}]}},{error,{erpc,noconnection}},{ok,42}]"
        )
        collection = f"""C0 = erpc:reqids_new(),
            C1 = erpc:send_request('{PY}', shop, add, [1, 1], one, C0),
            C2 = erpc:send_request('{PY}', shop, add, [2, 2], two, C1),
            {{R1, L1, C3}} = erpc:receive_response(C2, 5000, true),
            {{R2, L2, _}} = erpc:receive_response(C3, 5000, true),
            lists:sort([{{L1, R1}}, {{L2, R2}}])."""
        assert await erlang.ask(collection) == "[{one,2},{two,4}]"
        assert await erlang.ask("receive Stray -> Stray after 100 -> none end.") == "none"

    run(story, epmd, tmp_path)


def test_rpc_call_and_its_relatives(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        export(node)
        assert await node.ping(erlang.name)

        async def call(mfa: str, how: str = "call") -> str:
            return await erlang.ask(f"rpc:{how}('{PY}', {mfa}).")

        for how in ("call", "block_call"):
            assert await call("shop, add, [1, 2]", how) == "3"
            failed = await call('shop, fail, [<<"x">>]', how)
            assert failed.startswith(
                '{badrpc,{\'EXIT\',{{exception,<<"ValueError">>,<<"x">>},[{test_rpc_erlang,fail,0,'
            )
            assert await call("shop, leave, [sold]", how) == "{badrpc,{'EXIT',sold}}"
            assert await call("shop, throw, [{ball, 1}]", how) == "{ball,1}"
            assert await call("shop, steal, [all]", how) == "{badrpc,{'EXIT',{undef,[{shop,steal,[all],[]}]}}}"
            assert await call("shop, killed, []", how) == "{badrpc,{'EXIT',killed}}"
            assert "EncodeError" in await call("shop, formless, []", how)
            assert await call("shop, slow, [9.0], 50", how) == "{badrpc,timeout}"
        nobody = "rpc:{}('nobody@127.0.0.1', shop, add, [1, 2])."
        assert await erlang.ask(nobody.format("call")) == "{badrpc,nodedown}"
        assert await erlang.ask(f"rpc:cast('{PY}', shop, note, [cast]).") == "true"
        assert await noted() == "cast"
        assert await erlang.ask(f"rpc:yield(rpc:async_call('{PY}', shop, add, [5, 6])).") == "11"
        assert await erlang.ask(f"rpc:nb_yield(rpc:async_call('{PY}', shop, slow, [0.01]), 5000).") == "{value,slept}"
        assert await erlang.ask(f"rpc:multicall(['{PY}', 'nobody@127.0.0.1'], shop, add, [1, 2]).") == (
            "{[3],['nobody@127.0.0.1']}"
        )
        assert await erlang.ask(f"rpc:eval_everywhere(['{PY}'], shop, note, [everywhere]).") == "abcast"
        assert await noted() == "everywhere"
        assert await erlang.ask(f"lists:member('{PY}', nodes()).") == "true"
        evaluated = await erlang.ask("rpc:parallel_eval([{erlang, abs, [-1]}, {shop, add, [1, 1]}]).")
        assert evaluated == "[1,2]"  # in turn on this node and on the Python one
        node.export(abs, module="erlang", name="abs")
        assert await erlang.ask("rpc:pmap({erlang, abs}, [], [-1, -2, -3, -4]).") == "[1,2,3,4]"

    run(story, epmd, tmp_path, published=True)


def test_what_is_sent_to_rex(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        export(node)
        rex = f"{{rex, '{PY}'}}"
        assert await erlang.ask(f"gen_server:call({rex}, {{call, shop, add, [1, 2], group_leader()}}).") == "3"
        await erlang.ask(f"gen_server:cast({rex}, {{cast, shop, note, [old], group_leader()}}).")
        assert await noted() == "old"
        assert (
            await erlang.ask(f"{rex} ! {{self(), {{call, shop, add, [3, 4], user}}}}, receive {{rex, A}} -> A end.")
            == "7"
        )
        features = f"{rex} ! {{self(), features_request}}, receive {{features_reply, N, L}} -> {{N, L}} end."
        assert await erlang.ask(features) == f"{{'{PY}',[erpc]}}"
        assert await erlang.ask(f"rpc:sbcast(['{PY}'], test, {{note, sbcast}}).") == f"{{['{PY}'],[]}}"
        assert await noted() == "sbcast"
        assert await erlang.ask(f"rpc:sbcast(['{PY}'], no_such_name, hello).") == f"{{[],['{PY}']}}"
        assert await erlang.ask(f"rpc:abcast(['{PY}'], test, {{note, abcast}}).") == "abcast"
        assert await noted() == "abcast"

        async def old_server() -> None:
            while True:
                sender, request = await receive()
                send(sender, (Atom("counter"), Atom(PY), (Atom("got"), request)))

        spawn(old_server, name="counter")
        assert await erlang.ask(f"rpc:server_call('{PY}', counter, counter, inc).") == "{got,inc}"
        assert await erlang.ask(f"rpc:multi_server_call(['{PY}'], counter, inc).") == "{[{got,inc}],[]}"
        assert await erlang.ask(f"rpc:multi_server_call(['{PY}'], nobody, inc).") == f"{{[],['{PY}']}}"
        # nonsense is ignored, and the server lives
        await erlang.ask(
            f"[{rex} ! M || M <- [x, {{self(), {{call}}}}, {{self(), {{sbcast, 1, 2}}}}, {{'$gen_call', a, b}}]]."
        )
        await erlang.ask(
            f"[{rex} ! {{'$gen_call', F, {{call, shop, add, [1, 2], x}}}} || F <- [{{a, b}}, 1, {{self(), x}}]]."
        )
        assert await erlang.ask("receive {x, Sum} -> Sum after 5000 -> missing end.") == "3"
        assert await erlang.ask(f"gen_server:call({rex}, {{call, shop, add, x, y}}).") == "{badrpc,{'EXIT',badarg}}"
        assert await erlang.ask(f"rpc:block_call('{PY}', shop, add, [1, 2]).") == "3"

    run(story, epmd, tmp_path)


def test_block_calls_wait_for_each_other_and_hold_up_nobody_else(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        begun, gate, order = asyncio.Event(), asyncio.Event(), []

        async def turn(number: int) -> int:
            order.append(number)
            begun.set()
            await gate.wait()
            order.append(-number)
            return number

        node.export(turn, module="shop")
        export(node)
        blocked = f"spawn(fun() -> Self ! {{done, rpc:block_call('{PY}', shop, turn, [N])}} end)"
        await erlang.ask(f"Self = self(), [{blocked} || N <- [1, 2, 3]].")
        await begun.wait()
        assert await erlang.ask(f"gen_server:call({{rex, '{PY}'}}, {{call, shop, add, [1, 2], user}}).") == "3"
        assert len(order) == 1
        gate.set()
        done = "lists:sort([receive {done, D} -> D after 5000 -> missing end || _ <- [1, 2, 3]])."
        assert await erlang.ask(done) == "[1,2,3]"
        assert [order[i] for i in (1, 3, 5)] == [-order[i] for i in (0, 2, 4)]

    run(story, epmd, tmp_path)


# --- Python asks Erlang -----------------------------------------------------------------------------------------------


def test_node_rpc_keeps_class_reason_and_stack(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        async def failure(module: str, function: str, *args: Any) -> tuple[str, Any, Any]:
            with pytest.raises(RemoteError) as raised:
                await node.rpc(erlang.name, module, function, args)
            return raised.value.kind, raised.value.reason, raised.value.stack

        assert await failure("erlang", "throw", Atom("ball")) == ("throw", "ball", None)
        assert await failure("erlang", "exit", (Atom("sold"), 1)) == ("exit", ("sold", 1), None)
        kind, reason, stack = await failure("erlang", "error", (Atom("bad"), b"thing"))
        assert (kind, reason) == ("error", ("bad", b"thing")) and isinstance(stack, list)
        kind, reason, stack = await failure("erlang", "atom_to_list", 1)
        assert (kind, reason) == ("error", "badarg") and stack[0][:3] == ("erlang", "atom_to_list", [1])
        kind, reason, stack = await failure("no_such_module", "f", 1, 2)
        assert (kind, reason) == ("error", "undef") and stack[0][:3] == ("no_such_module", "f", [1, 2])
        kind, reason, stack = await failure("lists", "nth", 0, [1])
        assert (kind, reason) == ("error", "function_clause") and stack[0][:2] == ("lists", "nth")
        # a failure that passes through Python is the same for the next caller
        node.export(Relay(node, erlang.name), module="shop", name="relay")
        through = CATCH % f"erpc:call('{PY}', shop, relay, [erlang, throw, [again]])"
        assert await erlang.ask(through) == "{throw,again}"
        with pytest.raises(RemoteError) as local:
            await node.rpc(PY, "shop", "relay", [b"erlang", b"exit", [1]])
        assert (local.value.kind, local.value.reason) == ("exit", 1)

    run(story, epmd, tmp_path)


class Relay:
    """Calls on through another node."""

    def __init__(self, node: Node, target: str) -> None:
        self.node, self.target = node, target

    async def __call__(self, module: Any, function: Any, args: list[Any]) -> Any:
        names = [name.decode() if isinstance(name, bytes) else name for name in (module, function)]
        return await self.node.rpc(self.target, names[0], names[1], args)


def test_timeouts_lost_and_missing_nodes(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        longest = 4294967.295  # OTP's, in seconds
        assert await node.rpc(erlang.name, "timer", "sleep", [20], timeout=longest) == "ok"
        assert await node.rpc(erlang.name, "timer", "sleep", [20], timeout=None) == "ok"
        started = time.monotonic()
        with pytest.raises(CallTimeout):
            await node.rpc(erlang.name, "timer", "sleep", [60_000], timeout=0.05)
        assert time.monotonic() - started < 5
        export(node)
        with pytest.raises(CallTimeout):
            await node.rpc(PY, "shop", "slow", [9.0], timeout=0.05)
        with pytest.raises(NodeDown):
            await node.rpc("nobody@127.0.0.1", "erlang", "node")
        asking = asyncio.create_task(node.rpc(erlang.name, "timer", "sleep", [60_000], timeout=None))
        assert await node.rpc(erlang.name, "erlang", "node") == erlang.name
        erlang.signal(signal.SIGKILL)
        with pytest.raises(NodeDown):
            await asking

    run(story, epmd, tmp_path)


def test_what_a_peer_may_have_running_is_bounded(epmd: Epmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "MAX_GUESTS", 3)
    monkeypatch.setattr(rex, "MAX_BLOCKED", 2)

    async def story(node: Node, erlang: Erlang) -> None:
        export(node)
        limit = "{badrpc,{'EXIT',system_limit}}"
        many = "lists:sort([rpc:yield(K) || K <- [rpc:async_call('%s', shop, slow, [0.3]) || _ <- lists:seq(1, 5)]])."
        assert await erlang.ask(many % PY) == f"[slept,slept,slept,{limit},{limit}]"
        old = """Ids = [gen_server:send_request({rex, '%s'}, {%s, shop, slow, [0.3], user}) || _ <- lists:seq(1, 5)],
            lists:sort([receive {[alias | Id], Reply} -> Reply after 5000 -> missing end || Id <- Ids])."""
        assert await erlang.ask("(fun() -> " + (old % (PY, "call"))[:-1] + " end)().") == (
            f"[slept,slept,slept,{limit},{limit}]"
        )
        # one runs, two wait
        assert await erlang.ask("(fun() -> " + (old % (PY, "block_call"))[:-1] + " end)().") == (
            f"[slept,slept,slept,{limit},{limit}]"
        )
        assert await erlang.ask(f"rpc:block_call('{PY}', shop, add, [1, 2]).") == "3"

    run(story, epmd, tmp_path)
