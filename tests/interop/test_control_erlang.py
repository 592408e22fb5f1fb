"""Every kind of control message that a stock Erlang node sends: by name, traced, with all its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, Node, alias, monitor, process_flag, receive, self_pid, send, spawn
from barrel_p2p.node import guests
from barrel_p2p.node.channel import Batch, Channel
from barrel_p2p.process.gen_server import GenServer
from barrel_p2p.proto.control import Op
from harness.beside import PY, nothing_more, run, shell_of
from harness.erlang import Epmd, Erlang


def record(node: Node) -> list[Any]:
    """The control messages that come from now on."""
    seen: list[Any] = []
    deliver = node._parts.received

    def received(channel: Channel, batch: Batch) -> None:
        seen.extend(control for control, _ in batch)
        deliver(channel, batch)

    node._parts.received = received  # type: ignore[method-assign]
    return seen


async def echo(to: Any) -> None:
    send(to, (Atom("from"), self_pid()))
    while (message := await receive()) != "stop":
        send(to, (Atom("echo"), message))


class Server(GenServer):
    async def handle_call(self, request: Any, from_: Any) -> Any:
        return (Atom("reply"), request)


# --- traced -----------------------------------------------------------------------------------------------------------


def test_a_trace_token_changes_nothing(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        node.export(echo, module="shop")
        await Server.start(name="server")
        process_flag("trap_exit", True)

        async def victim() -> None:
            await receive()

        seen = record(node)
        pid = spawn(victim)
        ref = monitor(pid)
        send(await shell_of(erlang), (Atom("pids"), self_pid(), alias(), pid))
        await erlang.ask("Self = self(), {pids, Test, Alias, Victim} = receive M -> M end.")
        await erlang.ask(
            """Traced = fun(F) -> spawn(fun() ->
                    seq_trace:set_token(label, 17), seq_trace:set_token(send, true), Self ! {did, F()} end),
                receive {did, R} -> seq_trace:set_token([]), R after 5000 -> missing end end."""
        )
        assert await erlang.ask("Traced(fun() -> Test ! by_pid end).") == "by_pid"
        assert await receive(timeout=5) == "by_pid"
        await erlang.ask(f"Traced(fun() -> {{test, '{PY}'}} ! by_name end).")
        assert await receive(timeout=5) == "by_name"
        await erlang.ask("Traced(fun() -> Alias ! by_alias end).")
        assert await receive(timeout=5) == "by_alias"
        called = f"Traced(fun() -> gen_server:call({{server, '{PY}'}}, x) end)."
        assert await erlang.ask(called) == "{reply,x}"
        await erlang.ask("Traced(fun() -> exit(Victim, {traced, end_}) end).")
        assert await receive(timeout=5) == ("DOWN", ref, "process", pid, ("traced", "end_"))
        await erlang.ask("spawn(fun() -> seq_trace:set_token(send, true), link(Test), exit(linked_end) end).")
        assert (await receive(timeout=5))[::2] == ("EXIT", "linked_end")
        spawned = f"Traced(fun() -> spawn('{PY}', shop, echo, [Self]) end), receive {{from, P}} -> node(P) end."
        assert await erlang.ask(spawned) == f"'{PY}'"
        assert "undef" in await erlang.ask(f"Traced(fun() -> catch erpc:call('{PY}', no, such, []) end).")
        traced = {Op(control[0]).name for control in seen if Op(control[0]).name.endswith("_TT")}
        sends = {"SEND_SENDER_TT", "REG_SEND_TT", "ALIAS_SEND_TT"}
        assert sends | {"PAYLOAD_EXIT_TT", "SPAWN_REQUEST_TT"} <= traced, traced  # exit/2 carries no token
        assert node.nodes() == [erlang.name]
        await nothing_more()

    run(story, epmd, tmp_path)


# --- spawn ------------------------------------------------------------------------------------------------------------


def test_the_options_of_a_spawn(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        node.export(echo, module="shop")
        seen = record(node)
        await erlang.ask("process_flag(trap_exit, true).")
        options = "[link, monitor, {priority, high}, {min_heap_size, 1000}, {min_bin_vheap_size, 1000}, "
        options += "{fullsweep_after, 5}, {message_queue_data, off_heap}, {max_heap_size, 0}]"
        await erlang.ask(f"{{P, M}} = spawn_opt('{PY}', shop, echo, [self()], {options}).")
        assert await erlang.ask("receive {from, P} -> P ! hello, receive {echo, E} -> E end end.") == "hello"
        await erlang.ask("P ! stop.")
        ends = "{receive {'EXIT', P, X} -> X end, receive {'DOWN', M, process, P, D} -> D end}."
        assert await erlang.ask(ends) == "{normal,normal}"
        request = next(control for control in seen if control[0] == Op.SPAWN_REQUEST)
        assert {"link", "monitor"} <= {o if isinstance(o, str) else o[0] for o in request[5]}

        # the reference of the monitor is also an alias
        options = "[{monitor, [{alias, explicit_unalias}]}, {reply_tag, t}]"
        await erlang.ask(f"Q = spawn_request('{PY}', shop, echo, [self()], {options}).")
        assert await erlang.ask("receive {t, Q, ok, P2} -> receive {from, P2} -> P2 ! Q, ok end end.") == "ok"
        assert await erlang.ask("receive {echo, Q} -> unalias(Q) end.") == "true"
        await erlang.ask("P2 ! stop, receive {'DOWN', Q, process, P2, normal} -> ok end.")

    run(story, epmd, tmp_path)


@pytest.mark.parametrize("full", [False, True])
def test_the_reply_option_of_a_spawn(epmd: Epmd, tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if full:
        monkeypatch.setattr(guests, "MAX_GUESTS", 0)

    async def story(node: Node, erlang: Erlang) -> None:
        node.export(echo, module="shop")
        await erlang.ask("process_flag(trap_exit, true).")
        for option, replied in (("yes", True), ("no", False), ("error_only", full), ("success_only", not full)):
            for more in ("monitor", "link", "{priority, low}"):
                ask = f"""(fun() -> R = spawn_request('{PY}', shop, echo, [self()], [{{reply, {option}}}, {more}]),
                    pong = net_adm:ping('{PY}'),
                    Reply = receive {{spawn_reply, R, Kind, What}} when is_atom(What) -> {{Kind, What}};
                                    {{spawn_reply, R, Kind, _}} -> Kind after 0 -> none end,
                    receive {{from, P}} -> P ! stop after 0 -> ok end,
                    pong = net_adm:ping('{PY}'),
                    Rest = (fun L() -> receive
                        {{'DOWN', R, _, _, normal}} -> [down | L()];
                        {{'EXIT', _, normal}} -> [exit | L()];
                        Other -> [Other | L()] after 100 -> [] end end)(),
                    {{Reply, Rest}} end)()."""
                reply = ("{error,system_limit}" if full else "ok") if replied else "none"
                rest = "" if full else {"monitor": "down", "link": "exit"}.get(more, "")
                assert await erlang.ask(ask) == f"{{{reply},[{rest}]}}", (option, more)

    run(story, epmd, tmp_path)


def test_an_abandoned_spawn(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        async def waits() -> None:
            await receive()

        node.export(waits, module="shop")
        abandon = f"R = spawn_request('{PY}', shop, waits, [], [link, monitor]), spawn_request_abandon(R)."
        assert await erlang.ask("process_flag(trap_exit, true), " + abandon) == "true"
        # OTP ends a linked process whose request was abandoned
        assert await erlang.ask(f"pong = net_adm:ping('{PY}'), pong = net_adm:ping('{PY}').") == "pong"
        assert [p for p in node.runtime.processes.values() if isinstance(p.label, tuple)] == []
        assert await erlang.ask("receive X -> X after 50 -> none end.") == "none"

    run(story, epmd, tmp_path)


# --- links and monitors -----------------------------------------------------------------------------------------------


def test_links_and_monitors_that_are_taken_back(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        async def worker() -> None:
            await receive()

        seen = record(node)
        pid = spawn(worker)
        runtime_process = node.runtime.find(pid)
        assert runtime_process is not None
        node.runtime.register("worker", pid)
        send(await shell_of(erlang), (Atom("pid"), pid))
        await erlang.ask("process_flag(trap_exit, true), {pid, P} = receive M -> M end.")
        await erlang.ask("[begin link(P), unlink(P) end || _ <- lists:seq(1, 20)], link(P), unlink(P), link(P).")
        await erlang.ask(f"[demonitor(monitor(process, X)) || X <- [P, {{worker, '{PY}'}}], _ <- lists:seq(1, 20)].")
        await erlang.ask(f"R = monitor(process, {{worker, '{PY}'}}, [{{tag, gone}}, {{alias, demonitor}}]).")
        assert await node.ping(erlang.name)
        await erlang.ask(f"pong = net_adm:ping('{PY}').")
        assert len(runtime_process.links or ()) == 1
        assert len(runtime_process.monitored_by or ()) == 1
        await erlang.ask("P ! stop.")
        assert await erlang.ask("receive {'EXIT', P, W} -> W after 5000 -> missing end.") == "normal"
        gone = f"receive {{gone, R, process, {{worker, '{PY}'}}, V}} -> V after 5000 -> missing end."
        assert await erlang.ask(gone) == "normal"
        assert await erlang.ask("receive X -> X after 100 -> none end.") == "none"
        names = {Op(control[0]).name for control in seen}
        assert {"LINK", "UNLINK_ID", "MONITOR_P", "DEMONITOR_P"} <= names, names
        assert not node.runtime.peers.get(Atom(erlang.name)), "nothing is left of them"

    run(story, epmd, tmp_path)


def test_a_peer_can_not_take_the_nodes_own_servers_along(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        servers = {name: node.runtime.names[name].pid for name in ("net_kernel", "rex", "user", "global_name_server")}
        shell = await shell_of(erlang)
        for pid in servers.values():
            send(shell, (Atom("pid"), pid))
            harm = "exit(P, die), exit(P, kill), spawn(fun() -> link(P), exit(die) end)"
            await erlang.ask(f"(fun() -> receive {{pid, P}} -> {harm} end end)().")
            await erlang.ask(f"net_adm:ping('{PY}').")
        for name in ("net_kernel", "rex", "global_name_server"):
            for order in ("gen_server:stop(S, normal, 500)", "sys:suspend(S, 500)", "sys:terminate(S, bye, 500)"):
                await erlang.ask(f"(fun(S) -> catch {order} end)({{{name}, '{PY}'}}).")
        for name in servers:
            junk = "[{'%s', '%s'} ! J || J <- [x, {'$gen_cast', x}, {'EXIT', self(), die}, {self(), {a, b}}, []]]."
            await erlang.ask(junk % (name, PY))
        assert await erlang.ask(f"net_adm:ping('{PY}').") == "pong"
        assert await erlang.ask(f"rpc:block_call('{PY}', no, such, []), ok.") == "ok"
        assert {name: node.runtime.names[name].pid for name in servers} == servers

    run(story, epmd, tmp_path)
