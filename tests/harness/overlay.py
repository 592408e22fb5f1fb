"""One node's membership in a test: its machine, told facts in short, with what it ordered sorted by kind."""

from __future__ import annotations

from random import Random
from typing import Any

from barrel_p2p.proto.hyparview import HyParView
from barrel_p2p.proto.hyparview_config import HyParViewConfig
from barrel_p2p.proto.hyparview_events import (
    Connect,
    ConnectFailed,
    Event,
    Fact,
    Join,
    JoinRequested,
    Kind,
    Message,
    MessageReceived,
    Neighbor,
    NeighborReply,
    Notify,
    Order,
    PeerConnected,
    PeerLost,
    Release,
    Send,
    Started,
    StartTimer,
    Timer,
    TimerFired,
)


class Node:
    """``me@host``; peers are ``a@host`` and so on, written ``a``. Time passes with ``later`` only."""

    def __init__(self, *, start: bool = True, seed: int = 1, **settings: Any) -> None:
        self.config = HyParViewConfig(**settings)
        self.machine = HyParView("me@host", self.config, rng=Random(seed))
        self.now = 100.0
        self.timers: dict[Timer, float] = {}
        self.orders: list[Order] = []  # of the last fact
        if start:
            self.tell(Started())

    def tell(self, fact: Fact) -> list[Order]:
        self.orders = self.machine.handle(fact, now=self.now)
        for order in self.orders:
            if isinstance(order, StartTimer):
                self.timers[order.timer] = order.at
        return self.orders

    # --- facts in short -----------------------------------------------------------------------------------------------

    def join(self, peer: str) -> None:
        self.tell(JoinRequested(full(peer)))

    def connected(self, peer: str, kind: Kind = "python") -> None:
        self.tell(PeerConnected(full(peer), kind))

    def failed(self, peer: str) -> None:
        self.tell(ConnectFailed(full(peer)))

    def lost(self, peer: str) -> None:
        self.tell(PeerLost(full(peer)))

    def receive(self, peer: str, message: Message) -> None:
        self.tell(MessageReceived(full(peer), message))

    def later(self, seconds: float) -> None:
        self.now += seconds

    def fire(self, timer: Timer) -> None:
        """Let time pass until ``timer`` fires."""
        self.now = max(self.now, self.timers.pop(timer))
        self.tell(TimerFired(timer))

    def neighbor(self, *peers: str, kind: Kind = "python") -> None:
        """Have each peer become a neighbour: it connects and asks."""
        for peer in peers:
            self.connected(peer, kind)
            self.receive(peer, Neighbor(high=False))
            assert full(peer) in self.machine.active

    def joined_by(self, peer: str, kind: Kind = "python") -> None:
        self.connected(peer, kind)
        self.receive(peer, Join())

    def yes(self, peer: str) -> None:
        self.receive(peer, NeighborReply(True))

    def no(self, peer: str) -> None:
        self.receive(peer, NeighborReply(False))

    # --- what came of the last one ------------------------------------------------------------------------------------

    def sent(self, peer: str) -> list[Message]:
        return [order.message for order in self.orders if isinstance(order, Send) and order.peer == full(peer)]

    @property
    def all_sent(self) -> list[tuple[str, Message]]:
        return [(short(order.peer), order.message) for order in self.orders if isinstance(order, Send)]

    @property
    def connects(self) -> list[str]:
        return [short(order.peer) for order in self.orders if isinstance(order, Connect)]

    @property
    def released(self) -> list[str]:
        return [short(order.peer) for order in self.orders if isinstance(order, Release)]

    @property
    def events(self) -> list[Event]:
        return [order.event for order in self.orders if isinstance(order, Notify)]

    @property
    def active(self) -> list[str]:
        return [short(peer) for peer in self.machine.active]

    @property
    def passive(self) -> list[str]:
        return [short(peer) for peer in self.machine.passive]


def full(peer: str) -> str:
    return f"{peer}@host"


def short(peer: str) -> str:
    return peer.removesuffix("@host")


__all__ = ["Node", "full", "short"]
