"""What happens to a replica, and what is done about it: the facts and orders of ``replica``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from barrel_p2p.term.types import Atom

# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteAsked:
    """The user wants something written: an operation of the data type, such as ``Put`` or ``Remove`` of maps."""

    operation: Any


@dataclass(frozen=True, slots=True)
class BroadcastReceived:
    """A broadcast of another node arrived under the tag of this replica."""

    payload: Any


@dataclass(frozen=True, slots=True)
class DirectReceived:
    """The replica of the same name on ``peer`` sent a message (what stands in ``{'$barrel_p2p_replica', Message}``).

    ``peer`` is the node at the other end of the channel.
    """

    peer: Atom
    message: Any


@dataclass(frozen=True, slots=True)
class PeerUp:
    """``peer`` is a neighbour now. ``python``: a node of this library, that knows digests."""

    peer: Atom
    python: bool


@dataclass(frozen=True, slots=True)
class PeerDown:
    """``peer`` is no neighbour any more, or no channel leads to a node that was sent something."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class Drained:
    """The channel to ``peer`` takes more again: the answer to ``AwaitDrain``."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of ``StartTimer`` has come."""

    timer: str


Fact = WriteAsked | BroadcastReceived | DirectReceived | PeerUp | PeerDown | Drained | TimerFired

# --- orders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Persist:
    """Write a delta to disk before the orders behind this one are performed."""

    delta: Any


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete parts on disk; what names them is known to the data type."""

    parts: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Broadcast to all nodes under the tag of this replica; it need not come back to us."""

    payload: Any


@dataclass(frozen=True, slots=True)
class SendTo:
    """Send to the replica of the same name on ``peer``, if there is a channel."""

    peer: Atom
    message: Any


@dataclass(frozen=True, slots=True)
class AwaitDrain:
    """There is more for ``peer``: tell ``Drained`` when its channel isn't busy, at once or later."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class Notify:
    """What the user sees has changed: ``changes`` are those of the data type, in order."""

    changes: Sequence[Any]


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Tell ``TimerFired(timer)`` at ``at`` (monotonic seconds)."""

    timer: str
    at: float


Order = Persist | Forget | Broadcast | SendTo | AwaitDrain | Notify | StartTimer

__all__ = [
    "AwaitDrain",
    "Broadcast",
    "BroadcastReceived",
    "DirectReceived",
    "Drained",
    "Fact",
    "Forget",
    "Notify",
    "Order",
    "PeerDown",
    "PeerUp",
    "Persist",
    "SendTo",
    "StartTimer",
    "TimerFired",
    "WriteAsked",
]
