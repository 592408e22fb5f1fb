"""Leases over a line of neighbours that tell each other their news: who counts as alive, and after what."""

from __future__ import annotations

import pytest

from barrel_p2p.proto.node_leases import REMEMBER_MS, Goodbye, Heard, NodeLeases, Tick
from barrel_p2p.term.types import Atom

WALL_MS = 1_795_337_344_000
TICK_MS = 1000
HOUR_MS = 3_600_000


class Line:
    """Nodes in a row, each with its neighbours to the left and right, and a wall clock that may be wrong."""

    def __init__(self, length: int) -> None:
        self.names = [Atom(f"n{number}@h") for number in range(length)]
        self.leases = {name: NodeLeases(name) for name in self.names}
        self.running = dict.fromkeys(self.names, True)
        self.ahead = dict.fromkeys(self.names, 0)
        self.passed = 0
        self.refused = 0

    def wall_ms(self, name: Atom) -> int:
        return WALL_MS + self.passed + self.ahead[name]

    def neighbours(self, name: Atom) -> list[Atom]:
        at = self.names.index(name)
        near = self.names[max(at - 1, 0) : at] + self.names[at + 1 : at + 2]
        return [other for other in near if self.running[other]]

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.passed += TICK_MS
            for name in self.names:
                if self.running[name]:
                    self.leases[name].write(Tick(TICK_MS, beat=True), self.wall_ms(name))
                    self.tell(name)

    def tell(self, name: Atom) -> None:
        news = self.leases[name].news()
        for other in self.neighbours(name):
            applied = self.leases[other].write(Heard(news), self.wall_ms(other))
            self.refused += len(applied.refused)

    def restart(self, name: Atom, *, ahead_ms: int) -> None:
        self.leases[name] = NodeLeases(name)
        self.ahead[name] = ahead_ms
        self.running[name] = True

    def who_believe_in(self, name: Atom) -> list[Atom]:
        return [other for other in self.names if self.running[other] and self.leases[other].alive(name)]


@pytest.mark.parametrize("crashed", [True, False])
def test_a_node_that_restarts_with_an_earlier_clock_is_alive_again_at_once(crashed: bool) -> None:
    """Its words bear smaller numbers than those it is remembered for; a neighbour tells it."""
    line = Line(5)
    first = line.names[0]
    line.ahead[first] = 5 * HOUR_MS
    line.tick(10)
    assert line.who_believe_in(first) == line.names
    if not crashed:
        line.leases[first].write(Goodbye(), line.wall_ms(first))
        line.tell(first)
    line.running[first] = False
    line.tick(20)
    assert line.who_believe_in(first) == []
    line.restart(first, ahead_ms=0)
    line.tick(10)
    assert line.who_believe_in(first) == line.names
    assert not line.refused


def test_a_number_that_its_node_refuses_is_forgotten_in_time() -> None:
    """Those who forgot it early must not be told of it by those who did not yet, and these by them later."""
    line = Line(5)
    first, _, third, *_ = line.names
    line.ahead[first] = 20 * HOUR_MS
    line.tick(10)
    line.running[first] = False
    line.tick(20)
    line.running[third] = False  # a while that it does not count: it forgets later than its neighbours
    line.tick(7)
    line.running[third] = True
    line.restart(first, ahead_ms=-10 * HOUR_MS)
    line.tick(REMEMBER_MS // TICK_MS + 20)
    assert line.who_believe_in(first) == line.names


def test_who_said_goodbye_does_not_come_back_by_a_copy() -> None:
    alice, bob = NodeLeases(Atom("alice@h")), NodeLeases(Atom("bob@h"))
    alice.write(Tick(TICK_MS, beat=True), WALL_MS)
    bob.write(Heard(alice.news()), WALL_MS)
    alice.write(Goodbye(), WALL_MS)
    for copy in alice.snapshot(WALL_MS + 1, python=True):
        bob.merge(copy, WALL_MS + 1)
    assert not bob.alive(Atom("alice@h"))


def test_a_goodbye_passes_on_from_neighbour_to_neighbour() -> None:
    """A broadcast may have to go through a node that stops as well."""
    line = Line(4)
    first = line.names[0]
    line.tick(8)
    line.leases[first].write(Goodbye(), line.wall_ms(first))
    line.tell(first)
    line.running[first] = False
    line.tick(3)
    assert line.who_believe_in(first) == []


def test_a_late_word_does_not_wake_the_dead() -> None:
    line = Line(3)
    first, second, _ = line.names
    line.tick(5)
    late = line.leases[first].news() or {first: (line.wall_ms(first), 10_000)}
    line.tick(1)
    line.leases[first].write(Goodbye(), line.wall_ms(first))
    line.tell(first)
    line.running[first] = False
    line.leases[second].write(Heard(late), line.wall_ms(second))
    line.tick(5)
    assert line.who_believe_in(first) == []
