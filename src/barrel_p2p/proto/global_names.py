"""``global``: names that mean the same process on all nodes, as OTP's ``global`` has them (protocol version 8).

A pure machine. It is told what happened (``global_events``: facts) and says what to do (orders). Its parts:

===================  =================================================================================================
``global_tables``    who has which name, who holds which lock
``global_locker``    agrees with the locker of a node that connects and locks our partition
``global_sessions``  exchanges names with that node, has clashes resolved, tells the other nodes
``global_registrar`` changes a name on all nodes
``global_partitions`` leaves nodes that others lost, so that partitions don't overlap
===================  =================================================================================================

Every change of a name, by a user or by a session, happens under the lock ``global`` of all known nodes. That is what
makes a name unique as long as the nodes are connected to each other. Two nodes that were apart may both have a name;
when they meet, the resolve function given at the registration chooses who keeps it.

Source: the module ``global`` of OTP 25.2 (protocol version 8), its comments and behaviour. Departures, each with its
reason where it is made: answers are waited for with a limit (``global_strands``), sessions end by a limit
(``global_sessions``), losses of Erlang nodes are not reported (``global_partitions``), several changes share one lock
(``global_registrar``), tables are bounded (``global_tables``). ``global_group`` is not supported.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from barrel_p2p.proto import global_wire as wire
from barrel_p2p.proto.global_core import GLOBAL, VERSION, WITHDRAW, Core
from barrel_p2p.proto.global_events import (
    Abandoned,
    Answered,
    Called,
    CallFailed,
    CastIn,
    Connected,
    Died,
    Done,
    Fact,
    Judged,
    NodeDown,
    NodeUp,
    Order,
    RegisterAsked,
    Reply,
    SyncAsked,
    Told,
    UnregisterAsked,
    WakeAt,
    Woken,
)
from barrel_p2p.proto.global_locker import LOCK_SET, LockSet
from barrel_p2p.proto.global_partitions import Partitions
from barrel_p2p.proto.global_registrar import WHEREIS_NAME, Change, Registrar
from barrel_p2p.proto.global_sessions import Sessions
from barrel_p2p.proto.global_tables import key_of
from barrel_p2p.shown import shown
from barrel_p2p.term.types import Atom, Pid

MAX_SYNCS: Final = 1024
"""Calls of ``sync`` that wait at once; a guess."""

_GLOBAL_KEY: Final = key_of(GLOBAL)


class GlobalNames:
    """The ``global`` of one node::

        orders = machine.handle(NodeUp(node), now=loop.time())

    Args:
        me: our node name.
        pid: the process that answers as ``global_name_server``; it holds this node's locks.
        creation: the incarnation of this node.
        mesh: connect to every node that a node we know knows, as Erlang nodes do; without it, names cover the nodes
            we are connected to.
        rng: chooses peers and pauses.
    """

    def __init__(self, me: Atom, pid: Pid, creation: int, *, mesh: bool, rng: random.Random) -> None:
        self._core = core = Core(me, pid, mesh=mesh, rng=rng)
        self._sessions = Sessions(core, self._synced)
        self._registrar = Registrar(core)
        self._partitions = Partitions(core, creation, self._leave)
        self._syncs: list[tuple[Callable[[], None], dict[Atom, None]]] = []
        self._in_sync: dict[Atom, None] = {}
        self._wake_at: float | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            NodeUp: self._node_up,
            NodeDown: self._node_down,
            Called: self._called,
            CastIn: self._cast_in,
            Told: self._told,
            Answered: lambda fact: core.strands.answered(fact.call, fact.value),
            CallFailed: lambda fact: core.strands.failed(fact.call),
            Died: self._died,
            Connected: self._connected,
            Judged: lambda fact: self._sessions.judged(fact.ask, fact.value, fact.failed),
            RegisterAsked: self._register_asked,
            UnregisterAsked: self._unregister_asked,
            SyncAsked: self._sync_asked,
            Abandoned: lambda fact: self._registrar.abandon(fact.op),
            Woken: self._woken,
        }

    def handle(self, fact: Fact, *, now: float) -> list[Order]:
        """Take a fact (``now`` in monotonic seconds); perform what comes back, in order."""
        core = self._core
        core.now = core.strands.now = now
        self._handlers[type(fact)](fact)
        core.strands.run(now)
        deadline = core.strands.deadline
        if deadline != self._wake_at:
            self._wake_at = deadline
            core.emit(WakeAt(deadline))
        orders, core.out = core.out, []
        return orders

    # --- what can be asked at any time --------------------------------------------------------------------------------

    def whereis(self, name: Any) -> Pid | None:
        return self._core.where(name)

    @property
    def registered(self) -> list[Any]:
        return [entry.name for entry in self._core.names.entries.values()]

    @property
    def known(self) -> list[Atom]:
        """The nodes that names are shared with."""
        return list(self._core.known)

    @property
    def locked(self) -> list[tuple[Any, Any]]:
        """The locks that are set on this node."""
        return [(key, lock.requester) for key, lock in self._core.locks.locks.items()]

    # --- users of this node -------------------------------------------------------------------------------------------

    def _register_asked(self, fact: RegisterAsked) -> None:
        self._registrar.ask(Change(fact.op, fact.name, fact.pid, fact.method, fact.anew))

    def _unregister_asked(self, fact: UnregisterAsked) -> None:
        self._registrar.ask(Change(fact.op, fact.name, None))

    def _sync_asked(self, fact: SyncAsked) -> None:
        self._sync(list(self._core.connected), lambda: self._core.emit(Done(fact.op, True)))

    def _sync(self, nodes: list[Atom], done: Callable[[], None]) -> None:
        waits = {node: None for node in nodes if node in self._core.connected and node not in self._in_sync}
        if not waits:
            done()
        elif len(self._syncs) < MAX_SYNCS:
            self._syncs.append((done, waits))

    def _synced(self, node: Atom) -> None:
        self._in_sync[node] = None
        self._no_longer_waits_for(node)

    def _no_longer_waits_for(self, node: Atom) -> None:
        for done, waits in list(self._syncs):
            waits.pop(node, None)
            if not waits:
                self._syncs.remove((done, waits))
                done()

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _node_up(self, fact: NodeUp) -> None:
        self._core.connected[fact.node] = fact.kin
        self._core.removing.pop(fact.node, None)
        self._sessions.begin(fact.node)

    def _node_down(self, fact: NodeDown) -> None:
        kin = self._core.connected.pop(fact.node, False)
        self._gone(fact.node, kin=kin)

    def _connected(self, fact: Connected) -> None:
        if fact.ok and fact.node in self._core.connected:
            self._core.cast(fact.node, (Atom("in_sync"), self._core.me, True))
        elif fact.node not in self._core.connected and fact.node in self._core.known:
            self._core.log("warning", f"global: no connection to {fact.node}, which others are connected to")
            self._gone(fact.node, kin=False)

    def _gone(self, node: Atom, *, kin: bool) -> None:
        self._leave(node)
        if self._core.removing.pop(node, self) is self:  # we did not leave it on purpose
            self._partitions.lost(node, kin=kin)

    def _leave(self, node: Atom) -> None:
        self._sessions.end(node)
        self._core.known.pop(node, None)
        self._in_sync.pop(node, None)
        self._no_longer_waits_for(node)

    def _died(self, fact: Died) -> None:
        core = self._core
        if core.locks.died(fact.monitor) == _GLOBAL_KEY:
            core.lock_down = True
        core.names.died(fact.monitor)

    def _woken(self, _fact: Woken) -> None:
        self._wake_at = None

    # --- calls --------------------------------------------------------------------------------------------------------

    def _called(self, fact: Called) -> None:
        core, sender = self._core, wire.caller(fact.sender)
        if sender is not None and sender.node != core.me and sender.node not in core.connected:
            # Of a node that takes no part: it must not wait for locks of ours, nor we for its. What a program locks for
            # itself, on nodes that it names (global:set_lock/3), is answered, or it would wait for ever.
            match fact.request:
                case ("set_lock" | "del_lock", lock) if wire.lock_id(lock) is not None:
                    if key_of(lock[0]) == _GLOBAL_KEY:
                        return
                case _:
                    return
        match fact.request:
            case ("register", name, Pid() as pid, method) if sender is not None and wire.is_name(name):
                ok = core.insert(name, pid, method, sender)
                core.emit(Reply(fact.sender, Atom("yes" if ok else "no")))
            case ("unregister", name) if wire.is_name(name):
                core.delete(name, sender)
                core.emit(Reply(fact.sender, Atom("ok")))
            case ("register_ext", name, Pid() as pid, method, node) if sender is not None and wire.is_name(name):
                ok = core.insert(name, pid, method, sender, node)
                core.emit(Reply(fact.sender, Atom("yes" if ok else "no")))
            case ("set_lock", lock) if sender is not None and wire.lock_id(lock) is not None:
                core.emit(Reply(fact.sender, core.set_lock(lock, sender)))
            case ("del_lock", lock) if sender is not None and wire.lock_id(lock) is not None:
                core.del_lock(lock, sender)
                core.emit(Reply(fact.sender, True))
            case ("sync", list() as nodes):
                self._sync(
                    [node for node in nodes if isinstance(node, Atom)],
                    lambda: core.emit(Reply(fact.sender, Atom("ok"))),
                )
            case "get_known":
                core.emit(Reply(fact.sender, list(core.known)))
            case "get_synced":
                core.emit(Reply(fact.sender, list(self._in_sync)))
            case "get_protocol_version":
                core.emit(Reply(fact.sender, VERSION))
            case "get_names_ext":
                entries = core.names.entries.values()
                ext = [(e.name, e.pid, e.registrar) for e in entries if e.registrar is not None]
                core.emit(Reply(fact.sender, ext))
            case (kind, name) if kind == WHEREIS_NAME and wire.is_name(name):
                core.emit(Reply(fact.sender, core.where(name)))
            case (kind, name, pid) if kind == WITHDRAW and wire.is_name(name):
                core.withdraw(name, pid, sender)
                core.emit(Reply(fact.sender, Atom("ok")))
            case _:
                self._odd("call", fact.request)

    # --- casts and plain messages -------------------------------------------------------------------------------------

    def _cast_in(self, fact: CastIn) -> None:
        sessions = self._sessions
        match fact.message:
            case ("init_connect", _, _, _) as message:
                init = wire.init_connect(message)
                if init is not None:
                    sessions.init_connect(init)
            case ("exchange", Atom() as node, names, _, tag):
                listed = wire.name_list(names)
                if listed is not None:
                    sessions.exchange(node, listed, tag)
            case ("resolved", Atom() as node, ops, known, _, external, tag):
                his = wire.resolution(ops, known, external)
                if his is not None:
                    sessions.resolved(node, his, tag)
            case ("new_nodes", Atom() as node, ops, external, nodes, extra):
                his = wire.resolution(ops, nodes, external)
                if his is not None:
                    sessions.new_nodes(node, his, wire.session_lock(extra))
            case ("in_sync", Atom() as node, _):
                sessions.in_sync(node)
            case ("lock_set", Pid() as pid, bool() as is_set, _, tag):
                if type(tag) is int and tag == sessions.tag(pid.node):
                    sessions.locker.send(LockSet(pid, is_set, tag))
            case ("lock_set", Pid() as pid, bool() as is_set, _):
                self._lock_set(pid, is_set)
            case (kind, name, pid) if kind == WITHDRAW and wire.is_name(name):
                self._core.withdraw(name, pid, None)
            case ("async_del_name" | "async_del_lock", _, _):
                """Of OTP before R14; the monitors do that work."""
            case other:
                self._odd("cast", other)

    def _lock_set(self, pid: Pid, is_set: bool) -> None:
        if pid.node in self._core.connected:
            self._sessions.locker.send(LockSet(pid, is_set, None))

    def _told(self, fact: Told) -> None:
        match fact.message:
            case ("init_connect_ack", Atom() as node, my_tag, his_tag):
                if node in self._core.connected:
                    self._sessions.init_connect_ack(node, my_tag, his_tag)
            case ("cancel_connect", Atom() as node, tag):
                self._sessions.cancel_connect(node, tag)
            case ("lost_connection", Atom() as reporter, int() as life, int() as number, Atom() as lost):
                if wire.is_node(reporter) and wire.is_node(lost):
                    self._partitions.reported((Atom("lost_connection"), reporter, life, number, lost))
            case ("remove_connection", Atom() as node):
                self._partitions.asked_to_go(node)
            case ("whereis", name, sender) if wire.is_name(name) and wire.caller(sender) is not None:
                self._core.emit(Reply(sender, self._core.where(name)))
            case (kind, Pid() as pid, bool() as is_set, _) if kind == LOCK_SET:
                self._lock_set(pid, is_set)  # OTP's locker sends its refusal to ours, and that is this process
            case other:
                self._odd("message", other)

    def _odd(self, kind: str, what: Any) -> None:
        self._core.log("debug", f"global: got an unexpected {kind}: {shown(what)}")


__all__ = ["GlobalNames"]
