"""``rex``: the server that Erlang's ``rpc`` calls where it does not spawn over the distribution (``erpc``).

``rpc:block_call``, ``rpc:server_call``, ``rpc:sbcast`` and programs written in C (``ei_rpc``) send to it, and every
Erlang node asks it after connecting whether this node has ``erpc`` (``features_request``). After OTP's ``rpc.erl``,
with two departures: only exported functions run, all others are ``undef``; and a ``block_call`` runs in its own process
as a ``call`` does, one after the other, so that it holds up other block calls but not the server itself.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from barrel_p2p.errors import EncodeError
from barrel_p2p.node.exports import Exports
from barrel_p2p.node.guests import Guests, TooManyGuests
from barrel_p2p.node.outcome import ERROR, RETURN, THROW, Outcome, execute, outcome_of
from barrel_p2p.process.api import send
from barrel_p2p.process.call import reply, reply_address
from barrel_p2p.process.gen_server import NOREPLY, GenServer
from barrel_p2p.process.reasons import KILLED
from barrel_p2p.process.runtime import Runtime
from barrel_p2p.term.types import Atom, Pid

REX: Final = Atom("rex")
BADRPC: Final = Atom("badrpc")
EXIT: Final = Atom("EXIT")
SYSTEM_LIMIT: Final = Atom("system_limit")

MAX_BLOCKED = 1_000  # block calls that wait for their turn; a guess


class Rex(GenServer):
    """Serves old-style remote calls, one process each."""

    async def init(self, runtime: Runtime, guests: Guests, exports: Exports) -> None:
        self._runtime = runtime
        self._guests = guests
        self._exports = exports
        self._blocked: deque[tuple[Any, Any]] = deque()
        self._blocking = False

    def get_state(self) -> Any:
        return {}

    async def handle_call(self, request: Any, from_: Any) -> Any:
        if not _is_call(request):
            return NOREPLY  # as OTP does
        if request[0] == "call":
            self._start(request, from_)
        elif request[0] == "block_call":
            if len(self._blocked) >= MAX_BLOCKED:
                return (BADRPC, (EXIT, SYSTEM_LIMIT))
            self._blocked.append((request, from_))
            self._next_blocked()
        return NOREPLY

    async def handle_cast(self, request: Any) -> None:
        if _is_call(request) and request[0] == "cast":
            self._start(request, None)

    async def handle_info(self, message: Any) -> None:
        if not (isinstance(message, tuple) and len(message) == 2 and isinstance(message[0], Pid)):
            return
        sender, request = message
        if request == "features_request":
            send(sender, (Atom("features_reply"), self._runtime.name, [Atom("erpc")]))
        elif _is_call(request) and request[0] == "call":
            self._start(request, (REX, sender))
        elif isinstance(request, tuple) and len(request) == 3 and isinstance(request[1], Atom):
            what, name, content = request
            if what == "sbcast":
                self._told(sender, name, content, self._runtime.name)
            elif what == "send":
                self._told(sender, name, (sender, content), None)

    def _told(self, sender: Pid, name: Atom, message: Any, answer: Atom | None) -> None:
        """Pass a message on to a name; with ``answer`` the sender is told that it has arrived."""
        node = self._runtime.name
        if self._runtime.find_name(name) is None:
            send(sender, (REX, node, (Atom("nonexisting_name"), name)))
            return
        send(name, message)
        if answer is not None:
            send(sender, (REX, node, answer))

    # --- running ----------------------------------------------------------------------------------------------------

    def _next_blocked(self) -> None:
        while self._blocked and not self._blocking:
            self._blocking = self._start(*self._blocked.popleft(), blocking=True)

    def _start(self, request: Any, to: Any, *, blocking: bool = False) -> bool:
        """Run a call in a process of its own; false when there are too many already."""
        _, module, function, args, leader = request
        runtime = self._runtime
        try:
            process = self._guests.spawn(REX, self._run, (module, function, args, to), leader=leader)
        except TooManyGuests:
            _reply(to, (BADRPC, (EXIT, SYSTEM_LIMIT)))
            return False

        def ended(reason: Any) -> None:
            if reason != "normal":  # it was ended before it could answer
                _answer_for(runtime, to, (BADRPC, (EXIT, reason)))
            if blocking:
                self._blocking = False
                self._next_blocked()

        runtime.monitor(runtime.pid, ended, process.pid, runtime.reference())
        return True

    async def _run(self, module: Any, function: Any, args: Any, to: Any) -> None:
        outcome = await execute(self._exports, module, function, args)
        try:
            _reply(to, _as_rpc(outcome))
        except EncodeError as error:
            _reply(to, _as_rpc(outcome_of(error)))


def _is_call(request: Any) -> bool:
    return isinstance(request, tuple) and len(request) == 5


def _as_rpc(outcome: Outcome) -> Any:
    """What ``rpc:call`` returns for it."""
    kind = outcome[0]
    if kind in (RETURN, THROW):
        return outcome[1]
    return (BADRPC, (EXIT, outcome[1:] if kind == ERROR else outcome[1]))


def _reply(to: Any, value: Any) -> None:
    """Answer ``{Pid, Tag}`` of a gen_server call, ``{rex, Pid}`` of a bare message, or nobody (a cast)."""
    if to is None:
        return
    if to[0] == REX:
        send(to[1], (REX, value))
    else:
        reply(to, value)


def _answer_for(runtime: Runtime, to: Any, value: Any) -> None:
    """The answer of a process that is gone."""
    if to is None:
        return
    address, tag = (to[1], REX) if to[0] == REX else (reply_address(*to), to[1])
    try:
        runtime.route(None, address, (tag, value))
    except EncodeError:  # an exit reason that has no form as a term
        runtime.route(None, address, (tag, (BADRPC, (EXIT, KILLED))))


__all__ = ["MAX_BLOCKED", "Rex"]
