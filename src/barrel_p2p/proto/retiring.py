"""How two nodes close a channel that neither uses, so that nothing is lost: what each sends meanwhile waits.

A pure machine, one for all peers of a node. To close at once what looks unused would lose what the other side has
just sent. So the side that wants to close *retires* the channel, which holds back what it sends from now on, and
asks. The other retires it as well if it does not use it either, and agrees; then nothing is under way in either
direction, and the channel is closed. What was held back meanwhile goes over the next connection. A refusal, or
silence, brings the channel back, and what was held back goes out on it.

Who agreed holds back for longer than who asked waits for the answer, so an answer that is acted on finds both sides
holding back; only the rates of two clocks matter, not how long anything is under way.

Both may ask at once: each agrees to the other's question, and whoever reads the answer first closes. Between nodes
of this library only; upstream's close without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from barrel_p2p.term.types import Atom

PATIENCE = 2.0  # seconds for an answer; a guess: many round trips

Answer = Literal["agreed", "refused"]


@dataclass(frozen=True, slots=True)
class Unused:
    """This node does not use the channel to ``peer`` (any more)."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """The peer wants to close, its question ``number``; ``used``: this node still uses the channel."""

    peer: Atom
    number: int
    used: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """The peer's answer to our question ``number``."""

    peer: Atom
    number: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class ChannelGone:
    """The channel to ``peer`` was closed, by whomever."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of ``StartTimer`` has come."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class Retire:
    """Hold back what is sent to ``peer`` from now on."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class Restore:
    """Send on the channel again, first what was held back."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the peer whether the channel may be closed; on the channel, past what is held back."""

    peer: Atom
    number: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the peer's question, likewise."""

    peer: Atom
    number: int
    answer: Answer


@dataclass(frozen=True, slots=True)
class Close:
    """Close the channel: nothing is under way on it."""

    peer: Atom


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Tell ``TimerFired`` at ``at`` (monotonic seconds); replaces an earlier one of the peer."""

    peer: Atom
    at: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """The timer is not needed any more."""

    peer: Atom


Fact = Unused | CloseAsked | Answered | ChannelGone | TimerFired
Order = Retire | Restore | Ask | Reply | Close | StartTimer | StopTimer


@dataclass(slots=True)
class _Retired:
    """A channel that is held back until ``until``; ``asked``: number of our question, heeded until ``asked_until``."""

    until: float
    asked: int = 0
    asked_until: float = 0.0


class Retiring:
    """The channels of one node that are about to be closed::

        orders = retiring.handle(Unused(peer), now=loop.time())

    Args:
        patience: seconds to wait for an answer.
    """

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._retired: dict[Atom, _Retired] = {}
        self._number = 0

    def handle(self, fact: Fact, *, now: float) -> list[Order]:
        """Take a fact (``now`` in monotonic seconds); perform what comes back, in order."""
        peer = fact.peer
        retired = self._retired.get(peer)
        match fact:
            case Unused() if retired is None:
                self._number += 1
                until = now + self._patience
                self._retired[peer] = _Retired(until, self._number, until)
                return [Retire(peer), StartTimer(peer, until), Ask(peer, self._number)]
            case CloseAsked(number=number, used=True) if retired is None:
                return [Reply(peer, number, "refused")]
            case CloseAsked(number=number):
                until = now + 2 * self._patience
                orders: list[Order] = [StartTimer(peer, until), Reply(peer, number, "agreed")]
                if retired is not None:  # nothing was sent since
                    retired.until = until
                    return orders
                self._retired[peer] = _Retired(until)
                return [Retire(peer), *orders]
            case Answered(number=number) if retired is not None and retired.asked == number:
                if fact.answer == "agreed" and now < retired.asked_until:
                    return [*self._forget(peer), Close(peer)]
                if fact.answer == "refused" and retired.until == retired.asked_until:
                    return [*self._forget(peer), Restore(peer)]
            case TimerFired() if retired is not None and now >= retired.until:
                del self._retired[peer]
                return [Restore(peer)]
            case ChannelGone() if retired is not None:
                return self._forget(peer)
        return []

    def _forget(self, peer: Atom) -> list[Order]:
        del self._retired[peer]
        return [StopTimer(peer)]


__all__ = [
    "PATIENCE",
    "Answer",
    "Answered",
    "Ask",
    "ChannelGone",
    "Close",
    "CloseAsked",
    "Fact",
    "Order",
    "Reply",
    "Restore",
    "Retire",
    "Retiring",
    "StartTimer",
    "StopTimer",
    "TimerFired",
    "Unused",
]
