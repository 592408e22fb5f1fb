"""What attackers of SECURITY.md try, and what becomes of it. The page names these tests."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from barrel_p2p import Atom, AuthError, HandshakeError, Node, NotConnected, Pid
from barrel_p2p.disk.keys import Identity
from barrel_p2p.node import carrier_quic
from barrel_p2p.node.rotation import NAME, ROTATED
from barrel_p2p.proto.endorsement import encode_chain, endorse
from foreign import ForeignError, ForeignNode
from foreign.relay import Relay

COOKIE = "threat cookie"
EVE = "eve@127.0.0.1"


async def started(stack: AsyncExitStack, tmp_path: Path, name: str, **options: Any) -> Node:
    setup = {"cookie": COOKIE, "data_dir": tmp_path / name, "discovery_dir": None, **options}
    node = Node(f"{name}@127.0.0.1", **setup)
    await node.start()
    stack.push_async_callback(node.stop)
    return node


def run(story: Callable[[AsyncExitStack], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            await story(stack)

    asyncio.run(main())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


# --- on the path ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("acquainted", [False, True])
def test_an_attacker_on_the_path_with_a_certificate_of_its_own_is_refused(tmp_path: Path, acquainted: bool) -> None:
    """It passes the exchange of keys on, word for word. Already at the first meeting the signatures don't fit."""

    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        if acquainted:
            await alice.connect(bob.name, bob.listen_address)
            alice.disconnect(bob.name)
            await until(lambda: not bob.nodes())
        pins = dict(alice.keys.pins), dict(bob.keys.pins)
        relay = await stack.enter_async_context(Relay(bob.listen_address, copy=False))
        with pytest.raises(AuthError) as error:
            await alice.connect(bob.name, relay.address)
        assert error.value.reason in ("signature_invalid", "rejected:signature_invalid")
        assert relay.passed > 200, "it did sit in between"
        assert not alice.nodes() and not bob.nodes()
        assert (alice.keys.pins, bob.keys.pins) == pins, "nothing was learned from it"

    run(story)


def test_an_attacker_on_the_path_with_a_copy_of_the_certificate_is_refused(tmp_path: Path) -> None:
    """The binding would fit, but TLS asks for a signature by the certificate's key, and our dialer checks it."""

    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        relay = await stack.enter_async_context(Relay(bob.listen_address, copy=True))
        with pytest.raises(NotConnected, match="TLS alert"):
            await alice.connect(bob.name, relay.address)
        assert relay.passed == 0, "not a byte of the exchange was told"
        assert not alice.keys.pins and not bob.keys.pins

    run(story)


