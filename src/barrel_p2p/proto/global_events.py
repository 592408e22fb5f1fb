"""What happens to ``global`` and what is done about it: the facts and orders of ``global_names``.

``Call``, ``Monitor`` and ``Ask`` carry a number that the machine gave out; the answer comes back under that number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from barrel_p2p.term.types import Atom, Pid

# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node that takes part is connected. ``kin`` says that it is a node of this library."""

    node: Atom
    kin: bool = False


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The connection to a node that takes part is gone; the deaths it means have been told before."""

    node: Atom


@dataclass(frozen=True, slots=True)
class Called:
    """``gen_server:call(global_name_server, Request)`` by somebody: answer with ``Reply``."""

    sender: Any  # {Pid, Tag}
    request: Any


@dataclass(frozen=True, slots=True)
class CastIn:
    """``gen_server:cast`` by another node's ``global_name_server``."""

    message: Any


@dataclass(frozen=True, slots=True)
class Told:
    """A plain message by another node's ``global_name_server``."""

    message: Any


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to ``Call``."""

    call: int
    value: Any


@dataclass(frozen=True, slots=True)
class CallFailed:
    """There will be no reply to ``Call``: the server or its node is gone."""

    call: int


@dataclass(frozen=True, slots=True)
class Died:
    """A process that ``Monitor`` named has ended, or its node is gone."""

    monitor: int


@dataclass(frozen=True, slots=True)
class Connected:
    """``Connect`` has ended, with a connection to a node that takes part or without one."""

    node: Atom
    ok: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer to ``Ask``: the pid that keeps the name, ``none``, or anything else; ``failed``: it never ran."""

    ask: int
    value: Any
    failed: bool = False


@dataclass(frozen=True, slots=True)
class RegisterAsked:
    """A user of this node wants a name for a process. ``anew`` takes it from whoever has it. Ends in ``Done``."""

    op: int
    name: Any
    pid: Pid
    method: Any
    anew: bool = False


@dataclass(frozen=True, slots=True)
class UnregisterAsked:
    """A user of this node wants a name to be free. Ends in ``Done``."""

    op: int
    name: Any


@dataclass(frozen=True, slots=True)
class SyncAsked:
    """A user of this node wants to know when the names of all connected nodes are known here. Ends in ``Done``."""

    op: int


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Nobody waits for that operation any more: it is not begun if it has not begun."""

    op: int


@dataclass(frozen=True, slots=True)
class Woken:
    """The time of ``WakeAt`` has come."""


Fact = (
    NodeUp
    | NodeDown
    | Called
    | CastIn
    | Told
    | Answered
    | CallFailed
    | Died
    | Connected
    | Judged
    | RegisterAsked
    | UnregisterAsked
    | SyncAsked
    | Abandoned
    | Woken
)

# --- orders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a ``Called``."""

    to: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Cast:
    """``gen_server:cast`` to the ``global_name_server`` of a node. Makes a connection if there is none."""

    node: Atom
    message: Any


@dataclass(frozen=True, slots=True)
class Tell:
    """A plain message to the ``global_name_server`` of a node; lost if there is no connection to it."""

    node: Atom
    message: Any


@dataclass(frozen=True, slots=True)
class Call:
    """``gen_server:call`` to the ``global_name_server`` of another node; ends in ``Answered`` or ``CallFailed``."""

    call: int
    node: Atom
    request: Any


@dataclass(frozen=True, slots=True)
class ForgetCall:
    """Nobody waits for that reply any more."""

    call: int


@dataclass(frozen=True, slots=True)
class Monitor:
    """Watch a process; ends in ``Died`` unless ``Demonitor`` comes first."""

    monitor: int
    pid: Pid


@dataclass(frozen=True, slots=True)
class Demonitor:
    """Watch it no longer."""

    monitor: int


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to a node that others know; ends in ``Connected``."""

    node: Atom


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection to a node; ``NodeDown`` follows if there was one."""

    node: Atom


@dataclass(frozen=True, slots=True)
class Ask:
    """Run the resolve function ``method(name, theirs, ours)`` on the node of ``ours``; ends in ``Judged``."""

    ask: int
    method: Any
    name: Any
    theirs: Pid
    ours: Pid


@dataclass(frozen=True, slots=True)
class ForgetAsk:
    """Nobody waits for that verdict any more."""

    ask: int


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of a user's operation."""

    op: int
    value: bool


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Tell ``Woken`` at that time (seconds of the clock of ``now``); replaces the one before, None takes it back."""

    at: float | None


@dataclass(frozen=True, slots=True)
class Log:
    """Something an operator should know. ``level`` is a name of ``logging``."""

    level: str
    text: str


Order = (
    Reply
    | Cast
    | Tell
    | Call
    | ForgetCall
    | Monitor
    | Demonitor
    | Connect
    | Disconnect
    | Ask
    | ForgetAsk
    | Done
    | WakeAt
    | Log
)
