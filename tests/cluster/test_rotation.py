"""Keys and certificates change in a running cluster, and nobody is lost on the way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, AuthError, Node, monitor, receive, send
from barrel_p2p.disk.keys import Identity
from barrel_p2p.node import carrier_quic
from barrel_p2p.node.rotation import NAME, ROTATED
from barrel_p2p.proto.endorsement import LIFETIME_MS, Endorsement, encode_chain, endorse
from harness.cluster import Cluster, run

NAMES = ("a", "b", "c", "d", "e")


async def started(cluster: Cluster, stack: AsyncExitStack, name: str, **options: Any) -> Node:
    node = Node(f"{name}@127.0.0.1", **cluster.options(name, **options))
    await node.start()
    stack.push_async_callback(node.stop)
    return node


async def until(condition: Any, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  pins change without an event that a test could await
            await asyncio.sleep(0.01)


def knows(node: Node, other: Node) -> bool:
    return node.keys.pins.get(other.name) == other.keys.public_key


async def sink(counts: Counter[tuple[Atom, int]]) -> None:
    while True:
        counts[await receive()] += 1


async def source(name: Atom, targets: list[Any], stop: asyncio.Event, sent: Counter[Atom]) -> None:
    while not stop.is_set():
        for target in targets:
            send(target, (name, sent[name]))
        sent[name] += 1
        await asyncio.sleep(0.002)


@pytest.mark.timeout(180)
def test_every_node_of_a_cluster_under_load_changes_key_and_certificate(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            nodes = [await started(cluster, stack, name) for name in NAMES]
            for number, node in enumerate(nodes):
                for other in nodes[number + 1 :]:
                    await node.connect(other.name)
            sent: Counter[Atom] = Counter()
            got: dict[Atom, Counter[tuple[Atom, int]]] = {node.name: Counter() for node in nodes}
            downs: list[Any] = []
            stop = asyncio.Event()
            sinks = {node.name: node.runtime.spawn(sink, (got[node.name],)) for node in nodes}
            sources = []
            for node in nodes:
                targets = [sinks[other.name].pid for other in nodes if other is not node]
                sources.append(node.runtime.spawn(source, (node.name, targets, stop, sent)))
                node.runtime.spawn(watch, (targets, downs))
            await until(lambda: min((sent[node.name] for node in nodes), default=0) > 20)
            before = {node.name: node.keys.public_key for node in nodes}
            for node in nodes:
                await node.rotate_identity()
                await node.rotate_cert()
                await asyncio.sleep(0.02)
            await asyncio.gather(*(node.rotate_identity() for node in nodes))  # and all at once
            assert all(before[node.name] != node.keys.public_key for node in nodes)
            await until(lambda: all(knows(a, b) for a in nodes for b in nodes if a is not b))
            stop.set()
            await until(
                lambda: all(
                    got[to.name][source_.name, n] == 1
                    for to in nodes
                    for source_ in nodes
                    if to is not source_
                    for n in range(sent[source_.name])
                )
            )
            assert not downs, "no channel was lost"
            assert all(count == 1 for counts in got.values() for count in counts.values())
            for node in nodes:  # new connections work with what is pinned now
                for other in nodes:
                    if node is not other:
                        node.disconnect(other.name)
            await asyncio.gather(*(a.connect(b.name) for a in nodes for b in nodes if a.name < b.name))

    run(story, tmp_path, limit=150)


async def watch(pids: list[Any], downs: list[Any]) -> None:
    for pid in pids:
        monitor(pid)
    while True:
        message = await receive()
        if message[4] == "noconnection":
            downs.append(message)


@pytest.mark.parametrize("trust_mode", ["tofu", "strict"])
@pytest.mark.parametrize("who_dials", ["the one that was away", "the one with the new key"])
def test_a_node_that_missed_two_changes_comes_back(tmp_path: Path, trust_mode: str, who_dials: str) -> None:
    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            alice = await started(cluster, stack, "alice", trust_mode=trust_mode)
            bob = await started(cluster, stack, "bob", trust_mode=trust_mode)
            if trust_mode == "strict":
                alice.keys.pin(bob.name, bob.keys.public_key)
                bob.keys.pin(alice.name, alice.keys.public_key)
            await alice.connect(bob.name)
            await bob.stop()
            await until(lambda: not alice.nodes())
            first = alice.keys.public_key
            for _ in range(2):
                await alice.rotate_identity()
            await alice.stop()  # the chain is on disk
            alice = await started(cluster, stack, "alice", trust_mode=trust_mode)
            bob = await started(cluster, stack, "bob", trust_mode=trust_mode)
            assert bob.keys.pins == {alice.name: first}
            dialer, other = (bob, alice) if who_dials == "the one that was away" else (alice, bob)
            await dialer.connect(other.name)
            assert await dialer.ping(other.name)
            assert knows(bob, alice) and knows(alice, bob)

    run(story, tmp_path)


def test_both_changed_their_keys_while_they_were_apart(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            alice, bob = [await started(cluster, stack, name) for name in ("alice", "bob")]
            await alice.connect(bob.name)
            alice.disconnect(bob.name)
            await until(lambda: not bob.nodes())
            await alice.rotate_identity()
            await bob.rotate_identity()
            await alice.connect(bob.name)
            await until(lambda: knows(bob, alice) and knows(alice, bob))

    run(story, tmp_path)


def test_a_key_that_nobody_endorses_is_refused_as_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            alice, bob = [await started(cluster, stack, name) for name in ("alice", "bob")]
            await alice.connect(bob.name)
            await alice.rotate_identity()
            await until(lambda: knows(bob, alice))
            await alice.stop()
            (cluster.directory / "alice/keys/endorsements").unlink()
            bob.keys.unpin(alice.name)
            bob.keys.pin(alice.name, Identity.generate().public_key)
            alice = await started(cluster, stack, "alice")
            with pytest.raises(AuthError) as error:
                await alice.connect(bob.name)
            assert error.value.reason == "rejected:key_mismatch"
            with pytest.raises(AuthError) as error:
                await bob.connect(alice.name)
            assert error.value.reason == "key_mismatch"

    run(story, tmp_path)


def test_what_a_member_says_of_its_key_on_a_live_channel_is_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Forged, of another node, expired, replayed, our own key, no chain at all: the pin stays, the channel too."""

    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            alice, bob = [await started(cluster, stack, name) for name in ("alice", "bob")]
            await alice.connect(bob.name)
            now = time.time_ns() // 1_000_000
            mine = Identity((cluster.directory / "alice/keys/node.key").read_bytes())
            evil = Identity.generate()

            def link(old: Identity, new: Identity, name: Atom = alice.name, time: int = now) -> Endorsement:
                return endorse(
                    name, old=old.public_key, new=new.public_key, time=time, sign_old=old.sign, sign_new=new.sign
                )

            pinned = bob.keys.pins[alice.name]
            bobs = Identity((cluster.directory / "bob/keys/node.key").read_bytes())
            for said in (
                (ROTATED, encode_chain([link(evil, Identity.generate())])),
                (ROTATED, encode_chain([link(mine, evil, bob.name)])),
                (ROTATED, encode_chain([link(mine, evil, time=now - LIFETIME_MS - 1000)])),
                (ROTATED, encode_chain([link(mine, bobs)])),
                (ROTATED, b""),
                (ROTATED, b"x" * 10_000),
                (ROTATED, 17),
                "hello",
            ):
                channel = alice._routes.up(bob.name)
                assert channel is not None
                channel.send_to_name(alice.runtime.pid, NAME, said)
            assert await alice.ping(bob.name)
            assert bob.keys.pins[alice.name] == pinned and bob.nodes() == [alice.name]

            old = encode_chain(alice._rotation._quic().chain)
            await alice.rotate_identity()
            await until(lambda: knows(bob, alice))
            first = encode_chain(alice._rotation._quic().chain)
            await alice.rotate_identity()
            await until(lambda: knows(bob, alice))
            channel = alice._routes.up(bob.name)
            assert channel is not None
            for replay in (old, first):
                channel.send_to_name(alice.runtime.pid, NAME, (ROTATED, replay))
            assert await alice.ping(bob.name) and knows(bob, alice)

            for _ in range(100):  # a member that never tires of it: some are followed, the node lives
                new = Identity.generate()
                channel.send_to_name(alice.runtime.pid, NAME, (ROTATED, encode_chain([link(mine, new)])))
            assert await alice.ping(bob.name) and knows(bob, alice)

    with caplog.at_level(logging.WARNING, "barrel_p2p.keys"):
        run(story, tmp_path)
    assert caplog.text.count("its pin stays") <= 16


