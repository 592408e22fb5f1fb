"""Remote spawn and rpc: what is exported runs, everything else is refused as Erlang refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from barrel_p2p import (
    Atom,
    CallTimeout,
    NodeDown,
    RemoteError,
    call,
    process_flag,
    receive,
    spawn,
    spawn_link,
    spawn_monitor,
)
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")


def test_rpc_returns_results_and_raises_what_happened(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        assert await alice.rpc(bob.name, "member", "echo_back", [{"a": (1, None)}]) == {"a": (1, None)}
        assert await alice.rpc(bob.name, "member", "sleep_for", [0.01]) == "slept"

        with pytest.raises(RemoteError) as error:
            await alice.rpc(bob.name, "member", "fail", ["no luck"])
        assert error.value.kind == "error"
        assert error.value.reason == ("exception", "ValueError", "no luck")
        assert [frame[:2] for frame in error.value.stack] == [("member", "fail")], "the user's frames, and no others"
        assert bytes(error.value.stack[0][3][0][1]) == b"member.py", "no directories of that host"
        assert str(error.value) == f"member:fail on {bob.name} raised ValueError: no luck"
        with pytest.raises(RemoteError) as error:
            await alice.rpc(bob.name, "member", "fail", ["\n\x1b[31m" + 2000 * "a"])
        text = str(error.value)
        assert text.isprintable() and "ValueError: \\n\\x1b[31maaa" in text and text.endswith("aa...")
        assert len(text) < 1200 and len(error.value.reason[2]) == 2006, "the reason has all of it"

        for what in (("member", "main", []), ("os", "system", ["true"]), ("member", "fail", [])):
            with pytest.raises(RemoteError) as error:
                await alice.rpc(bob.name, *what)
            assert error.value.reason == "undef"
            missing = (
                f"{bob.name} has no {what[0]}:{what[1]}/{len(what[2])} to call (undef); a Python node runs only what"
            )
            assert str(error.value).startswith(missing)

        with pytest.raises(TypeError, match=r"args must be a list or tuple of the arguments, not 'x': \['x'\] for one"):
            await alice.rpc(bob.name, "member", "echo_back", "x")  # type: ignore[arg-type]
        with pytest.raises(CallTimeout):
            await alice.rpc(bob.name, "member", "sleep_for", [5], timeout=0.1)
        with pytest.raises(NodeDown):
            await alice.rpc("ghost@127.0.0.1", "member", "nodes", [])
        with pytest.raises(
            NodeDown, match=r"ghost@127.0.0.1 is not reachable.*connect\('ghost@127.0.0.1'\)` tells why"
        ):
            await call(("member", "ghost@127.0.0.1"), "hello")
        assert not alice.runtime.watching

    run(story, tmp_path)


def test_rpc_on_the_own_node_asks_the_same_exports(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        import math

        alice.export(math)
        assert await alice.rpc(alice.name, "math", "sqrt", [9.0]) == 3.0
        with pytest.raises(RemoteError):
            await alice.rpc(alice.name, "os", "getpid", [])

    run(story, tmp_path)


def test_remote_spawn_links_and_monitors_from_the_first_moment(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.node("alice")
        bob = await cluster.member("bob")
        process_flag("trap_exit", True)
        pid = await spawn("member:loop_worker", 0.01, node=bob.name)
        assert pid.node == bob.name

        linked = await spawn_link("member:loop_worker", 0.01, node=bob.name)
        assert await receive(timeout=5) == ("EXIT", linked, "normal")
        watched, ref = await spawn_monitor("member:loop_worker", 0.01, node=bob.name)
        assert await receive(timeout=5) == ("DOWN", ref, "process", watched, "normal")

        undefined, ref = await spawn_monitor("member:nothing", 1, node=bob.name)
        message = await receive(timeout=5)
        assert message[:4] == ("DOWN", ref, "process", undefined)
        assert message[4] == (Atom("undef"), [("member", "nothing", [1], [])])
        with pytest.raises(NodeDown):
            await spawn("member:loop_worker", 1, node="ghost@127.0.0.1")

    run(story, tmp_path)
