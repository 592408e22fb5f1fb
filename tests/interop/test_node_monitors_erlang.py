"""``monitor_nodes`` beside Erlang nodes: it tells what OTP's own tells in the same story."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from barrel_p2p import Node, receive
from harness.beside import PY, run
from harness.erlang import Epmd, Erlang

ON = "net_kernel:monitor_nodes(true, #{node_type => all, nodedown_reason => true})."
TOLD = "(fun() -> receive {W, '%s', Info} -> {W, lists:sort(maps:to_list(Info))} after 10000 -> none end end)()."


@pytest.mark.parametrize("kind", ["visible", "hidden"])
def test_it_tells_what_otp_tells(epmd: Epmd, tmp_path: Path, kind: str) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        with Erlang(epmd, "other", *(["-hidden"] if kind == "hidden" else [])) as other:
            assert await erlang.ask(ON) == "ok"
            node.monitor_nodes(node_type="all", nodedown_reason=True)

            async def both_tell(what: str, reason: str | None = None) -> None:
                info = {"node_type": kind} | ({} if reason is None else {"nodedown_reason": reason})
                assert await receive(timeout=10) == (what, other.name, info)
                pairs = ",".join(f"{{{key},{value}}}" for key, value in sorted(info.items()))
                assert await erlang.ask(TOLD % other.name) == f"{{{what},[{pairs}]}}"

            async def both_connect() -> None:
                await node.connect(other.name)
                assert await erlang.ask(f"net_kernel:connect_node('{other.name}').") == "true"
                await both_tell("nodeup")

            await both_connect()
            node.disconnect(other.name)
            assert await erlang.ask(f"erlang:disconnect_node('{other.name}').") == "true"
            await both_tell("nodedown", "disconnect")
            await both_connect()
            await other.ask(f"[erlang:disconnect_node(N) || N <- ['{PY}', '{erlang.name}']], ok.")
            await both_tell("nodedown", "connection_closed")
            await both_connect()
            other.signal(signal.SIGKILL)
            await both_tell("nodedown", "connection_closed")

    run(story, epmd, tmp_path, published=True)
