"""Asks the overlay for services, and answers those who ask: runs ``proto.routing``."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p.node.channel import Channel
from barrel_p2p.node.driver import Driver
from barrel_p2p.node.routes import Routes
from barrel_p2p.process.api import receive
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.proto import routing
from barrel_p2p.proto.registry_events import Service
from barrel_p2p.proto.routing_wire import PROCESS, decode_answer, decode_request, encode_answer, encode_request
from barrel_p2p.term.types import Atom, Pid, Reference

MAX_ANSWERS: Final = 1000  # that wait in the mailbox; a guess: more come only from who was not asked


class Router(Driver):
    """The searches of one node.

    Args:
        known: what this node knows of a name.
        neighbours: who may be asked.
        refused: counts what was malformed or came too late.
    """

    def __init__(
        self,
        routes: Routes,
        runtime: Runtime,
        known: Callable[[Any], Service | None],
        neighbours: Callable[[], list[Atom]],
        refused: Counter[str],
    ) -> None:
        rng = random.Random(random.SystemRandom().getrandbits(64))
        super().__init__(routing.Routing(runtime.name, rng=rng), routes, runtime, PROCESS)
        self._known = known
        self._neighbours = neighbours
        self._refused = refused
        self._waiting: dict[object, asyncio.Future[routing.Where | None]] = {}
        self._asks: dict[Reference, int] = {}
        self._refs: dict[int, Reference] = {}
        self._pid: Pid = runtime.spawn(self._take_answers, name=PROCESS, max_mailbox=MAX_ANSWERS, when_full="drop").pid
        runtime.kernel[self._pid] = None

    async def find(self, name: Any) -> routing.Where | None:
        """Ask the overlay; None when nobody knows the name, at the latest after ``routing.WAIT_S``."""
        token = object()
        future: asyncio.Future[routing.Where | None] = self._loop.create_future()
        self._waiting[token] = future
        try:
            self.tell(routing.Sought(token, name, self._neighbours()))
            return await future
        finally:
            if self._waiting.pop(token, None) is not None:
                self.tell(routing.Abandoned(token))

    def node_down(self, peer: Atom) -> None:
        self.tell(routing.PeerLost(peer))

    # --- what arrives -------------------------------------------------------------------------------------------------

    def received(self, channel: Channel, term: Any) -> None:
        """What came for ``barrel_p2p_router``."""
        read = decode_request(term, channel.name)
        if read is None:
            self._refused[f"{PROCESS}: malformed"] += 1
            return
        request, reply_to = read
        here = self._known(request.name)
        where = None if here is None else (here.node, here.pid)
        self.tell(routing.Requested(channel.name, request, reply_to, where, self._neighbours()))

    async def _take_answers(self) -> None:
        while True:
            match await receive():
                case (Reference() as ref, answer) if ref in self._asks:
                    ask = self._asks.pop(ref)
                    del self._refs[ask]
                    self.tell(routing.Answered(ask, decode_answer(answer)))
                case _:
                    self._refused[f"{PROCESS}: late"] += 1

    # --- what the machine orders --------------------------------------------------------------------------------------

    def _perform(self, order: routing.Order) -> None:
        match order:
            case routing.Ask(ask, peer, request):
                if self._routes.existing(peer) is None:
                    self.tell(routing.PeerLost(peer))
                    return
                ref = self._refs[ask] = self._runtime.reference()
                self._asks[ref] = ask
                self._send(peer, encode_request(request, (self._pid, ref)))
            case routing.Forget(ask):
                ref_or_none = self._refs.pop(ask, None)
                if ref_or_none is not None:
                    del self._asks[ref_or_none]
            case routing.Reply((pid, ref), answer):
                if answer == "overloaded":
                    self._refused[f"{PROCESS}: overloaded"] += 1
                if self._routes.existing(pid.node) is not None:
                    self._runtime.route(None, pid, (ref, encode_answer(answer)))
            case routing.Found(token, where):
                future = self._waiting.pop(token, None)
                if future is not None and not future.done():
                    future.set_result(where)
            case routing.StartTimer(search, at):
                self._start_timer(str(search), at)
            case routing.StopTimer(search):
                self._stop_timer(str(search))

    def _timer_fired(self, timer: Any) -> None:
        self.tell(routing.TimerFired(int(timer)))

    def stop(self) -> None:
        super().stop()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(None)
        self._waiting.clear()


__all__ = ["Router"]
