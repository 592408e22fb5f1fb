"""Several ``GlobalNames`` machines over a network that delays, cuts and stalls, in virtual time.

What arrives from one node arrives in order, its comings and goings among it. A cut loses what was on its way. A stalled
node does nothing for a while, like a stopped process. Every run is told by its seed alone.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from barrel_p2p.proto import global_events as event
from barrel_p2p.proto.global_names import GlobalNames
from barrel_p2p.term.types import Atom, Pid

Thunk = Callable[[], None]


class Member:
    """One node: its machine, its processes, what it watches."""

    def __init__(self, world: World, name: str, creation: int, mesh: bool) -> None:
        self.world = world
        self.name = Atom(f"{name}@h")
        self.creation = creation
        self.server = Pid(self.name, 5, 0, creation)
        seed = world.rng.getrandbits(32)
        self.machine = GlobalNames(self.name, self.server, creation, mesh=mesh, rng=random.Random(seed))
        self.mesh = mesh
        self.alive: dict[Pid, None] = {self.server: None}
        self.watchers: dict[Pid, dict[tuple[Atom, int], None]] = {}
        self.watching: dict[int, Pid] = {}
        self.calls: dict[int, Atom] = {}
        self.peers: dict[Atom, None] = {}  # as this node sees it
        self.done: dict[int, bool] = {}
        self.asked = 0
        self.running = True
        self.stalled_until = 0.0
        self.wake = 0
        self.next_pid = 100
        self.logs: list[str] = []

    # --- what a test does -------------------------------------------------------------------------------------------

    def spawn(self) -> Pid:
        self.next_pid += 1
        pid = Pid(self.name, self.next_pid, 0, self.creation)
        self.alive[pid] = None
        return pid

    def register(self, name: Any, pid: Pid, method: Any = "exit", anew: bool = False) -> int:
        self.asked += 1
        self.feed(event.RegisterAsked(self.asked, name, pid, method, anew))
        return self.asked

    def unregister(self, name: Any) -> int:
        self.asked += 1
        self.feed(event.UnregisterAsked(self.asked, name))
        return self.asked

    def die(self, pid: Pid) -> None:
        if self.alive.pop(pid, self) is self:
            return
        for watcher, number in self.watchers.pop(pid, {}):
            if watcher == self.name:
                self.down(number)
            else:
                self.world.post(self.name, watcher, ("down", number))

    # --- driver -----------------------------------------------------------------------------------------------------

    def feed(self, fact: event.Fact) -> None:
        if not self.running:
            return
        for order in self.machine.handle(fact, now=self.world.now):
            getattr(self, "_" + type(order).__name__.lower())(order)

    def down(self, number: int) -> None:
        if self.watching.pop(number, None) is not None:
            self.feed(event.Died(number))

    def up(self, peer: Atom) -> None:
        self.peers[peer] = None
        self.feed(event.NodeUp(peer, kin=True))

    def lost(self, peer: Atom) -> None:
        if self.peers.pop(peer, self) is self:
            return
        for number, pid in list(self.watching.items()):
            if pid.node == peer:
                self.down(number)
        for watched in self.watchers.values():
            for key in [key for key in watched if key[0] == peer]:
                del watched[key]
        for call, node in list(self.calls.items()):
            if node == peer:
                del self.calls[call]
                self.feed(event.CallFailed(call))
        self.feed(event.NodeDown(peer))

    def receive(self, source: Atom, message: tuple[Any, ...]) -> None:
        match message:
            case ("cast", what):
                self.feed(event.CastIn(what))
            case ("tell", what):
                self.feed(event.Told(what))
            case ("call", number, sender, request):
                self.feed(event.Called((sender, ("tag", number)), request))
            case ("reply", number, value):
                if self.calls.pop(number, None) is not None:
                    self.feed(event.Answered(number, value))
            case ("monitor", number, pid):
                if pid in self.alive:
                    self.watchers.setdefault(pid, {})[source, number] = None
                else:
                    self.world.post(self.name, source, ("down", number))
            case ("demonitor", number, pid):
                self.watchers.get(pid, {}).pop((source, number), None)
            case ("down", number):
                self.down(number)
            case ("exit", pid):
                self.die(pid)

    def _reply(self, order: event.Reply) -> None:
        pid, (_, number) = order.to
        self.world.post(self.name, pid.node, ("reply", number, order.value))

    def _cast(self, order: event.Cast) -> None:
        self.world.reach(self, order.node)
        self.world.post(self.name, order.node, ("cast", order.message))

    def _tell(self, order: event.Tell) -> None:
        self.world.post(self.name, order.node, ("tell", order.message))

    def _call(self, order: event.Call) -> None:
        self.calls[order.call] = order.node
        if self.world.reach(self, order.node):
            self.world.post(self.name, order.node, ("call", order.call, self.server, order.request))
        else:
            self.world.later(0.001, lambda: self._no_call(order.call))

    def _no_call(self, call: int) -> None:
        if self.calls.pop(call, None) is not None:
            self.feed(event.CallFailed(call))

    def _forgetcall(self, order: event.ForgetCall) -> None:
        self.calls.pop(order.call, None)

    def _monitor(self, order: event.Monitor) -> None:
        self.watching[order.monitor] = order.pid
        node = order.pid.node
        if node == self.name:
            if order.pid in self.alive:
                self.watchers.setdefault(order.pid, {})[self.name, order.monitor] = None
            else:
                self.world.later(0.0, lambda: self.down(order.monitor))
        elif self.world.reach(self, node):
            self.world.post(self.name, node, ("monitor", order.monitor, order.pid))
        else:
            self.world.later(0.001, lambda: self.down(order.monitor))

    def _demonitor(self, order: event.Demonitor) -> None:
        pid = self.watching.pop(order.monitor, None)
        if pid is None:
            return
        if pid.node == self.name:
            self.watchers.get(pid, {}).pop((self.name, order.monitor), None)
        else:
            self.world.post(self.name, pid.node, ("demonitor", order.monitor, pid))

    def _connect(self, order: event.Connect) -> None:
        self.world.reach(self, order.node)
        self._connecting(order.node)

    def _connecting(self, node: Atom) -> None:
        up = node in self.peers
        if not up and self.world.linked(self.name, node):
            self.world.later(self.world.delay(), lambda: self._connecting(node))
        else:
            self.feed_later(event.Connected(node, up))

    def feed_later(self, fact: event.Fact) -> None:
        self.world.later(0.0, lambda: self.feed(fact))

    def _disconnect(self, order: event.Disconnect) -> None:
        self.world.cut(self.name, order.node)

    def _ask(self, order: event.Ask) -> None:
        where = self.world.members.get(order.ours.node)
        ok = where is not None and (where is self or self.world.linked(self.name, where.name))

        def judge() -> None:
            low, high = sorted([order.theirs, order.ours], key=lambda pid: pid.node)
            if order.method == "none":
                self.feed(event.Judged(order.ask, Atom("none")))
                return
            if order.method == "exit":
                self.world.post(self.name, high.node, ("exit", high))
            self.feed(event.Judged(order.ask, low, failed=not ok))

        self.world.later(self.world.delay() * 3, judge)

    def _forgetask(self, order: event.ForgetAsk) -> None:
        """A verdict that comes all the same is ignored."""

    def _done(self, order: event.Done) -> None:
        assert order.op not in self.done, "an operation ended twice"
        self.done[order.op] = order.value

    def _wakeat(self, order: event.WakeAt) -> None:
        self.wake += 1
        wake = self.wake
        if order.at is not None:
            self.world.at(max(order.at, self.stalled_until), lambda: self._woken(wake))

    def _woken(self, wake: int) -> None:
        if wake == self.wake:
            self.feed(event.Woken())

    def _log(self, order: event.Log) -> None:
        if order.level != "debug":
            self.logs.append(order.text)


class World:
    def __init__(self, seed: int, names: str, *, mesh: bool = True) -> None:
        self.rng = random.Random(seed)
        self.mesh = mesh
        self.now = 0.0
        self.steps = 0
        self.members: dict[Atom, Member] = {}
        self._events: list[tuple[float, int, Thunk]] = []
        self._count = 0
        self._links: dict[tuple[Atom, Atom], int] = {}  # epoch of each link that is up, by its sorted ends
        self._epoch = 0
        self._latest: dict[tuple[Atom, Atom], float] = {}
        self.apart: dict[tuple[Atom, Atom], None] = {}  # pairs that can't connect
        self.speed = self.rng.choice([0.0005, 0.01, 0.2])
        for name in names:
            self.boot(name)

    def boot(self, name: str, creation: int = 1) -> Member:
        member = Member(self, name, creation, self.mesh)
        self.members[member.name] = member
        return member

    def __getitem__(self, name: str) -> Member:
        return self.members[Atom(f"{name}@h")]

    # --- time -------------------------------------------------------------------------------------------------------

    def at(self, when: float, do: Thunk) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, do))

    def later(self, seconds: float, do: Thunk) -> None:
        self.at(self.now + seconds, do)

    def delay(self) -> float:
        return self.rng.random() * self.speed

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, do = heapq.heappop(self._events)
            self.steps += 1
            do()
        self.now = end

    # --- network ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _pair(one: Atom, other: Atom) -> tuple[Atom, Atom]:
        return (one, other) if one < other else (other, one)

    def linked(self, one: Atom, other: Atom) -> bool:
        return self._pair(one, other) in self._links

    def separate(self, one: str, other: str) -> None:
        pair = self._pair(self[one].name, self[other].name)
        self.apart[pair] = None
        self.cut(*pair)

    def reach(self, source: Member, node: Atom) -> bool:
        """Whether there is a link, made on demand."""
        return node in source.peers or self.connect(source.name, node)

    def connect(self, one: Atom, other: Atom) -> bool:
        pair = self._pair(one, other)
        ends = self.members.get(one), self.members.get(other)
        if one == other or pair in self.apart or not all(end is not None and end.running for end in ends):
            return False
        if pair not in self._links:
            self._epoch += 1
            self._links[pair] = self._epoch
            self._ordered(one, other, lambda: self.members[other].up(one))
            self._ordered(other, one, lambda: self.members[one].up(other))
        return True

    def cut(self, one: Atom, other: Atom) -> None:
        if self._links.pop(self._pair(one, other), None) is not None:
            for source, target in ((one, other), (other, one)):
                self._ordered(source, target, lambda s=source, t=target: self.members[t].lost(s))  # type: ignore[misc]

    def kill(self, name: str) -> None:
        member = self[name]
        member.running = False
        for other in list(self.members):
            self.cut(member.name, other)

    def stall(self, name: str, seconds: float) -> None:
        self[name].stalled_until = self.now + seconds

    def post(self, source: Atom, target: Atom, message: tuple[Any, ...]) -> None:
        if source == target:
            self.later(0.0, lambda: self.members[target].receive(source, message))
            return
        epoch = self._links.get(self._pair(source, target))
        if epoch is None:
            return

        def arrive() -> None:
            if self._links.get(self._pair(source, target)) == epoch:
                self.members[target].receive(source, message)

        self._ordered(source, target, arrive)

    def _ordered(self, source: Atom, target: Atom, do: Thunk) -> None:
        """After all that came from ``source`` before."""
        when = max(self._latest.get((source, target), 0.0), self.now + self.delay(), self.members[target].stalled_until)
        self._latest[source, target] = when
        member = self.members[target]

        def arrive() -> None:
            if self.members[target] is member and member.running:
                do()

        self.at(when, arrive)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check_settled(self) -> None:
        """All is quiet: nobody holds a lock, and nodes that know each other agree about everything."""
        running = [member for member in self.members.values() if member.running]
        for member in running:
            assert not member.machine.locked, f"{member.name} is locked: {member.machine.locked}"
            assert len(member.done) == member.asked, f"{member.name} has not finished what its users asked"
            assert not member.calls, f"{member.name} still calls {member.calls}"
            for name in member.machine.registered:
                pid = member.machine.whereis(name)
                owner = self.members.get(pid.node)  # type: ignore[union-attr]
                assert owner is not None and owner.running and pid in owner.alive, (
                    f"{member.name}: {name} is {pid}, dead"
                )
            if self.mesh:
                peers = [name for name in member.peers if name in self.members]
                assert sorted(member.machine.known) == sorted(peers), f"{member.name} knows {member.machine.known}"
        for one in running:
            for other in running:
                if other.name in one.machine.known:
                    self._check_agree(one, other)

    def _check_agree(self, one: Member, other: Member) -> None:
        if self.mesh:
            sets = [sorted([m.name, *m.machine.known]) for m in (one, other)]
            assert sets[0] == sets[1], f"overlapping partitions: {sets}"
            assert _table(one) == _table(other), f"{one.name} and {other.name} disagree"
        else:
            for node in (one.name, other.name):
                tables = [{n: p for n, p in _table(m).items() if p.node == node} for m in (one, other)]
                assert tables[0] == tables[1], f"{one.name} and {other.name} disagree about {node}"


def _table(member: Member) -> dict[Any, Any]:
    return {name: member.machine.whereis(name) for name in sorted(member.machine.registered)}
