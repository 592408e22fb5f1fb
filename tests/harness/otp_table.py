"""An Erlang node's habits in the place of ``Connecting``: what ``net_kernel`` does over QUIC, hazards included.

It answers ``nok`` when both dial and its name is greater, and it hangs for good when it reads one. When its name is
smaller it stops its own dial, but the dialer does not listen: all of ``net_kernel`` waits until that connection ends.
A second attempt of a name whose first is still under way is treated like a simultaneous one. A connected name that
dials again is believed. Its incarnations can't be told apart.

One hang is beyond help (``deadlocked``): our dial ran into its timeout while it hung, and then we let in its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from barrel_p2p.errors import NotConnected
from barrel_p2p.proto import connecting_events as event
from barrel_p2p.term.types import Atom

CREATION = 4


@dataclass(frozen=True)
class Nok:
    """Answer ``nok`` and forget the connection without closing it."""

    accept: int


@dataclass
class _Entry:
    queue: bool = False
    dial: int | None = None
    accept: int | None = None
    channel: int | None = None
    kept: int | None = None  # an accept that waits until ``dial`` has ended


class OtpTable:
    def __init__(self, name: Atom) -> None:
        self._name = name
        self._number = 0
        self._entries: dict[Atom, _Entry] = {}
        self._blocked: Atom | None = None
        self._later: list[event.Fact] = []
        self.deadlocked = False

    def number(self) -> int:
        self._number += 1
        return self._number

    @property
    def names(self) -> list[Atom]:
        return list(self._entries)

    def handle(self, fact: event.Fact, *, now: float) -> list[object]:
        if self._blocked is not None and not self._frees(fact):
            self.deadlocked |= isinstance(fact, event.DialUp) and fact.name == self._blocked
            if not isinstance(fact, event.Wanted):
                self._later.append(fact)
            return []
        orders = self._take(fact)
        while self._blocked is None and self._later:
            orders += self._take(self._later.pop(0))
        return orders

    def _frees(self, fact: event.Fact) -> bool:
        ended = isinstance(fact, event.DialFailed | event.DialYielded)
        return ended and fact.name == self._blocked  # type: ignore[union-attr]

    def _take(self, fact: event.Fact) -> list[object]:
        if isinstance(fact, event.Stopped):
            raise AssertionError("an Erlang node dies, it does not stop")
        entry = self._entries.setdefault(fact.name, _Entry())
        orders = self._decide(fact, fact.name, entry)
        if entry == _Entry():
            del self._entries[fact.name]
        return orders

    def _decide(self, fact: event.Fact, name: Atom, entry: _Entry) -> list[object]:
        match fact:
            case event.Wanted() if not entry.queue and entry.channel is None:
                entry.queue = True
                if entry.accept is not None:
                    return [event.Queue(name)]
                entry.dial = self.number()
                return [event.Queue(name), event.Dial(name, entry.dial)]
            case event.DialFailed(dial=dial) | event.DialYielded(dial=dial) if entry.dial == dial:
                entry.dial = None
                if self._blocked == name:
                    self._blocked = None
                    entry.accept, entry.kept = entry.kept, None
                    assert entry.accept is not None
                    return [event.LetIn(entry.accept, True)]
                return self._give_up(name, entry)
            case event.PeerNamed(accept=accept):
                return self._peer_named(name, entry, accept)
            case event.AcceptFailed(accept=accept) if entry.accept == accept:
                entry.accept = None
                return self._give_up(name, entry)
            case event.DialUp(dial=number) | event.AcceptUp(accept=number) if number in (entry.dial, entry.accept):
                entry.dial = entry.accept = None
                entry.channel, entry.queue = number, False
                return [event.Up(name, number)]
            case event.ChannelLost(channel=channel) if entry.channel == channel:
                entry.channel = None
                return [event.Down(name, "lost")]
            case event.DisconnectAsked() if entry.channel is not None:
                channel, entry.channel = entry.channel, None
                return [event.Close(channel, "asked"), event.Down(name, "asked")]
        return []

    def _give_up(self, name: Atom, entry: _Entry) -> list[object]:
        if not entry.queue:
            return []
        entry.queue = False
        return [event.GiveUp(name, NotConnected("failed"))]

    def _peer_named(self, name: Atom, entry: _Entry, accept: int) -> list[object]:
        if entry.channel is not None:  # status alive, and the dialer says that it knows better
            channel, entry.channel, entry.accept = entry.channel, None, accept
            return [event.Close(channel, "believed"), event.Down(name, "believed"), event.LetIn(accept)]
        if entry.dial is None and entry.accept is None:
            entry.accept = accept
            return [event.LetIn(accept)]
        if self._name > name:
            return [Nok(accept)]
        if entry.accept is not None:
            old, entry.accept = entry.accept, accept
            return [event.Drop(old, "remarked"), event.LetIn(accept)]
        entry.kept = accept
        self._blocked = name
        return []
