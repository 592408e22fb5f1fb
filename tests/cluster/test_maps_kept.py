"""Maps that are kept on disk: what a put promised holds after ``kill -9``, damage and a full disk."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, Node, StoreError, receive, self_pid
from barrel_p2p.proto.map_state import HARD_HORIZONS
from barrel_p2p.services import map_disk
from harness.cluster import Cluster, Member, run

#: How often a member is killed; ``make kill-maps`` sets 50.
KILLS = int(os.environ.get("BARREL_KILLS", "3"))
KEYS = 300


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state of several nodes
            await asyncio.sleep(0.01)


async def ask(node: Node, member: str, function: str, *args: Any) -> Any:
    return await node.rpc(member, "member", function, list(args), timeout=30)


def told(written: int) -> Iterator[dict[int, int]]:
    """The map after 0, 1, 2, ... steps of ``member.map_write``, from the one after ``written`` steps on."""
    content: dict[int, int] = {}
    for number in range(1 << 60):
        if number >= written:
            yield content
        key = number * 7919 % KEYS
        if number % 5 == 4:
            content.pop(key, None)
        else:
            content[key] = number


def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    """A member writes without end and reports each write that returned. It is killed in the middle, and started again
    alone: its disk must hold all that was reported, and nothing out of order."""

    async def story(cluster: Cluster) -> None:
        observer = await cluster.node("observer")
        rng = random.Random(KILLS)
        written = 0
        for _ in range(KILLS):
            member = await cluster.member("member")
            await ask(observer, member.name, "open_map", "m", {"persist": True})
            items = dict(await ask(observer, member.name, "map_items", "m"))
            steps, written = written, -1
            for number, content in enumerate(told(steps), steps):
                if content == items:
                    written = number
                    break
                assert number < steps + 5000, f"the disk holds no state after {steps} acknowledged steps"
            await ask(observer, member.name, "start_writer", "m", written, KEYS, self_pid())
            enough = written + rng.randrange(50, 3000)
            while True:
                try:
                    _, number = await receive(timeout=10 if written < enough else 0.5)
                except TimeoutError:
                    break  # what it had sent before it died is here
                assert number == written
                written += 1
                if written == enough:
                    await member.kill()
            assert written >= enough
            await until(lambda: not observer.nodes())  # else the next question goes to the dead one
        member = await cluster.member("member")
        size = await ask(observer, member.name, "open_map", "m", {"persist": True})
        items = dict(await ask(observer, member.name, "map_items", "m"))
        assert len(items) == size and items in (content for _, content in zip(range(5000), told(written), strict=False))

    run(story, tmp_path, limit=30 + 20 * KILLS)


def test_a_whole_cluster_that_is_killed_in_mid_write_has_it_all_again(tmp_path: Path) -> None:
    """Three members put without end; all are killed at once, some before they have told anybody, and started again."""

    async def story(cluster: Cluster) -> None:
        observer = await cluster.node("observer")
        rng = random.Random(KILLS)
        names = ("one", "two", "three")
        counts = dict.fromkeys(names, 0)  # puts that were reported
        members: list[Member] = []
        for _ in range(KILLS):
            members = [await cluster.member(names[0])]
            members += [await cluster.member(name, contact_nodes=[members[0].name]) for name in names[1:]]
            for name, member in zip(names, members, strict=True):
                await ask(observer, member.name, "open_map", "m", {"persist": True})
                assert await ask(observer, member.name, "map_holds", "m", {name: counts[name]}), (
                    "its own are on its disk"
                )
            async with asyncio.timeout(30):
                for member in members:
                    while not await ask(observer, member.name, "map_holds", "m", counts):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            for name, member in zip(names, members, strict=True):
                await ask(observer, member.name, "start_counter", "m", name, counts[name], self_pid())
            ends = asyncio.get_running_loop().time() + rng.uniform(0.05, 0.3)
            while asyncio.get_running_loop().time() < ends:
                counted(counts, await receive(timeout=5))
            await asyncio.gather(*(member.kill() for member in members))
            with suppress(TimeoutError):
                while True:
                    counted(counts, await receive(timeout=0.2))
        assert min(counts.values()) > 10 * KILLS

    run(story, tmp_path, 60 + 20 * KILLS)


def counted(counts: dict[str, int], message: Any) -> None:
    _, tag, number = message
    counts[tag] = number + 1


def test_a_map_that_is_closed_and_opened_again_is_the_same(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        m = alice.maps.open("a map/of *ours*", persist=True)
        values = {
            1: "a",
            1.5: [1.0, "", b""],
            "é": None,
            Atom("x"): {Atom("k"): True},
            (1, "t"): 10**30,
            "big": "x" * 9999,
        }
        for key, value in values.items():
            m[key] = value
        m["gone"] = 1
        del m["gone"]
        alice.maps.close("a map/of *ours*")
        again = alice.maps.open("a map/of *ours*", persist=True)
        assert again == values and again is not m
        assert again["é"] is None and again[Atom("x")] == {Atom("k"): True} and again[1.5] == [1.0, "", b""]
        again.clear()
        again["last"] = 1
        alice.maps.close("a map/of *ours*")
        assert list(alice.maps.open("a map/of *ours*", persist=True).items()) == [("last", 1)]
        long = alice.maps.open("ü" * 232, persist=True)
        long["k"] = 1
        assert alice.maps.delete("ü" * 232) and not alice.maps.delete("ü" * 232)
        assert len(alice.maps.open("ü" * 232, persist=True)) == 0
        assert alice.maps.open("not kept") == {} and not alice.maps.delete("not kept")

    run(story, tmp_path)


def test_a_removal_is_remembered_across_a_restart(tmp_path: Path) -> None:
    """Bob is away when alice removes a key and restarts; what he brings back stays removed."""

    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.node("alice"), await cluster.node("bob")
        await bob.join(alice.name)
        m, other = alice.maps.open("m", persist=True), bob.maps.open("m")
        m["k"], m["l"] = 1, 1
        await until(lambda: len(other) == 2)
        await bob.leave()
        bob.disconnect(alice.name)
        await until(lambda: not alice.active_view())
        del m["k"]
        alice.maps.close("m")
        m = alice.maps.open("m", persist=True)
        assert dict(m) == {"l": 1}
        await bob.join(alice.name)
        await until(lambda: "k" not in other)
        assert dict(m) == {"l": 1}

    run(story, tmp_path)


def test_what_others_wrote_is_kept_whatever_its_key(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.node("alice"), await cluster.node("bob")
        await bob.join(alice.name)
        m, other = alice.maps.open("m", persist=True), bob.maps.open("m")
        keys = [1, 1.0, True, "a", Atom("a"), [1], {"k": 1}, None, (1, [2.0])]
        for number, key in enumerate(keys):
            other[key] = number
        del other[[1]]
        await until(lambda: len(m) == 8 and [1] not in m)
        alice.maps.close("m")
        await bob.leave()
        assert sorted(alice.maps.open("m", persist=True).items(), key=repr) == sorted(other.items(), key=repr)

    run(story, tmp_path)


def rows_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        return int(count)


def test_the_file_grows_with_the_keys_and_not_with_the_writes(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        m = alice.maps.open("m", persist=True, tombstone_ttl_ms=1)
        path = tmp_path / "alice" / "maps" / "m.db"
        for number in range(5000):
            m[number % 50] = number
        assert rows_of(path) == 50
        m.clear()
        assert rows_of(path) == 50, "tombstones"
        await asyncio.sleep(2 * HARD_HORIZONS / 1000)
        await until(lambda: m.statistics().tombstones == 0, 10)
        assert rows_of(path) == 0, "collected tombstones are deleted"

    run(story, tmp_path)


def test_pruned_keys_are_gone_from_the_disk_and_may_come_back(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice", net_ticktime_ms=2000)
        bob = await cluster.member("bob", contact_nodes=[alice.name], lease_ms=1000, net_ticktime_ms=2000)
        m = alice.maps.open("m", persist=True, prune_on_peer_down=True)
        await ask(alice, bob.name, "open_map", "m", {})
        await ask(alice, bob.name, "map_put", "m", "of bob", 1)
        await until(lambda: "of bob" in m)
        bob.signal(signal.SIGSTOP)  # dead for all that anybody can tell
        await until(lambda: len(m) == 0)
        assert rows_of(tmp_path / "alice" / "maps" / "m.db") == 0
        alice.maps.close("m")
        m = alice.maps.open("m", persist=True, prune_on_peer_down=True)
        assert len(m) == 0
        bob.signal(signal.SIGCONT)
        await until(lambda: m.get("of bob") == 1, 30)
        assert await ask(alice, bob.name, "map_items", "m") == [("of bob", 1)]

    run(story, tmp_path)


@contextmanager
def full_disk(size: int = 0) -> Iterator[None]:
    """No file of this OS process can grow past ``size``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_put_that_the_disk_refuses_has_not_happened(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.node("alice"), await cluster.node("bob")
        await bob.join(alice.name)
        m, other = alice.maps.open("m", persist=True, anti_entropy_ms=100), bob.maps.open("m", anti_entropy_ms=100)
        m["k"] = 1
        await until(lambda: "k" in other)
        other.subscribe()
        with full_disk():
            with pytest.raises(StoreError, match="could not write"):
                m["k"] = 2
            with pytest.raises(StoreError):
                del m["k"]
            with pytest.raises(StoreError):
                m["new"] = 1
            assert dict(m) == {"k": 1}
            with pytest.raises(TimeoutError):
                await receive(timeout=0.4)  # a few rounds
        m["k"] = 3
        await until(lambda: other["k"] == 3)
        alice.maps.close("m")
        assert dict(alice.maps.open("m", persist=True)) == {"k": 3}

    run(story, tmp_path)


def test_merges_that_the_disk_refuses_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(map_disk, "TICK_S", 0.2)

    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.node("alice"), await cluster.node("bob")
        await bob.join(alice.name)
        m, other = alice.maps.open("m", persist=True), bob.maps.open("m")
        path = tmp_path / "alice" / "maps" / "m.db"
        with full_disk():
            other.update(dict.fromkeys(range(100), "x" * 1000))
            await until(lambda: len(m) == 100)
            other.update(dict.fromkeys(range(50), "y"))
            del other[99]
            await until(lambda: m.get(0) == "y" and 99 not in m)
            assert rows_of(path) == 0
        await until(lambda: rows_of(path) == 100, 5)
        errors = [record for record in caplog.records if "could not write" in record.message]
        assert len(errors) == 1 and errors[0].levelno == logging.ERROR, "told once"
        alice.maps.close("m")
        await bob.leave()
        m = alice.maps.open("m", persist=True)
        assert len(m) == 99 and m[0] == "y" and m[98] == "x" * 1000

    run(story, tmp_path)


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "no database":
        data[:100] = b"\xff" * 100
    elif how == "pages of zeros":
        middle = len(data) // 2 // 4096 * 4096
        data[middle : middle + 12288] = bytes(12288)
    elif how == "one bit":
        data[data.index(b"value 77 ") + 4] ^= 1
    elif how == "cut short":
        del data[len(data) // 3 :]
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["no database", "pages of zeros", "one bit", "cut short"])
def test_a_damaged_file_is_made_good_by_the_peers(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await cluster.node("alice"), await cluster.node("bob")
        await bob.join(alice.name)
        m, other = alice.maps.open("m", persist=True), bob.maps.open("m")
        values = {number: f"value {number} " * 20 for number in range(1000)}
        m.update(values)
        await until(lambda: len(other) == 1000)
        alice.maps.close("m")
        damage(tmp_path / "alice" / "maps" / "m.db", how)
        m = alice.maps.open("m", persist=True)
        assert any("damaged" in record.message for record in caplog.records if record.levelno == logging.ERROR)
        assert len(m) < 1000 and all(value == values[key] for key, value in m.items()), "nothing wrong is let in"
        aside = [name for name in os.listdir(tmp_path / "alice" / "maps") if ".corrupt-" in name]
        assert bool(aside) == (how != "one bit")
        await until(lambda: len(m) == 1000)
        assert dict(m) == values == dict(other)
        alice.maps.close("m")
        await bob.leave()
        assert dict(alice.maps.open("m", persist=True)) == values, "it is whole on disk again"

    run(story, tmp_path)


def test_a_file_that_breaks_under_way_is_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        m = alice.maps.open("m", persist=True)
        path = tmp_path / "alice" / "maps" / "m.db"
        m.update(dict.fromkeys(range(500), "x" * 3000))

        def break_file() -> None:
            with closing(sqlite3.connect(path)) as connection:
                while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    pass  # the thread is at it
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(b"\xa5" * (size - 4096))

        break_file()
        values = dict.fromkeys(range(0, 500, 7), "y")
        m.update(values)
        assert any(".corrupt-" in name for name in os.listdir(path.parent))
        everything = dict(m)
        alice.maps.close("m")
        assert dict(alice.maps.open("m", persist=True)) == everything and len(everything) == 500

    run(story, tmp_path)
