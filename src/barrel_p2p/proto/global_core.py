"""What the parts of ``global`` share: the tables, the nodes, and ways to reach them.

A node is *connected* (it takes part and there is a channel), *pending* (its session is under way), *known* (in sync, or
said to be by one that is) or *removing* (we left it so that partitions don't overlap). ``mesh`` says that all nodes
connect to all, as OTP's do; without it a node knows the nodes it is connected to and no others.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p.proto.global_events import Call, Cast, Demonitor, ForgetCall, Log, Monitor, Order, Tell
from barrel_p2p.proto.global_strands import Strands
from barrel_p2p.proto.global_tables import MAX_BYTES, MAX_NAMES, Locks, Names
from barrel_p2p.term.types import Atom, Pid

VERSION: Final = 8
"""What OTP 25.2 to 28 speak. 7 brought the versions in lists of known nodes, 8 the check of a session's tags."""
LISTS_VERSIONS: Final = 7
CHECKS_TAGS: Final = 8
GLOBAL: Final = Atom("global")
MAX_KNOWN: Final = 1024
"""Nodes that are known; a message that names more is cut. A guess: a full mesh ends far below."""

SET_LOCK: Final = Atom("set_lock")
DEL_LOCK: Final = Atom("del_lock")
REGISTER: Final = Atom("register")
UNREGISTER: Final = Atom("unregister")
WITHDRAW: Final = Atom("withdraw")
"""Between nodes of this library without a mesh: a process no longer has a name."""
INSERT: Final = Atom("insert")
DELETE: Final = Atom("delete")

LockId = tuple[Any, Any]


