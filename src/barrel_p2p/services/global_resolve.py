"""Who keeps a global name that two processes have: the resolve functions of OTP's ``global``, and asking others for it.

A resolve function runs on the node of the process that the deciding node has in its table. It travels as a term: the
fun ``global:random_exit_name/3`` and its like, or anything else that an Erlang node may have given.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.errors import BarrelError
from barrel_p2p.process.reasons import KILL
from barrel_p2p.proto.global_events import Ask
from barrel_p2p.services.rpc import rpc
from barrel_p2p.term.types import Atom, Export, Fun, Pid

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node

log = logging.getLogger("barrel_p2p.global")

ASK_SECONDS: Final = 10.0
"""For a resolve function on another node; a guess, below the limit of the whole session."""
MAX_ASKED: Final = 3
"""Erlang nodes that are asked to run a fun; a guess: the nodes of one release all can or all can't."""

NONE: Final = Atom("none")
_CONFLICT: Final = Atom("global_name_conflict")
_GLOBAL: Final = Atom("global")

#: The resolve functions by name, as they travel. ``none`` is no function in OTP; an Erlang node that has to call it
#: fails to and takes the name from both, which is what it means.
METHODS: Final[dict[str, Any]] = {
    "random_exit_name": Export(_GLOBAL, Atom("random_exit_name"), 3),
    "random_notify_name": Export(_GLOBAL, Atom("random_notify_name"), 3),
    "notify_all_name": Export(_GLOBAL, Atom("notify_all_name"), 3),
    "none": NONE,
}


class Resolving:
    """The resolve functions of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def ask(self, order: Ask, nodes: list[Atom]) -> Any:
        """Have it decided. Raises BarrelError if the node of ``ours`` could not be asked."""
        if order.ours.node == self._node.name:
            return await self._decide(order.method, order.name, order.theirs, order.ours, nodes)
        arguments = [order.method, order.name, order.theirs, order.ours]
        return await rpc(self._node, order.ours.node, "global", "resolve_it", arguments, ASK_SECONDS)

    async def resolve_it(self, method: Any, name: Any, pid1: Any, pid2: Any) -> Any:
        """What other nodes call: ``global:resolve_it/4``."""
        if not (isinstance(pid1, Pid) and isinstance(pid2, Pid)):
            return NONE
        return await self._decide(method, name, pid1, pid2, self._node.global_.nodes())

    async def _decide(self, method: Any, name: Any, pid1: Pid, pid2: Pid, nodes: list[Atom]) -> Any:
        own = next((function for function, known in METHODS.items() if known == method), None)
        if own is not None:
            return self._run(own, name, pid1, pid2)
        if isinstance(method, (Export, Fun)):
            arguments = [method, name, pid1, pid2]
            for node in [pid1.node, *nodes][:MAX_ASKED]:
                if not self._is_kin(node):
                    try:
                        return await rpc(self._node, node, "global", "resolve_it", arguments, ASK_SECONDS)
                    except BarrelError as error:
                        log.info("global: %s did not run the resolve function of %r: %s", node, name, error)
        log.warning("global: %r has a resolve function that can't run here: random_notify_name is used", name)
        return self._run("random_notify_name", name, pid1, pid2)

    def _is_kin(self, node: Atom) -> bool:
        info = self._node.peer_info(node)
        return info is None or bool(info.flags & info.flags.PYTHON)

    def _run(self, function: str, name: Any, pid1: Pid, pid2: Pid) -> Any:
        if function == "none":
            return NONE
        low, high = (pid1, pid2) if pid1.node < pid2.node else (pid2, pid1)
        if function == "notify_all_name":
            self._send(pid1, (_CONFLICT, name, pid2))
            self._send(pid2, (_CONFLICT, name, pid1))
            return NONE
        log.info("global: two processes are called %r, %s keeps the name and %s loses it", name, low, high)
        if function == "random_notify_name":
            self._send(high, (_CONFLICT, name))
        else:
            self._kill(high)
        return low

    def _send(self, pid: Pid, message: Any) -> None:
        self._node.runtime.route(None, pid, message)

    def _kill(self, pid: Pid) -> None:
        runtime = self._node.runtime
        if pid.node != runtime.name:
            if runtime.remote is not None:
                runtime.remote.exit(runtime.pid, pid, KILL)
        elif pid not in runtime.kernel and (process := runtime.find(pid)) is not None:  # whoever gave them a name
            runtime.exit_signal(process, runtime.pid, KILL, linked=False)


__all__ = ["METHODS", "Resolving"]
