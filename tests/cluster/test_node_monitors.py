"""``monitor_nodes`` with options: what kind of node came or went, and why it went."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, ConfigError, Node, receive
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")


async def told(number: int) -> list[Any]:
    return [await receive(timeout=10) for _ in range(number)]


@pytest.mark.parametrize("published", [False, True])
def test_each_subscription_tells_what_it_asked_for(tmp_path: Path, published: bool) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", published=True)
        bob = await cluster.member("bob", published=published)
        mine, others = ("visible", "hidden") if published else ("hidden", "visible")
        kind = {"node_type": mine}
        alice.monitor_nodes()
        alice.monitor_nodes(node_type="all")
        alice.monitor_nodes(True, nodedown_reason=True)
        alice.monitor_nodes(node_type=mine, nodedown_reason=True)
        alice.monitor_nodes(node_type=others, nodedown_reason=True)
        await alice.connect(bob.name)
        assert await told(4) == [("nodeup", bob.name), *(("nodeup", bob.name, info) for info in (kind, {}, kind))]
        alice.disconnect(bob.name)
        why = {"nodedown_reason": "disconnect"}
        infos: tuple[dict[str, str], ...] = (kind, why, kind | why)
        assert await told(4) == [("nodedown", bob.name), *(("nodedown", bob.name, info) for info in infos)]

        alice.monitor_nodes(False)
        alice.monitor_nodes(False, node_type="all")
        alice.monitor_nodes(False, node_type=mine)  # there was none
        alice.monitor_nodes(False, nodedown_reason=True)
        await alice.connect(bob.name)
        await bob.stop()
        [up, (down, name, info)] = await told(2)
        assert up == ("nodeup", bob.name, kind) and type(name) is Atom
        assert (down, info) == ("nodedown", kind | {"nodedown_reason": "connection_closed"})
        assert all(type(word) is Atom for word in (*info, *info.values())), "terms that Erlang nodes take for the same"
        with pytest.raises(TimeoutError):
            await receive(timeout=0)
        with pytest.raises(ConfigError, match="node_type"):
            alice.monitor_nodes(node_type="this")  # type: ignore[arg-type]

    run(story, tmp_path)


async def reason_after(alice: Node, number: signal.Signals, cluster: Cluster, **options: Any) -> str:
    bob = await cluster.member("bob", **options)
    await alice.connect(bob.name)
    bob.signal(number)
    [_, (_, _, info)] = await told(2)
    await bob.kill()
    return str(info["nodedown_reason"])


def test_why_a_node_went(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", net_ticktime_ms=2000)
        alice.monitor_nodes(nodedown_reason=True)
        assert await reason_after(alice, signal.SIGKILL, cluster) == "connection_closed"
        assert await reason_after(alice, signal.SIGSTOP, cluster, net_ticktime_ms=2000) == "net_tick_timeout"

    run(story, tmp_path)
