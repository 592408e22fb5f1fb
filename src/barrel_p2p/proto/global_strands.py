"""Strands: the procedures of ``global`` that wait in the middle, written downward as generators.

OTP runs the locker and the registrar as processes of their own beside the server. Here each is a strand: a generator
that yields what it waits for and is resumed with it, inside the same pure machine. A strand may yield

- ``Calls(nodes, request)``: call the ``global_name_server`` of each node (this one too); gives the replies by node:
  none of a node that is gone, ``TIMEOUT`` of one that took longer than ``CALL_SECONDS``;
- ``Receive(match, seconds)``: the first message ``match`` accepts, or ``TIMEOUT``.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.proto.global_events import Call, ForgetCall, Order
from barrel_p2p.term.types import Atom

CALL_SECONDS: Final = 10.0
"""A node that does not answer for so long counts as one that refuses. A guess: OTP waits for the net tick, 60 s."""
MAX_INBOX: Final = 10_000
"""Messages that a strand has not looked at; more are dropped, oldest first. They are a few per connecting peer."""


@dataclass(frozen=True, slots=True)
class Calls:
    nodes: Sequence[Atom]
    request: Any


@dataclass(frozen=True, slots=True)
class Receive:
    match: Callable[[Any], bool] | None = None
    seconds: float | None = None


TIMEOUT: Final = object()

Waiting = Calls | Receive
Procedure = Generator[Waiting, Any, Any]


class Strand:
    """One procedure and what it has been sent."""

    __slots__ = ("calls", "deadline", "ended", "inbox", "procedure", "replies", "round", "wait", "waited")

    def __init__(self, procedure: Procedure) -> None:
        self.procedure: Final = procedure
        self.inbox: deque[Any] = deque()
        self.wait: Waiting | None = None
        self.waited = 0  # messages of the inbox that ``wait`` has refused already
        self.round = 0  # tells this wait from earlier ones
        self.deadline: float | None = None
        self.calls: dict[int, Atom] = {}
        self.replies: dict[Atom, Any] = {}
        self.ended = False


class Strands:
    """All strands of a machine. ``emit`` takes orders, ``local`` answers a call to this node."""

    def __init__(self, me: Atom, emit: Callable[[Order], None], local: Callable[[Any], Any]) -> None:
        self._me = me
        self._emit = emit
        self._local = local
        self._ready: deque[Strand] = deque()
        self._calls: dict[int, Strand] = {}
        self._timers: list[tuple[float, int, int, Strand]] = []
        self._numbers = 0
        self.now = 0.0

    def start(self, procedure: Procedure) -> Strand:
        strand = Strand(procedure)
        self._ready.append(strand)
        return strand

    def kill(self, strand: Strand) -> None:
        strand.ended = True
        self._end_calls(strand)
        strand.procedure.close()

    def send(self, strand: Strand, message: Any) -> None:
        if strand.ended:
            return
        strand.inbox.append(message)
        if len(strand.inbox) > MAX_INBOX:
            strand.inbox.popleft()
            strand.waited = max(0, strand.waited - 1)
        if isinstance(strand.wait, Receive):
            self._ready.append(strand)

    def answered(self, call: int, value: Any) -> None:
        self._call_over(call, True, value)

    def failed(self, call: int) -> None:
        self._call_over(call, False, None)

    @property
    def deadline(self) -> float | None:
        """When ``run`` has to be called next."""
        while self._timers and (self._timers[0][3].ended or self._timers[0][3].round != self._timers[0][2]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def run(self, now: float) -> None:
        """Resume whatever can go on."""
        self.now = now
        while True:
            deadline = self.deadline
            if not self._ready and deadline is not None and deadline <= now:
                self._ready.append(self._timers[0][3])
            if not self._ready:
                return
            self._resume(self._ready.popleft())

    # --- inside -----------------------------------------------------------------------------------------------------

    def _resume(self, strand: Strand) -> None:
        if strand.ended:
            return
        if strand.wait is None:
            self._step(strand, None)
        elif isinstance(strand.wait, Calls):
            expired = strand.deadline is not None and strand.deadline <= self.now
            if not strand.calls or expired:
                strand.replies.update(dict.fromkeys(strand.calls.values(), TIMEOUT))
                self._end_calls(strand)
                self._step(strand, strand.replies)
        else:
            position = self._scan(strand, strand.wait)
            if position is not None:
                message = strand.inbox[position]
                del strand.inbox[position]
                self._step(strand, message)
            elif strand.deadline is not None and strand.deadline <= self.now:
                self._step(strand, TIMEOUT)

    @staticmethod
    def _scan(strand: Strand, wait: Receive) -> int | None:
        if wait.match is None:
            return 0 if strand.inbox else None
        for position in range(strand.waited, len(strand.inbox)):
            if wait.match(strand.inbox[position]):
                return position
        strand.waited = len(strand.inbox)
        return None

    def _step(self, strand: Strand, value: Any) -> None:
        strand.round += 1
        strand.waited = 0
        try:
            wait = strand.procedure.send(value)
        except StopIteration:
            strand.ended = True
            return
        strand.wait = wait
        if isinstance(wait, Calls):
            strand.deadline = self.now + CALL_SECONDS
            self._call(strand, wait)
        else:
            strand.deadline = None if wait.seconds is None else self.now + wait.seconds
        if strand.deadline is not None:
            self._numbers += 1
            heapq.heappush(self._timers, (strand.deadline, self._numbers, strand.round, strand))
        self._ready.append(strand)

    def _call(self, strand: Strand, wait: Calls) -> None:
        strand.replies = {}
        for node in wait.nodes:
            if node == self._me:
                strand.replies[node] = self._local(wait.request)
            else:
                self._numbers += 1
                strand.calls[self._numbers] = node
                self._calls[self._numbers] = strand
                self._emit(Call(self._numbers, node, wait.request))

    def _call_over(self, call: int, ok: bool, value: Any) -> None:
        strand = self._calls.pop(call, None)
        if strand is None:
            return
        node = strand.calls.pop(call)
        if ok:
            strand.replies[node] = value
        if not strand.calls:
            self._ready.append(strand)

    def _end_calls(self, strand: Strand) -> None:
        for call in strand.calls:
            del self._calls[call]
            self._emit(ForgetCall(call))
        strand.calls.clear()


__all__ = ["CALL_SECONDS", "TIMEOUT", "Calls", "Procedure", "Receive", "Strand", "Strands"]