def test_who_stole_the_key_of_the_certificate_sits_in_between_until_it_is_changed(tmp_path: Path) -> None:
    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        key = load_pem_private_key((tmp_path / "bob/quic/node.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        relay = await stack.enter_async_context(Relay(bob.listen_address, copy=True, key=key))
        await alice.connect(bob.name, relay.address)
        passed = relay.passed
        assert await alice.ping(bob.name) and relay.passed > passed, "it reads and could change all of it"
        await bob.rotate_cert()
        alice.disconnect(bob.name)
        await until(lambda: not bob.nodes())
        with pytest.raises(AuthError):
            await alice.connect(bob.name, relay.address)

    run(story)


def test_an_attacker_on_the_path_gains_nothing_by_a_change_of_keys(tmp_path: Path) -> None:
    """The endorsement passes through its hands; it is of no use without the new key."""

    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        await alice.connect(bob.name, bob.listen_address)
        alice.disconnect(bob.name)
        await until(lambda: not bob.nodes())
        old = alice.keys.pins[bob.name]
        await bob.rotate_identity()
        relay = await stack.enter_async_context(Relay(bob.listen_address, copy=False))
        with pytest.raises(AuthError):
            await alice.connect(bob.name, relay.address)
        assert alice.keys.pins[bob.name] == old, "a pin moves only with a proof of the new key on the same connection"

    run(story)


# --- stolen things ----------------------------------------------------------------------------------------------------


def test_a_stolen_cookie_alone_takes_no_name_that_is_pinned(tmp_path: Path) -> None:
    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        await bob.connect(alice.name, alice.listen_address)
        thief = await stack.enter_async_context(ForeignNode(bob.name, cookie=COOKIE))
        with pytest.raises(ForeignError, match="key_mismatch"):
            await thief.dial(alice.name, alice.listen_address)
        assert await alice.ping(bob.name)

    run(story)


def test_a_stolen_cookie_lets_a_new_name_in_with_tofu_but_not_in_strict_mode(tmp_path: Path) -> None:
    async def story(stack: AsyncExitStack) -> None:
        alice = await started(stack, tmp_path, "alice")
        strict = await started(stack, tmp_path, "strict", trust_mode="strict")
        eve = await stack.enter_async_context(ForeignNode(EVE, cookie=COOKIE))
        await eve.dial(alice.name, alice.listen_address)
        await until(lambda: alice.nodes() == [EVE])
        with pytest.raises(ForeignError, match="untrusted_key"):
            await eve.dial(strict.name, strict.listen_address)

    run(story)


def test_a_stolen_key_is_nothing_without_the_cookie(tmp_path: Path) -> None:
    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        await bob.connect(alice.name, alice.listen_address)
        key = Ed25519PrivateKey.from_private_bytes((tmp_path / "bob/keys/node.key").read_bytes())
        await bob.stop()
        await until(lambda: not alice.nodes())
        thief = await stack.enter_async_context(ForeignNode(bob.name, cookie="guessed", key=key))
        thief.behaviour.timeout = 3.0
        with pytest.raises((ForeignError, TimeoutError)):
            await thief.dial(alice.name, alice.listen_address)
        assert not alice.nodes()

    run(story)


def test_who_stole_key_and_cookie_is_that_node_until_its_peers_unpin_it(tmp_path: Path) -> None:
    """It can even endorse a key of its own. ``unpin`` and ``pin`` on the peers end it."""

    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        await bob.connect(alice.name, alice.listen_address)
        seed = (tmp_path / "bob/keys/node.key").read_bytes()
        await bob.stop()
        await until(lambda: not alice.nodes())
        thief = await stack.enter_async_context(
            ForeignNode(bob.name, cookie=COOKIE, key=Ed25519PrivateKey.from_private_bytes(seed))
        )
        await thief.dial(alice.name, alice.listen_address)
        await until(lambda: alice.nodes() == [bob.name])
        stolen, evil = Identity(seed), Identity.generate()
        link = endorse(
            bob.name,
            old=stolen.public_key,
            new=evil.public_key,
            time=time.time_ns() // 1_000_000,
            sign_old=stolen.sign,
            sign_new=evil.sign,
        )
        thief.send((6, thief.pid(), Atom(""), NAME), (ROTATED, encode_chain([link])))
        await until(lambda: alice.keys.pins[bob.name] == evil.public_key)

        fresh = Identity.generate()
        alice.keys.unpin(bob.name)
        alice.keys.pin(bob.name, fresh.public_key)
        alice.disconnect(bob.name)
        for key in (stolen, evil):
            again = await stack.enter_async_context(
                ForeignNode(bob.name, cookie=COOKIE, key=Ed25519PrivateKey.from_private_bytes(key.seed))
            )
            with pytest.raises(ForeignError, match="key_mismatch"):
                await again.dial(alice.name, alice.listen_address)

    run(story)


def test_who_stole_a_backup_of_a_replaced_key_is_refused_where_the_pin_has_moved(tmp_path: Path) -> None:
    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        await bob.connect(alice.name, alice.listen_address)
        await bob.rotate_identity()
        await until(lambda: alice.keys.pins[bob.name] == bob.keys.public_key)
        (backup,) = (tmp_path / "bob/keys/backups").glob("*/node.key")
        key = Ed25519PrivateKey.from_private_bytes(backup.read_bytes())
        thief = await stack.enter_async_context(ForeignNode(bob.name, cookie=COOKIE, key=key))
        with pytest.raises(ForeignError, match="key_mismatch"):
            await thief.dial(alice.name, alice.listen_address)

    run(story)


# --- members and strangers that misbehave -----------------------------------------------------------------------------


def test_a_member_can_speak_for_nobody_else_and_stays_away_longer_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        await bob.connect(alice.name, alice.listen_address)
        eve = await stack.enter_async_context(ForeignNode(EVE, cookie=COOKIE))
        bobs = Pid(bob.name, 1, 0, 1)
        await eve.dial(alice.name, alice.listen_address)
        await until(lambda: EVE in alice.nodes())
        eve.send((1, bobs, alice.runtime.pid))  # LINK in the name of a process of bob's
        await until(lambda: EVE not in alice.nodes())
        with pytest.raises((ForeignError, HandshakeError), match="not_allowed"):
            await eve.dial(alice.name, alice.listen_address)
        with pytest.raises(NotConnected, match="broke the protocol"):
            await alice.connect(Atom(EVE), ("127.0.0.1", 9))
        await asyncio.sleep(1.1)  # what the first offence costs
        await eve.dial(alice.name, alice.listen_address)
        await until(lambda: EVE in alice.nodes())
        eve.send((1, bobs, alice.runtime.pid))
        await until(lambda: EVE not in alice.nodes())
        assert "stays away for 1 s" in caplog.text and "stays away for 2 s" in caplog.text
        assert await alice.ping(bob.name)

    run(story)


def test_a_member_that_sends_a_million_new_atoms_harms_nobody(tmp_path: Path) -> None:
    """The atoms that were met are only a cache: her channel goes on, and others have their own new atoms."""

    def kinds(terms: list[Any]) -> list[str]:
        return [type(term).__name__ for term in terms]

    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        alice.export(kinds)
        await bob.connect(alice.name, alice.listen_address)
        eve = await stack.enter_async_context(ForeignNode(EVE, cookie=COOKIE))
        link = await eve.dial(alice.name, alice.listen_address)

        sender, blocks = eve.pid(), 0
        for turn in range(20):
            link.send((6, sender, Atom(""), Atom("nobody")), [Atom(f"{turn}_{i}") for i in range(50_000)])
            link.send((19, sender, Atom("nobody"), eve.ref()))
            await link.recv_until(28, timeout=30)  # answers come in order: the atoms have been read
            blocks = blocks or sys.getallocatedblocks()
            new = [Atom(f"of_bob_{turn}_{i}") for i in range(100)]
            assert await bob.rpc(alice.name, __name__, "kinds", [new]) == ["Atom"] * 100
        assert sys.getallocatedblocks() - blocks < 500_000, "a million atoms are 1.8 million blocks"
        assert set(alice.nodes()) == {bob.name, EVE}

    run(story)


@pytest.mark.parametrize("fault", ["forge_signature", "forge_digest"])
def test_an_address_whose_handshakes_fail_runs_out_of_budget_and_members_there_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Bad proofs of keys, and guesses at the cookie."""
    small = functools.partial(carrier_quic.QuicTransport, address_burst=4, address_per_second=0)
    monkeypatch.setattr(carrier_quic, "QuicTransport", small)

    async def story(stack: AsyncExitStack) -> None:
        alice, bob = await started(stack, tmp_path, "alice"), await started(stack, tmp_path, "bob")
        for _ in range(10):
            await bob.connect(alice.name, alice.listen_address)
            bob.disconnect(alice.name)
            await until(lambda: not alice.nodes())
        eve = await stack.enter_async_context(ForeignNode(EVE, cookie=COOKIE, timeout=2.0, **{fault: True}))
        for tries in range(1, 7):
            with pytest.raises((ForeignError, ConnectionError, TimeoutError)):
                await eve.dial(alice.name, alice.listen_address)
            metrics = alice.statistics().metrics
            begun = metrics["barrel_p2p.dist.auth.attempts"].series
            assert sum(n for (role, _), n in begun.items() if role == "incoming") == 10 + min(tries, 4)
            refused = metrics["barrel_p2p.dist.turned_away"].series[("refused_address",)]
            assert refused == max(0, tries - 4), "before TLS"

    run(story)
