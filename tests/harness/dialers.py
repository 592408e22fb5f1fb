"""A world of nodes that dial each other, without sockets or clocks: each node is a ``Connecting`` table, the handshake
of a connection is five messages, and a schedule of bytes decides what happens next.

Connections deliver in order, each for itself; a close overtakes what is on its way, or is lost. Nodes die with or
without a word, come back as another incarnation, and may have a twin: a live node with the same name. Strangers claim
names without knowing the cookie. Every order is
checked when it is performed; ``settle`` then lets the network fall quiet and checks what is left.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from barrel_p2p.errors import NotConnected
from barrel_p2p.proto.connecting import MAX_DIALS, Connecting
from barrel_p2p.proto.connecting_events import (
    AcceptFailed,
    AcceptUp,
    AskAlive,
    ChannelLost,
    Close,
    Dial,
    DialFailed,
    DialNamed,
    DialUp,
    DialYielded,
    DisconnectAsked,
    Down,
    Drop,
    Fact,
    GiveUp,
    LetIn,
    PeerNamed,
    Probe,
    Probed,
    Queue,
    StartTimer,
    Stopped,
    StopTimer,
    TimerFired,
    TurnAway,
    Up,
    Wanted,
    Yield,
)
from barrel_p2p.term.types import Atom

from .otp_table import CREATION, Nok, OtpTable

STEP = 7.0  # seconds for a dial to be answered and for each step of the handshake
PROBE = 1.0
IDLE = 60.0  # after which a silent connection is lost
PATIENCE = 7.0


class End:
    """One end of a connection, as the node at that end knows it."""

    def __init__(self, node: Node, wire: Wire, number: int, name: Atom | None, dials: bool) -> None:
        self.node = node
        self.wire = wire
        self.number = number
        self.name = name
        self.dials = dials
        self.state = "dialled" if dials else "opened"  # -> named -> let in -> up; or closed
        self.creation = 0
        self.inbox: deque[tuple[Any, ...]] = deque()
        self.deadline = 0

    @property
    def other(self) -> End | None:
        return self.wire.acceptor if self.dials else self.wire.dialer

    @property
    def open(self) -> bool:
        return self.state != "closed" and not self.node.dead

    def __repr__(self) -> str:
        return f"{self.node}#{self.wire.id}"


class Wire:
    def __init__(self, id: int) -> None:
        self.id = id
        self.lost = False
        self.dialer: End
        self.acceptor: End | None = None
        self.to_acceptor: deque[tuple[Any, ...]] = deque()


class Node:
    """What ``node/routes.py`` is to a real table: performs its orders, and minds that they make sense."""

    def __init__(self, world: World, name: Atom, creation: int) -> None:
        self.world = world
        self.name = name
        self.creation = creation
        self.table = Connecting(
            name,
            patience=PATIENCE,
            max_accepts=world.limit_of_names,
            max_queues=world.limit_of_names,
            asks=world.asks,
        )
        self.ends: dict[int, End] = {}
        self.channels: dict[Atom, End] = {}
        self.queues: dict[Atom, list[int]] = {}
        self.dials: dict[Atom, int] = {}
        self.timers: dict[Atom, object] = {}
        self.probes: dict[int, bool | None] = {}
        self.ups = 0
        self.wishes: set[Atom] = set()
        self.dead = False
        self.stopped = False
        self.sent: dict[Atom, int] = {}
        self.fates: dict[tuple[Atom, int], str] = {}
        self.heard: dict[End, int] = {}

    def __repr__(self) -> str:
        return f"{self.name.partition('@')[0]}/{self.creation}"

    # --- facts ----------------------------------------------------------------------------------------------------

    def tell(self, fact: Fact) -> None:
        if self.dead:
            return
        orders = self.table.handle(fact, now=self.world.now)
        self.world.note(f"{self}: {fact} -> {orders}")
        for order in orders:
            getattr(self, f"_on_{type(order).__name__.lower()}")(order)
        self._check()

    def send(self, name: Atom) -> None:
        """A process sends one numbered message."""
        number = self.sent[name] = self.sent.get(name, 0) + 1
        if name not in self.channels and name not in self.queues:
            self.tell(Wanted(name))
        if name in self.channels:
            assert name not in self.queues, "a queue beside a channel"
            self._transmit(name, number)
        elif name in self.queues:
            self.queues[name].append(number)
        else:
            self._fate(name, number, "lost")

    def _fate(self, name: Atom, number: int, fate: str) -> None:
        assert (name, number) not in self.fates, f"message {number} to {name} was {self.fates[name, number]} before"
        self.fates[name, number] = fate

    def _transmit(self, name: Atom, number: int) -> None:
        self._fate(name, number, "handed over")
        self.world.post(self.channels[name], ("data", number))

    # --- orders ---------------------------------------------------------------------------------------------------

    def _on_queue(self, order: Queue) -> None:
        assert order.name not in self.queues and order.name not in self.channels
        self.queues[order.name] = []
        self.dials[order.name] = 0

    def _on_dial(self, order: Dial) -> None:
        assert order.name in self.queues, "a dial that nobody waits for"
        assert order.name not in self.channels
        assert not any(e.dials and e.name == order.name and e.state != "up" for e in self.ends.values()), "two dials"
        assert order.dial not in self.ends
        self.dials[order.name] = self.dials.get(order.name, 0) + 1
        assert self.dials[order.name] <= MAX_DIALS, f"{self} dials {order.name} again and again"
        self.world.dial(self, order.name, order.dial)

    def _on_letin(self, order: LetIn) -> None:
        end = self.ends[order.accept]
        assert end.state == "named"
        owner = self.channels.get(end.name) if end.name is not None else None
        if owner is not None and owner.creation != end.creation:
            assert self.probes[owner.number] is False, "let in beside a channel that gave a sign of life"
        end.state = "let in"
        self.world.post(end, ("ok",))
        self.world.limit(end)

    def _on_askalive(self, order: AskAlive) -> None:
        end = self.ends[order.accept]
        assert self.world.asks and end.state == "named" and end.name in self.channels
        end.state = "let in"
        self.world.post(end, ("ok",))  # whoever dials us says that the old one is dead
        self.world.limit(end)

    def _on_turnaway(self, order: TurnAway) -> None:
        end = self.ends[order.accept]
        assert end.state == "named" and end.name is not None
        if end.name != self.name:
            channel = self.channels[end.name]
            assert channel.creation != end.creation and self.probes[channel.number], (
                "turned away without a sign of life"
            )
        self.world.close(end, "refused")

    def _on_yield(self, order: Yield) -> None:
        end = self.ends[order.accept]
        assert end.state == "named" and not end.dials
        self.world.close(end, "yielded")

    def _on_drop(self, order: Drop) -> None:
        end = self.ends[order.connection]
        assert end.state not in ("up", "closed")
        self.world.close(end, "dropped")

    def _on_probe(self, order: Probe) -> None:
        end = self.channels[order.name]
        assert end.number == order.channel and self.probes.get(end.number, False) is not None, "two probes at once"
        self.probes[end.number] = None
        self.world.post(end, ("ping",))
        self.world.at(PROBE, lambda: self._answered(end, False))

    def _answered(self, end: End, alive: bool) -> None:
        if self.probes.get(end.number, False) is None:
            self.probes[end.number] = alive
            assert end.name is not None
            self.tell(Probed(end.name, end.number, alive))

    def _on_up(self, order: Up) -> None:
        end = self.ends[order.connection]
        assert order.name not in self.channels, "two channels up for one name"
        assert end.state == "up" and end.name == order.name
        self.channels[order.name] = end
        self.ups += 1
        for number in self.queues.pop(order.name, []):
            self._transmit(order.name, number)

    def _on_close(self, order: Close) -> None:
        end = self.ends[order.connection]
        assert end.state == "up"
        if "replaced" in order.why:
            self._check_replaced(end)
        self.world.close(end, "closed")

    def _check_replaced(self, end: End) -> None:
        """Who replaces a channel has proved the cookie; a stranger never does."""
        proven = [e for e in self.ends.values() if e.name == end.name and e.state == "up" and e is not end]
        assert proven, f"{self} gives its channel to {end.name} up before anybody proved the cookie"
        (newcomer,) = proven
        if newcomer.creation == end.creation:
            self._check_unused(end)
        elif not self.world.asks:
            silent = self.probes[end.number] is False
            assert silent, f"{self} gives the name {end.name} away, though its owner gave a sign of life"

    def _check_unused(self, end: End) -> None:
        other = end.other
        in_use = other is not None and other.open and other.state == "up" and not end.wire.lost
        assert not in_use, f"{self} breaks a channel that is in use at both ends"

    def _on_down(self, order: Down) -> None:
        end = self.channels.pop(order.name)
        assert end.state == "closed"
        if order.name in self.wishes:
            self.world.at(0.0, lambda: self.wish(order.name))

    def _on_giveup(self, order: GiveUp) -> None:
        for number in self.queues.pop(order.name, []):
            self._fate(order.name, number, "lost")
        if order.name in self.wishes and not self.stopped:
            self.world.at(0.1, lambda: self.wish(order.name))

    def wish(self, name: Atom) -> None:
        """Somebody insists on a connection."""
        self.wishes.add(name)
        if not self.dead and name not in self.channels and name not in self.queues:
            self.tell(Wanted(name))

    def _on_starttimer(self, order: StartTimer) -> None:
        token = self.timers[order.name] = object()
        self.world.at(order.at - self.world.now, lambda: self._fire(order.name, token))

    def _on_stoptimer(self, order: StopTimer) -> None:
        del self.timers[order.name]

    def _fire(self, name: Atom, token: object) -> None:
        if self.timers.get(name) is token:
            del self.timers[name]
            self.tell(TimerFired(name))

    # --- what must always hold ------------------------------------------------------------------------------------

    def _check(self) -> None:
        asking = [e.name for e in self.ends.values() if not e.dials and e.state in ("named", "let in")]
        assert len(asking) == len(set(asking)), f"{self} lets two connections of one name in: {asking}"
        assert len(asking) <= self.world.limit_of_names, f"{self} lets {len(asking)} connections in at once"
        assert len(self.queues) <= self.world.limit_of_names
        busy = {e.name for e in self.ends.values() if e.name is not None and (e.dials or e.state != "opened")}
        busy |= set(self.queues) | set(self.channels)
        assert set(self.table.names) <= busy, f"{self} remembers {set(self.table.names) - busy} for nothing"
        for end in self.ends.values():
            if end.state == "named" and not end.dials:
                owner = self.channels.get(end.name) if end.name is not None else None
                assert owner is not None and self.probes[owner.number] is None, f"nobody will ever answer {end}"
        for name in self.queues:
            working = name in self.timers or any(
                e.name == name and e.state not in ("up", "opened") for e in self.ends.values()
            )
            assert working, f"{self} waits for {name} and nothing is done about it"

    def stop(self) -> None:
        self.stopped = True
        self.wishes.clear()
        self.tell(Stopped())
        assert not self.channels and not self.queues and not self.table.names
        for end in list(self.ends.values()):
            self.world.close(end, "closed")


class OtpNode(Node):
    """An Erlang node; what it should not have to bear is checked here."""

    def __init__(self, world: World, name: Atom) -> None:
        super().__init__(world, name, CREATION)
        self.table = OtpTable(name)  # type: ignore[assignment]

    def _on_letin(self, order: LetIn) -> None:
        if order.accept in self.ends:  # or it ended while net_kernel hung
            super()._on_letin(order)

    def _on_drop(self, order: Drop) -> None:
        if order.connection in self.ends:
            super()._on_drop(order)

    def _on_close(self, order: Close) -> None:
        if order.connection in self.ends:
            super()._on_close(order)

    def _on_nok(self, order: Nok) -> None:
        if order.accept not in self.ends:
            return
        end = self.ends[order.accept]
        end.state = "deaf"
        self.world.post(end, ("nok",))

    def _check_replaced(self, end: End) -> None:
        """It believes whoever comes."""

    def _check(self) -> None:
        """It is not on trial."""

    def wish(self, name: Atom) -> None:
        super().wish(name)
        if not self.dead and name not in self.channels and name not in self.queues:  # net_kernel hangs
            self.world.at(1.0, lambda: self.wish(name))


class Stranger(Node):
    """Claims the name of a node, perhaps its incarnation too, and does not know the cookie."""

    def tell(self, fact: Fact) -> None:
        """It has no table."""


class World:
    """``limit`` bounds what a table does at once; in a ``peaceful`` world nobody dies, nothing is lost or late; a world
    that ``asks`` is that of TCP; one with ``strangers`` has them."""

    def __init__(
        self,
        names: list[str],
        schedule: bytes,
        *,
        limit: int = 3,
        peaceful: bool = False,
        otp: str = "",
        asks: bool = False,
        strangers: bool = False,
    ) -> None:
        self.now = 0.0
        self._strangers = strangers
        self.limit_of_names = limit
        self.asks = asks
        self._peaceful = peaceful
        self._otp = otp
        self.story: list[str] = []
        self.names = [Atom(f"{name}@host") for name in names]
        self.nodes: dict[Atom, Node] = {}
        self.twins: list[Node] = []
        self.all: list[Node] = []
        self.wires: list[Wire] = []
        self._bytes: Iterator[int] = iter(schedule)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer = 0
        self._creation = 0
        self._quiet = False
        for name in self.names:
            self.nodes[name] = self.born(name)

    def note(self, text: str) -> None:
        self.story.append(f"{self.now:8.3f} {text}")

    def born(self, name: Atom) -> Node:
        self._creation += 1
        node = OtpNode(self, name) if name[0] in self._otp else Node(self, name, self._creation + CREATION)
        self.all.append(node)
        return node

    # --- time -----------------------------------------------------------------------------------------------------

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self._timer += 1
        heapq.heappush(self._timers, (self.now + delay, self._timer, action))

    def wait(self) -> bool:
        """Let time pass until the next timer."""
        if not self._timers:
            return False
        when, _, action = heapq.heappop(self._timers)
        self.now = max(self.now, when)
        action()
        return True

    def limit(self, end: End) -> None:
        """The next step of the handshake must come within ``STEP``."""
        end.deadline += 1
        deadline = end.deadline

        def over() -> None:
            if end.open and end.state != "up" and end.deadline == deadline:
                self.ended(end, "timeout")
                self.close(end, "timeout")

        self.at(STEP, over)

    # --- the network ----------------------------------------------------------------------------------------------

    def dial(self, node: Node, name: Atom, number: int) -> None:
        wire = Wire(len(self.wires))
        self.wires.append(wire)
        wire.dialer = node.ends[number] = End(node, wire, number, name, dials=True)
        wire.to_acceptor.append(("open", name))
        self.limit(wire.dialer)

    def inbox_of_other(self, end: End) -> deque[tuple[Any, ...]]:
        return end.wire.to_acceptor if end.dials else end.wire.dialer.inbox

    def post(self, end: End, message: tuple[Any, ...]) -> None:
        if not end.wire.lost:
            self.inbox_of_other(end).append(message)

    def close(self, end: End, why: str) -> None:
        """This end closes; the word may overtake what was sent before, or never arrive."""
        if end.state == "closed":
            return
        end.state = "closed"
        del end.node.ends[end.number]
        inbox = self.inbox_of_other(end)
        luck = 0 if self._quiet else self.choose(2 if self._peaceful else 4)
        if luck == 1:
            inbox.clear()
        if luck != 2 and not end.wire.lost:
            inbox.append(("close", why))
        self.gone(end)

    def gone(self, end: End) -> None:
        """Nobody is at this end any more: the other one notices by silence, if by nothing else."""
        other = end.other

        def silence() -> None:
            if other is not None and other.open:
                self.ended(other, "silence")

        self.at(IDLE, silence)

    def lose(self, wire: Wire) -> None:
        if not wire.lost:
            self.note(f"the network loses connection {wire.id}")
            wire.lost = True
            wire.to_acceptor.clear()
            wire.dialer.inbox.clear()
            self.gone(wire.dialer)
            if wire.acceptor is not None:
                self.gone(wire.acceptor)

    def ended(self, end: End, why: str) -> None:
        """The connection is over for the node at this end, without its doing."""
        state, end.state = end.state, "closed"
        node, name, number = end.node, end.name, end.number
        end.state = "closed"
        del node.ends[number]
        self.gone(end)
        if name is None or state == "opened":
            return
        if state == "up":
            node.tell(ChannelLost(name, number, why))
        elif not end.dials:
            node.tell(AcceptFailed(name, number))
        elif why == "yielded":
            node.tell(DialYielded(name, number))
        else:
            node.tell(DialFailed(name, number, NotConnected(why)))

    def deliverable(self) -> list[tuple[Wire, bool]]:
        ways = []
        for wire in self.wires:
            if wire.to_acceptor:
                ways.append((wire, True))
            if wire.dialer.inbox:
                ways.append((wire, False))
        return ways

    def deliver(self, wire: Wire, to_acceptor: bool) -> None:
        message = (wire.to_acceptor if to_acceptor else wire.dialer.inbox).popleft()
        if message[0] == "open":
            self._open(wire, message[1])
            return
        end = wire.acceptor if to_acceptor else wire.dialer
        if end is not None and end.open:
            self.note(f"{end} reads {message}")
            getattr(self, f"_read_{message[0]}")(end, *message[1:])

    def _open(self, wire: Wire, name: Atom) -> None:
        node = self.nodes[name]
        if node.dead or node.stopped:
            if wire.dialer.open:
                self.ended(wire.dialer, "unreachable")
            return
        number = node.table.number()
        wire.acceptor = end = node.ends[number] = End(node, wire, number, None, dials=False)
        self.limit(end)
        self.post(end, ("opened",))

    def _read_opened(self, end: End) -> None:
        assert end.name is not None
        end.state = "named"
        end.node.tell(DialNamed(end.name, end.number))
        self.post(end, ("name", end.node.name, end.node.creation))
        self.limit(end)

    def _read_name(self, end: End, name: Atom, creation: int) -> None:
        end.name, end.creation, end.state = name, creation, "named"
        self.limit(end)
        end.node.tell(PeerNamed(name, end.number, creation))

    def _read_ok(self, end: End) -> None:
        if isinstance(end.node, Stranger):
            self.close(end, "another cookie")
            return
        self.post(end, ("answer",))
        self.limit(end)

    def _read_nok(self, end: End) -> None:
        assert not isinstance(end.node, OtpNode), "an Erlang node reads nok and hangs for good"
        self.ended(end, "yielded")
        if end.other is not None and end.other.open:
            self.post(end, ("close", "nok"))

    def _read_answer(self, end: End) -> None:
        end.state = "up"
        self.post(end, ("ack", end.node.creation))
        assert end.name is not None
        end.node.tell(AcceptUp(end.name, end.number))

    def _read_ack(self, end: End, creation: int) -> None:
        end.state, end.creation = "up", creation
        assert end.name is not None
        end.node.tell(DialUp(end.name, end.number, creation))

    def _read_data(self, end: End, number: int) -> None:
        assert number > end.node.heard.get(end, 0), "messages out of order"
        end.node.heard[end] = number

    def _read_ping(self, end: End) -> None:
        self.post(end, ("pong",))

    def _read_pong(self, end: End) -> None:
        end.node._answered(end, True)

    def _read_close(self, end: End, why: str) -> None:
        self.ended(end, why)

    # --- the schedule ---------------------------------------------------------------------------------------------

    def choose(self, among: int) -> int:
        return next(self._bytes, 0) % among if among > 1 else 0

    def run(self) -> None:
        """Do what the schedule says until it ends, then let everything calm down."""
        while (choice := next(self._bytes, None)) is not None:
            self._turn(choice % 20 if self._peaceful else choice)
        self.settle()

    def _turn(self, choice: int) -> None:
        ways = self.deliverable()
        match choice % 32:
            case n if n < 14 and ways:
                self.deliver(*ways[self.choose(len(ways))])
            case n if n < 20:
                node = self._some()
                others = [name for name in self.names if name != node.name]
                if not node.dead:
                    node.send(others[self.choose(len(others))])
            case n if n < 24 or (n == 24 and not self._strangers):
                self.wait()
            case 25 if self.wires:
                self.lose(self.wires[-1 - self.choose(min(4, len(self.wires)))])
            case 26:
                self.kill(self._some())
            case 27:
                node = self._some()
                if node.dead or node.stopped:
                    self.restart(node.name)
            case 28 | 24 if self._strangers:
                self.intrude()
            case 28 if len(self.twins) < 2 and not self._otp:
                self.twins.append(self.born(self._some().name))
            case 29:
                node = self._some()
                for name in list(node.channels)[:1]:
                    node.tell(DisconnectAsked(name))
            case 30:
                node = self._some()
                if not node.dead and not node.stopped and not isinstance(node, OtpNode):
                    self.note(f"{node} stops")
                    node.stop()
            case _:
                for wire, to_acceptor in ways:
                    self.deliver(wire, to_acceptor)

    def _some(self) -> Node:
        nodes = [*self.nodes.values(), *self.twins]
        return nodes[self.choose(len(nodes))]

    def kill(self, node: Node) -> None:
        if node.dead:
            return
        self.note(f"{node} dies")
        node.dead = True
        told = self.choose(2)
        for end in list(node.ends.values()):
            if told and not end.wire.lost:
                self.inbox_of_other(end).append(("close", "unreachable"))
            self.gone(end)

    def intrude(self) -> None:
        """A stranger claims the name of one node and dials another."""
        claimed = self._some()
        others = [name for name in self.names if name != claimed.name]
        stranger = Stranger(self, claimed.name, claimed.creation + self.choose(2))
        self.dial(stranger, others[self.choose(len(others))], stranger.table.number())

    def restart(self, name: Atom) -> None:
        old = self.nodes[name]
        if not old.dead:
            self.kill(old)
        self.nodes[name] = self.born(name)
        self.note(f"{self.nodes[name]} starts")

    # --- what must hold in the end --------------------------------------------------------------------------------

    def settle(self) -> None:
        """The network falls quiet: nothing is lost or late any more, all nodes live, no name has two."""
        self.note("--- quiet from now on ---")
        self._quiet = True
        for twin in self.twins:
            self.kill(twin)
        for name in self.names:
            if self.nodes[name].dead or self.nodes[name].stopped:
                self.restart(name)
        wishes = []
        for one in self.names:
            for other in self.names:
                if one != other and self.choose(3) == 0:
                    wishes.append((one, other))
                    self.nodes[one].wish(other)
        if self._peaceful:
            self._check_peace()
        end = self.now + IDLE + 10 * STEP
        ups = sum(node.ups for node in self.nodes.values())
        self._calm_down(end)
        if any(isinstance(node.table, OtpTable) and node.table.deadlocked for node in self.all):
            return
        for one in self.names:
            for other in self.names:
                if one < other:
                    self._check_pair(one, other, (one, other) in wishes or (other, one) in wishes)
        for node in self.nodes.values():
            node.wishes.clear()
            assert not node.queues, f"{node} still waits for {list(node.queues)}"
            assert not node.timers, f"{node} has timers left for {list(node.timers)}"
            assert set(node.table.names) == set(node.channels), f"{node} remembers {node.table.names}"
            assert set(node.ends) == {e.number for e in node.channels.values()}, f"{node} has connections left"
        pairs = len(self.names) * (len(self.names) - 1)
        assert sum(node.ups for node in self.nodes.values()) - ups <= 4 * pairs, "channels come and go"
        self._account()
        for node in self.nodes.values():
            for name in list(node.channels):
                node.tell(DisconnectAsked(name))
        self._calm_down(self.now + IDLE + 10 * STEP)
        for node in self.nodes.values():
            assert not node.table.names and not node.ends, f"{node} remembers {node.table.names} after the end"

    def _check_peace(self) -> None:
        """Without losses and timeouts every message arrives, on the first connection, without any timer."""
        self._calm_down(self.now)
        assert self.now == 0.0
        for node in self.all:
            for name, count in node.sent.items():
                fates = [node.fates.get((name, i)) for i in range(1, count + 1)]
                assert set(fates) == {"handed over"}, f"{node} lost messages to {name} in peace: {fates}"
                heard = [e for e in self.nodes[name].heard if e.other is not None and e.other.node is node]
                assert [self.nodes[name].heard[e] for e in heard] == [count], f"{name} did not hear all of {node}"
            assert node.ups <= len(self.names) - 1, f"{node} changed channels in peace"

    def _calm_down(self, end: float) -> None:
        while True:
            while ways := self.deliverable():
                for wire, to_acceptor in ways:
                    if wire.to_acceptor if to_acceptor else wire.dialer.inbox:
                        self.deliver(wire, to_acceptor)
            if not self._timers or self._timers[0][0] > end:
                return
            self.wait()

    def _check_pair(self, one: Atom, other: Atom, wanted: bool) -> None:
        here, there = self.nodes[one].channels.get(other), self.nodes[other].channels.get(one)
        wires = (here and here.wire.id, there and there.wire.id)
        assert wires[0] == wires[1], f"{one} and {other} use different connections: {wires}"
        assert here is not None or not wanted, f"{one} and {other} are not connected, though it is wanted"

    def _account(self) -> None:
        """Every message was handed over in order or reported lost, once; nothing else can have become of it."""
        for node in self.all:
            for name, count in node.sent.items():
                if not node.dead:
                    missing = [i for i in range(1, count + 1) if (name, i) not in node.fates]
                    assert not missing, f"{node} forgot the messages {missing} to {name}"
