"""A process: a pid, a mailbox, its links and monitors, and the asyncio task that runs it.

``Process`` is the runtime's own record; users hold pids. It is kept small because a node may have many thousands of
idle ones: slots, and dictionaries only once they are needed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from ..term.types import Atom, Pid
from .gate import Gate

if TYPE_CHECKING:
    from .runtime import Block, Runtime
    from .signals import Monitor
    from .steps import Steps

RUNNING: Final = 0
EXITING: Final = 1  # has its exit reason, its coroutine is unwinding
DEAD: Final = 2

#: Messages that a process may take without giving way to others; after Erlang's reductions, the number is a guess.
REDUCTIONS: Final = 500

#: The mailbox of a process that no message has reached yet: a deque takes 600 bytes from the start.
NO_MAILBOX: Final = cast("deque[Any]", ())


class Process:
    """One process of a runtime."""

    __slots__ = (
        "aliases",
        "attention",
        "exit_reason",
        "gates",
        "group_leader",
        "label",
        "links",
        "mailbox",
        "monitored_by",
        "monitors",
        "name",
        "pid",
        "reductions",
        "runtime",
        "scanned",
        "status",
        "steps",
        "task",
        "trap_exit",
        "waiter",
        "wakes",
    )

    #: Whether senders have to wait; only a bounded mailbox is ever full.
    full: bool = False
    #: Called once there is room again; only a bounded mailbox calls them, so only there can they be added.
    on_room: Sequence[Callable[[], None]] = ()
    bounded: bool = False
    #: What ``reductions`` starts from after each wait.
    budget: int = REDUCTIONS

    def __init__(self, runtime: Runtime, pid: Pid) -> None:
        self.runtime: Final = runtime
        self.pid: Final = pid
        self.mailbox = NO_MAILBOX
        self.waiter: asyncio.Future[None] | None = None  # what a waiting receive() waits for
        self.reductions = REDUCTIONS
        self.wakes = 0  # how often receive() had to wait: what the process does, for who watches
        self.scanned = 0  # messages a waiting selective receive has already refused
        self.attention = False  # the next step needs a closer look: suspended or exiting
        self.status = RUNNING
        self.exit_reason: Any = None
        self.trap_exit = False
        self.task: asyncio.Task[Any] | None = None
        self.steps: Steps | Block | None = None  # what interrupts it; a block runs in the user's own task
        self.links: dict[Pid, None] | None = None
        self.monitors: dict[tuple[int, ...], Monitor] | None = None  # what this process watches
        self.monitored_by: dict[Monitor, None] | None = None
        self.aliases: dict[tuple[int, ...], bool] | None = None  # whether the first message is the last
        self.gates: dict[Gate, None] | None = None
        self.name: Atom | None = None
        self.group_leader: Pid | None = None
        self.label: Any = None

    def put(self, message: Any) -> Gate | None:
        """Append a message and wake the process; a gate is returned when the sender should be suspended on it."""
        if self.mailbox is NO_MAILBOX:
            self.mailbox = deque((message,))
        else:
            self.mailbox.append(message)
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():  # it may have timed out in this very turn of the loop
                waiter.set_result(None)
        return None

    def put_signal(self, message: Any) -> None:
        """Append a message that stands for a signal (EXIT, DOWN): it passes any bound of the mailbox."""
        Process.put(self, message)

    def took(self) -> None:
        """A message was taken: a bounded mailbox looks whether it has room."""

    def choosy(self, change: int) -> None:
        """The process begins (+1) or ends (-1) to wait for a certain message only."""

    def exhausted(self) -> bool:
        """Out of ``reductions``: whether this is the moment to give way to others."""
        return True

    # --- suspension -------------------------------------------------------------------------------------------------

    def suspend(self, gate: Gate) -> None:
        """Hold this process at its next await point until ``gate`` opens.

        A wait that could never end is refused: when the owner of the gate waits, through whatever chain, for this
        process.
        """
        if self.status != RUNNING or (gate.owner is not None and _waits_for(gate.owner, self)):
            return
        gate.hold(self)
        if self.gates is None:
            self.gates = {}
        self.gates[gate] = None
        self.attention = True
        self.reductions = 0  # sends even a receive() that need not wait through the slow path

    def released(self, gate: Gate) -> None:
        """``gate`` opened (it calls this)."""
        if self.gates:
            self.gates.pop(gate, None)

    def leave_gates(self) -> None:
        """Wait for no gate any more: the process exits."""
        if self.gates:
            for gate in self.gates:
                gate.forget(self)
            self.gates = None

    @property
    def busy_on(self) -> Gate | None:
        """The first gate that holds this process."""
        return next(iter(self.gates)) if self.gates else None

    async def pass_gates(self) -> None:
        """Wait until no gate holds this process; the library's own await points call it."""
        while self.gates:
            await next(iter(self.gates)).future()

    def __repr__(self) -> str:
        name = f" {self.name}" if self.name else ""
        return f"<Process {self.pid}{name}{('', ' exiting', ' dead')[self.status]}>"


