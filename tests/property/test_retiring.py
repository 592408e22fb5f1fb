"""Two nodes close an unused channel: whatever is under way and whoever asks when, no message is lost."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from barrel_p2p.proto import retiring
from barrel_p2p.proto.retiring import Retiring
from barrel_p2p.term.types import Atom

A, B = Atom("a@h"), Atom("b@h")


@dataclass
class Side:
    """A node: what it held back, and what the other one has sent it."""

    name: Atom
    machine: Retiring = field(default_factory=Retiring)
    retired: bool = False
    held: list[int] = field(default_factory=list)
    got: list[int] = field(default_factory=list)
    timer: float | None = None
    using: bool = False


class World:
    """Two sides and a channel in order, on which everything takes as long as the test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sides = {A: Side(A), B: Side(B)}
        self.wires: dict[Atom, deque[object]] = {A: deque(), B: deque()}  # by who reads
        self.connections = 1
        self.sent: dict[Atom, list[int]] = {A: [], B: []}

    def other(self, name: Atom) -> Atom:
        return B if name == A else A

    def send(self, name: Atom) -> None:
        """A user's message."""
        side, number = self.sides[name], len(self.sent[name])
        self.sent[name].append(number)
        if side.retired:
            side.held.append(number)
        else:
            self.wires[self.other(name)].append(number)

    def read(self, name: Atom) -> None:
        """The next thing on the wire arrives."""
        if self.wires[name]:
            item = self.wires[name].popleft()
            side, peer = self.sides[name], self.other(name)
            if isinstance(item, int):
                side.got.append(item)
            elif isinstance(item, retiring.Ask):
                self.tell(name, retiring.CloseAsked(peer, item.number, side.using))
            elif isinstance(item, retiring.Reply):
                self.tell(name, retiring.Answered(peer, item.number, item.answer))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for name, side in self.sides.items():
            if side.timer is not None and side.timer <= self.now:
                side.timer = None
                self.tell(name, retiring.TimerFired(self.other(name)))

    def tell(self, name: Atom, fact: retiring.Fact) -> None:
        side = self.sides[name]
        for order in side.machine.handle(fact, now=self.now):
            match order:
                case retiring.Retire():
                    assert not side.retired
                    side.retired = True
                case retiring.Restore():
                    self.back(name)
                case retiring.Ask() | retiring.Reply():
                    self.wires[self.other(name)].append(order)
                case retiring.StartTimer(at=at):
                    side.timer = at
                case retiring.StopTimer():
                    side.timer = None
                case retiring.Close():
                    self.close(name)

    def back(self, name: Atom) -> None:
        side = self.sides[name]
        assert side.retired
        side.retired = False
        self.wires[self.other(name)].extend(side.held)
        side.held.clear()

    def close(self, closer: Atom) -> None:
        """The connection ends with all that is on it; what was held back makes the next one."""
        lost = [item for wire in self.wires.values() for item in wire if isinstance(item, int)]
        assert not lost, f"closed with {lost} under way"
        for wire in self.wires.values():
            wire.clear()
        self.connections += 1
        for name, side in self.sides.items():
            self.tell(name, retiring.ChannelGone(self.other(name)))
            if side.retired:
                self.back(name)


step = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([A, B])),
    st.tuples(st.just("read"), st.sampled_from([A, B])),
    st.tuples(st.just("unused"), st.sampled_from([A, B])),
    st.tuples(st.just("using"), st.sampled_from([A, B]), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.9, 1.9, 2.0, 2.1, 4.0])),
)


def play(steps: list[tuple[object, ...]]) -> World:
    world = World()
    for what, *args in steps:
        match what:
            case "send":
                world.send(args[0])  # type: ignore[arg-type]
            case "read":
                world.read(args[0])  # type: ignore[arg-type]
            case "unused":
                world.tell(args[0], retiring.Unused(world.other(args[0])))  # type: ignore[arg-type]
            case "using":
                world.sides[args[0]].using = args[1]  # type: ignore[index, assignment]
            case "wait":
                world.wait(args[0])  # type: ignore[arg-type]
    return world


@settings(max_examples=2000, deadline=None)
@given(st.lists(step, max_size=60))
def test_no_message_is_lost_and_all_arrive_in_order(steps: list[tuple[object, ...]]) -> None:
    world = play(steps)
    for _ in range(3):  # in the end everything arrives and every wait is over
        while any(world.wires.values()):
            world.read(A)
            world.read(B)
        world.wait(10.0)
    while any(world.wires.values()):
        world.read(A)
        world.read(B)
    assert not any(side.retired or side.held for side in world.sides.values())
    assert world.sides[A].got == world.sent[B]
    assert world.sides[B].got == world.sent[A]


def test_an_unused_channel_is_closed_by_agreement() -> None:
    world = play([("unused", A), ("send", A), ("read", B), ("send", B), ("read", A)])
    assert world.connections == 2 and not world.sides[A].retired and not world.sides[B].retired
    assert list(world.wires[B]) == [0] and list(world.wires[A]) == [0], (
        "what was held back goes over the next connection"
    )


def test_both_ask_at_once() -> None:
    world = play([("unused", A), ("unused", B), ("read", A), ("read", B), ("read", A)])
    assert world.connections == 2


def test_a_used_channel_stays() -> None:
    world = play([("using", B, True), ("unused", A), ("send", A), ("read", B), ("read", A)])
    assert world.connections == 1 and list(world.wires[B]) == [0]


def test_silence_brings_the_channel_back() -> None:
    world = play([("unused", A), ("send", A), ("wait", 2.1)])
    assert world.connections == 1 and not world.sides[A].retired and len(world.wires[B]) == 2
