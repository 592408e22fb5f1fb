"""Links, monitors and exit signals: the half of the runtime that decides who hears of a death.

Every link and monitor stands in exactly one entry per end, and firing removes it first: that is why each fires exactly
once. An entry whose other end is on another node also stands in the index of that node, so that a lost connection finds
its own without looking at anything else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import BarrelError
from ..term.types import Atom, Pid, Reference
from .process import DEAD, EXITING, RUNNING, Process
from .reasons import DOWN, EXIT, KILL, KILLED, NOCONNECTION, NOPROC, NORMAL, PROCESS

if TYPE_CHECKING:
    from .remote import Remote

logger = logging.getLogger("barrel_p2p.process")

NameOnNode = tuple[Atom, Atom]
Sink = Process | asyncio.Future[Any] | Callable[[Any], None]

_UNBORN: Final = Atom("")  # stands for the pid of a process that another node has yet to spawn


class KernelExit(tuple[Any, ...]):
    """The EXIT message of a process of the node itself, which no message that somebody sent can be taken for."""

    __slots__ = ()


class Monitor:
    """One monitor, seen from this node: at least one of its ends is here.

    ``shown`` is what the DOWN message names: the pid, or ``(name, node)``; for a watcher on another node the pid or the
    bare name. ``sink`` is who takes the reason: a process of ours, a future or function (of a call), or ``None``
    when the watcher is on another node.
    """

    __slots__ = ("ref", "shown", "sink", "target", "watcher")

    def __init__(
        self,
        ref: Reference,
        watcher: Pid,
        sink: Sink | None,
        target: Process | None,
        shown: Pid | NameOnNode | Atom,
    ) -> None:
        self.ref: Final = ref
        self.watcher: Final = watcher
        self.sink: Final = sink
        self.target: Final = target  # None: on another node
        self.shown = shown


class Peer:
    """What binds this node's processes to those of one other node."""

    __slots__ = ("links", "watched", "watching")

    def __init__(self) -> None:
        self.links: dict[tuple[Process, Pid], None] = {}
        self.watching: dict[tuple[int, ...], Monitor] = {}  # ours on theirs
        self.watched: dict[tuple[int, ...], Monitor] = {}  # theirs on ours