class BoundedProcess(Process):
    """A process whose mailbox has a bound.

    ``when_full`` says what a message past the bound does: ``wait`` takes it and suspends the sender until half of the
    mailbox is free, ``drop`` loses it, ``exit`` ends the process with ``mailbox_full``. Signals pass any bound. A
    process that waits for a certain message counts as not full, since the one it waits for may be the next.
    """

    __slots__ = ("dropped", "gate", "limit", "on_room", "selective", "when_full")

    bounded = True
    budget = 0  # sends every receive() through the slow path, which calls took()

    def __init__(self, runtime: Runtime, pid: Pid, limit: int, when_full: str) -> None:
        super().__init__(runtime, pid)
        if not isinstance(limit, int) or limit < 1:
            raise ValueError(f"max_mailbox must be a whole number of messages above 0, not {limit!r}")
        if when_full not in ("wait", "drop", "exit"):
            raise ValueError(f"when_full must be 'wait', 'drop' or 'exit', not {when_full!r}")
        self.limit: Final = limit
        self.when_full: Final = when_full
        self.gate: Final = Gate(self)
        self.on_room: list[Callable[[], None]] = []
        self.selective = 0
        self.dropped = 0
        self.reductions = self.budget

    @property
    def full(self) -> bool:  # type: ignore[override]
        return (
            len(self.mailbox) >= self.limit
            and not self.selective
            and self.when_full == "wait"
            and self.status == RUNNING
        )

    def put(self, message: Any) -> Gate | None:
        if len(self.mailbox) >= self.limit and not self.selective:
            if self.when_full == "drop":
                self.dropped += 1
                return None
            if self.when_full == "exit":
                self.runtime.terminate(self, Atom("mailbox_full"))
                return None
        Process.put(self, message)
        return self.gate if self.full else None

    def choosy(self, change: int) -> None:
        self.selective += change
        if change > 0:
            self.took()

    def exhausted(self) -> bool:
        self.reductions -= 1
        return self.reductions <= -REDUCTIONS

    def took(self) -> None:
        if self.selective or len(self.mailbox) <= self.limit // 2 or self.status != RUNNING:
            if self.gate.closed:
                self.gate.open()
            if self.on_room:
                hooks, self.on_room = self.on_room, []
                for hook in hooks:
                    hook()


def _waits_for(process: Process, other: Process) -> bool:
    """Whether ``process`` is ``other`` or waits for it through the gates of full mailboxes."""
    seen: dict[Process, None] = {}
    queue = [process]
    while queue:
        one = queue.pop()
        if one is other:
            return True
        if one not in seen:
            seen[one] = None
            queue += [gate.owner for gate in one.gates or () if gate.owner is not None]
    return False


__all__ = ["DEAD", "EXITING", "NO_MAILBOX", "REDUCTIONS", "RUNNING", "BoundedProcess", "Process"]
