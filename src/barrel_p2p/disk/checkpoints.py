"""The thread that carries write-ahead logs over into their files, so that the event loop never waits for a disk.

SQLite would do so inside some write, with an fsync. Here a store asks for it every few megabytes. A writer that never
pauses can keep a log from ever being carried over whole, and it would grow; past ``LOG_BYTES`` the thread makes writers
wait for the rest of it, once, and empties the log.
"""

from __future__ import annotations

import logging
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

log = logging.getLogger("barrel_p2p.disk")

LOG_BYTES: Final = 64 << 20  # a guess


class Checkpoints:
    """One thread for the stores of a node; it starts with the first checkpoint that is asked for."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "barrel_p2p-checkpoints")
        self._under_way: dict[Path, Future[None]] = {}
        self._failed: set[Path] = set()  # told once

    def ask(self, path: Path) -> None:
        """Have the log of a store carried over, soon; one at a time."""
        under_way = self._under_way.get(path)
        if under_way is None or under_way.done():
            self._under_way[path] = self._thread.submit(self._checkpoint, path)

    def drop(self, path: Path) -> None:
        """The store closes: what was asked for is not wanted any more, what has begun is waited for."""
        under_way = self._under_way.pop(path, None)
        if under_way is not None and not under_way.cancel():
            under_way.result()

    def stop(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _checkpoint(self, path: Path) -> None:
        try:
            connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
            try:
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if Path(f"{path}-wal").stat().st_size > LOG_BYTES:
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            if path not in self._failed:
                self._failed.add(path)
                log.error("%s: its log could not be carried over, and grows: %s", path, error)
        else:
            self._failed.discard(path)


__all__ = ["LOG_BYTES", "Checkpoints"]
