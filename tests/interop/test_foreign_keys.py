"""Changed keys beside a peer with an Erlang node's habits: it hears no word that it doesn't know, and has its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, AuthError, Node, receive
from foreign import ForeignError, ForeignNode

COOKIE = "foreign cookie"
ERL = "erl@127.0.0.1"


def run(story: Callable[[Node], Any], tmp_path: Path) -> None:
    async def main() -> None:
        async with Node("alice@127.0.0.1", cookie=COOKIE, data_dir=tmp_path / "alice", discovery_dir=None) as alice:
            await story(alice)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_its_channel_stays_up_when_we_change_our_key_and_it_is_told_nothing(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(ERL, cookie=COOKIE) as erl:
            alice.monitor_nodes()
            link = await erl.dial(alice.name, alice.listen_address)
            assert await receive(timeout=5) == ("nodeup", ERL)
            alice.monitor_nodes(False)
            await alice.rotate_identity()
            erl.send((6, erl.pid(), Atom(""), Atom("nobody")), "hello")
            with pytest.raises(TimeoutError):  # until now it has heard of the overlay alone, if of anything
                async with asyncio.timeout(1):
                    while True:
                        control, _ = await link.recv_message()
                        assert "barrel_p2p_keys" not in control
            assert alice.nodes() == [ERL] and not link.broken

    run(story, tmp_path)


def test_it_refuses_our_new_key_as_ever(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        await alice.rotate_identity()
        async with ForeignNode(ERL, cookie=COOKIE, reject="key_mismatch") as erl:
            with pytest.raises(AuthError) as error:
                await alice.connect(ERL, await erl.listen())
            assert error.value.reason == "rejected:key_mismatch"

    run(story, tmp_path)


def test_it_lets_a_new_key_in_that_it_has_not_pinned(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        await alice.rotate_identity()
        async with ForeignNode(ERL, cookie=COOKIE) as erl:
            await alice.connect(ERL, await erl.listen())
            await erl.accepted()
            assert not erl.failures

    run(story, tmp_path)


def test_its_own_new_key_is_refused_until_it_is_pinned_by_hand(tmp_path: Path) -> None:
    async def story(alice: Node) -> None:
        async with ForeignNode(ERL, cookie=COOKIE) as old:
            await alice.connect(ERL, await old.listen())
            await old.accepted()
            alice.disconnect(ERL)
        async with ForeignNode(ERL, cookie=COOKIE) as new:
            with pytest.raises(AuthError) as error:
                await alice.connect(ERL, await new.listen())
            assert error.value.reason == "key_mismatch"
            with pytest.raises(ForeignError):  # it has read HELLO and then what it can't use, and gave up
                await new.accepted()
            with pytest.raises(ForeignError, match="key_mismatch"):
                await new.dial(alice.name, alice.listen_address)
            alice.keys.unpin(ERL)
            await alice.connect(ERL, new.address)
            await new.accepted()

    run(story, tmp_path)