class Signals:
    """Links, monitors and exit signals of one runtime."""

    name: Atom
    pid: Pid
    remote: Remote | None

    def __init__(self) -> None:
        self.peers: dict[Atom, Peer] = {}
        self.watching: dict[tuple[int, ...], Monitor] = {}  # our monitors on other nodes' processes, by their reference
        self.kernel: dict[Pid, None] = {}  # processes of the node itself: no other node can end them

    def find(self, pid: Pid) -> Process | None:
        raise NotImplementedError

    def find_name(self, name: str) -> Process | None:
        raise NotImplementedError

    def _peer(self, node: Atom) -> Peer:
        peer = self.peers.get(node)
        if peer is None:
            peer = self.peers[node] = Peer()
        return peer

    def bonds(self, node: Atom) -> int:
        """Links with processes of ``node``, and monitors of its processes on ours."""
        peer = self.peers.get(node)
        return 0 if peer is None else len(peer.links) + len(peer.watched)

    def _tidy(self, node: Atom, peer: Peer) -> None:
        """An empty index goes, so that nodes that come and go leave nothing behind."""
        if not (peer.links or peer.watching or peer.watched) and self.peers.get(node) is peer:
            del self.peers[node]

    # --- exit signals -----------------------------------------------------------------------------------------------

    def exit_signal(self, process: Process, sender: Pid, reason: Any, *, linked: bool) -> None:
        """An exit signal arrives: a message when trapped, ignored when normal, the end of the process otherwise.

        ``kill`` that was sent can't be trapped and becomes ``killed``; ``kill`` that comes over a link is a reason like
        any other (as Erlang has it).
        """
        is_kernel = process.pid in self.kernel
        if is_kernel and sender.node != self.name:
            return
        if not linked and _is(reason, KILL):
            self.terminate(process, KILLED, hard=True, sender=sender)
        elif process.status != RUNNING:
            return
        elif process.trap_exit:
            message = (EXIT, sender, reason)
            process.put_signal(KernelExit(message) if is_kernel else message)
        elif not _is(reason, NORMAL) or (not linked and sender == process.pid):
            self.terminate(process, reason, sender=sender)

    def orders_end(self, process: Process, message: tuple[Any, ...]) -> bool:
        """Whether an EXIT message is the node's order to end. Anybody can send such a message, as in Erlang, but
        a process of the node itself obeys the signal alone."""
        return bool(message[1] == self.pid) and (type(message) is KernelExit or process.pid not in self.kernel)

    def terminate(self, process: Process, reason: Any, *, hard: bool = False, sender: Pid | None = None) -> None:
        """End a process for ``reason``, trapping or not: it unwinds at its next await point.

        ``sender`` is the process that the signal came from, if it was one.
        """
        if process.status == RUNNING:
            self.doom(process, reason)
        elif process.status == DEAD or not hard:
            return
        if process.steps is not None:
            process.steps.unwind(hard=hard, sender=sender)

    def doom(self, process: Process, reason: Any) -> None:
        """Fix the exit reason; whoever calls this also interrupts the process."""
        process.status = EXITING
        process.exit_reason = reason
        process.attention = True
        process.reductions = 0
        process.leave_gates()
        process.took()  # nobody waits for room in the mailbox of a process that exits

    # --- links ------------------------------------------------------------------------------------------------------

    def link(self, process: Process, pid: Pid) -> None:
        """Link a process of this node with any other."""
        if pid == process.pid or process.status == DEAD or (process.links is not None and pid in process.links):
            return
        if pid.node != self.name:
            if self.remote is None:
                self.exit_signal(process, pid, NOCONNECTION, linked=True)
                return
            self.add_link(process.pid, pid)
            self.remote.link(process.pid, pid)
            return
        other = self.find(pid)
        if other is None:
            self.exit_signal(process, pid, NOPROC, linked=True)
            return
        _add(process, pid)
        _add(other, process.pid)

    def unlink(self, process: Process, pid: Pid) -> None:
        """Remove a link; an EXIT of it that has not been received yet never will be."""
        if process.links is None or pid not in process.links:
            return
        del process.links[pid]
        if pid.node == self.name:
            other = self.find(pid)
            if other is not None and other.links:
                other.links.pop(process.pid, None)
            return
        self._forget_link(process, pid)
        if self.remote is not None:
            self.remote.unlink(process.pid, pid)

    def add_link(self, local: Pid, remote: Pid) -> bool:
        """Record a link to another node without a signal; false when the local process is dead."""
        process = self.find(local)
        if process is None:
            return False
        _add(process, remote)
        self._peer(remote.node).links[process, remote] = None
        return True

    def link_in(self, remote: Pid, local: Pid) -> None:
        """LINK received."""
        if not self.add_link(local, remote) and self.remote is not None:
            self.remote.exit_link(local, remote, NOPROC)

    def unlink_in(self, remote: Pid, local: Pid) -> None:
        """UNLINK received."""
        process = self.find(local)
        if process is not None and process.links and remote in process.links:
            del process.links[remote]
            self._forget_link(process, remote)

    def exit_in(self, remote: Pid, local: Pid, reason: Any, *, linked: bool) -> bool:
        """EXIT (``linked``: counts only while that link is active, and ends it) or EXIT2 received.

        False when there is no such link.
        """
        process = self.find(local)
        if process is None:
            return True
        if linked:
            if not process.links or remote not in process.links:
                return False
            del process.links[remote]
            self._forget_link(process, remote)
        self.exit_signal(process, remote, reason, linked=linked)
        return True

    def _forget_link(self, process: Process, remote: Pid) -> bool:
        """Take a link out of the index of its node; false when it is not there, for the connection was lost."""
        peer = self.peers.get(remote.node)
        if peer is None or (process, remote) not in peer.links:
            return False
        del peer.links[process, remote]
        self._tidy(remote.node, peer)
        return True

    # --- monitors ---------------------------------------------------------------------------------------------------

    def monitor(self, watcher: Pid, sink: Sink, target: Pid | NameOnNode, ref: Reference) -> Monitor:
        """Watch a pid or a ``(name, node)``; the reason goes to ``sink``, exactly once."""
        node = target.node if isinstance(target, Pid) else target[1]
        if node == self.name:
            process = self.find(target) if isinstance(target, Pid) else self.find_name(target[0])
            monitor = Monitor(ref, watcher, sink, process, target)
            if process is None:
                _fire(monitor, NOPROC)
            else:
                _watch(monitor)
                _add_watcher(process, monitor)
            return monitor
        monitor = Monitor(ref, watcher, sink, None, target)
        if self.remote is None:
            _fire(monitor, NOCONNECTION)
        else:
            self._watch_remote(monitor, node)
            self.remote.monitor(watcher, target, ref)
        return monitor

    def expect_down(self, node: Atom, watcher: Pid, sink: Sink, ref: Reference) -> Monitor:
        """Record a monitor on a process that ``node`` is asked to spawn; set ``shown`` once its pid is known.

        It must stand before the request leaves: the DOWN of a process that ended at once may overtake the reply.
        """
        monitor = Monitor(ref, watcher, sink, None, (_UNBORN, node))
        self._watch_remote(monitor, node)
        return monitor

    def _watch_remote(self, monitor: Monitor, node: Atom) -> None:
        _watch(monitor)
        self.watching[monitor.ref.ids] = monitor
        self._peer(node).watching[monitor.ref.ids] = monitor

    def demonitor(self, process: Process, ref: Reference) -> bool:
        """End a monitor of ``process``; false when there is none (any more)."""
        monitor = process.monitors.get(ref.ids) if process.monitors else None
        if monitor is None or monitor.ref != ref:
            return False
        self.end_monitor(monitor)
        return True

    def end_monitor(self, monitor: Monitor) -> None:
        """End one of our monitors, fired or not."""
        if isinstance(monitor.sink, Process) and monitor.sink.monitors:
            monitor.sink.monitors.pop(monitor.ref.ids, None)
        if monitor.target is not None:
            if monitor.target.monitored_by:
                monitor.target.monitored_by.pop(monitor, None)
        elif self._forget_watching(monitor) and self.remote is not None and not _is_unborn(monitor):
            _tell(self.remote.demonitor, monitor.watcher, monitor.shown, monitor.ref)

    def monitor_in(self, watcher: Pid, target: Pid | Atom, ref: Reference) -> None:
        """MONITOR received, by pid or by registered name."""
        process = self.find(target) if isinstance(target, Pid) else self.find_name(target)
        if process is None:
            if self.remote is not None:
                self.remote.down(target, watcher, ref, NOPROC)
            return
        watched = self._peer(watcher.node).watched
        if ref.ids not in watched:
            monitor = watched[ref.ids] = Monitor(ref, watcher, None, process, target)
            _add_watcher(process, monitor)

    def demonitor_in(self, watcher: Pid, ref: Reference) -> None:
        """DEMONITOR received."""
        monitor = self._forget_watched(watcher, ref)
        if monitor is not None and monitor.target is not None and monitor.target.monitored_by:
            monitor.target.monitored_by.pop(monitor, None)

    def down_in(self, target: Pid | Atom, ref: Reference, reason: Any, *, node: Atom) -> None:
        """``node`` tells that a process of its own has died which one of ours monitors."""
        monitor = self.watching.get(ref.ids)
        if monitor is not None and monitor.ref == ref and _node_of(monitor) == node:
            self._forget_watching(monitor)
            if isinstance(target, Pid) and _is_unborn(monitor):
                monitor.shown = target
            _fire(monitor, reason)

    def _forget_watching(self, monitor: Monitor) -> bool:
        """Take a monitor of ours on another node out of both indexes; false when it is in none."""
        if self.watching.pop(monitor.ref.ids, None) is None:
            return False
        node = _node_of(monitor)
        peer = self.peers.get(node)
        if peer is not None:
            peer.watching.pop(monitor.ref.ids, None)
            self._tidy(node, peer)
        return True

    def _forget_watched(self, watcher: Pid, ref: Reference) -> Monitor | None:
        peer = self.peers.get(watcher.node)
        if peer is None:
            return None
        monitor = peer.watched.pop(ref.ids, None)
        self._tidy(watcher.node, peer)
        return monitor

    # --- deaths -----------------------------------------------------------------------------------------------------

    def connection_lost(self, node: Atom) -> None:
        """Every link and monitor to or from ``node`` fires or vanishes, once, for ``noconnection``."""
        peer = self.peers.pop(node, None)
        if peer is None:
            return
        for monitor in peer.watched.values():
            if monitor.target is not None and monitor.target.monitored_by:
                monitor.target.monitored_by.pop(monitor, None)
        for ids in peer.watching:
            del self.watching[ids]
        for process, remote in peer.links:
            if process.links:
                process.links.pop(remote, None)
        for process, remote in peer.links:
            self.exit_signal(process, remote, NOCONNECTION, linked=True)
        for monitor in peer.watching.values():
            _fire(monitor, NOCONNECTION)

    def _fire_all(self, process: Process, reason: Any) -> None:
        """``process`` is dead: tell everyone who is linked to it or monitors it, and end its own monitors.

        A connection that is lost over it takes its links and monitors along: there is nobody left to tell then.
        """
        links, process.links = process.links, None
        for pid in links or ():
            if pid.node == self.name:
                other = self.find(pid)
                if other is not None and other.links:
                    other.links.pop(process.pid, None)
                    self.exit_signal(other, process.pid, reason, linked=True)
            elif self._forget_link(process, pid) and self.remote is not None:
                _tell(self.remote.exit_link, process.pid, pid, reason)
        watchers, process.monitored_by = process.monitored_by, None
        for monitor in watchers or ():
            if monitor.sink is not None:
                _fire(monitor, reason)
            elif self._forget_watched(monitor.watcher, monitor.ref) is not None and self.remote is not None:
                assert not isinstance(monitor.shown, tuple)
                _tell(self.remote.down, monitor.shown, monitor.watcher, monitor.ref, reason)
        for monitor in list(process.monitors.values()) if process.monitors else ():
            self.end_monitor(monitor)
        process.monitors = None


