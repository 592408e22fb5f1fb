"""Replicated maps over real channels: writes meet, nodes come and go, and what was put is there everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    ConfigError,
    EncodeError,
    MapClosed,
    Node,
    ReplicatedMap,
    receive,
    self_pid,
    send,
)
from barrel_p2p import exit as end
from harness.cluster import Cluster, run

pytestmark = pytest.mark.usefixtures("carrier")

MAP = Atom("barrel_p2p_map")
PUT = Atom("put")
REMOVE = Atom("remove")


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the state of several nodes
            await asyncio.sleep(0.01)


async def nodes(cluster: Cluster, *names: str, **options: Any) -> list[Node]:
    """Nodes in this OS process that all know each other."""
    made = [await cluster.node(name, **options) for name in names]
    for node in made[1:]:
        await node.join(made[0].name)
    await until(lambda: all(len(node.active_view()) == len(names) - 1 for node in made))
    return made


def equal(maps: list[ReplicatedMap]) -> bool:
    first = sorted(maps[0].items(), key=repr)
    return all(sorted(one.items(), key=repr) == first for one in maps[1:])


def test_what_one_node_writes_all_read(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        maps = [node.maps.open("m") for node in await nodes(cluster, "alice", "bob", "carol")]
        alice, bob, carol = maps
        alice["apple"] = 3
        bob["pear"] = {"price": 2.5, "tags": [Atom("ripe"), None]}
        carol[("tuple", 1)] = True
        await until(lambda: all(len(m) == 3 for m in maps))
        assert alice["pear"] == {"price": 2.5, "tags": [Atom("ripe"), None]}
        assert bob[("tuple", 1)] is True and carol["apple"] == 3
        bob["apple"] = 4
        await until(lambda: [m["apple"] for m in maps] == [4, 4, 4])
        del carol["apple"]
        await until(lambda: not any("apple" in m for m in maps))
        alice["apple"] = 5
        await until(lambda: [m.get("apple") for m in maps] == [5, 5, 5])
        assert equal(maps)

    run(story, tmp_path)


def test_a_map_is_a_dict_with_erlangs_keys(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m, other = alice.maps.open("m"), bob.maps.open("m")
        keys = [1, 1.0, True, "a", Atom("a"), [1], {"k": 1}, None, (1, 2.0)]
        for number, key in enumerate(keys):
            m[key] = number
        assert len(m) == len(keys) and [m[key] for key in keys] == list(range(len(keys)))
        assert m[b"a"] == m["a"], "both are one binary to Erlang"
        await until(lambda: len(other) == len(keys))
        assert [other[key] for key in keys] == list(range(len(keys))) and other == m
        assert list(m) == keys and list(m.values()) == list(range(len(keys)))
        with pytest.raises(KeyError):
            m["nowhere"]
        with pytest.raises(KeyError):
            del m["nowhere"]
        assert m.get("nowhere") is None and m.get("nowhere", 7) == 7 and "nowhere" not in m
        assert m.setdefault("s", 1) == 1 and m.pop("s") == 1 and m.pop("s", None) is None
        m.update({"x": 1}, y=2)
        assert (m["x"], m["y"]) == (1, 2) and m.popitem() == ("y", 2)
        m.clear()
        assert len(m) == 0 and not m and m == {}
        await until(lambda: len(other) == 0)

    run(story, tmp_path)


def test_a_value_is_nobodys_but_the_maps(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m, other = alice.maps.open("m"), bob.maps.open("m")
        other.subscribe()
        value, key = [1, {"deep": [2]}], ["key"]
        m[key] = value
        value.append(3)
        key.append("changed")
        m[["key"]].append(4)
        next(iter(m)).append("changed")
        assert m[["key"]] == [1, {"deep": [2]}] and list(m) == [["key"]]
        _, _, (_, _, told) = await receive(timeout=5)
        told.append(5)
        assert other[["key"]] == [1, {"deep": [2]}]

    run(story, tmp_path)


def test_subscribers_are_told_of_every_change(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m, other = alice.maps.open("m"), bob.maps.open("m")
        other.subscribe()  # the story is a process of bob
        other.subscribe()
        m["k"] = 1
        assert await receive(timeout=5) == (MAP, Atom("m"), (PUT, "k", 1))
        other["k"] = 2
        assert await receive(timeout=5) == (MAP, Atom("m"), (PUT, "k", 2)), "one's own as well"
        await until(lambda: m["k"] == 2)
        del m["k"]
        assert await receive(timeout=5) == (MAP, Atom("m"), (REMOVE, "k"))
        m.discard("k")  # nothing changes for anybody who reads
        other.unsubscribe()
        m["k"] = 3
        await until(lambda: other.get("k") == 3)
        with pytest.raises(TimeoutError):
            await receive(timeout=0.05)

    run(story, tmp_path)


def test_the_last_of_two_writers_wins_everywhere(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        maps = [node.maps.open("m") for node in await nodes(cluster, "alice", "bob", "carol")]
        for round_ in range(50):
            for number, m in enumerate(maps):  # before anybody can have heard of the others
                m["contested"] = (round_, number)
                if number == round_ % 3:
                    m.discard("contested")
            await asyncio.sleep(0)
        await until(lambda: equal(maps))
        assert maps[0].get("contested") in (None, (49, 0), (49, 1), (49, 2))

    run(story, tmp_path)


def test_a_late_joiner_gets_all_there_is(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m = alice.maps.open("m")
        for number in range(3000):
            m[number] = f"value {number}"
        await asyncio.sleep(1)  # what was broadcast, and asked of bob, is gone by
        late = bob.maps.open("m")
        await until(lambda: len(late) == 3000, 10)
        carol = await cluster.node("carol")
        later = carol.maps.open("m")
        await carol.join(bob.name)
        await until(lambda: len(later) == 3000, 10)
        assert dict(m) == dict(late) == dict(later)

    run(story, tmp_path)


def test_a_node_that_was_away_is_equal_after_one_round(tmp_path: Path) -> None:
    """It missed puts, removals and overwrites while nothing led to it, and wrote itself meanwhile."""

    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m, other = (node.maps.open("m", anti_entropy_ms=500) for node in (alice, bob))
        m.update(dict.fromkeys(range(200), "old"))
        await until(lambda: len(other) == 200)
        await bob.leave()
        bob.disconnect(alice.name)
        await until(lambda: not alice.nodes() and not alice.active_view())
        for number in range(0, 200, 2):
            del m[number]
        m.update(dict.fromkeys(range(1, 200, 20), "new"))
        other.update({f"bob {number}": number for number in range(50)})
        assert len(other) == 250 and len(m) == 100
        await bob.join(alice.name)
        await until(lambda: equal([m, other]), 2)
        assert len(m) == 150 and m["bob 7"] == 7 and other[1] == "new" and 0 not in other

    run(story, tmp_path)


def test_a_lost_broadcast_is_made_good_by_anti_entropy(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m, other = (node.maps.open("m", anti_entropy_ms=200) for node in (alice, bob))
        tag = Atom("barrel_p2p_map_replica$m")
        heard = bob.gossip._handlers[tag]
        bob.gossip.handle(tag, None)  # whatever is broadcast passes bob by
        m["k"] = 1
        await until(lambda: other.get("k") == 1, 5)
        bob.gossip.handle(tag, heard)

    run(story, tmp_path)


def test_errors_come_before_any_change(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")

        def validator(value: Any) -> bool:
            return bool(value["n"] > 0)  # raises on what is no dict

        m = alice.maps.open("m", validator=validator, max_value_bytes=1000)
        other = bob.maps.open("m")
        m["k"] = {"n": 1}
        for wrong in ({"n": 0}, 5, None):
            with pytest.raises(ValueError, match="validator"):
                m["k"] = wrong
        with pytest.raises(EncodeError):
            m["k"] = {"n": 1, "o": object()}
        with pytest.raises(ValueError, match="1000 bytes"):
            m["k"] = {"n": 1, "long": "x" * 1000}
        with pytest.raises(ValueError, match="4096 bytes"):
            m["x" * 5000] = {"n": 1}
        with pytest.raises(ValueError):
            m[object()] = {"n": 1}
        await until(lambda: other.get("k") == {"n": 1})
        assert len(m) == 1 and m.statistics().refused == {}
        full = alice.maps.open("full", max_entries=2)
        full["a"] = full["b"] = 1
        with pytest.raises(ValueError, match="full"):
            full["c"] = 1
        full["a"] = 2
        for name in ("", "x" * 233, 5):
            with pytest.raises(ConfigError):
                alice.maps.open(name)  # type: ignore[arg-type]
        with pytest.raises(ConfigError):
            alice.maps.open("n", tombstone_ttl_ms=0)
        with pytest.raises(ConfigError, match="validator must be a function of a value, not 5"):
            alice.maps.open("n", validator=5)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="persist must be True or False, not 'no'"):
            alice.maps.open("n", persist="no")  # type: ignore[arg-type]
        assert "n" not in alice.maps.names()

    run(story, tmp_path)


def test_a_validator_that_writes_is_told_so(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m, other = alice.maps.open("m"), None

        def validator(value: Any) -> bool:
            assert other is not None
            other["from the validator"] = 1
            return True

        other = bob.maps.open("m", validator=validator)
        m["k"] = 1
        await until(lambda: other.statistics().refused != {})
        assert other.statistics().refused == {"check_failed": 1} and len(other) == 0

    run(story, tmp_path)


def test_maps_open_close_and_open_again(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await nodes(cluster, "alice", "bob")
        m, other = alice.maps.open("m"), bob.maps.open("m", anti_entropy_ms=0)
        assert (
            alice.maps.open("m") is m and bob.maps.open("m", anti_entropy_ms=0) is other and bob.maps.open("m") is other
        )
        with pytest.raises(ConfigError, match="other options"):
            bob.maps.open("m", persist=True)
        m["k"] = 1
        await until(lambda: "k" in other)
        alice.maps.open("second")
        assert alice.maps.names() == [Atom("m"), Atom("second")]
        alice.maps.close("m")
        alice.maps.close("m")
        assert alice.maps.names() == [Atom("second")]
        uses: list[Callable[[], Any]] = [
            lambda: m["k"],
            lambda: m["nowhere"],
            lambda: m.get("k"),
            lambda: "k" in m,
            lambda: len(m),
            lambda: list(m),
            lambda: m.update(k=2),
            lambda: m.pop("k", None),
            m.popitem,
            m.clear,
            m.subscribe,
            m.statistics,
        ]
        for use in uses:
            with pytest.raises(MapClosed):
                use()
        assert other["k"] == 1, "the others go on"
        again = alice.maps.open("m")
        await until(lambda: again.get("k") == 1)
        other["k"] = 2
        await until(lambda: again["k"] == 2)

    run(story, tmp_path)


def test_the_keys_of_a_dead_node_are_pruned_if_wanted(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        bob = await cluster.member("bob", contact_nodes=[alice.name], lease_ms=1000)
        pruned = alice.maps.open("m", prune_on_peer_down=True)
        kept = alice.maps.open("kept")
        for name in ("m", "kept"):
            await alice.rpc(bob.name, "member", "open_map", [name, {}])
            await alice.rpc(bob.name, "member", "map_put", [name, "of bob", 1])
            await alice.rpc(bob.name, "member", "map_put", [name, "of both", 1])
        await until(lambda: len(pruned) == 2 and len(kept) == 2)
        pruned["of both"] = 2
        pruned["of alice"] = 3
        pruned.subscribe()
        await bob.kill()
        await until(lambda: "of bob" not in pruned)
        assert await receive(timeout=5) == (MAP, Atom("m"), (REMOVE, "of bob"))
        assert dict(pruned) == {"of both": 2, "of alice": 3} and len(kept) == 2
        again = await cluster.member("bob", contact_nodes=[alice.name])
        await alice.rpc(again.name, "member", "open_map", ["m", {}])
        await alice.rpc(again.name, "member", "map_put", ["m", "of bob", 4])
        await until(lambda: pruned.get("of bob") == 4)

    run(story, tmp_path)


def test_hostile_deltas_are_refused_entry_by_entry(tmp_path: Path) -> None:
    """A member sends what no node of the library would, over a real channel and by real broadcasts."""

    async def story(cluster: Cluster) -> None:
        alice, mallory = await nodes(cluster, "alice", "mallory")

        def no_lists(value: Any) -> bool:
            if value == "boom":
                raise ValueError("a validator with a fault")
            return value.__class__ is not list

        m = alice.maps.open("m", validator=no_lists, max_value_bytes=10_000)
        tag, wall = Atom("barrel_p2p_map_replica$m"), 1_700_000_000_000
        stamp, name = Atom("timestamp"), mallory.name
        value, tombstone = Atom("value"), Atom("tombstone")

        def live(what: Any, when: Any = (stamp, wall, 0), node: Any = name) -> Any:
            return (value, what, {(node, when): True})

        deep: Any = "x"
        for _ in range(40):
            deep = (deep,)
        hostile = {
            "a list": live([1]),
            "boom": live("boom"),
            "gigantic": live(b"x" * 20_000),
            "k" * 5000: live(1),
            deep: live(1),
            "no dots": (value, 1, {}),
            "dots of no node": live(1, node=5),
            "dots as a list": (value, 1, [(name, (stamp, wall, 0))]),
            "an atom for a time": live(1, (stamp, Atom("foo"), 0)),
            "a negative time": live(1, (stamp, -1, 0)),
            "the end of time": live(1, (stamp, 2**62, 0)),
            "far future": live(1, (stamp, wall + 10 * 365 * 86_400_000, 0)),
            "counter": live(1, (stamp, wall, 2**31 - 1)),
            "tombstone": (tombstone, (stamp, Atom("foo"), 0)),
            "three": (tombstone, (stamp, wall, 0), 1),
            "text": "entry",
            "number": 5,
        }
        good = {f"good {number}": live(number) for number in range(20)}
        pid = self_pid()
        for message in (
            (Atom("delta"), name, {**hostile, **good}),
            (Atom("delta"), 5, "no map"),
            (Atom("custom"), name, {}),
            Atom("delta"),
            7,
        ):
            mallory.gossip.broadcast(tag, message)
        await until(lambda: len(m) == 20)
        for direct in (
            (Atom("full_sync"), name, {**hostile, "direct": live(1)}),
            (Atom("full_sync"), name, [1, 2]),
            (Atom("digest"), name, Atom("x"), 5, {1: 2}),
            (Atom("buckets"), name, 1, b"123"),
            (Atom("held"), name, 1, 3, [(1, b"x")]),
            (Atom("wanted"), name, 1, 5),
            (Atom("agreed"), name, 1, {name: "x"}),
            Atom("x"),
            (),
            {},
        ):
            send((tag, alice.name), (Atom("$barrel_p2p_replica"), direct))
        assert pid.node == mallory.name, "the story is a process of mallory"
        await until(lambda: "direct" in m)
        send((tag, alice.name), (Atom("$barrel_p2p_replica"), (Atom("full_sync"), name, {"last": live(1)})))
        await until(lambda: "last" in m)
        refused = m.statistics().refused
        for reason, count in {
            "invalid_value": 2,
            "check_failed": 2,
            "value_too_large": 2,
            "key_too_large": 2,
            "bad_key": 2,
            "future": 2,
            "bad_stamp": 2,
            "bad_dots": 14,
            "bad_shape": 6,
            "no_map": 2,
        }.items():
            assert refused[reason] == count, (reason, refused)
        shown = alice.statistics().overlay.refused
        assert shown["barrel_p2p_map_replica$m: bad_dots"] == 14
        assert sorted(m) == sorted([*good, "direct", "last"])
        m["still"] = "here"

    run(story, tmp_path)


def test_a_sync_of_too_many_entries_is_bounded(tmp_path: Path) -> None:
    """The node takes what it has room for, counts the rest, and goes on."""

    async def story(cluster: Cluster) -> None:
        alice, mallory = await nodes(cluster, "alice", "mallory")
        m = alice.maps.open("m", max_entries=10_000)
        dot = {(mallory.name, (Atom("timestamp"), 1_700_000_000_000, 0)): True}
        entry = (Atom("value"), 1, dot)
        flood = dict.fromkeys(range(200000), entry)
        to = (Atom("barrel_p2p_map_replica$m"), alice.name)
        send(to, (Atom("$barrel_p2p_replica"), (Atom("full_sync"), mallory.name, flood)))
        await until(lambda: len(m) == 10_000, 40)
        await until(lambda: m.statistics().refused == {"too_many": 190_000}, 40)
        more = {f"k{number}": entry for number in range(5000)}
        send(to, (Atom("$barrel_p2p_replica"), (Atom("full_sync"), mallory.name, more)))
        await until(lambda: m.statistics().refused == {"too_many": 190_000, "full": 5000})
        assert await mallory.ping(alice.name)
        m[5] = "a key that is there can be written"
        with pytest.raises(ValueError, match="full"):
            m["new"] = 1
        del m[6]

    run(story, tmp_path)


async def ask(node: Node, member: str, function: str, *args: Any) -> Any:
    return await node.rpc(member, "member", function, list(args), timeout=30)


def test_members_in_other_programs_share_the_map(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice = await cluster.node("alice")
        m = alice.maps.open("m")
        members = [await cluster.member(name, contact_nodes=[alice.name]) for name in ("bob", "carol")]
        for member in members:
            await ask(alice, member.name, "open_map", "m", {})
        writers = [
            await ask(alice, member.name, "start_writer", "m", number, 300, self_pid())
            for number, member in enumerate(members)
        ]
        for number in range(600):
            m[number % 300] = ("alice", number)
            await receive(timeout=20)  # one of theirs is written
        for writer in writers:
            end(writer, Atom("kill"))

        async def same() -> bool:
            theirs = [await ask(alice, member.name, "map_items", "m") for member in members]
            mine = sorted(m.items(), key=repr)
            return all(sorted(items, key=repr) == mine for items in theirs)

        async with asyncio.timeout(30):
            while not await same():  # noqa: ASYNC110 - the state of other programs
                await asyncio.sleep(0.05)

    run(story, tmp_path)
