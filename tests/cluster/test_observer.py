"""Looking at nodes: only those that allow it, along channels that are there, and what comes back is checked."""

from __future__ import annotations

import asyncio
import json
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, CallTimeout, Node, RemoteError, export_observer, send, spawn
from harness.cluster import Cluster, run
from harness.shell import Shell

MODULE = "barrel_p2p_observer"
BOB = "bob@127.0.0.1"


async def snapshot(asker: Node, node: Node, *path: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await asker.rpc(node.name, MODULE, "snapshot", [list(path)] if path else [])
    return answer


def refused(error: RemoteError) -> str:
    """The exception type and text that came back."""
    return f"{error.reason[1]}: {error.reason[2]}"


def test_nothing_can_be_seen_until_the_node_says_so(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")
        alice = await cluster.node("alice")
        with pytest.raises(RemoteError) as caught:
            await snapshot(alice, bob)
        assert caught.value.reason == "undef"
        export_observer(bob)
        export_observer(bob)  # twice is once
        assert (await snapshot(alice, bob))["node"] == bob.name

    run(story, tmp_path)


def test_a_snapshot_tells_of_peers_processes_and_the_overlay(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")

        async def pile() -> None:
            await asyncio.sleep(60)

        pid = spawn(pile)
        for _ in range(5):
            send(pid, "more")
        alice = await cluster.node("alice")
        await alice.join(bob.name)
        export_observer(bob)
        seen = await snapshot(alice, bob)
        assert seen["active"] == [alice.name] and seen["eager"] == [alice.name] and seen["lazy"] == []
        (peer,) = seen["peers"]
        assert peer["node"] == alice.name and peer["kind"] == "python" and peer["received"] >= 1
        first = seen["top"][0]
        assert first["pid"] == pid and first["mailbox"] == 5 and "pile" in first["name"]
        assert seen["longest"] == 5 and seen["waiting"] >= 5
        names = {process["name"] for process in seen["top"]}
        assert {"net_kernel", "rex", "user"} <= names and "snapshot" not in str(names)

    run(story, tmp_path)


def test_questions_go_on_along_channels_that_are_there_and_no_others(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")
        carol = await cluster.node("carol")
        alice = await cluster.node("alice")
        for node in (alice, bob, carol):
            export_observer(node)
        await bob.connect(carol.name)
        assert (await snapshot(alice, bob, carol.name))["node"] == carol.name
        assert carol.name not in alice.nodes(), "it was asked through bob"
        bob.disconnect(carol.name)
        with pytest.raises(RemoteError) as caught:
            await snapshot(alice, bob, carol.name)
        assert "NotConnected" in refused(caught.value) and carol.name not in bob.nodes(), "nobody is dialled for it"

    run(story, tmp_path)


@pytest.mark.parametrize(
    "path", [[Atom(BOB)] * 17, ["a text"], [Atom(BOB), 7], {"a": 1}, 5, b"path"], ids=lambda path: str(path)[:20]
)
def test_a_path_that_makes_no_sense_is_refused(path: Any, tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        bob = await cluster.node("bob")
        alice = await cluster.node("alice")
        export_observer(bob)
        with pytest.raises(RemoteError) as caught:
            await alice.rpc(bob.name, MODULE, "snapshot", [path])
        assert "a path is a list" in refused(caught.value)

    run(story, tmp_path)


def test_a_path_in_circles_ends(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.node("bob")
        for node in (alice, bob):
            export_observer(node)
        await alice.connect(bob.name)
        circle = [alice.name, bob.name] * 8
        try:
            assert (await snapshot(alice, bob, *circle))["node"] == bob.name
        except CallTimeout:
            pytest.fail("sixteen steps on one machine take no five seconds")

    run(story, tmp_path)


# --- the commands -----------------------------------------------------------------------------------------------------

APP = """
import asyncio
from barrel_p2p import GenServer, export_observer, receive, send, spawn

class Counter(GenServer):
    async def init(self): self.n = 0

async def sluggish():
    while True:
        await receive()
        await asyncio.sleep(0.5)

async def main(node):
    await Counter.start(name="counter")
    pid = spawn(sluggish)
    while True:
        send(pid, "job")
        node.gossip.broadcast("news", node.name)
        await asyncio.sleep(0.1)

async def liar(node):
    node.export(lambda *path: {"node": node.name, "peers": 7}, module="barrel_p2p_observer", name="snapshot")
    await asyncio.sleep(3600)
"""


def until(condition: Callable[[], bool]) -> None:
    """Nodes join in their own time."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    (tmp_path / "shop.py").write_text(APP)
    with Shell(tmp_path) as shell:
        yield shell


def test_top_shows_the_node_its_peers_and_the_cluster_behind_it(shell: Shell) -> None:
    shell.start(BOB, "--observable", "--app", "shop:main")
    shell.start("alice@127.0.0.1", "--observable", "--contact-nodes", BOB)
    shell.start("carol@127.0.0.1", "--contact-nodes", BOB)

    def settled() -> bool:
        text = shell.run("top", BOB, "--once", "--interval", "0.1")
        return "does not let itself" in text and text.count("\nalice@") == 2

    until(settled)
    text = shell.run("top", BOB, "--once", "--interval", "1.5")
    assert shell.run("top", BOB, "--once", "--interval", "0.1", "--svg", "top.svg") == ""
    assert f">{BOB}  barrel_p2p" in (shell.directory / "top.svg").read_text()
    assert text.startswith(f"{BOB}  barrel_p2p ") and "2 nodes, 1 more that can't be looked at" in text
    lines = text.splitlines()
    (link, up) = [line.split()[1] for line in lines if line.startswith("alice@")]  # as a peer, and in the cluster
    assert link in ("eager", "lazy") and up.endswith("s")
    assert any(line.startswith("carol@") and "does not let itself" in line for line in lines)
    (counter,) = [line for line in lines if " counter " in line]
    assert counter.split()[2:] == ["0", "0", "receiving"]
    (busy,) = [line for line in lines if " sluggish " in line]
    assert int(busy.split()[2]) > 1 and busy.split()[-1] == "working"
    every = shell.run("top", BOB, "--once", "--interval", "0.1", "--rows", "50")
    assert " shop:main " in every and " barrel start " in every and "_run_app" not in every
    views = shell.run("top", BOB, "--interval", "0.2", "--count", "2", "--rows", "1")
    assert views.count(f"{BOB}  barrel_p2p") == 2 and "... and " in views and "\x1b" not in views


def test_graph_draws_nodes_and_links(shell: Shell) -> None:
    shell.start(BOB, "--observable")
    shell.start("alice@127.0.0.1", "--observable", "--contact-nodes", BOB)
    shell.start("carol@127.0.0.1", "--contact-nodes", BOB)
    branch = ": branch of the broadcast tree"  # of the three links between them one may be none

    def settled() -> bool:
        said = shell.run("graph", BOB, "--output", "o.svg")
        return "o.svg: 3 nodes (1 by name only), " in said and branch in (shell.directory / "o.svg").read_text()

    until(settled)
    root = ElementTree.fromstring((shell.directory / "o.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    titles = [title.text or "" for title in root.iter(f"{space}title")]
    assert any(text.startswith("alice@127.0.0.1 - bob@127.0.0.1: ") for text in titles)
    assert any(text.startswith("carol@127.0.0.1: it does not let itself") for text in titles)
    assert not any("barrel-" in text for text in titles), "the visitor is no part of the cluster"
    assert shell.run("graph", BOB).startswith("<svg ")
    assert "there is no directory" in shell.run("graph", BOB, "--output", "nowhere/o.svg", status=2)


def test_a_node_that_does_not_allow_it_shows_nothing_and_says_how(shell: Shell) -> None:
    shell.start(BOB)
    for command in ("top", "graph"):
        assert "start it with `barrel start --observable`" in shell.run(command, BOB, status=1)
    shell.run("top", "nobody@127.0.0.1", status=3)
    assert "--interval must be at least" in shell.run("top", BOB, "--interval", "0", status=2)
    assert "give --once too" in shell.run("top", BOB, "--svg", "top.svg", status=2)


def test_a_node_that_answers_nonsense_is_named(shell: Shell) -> None:
    shell.start(BOB, "--app", "shop:liar")
    for command in ("top", "graph"):
        assert "its answer makes no sense" in shell.run(command, BOB, status=3)


def test_json_and_a_file_can_make_a_node_observable(shell: Shell) -> None:
    (shell.directory / "node.toml").write_text("observable = true\n")
    shell.start(BOB, "--config", "node.toml")
    seen = json.loads(shell.run("call", BOB, MODULE, "snapshot", "--json"))
    assert seen["node"] == BOB
