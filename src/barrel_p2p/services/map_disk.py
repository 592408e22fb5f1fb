"""The copy of a replicated map on disk: one row per key, live or removed, and what the map has seen of each writer.

A write of the user's stands on disk before it is applied in memory or told to anybody (``save``). What other nodes
wrote is written as it is merged; if the disk refuses that, the map goes on in memory, and the rows are tried again
until they fit. Nothing is lost by it: other nodes have them.

What the map has seen (its *testimony*) keeps removed values from coming back, see ``crdt.seen``; but it is worth
something only if the rows are all there. So it is written after the rows it speaks of, and thrown away when one of them
may be missing: after a power cut, with a damaged row, or when a row could not be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from barrel_p2p.crdt.entry import Entry
from barrel_p2p.crdt.keys import canonical, term_key, term_map
from barrel_p2p.crdt.wire import delta_term
from barrel_p2p.disk.checkpoints import Checkpoints
from barrel_p2p.disk.store import Notes, Rows, Store, set_aside
from barrel_p2p.errors import DecodeError, StoreError
from barrel_p2p.node.replication import wall_ms
from barrel_p2p.proto.map_state import MapState
from barrel_p2p.term.codec import Codec

log = logging.getLogger("barrel_p2p.maps")

TESTIMONY: Final = "testimony"
TICK_S: Final = 30.0  # between two testimonies, and two attempts at what could not be written; a guess


class KeptMap:
    """The copy of ``state`` in the file ``path``; ``load`` first.

    Raises:
        ConfigError: the file can't be read or written.
    """

    def __init__(self, path: Path, state: MapState, codec: Codec, checkpoints: Checkpoints) -> None:
        self._state = state
        self._codec = codec
        self._checkpoints = checkpoints
        self._store = Store.open(path, checkpoints)
        self._unwritten: dict[bytes, Any] = {}  # keys by row, of what the disk refused
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    # --- opening ------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Take what is on disk into the state; a damaged file is set aside, and what could be read is kept."""
        store, now = self._store, wall_ms()
        trustworthy = store.trustworthy
        testimony = store.note(TESTIMONY)
        undecodable = 0

        def deltas() -> Iterator[Any]:
            nonlocal undecodable
            for data in store.rows():
                try:
                    yield self._codec.decode(data)
                except DecodeError:
                    undecodable += 1

        refused: Mapping[str, int] = {}
        try:
            refused = self._state.restore(deltas(), None, now)
        except StoreError as error:
            self._begin_anew(error)
            trustworthy = False
        lost = store.damaged + undecodable + sum(refused.values())
        if lost:
            log.error("%s: %d rows are damaged, the map gets them back from other nodes", store.path, lost)
        if not trustworthy:
            log.warning("%s: the last writes may be missing, the map gets them back from other nodes", store.path)
        elif testimony is not None and not lost:
            try:
                self._state.restore((), self._codec.decode(testimony), now)
            except DecodeError as error:
                log.error("%s: what the map has seen is damaged: %s", store.path, error)
        self._tick()

    def _begin_anew(self, error: StoreError) -> None:
        """Set the damaged file aside and write what is in memory to a new one."""
        path = self._store.path
        with contextlib.suppress(StoreError):
            self._store.close()
        set_aside(path, error)
        self._store = Store.open(path, self._checkpoints)
        self._unwritten.clear()
        self._store.write([self._row(entry) for entry in self._state.map.entries()])

    def _write(self, rows: Rows, *, delete: Collection[bytes] = (), notes: Notes = ()) -> None:
        """``Store.write``; a file that turns out to be damaged is written anew."""
        try:
            self._store.write(rows, delete=delete, notes=notes)
        except StoreError as error:
            if not error.corrupt:
                raise
            self._begin_anew(error)
            self._store.write(rows, delete=delete, notes=notes)

    # --- writing ------------------------------------------------------------------------------------------------------

    def save(self, entry: Entry) -> None:
        """Write an entry that is not in the map yet.

        Raises:
            StoreError: it isn't written.
        """
        row = self._row(entry)
        self._write([row])
        self._unwritten.pop(row[0], None)

    def merged(self, delta: Any) -> None:
        """Write what was merged."""
        keys = {canonical(term_key(key)): key for key in delta}
        rows = [(row, self._codec.encode(term_map([(key, delta[key])]))) for row, key in keys.items()]
        try:
            self._write(rows)
        except StoreError as error:
            self._put_off(keys, error)

    def forget(self, keys: Sequence[Any]) -> None:
        """Delete what is gone from the map for good."""
        rows = {canonical(term_key(key)): key for key in keys}
        try:
            self._write((), delete=rows, notes=[(TESTIMONY, self._testimony())])
        except StoreError as error:
            self._put_off(rows, error)

    def _put_off(self, keys: Mapping[bytes, Any], error: StoreError) -> None:
        if not self._unwritten:
            log.error("%s; the map goes on in memory, and this is tried again", error)
        self._unwritten.update(keys)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        self._catch_up()

    def _catch_up(self) -> None:
        """Write what could not be written before, and what the map has seen."""
        if not self._unwritten:
            self._note_testimony()
            return
        rows, gone = [], []
        for row, key in self._unwritten.items():
            entry = self._state.map.entry(key)
            if entry is None:
                gone.append(row)
            else:
                rows.append(self._row(entry))
        try:
            self._write(rows, delete=gone)
        except StoreError as error:
            log.debug("still %d entries unwritten: %s", len(self._unwritten), error)
            return
        log.info("%s: %d entries that had to wait are written", self._store.path, len(self._unwritten))
        self._unwritten.clear()
        self._note_testimony()

    def _note_testimony(self) -> None:
        try:
            self._write((), notes=[(TESTIMONY, self._testimony())])
        except StoreError as error:
            log.debug("what the map has seen could not be written: %s", error)

    def _testimony(self) -> bytes | None:
        return None if self._unwritten else self._codec.encode(self._state.testimony(wall_ms()))

    def _row(self, entry: Entry) -> tuple[bytes, bytes]:
        return canonical(entry.index), self._codec.encode(delta_term([entry]))

    def close(self) -> None:
        """Write the rest and close the file."""
        if self._timer is not None:
            self._timer.cancel()
        self._catch_up()
        if self._unwritten:
            log.error("%s: %d entries could not be written", self._store.path, len(self._unwritten))
        try:
            self._store.close()
        except StoreError as error:
            if not error.corrupt:
                log.error("%s", error)
                return
            self._begin_anew(error)
            self._store.close()


__all__ = ["KeptMap"]
