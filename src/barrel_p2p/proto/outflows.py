"""What is on its way to each peer of a replica: in order, a few messages per turn, no more than fits.

A copy of a large state is many messages. They are made as they are sent, some per turn, and the rest when the channel
has drained (``AwaitDrain``, ``Drained``). What is sent to a peer later waits behind, so all of it arrives in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from barrel_p2p.proto.replica_events import AwaitDrain, Order, SendTo
from barrel_p2p.term.types import Atom

PARTS_PER_TURN: Final = 2  # then the channel is asked; a guess: 2000 entries, some 20 ms of work
MAX_QUEUED: Final = 32  # things waiting for one peer; more means that it asks faster than it reads
MAX_OUTFLOWS: Final = 256  # peers with something waiting at once; a guess, well above the neighbours of a node

Message = tuple[Any, ...]


@dataclass(slots=True)
class _Outflow:
    queue: deque[Iterator[Message]] = field(default_factory=deque)
    waiting: bool = False  # for ``Drained``
    copying: bool = False  # the whole state is in the queue


class Outflows:
    """The outflows of one replica; ``refused`` has the word for what was not sent, after an answer of None."""

    __slots__ = ("_outflows", "refused")

    def __init__(self) -> None:
        self._outflows: dict[Atom, _Outflow] = {}
        self.refused = ""

    def send(self, peer: Atom, messages: Iterator[Message]) -> list[Order] | None:
        """Send messages behind what waits for a peer; None if too much does."""
        outflow = self._outflows.get(peer)
        if outflow is None:
            if len(self._outflows) >= MAX_OUTFLOWS:
                self.refused = "too_many_outflows"
                return None
            outflow = self._outflows[peer] = _Outflow()
        if len(outflow.queue) >= MAX_QUEUED:
            self.refused = "outflow_full"
            return None
        outflow.queue.append(messages)
        return [] if outflow.waiting else self._flow(peer, outflow)

    def copy(self, peer: Atom, messages: Iterator[Message]) -> list[Order] | None:
        """Send the messages of a whole copy; None if one is under way already."""
        outflow = self._outflows.get(peer)
        if outflow is not None and outflow.copying:
            self.refused = "copy_under_way"
            return None
        return self.send(peer, self._marked(peer, messages))

    def _marked(self, peer: Atom, messages: Iterator[Message]) -> Iterator[Message]:
        outflow = self._outflows[peer]
        outflow.copying = True
        yield from messages
        outflow.copying = False

    def drained(self, peer: Atom) -> list[Order]:
        """Go on: the channel takes more."""
        outflow = self._outflows.get(peer)
        return [] if outflow is None else self._flow(peer, outflow)

    def drop(self, peer: Atom) -> None:
        """Forget what waits for a peer."""
        self._outflows.pop(peer, None)

    def _flow(self, peer: Atom, outflow: _Outflow) -> list[Order]:
        orders: list[Order] = []
        while outflow.queue:
            if len(orders) >= PARTS_PER_TURN:
                outflow.waiting = True
                return [*orders, AwaitDrain(peer)]
            message = next(outflow.queue[0], None)
            if message is None:
                outflow.queue.popleft()
            else:
                orders.append(SendTo(peer, message))
        del self._outflows[peer]
        return orders


__all__ = ["MAX_QUEUED", "PARTS_PER_TURN", "Message", "Outflows"]
