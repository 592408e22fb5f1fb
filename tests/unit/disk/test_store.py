"""The store: what was written is there again, whatever happened to the process, the disk or the file."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from barrel_p2p.disk import checkpoints as checkpoints_module
from barrel_p2p.disk import store as store_module
from barrel_p2p.disk.checkpoints import Checkpoints
from barrel_p2p.disk.store import CHECKPOINT_BYTES, Store, delete_files
from barrel_p2p.errors import ConfigError, StoreError


@pytest.fixture
def checkpoints() -> Iterator[Checkpoints]:
    made = Checkpoints()
    yield made
    made.stop()


def test_rows_notes_and_deletions_are_there_again(tmp_path: Path, checkpoints: Checkpoints) -> None:
    path = tmp_path / "maps" / "m.db"
    store = Store.open(path, checkpoints)
    store.write([(b"a", b"1"), (b"b", b"2")], notes=[("n", b"note"), ("m", b"other")])
    store.write([(b"a", b"3")])
    store.write([(b"c", b"4")], delete=[b"b", b"nowhere"], notes=[("m", None)])
    store.close()
    again = Store.open(path, checkpoints)
    assert sorted(again.rows()) == [b"3", b"4"] and again.damaged == 0
    assert again.note("n") == b"note" and again.note("m") is None and again.trustworthy
    again.close()
    assert sorted(os.listdir(path.parent)) == ["m.db"], "an orderly close leaves one file"
    assert delete_files(path) and not delete_files(path) and os.listdir(path.parent) == []


def test_nobody_else_reads_the_files(tmp_path: Path, checkpoints: Checkpoints) -> None:
    before = os.umask(0)
    try:
        store = Store.open(tmp_path / "maps" / "m.db", checkpoints)
        store.write([(b"a", b"1")])
        modes = {
            name: stat.S_IMODE((tmp_path / "maps" / name).stat().st_mode) for name in os.listdir(tmp_path / "maps")
        }
        assert modes == {"m.db": 0o600, "m.db-wal": 0o600, "m.db-shm": 0o600}
        store.close()
    finally:
        os.umask(before)


def write_and_die(path: Path) -> None:
    store = Store.open(path, Checkpoints())
    for number in range(1000):
        store.write([(b"%d" % (number % 10), b"%d" % number)])
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_written_survives_sigkill(tmp_path: Path, checkpoints: Checkpoints) -> None:
    child = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(tmp_path / "m.db",))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    store = Store.open(tmp_path / "m.db", checkpoints)
    assert sorted(store.rows()) == [b"%d" % number for number in range(990, 1000)]
    assert store.trustworthy, "the machine ran on, so its page cache has it all"
    store.close()


def test_after_another_boot_the_last_writes_may_be_missing(
    tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.db"
    killed = Store.open(path, checkpoints)  # never closed
    killed.write([(b"a", b"1")])
    monkeypatch.setattr(store_module, "_boot", lambda: b"another")
    store = Store.open(path, checkpoints)
    assert not store.trustworthy and list(store.rows()) == [b"1"]
    store.close()
    monkeypatch.setattr(store_module, "_boot", lambda: b"a third")
    store = Store.open(path, checkpoints)
    assert store.trustworthy, "it was closed in order"
    store.close()
    monkeypatch.setattr(store_module, "_boot", lambda: b"")
    killed = Store.open(path, checkpoints)
    store = Store.open(path, checkpoints)
    assert not store.trustworthy, "a system that doesn't say is not believed"
    store.close()


def test_a_file_that_is_no_database_is_set_aside(
    tmp_path: Path, checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(b"this was never a database" * 500)
    store = Store.open(path, checkpoints)
    assert list(store.rows()) == []
    store.write([(b"a", b"1")])
    store.close()
    aside = [name for name in os.listdir(tmp_path) if name.startswith("m.db.corrupt-")]
    assert len(aside) == 1 and (tmp_path / aside[0]).read_bytes().startswith(b"this was never")
    assert any("is damaged" in record.message and aside[0] in record.message for record in caplog.records)


def test_a_changed_byte_costs_one_row(tmp_path: Path, checkpoints: Checkpoints) -> None:
    path = tmp_path / "m.db"
    store = Store.open(path, checkpoints)
    store.write([(b"%d" % number, b"data of row %04d" % number) for number in range(2000)])
    store.close()
    data = bytearray(path.read_bytes())
    at = data.index(b"data of row 1234")
    data[at + 3] ^= 1
    path.write_bytes(data)
    store = Store.open(path, checkpoints)
    assert len(list(store.rows())) == 1999 and store.damaged == 1
    store.close()


def test_pages_full_of_zeros_are_told(tmp_path: Path, checkpoints: Checkpoints) -> None:
    path = tmp_path / "m.db"
    store = Store.open(path, checkpoints)
    store.write([(b"%05d" % number, b"x" * 200) for number in range(2000)])
    store.close()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = bytes(8192)
    path.write_bytes(data)
    store = Store.open(path, checkpoints)
    with pytest.raises(StoreError) as told:
        list(store.rows())
    assert told.value.corrupt
    store.close()


def test_a_newer_format_is_left_alone(tmp_path: Path, checkpoints: Checkpoints) -> None:
    path = tmp_path / "m.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer version"):
        Store.open(path, checkpoints)
    assert path.read_bytes() == before


def test_an_unusable_place_is_told(tmp_path: Path, checkpoints: Checkpoints) -> None:
    (tmp_path / "m.db").mkdir()
    with pytest.raises(ConfigError, match=r"m\.db"):
        Store.open(tmp_path / "m.db", checkpoints)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        Store.open(tmp_path / "file" / "m.db", checkpoints)


def test_a_store_that_can_not_be_opened_says_what_to_do(tmp_path: Path, checkpoints: Checkpoints) -> None:
    Store.open(tmp_path / "m.db", checkpoints).close()
    held = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    held.execute("PRAGMA locking_mode = EXCLUSIVE")
    held.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConfigError, match="another program holds it"):
        Store.open(tmp_path / "m.db", checkpoints)
    held.close()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)  # the next number: one file can be opened, and its log can't
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
    os.close(spare)
    try:
        with pytest.raises(ConfigError, match="raise its limit"):
            Store.open(tmp_path / "m.db", checkpoints)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_full_disk_refuses_and_keeps_the_rest(tmp_path: Path, checkpoints: Checkpoints) -> None:
    store = Store.open(tmp_path / "m.db", checkpoints)
    store.write([(b"a", b"1")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # every file of this process, so the log as well
    try:
        with pytest.raises(StoreError, match="could not write"):
            store.write([(b"big", b"x" * 200_000)])
        with pytest.raises(StoreError):
            store.write([(b"a", b"2"), (b"big", b"x" * 200_000)], delete=[b"a"], notes=[("n", b"1")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(store.rows()) == [b"1"] and store.note("n") is None
    store.write([(b"a", b"3")])
    store.close()
    again = Store.open(tmp_path / "m.db", checkpoints)
    assert list(again.rows()) == [b"3"]
    again.close()


def test_the_log_is_carried_over_by_a_thread_and_stays_bounded(
    tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints_module, "LOG_BYTES", 2 * CHECKPOINT_BYTES)
    threads: set[int] = set()
    carried = threading.Event()
    checkpoint = checkpoints._checkpoint

    def watch(path: Path) -> None:
        threads.add(threading.get_ident())
        checkpoint(path)
        carried.set()

    monkeypatch.setattr(checkpoints, "_checkpoint", watch)
    path = tmp_path / "m.db"
    store = Store.open(path, checkpoints)
    log = Path(f"{path}-wal")
    largest = 0
    for number in range(12_000):
        store.write([(b"%d" % (number % 100), b"x" * 8000)])
        if not number % 100:
            largest = max(largest, log.stat().st_size)
    assert carried.wait(10)
    assert threads and threading.get_ident() not in threads
    assert largest < 60 << 20, "96 MB were written"
    assert path.stat().st_size < 4 << 20, "a row that is written again takes its own place"
    store.close()


def test_a_checkpoint_that_fails_is_told_once(
    tmp_path: Path, checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        checkpoints.ask(tmp_path / "nowhere" / "m.db")
        checkpoints._under_way[tmp_path / "nowhere" / "m.db"].result(10)
    assert len([record for record in caplog.records if "could not be carried over" in record.message]) == 1
