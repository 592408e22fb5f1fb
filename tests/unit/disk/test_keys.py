"""Identity and pins on disk: what survives, and what is refused with a name."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from barrel_p2p.disk import files
from barrel_p2p.disk.keys import Identity, KeyStore, NodeKeys, PinVerdict, TrustStore, fingerprint
from barrel_p2p.errors import AuthError, ConfigError
from barrel_p2p.term.types import Atom

BOB = Atom("bob@127.0.0.1")
KEY, OTHER = bytes([1]) * 32, bytes([2]) * 32


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- our own key --------------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    first = KeyStore(tmp_path / "keys").load_or_create()
    again = KeyStore(tmp_path / "keys").load_or_create()
    assert first.public_key == again.public_key and first.fingerprint.startswith("SHA256:")
    assert mode(tmp_path / "keys") == 0o700
    assert mode(tmp_path / "keys/node.key") == mode(tmp_path / "keys/node.pub") == 0o600
    assert (tmp_path / "keys/node.key").read_bytes() == first.seed
    assert (tmp_path / "keys/node.pub").read_bytes() == first.public_key


def test_upstreams_files_are_read(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / "node.key", bytes(range(32)))
    identity = KeyStore(tmp_path).load_or_create()
    assert identity.public_key.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"


def test_a_crash_between_the_two_writes_heals(tmp_path: Path) -> None:
    identity = KeyStore(tmp_path).load_or_create()
    (tmp_path / "node.pub").unlink()
    (tmp_path / "node.pub.tmp").write_bytes(b"half")
    assert KeyStore(tmp_path).load_or_create().public_key == identity.public_key
    assert (tmp_path / "node.pub").read_bytes() == identity.public_key
    assert not (tmp_path / "node.pub.tmp").exists()


@pytest.mark.parametrize("size", [0, 16, 31, 33, 1000])
@pytest.mark.parametrize("name", ["node.key", "node.pub"])
def test_a_file_of_the_wrong_size_is_named_and_kept(tmp_path: Path, name: str, size: int) -> None:
    KeyStore(tmp_path).load_or_create()
    files.write_atomic(tmp_path / name, bytes(size))
    with pytest.raises(ConfigError, match=f"{name} must hold 32 bytes"):
        KeyStore(tmp_path).load_or_create()
    assert (tmp_path / name).stat().st_size == size


def test_a_damaged_public_half_costs_no_identity(tmp_path: Path) -> None:
    identity = KeyStore(tmp_path).load_or_create()
    files.write_atomic(tmp_path / "node.pub", b"")
    with pytest.raises(ConfigError, match="Delete it: it is made again") as error:
        KeyStore(tmp_path).load_or_create()
    assert "new identity" not in str(error.value)
    (tmp_path / "node.pub").unlink()
    assert KeyStore(tmp_path).load_or_create().public_key == identity.public_key


def test_a_lost_key_is_not_replaced(tmp_path: Path) -> None:
    KeyStore(tmp_path).load_or_create()
    (tmp_path / "node.key").unlink()
    with pytest.raises(ConfigError, match=r"node\.key is missing"):
        KeyStore(tmp_path).load_or_create()
    assert not (tmp_path / "node.key").exists()


def test_halves_of_two_pairs_are_refused(tmp_path: Path) -> None:
    KeyStore(tmp_path).load_or_create()
    files.write_atomic(tmp_path / "node.pub", KEY)
    with pytest.raises(ConfigError, match="belong together"):
        KeyStore(tmp_path).load_or_create()


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o602])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, bits: int) -> None:
    KeyStore(tmp_path).load_or_create()
    (tmp_path / "node.key").chmod(bits)
    with pytest.raises(ConfigError, match=f"{bits:04o}.*chmod 600"):
        KeyStore(tmp_path).load_or_create()


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"):
        KeyStore(tmp_path / "keys").load_or_create()


def test_a_directory_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/keys"):
        KeyStore(tmp_path / "file" / "keys").load_or_create()


def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        KeyStore(tmp_path).load_or_create()
    assert list(tmp_path.iterdir()) == []


def test_rotation_keeps_every_old_pair(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    olds = []
    for _ in range(3):
        olds.append(store.load_or_create())
        new = store.rotate()
        assert new.public_key != olds[-1].public_key
    backups = {path.read_bytes() for path in (tmp_path / "backups").glob("*/node.key")}
    assert backups == {old.seed for old in olds}
    assert store.load_or_create().public_key == new.public_key


def test_a_key_does_not_show_itself() -> None:
    identity = Identity(bytes(range(32)))
    assert "0001" not in repr(identity) and bytes(range(32)).hex() not in repr(identity)


# --- pins ---------------------------------------------------------------------------------------------------


def test_tofu_and_strict_differ_only_for_strangers(tmp_path: Path) -> None:
    for trust_mode, stranger in (("tofu", PinVerdict.NEW), ("strict", PinVerdict.UNTRUSTED)):
        trust = TrustStore(tmp_path / trust_mode, trust_mode)  # type: ignore[arg-type]
        assert trust.verdict(BOB, KEY) == stranger
        trust.pin(BOB, KEY)
        assert trust.verdict(BOB, KEY) == PinVerdict.ACCEPT
        verdict = trust.verdict(BOB, OTHER)
        assert verdict == PinVerdict.MISMATCH and verdict.pinned == KEY


def test_pins_survive_and_are_private(tmp_path: Path) -> None:
    TrustStore(tmp_path).pin(BOB, KEY)
    assert TrustStore(tmp_path).pins() == {BOB: KEY}
    assert (tmp_path / "trusted/bob@127.0.0.1.pub").read_bytes() == KEY
    assert mode(tmp_path / "trusted/bob@127.0.0.1.pub") == 0o600


def test_a_pin_never_changes_in_silence(tmp_path: Path) -> None:
    trust = TrustStore(tmp_path)
    trust.pin(BOB, KEY)
    trust.pin(BOB, KEY)
    with pytest.raises(AuthError) as caught:
        trust.pin(BOB, OTHER)
    assert caught.value.reason == "key_mismatch" and fingerprint(KEY) in str(caught.value)
    assert TrustStore(tmp_path).pins() == {BOB: KEY}
    assert trust.unpin(BOB) and not trust.unpin(BOB)
    trust.pin(BOB, OTHER)
    assert TrustStore(tmp_path).pins() == {BOB: OTHER}


def test_a_pin_that_was_put_there_by_hand_is_not_written_over(tmp_path: Path) -> None:
    """By an operator while the node ran; or on a file system for which ``Bob@h`` and ``bob@h`` are one file."""
    trust, path = TrustStore(tmp_path), tmp_path / "trusted/bob@127.0.0.1.pub"
    path.write_bytes(KEY)
    with pytest.raises(AuthError, match="holds another key") as caught:
        trust.pin(BOB, OTHER)
    assert caught.value.reason == "key_mismatch" and path.read_bytes() == KEY and trust.pins() == {}
    trust.pin(BOB, KEY)
    assert trust.pins() == {BOB: KEY}


def test_a_damaged_pin_blocks_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Were it skipped, tofu would take the next key for this name: a pin changed in silence."""
    TrustStore(tmp_path).pin(BOB, KEY)
    (tmp_path / "trusted/bob@127.0.0.1.pub").write_bytes(KEY[:10])
    with caplog.at_level(logging.WARNING):
        trust = TrustStore(tmp_path)
    assert "bob@127.0.0.1" in caplog.text and "damaged" in caplog.text
    assert trust.verdict(BOB, OTHER) == PinVerdict.DAMAGED
    with pytest.raises(AuthError):
        trust.pin(BOB, OTHER)
    assert trust.unpin(BOB) and trust.verdict(BOB, OTHER) == PinVerdict.NEW


