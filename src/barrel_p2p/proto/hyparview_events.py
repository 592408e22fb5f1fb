"""What happens to the membership of a node, and what is done about it: the facts and orders of ``hyparview``.

Peers are node names. The messages are upstream's without their sender, which is always the peer at the other end of
the channel; ``hyparview_wire`` turns them into terms and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["python", "erlang"]
"""What runs at the other end of a channel: a node of this library (it says so in the handshake), or upstream's."""

Timer = Literal["shuffle", "contact", "fill", "pending"]
"""The timers of the machine; there is at most one of each."""

DownReason = Literal["graceful", "dropped", "nodedown"]
"""Why a peer left the active view: it said so, we needed its place, or its channel is gone (upstream's words)."""

# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """The sender is new and has taken the receiver into its active view."""


@dataclass(frozen=True, slots=True)
class ForwardJoin:
    """Random walk, ``ttl`` hops long, that finds neighbours for the new node ``joiner``."""

    joiner: str
    ttl: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The sender has taken the receiver out of its active view."""


@dataclass(frozen=True, slots=True)
class Neighbor:
    """May the sender be in the receiver's active view? ``high``: it has nobody, and must not be refused."""

    high: bool


@dataclass(frozen=True, slots=True)
class NeighborReply:
    """The answer to ``Neighbor``; ``accept``: the sender has taken the receiver into its active view."""

    accept: bool


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Some nodes the sender knows; passed on for ``ttl`` more hops, answered at each."""

    ttl: int
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShuffleReply:
    """Some nodes the sender knows, in return for a ``Shuffle``."""

    peers: tuple[str, ...]


Message = Join | ForwardJoin | Disconnect | Neighbor | NeighborReply | Shuffle | ShuffleReply

# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The node is up: timers may run and contacts be joined. The first fact."""


@dataclass(frozen=True, slots=True)
class JoinRequested:
    """The user wants to join the overlay through ``peer``; the outcome is a ``PeerUp`` (of ``peer``, or of one
    it led to: an Erlang contact may be full) or a ``JoinFailed``."""

    peer: str


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """There is a channel to ``peer``, whoever dialled. Told of every channel, before anything received on it."""

    peer: str
    kind: Kind = "python"


@dataclass(frozen=True, slots=True)
class ContactsFound:
    """The nodes that ``contact_nodes`` stand for at this moment, if they have to be looked up."""

    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """The ``Connect`` to ``peer`` came to nothing."""

    peer: str


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The channel to ``peer`` is gone."""

    peer: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """``peer`` sent ``message``, which has passed ``hyparview_wire``."""

    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class TrafficSeen:
    """A broadcast came from ``peer``, which is not in the active view: it may have us in its own."""

    peer: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of ``StartTimer`` has come."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """The user wants to leave the overlay."""


Fact = (
    Started | JoinRequested | ContactsFound | PeerConnected | ConnectFailed | PeerLost | MessageReceived | TrafficSeen
    | TimerFired | LeaveRequested
)  # fmt: skip

# --- what is told to the node -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerUp:
    """``peer`` is in the active view from now on."""

    peer: str
    kind: Kind = "python"


@dataclass(frozen=True, slots=True)
class PeerDown:
    """``peer`` is not in the active view any more."""

    peer: str
    reason: DownReason


@dataclass(frozen=True, slots=True)
class PeerLingers:
    """``peer``, an Erlang node, has us in its active view although we don't have it in ours.

    It was not told that it was dropped (``DISCONNECT`` makes it lose its views), or took us in unasked. The channel
    stays, and the broadcast keeps it as a lazy peer.
    """

    peer: str


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """A ``JoinRequested`` came to nothing; ``why`` is for people."""

    peer: str
    why: str


@dataclass(frozen=True, slots=True)
class Left:
    """This node has left; the active view is empty. No ``PeerDown`` was told (upstream's habit)."""


Event = PeerUp | PeerDown | PeerLingers | JoinFailed | Left

# --- orders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Make a channel to ``peer``; tell ``PeerConnected`` (at once if there is one) or ``ConnectFailed``."""

    peer: str


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``message`` to ``peer`` on its channel; if that is gone, drop it."""

    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Release:
    """The membership does not need the channel to ``peer`` any more; what else uses it may keep it.

    ``close``: close it, after what was sent on it, for the close is how the peer (an Erlang node) learns that we left.
    """

    peer: str
    close: bool = False


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Tell ``TimerFired(timer)`` at ``at`` (monotonic seconds). Each timer exists once: this replaces an earlier."""

    timer: Timer
    at: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """The timer is not needed any more."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell ``event`` to the broadcast, in this order, and to who subscribed."""

    event: Event


Order = Connect | Send | Release | StartTimer | StopTimer | Notify

__all__ = [
    "Connect",
    "ConnectFailed",
    "ContactsFound",
    "Disconnect",
    "DownReason",
    "Event",
    "Fact",
    "ForwardJoin",
    "Join",
    "JoinFailed",
    "JoinRequested",
    "Kind",
    "LeaveRequested",
    "Left",
    "Message",
    "MessageReceived",
    "Neighbor",
    "NeighborReply",
    "Notify",
    "Order",
    "PeerConnected",
    "PeerDown",
    "PeerLingers",
    "PeerLost",
    "PeerUp",
    "Release",
    "Send",
    "Shuffle",
    "ShuffleReply",
    "StartTimer",
    "Started",
    "StopTimer",
    "Timer",
    "TimerFired",
    "TrafficSeen",
]
