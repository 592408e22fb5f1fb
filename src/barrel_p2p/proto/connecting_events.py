"""What happens to the connections of a node, and what is done about it: the facts and orders of ``connecting``.

Connections are numbers: a ``dial`` is one that we open, an ``accept`` one that a peer opened, a ``channel`` one in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from barrel_p2p.errors import BarrelError
from barrel_p2p.term.types import Atom

#: OTP's words for why a node is down (``net_kernel:monitor_nodes/2``), as far as they can be told apart here.
DownReason = Literal["connection_closed", "disconnect", "net_kernel_terminated", "net_tick_timeout", "shutdown"]

# --- facts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wanted:
    """Something is to be sent to ``name``, or somebody asked to connect to it."""

    name: Atom


@dataclass(frozen=True, slots=True)
class DialNamed:
    """Our name went out on a dial."""

    name: Atom
    dial: int


@dataclass(frozen=True, slots=True)
class DialUp:
    """A dial came up: the peer has proved that it knows the cookie."""

    name: Atom
    dial: int
    creation: int


@dataclass(frozen=True, slots=True)
class DialYielded:
    """The peer closed our dial because another connection between us goes on."""

    name: Atom
    dial: int


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A dial came to nothing."""

    name: Atom
    dial: int
    error: BarrelError


@dataclass(frozen=True, slots=True)
class PeerNamed:
    """On a connection that it opened, an authenticated peer told its name and waits for an answer."""

    name: Atom
    accept: int
    creation: int


@dataclass(frozen=True, slots=True)
class AcceptUp:
    """A peer that was let in has proved that it knows the cookie."""

    name: Atom
    accept: int


@dataclass(frozen=True, slots=True)
class AcceptFailed:
    """The peer's attempt came to nothing after it told its name."""

    name: Atom
    accept: int


@dataclass(frozen=True, slots=True)
class ChannelLost:
    """A channel is gone."""

    name: Atom
    channel: int
    why: str
    reason: DownReason = "connection_closed"


@dataclass(frozen=True, slots=True)
class Probed:
    """The answer to ``Probe``: whether the other end of the channel gave a sign of life."""

    name: Atom
    channel: int
    alive: bool


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of ``StartTimer`` has come."""

    name: Atom


@dataclass(frozen=True, slots=True)
class DisconnectAsked:
    """The user wants the channel to ``name`` closed."""

    name: Atom


@dataclass(frozen=True, slots=True)
class Stopped:
    """The node stops: nothing comes up any more."""


Fact = (
    Wanted | DialNamed | DialUp | DialYielded | DialFailed | PeerNamed | AcceptUp | AcceptFailed | ChannelLost | Probed
    | TimerFired | DisconnectAsked | Stopped
)  # fmt: skip

# --- orders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Queue:
    """Keep what is sent to ``name`` until ``Up`` or ``GiveUp``."""

    name: Atom


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a connection to ``name`` and go through its handshakes; it is known as ``dial`` from now on."""

    name: Atom
    dial: int


@dataclass(frozen=True, slots=True)
class LetIn:
    """Answer the peer that told its name: go on. ``simultaneous``: and we gave up our own dial for it."""

    accept: int
    simultaneous: bool = False


@dataclass(frozen=True, slots=True)
class AskAlive:
    """Answer the peer that told its name: there is a channel, go on if that one is dead."""

    accept: int


@dataclass(frozen=True, slots=True)
class TurnAway:
    """Refuse the peer that told its name, so that it and our log learn why."""

    accept: int
    why: str


@dataclass(frozen=True, slots=True)
class Yield:
    """Close the peer's attempt and let it know that another connection between us goes on."""

    accept: int


@dataclass(frozen=True, slots=True)
class Drop:
    """End an attempt, ours or the peer's."""

    connection: int
    why: str


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask the other end of a channel for a sign of life; tell the outcome, within a second or so, as ``Probed``."""

    name: Atom
    channel: int


@dataclass(frozen=True, slots=True)
class Up:
    """The connection is the channel to ``name`` from now on: send the queue on it, if there is one."""

    name: Atom
    connection: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a connection that has come up."""

    connection: int
    why: str


@dataclass(frozen=True, slots=True)
class Down:
    """``name`` has no channel any more."""

    name: Atom
    why: str
    reason: DownReason = "connection_closed"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """What waits in the queue of ``name`` is lost."""

    name: Atom
    error: BarrelError


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Tell ``TimerFired(name)`` at ``at`` (monotonic seconds). A name has one timer: this one replaces an earlier."""

    name: Atom
    at: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """The timer of ``name`` is not needed any more."""

    name: Atom


Order = (
    Queue | Dial | LetIn | AskAlive | TurnAway | Yield | Drop | Probe | Up | Close | Down | GiveUp | StartTimer
    | StopTimer
)  # fmt: skip


__all__ = [
    "AcceptFailed",
    "AcceptUp",
    "AskAlive",
    "ChannelLost",
    "Close",
    "Dial",
    "DialFailed",
    "DialNamed",
    "DialUp",
    "DialYielded",
    "DisconnectAsked",
    "Down",
    "DownReason",
    "Drop",
    "Fact",
    "GiveUp",
    "LetIn",
    "Order",
    "PeerNamed",
    "Probe",
    "Probed",
    "Queue",
    "StartTimer",
    "StopTimer",
    "Stopped",
    "TimerFired",
    "TurnAway",
    "Up",
    "Wanted",
    "Yield",
]