def _fire(monitor: Monitor, reason: Any) -> None:
    """The monitor's own entries are gone already; tell its watcher."""
    sink = monitor.sink
    if isinstance(sink, Process):
        if sink.monitors:
            sink.monitors.pop(monitor.ref.ids, None)
        if sink.status != DEAD:
            sink.put_signal((DOWN, monitor.ref, PROCESS, monitor.shown, reason))
    elif isinstance(sink, asyncio.Future):
        if not sink.done():
            sink.set_result(reason)
    elif sink is not None:
        sink(reason)


def _tell(signal: Callable[..., None], *args: Any) -> None:
    """A signal of a dead process to another node: if its channel fails over it, the other signals still go out."""
    try:
        signal(*args)
    except BarrelError as error:
        logger.error("could not tell another node of a death: %s", error)


def _node_of(monitor: Monitor) -> Atom:
    """The other node of a monitor of ours."""
    assert not isinstance(monitor.shown, Atom)
    return monitor.shown.node if isinstance(monitor.shown, Pid) else monitor.shown[1]


def _is_unborn(monitor: Monitor) -> bool:
    return isinstance(monitor.shown, tuple) and monitor.shown[0] is _UNBORN


def _add(process: Process, pid: Pid) -> None:
    if process.links is None:
        process.links = {}
    process.links[pid] = None


def _watch(monitor: Monitor) -> None:
    sink = monitor.sink
    if isinstance(sink, Process):
        if sink.monitors is None:
            sink.monitors = {}
        sink.monitors[monitor.ref.ids] = monitor


def _add_watcher(process: Process, monitor: Monitor) -> None:
    if process.monitored_by is None:
        process.monitored_by = {}
    process.monitored_by[monitor] = None


def _is(reason: Any, atom: Atom) -> bool:
    return type(reason) is Atom and reason == atom


__all__ = ["KernelExit", "Monitor", "NameOnNode", "Signals"]
