"""OTP's servers called from Python, and a Python GenServer called, inspected and stopped from Erlang."""

from __future__ import annotations

import asyncio
import signal
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
    NodeDown,
    NoProc,
    RemoteError,
    StartError,
    abcast,
    call,
    cast,
    is_alive,
    link,
    monitor,
    multi_call,
    process_flag,
    receive,
    receive_response,
    self_pid,
    send,
    send_after,
    send_request,
    stop,
    via,
    wait_response,
    whereis,
)
from barrel_p2p.process import system
from harness.beside import PY, load, nothing_more, python, run
from harness.erlang import Epmd, Erlang

# --- OTP's servers, called from Python --------------------------------------------------------------------------------


def test_a_gen_server_over_there(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "counter")
        await erlang.ask("counter:start(10).")
        counter = (Atom("counter"), Atom(erlang.name))
        assert await call(counter, Atom("inc")) == 11
        assert await call(counter, Atom("who")) == self_pid()
        cast(counter, (Atom("tell"), self_pid(), [1.5]))
        assert await receive(timeout=5) == ("told", [1.5], 11)
        send(counter, (Atom("$info"), self_pid()))
        assert await receive(timeout=5) == ("info", 11)
        assert await call(counter, (Atom("later"), 30)) == ("late", 11)
        together = [call(counter, (Atom("later"), 5 * n), timeout=10.0) for n in range(50)]
        assert await asyncio.gather(*together) == [("late", 11)] * 50
        with pytest.raises(CallTimeout):
            await call(counter, (Atom("later"), 150), timeout=0.05)
        with pytest.raises(CallTimeout):
            await call(counter, Atom("never"), timeout=0.05)
        await nothing_more(0.3)  # the late answer least of all
        pid = await node.rpc(erlang.name, "erlang", "whereis", [Atom("counter")])
        assert await call(pid, Atom("inc")) == 12
        assert await system.get_state(counter) == 12
        status = await system.get_status(pid)
        assert status[:2] == ("status", pid)
        await system.suspend(pid)
        with pytest.raises(CallTimeout):
            await call(pid, Atom("inc"), timeout=0.05)
        await system.resume(pid)
        assert await call(pid, Atom("inc")) == 14, "the call that timed out was in the mailbox"
        with pytest.raises(CallError) as crash:
            await call(pid, (Atom("crash"), (Atom("burnt"), 1)))
        assert crash.value.reason == ("burnt", 1)
        with pytest.raises(NoProc):
            await call(pid, Atom("inc"))
        with pytest.raises(NoProc):
            await call(counter, Atom("inc"))
        await erlang.ask("counter:start(0).")
        assert await call(counter, (Atom("stop"), Atom("bye"))) == "bye"
        await erlang.ask("counter:start(0).")
        await stop(counter)
        with pytest.raises(NoProc):
            await stop(counter)
        await nothing_more()

    run(story, epmd, tmp_path)


