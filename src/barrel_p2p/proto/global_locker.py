"""The locker of ``global``: takes the lock of our partition, together with the locker of a node that connects.

One strand for all peers, so that a node takes part in one session at a time. Two lockers agree like this:

1. One of them picks the other (at random, among those that wait) and locks: the boss of its partition first, then
   both nodes, then the rest of its own partition. The lock's id is made of both lockers, so the other can take the
   same locks.
2. It sends ``lock_set true``. The other locks its own partition by the same id and answers ``lock_set`` with the
   outcome; on ``false`` the first gives everything back and tries again later.
3. Both hold the lock until ``cancel``: the session is done, or its node is gone. ``cancel`` may bring something to do
   while the lock is still held (the message ``new_nodes``).

Since each side locks a node of the other partition, no two partitions can wait for each other in a ring. OTP relies on
that alone; here an answer that does not come in ``AGREE_SECONDS`` counts as ``false``, for a peer may be stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.proto.global_core import CHECKS_TAGS, GLOBAL, SET_LOCK, Core, LockId, pid_order
from barrel_p2p.proto.global_strands import TIMEOUT, Calls, Receive, Waiting
from barrel_p2p.term.types import Atom, Pid

AGREE_SECONDS: Final = 30.0
"""A guess: the peer's own locks take at most three calls of ``CALL_SECONDS``."""
LOCK_SET: Final = Atom("lock_set")


@dataclass(frozen=True, slots=True)
class Him:
    """A peer's locker, and the tags of the session with it."""

    node: Atom
    pid: Pid
    version: int
    my_tag: int
    his_tag: Any


@dataclass(frozen=True, slots=True)
class LockSet:
    """The peer's locker says whether it has the lock. ``tag`` is ours, or None from a peer without tags."""

    pid: Pid
    is_set: bool
    tag: int | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """The session is over; ``first`` is to be done while the lock is still held."""

    node: Atom
    tag: int
    first: Callable[[], None] | None = None


class Locker:
    """``lock_is_set(node, tag, lock)`` is called when both lockers have the lock."""

    def __init__(self, core: Core, lock_is_set: Callable[[Atom, int, LockId], None]) -> None:
        self._core = core
        self._lock_is_set = lock_is_set
        self._others: list[Him] = []
        self._just_synced = False
        self._strand = core.strands.start(self._run())

    def send(self, message: Him | LockSet | Cancel) -> None:
        self._core.strands.send(self._strand, message)

    def _run(self) -> Generator[Waiting, Any, None]:
        while True:
            message = yield Receive(seconds=self._patience())
            self._just_synced = False
            if message is TIMEOUT:
                if self._core.locks.get(GLOBAL) is None:
                    yield from self._select()
            elif isinstance(message, Him):
                self._others.append(message)
            elif isinstance(message, Cancel):
                self._cancel(message)
            elif message.is_set:
                yield from self._invited(message)

    def _patience(self) -> float | None:
        """Never zero but after a success, so that somebody else gets a chance at the lock that we failed to take."""
        if not self._others:
            return None
        if self._just_synced:
            return 0.0
        known = len(self._core.known)
        return min(1.0 + 0.1 * known, 3.0) if known else 0.2

    # --- we begin ---------------------------------------------------------------------------------------------------

    def _select(self) -> Generator[Waiting, Any, None]:
        core = self._core
        self._others = [him for him in self._others if him.node not in core.known]
        if not self._others:
            return
        him = core.rng.choice(self._others)
        lock = self._lock_id(him.pid)
        if not (yield from self._lock_partition(lock, [him.node])):
            return
        held = [core.me, him.node, *(n for n in core.known if n != him.node)]
        self._send_lock_set(him, True)
        answer = yield Receive(lambda message: _concerns(message, him), AGREE_SECONDS)
        if isinstance(answer, Cancel):
            self._cancel(answer)
        elif answer is not TIMEOUT and answer.is_set:
            yield from self._hold(him, lock)
        core.release(lock, held)

    def _hold(self, him: Him, lock: LockId) -> Generator[Waiting, Any, None]:
        self._lock_is_set(him.node, him.my_tag, lock)
        cancel = yield Receive(
            lambda message: isinstance(message, Cancel) and message.node == him.node and message.tag == him.my_tag
        )
        self._cancel(cancel)
        self._just_synced = True

    # --- the peer begins --------------------------------------------------------------------------------------------

    def _invited(self, message: LockSet) -> Generator[Waiting, Any, None]:
        core = self._core
        him = next((other for other in self._others if other.node == message.pid.node), None)
        if him is None:
            core.cast(message.pid.node, (LOCK_SET, core.pid, False, core.known_list(0)))
            return
        if message.tag is not None and message.tag != him.my_tag:
            return
        lock = self._lock_id(message.pid)
        locked = yield from self._lock_partition(lock, [])
        self._send_lock_set(him, locked)
        if locked:
            held = [core.me, *core.known]
            yield from self._hold(him, lock)
            core.release(lock, held)

    # --- both -------------------------------------------------------------------------------------------------------

    def _cancel(self, cancel: Cancel) -> None:
        if cancel.first is not None:
            cancel.first()
        self._others = [h for h in self._others if h.node != cancel.node or h.my_tag != cancel.tag]

    def _lock_id(self, pid: Pid) -> LockId:
        return (GLOBAL, sorted([self._core.pid, pid], key=pid_order))

    def _send_lock_set(self, him: Him, is_set: bool) -> None:
        message: tuple[Any, ...] = (LOCK_SET, self._core.pid, is_set, self._core.known_list(0))
        self._core.cast(him.node, message if him.version < CHECKS_TAGS else (*message, him.his_tag))

    def _lock_partition(self, lock: LockId, extra: list[Atom]) -> Generator[Waiting, Any, bool]:
        core = self._core
        first = [core.boss]
        if first != [core.me] and not core.locks.can_set(*lock):
            return False  # no need to bother the boss
        if not (yield from lock_nodes(core, lock, first)):
            return False
        second = [node for node in (core.me, *extra) if node not in first]
        if not (yield from lock_nodes(core, lock, second)):
            core.release(lock, first)
            return False
        rest = [node for node in core.known if node not in first and node not in second]
        if not (yield from lock_nodes(core, lock, rest)):
            core.release(lock, first + second)
            return False
        return True


def lock_nodes(core: Core, lock: LockId, nodes: list[Atom]) -> Generator[Waiting, Any, bool]:
    """Set a lock on all of ``nodes``, or on none. A node that is gone does not count; one that is silent refuses."""
    if not nodes:
        return True
    if len(nodes) > 1 and core.me in nodes and not core.locks.can_set(*lock):
        return False
    replies = yield Calls(nodes, (SET_LOCK, lock))
    if all(reply is True for reply in replies.values()):
        return True
    undo = [node for node, reply in replies.items() if reply is True or reply is TIMEOUT]
    if undo:
        core.release(lock, undo)
    return False


def _concerns(message: Any, him: Him) -> bool:
    if isinstance(message, Cancel):
        return message.node == him.node and message.tag == him.my_tag
    if isinstance(message, LockSet):
        return message.pid.node == him.node and (message.tag is None or message.tag == him.my_tag)
    return False


__all__ = ["LOCK_SET", "Cancel", "Him", "LockSet", "Locker", "lock_nodes"]
