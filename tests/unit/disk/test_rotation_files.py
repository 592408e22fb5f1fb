"""A change of keys on disk, cut short anywhere: what stands there is a usable node, with the old key or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p.disk import endorsements, files
from barrel_p2p.disk import keys as keys_module
from barrel_p2p.disk.keys import KeyStore, TrustStore
from barrel_p2p.errors import AuthError, ConfigError
from barrel_p2p.net import certificate
from barrel_p2p.proto.endorsement import LIFETIME_MS, LINK_SIZE, MAX_LINKS, Chain, follow
from barrel_p2p.term.types import Atom

BOB = Atom("bob@127.0.0.1")
NOW = 1_795_000_000_000
DAY = 86_400_000


class Crash(BaseException):
    """The power is cut: nothing that was to come happens, cleaning up neither."""


def crashing(monkeypatch: pytest.MonkeyPatch, step: int) -> list[str]:
    """The ``step``-th change of the disk (from 0) and all after it never happen; returns what did happen."""
    did: list[str] = []

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if len(did) >= step:
                raise Crash
            did.append(f"{name} {args[-1] if name == 'rename' else args[0]}")
            return real(*args, **more)

        return call

    monkeypatch.setattr(files.os, "rename", guarded("rename", os.rename))
    monkeypatch.setattr(Path, "unlink", guarded("unlink", Path.unlink))
    monkeypatch.setattr(Path, "mkdir", guarded("mkdir", Path.mkdir))
    return did


def chain_of(store: KeyStore) -> Chain:
    return store.chain(store.load_or_create(), wall_ms=NOW)


@pytest.mark.parametrize("step", range(24))
def test_an_identity_survives_a_crash_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    store = KeyStore(tmp_path)
    first = store.load_or_create()
    store.rotate(BOB, wall_ms=NOW - DAY)
    old = store.load_or_create()
    with monkeypatch.context() as patch:
        did = crashing(patch, step)
        try:
            store.rotate(BOB, wall_ms=NOW)
            finished = True
        except Crash:
            finished = False
    assert finished or step < 20, f"all steps were tried: {did}"
    again = KeyStore(tmp_path)
    identity = again.load_or_create()
    assert not finished or identity.public_key != old.public_key
    for known in (first, old):  # whoever pinned a former key finds the way
        if known.public_key != identity.public_key:
            way = follow(chain_of(again), BOB, pinned=known.public_key, presented=identity.public_key, wall_ms=NOW)
            assert isinstance(way, tuple), way
    seeds = {path.read_bytes() for path in tmp_path.glob("backups/*/node.key")} | {identity.seed}
    assert old.seed in seeds, "no key is lost"
    after = again.rotate(BOB, wall_ms=NOW + 1)  # and it can be changed again
    way = follow(chain_of(again), BOB, pinned=old.public_key, presented=after.public_key, wall_ms=NOW + 1)
    assert isinstance(way, tuple), way


@pytest.mark.parametrize("step", range(20))
def test_a_certificate_survives_a_crash_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    old = certificate.load_or_create(tmp_path)
    with monkeypatch.context() as patch:
        did = crashing(patch, step)
        try:
            certificate.rotate(tmp_path)
            finished = True
        except Crash:
            finished = False
    assert finished or step < 18, f"all steps were tried: {did}"
    now = certificate.load_or_create(tmp_path)
    assert certificate.load_or_create(tmp_path) == now
    assert not finished or now.binding != old.binding
    assert not (tmp_path / "rotating").exists()


def test_the_files_are_private_and_what_was_replaced_is_kept(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    old = store.load_or_create()
    store.rotate(BOB)
    (backup,) = (tmp_path / "backups").iterdir()
    assert (backup / "node.key").read_bytes() == old.seed and (backup / "node.pub").read_bytes() == old.public_key
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600, path
            assert not path.name.endswith(".tmp")


def test_a_chain_is_bounded_and_old_links_go(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    keys = [store.load_or_create()]
    for number in range(MAX_LINKS + 4):
        keys.append(store.rotate(BOB, wall_ms=NOW - DAY + number))
    chain = chain_of(store)
    assert [link.old for link in chain] == [key.public_key for key in keys[-MAX_LINKS - 1 : -1]]
    assert (tmp_path / "endorsements").stat().st_size == MAX_LINKS * LINK_SIZE
    assert store.chain(keys[-1], wall_ms=NOW + LIFETIME_MS) == ()


def test_a_change_without_a_name_endorses_nothing(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    store.rotate(BOB)
    assert len(store.chain(store.load_or_create())) == 1
    store.rotate()
    assert store.chain(store.load_or_create()) == () and not (tmp_path / "endorsements").exists()


@pytest.mark.parametrize("data", [b"x", bytes(LINK_SIZE - 1), bytes(LINK_SIZE * (MAX_LINKS + 1))])
def test_a_damaged_chain_is_an_error_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    store = KeyStore(tmp_path)
    identity = store.load_or_create()
    (tmp_path / "endorsements").write_bytes(data)
    with pytest.raises(ConfigError, match="endorsements is damaged"):
        store.chain(identity)
    with pytest.raises(ConfigError, match="endorsements is damaged"):
        store.rotate(BOB)
    assert store.load_or_create().public_key == identity.public_key


def test_a_pin_moves_along_a_chain_and_only_from_where_it_is(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "bob")
    first = store.load_or_create()
    second, third = store.rotate(BOB, wall_ms=NOW), store.rotate(BOB, wall_ms=NOW)
    chain = chain_of(store)
    trust = TrustStore(tmp_path / "alice", "strict")
    with pytest.raises(AuthError, match="changed"):
        trust.move(BOB, chain)
    trust.pin(BOB, first.public_key)
    trust.move(BOB, chain)
    assert TrustStore(tmp_path / "alice").pins() == {BOB: third.public_key}
    trust.move(BOB, chain[1:])  # it is there already
    with pytest.raises(AuthError, match="changed"):
        trust.move(BOB, chain[:1])
    assert trust.pins() == {BOB: third.public_key} and second.public_key != third.public_key


def test_a_pin_stays_when_the_disk_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = KeyStore(tmp_path / "bob")
    first = store.load_or_create()
    store.rotate(BOB, wall_ms=NOW)
    trust = TrustStore(tmp_path / "alice")
    trust.pin(BOB, first.public_key)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys_module, "write_atomic", full)
    monkeypatch.setattr(endorsements, "write_atomic", full)
    with pytest.raises(ConfigError, match="No space left"):
        trust.move(BOB, chain_of(store))
    with pytest.raises(ConfigError, match="No space left"):
        store.rotate(BOB)
    assert trust.pins() == {BOB: first.public_key}
