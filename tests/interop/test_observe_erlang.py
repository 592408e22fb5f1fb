"""Watching and tracing beside stock Erlang: it can look at a Python node, and is sent no trace context."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, Node, call, export_observer, receive, self_pid, send
from barrel_p2p.tracing import propagate
from harness.beside import PY, run
from harness.erlang import Epmd, Erlang


def test_an_erlang_node_reads_a_snapshot(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        export_observer(node)
        answer = await erlang.ask(
            f"#{{node := Node, peers := [#{{node := Peer, kind := erlang}}], top := [#{{mailbox := M}} | _]}} = "
            f"erpc:call('{PY}', barrel_p2p_observer, snapshot, []), {{Node, Peer =:= node(), is_integer(M)}}."
        )
        assert answer == f"{{'{PY}',true,true}}"

    run(story, epmd, tmp_path)


def test_erlang_servers_and_calls_work_within_a_span_of_a_node_that_traces(epmd: Epmd, tmp_path: Path) -> None:
    sdk: Any = pytest.importorskip("opentelemetry.sdk.trace")
    tracer = sdk.TracerProvider().get_tracer("test")

    async def story(node: Node, erlang: Erlang) -> None:
        propagate(node)
        erl = Atom("erl@127.0.0.1")
        tokens = (
            "Test = self(), Answer = fun(Again) -> "
            "receive {From, Ask} -> From ! {Ask, seq_trace:get_token()}, Again(Again) end end, "
            "spawn(fun() -> register(tokens, self()), Test ! ready, Answer(Answer) end), receive ready -> ok end."
        )
        assert await erlang.ask(tokens) == "ok"
        assert node.nodes() == []
        with tracer.start_as_current_span("order"):
            for moment in ("while there is no channel yet", "on a channel"):
                send((Atom("tokens"), erl), (self_pid(), Atom(moment)))
                assert await receive(timeout=10) == (Atom(moment), [])
            assert await node.rpc(erl, "lists", "reverse", [[1, 2]]) == [2, 1]
            assert await call((Atom("net_kernel"), erl), (Atom("is_auth"), node.name)) == "yes"

    run(story, epmd, tmp_path)