def test_one_request_to_many_nodes_over_there(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        with Erlang(epmd, "slow") as slow, Erlang(epmd, "nameless") as nameless, Erlang(epmd, "dead") as dead:
            for each in (erlang, slow, dead):
                await load(each, "counter")
                await each.ask("counter:start(10).")
            nodes = [Atom(each.name) for each in (dead, slow, nameless, erlang)] + [node.name]
            well, slowly, unnamed = Atom(erlang.name), Atom(slow.name), Atom(nameless.name)
            assert await multi_call(nodes[:2], "counter", Atom("who"), 5.0) == (
                [(each, self_pid()) for each in nodes[:2]],
                [],
            )
            dead.kill()
            await slow.ask("sys:suspend(counter).")
            bad = [nodes[0], slowly, unnamed, node.name]
            assert await multi_call(nodes, "counter", Atom("inc"), 1.0) == ([(well, 11)], bad)
            late = send_request((Atom("counter"), slowly), Atom("inc"))
            never = send_request((Atom("counter"), well), Atom("never"))
            assert await send_request((Atom("counter"), well), Atom("inc")) == 12
            with pytest.raises(CallTimeout):
                await wait_response(late, 0.05)
            with pytest.raises(CallTimeout):
                await receive_response(never, 0.05)
            with pytest.raises(NoProc):
                await send_request((Atom("counter"), unnamed), Atom("inc"))
            with pytest.raises(NodeDown):
                await send_request((Atom("counter"), nodes[0]), Atom("inc"))
            await slow.ask("sys:resume(counter).")
            assert await late == 12
            abcast(nodes, "counter", (Atom("tell"), self_pid(), 1))
            assert sorted([await receive(timeout=5), await receive(timeout=5)]) == [("told", 1, 12)] * 2
            crashing = send_request((Atom("counter"), slowly), (Atom("crash"), Atom("burnt")))
            with pytest.raises(CallError) as crash:
                await crashing
            assert crash.value.reason == "burnt"
            await erlang.ask("sys:suspend(counter).")
            late = send_request((Atom("counter"), well), Atom("inc"))
            asking = asyncio.create_task(multi_call([well], "counter", Atom("inc")))
            assert await node.ping(well)
            erlang.kill()
            assert await asking == ([], [well])
            with pytest.raises(NodeDown):
                await late
            await nothing_more()
            assert not node.runtime.aliases

    run(story, epmd, tmp_path)


def test_the_node_dies_during_a_call(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "counter")
        await erlang.ask("counter:start(10).")
        counter = (Atom("counter"), Atom(erlang.name))
        asking = asyncio.create_task(call(counter, Atom("never"), timeout=None))
        assert await call(counter, Atom("inc")) == 11
        erlang.signal(signal.SIGKILL)
        with pytest.raises(NodeDown) as down:
            await asking
        assert down.value.reason == ("nodedown", erlang.name)
        with pytest.raises(NodeDown):
            await call(counter, Atom("inc"))

    run(story, epmd, tmp_path)


def test_a_gen_statem_over_there(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "door")
        await erlang.ask("door:start().")
        door = (Atom("door"), Atom(erlang.name))
        assert await call(door, (Atom("enter"), 1)) == ("error", "wrong")
        passing = asyncio.create_task(call(door, Atom("pass")))  # answered once the door is open
        send(door, (Atom("ask"), self_pid()))
        assert await receive(timeout=5) == "closed"
        assert not passing.done()
        assert await call(door, (Atom("enter"), 1234)) == "ok"
        assert await passing == "passed"
        cast(door, Atom("unlock"))
        assert await call(door, (Atom("enter"), 1)) == "already"
        assert await system.get_state(door) == ("open", 1234)
        with pytest.raises(CallError) as crash:
            await call(door, Atom("no_such_event"))
        assert crash.value.reason[0] == "function_clause"
        await erlang.ask("door:start().")
        await stop(door, "shutdown")

    run(story, epmd, tmp_path)


def test_a_name_in_a_registry_over_there(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "counter")
        await erlang.ask("{ok, C} = counter:start(1), global:register_name({shop, 1}, C).")
        far = (Atom("global"), Atom(erlang.name))
        assert await call(via(far, (Atom("shop"), 1)), Atom("inc")) == 2
        with pytest.raises(NoProc):
            await call(via(far, Atom("nobody")), Atom("inc"))
        with pytest.raises(RemoteError, match="undef"):
            await call(via((Atom("no_such_registry"), Atom(erlang.name)), 1), Atom("inc"))
        with pytest.raises(NodeDown):
            await call(via((Atom("global"), Atom("nobody@127.0.0.1")), 1), Atom("inc"))
        with pytest.raises(TypeError, match="await"):
            send(via(far, (Atom("shop"), 1)), "x")
        # a server of ours under a name of theirs
        name = via(far, Atom("adder"))
        pid = await Adder.start(5, name=name)
        assert await erlang.ask("gen_server:call({global, adder}, {add, 2}).") == "7"
        assert await call(name, (Atom("add"), 1)) == 8
        with pytest.raises(StartError) as taken:
            await Adder.start(5, name=name)
        assert taken.value.reason == ("already_started", pid)
        await stop(pid)
        assert await erlang.ask("global:whereis_name(adder).") == "undefined"

    run(story, epmd, tmp_path)


# --- a Python server, called from Erlang ------------------------------------------------------------------------------


class Adder(GenServer):
    async def init(self, start: int = 0) -> None:
        self.total = start

    async def handle_call(self, request: Any, from_: Any) -> Any:
        match request:
            case (Atom("add"), int(n)):
                self.total += n
                return self.total
            case (Atom("later"), int(ms)):
                send_after(ms / 1000, self_pid(), ("answer", from_))
                return NOREPLY
            case Atom("never"):
                return NOREPLY
        raise ValueError("unknown request")

    async def handle_cast(self, request: Any) -> None:
        send(request[1], (Atom("told"), self.total))

    async def handle_info(self, message: Any) -> None:
        match message:
            case ("answer", from_):
                self.reply(from_, (Atom("late"), self.total))


CAUGHT = "(fun() -> try {ok, %s} catch Class:Why -> {Class, Why} end end)()."
ADDER = f"{{adder, '{PY}'}}"


def test_a_python_server_is_called(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await Adder.start(40, name="adder")
        assert await erlang.ask(f"gen_server:call({ADDER}, {{add, 2}}).") == "42"
        assert await erlang.ask(f"gen_server:cast({ADDER}, {{tell, self()}}), receive {{told, T}} -> T end.") == "42"
        assert await erlang.ask(f"gen_server:call({ADDER}, {{later, 20}}).") == "{late,42}"
        late = f"gen_server:call({ADDER}, {{later, 1000}}, 20)"
        assert await erlang.ask(CAUGHT % late) == (
            f"{{exit,{{timeout,{{gen_server,call,[{{adder,'{PY}'}},{{later,1000}},20]}}}}}}"
        )
        assert await erlang.ask("receive Late -> Late after 1500 -> none end.") == "none"
        assert (
            await erlang.ask(
                f"R = gen_server:send_request({ADDER}, {{later, 10}}), gen_server:receive_response(R, 5000)."
            )
            == "{reply,{late,42}}"
        )
        assert await erlang.ask(f"gen_server:multi_call(['{PY}', node()], adder, {{add, 0}}).") == (
            f"{{[{{'{PY}',42}}],['{erlang.name}']}}"
        )
        assert await erlang.ask(f"gen_server:abcast(['{PY}'], adder, {{tell, self()}}).") == "abcast"
        assert await erlang.ask("receive {told, T2} -> T2 after 5000 -> missing end.") == "42"
        assert (await erlang.ask(CAUGHT % f"gen_server:call({{nobody, '{PY}'}}, x)")).startswith("{exit,{noproc,")
        crash = await erlang.ask(CAUGHT % f"gen_server:call({ADDER}, nonsense)")
        assert crash.startswith('{exit,{{{exception,<<"ValueError">>,<<"unknown request">>},')
        assert (await erlang.ask(CAUGHT % f"gen_server:call({ADDER}, {{add, 1}})")).startswith("{exit,{noproc,")
        assert (await erlang.ask(CAUGHT % "gen_server:call({adder, 'nobody@127.0.0.1'}, x)")).startswith(
            "{exit,{{nodedown,'nobody@127.0.0.1'},"
        )

    run(story, epmd, tmp_path)


def test_a_python_server_is_one_of_many(epmd: Epmd, tmp_path: Path) -> None:
    """What Erlang's own ``multi_call``, ``abcast`` and ``send_request`` see of servers that answer, are slow, not there
    or dead."""

    async def story(node: Node, erlang: Erlang) -> None:
        slow, nameless, dead = [python(epmd, tmp_path, f"{name}@127.0.0.1") for name in ("slow", "nameless", "dead")]
        async with slow, nameless:
            await Adder.start(1, name="adder", node=node)
            await Adder.start(2, name="adder", node=slow)
            async with dead:
                await Adder.start(3, name="adder", node=dead)
                both = f"['{dead.name}', '{PY}']"
                assert await erlang.ask(f"gen_server:multi_call({both}, adder, {{add, 1}}, 5000).") == (
                    f"{{[{{'{dead.name}',4}},{{'{PY}',2}}],[]}}"
                )
            await system.suspend(("adder", slow.name), node=slow)
            names = f"['{dead.name}', '{slow.name}', '{nameless.name}', '{PY}', node()]"
            answer = f"{{[{{'{PY}',3}}],['{dead.name}','{slow.name}','{nameless.name}','{erlang.name}']}}"
            assert await erlang.ask(f"gen_server:multi_call({names}, adder, {{add, 1}}, 1000).") == answer
            assert await erlang.ask(f"R = gen_server:send_request({{adder, '{slow.name}'}}, {{add, 1}}), ok.") == "ok"
            assert await erlang.ask("gen_server:wait_response(R, 50).") == "timeout"
            assert await erlang.ask(
                f"gen_server:receive_response(gen_server:send_request({{adder, '{slow.name}'}}, never), 50)."
            ) == ("timeout")
            for gone, reason in ((nameless, "noproc"), (dead, "noconnection")):
                asked = f"gen_server:send_request({{adder, '{gone.name}'}}, {{add, 1}})"
                assert await erlang.ask(f"gen_server:receive_response({asked}, 5000).") == (
                    f"{{error,{{{reason},{{adder,'{gone.name}'}}}}}}"
                )
            await system.resume(("adder", slow.name), node=slow)
            assert await erlang.ask("receive Msg -> gen_server:check_response(Msg, R) end.") == "{reply,4}"
            assert await erlang.ask(f"gen_server:abcast({names}, adder, {{tell, self()}}).") == "abcast"
            told = "receive {told, T} -> T after 5000 -> missing end"
            assert await erlang.ask(f"lists:sort([{told}, {told.replace('T}', 'U}').replace('-> T', '-> U')}]).") == (
                "[3,4]"
            )
            assert await erlang.ask("receive Late -> Late after 300 -> none end.") == "none"

    run(story, epmd, tmp_path)


def test_an_answer_without_a_form_is_a_crash_of_the_server(epmd: Epmd, tmp_path: Path) -> None:
    ends: list[Any] = []

    class Odd(GenServer):
        async def handle_call(self, request: Any, from_: Any) -> Any:
            return {1, 2}

        async def terminate(self, reason: Any) -> None:
            ends.append(reason)

    async def story(node: Node, erlang: Erlang) -> None:
        await Odd.start(name="odd")
        answer = await erlang.ask(CAUGHT % f"gen_server:call({{odd, '{PY}'}}, set)")
        assert answer.startswith('{exit,{{{exception,<<"EncodeError">>,'), answer
        assert [end[0][:2] for end in ends] == [("exception", "EncodeError")]

    run(story, epmd, tmp_path)


def test_calls_with_a_from_that_makes_no_sense(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        pid = await Adder.start(1, name="adder")
        for sender in ("{a, b}", "{1, 2}", "a", "[]", "{self(), 1}", "{self(), [alias|x]}", "{self(), [[alias|1]|2]}"):
            await erlang.ask(f"{ADDER} ! {{'$gen_call', {sender}, {{add, 0}}}}.")
            for request in ("get_state", "{add, 0}", "{suspend, 1, 2}"):
                await erlang.ask(f"{ADDER} ! {{system, {sender}, {request}}}.")
        assert await erlang.ask(f"gen_server:call({ADDER}, {{add, 2}}).") == "3"
        assert is_alive(pid)

    run(story, epmd, tmp_path)


def test_sys_asks_a_python_server(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        pid = await Adder.start(7, name="adder")
        state = await erlang.ask(f"sys:get_state({ADDER}).")
        old = int((await erlang.ask("erlang:system_info(otp_release).")).strip('"')) < 26
        assert state == ("{ok,#{total => 7}}" if old else "#{total => 7}")
        assert await erlang.ask(CAUGHT % f"sys:replace_state({ADDER}, fun(S) -> S end)") == "{error,not_supported}"
        status = await erlang.ask(f"element(4, sys:get_status({ADDER})) =/= [], element(1, sys:get_status({ADDER})).")
        assert status == "status"
        running = f"lists:nth(2, element(4, sys:get_status({ADDER})))."
        assert await erlang.ask(running) == "running"
        assert await erlang.ask(f"sys:suspend({ADDER}).") == "ok"
        assert await erlang.ask(running.replace("running", "")) == "suspended"
        assert (await erlang.ask(CAUGHT % f"gen_server:call({ADDER}, {{add, 1}}, 50)")).startswith("{exit,{timeout,")
        assert await erlang.ask(f"sys:get_state({ADDER}).") == state
        assert await erlang.ask(f"sys:resume({ADDER}).") == "ok"
        assert await erlang.ask(f"gen_server:call({ADDER}, {{add, 0}}).") == "8", "the call that timed out had its turn"
        for unknown in ("sys:log(%s, true)", "sys:trace(%s, true)", "sys:change_code(%s, m, undefined, [])"):
            answer = await erlang.ask(CAUGHT % (unknown % ADDER))
            assert "unknown_system_msg" in answer, answer
        assert await erlang.ask(CAUGHT % f"sys:terminate({ADDER}, shutdown)") == "{ok,ok}"
        ref = monitor(pid)
        assert (await receive(timeout=5))[:2] == ("DOWN", ref)

    run(story, epmd, tmp_path)


def test_a_python_server_is_linked_monitored_and_stopped(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        async def start_adder(n: int) -> Any:
            return await Adder.start(n)

        node.export(start_adder, module="adders")
        await erlang.ask("process_flag(trap_exit, true).")
        start = f"P%d = erpc:call('{PY}', adders, start_adder, [1]), link(P%d), M%d = monitor(process, P%d), ok."
        gone = "{receive {'EXIT', P%d, R%d} -> R%d end, receive {'DOWN', M%d, process, P%d, Q%d} -> Q%d end}."
        ends = [
            ("gen_server:stop(P%d)", "ok", "{normal,normal}"),
            ("gen_server:stop(P%d, {shutdown, closing}, 5000)", "ok", "{{shutdown,closing},{shutdown,closing}}"),
            ("exit(P%d, kill)", "true", "{killed,killed}"),
            ("exit(P%d, {no, more})", "true", "{{no,more},{no,more}}"),
        ]
        for number, (end, answer, reasons) in enumerate(ends):
            numbers = (number,) * 7
            assert await erlang.ask(start % numbers[:4]) == "ok"
            assert await erlang.ask((end % number) + ".") == answer
            assert await erlang.ask(gone % numbers) == reasons
        await Adder.start(1, name="adder")
        assert await erlang.ask(f"gen_server:stop({ADDER}).") == "ok"
        assert (await erlang.ask(CAUGHT % f"gen_server:stop({ADDER})")) == "{exit,noproc}"
        assert whereis("adder") is None
        # and the death of an Erlang process reaches the Python server that is linked with it
        other = await Adder.start(1)
        node.export(lambda: other, module="adders", name="other")
        ref = monitor(other)
        await erlang.ask(f"spawn(fun() -> link(erpc:call('{PY}', adders, other, [])), exit(collapsed) end).")
        assert await receive(timeout=5) == ("DOWN", ref, "process", other, "collapsed")

    run(story, epmd, tmp_path)


def test_a_python_process_linked_with_an_otp_server(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await load(erlang, "counter")
        process_flag("trap_exit", True)
        await erlang.ask("counter:start(1).")
        pid = await node.rpc(erlang.name, "erlang", "whereis", [Atom("counter")])
        link(pid)
        with pytest.raises(CallError):
            await call(pid, (Atom("crash"), Atom("boom")))
        assert await receive(timeout=5) == ("EXIT", pid, "boom")

    run(story, epmd, tmp_path)
