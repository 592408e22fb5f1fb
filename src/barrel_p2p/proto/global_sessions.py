"""Sessions of ``global``: how two nodes that connect come to have the same names.

Both sides do the same, tags tell one session from the next::

    init_connect {Vsn, MyTag}, MyLocker      ->   the peer's locker learns of ours
    init_connect_ack HisTag, MyTag           ->   a wrong pair: cancel_connect, and both begin anew
      [the lockers agree, ``global_locker``; both partitions are locked from here]
    exchange [{Name, Pid, Method}]           ->
      [clashes: the node of the smaller name has them resolved, each on the node of the pid in its table]
    resolved Ops, Known                      ->   both apply the ops of both sides
    new_nodes Ops, [peer and its Known]      ->   to the other nodes of our partition, then the lock goes
    in_sync                                  ->   to the other nodes of the peer's, once connected

A session that has the lock for ``SESSION_SECONDS`` and does not end is cancelled and begun anew, so that a peer that
stopped in the middle blocks nobody for longer (OTP waits until the node is down).

Without a mesh (see ``global_core``) each pair of connected nodes has a session of its own, the lists of known nodes are
not used, and of the ops only those about processes on connected nodes are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from barrel_p2p.proto import global_wire as wire
from barrel_p2p.proto.global_core import (
    CHECKS_TAGS,
    DELETE,
    INSERT,
    LISTS_VERSIONS,
    MAX_KNOWN,
    VERSION,
    Core,
    LockId,
)
from barrel_p2p.proto.global_events import Ask, Connect, Disconnect, ForgetAsk
from barrel_p2p.proto.global_locker import Cancel, Him, Locker
from barrel_p2p.proto.global_strands import Receive, Strand, Waiting
from barrel_p2p.proto.global_tables import key_of
from barrel_p2p.term.types import Atom, Pid

SESSION_SECONDS: Final = 30.0
"""From the lock to the end of a session. A guess: resolve functions run in it, one after the other."""
GRACE_SECONDS: Final = 5.0

_LOCKER: Final = Atom("locker")
_NO_PID: Final = Atom("no_longer_a_pid")
_NONE: Final = Atom("none")
_LOCK: Final = Atom("lock")
_VSN: Final = Atom("vsn")


@dataclass(slots=True)
class _Session:
    node: Atom
    my_tag: int
    his_tag: Any = None
    version: int = VERSION
    lock: LockId | None = None
    exchanged: bool = False  # the peer's names have come
    names: list[tuple[Any, Pid, Any]] | None = None  # the same, until we have the lock too
    resolving: Strand | None = None
    asks: int | None = None
    ops: list[Any] | None = None  # what our side decided for itself
    his: wire.Resolution | None = None  # what the peer decided for us


class Sessions:
    """``synced(node)`` is called when a node's names are all here."""

    def __init__(self, core: Core, synced: Callable[[Atom], None]) -> None:
        self._core = core
        self._synced = synced
        self._sessions: dict[Atom, _Session] = {}
        self._early: dict[Atom, wire.InitConnect] = {}  # of nodes that we know already, or think so
        self._asks: dict[int, Strand] = {}
        self.locker: Final = Locker(core, self._lock_is_set)

    def begin(self, node: Atom) -> None:
        """A node is connected: make ourselves known to it, unless others have done so."""
        core = self._core
        if node in core.known or node in self._sessions or node not in core.connected:
            return
        session = self._sessions[node] = _Session(node, core.number())
        locker: tuple[Any, ...] = (_LOCKER, _NO_PID, {}, core.pid)
        core.cast(node, (Atom("init_connect"), (VERSION, session.my_tag), core.me, locker))
        early = self._early.pop(node, None)
        if early is not None:
            self.init_connect(early)

    def end(self, node: Atom) -> None:
        """Drop whatever there is of a session."""
        self._early.pop(node, None)
        session = self._sessions.get(node)
        if session is None:
            self._core.pending.pop(node, None)
            return
        self._cancel(session)
        self._forget(session)

    def tag(self, node: Atom) -> int | None:
        session = self._sessions.get(node)
        return None if session is None else session.my_tag

    # --- what the peer sends ----------------------------------------------------------------------------------------

    def init_connect(self, message: wire.InitConnect) -> None:
        core, node = self._core, message.node
        if node not in core.connected or message.version < wire.MIN_VERSION:
            return
        if node in core.pending:
            if message.version < CHECKS_TAGS:
                return  # it can't be told to begin anew; ``SESSION_SECONDS`` or its nodedown ends this
            self._tell_cancel(node, message.tag)
            self._restart(node)
        session = self._sessions.get(node)
        if session is None:
            self._early[node] = message
            core.strands.start(self._suspect(node))
            return
        session.his_tag = message.tag
        session.version = min(message.version, VERSION)
        if message.version >= CHECKS_TAGS:
            core.tell(node, (Atom("init_connect_ack"), core.me, message.tag, session.my_tag))
        core.pending[node] = message.version
        self.locker.send(Him(node, message.locker, session.version, session.my_tag, message.tag))

    def init_connect_ack(self, node: Atom, my_tag: Any, his_tag: Any) -> None:
        session = self._sessions.get(node)
        if session is not None and _same(session.my_tag, my_tag) and _same(session.his_tag, his_tag):
            return
        self._tell_cancel(node, his_tag)
        self._restart(node)

    def cancel_connect(self, node: Atom, tag: Any) -> None:
        session = self._sessions.get(node)
        if session is not None and _same(session.my_tag, tag):
            self._core.pending.pop(node, None)  # it knows; no need to tell it
            self._restart(node)

    def exchange(self, node: Atom, names: list[tuple[Any, Pid, Any]], tag: Any) -> None:
        session = self._of(node, tag)
        if session is None or session.exchanged:
            return
        session.exchanged = True
        session.names = names
        self._exchange(session)

    def resolved(self, node: Atom, his: wire.Resolution, tag: Any) -> None:
        session = self._of(node, tag)
        if session is not None and session.his is None:
            session.his = his
            self._finish(session)

    def new_nodes(self, node: Atom, his: wire.Resolution, lock: LockId | None) -> None:
        """A node of our partition tells of the outcome of its session with another partition."""
        if node not in self._core.connected:
            return
        if self._core.mesh:
            self._connect(self._add_known(his.known))
        self._do(his, lock)

    def in_sync(self, node: Atom) -> None:
        """A node of another partition has our names, by way of a third, and we have its."""
        core = self._core
        if node not in core.connected:
            return
        core.pending.pop(node, None)
        self.end(node)
        if node not in core.known:
            core.strands.start(self._suspect(node))
        self._synced(node)

    # --- what our side tells ----------------------------------------------------------------------------------------

    def _lock_is_set(self, node: Atom, tag: int, lock: LockId) -> None:
        core = self._core
        session = self._of(node, tag)
        if session is None:
            self.locker.send(Cancel(node, tag))
            return
        entries = [(e.name, e.pid, e.method) for e in core.names.entries.values()]
        core.cast(node, (Atom("exchange"), core.me, entries, [], session.his_tag))
        session.lock = lock
        core.strands.start(self._watch(session))
        if session.names is not None:
            self._exchange(session)

    def _watch(self, session: _Session) -> Generator[Waiting, Any, None]:
        """Once we have sent ``resolved`` the peer may be through with the session, and only a new connection helps."""
        yield Receive(seconds=SESSION_SECONDS)
        yield Receive(seconds=GRACE_SECONDS)  # if it was us who stood still, what came meanwhile is looked at first
        node = session.node
        if self._sessions.get(node) is session:
            text = f"global: {node} did not finish the exchange of names within {SESSION_SECONDS:g} s"
            self._core.log("warning", text)
            if session.ops is None:
                self._restart(node)
            else:
                self._core.emit(Disconnect(node))

    def _suspect(self, node: Atom) -> Generator[Waiting, Any, None]:
        """One of the two knows the other, the other not: right while a session with a third ends, wrong if a cut came
        in between. OTP stays that way; a new connection cures it."""
        yield Receive(seconds=SESSION_SECONDS)
        half = node not in self._core.known and node not in self._sessions
        if node in self._core.connected and (half or node in self._early):
            self._core.log("warning", f"global: {node} and this node are not agreed on knowing each other; disconnects")
            self._core.emit(Disconnect(node))

    def judged(self, ask: int, value: Any, failed: bool) -> None:
        """A resolve function has ended."""
        strand = self._asks.pop(ask, None)
        if strand is not None:
            self._core.strands.send(strand, (value, failed))

    def _exchange(self, session: _Session) -> None:
        if session.lock is not None and session.names is not None:
            names, session.names = session.names, None
            session.resolving = self._core.strands.start(self._resolve(session, names))

    def _resolve(self, session: _Session, names: list[tuple[Any, Pid, Any]]) -> Generator[Waiting, Any, None]:
        """Compare the peer's names with ours: what changes here goes to ``mine``, what changes there to ``his``."""
        core = self._core
        mine: list[Any] = []
        his: list[Any] = []
        for name, pid, method in names:
            entry = core.names.find(name)
            if entry is None:
                mine.append((INSERT, (name, pid, method)))
            elif entry.pid == pid:
                if pid.node != core.me and pid.node not in core.known:
                    mine.append((INSERT, (name, pid, method)))  # nodes of our partition may have lost it meanwhile
            elif core.me < session.node:
                ours, our_method = entry.pid, entry.method
                session.asks = ask = core.number()
                self._asks[ask] = session.resolving  # type: ignore[assignment]
                core.emit(Ask(ask, our_method, name, pid, ours))
                verdict, failed = yield Receive()
                session.asks = None
                if failed or verdict == pid:
                    mine.append((INSERT, (name, pid, method)))
                elif verdict == ours:
                    his.append((INSERT, (name, ours, our_method)))
                else:
                    mine.append((DELETE, name))
                    his.append((DELETE, name))
        external = [(e.name, e.pid, e.registrar) for e in core.names.entries.values() if e.registrar is not None]
        known = core.known_list(session.version)
        core.cast(session.node, (Atom("resolved"), core.me, his, known, Atom("unused"), external, session.his_tag))
        session.ops = mine
        session.resolving = None
        self._finish(session)

    def _finish(self, session: _Session) -> None:
        """Both have decided: apply it, tell our partition, end the session."""
        if session.ops is None or session.his is None:
            return
        core, node = self._core, session.node
        his = session.his
        theirs = [pair for pair in his.known if pair[0] != core.me] if core.mesh else []
        both = wire.Resolution([*session.ops, *his.ops], [(node, core.version_of(node)), *theirs], his.external)
        self._do(both, session.lock)
        self._connect([other for other, _ in theirs])
        for other, _ in theirs:
            core.pending.pop(other, None)
            self.end(other)  # it has our names from now on, and we have its
        core.pending.pop(node, None)
        self._cancel(session, partial(self._tell_partition, list(core.known.items()), both, session))
        self._forget(session)
        self._add_known(both.known)
        self._synced(node)

    def _tell_partition(self, known: list[tuple[Atom, int]], both: wire.Resolution, session: _Session) -> None:
        extra = [(_VSN, session.version), (_LOCK, session.lock)]
        for node, version in known:
            nodes = both.known if version >= LISTS_VERSIONS else [other for other, _ in both.known]
            self._core.cast(node, (Atom("new_nodes"), self._core.me, both.ops, both.external, nodes, extra))

    def _do(self, what: wire.Resolution, lock: LockId | None) -> None:
        registrars = {(key_of(name), pid): node for name, pid, node in what.external}
        for kind, value in what.ops:
            if kind == INSERT:
                name, pid, method = value
                self._core.insert(name, pid, method, lock, registrars.get((key_of(name), pid)))
        for kind, value in what.ops:
            if kind == DELETE:
                self._core.delete(value, lock)

    # --- nodes we learn of ------------------------------------------------------------------------------------------

    def _add_known(self, nodes: list[tuple[Atom, int]]) -> list[Atom]:
        core = self._core
        added = []
        for node, version in nodes:
            if node == core.me or not (core.mesh or node in core.connected):
                continue
            if node not in core.known and len(core.known) >= MAX_KNOWN:
                core.log("warning", f"global: {node} is not taken in, {MAX_KNOWN} nodes are known already")
            elif node not in core.known:
                core.known[node] = version
                added.append(node)
            elif core.known[node] == 0:
                core.known[node] = version
        return added

    def _connect(self, nodes: list[Atom]) -> None:
        if self._core.mesh:
            for node in nodes:
                self._core.emit(Connect(node))

    # --- ends -------------------------------------------------------------------------------------------------------

    def _of(self, node: Atom, tag: Any) -> _Session | None:
        """The session that a message belongs to; one of an older session is dropped, and that one's lock released."""
        session = self._sessions.get(node)
        if session is not None and _same(session.my_tag, tag):
            return session
        if type(tag) is int:
            self.locker.send(Cancel(node, tag))
        return None

    def _restart(self, node: Atom) -> None:
        had = node in self._sessions
        self.end(node)
        if had:
            self.begin(node)

    def _cancel(self, session: _Session, first: Callable[[], None] | None = None) -> None:
        core, node = self._core, session.node
        self.locker.send(Cancel(node, session.my_tag, first))
        if core.pending.get(node, 0) >= CHECKS_TAGS:
            self._tell_cancel(node, session.his_tag)
        if session.resolving is not None and not session.resolving.ended:
            core.strands.kill(session.resolving)
            if session.asks is not None:
                self._asks.pop(session.asks, None)
                core.emit(ForgetAsk(session.asks))

    def _forget(self, session: _Session) -> None:
        self._core.pending.pop(session.node, None)
        if self._sessions.get(session.node) is session:
            del self._sessions[session.node]

    def _tell_cancel(self, node: Atom, tag: Any) -> None:
        self._core.tell(node, (Atom("cancel_connect"), self._core.me, tag))


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
