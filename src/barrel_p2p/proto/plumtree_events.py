"""What happens to the broadcast of a node, and what is done about it: the facts and orders of ``plumtree``.

``PeerUp``, ``PeerDown``, ``PeerLingers``, ``Left`` (what the membership tells) and ``PeerLost`` (the channel is gone)
are facts here, too, as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from barrel_p2p.proto.hyparview_events import JoinFailed, Left, PeerDown, PeerLingers, PeerLost, PeerUp

Timer = Literal["graft", "cleanup"]
"""The timers of the machine; there is at most one of each."""

# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gossip:
    """A broadcast in full. ``size``: about its bytes, for the bound of the cache; it is not sent."""

    id: bytes
    tag: str
    payload: Any
    size: int = 0


@dataclass(frozen=True, slots=True)
class IHave:
    """The sender has the broadcast ``id``."""

    id: bytes


@dataclass(frozen=True, slots=True)
class Graft:
    """Send the broadcast ``id``, and those to come, in full."""

    id: bytes


@dataclass(frozen=True, slots=True)
class Prune:
    """Announce broadcasts from now on, don't send them in full."""


Message = Gossip | IHave | Graft | Prune

# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BroadcastRequested:
    """Something is to reach every node, this one included.

    ``tag`` says whom it is for, ``id`` must be unique in the cluster (``new_id``), ``size`` is about its bytes.
    """

    id: bytes
    tag: str
    payload: Any
    size: int = 0


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """``peer`` sent ``message``, which has passed ``plumtree_wire``."""

    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of ``StartTimer`` has come."""

    timer: Timer


Fact = (
    PeerUp | PeerDown | PeerLingers | JoinFailed | Left | PeerLost | BroadcastRequested | MessageReceived | TimerFired
)  # fmt: skip

# --- orders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``message`` to ``peer`` on its channel; if that is gone, drop it."""

    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand a broadcast to who is behind its tag. ``peer``: who sent it to us, None for our own."""

    id: bytes
    tag: str
    payload: Any
    peer: str | None


@dataclass(frozen=True, slots=True)
class Hint:
    """Tell the membership ``TrafficSeen(peer)``."""

    peer: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Tell ``TimerFired(timer)`` at ``at`` (monotonic seconds). Each timer exists once: this replaces an earlier."""

    timer: Timer
    at: float


Order = Send | Deliver | Hint | StartTimer

__all__ = [
    "BroadcastRequested",
    "Deliver",
    "Fact",
    "Gossip",
    "Graft",
    "Hint",
    "IHave",
    "JoinFailed",
    "Left",
    "Message",
    "MessageReceived",
    "Order",
    "PeerDown",
    "PeerLingers",
    "PeerLost",
    "PeerUp",
    "Prune",
    "Send",
    "StartTimer",
    "Timer",
    "TimerFired",
]
