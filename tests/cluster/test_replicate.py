"""Data types of the user's own: replicated as maps are, and guarded against what other nodes send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Applied, Atom, ConfigError, EncodeError, Node, send
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state of several nodes
            await asyncio.sleep(0.01)


class Longest:
    """The longest text that anybody wrote: as careless as a user's type may be."""

    def __init__(self) -> None:
        self.value: Any = ""

    def write(self, text: Any, wall_ms: int) -> Applied:
        if text == "forbidden":
            raise ValueError("not this")
        applied = self.merge(text, wall_ms)
        applied.broadcast = [text]
        return applied

    def merge(self, text: Any, wall_ms: int) -> Applied:
        if len(text) <= len(self.value):
            return Applied()
        self.value = text
        return Applied(changes=[text])

    def merge_custom(self, term: Any, wall_ms: int) -> Applied:
        raise RuntimeError("nobody sends this")

    def snapshot(self, wall_ms: int, *, python: bool) -> Iterator[Any]:
        yield self.value

    def tidy(self, wall_ms: int) -> Applied:
        return Applied()

    def comparable(self) -> None:
        return None


async def pair(cluster: Cluster) -> tuple[Node, Node]:
    alice, bob = await cluster.node("alice"), await cluster.node("bob")
    await bob.join(alice.name)
    return alice, bob


def test_a_state_is_shared_and_its_changes_are_told(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        told: list[Any] = []

        def answer(changes: Sequence[Any]) -> None:
            told.extend(changes)
            if changes[-1] == "aaa":
                here.write("bbbb")  # who is told may write

        here = alice.replicate("longest", Longest())
        there = bob.replicate("longest", Longest(), notify=answer)
        here.write("aaa")
        await until(lambda: here.state.value == there.state.value == "bbbb" and len(told) == 2)
        assert told == ["aaa", "bbbb"]
        there.close()
        with pytest.raises(ConfigError, match="closed"):
            there.write("x")
        here.write("ccccc")
        again = bob.replicate("longest", Longest())
        await until(lambda: again.state.value == "ccccc")  # the whole state comes at once

    run(story, tmp_path)


def test_a_late_joiner_pulls_the_state(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        here = alice.replicate("longest", Longest())
        here.write("written before anybody came")
        bob = await cluster.node("bob")
        there = bob.replicate("longest", Longest())
        await bob.join(alice.name)
        await until(lambda: there.state.value == here.state.value)

    run(story, tmp_path)


def test_what_merging_raises_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, mallory = await pair(cluster)
        here = alice.replicate("longest", Longest())
        tag = Atom("barrel_p2p_replica$longest")
        for message in ((Atom("delta"), mallory.name, 5), (Atom("custom"), mallory.name, 5), 7):
            mallory.gossip.broadcast(tag, message)
        send((tag, alice.name), (Atom("$barrel_p2p_replica"), (Atom("full_sync"), mallory.name, None)))
        await until(lambda: sum(here.refused.values()) == 4)
        assert here.refused == {"raised TypeError": 2, "raised RuntimeError": 1, "unknown_broadcast": 1}
        assert alice.statistics().overlay.refused["barrel_p2p_replica$longest: raised TypeError"] == 2
        mallory.gossip.broadcast(tag, (Atom("delta"), mallory.name, "good"))
        await until(lambda: here.state.value == "good")

    run(story, tmp_path)


def test_errors_of_the_state_reach_the_writer(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        here, there = alice.replicate("longest", Longest()), bob.replicate("longest", Longest())
        with pytest.raises(ValueError, match="not this"):
            here.write("forbidden")
        with pytest.raises(EncodeError):
            here.write([object()])
        with pytest.raises(ConfigError, match="already"):
            alice.replicate("longest", Longest())
        for name in ("", "x" * 300):
            with pytest.raises(ConfigError):
                alice.replicate(name, Longest())
        with pytest.raises(ConfigError):
            alice.replicate("other", Longest(), anti_entropy_ms=-1)
        here.write("good")
        await until(lambda: there.state.value == "good")

    run(story, tmp_path)
