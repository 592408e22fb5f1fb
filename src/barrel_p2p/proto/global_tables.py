"""The two tables of ``global``: who has which name, who holds which lock. After OTP's ``global_names`` and
``global_locks``.

Names and lock ids are any terms. ``str`` and ``bytes`` are one name here, since an Erlang node sees a binary in both.
Each entry has a monitor, so that the death of a process takes its names and locks away without a message.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.crdt.wire import fits
from barrel_p2p.term.maps import TermMap, exact_key
from barrel_p2p.term.types import Atom, ImproperList, Pid

MAX_NAMES: Final = 100_000
"""Names in the table; further ones are refused. A guess, some 60 MB."""
MAX_LOCKS: Final = 10_000
"""Locked resources, and holders of one of them; further ones are refused. A guess."""
MAX_BYTES: Final = 64 << 10
"""Of a name with its resolve function, and of the id of a lock; larger ones are refused. A guess, as for services."""


def key_of(term: Any) -> Hashable:
    """What two terms share exactly when Erlang takes them for one."""
    return exact_key(_binary(term))


def _binary(term: Any) -> Any:
    if isinstance(term, str):
        return term if isinstance(term, Atom) else term.encode("utf-8", "surrogatepass")
    if isinstance(term, tuple):
        return tuple([_binary(item) for item in term])
    if isinstance(term, list):
        return [_binary(item) for item in term]
    if isinstance(term, (dict, TermMap)):
        return TermMap([(_binary(key), _binary(value)) for key, value in term.items()])
    if isinstance(term, ImproperList):
        return ImproperList(_binary(term.elements), _binary(term.tail))
    return term


@dataclass(slots=True)
class Entry:
    """A registered name. ``method`` is the resolve function as it travels; ``registrar`` the node that registered
    the name for a process that is on no Erlang node (``register_name_external``)."""

    name: Any
    pid: Pid
    method: Any
    monitor: int
    registrar: Any = None


class Names:
    """``monitor`` begins to watch a pid and gives the number of the watch, ``demonitor`` ends it."""

    def __init__(self, monitor: Callable[[Pid], int], demonitor: Callable[[int], None]) -> None:
        self._monitor = monitor
        self._demonitor = demonitor
        self.entries: dict[Hashable, Entry] = {}
        self._watched: dict[int, Hashable] = {}
        self._of: dict[Pid, dict[Hashable, None]] = {}

    def find(self, name: Any) -> Entry | None:
        return self.entries.get(key_of(name))

    def names_of(self, pid: Pid) -> list[Any]:
        return [self.entries[key].name for key in self._of.get(pid, ())]

    def insert(self, name: Any, pid: Pid, method: Any, registrar: Any = None) -> bool:
        """Give ``pid`` the name, whoever had it; false when the table is full or the name too large."""
        if not fits((name, method, registrar), MAX_BYTES):
            return False
        key = key_of(name)
        if key not in self.entries and len(self.entries) >= MAX_NAMES:
            return False
        self._delete(key)
        entry = Entry(name, pid, method, self._monitor(pid), registrar)
        self.entries[key] = entry
        self._watched[entry.monitor] = key
        self._of.setdefault(pid, {})[key] = None
        return True

    def delete(self, name: Any) -> None:
        self._delete(key_of(name))

    def _delete(self, key: Hashable) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            if self._watched.pop(entry.monitor, None) is not None:
                self._demonitor(entry.monitor)
            keys = self._of[entry.pid]
            del keys[key]
            if not keys:
                del self._of[entry.pid]

    def died(self, monitor: int) -> Entry | None:
        """The entry that this death took away."""
        key = self._watched.pop(monitor, None)
        if key is None:
            return None
        entry = self.entries[key]
        self._delete(key)
        return entry


@dataclass(slots=True)
class Lock:
    requester: Any
    key: Hashable
    holders: dict[Pid, int]


class Locks:
    """A lock is a resource and a requester; several processes may hold it for the same requester."""

    def __init__(self, monitor: Callable[[Pid], int], demonitor: Callable[[int], None]) -> None:
        self._monitor = monitor
        self._demonitor = demonitor
        self.locks: dict[Hashable, Lock] = {}
        self._watched: dict[int, tuple[Hashable, Pid]] = {}

    def get(self, resource: Any) -> Lock | None:
        return self.locks.get(key_of(resource))

    def can_set(self, resource: Any, requester: Any) -> bool:
        lock = self.locks.get(key_of(resource))
        return lock is None or lock.key == key_of(requester)

    def set(self, resource: Any, requester: Any, pid: Pid) -> bool:
        where = key_of(resource)
        lock = self.locks.get(where)
        if lock is None:
            if len(self.locks) >= MAX_LOCKS or not fits((resource, requester), MAX_BYTES):
                return False
            lock = Lock(requester, key_of(requester), {})
        elif lock.key != key_of(requester):
            return False
        if pid not in lock.holders:
            if len(lock.holders) >= MAX_LOCKS:
                return False
            lock.holders[pid] = monitor = self._monitor(pid)
            self._watched[monitor] = (where, pid)
            self.locks[where] = lock
        return True

    def delete(self, resource: Any, requester: Any, pid: Pid) -> bool:
        """Whether that was the last holder and the lock is gone."""
        where = key_of(resource)
        lock = self.locks.get(where)
        if lock is None or lock.key != key_of(requester) or pid not in lock.holders:
            return False
        monitor = lock.holders[pid]
        del self._watched[monitor]
        self._demonitor(monitor)
        return self._drop(where, lock, pid)

    def died(self, monitor: int) -> Hashable | None:
        """The resource whose lock went with this death."""
        watched = self._watched.pop(monitor, None)
        if watched is None:
            return None
        where, pid = watched
        return where if self._drop(where, self.locks[where], pid) else None

    def _drop(self, where: Hashable, lock: Lock, pid: Pid) -> bool:
        del lock.holders[pid]
        if lock.holders:
            return False
        del self.locks[where]
        return True


__all__ = ["MAX_BYTES", "MAX_LOCKS", "MAX_NAMES", "Entry", "Lock", "Locks", "Names", "key_of"]