def test_a_new_certificate_is_used_at_once_and_live_channels_stay(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            alice, bob, carol = [await started(cluster, stack, name) for name in ("alice", "bob", "carol")]
            await bob.connect(alice.name)
            channel = alice._routes.up(bob.name)
            crt = cluster.directory / "alice/quic/node.crt"
            before = crt.read_bytes()
            await alice.rotate_cert()
            assert crt.read_bytes() != before and before in {
                old.read_bytes() for old in crt.parent.glob("backups/*/node.crt")
            }
            await carol.connect(alice.name)
            assert alice._routes.up(bob.name) is channel and await alice.ping(bob.name) and await carol.ping(alice.name)
            there = carol._routes.up(alice.name)
            assert there is not None
            shown = there.connection.certificate_der  # type: ignore[attr-defined]
            assert shown == alice._rotation._quic()._certificate.certificate_der
            assert (there.connection is not channel) and bob._routes.up(alice.name) is not None

    run(story, tmp_path)


def test_the_secret_of_stateless_resets_outlives_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is good for shows ``tests/unit/net/test_quic_liveness.py``: peers learn at once of a restart."""
    used: list[bytes] = []
    real = carrier_quic.QuicTransport

    def noting(*args: Any, **more: Any) -> Any:
        used.append(more["reset_key"])
        return real(*args, **more)

    monkeypatch.setattr(carrier_quic, "QuicTransport", noting)

    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                alice = await started(cluster, stack, "alice")
                await alice.rotate_identity()
                await alice.rotate_cert()
                await alice.stop()

    run(story, tmp_path)
    assert len(used) == 3 and len(set(used)) == 1


def test_keys_that_change_in_the_middle_of_a_handshake_break_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        async with AsyncExitStack() as stack:
            alice, bob = [await started(cluster, stack, name) for name in ("alice", "bob")]
            for number in range(40):
                first, second = (alice, bob) if number % 2 else (bob, alice)
                dial = asyncio.create_task(first.connect(second.name))
                await asyncio.sleep(number * 0.0003)  # from before the first packet to after the last
                await (first if number % 4 < 2 else second).rotate_identity()
                await dial
                await until(lambda: knows(alice, bob) and knows(bob, alice))
                first.disconnect(second.name)
                await until(lambda: not alice.nodes() and not bob.nodes())

    run(story, tmp_path)
