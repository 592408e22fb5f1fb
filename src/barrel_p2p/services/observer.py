"""What others may see of a node: one function, ``barrel_p2p_observer:snapshot``, which is there only once exported.

A node that is looked at passes the question on to its neighbours as well: ``snapshot([b, c])`` asks ``b`` to ask ``c``.
So whoever has a way to one node sees the cluster without connecting to all of it, which would change what is looked at,
and the nodes behind need not know who looks. Only along channels that are there already, at most ``MAX_PATH`` of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from heapq import nlargest
from importlib.metadata import version
from typing import Any, Final

from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.node.instruments import DROPPED
from barrel_p2p.node.node import Node
from barrel_p2p.node.statistics import PeerStatistics
from barrel_p2p.process.current import current
from barrel_p2p.process.process import Process
from barrel_p2p.process.runtime import Block
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.types import Atom

MODULE: Final = Atom("barrel_p2p_observer")
SNAPSHOT: Final = Atom("snapshot")
MAX_PATH: Final = 16  # nodes a question may pass; a guess: an overlay of a million nodes is half as wide
HOP_SECONDS: Final = 2.0  # that a question may take for each of them; a guess
MAX_PROCESSES: Final = 50  # that are told, those with the longest mailboxes and the busiest; a guess
MAX_PEERS: Final = 1_000  # that are told; a guess
MAX_TEXT: Final = 80  # characters of what a process is called; a guess


def export_observer(node: Node) -> None:
    """Let all nodes that may connect look at ``node``: ``barrel top`` and ``barrel graph`` do.

    They see names of nodes and processes, counts and addresses of nothing; they can change nothing. ``barrel start
    --observable`` does this.
    """
    if node.exports.find(MODULE, SNAPSHOT) is None:
        node.export(Observer(node).snapshot, module=MODULE, name=SNAPSHOT)


class Observer:
    """Tells how one node is."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._since = time.monotonic()

    async def snapshot(self, path: list[Any] | None = None) -> dict[Atom, Any]:
        """This node at this moment, or the last one of ``path``, asked from node to node. All keys are atoms.

        Raises:
            ConfigError: ``path`` is too long, or no list of names.
            NotConnected: This node has no channel to the first of ``path``.
        """
        if not path:
            return self._own()
        if not isinstance(path, list) or len(path) > MAX_PATH or not all(isinstance(name, Atom) for name in path):
            raise ConfigError(f"a path is a list of at most {MAX_PATH} names of nodes")
        if self._node.peer_info(path[0]) is None:
            raise NotConnected(f"{self._node.name} has no channel to {path[0]}")
        answer: dict[Atom, Any] = await self._node.rpc(
            path[0], MODULE, SNAPSHOT, [path[1:]], timeout=HOP_SECONDS * len(path)
        )
        return answer

    def _own(self) -> dict[Atom, Any]:
        node = self._node
        overlay = node.overlay
        processes = node.runtime.processes
        lengths = [len(process.mailbox) for process in processes.values()]
        return _atoms(
            node=node.name,
            version=version("barrel-p2p"),
            carrier=Atom(node.options.proto_dist),
            seconds=time.monotonic(),
            up=time.monotonic() - self._since,
            processes=len(lengths),
            waiting=sum(lengths),
            longest=max(lengths, default=0),
            lag_ms=node.telemetry.lag * 1000,
            active=node.active_view(),
            passive=node.passive_view(),
            eager=overlay.gossip.eager,
            lazy=overlay.gossip.lazy,
            missing=overlay.gossip.missing,
            dropped=int(node.telemetry.metrics()[DROPPED.name].value),
            idle_closed=overlay.idle.closed,
            replicas={Atom(name): size for name, size in overlay.replication.sizes.items()},
            peers=self._peers(),
            top=[_process(process) for process in _top(one for one in processes.values() if one is not current.get())],
        )

    def _peers(self) -> list[dict[Atom, Any]]:
        found = []
        for name, one in list(self._node.statistics().peers.items())[:MAX_PEERS]:
            info = self._node.peer_info(name)
            if info is not None:
                found.append(_peer(name, one, info.flags))
        return found


def _peer(name: Atom, one: PeerStatistics, flags: Flags) -> dict[Atom, Any]:
    return _atoms(
        node=name,
        kind=Atom("python" if flags & Flags.PYTHON else "erlang"),
        hidden=not flags & Flags.PUBLISHED,
        sent=one.sent_messages,
        received=one.received_messages,
        sent_bytes=one.sent_bytes,
        received_bytes=one.received_bytes,
        queued=one.queued_bytes,
        busy=one.busy,
        round_trip_ms=one.round_trip_ms,
    )


def _top(processes: Iterable[Process]) -> list[Process]:
    """Those with the longest mailboxes, and of the others those that woke most often."""
    return nlargest(MAX_PROCESSES, processes, key=lambda process: (len(process.mailbox), process.wakes))


def _process(process: Process) -> dict[Atom, Any]:
    state = "suspended" if process.gates else "receiving" if process.waiter is not None else "working"
    return _atoms(
        pid=process.pid,
        name=_called(process)[:MAX_TEXT],
        mailbox=len(process.mailbox),
        wakes=process.wakes,
        state=Atom(state),
    )


def _called(process: Process) -> str:
    """Its registered name, its label, or the function that it runs."""
    if process.name is not None:
        return process.name
    match process.label:
        case None:
            pass
        case (_, Atom() as node, Atom() as module, Atom() as function, _):
            return f"{module}:{function} for {node}"
        case ("stream", bytes() as tag, Atom() as node):
            return f"stream {tag.decode(errors='replace')} of {node}"
        case label:
            return str(label)
    runs: Any = process.steps
    if isinstance(runs, Block):  # the user's own task, which may run a coroutine of any kind
        runs = process.task.get_coro() if process.task is not None else None
    return str(getattr(runs, "__qualname__", "")).rpartition("<locals>.")[2] or "block"


def _atoms(**fields: Any) -> dict[Atom, Any]:
    return {Atom(name): value for name, value in fields.items()}


__all__ = ["HOP_SECONDS", "MAX_PATH", "MODULE", "SNAPSHOT", "Observer", "export_observer"]
