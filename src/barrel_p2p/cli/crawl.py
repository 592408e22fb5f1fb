"""Looks at a cluster through one of its nodes: asks it, then its neighbours through it, then theirs.

The question goes along channels that are there (``services.observer``), so looking makes no new ones, and only the
first node has to know this command. Nodes that don't let themselves be looked at are named by their neighbours. What
comes back is checked: a node may be of another version, or lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from barrel_p2p.cli.client import Client
from barrel_p2p.errors import BarrelError, NotConnected, RemoteError
from barrel_p2p.proto.names import is_node_name
from barrel_p2p.services.observer import HOP_SECONDS, MAX_PATH, MODULE, SNAPSHOT
from barrel_p2p.shown import printable
from barrel_p2p.term.types import Atom, Pid

MAX_AT_ONCE: Final = 16  # questions on their way; a guess

Snapshot = Mapping[Any, Any]


@dataclass(slots=True)
class Cluster:
    """What a crawl found.

    Attributes:
        seen: Snapshots by name of the node, in the order in which they were found.
        unseen: Nodes that gave none, and why.
        visitor: The node of this command, which its target knows but which is no part of the cluster.
    """

    visitor: Atom
    seen: dict[Atom, Snapshot] = field(default_factory=dict)
    unseen: dict[Atom, str] = field(default_factory=dict)


async def look(visitor: Client, path: list[Atom]) -> Snapshot:
    """The snapshot of the last node of ``path``, or of the target of the visit. Raises BarrelError."""
    timeout = HOP_SECONDS * (len(path) + 2)
    answer = await visitor.node.rpc(visitor.target, MODULE, SNAPSHOT, [path] if path else [], timeout=timeout)
    if not _is_snapshot(answer):
        raise NotConnected("its answer makes no sense: it may have another version of barrel_p2p")
    snapshot: Snapshot = answer
    return snapshot


_NUMBER: Final = (int, float)
_TEXT: Final = (str, bytes)
_NODE: Final[dict[str, Any]] = {
    "node": Atom, "version": _TEXT, "carrier": Atom, "seconds": _NUMBER, "up": _NUMBER, "processes": int,
    "waiting": int, "longest": int, "lag_ms": _NUMBER, "active": list, "passive": list, "eager": list, "lazy": list,
    "missing": int, "dropped": int, "idle_closed": int, "replicas": dict, "peers": list, "top": list,
}  # fmt: skip
_PEER: Final[dict[str, Any]] = {
    "node": Atom, "kind": Atom, "hidden": bool, "sent": int, "received": int, "sent_bytes": int,
    "received_bytes": int, "queued": int, "busy": bool, "round_trip_ms": (int, float, type(None)),
}  # fmt: skip
_PROCESS: Final[dict[str, Any]] = {"pid": Pid, "name": _TEXT, "mailbox": int, "wakes": int, "state": Atom}
_VIEWS: Final = ("active", "passive", "eager", "lazy")


def _is_snapshot(answer: Any) -> bool:
    return (
        _fits(answer, _NODE)
        and all(_is_name(name) for view in _VIEWS for name in answer[view])
        and all(isinstance(name, Atom) and _is(size, int) for name, size in answer["replicas"].items())
        and all(_fits(peer, _PEER) and _is_name(peer["node"]) for peer in answer["peers"])
        and all(_fits(process, _PROCESS) for process in answer["top"])
    )


def _fits(value: Any, shape: dict[str, Any]) -> bool:
    return isinstance(value, dict) and all(_is(value.get(key), kind) for key, kind in shape.items())


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not (isinstance(value, int) and value.bit_length() > 64)


def _is_name(value: Any) -> bool:
    return isinstance(value, Atom) and is_node_name(value)


async def crawl(visitor: Client, max_nodes: int) -> Cluster:
    """Look at up to ``max_nodes`` nodes, the nearest first. Raises BarrelError if the target shows nothing."""
    cluster = Cluster(visitor.node.name)
    first = await look(visitor, [])
    cluster.seen[visitor.target] = first
    limit = asyncio.Semaphore(MAX_AT_ONCE)
    paths: dict[Atom, list[Atom]] = {visitor.target: []}
    edge = [visitor.target]
    while edge:
        found = _neighbours(cluster, edge, paths, max_nodes)
        answers = await asyncio.gather(*(_ask(visitor, path, limit) for path in found.values()))
        edge = []
        for (name, path), answer in zip(found.items(), answers, strict=True):
            paths[name] = path
            if isinstance(answer, str):
                cluster.unseen[name] = answer
            else:
                cluster.seen[name] = answer
                edge.append(name)
    return cluster


def _neighbours(
    cluster: Cluster, edge: list[Atom], paths: dict[Atom, list[Atom]], max_nodes: int
) -> dict[Atom, list[Atom]]:
    """Nodes with a channel to one at the edge that were not asked yet."""
    found: dict[Atom, list[Atom]] = {}
    for name in edge:
        for peer in linked(cluster.seen[name]):
            path = [*paths[name], peer]
            known = peer in paths or peer in found or peer == cluster.visitor
            if not known and len(path) <= MAX_PATH and len(paths) + len(found) < max_nodes:
                found[peer] = path
    return found


def linked(snapshot: Snapshot) -> dict[Atom, None]:
    """The nodes that one has a channel to, neighbours first; visitors like this command are left out."""
    others = [peer["node"] for peer in snapshot["peers"] if not peer["hidden"]]
    connected = {peer["node"] for peer in snapshot["peers"]}
    return dict.fromkeys([*(peer for peer in snapshot["active"] if peer in connected), *others])


async def _ask(visitor: Client, path: list[Atom], limit: asyncio.Semaphore) -> Snapshot | str:
    async with limit:
        try:
            return await look(visitor, path)
        except RemoteError as error:
            return "it does not let itself be looked at" if is_undefined(error) else "its way is interrupted"
        except BarrelError as error:
            return printable(str(error))


def is_undefined(error: RemoteError) -> bool:
    """Whether the node has no observer to call."""
    return error.kind == "error" and error.reason == "undef"


def refusal(error: RemoteError, target: Atom) -> str:
    """What to tell people when the target itself shows nothing."""
    if is_undefined(error):
        return (
            f"{target} does not let itself be looked at: start it with `barrel start --observable`, or let its program "
            "call export_observer(node)"
        )
    return f"{target} could not tell how it is: {error}"


__all__ = ["Cluster", "Snapshot", "crawl", "is_undefined", "linked", "look", "refusal"]
