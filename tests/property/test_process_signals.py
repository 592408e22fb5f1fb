"""Any schedule of links, monitors, exits and messages against a model that fits on a page.

The model knows nothing of tasks or mailboxes: it holds who is linked with whom and who monitors whom, and is told
when a process is gone. From that it says which messages, in which order, each process must have seen. The schedule
decides after which operations the loop may turn, so signals also meet processes that have not started or are about
to end.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from barrel_p2p import Atom, Pid, Reference, receive
from barrel_p2p.process.process import RUNNING, Process
from barrel_p2p.process.runtime import Runtime
from harness.processes import check_empty

EXIT, DOWN, PROCESS = Atom("EXIT"), Atom("DOWN"), Atom("process")


@dataclass
class Actor:
    """One process: what it has seen, what the model says it must see, and its fate."""

    process: Process
    seen: list[Any]
    expected: list[Any] = field(default_factory=list)
    reason: Any = None  # its exit reason, once it is dead or about to die

    @property
    def pid(self) -> Pid:
        return self.process.pid


class Model:
    def __init__(self) -> None:
        self.runtime = Runtime(Atom("a@127.0.0.1"), 1)
        self.actors: list[Actor] = []
        self.links: dict[frozenset[int], None] = {}
        self.monitors: dict[Reference, tuple[int, int]] = {}
        self.dead: dict[int, None] = {}
        self.sent = 0
        self._finish = self.runtime.finish
        self.runtime.finish = self.finish  # type: ignore[method-assign]

    # --- what the schedule does -------------------------------------------------------------------------------------

    def spawn(self, trap: bool, parent: int | None) -> None:
        seen: list[Any] = []

        async def body() -> None:
            while True:
                message = await receive()
                if message == "return":
                    return
                seen.append(message)

        link_to = None
        if parent is not None and self.actors[parent].reason is None:
            link_to = self.actors[parent].process
            self.links[frozenset((parent, len(self.actors)))] = None
        process = self.runtime.spawn(body, link_to=link_to, trap_exit=trap)
        self.actors.append(Actor(process, seen))

    def send(self, one: int, other: int) -> None:
        self.sent += 1
        if self.acts(one):
            message = (one, self.sent)
            self.runtime.route(self.actors[one].process, self.actors[other].pid, message)
            self.expect(other, message)

    def link(self, one: int, other: int) -> None:
        if self.acts(one) and one != other:
            self.runtime.link(self.actors[one].process, self.actors[other].pid)
            if other not in self.dead:
                self.links[frozenset((one, other))] = None
            elif frozenset((one, other)) not in self.links:
                self.signal(one, other, Atom("noproc"), linked=True)

    def unlink(self, one: int, other: int) -> None:
        if self.acts(one):
            self.runtime.unlink(self.actors[one].process, self.actors[other].pid)
            self.links.pop(frozenset((one, other)), None)

    def monitor(self, one: int, other: int) -> None:
        if self.acts(one):
            ref = self.runtime.reference()
            watcher, target = self.actors[one].process, self.actors[other].pid
            self.runtime.monitor(watcher.pid, watcher, target, ref)
            if other in self.dead:
                self.expect(one, (DOWN, ref, PROCESS, target, Atom("noproc")))
            else:
                self.monitors[ref] = (one, other)

    def demonitor(self, one: int, number: int) -> None:
        mine = [ref for ref, (watcher, _) in self.monitors.items() if watcher == one]
        if mine and self.acts(one):
            ref = mine[number % len(mine)]
            assert self.runtime.demonitor(self.actors[one].process, ref)
            del self.monitors[ref]
            assert not self.runtime.demonitor(self.actors[one].process, ref)

    def exit(self, one: int, other: int, reason: Atom) -> None:
        if self.acts(one) and other not in self.dead:
            target = self.actors[other].process
            self.runtime.exit_signal(target, self.actors[one].pid, reason, linked=False)
            self.signal(other, one, reason, linked=False)

    def finish_normally(self, one: int) -> None:
        if one not in self.dead:
            self.actors[one].process.put("return")

    # --- what follows from it ---------------------------------------------------------------------------------------

    def acts(self, one: int) -> bool:
        return self.actors[one].process.status == RUNNING

    def expect(self, one: int, message: Any) -> None:
        if self.actors[one].reason is None:
            self.actors[one].expected.append(message)

    def signal(self, one: int, sender: int, reason: Any, *, linked: bool) -> None:
        actor = self.actors[one]
        if actor.reason is not None:
            return
        if reason == "kill" and not linked:
            actor.reason = Atom("killed")
        elif actor.process.trap_exit:
            self.expect(one, (EXIT, self.actors[sender].pid, reason))
        elif reason != "normal" or (one == sender and not linked):
            actor.reason = reason

    def finish(self, process: Process, reason: Any) -> None:
        """The runtime says that a process is gone."""
        number = next(n for n, actor in enumerate(self.actors) if actor.process is process)
        actor = self.actors[number]
        assert number not in self.dead
        assert reason == (Atom("normal") if actor.reason is None else actor.reason)
        actor.reason = reason
        self.dead[number] = None
        linked = [pair for pair in self.links if number in pair]
        for pair in linked:
            del self.links[pair]
            (other,) = pair - {number}
            self.signal(other, number, reason, linked=True)
        for ref, (watcher, target) in list(self.monitors.items()):
            if target == number:
                del self.monitors[ref]
                self.expect(watcher, (DOWN, ref, PROCESS, process.pid, reason))
            elif watcher == number:
                del self.monitors[ref]
        self._finish(process, reason)

    # --- what must hold ---------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        for _ in range(40):
            await asyncio.sleep(0)
        for number, actor in enumerate(self.actors):
            if number in self.dead:
                assert actor.seen == actor.expected[: len(actor.seen)]
            else:
                assert actor.reason is None, "it should be dead"
                assert actor.seen == actor.expected

    def check_entries(self) -> None:
        """The runtime holds exactly the links and monitors of the model."""
        for number, actor in enumerate(self.actors):
            links = {self.actors[other].pid for pair in self.links if number in pair for other in pair - {number}}
            assert set(actor.process.links or ()) == links
            mine = {ref.ids for ref, (watcher, _) in self.monitors.items() if watcher == number}
            assert set(actor.process.monitors or ()) == mine
            theirs = {ref for ref, (_, target) in self.monitors.items() if target == number}
            assert {monitor.ref for monitor in actor.process.monitored_by or ()} == theirs


index = st.integers(0, 3)
reasons = st.sampled_from([Atom("normal"), Atom("kill"), Atom("shutdown"), Atom("fault")])
operations = st.one_of(
    st.tuples(st.just("spawn"), st.booleans(), st.none() | index),
    st.tuples(st.sampled_from(["send", "link", "unlink", "monitor"]), index, index),
    st.tuples(st.just("demonitor"), index, st.integers(0, 9)),
    st.tuples(st.just("exit"), index, index, reasons),
    st.tuples(st.just("finish_normally"), index),
    st.tuples(st.just("turn"), st.integers(1, 3)),
    st.tuples(st.just("settle")),
)


@settings(max_examples=300, deadline=None)
@given(traps=st.lists(st.booleans(), min_size=4, max_size=4), schedule=st.lists(operations, min_size=5, max_size=60))
def test_every_link_and_monitor_fires_exactly_once_and_order_is_kept(
    traps: list[bool], schedule: list[tuple[Any, ...]]
) -> None:
    async def main() -> None:
        model = Model()
        for trap in traps:
            model.spawn(trap, None)
        for name, *args in schedule:
            if name == "turn":
                for _ in range(args[0]):
                    await asyncio.sleep(0)
            elif name == "settle":
                await model.settle()
                model.check_entries()
            else:
                getattr(model, name)(*args)
        await model.settle()
        model.check_entries()
        await _stop(model)

    asyncio.run(main())


async def _stop(model: Model) -> None:
    for number, actor in enumerate(model.actors):
        if number not in model.dead:
            model.runtime.exit_signal(actor.process, model.runtime.pid, Atom("kill"), linked=False)
            model.signal(number, number, Atom("kill"), linked=False)
    await model.settle()
    assert len(model.dead) == len(model.actors)
    check_empty(model.runtime)
    assert asyncio.all_tasks() == {asyncio.current_task()}