def test_files_that_are_no_pins_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    TrustStore(tmp_path).pin(BOB, KEY)
    (tmp_path / "trusted/notes.txt").write_text("")
    (tmp_path / "trusted/nobody.pub").write_bytes(KEY)
    with caplog.at_level(logging.WARNING):
        assert TrustStore(tmp_path).pins() == {BOB: KEY}
    assert "nobody.pub" in caplog.text and "notes" not in caplog.text


@pytest.mark.parametrize("name", ["../../etc/x@h", "bob", "a@b/c", ""])
def test_names_are_checked_before_they_become_files(tmp_path: Path, name: str) -> None:
    trust = TrustStore(tmp_path)
    with pytest.raises(ConfigError):
        trust.pin(name, KEY)
    with pytest.raises(ConfigError):
        trust.unpin(name)


@pytest.mark.parametrize("key", [b"short", "SHA256:abc", None])
def test_keys_are_checked(tmp_path: Path, key: object) -> None:
    with pytest.raises(ConfigError, match="32"):
        TrustStore(tmp_path).pin(BOB, key)  # type: ignore[arg-type]


def test_a_name_too_long_for_a_file_is_not_trusted_at_first_sight(tmp_path: Path) -> None:
    long = Atom("x" * 250 + "@h")
    assert TrustStore(tmp_path).verdict(long, KEY) == PinVerdict.UNTRUSTED
    with pytest.raises(ConfigError, match="too long"):
        TrustStore(tmp_path).pin(long, KEY)


def test_a_pin_that_cant_be_written_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = TrustStore(tmp_path)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        trust.pin(BOB, KEY)
    assert trust.pins() == {} and trust.verdict(BOB, OTHER) == PinVerdict.NEW


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tofu"):
        TrustStore(tmp_path, "lax")  # type: ignore[arg-type]


def test_node_keys_show_what_people_ask_for(tmp_path: Path) -> None:
    identity = KeyStore(tmp_path).load_or_create()
    keys = NodeKeys(identity, TrustStore(tmp_path, "strict"))
    keys.pin(BOB, KEY)
    assert keys.public_key == identity.public_key and keys.fingerprint == fingerprint(identity.public_key)
    assert keys.pins == {BOB: KEY} and keys.trust_mode == "strict" and "1 pins" in repr(keys)
    assert keys.unpin(BOB) and keys.pins == {}
