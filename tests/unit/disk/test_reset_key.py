"""The secret that survives restarts, and changes of the key that it once came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from barrel_p2p.disk.reset_key import load_or_create
from barrel_p2p.errors import ConfigError


def test_it_stays_when_the_key_changes(tmp_path: Path) -> None:
    first = load_or_create(tmp_path, b"\x01" * 32)
    assert len(first) == 64
    assert load_or_create(tmp_path, b"\x02" * 32) == first != load_or_create(tmp_path / "other", b"\x02" * 32)
    assert (tmp_path / "reset.key").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_damaged_or_open_to_others_is_an_error(tmp_path: Path) -> None:
    load_or_create(tmp_path, bytes(32))
    path = tmp_path / "reset.key"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create(tmp_path, bytes(32))
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(ConfigError, match="64 bytes"):
        load_or_create(tmp_path, bytes(32))
