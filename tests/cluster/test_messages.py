"""Messages between nodes: by pid, by name, by alias; complete, in order, in bounded memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from barrel_p2p import (
    Atom,
    EncodeError,
    NoProc,
    alias,
    call,
    receive,
    self_pid,
    send,
    spawn,
    unalias,
)
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")


def test_send_by_pid_by_name_and_to_names_nobody_has(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        echo = await alice.rpc(bob.name, "member", "start_echo", ["echo"])
        assert echo.node == bob.name

        send(echo, (self_pid(), "by pid"))
        echo.send((self_pid(), "by method"))
        send(("echo", bob.name), (self_pid(), "by name"))
        send(("nobody", bob.name), "dropped in silence")
        assert [await receive(timeout=5) for _ in range(3)] == ["by pid", "by method", "by name"]

    run(story, tmp_path)


def test_terms_cross_unchanged(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        for term in (
            "",
            "text",
            b"",
            b"\x00binary",
            Atom("an atom"),
            None,
            True,
            -(2**70),
            1.5,
            [],
            [1, [2, "three"]],
            (),
            (1, (2,)),
            {"a": 1, 2: {}},
            self_pid(),
        ):
            back = await alice.rpc(bob.name, "member", "echo_back", [term])
            assert back == term and type(back) is type(term)

    run(story, tmp_path)


def test_an_alias_takes_messages_until_it_is_taken_back(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        echo = await alice.rpc(bob.name, "member", "start_echo", ["echo"])
        mine = alias()
        send(echo, (mine, "through the alias"))
        assert await receive(timeout=5) == "through the alias"
        unalias(mine)
        send(echo, (mine, "too late"))
        send(echo, (self_pid(), "last"))
        assert await receive(timeout=5) == "last"

    run(story, tmp_path)


def test_a_term_without_form_raises_at_send_and_nothing_is_written(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        echo = await alice.rpc(bob.name, "member", "start_echo", ["echo"])
        for bad in (object(), float("nan"), {1, 2}, Atom("a" * 256)):
            with pytest.raises(EncodeError):
                send(echo, (self_pid(), ["first", bad]))
        with pytest.raises(EncodeError):  # also while the channel is still being set up
            send(("echo", "carol@127.0.0.1"), object())
        send(echo, (self_pid(), "fine"))
        assert await receive(timeout=5) == "fine"

    run(story, tmp_path)


def test_what_is_sent_while_the_channel_is_made_arrives_in_order(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob", peers={})
        echo = await alice.rpc(bob.name, "member", "start_echo", ["echo"])
        alice.disconnect(bob.name)
        assert alice.nodes() == []
        for i in range(1000):
            send(echo, (self_pid(), [i, "mutable"]))
        assert [await receive(timeout=5) for _ in range(1000)] == [[i, "mutable"] for i in range(1000)]
        assert alice.nodes() == [bob.name]

    run(story, tmp_path)


def test_a_million_messages_arrive_complete_and_in_order(tmp_path: Path) -> None:
    async def flood(to: object, count: int) -> None:
        for i in range(count):
            send(to, (i, b"payload"))
            if i % 100 == 0:
                await asyncio.sleep(0)

    async def story(cluster: Cluster) -> None:
        pairs, each = 10, 100_000
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        for _ in range(pairs):
            collector = await alice.rpc(bob.name, "member", "start_collector", [each, self_pid(), 0, None])
            spawn(flood, collector, each)
        for _ in range(pairs):
            assert await receive(timeout=100) == ("collected", each, None)

    run(story, tmp_path, limit=110)


def test_large_messages_cross_both_ways(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        large = bytes(range(256)) * (16 << 12)  # 16 MiB
        assert await alice.rpc(bob.name, "member", "echo_back", [large], timeout=30) == large

    run(story, tmp_path)


def test_calls_from_a_thousand_coroutines_a_tenth_cancelled(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob")
        adder = await alice.rpc(bob.name, "member", "start_adder", ["adder"])
        calls = [asyncio.create_task(call(adder, ("id", i), timeout=30)) for i in range(1000)]
        await asyncio.sleep(0)
        for task in calls[::10]:
            task.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for i, answer in enumerate(answers):
            if i % 10 == 0:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert answer == ("echo", ("id", i))
        with pytest.raises(TimeoutError):  # no reply strayed into the mailbox
            await receive(timeout=0.2)
        assert not alice.runtime.aliases and not alice.runtime.watching

    run(story, tmp_path)


def test_a_call_to_a_name_that_nobody_has(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.node("alice")
        bob = await cluster.member("bob")
        with pytest.raises(NoProc):
            await call(("nobody", bob.name), "anything", timeout=5)

    run(story, tmp_path)
