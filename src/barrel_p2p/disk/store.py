"""Rows of bytes in one SQLite file, written as they change: what a service keeps across restarts.

A write that returned survives the death of the OS process, however that comes: it stands in the write-ahead log, in the
page cache of the operating system (``synchronous=NORMAL``; no write waits for the disk). A power cut can take the last
moments with it, but leaves a whole earlier state. ``trustworthy`` tells at the next start whether that may have
happened: it needs either an orderly close or the very boot of the machine that wrote last.

The log is carried over into the file (a checkpoint) by a thread, see ``Checkpoints``; a thread that works on a file has
a connection of its own. Each row carries a checksum, for SQLite has none. A file that can't be read is set aside.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from zlib import crc32

from barrel_p2p.disk.checkpoints import Checkpoints
from barrel_p2p.disk.files import PRIVATE_FILE, make_directory, remedy, unusable
from barrel_p2p.errors import ConfigError, StoreError

log = logging.getLogger("barrel_p2p.disk")

VERSION: Final = 1  # of the format, SQLite's user_version
BUSY_MS: Final = 1000  # a reader of the user's, such as a backup, may hold a lock for so long
CHECKPOINT_BYTES: Final = 4 << 20  # written since the last one; SQLite's own default is 4 MB, too

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS rows (id BLOB PRIMARY KEY, data BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
"""
_UPSERT: Final = (
    "INSERT INTO rows VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data, sum = excluded.sum"
)
_NOTE: Final = "INSERT INTO notes VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET data = excluded.data"

Rows = Iterable[tuple[bytes, bytes]]
Notes = Sequence[tuple[str, bytes | None]]


class Store:
    """One file::

        store = Store.open(path, checkpoints)
        store.write([(b"id", b"data")])
        store.rows()
        store.close()

    Not for use by several threads.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, checkpoints: Checkpoints) -> None:
        self.path = path
        self.damaged = 0  # rows with a wrong checksum that ``rows`` met
        self._connection = connection
        self._checkpoints = checkpoints
        self._unsaved = 0  # bytes written since the last checkpoint
        clean, boot = self.note("clean"), self.note("boot")
        self.trustworthy = clean is None or clean == b"1" or (boot == _boot() != b"")
        """Nothing that was written can have been lost."""
        self._mark_open()

    @classmethod
    def open(cls, path: Path, checkpoints: Checkpoints) -> Store:
        """Open or create a file. One that is no database any more is renamed to ``<name>.corrupt-<time>``.

        Raises:
            ConfigError: the file can't be read or written, or a newer version of the library made it.
        """
        make_directory(path.parent)
        try:
            return cls._open(path, checkpoints)
        except sqlite3.DatabaseError as error:
            if not _corrupt(error):
                raise ConfigError(f"could not open {path}: {error}; {_remedy(error)}") from None
            set_aside(path, error)
        try:
            return cls._open(path, checkpoints)
        except sqlite3.Error as error:
            raise ConfigError(f"could not open {path}: {error}; {_remedy(error)}") from None

    @classmethod
    def _open(cls, path: Path, checkpoints: Checkpoints) -> Store:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))  # its log gets the same mode
        except OSError as error:
            raise unusable(path, "open", error) from None
        connection = connect(path)
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise ConfigError(f"{path} was made by a newer version of barrel_p2p (format {version})")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                log.warning("%s: this file system allows no write-ahead log; each write waits for the disk", path)
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            return cls(path, connection, checkpoints)
        except BaseException:
            connection.close()
            raise

    # --- rows ---------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[bytes]:
        """The data of every row that is whole.

        Raises:
            StoreError: the file is damaged; what came before the error is right.
        """
        try:
            for data, checksum in self._connection.execute("SELECT data, sum FROM rows"):
                if crc32(data) == checksum:
                    yield data
                else:
                    self.damaged += 1
        except sqlite3.Error as error:
            raise self._failed("read", error) from None

    def write(self, rows: Rows, *, delete: Collection[bytes] = (), notes: Notes = ()) -> None:
        """Write rows, delete others and set notes (None deletes one): all of it, or nothing with an error.

        Raises:
            StoreError: nothing was written: the disk is full, say.
        """
        listed = [(row, data, crc32(data)) for row, data in rows]
        connection = self._connection
        try:
            if len(listed) == 1 and not delete and not notes:
                connection.execute(_UPSERT, listed[0])
            else:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(_UPSERT, listed)
                connection.executemany("DELETE FROM rows WHERE id = ?", [(row,) for row in delete])
                for name, note in notes:
                    if note is None:
                        connection.execute("DELETE FROM notes WHERE name = ?", (name,))
                    else:
                        connection.execute(_NOTE, (name, note))
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise self._failed("write", error) from None
        self._unsaved += 4096 * (1 + len(listed)) + sum(len(data) for _, data, _ in listed)
        if self._unsaved >= CHECKPOINT_BYTES:
            self._unsaved = 0
            self._checkpoints.ask(self.path)

    def note(self, name: str) -> bytes | None:
        """What ``write`` set under a name."""
        found = self._connection.execute("SELECT data FROM notes WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def _failed(self, attempt: str, error: sqlite3.Error) -> StoreError:
        return StoreError(f"could not {attempt} {self.path}: {error}", corrupt=_corrupt(error))

    # --- life ---------------------------------------------------------------------------------------------------------

    def _mark_open(self) -> None:
        """From here on a power cut can cost something; this mark itself must outlive one."""
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_NOTE, [("clean", b"0"), ("boot", _boot())])
        self._connection.execute("COMMIT")
        self._connection.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        """Write everything to the disk itself and close the file.

        Raises:
            StoreError: that failed; the file is closed all the same.
        """
        self._checkpoints.drop(self.path)
        try:
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_NOTE, ("clean", b"1"))
        except sqlite3.Error as error:
            raise self._failed("close", error) from None
        finally:
            self._connection.close()  # the last connection carries the log over and deletes it


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode."""
    return sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None)


def set_aside(path: Path, error: Exception) -> Path:
    """Rename a damaged file and its log, for whoever wants to look into it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{number}")
    os.rename(path, aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    log.error("%s is damaged (%s): it is now %s, and a new one is begun", path, error, aside.name)
    return aside


def delete_files(path: Path) -> bool:
    """Delete a store that is not open; False if there was none."""
    existed = path.exists()
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")
    return existed


def _remedy(error: sqlite3.Error) -> str:
    match (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return remedy(errno.ENOSPC)
        case sqlite3.SQLITE_READONLY:
            return remedy(errno.EROFS)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another program holds it: end that"
        case sqlite3.SQLITE_CANTOPEN:
            return f"fix the rights of its directory; or else {remedy(errno.EMFILE)}"
    return remedy(None)


def _corrupt(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _boot() -> bytes:
    """What tells one boot of this machine from another; empty where the system doesn't say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return b""


__all__ = ["Notes", "Rows", "Store", "delete_files", "set_aside"]
