"""The registrar of ``global``: changes names on all known nodes under the global lock, one change after the other.

The lock is taken on the boss first, then on all known nodes; if a node became known meanwhile, all is given back and
tried again after a random while. The changes that wait by then are made under the same lock (OTP takes it anew for
each).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.proto.global_core import GLOBAL, REGISTER, UNREGISTER, WITHDRAW, Core, boss_of
from barrel_p2p.proto.global_events import Done
from barrel_p2p.proto.global_locker import lock_nodes
from barrel_p2p.proto.global_strands import Calls, Receive, Waiting
from barrel_p2p.term.types import Atom, Pid

BATCH: Final = 64
"""Changes under one lock; a guess, so that other nodes get a turn."""
WHEREIS_NAME: Final = Atom("whereis_name")


@dataclass(frozen=True, slots=True)
class Change:
    """``pid`` shall have the name, or nobody (None). ``op`` is the user's operation.

    With ``publish`` no user asks: others have given our process ``pid`` the name, or taken it, and not all neighbours
    know (``Core.owner_told``).
    """

    op: int
    name: Any
    pid: Pid | None
    method: Any = None
    anew: bool = False
    publish: bool = False


class Registrar:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: deque[Change] = deque()
        self._strand = core.strands.start(self._run())
        core.owner_told = lambda name, pid: self.ask(Change(0, name, pid, publish=True))

    def ask(self, change: Change) -> None:
        self._waiting.append(change)
        self._core.strands.send(self._strand, None)

    def abandon(self, op: int) -> None:
        for change in self._waiting:
            if change.op == op:
                self._waiting.remove(change)
                return

    def _run(self) -> Generator[Waiting, Any, None]:
        core = self._core
        lock = (GLOBAL, core.pid)
        while True:
            yield Receive()
            tries = 0
            while self._waiting:
                nodes = yield from self._lock_known(lock)
                if nodes is None:
                    yield Receive(_nothing, self._pause(tries))
                    tries += 1
                    continue
                for _ in range(min(BATCH, len(self._waiting))):
                    change = self._waiting.popleft()
                    if change.publish:
                        yield from self._publish(change, nodes)
                    else:
                        core.emit(Done(change.op, (yield from self._make(change, nodes))))
                core.release(lock, nodes)
                tries = 0

    def _pause(self, tries: int) -> float:
        """Random, up to a quarter of a second at first, twice as much each time, 8 s in the end (OTP's values)."""
        return self._core.rng.random() * (8.0 if tries > 5 else (1 << tries) / 8)

    def _lock_known(self, lock: tuple[Any, Any]) -> Generator[Waiting, Any, list[Atom] | None]:
        core = self._core
        known = list(core.known)
        nodes = [core.me, *known]
        boss = [boss_of(nodes)]
        if not (yield from lock_nodes(core, lock, boss)):
            return None
        if not (yield from lock_nodes(core, lock, nodes)):
            core.release(lock, boss)
            return None
        if any(node not in known for node in core.known):
            core.release(lock, nodes)
            return None
        return nodes

    def _make(self, change: Change, nodes: list[Atom]) -> Generator[Waiting, Any, bool]:
        core = self._core
        if change.pid is None:
            if core.where(change.name) is not None:
                yield Calls(nodes, (UNREGISTER, change.name))
            return True
        if not change.anew:
            if core.where(change.name) is not None or core.names.names_of(change.pid):
                return False
            if not core.mesh and (yield from self._taken_elsewhere(change, nodes)):
                return False
        replies = yield Calls(nodes, (REGISTER, change.name, change.pid, change.method))
        return replies.get(core.me) is True

    def _publish(self, change: Change, nodes: list[Atom]) -> Generator[Waiting, Any, None]:
        core, name, pid = self._core, change.name, change.pid
        others = [node for node in nodes if node != core.me]
        entry = core.names.find(name)
        if entry is not None and entry.pid == pid:
            yield Calls(others, (REGISTER, name, pid, entry.method))
        else:
            yield Calls(others, (WITHDRAW, name, pid))

    def _taken_elsewhere(self, change: Change, nodes: list[Atom]) -> Generator[Waiting, Any, bool]:
        """Without a full mesh a neighbour may know a holder whom we can't see; all neighbours are of our kind."""
        others = [node for node in nodes if node != self._core.me]
        replies = yield Calls(others, (WHEREIS_NAME, change.name))
        return any(isinstance(reply, Pid) and reply != change.pid for reply in replies.values())


def _nothing(_message: Any) -> bool:
    return False


__all__ = ["WHEREIS_NAME", "Change", "Registrar"]
