"""Signals to processes of other nodes: turns each into its control message and sends it on the peer's channel.

The counterpart, signals from other nodes, is ``dispatch.py``. Field orders follow the distribution protocol chapter of
the OTP documentation. Payload forms (reason outside the control tuple) are used since every supported peer has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from barrel_p2p.errors import EncodeError
from barrel_p2p.node.propagation import Propagation
from barrel_p2p.node.route import Route
from barrel_p2p.node.spawner import Spawner
from barrel_p2p.process.process import Process
from barrel_p2p.proto.control import Op, reg_send
from barrel_p2p.shown import shown
from barrel_p2p.term.types import Atom, Pid, Reference

_SEND_SENDER = int(Op.SEND_SENDER)
_ALIAS_SEND = int(Op.ALIAS_SEND)


class RemoteSignals:
    """Implements ``process.remote.Remote`` over ``route``, which gives the way to a node by its name."""

    def __init__(
        self, route: Callable[[Atom], Route | None], anonymous: Pid, spawner: Spawner, propagation: Propagation
    ) -> None:
        self._route = route
        self._propagation = propagation
        self.spawn_request = spawner.request
        self._anonymous = anonymous  # who sends when the sender is no process
        self._unlink_ids = itertools.count(1)

    def send(self, sender: Process | None, to: Pid | Reference | tuple[Atom, Atom], message: Any) -> None:
        pid = sender.pid if sender is not None else self._anonymous
        control: tuple[Any, ...]
        if type(to) is Pid:
            node = to.node
            control = (_SEND_SENDER, pid, to)
        elif type(to) is tuple:
            name, node = to
            control = reg_send(pid, name)
        else:
            assert isinstance(to, Reference)
            node = to.node
            control = (_ALIAS_SEND, pid, to)
        route = self._route(node)
        if route is not None:
            if self._propagation.headers is not None:
                control = self._propagation.outgoing(route, control)
            route.send(sender, control, message)

    def link(self, local: Pid, remote: Pid) -> None:
        self._signal(remote.node, (int(Op.LINK), local, remote))

    def unlink(self, local: Pid, remote: Pid) -> None:
        route = self._route(remote.node)
        if route is not None:
            unlink_id = next(self._unlink_ids)
            route.unlinks[local, remote] = unlink_id
            route.send(None, (int(Op.UNLINK_ID), unlink_id, local, remote))

    def exit_link(self, local: Pid, remote: Pid, reason: Any) -> None:
        self._with_reason(remote.node, (int(Op.PAYLOAD_EXIT), local, remote), reason)

    def exit(self, sender: Pid, remote: Pid, reason: Any) -> None:
        self._with_reason(remote.node, (int(Op.PAYLOAD_EXIT2), sender, remote), reason)

    def monitor(self, watcher: Pid, target: Pid | tuple[Atom, Atom], ref: Reference) -> None:
        what, node = (target, target.node) if isinstance(target, Pid) else target
        self._signal(node, (int(Op.MONITOR_P), watcher, what, ref))

    def demonitor(self, watcher: Pid, target: Pid | tuple[Atom, Atom], ref: Reference) -> None:
        what, node = (target, target.node) if isinstance(target, Pid) else target
        self._signal(node, (int(Op.DEMONITOR_P), watcher, what, ref))

    def down(self, target: Pid | Atom, watcher: Pid, ref: Reference, reason: Any) -> None:
        self._with_reason(watcher.node, (int(Op.PAYLOAD_MONITOR_P_EXIT), target, watcher, ref), reason)

    def _signal(self, node: Atom, control: tuple[Any, ...]) -> None:
        route = self._route(node)
        if route is not None:
            route.send(None, control)

    def _with_reason(self, node: Atom, control: tuple[Any, ...], reason: Any) -> None:
        route = self._route(node)
        if route is None:
            return
        try:
            route.send(None, control, reason)
        except EncodeError:
            # Any Python value may be an exit reason, and a death must be told whatever it is.
            route.send(None, control, (Atom("python"), shown(reason, 1000)))