class Core:
    """``owner_told(name, pid)`` is called when somebody else gave or took a name of ``pid``, a process of this node."""

    def __init__(self, me: Atom, pid: Pid, *, mesh: bool, rng: random.Random) -> None:
        self.me: Final = me
        self.pid: Final = pid
        self.mesh: Final = mesh
        self.rng: Final = rng
        self.now = 0.0
        self.out: list[Order] = []
        self.connected: dict[Atom, bool] = {}  # whether it is a node of this library
        self.known: dict[Atom, int] = {}  # with its version, 0 if unknown
        self.pending: dict[Atom, int] = {}
        self.removing: dict[Atom, None] = {}
        self.names = Names(self._monitor, self._demonitor)
        self.locks = Locks(self._monitor, self._demonitor)
        self.lock_down = False  # the holder of the global lock died, so what it ordered must not be done any more
        self.strands = Strands(me, self.emit, self._local)
        self.owner_told: Callable[[Any, Pid], None] = lambda name, pid: None
        self._numbers = 0
        self._told_full = False

    # --- orders -----------------------------------------------------------------------------------------------------

    def emit(self, order: Order) -> None:
        self.out.append(order)

    def cast(self, node: Atom, message: Any) -> None:
        self.emit(Cast(node, message))

    def tell(self, node: Atom, message: Any) -> None:
        self.emit(Tell(node, message))

    def log(self, level: str, text: str) -> None:
        self.emit(Log(level, text))

    def number(self) -> int:
        """A new number, greater than all before."""
        self._numbers += 1
        return self._numbers

    def _monitor(self, pid: Pid) -> int:
        number = self.number()
        self.emit(Monitor(number, pid))
        return number

    def _demonitor(self, number: int) -> None:
        self.emit(Demonitor(number))

    # --- nodes ------------------------------------------------------------------------------------------------------

    @property
    def boss(self) -> Atom:
        """The node whose lock is taken first, so that those who compete meet there. All nodes choose alike."""
        return boss_of([self.me, *self.known])

    def version_of(self, node: Atom) -> int:
        if node == self.me:
            return VERSION
        return self.known.get(node, self.pending.get(node, 0))

    def known_list(self, version: int) -> list[Any]:
        """The known nodes in the form that a peer of that version reads."""
        return list(self.known) if version < LISTS_VERSIONS else list(self.known.items())

    def reachable(self, node: Atom) -> bool:
        """Whether names of processes on ``node`` may stand in the table: elsewhere their deaths would not be heard."""
        return self.mesh or node == self.me or node in self.connected

    # --- locks ------------------------------------------------------------------------------------------------------

    def set_lock(self, lock: LockId, pid: Pid) -> bool:
        return self.locks.set(*lock, pid)

    def del_lock(self, lock: LockId, pid: Pid) -> None:
        if self.locks.delete(*lock, pid) and lock[0] == GLOBAL:
            self.lock_down = False

    def release(self, lock: LockId, nodes: list[Atom]) -> None:
        """Give a lock back on nodes, on the boss last. Nobody waits for the answers: messages keep their order."""
        boss = boss_of(nodes)
        for node in [*(n for n in nodes if n != boss), boss]:
            if node == self.me:
                self.del_lock(lock, self.pid)
            elif node in self.connected or (self.mesh and node in self.known):
                call = -self.number()
                self.emit(Call(call, node, (DEL_LOCK, lock)))
                self.emit(ForgetCall(call))

    def _local(self, request: Any) -> Any:
        """A call of a strand to this node's own server."""
        kind = request[0]
        if kind == SET_LOCK:
            return self.set_lock(request[1], self.pid)
        if kind == REGISTER:
            return self.insert(request[1], request[2], request[3], self.pid)
        if kind == UNREGISTER:
            self.delete(request[1], self.pid)
        return None

    # --- names ------------------------------------------------------------------------------------------------------

    def where(self, name: Any) -> Pid | None:
        entry = self.names.find(name)
        return None if entry is None else entry.pid

    def insert(self, name: Any, pid: Pid, method: Any, source: Pid | LockId | None, registrar: Any = None) -> bool:
        """Give ``pid`` a name on the order of ``source``, who has to hold the global lock: the process that registers,
        or the lock of the session that brought the name. False when it could not be done."""
        before = self.where(name)
        if not self._lock_still_set(source) or not self.reachable(pid.node):
            self.names.delete(name)
            self._tell_owner(name, before, None, source)
            return False
        if not self.names.insert(name, pid, method, registrar):
            if not self._told_full:
                self._told_full = True
                text = f"it has {len(self.names.entries)} names, {MAX_NAMES} are allowed, each of {MAX_BYTES} bytes"
                self.log("error", f"global refuses a name, and says so once: {text}")
            return False
        self._tell_owner(name, before, pid, source)
        return True

    def delete(self, name: Any, source: Pid | LockId | None) -> None:
        before = self.where(name)
        self.names.delete(name)
        self._tell_owner(name, before, None, source)

    def _tell_owner(self, name: Any, before: Pid | None, after: Pid | None, source: Pid | LockId | None) -> None:
        """Without a mesh nobody knows all neighbours of another node: when others give or take a name of a process of
        ours, we pass that on, and the node of a process that loses its name here is told, if it did not do that."""
        if self.mesh or before == after:
            return
        by = source.node if isinstance(source, Pid) else None
        for pid in (before, after):
            if pid is not None and pid.node == self.me and by != self.me:
                self.owner_told(name, pid)
        if before is not None and before.node in self.connected and before.node != by:
            self.cast(before.node, (WITHDRAW, name, before))

    def withdraw(self, name: Any, pid: Any, source: Pid | None) -> None:
        """A process no longer has a name."""
        if self.where(name) == pid:
            self.delete(name, source)

    def _lock_still_set(self, source: Pid | LockId | None) -> bool:
        """A name that arrives after its sender, who held the lock, has died was registered nowhere else."""
        lock = self.locks.get(GLOBAL)
        if lock is None:
            return not self.lock_down
        if isinstance(source, Pid):
            return source in lock.holders
        return source is not None and bool(lock.requester == source[1])


def boss_of(nodes: list[Atom]) -> Atom:
    return max(nodes)


def pid_order(pid: Pid) -> tuple[int, int, str, int]:
    """Erlang's order of pids."""
    return (pid.serial, pid.id, pid.node, pid.creation)
