"""The messages of ``global`` as they travel: what a peer sent, checked and turned into values, or None.

Nothing here raises: whatever is not of the expected form is None, and the caller drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from barrel_p2p.proto.global_core import DELETE, INSERT, MAX_KNOWN
from barrel_p2p.proto.global_tables import MAX_NAMES, key_of
from barrel_p2p.term.types import Atom, Pid

_VERSIONED: Final = 2
MIN_VERSION: Final = 7  # of OTP 25.0; older nodes can't connect to us anyway


@dataclass(frozen=True, slots=True)
class InitConnect:
    node: Atom
    version: int  # the peer's own
    tag: Any
    locker: Pid


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a peer decided: names to insert and to delete here, and the nodes that it knows."""

    ops: list[Any]
    known: list[tuple[Atom, int]]
    external: list[Any]


def is_node(term: Any) -> bool:
    return type(term) is Atom and "@" in term


def is_name(term: Any) -> bool:
    """Whether a term can be a key: one that is nested too deep can't."""
    try:
        key_of(term)
    except RecursionError:
        return False
    return True


def init_connect(message: Any) -> InitConnect | None:
    """``{init_connect, {Vsn, Tag, ...}, Node, {locker, _, _, Locker}}``."""
    _, version, node, init = message
    if not (isinstance(version, tuple) and len(version) >= _VERSIONED and _is_count(version[0]) and is_node(node)):
        return None
    if not (isinstance(init, tuple) and len(init) == 4 and isinstance(init[3], Pid) and init[3].node == node):
        return None
    return InitConnect(node, version[0], version[1], init[3])


def known_nodes(term: Any) -> list[tuple[Atom, int]]:
    """``[Node]`` or ``[{Node, Vsn}]``, without what is neither, cut at ``MAX_KNOWN``."""
    nodes: list[tuple[Atom, int]] = []
    for item in term if isinstance(term, list) else []:
        if len(nodes) >= MAX_KNOWN:
            break
        if is_node(item):
            nodes.append((item, 0))
        elif isinstance(item, tuple) and len(item) == 2 and is_node(item[0]) and _is_count(item[1]):
            nodes.append((item[0], item[1]))
    return nodes


def name_list(term: Any) -> list[tuple[Any, Pid, Any]] | None:
    """``[{Name, Pid, Method}]``, cut at ``MAX_NAMES`` and without entries of another form; None if it is no list."""
    if not isinstance(term, list):
        return None
    return [
        item
        for item in term[:MAX_NAMES]
        if isinstance(item, tuple) and len(item) == 3 and isinstance(item[1], Pid) and is_name(item[0])
    ]


def operations(term: Any) -> list[Any] | None:
    """``[{insert, {Name, Pid, Method}} | {delete, Name}]``, cut in the same way."""
    if not isinstance(term, list):
        return None
    return [
        item
        for item in term[:MAX_NAMES]
        if isinstance(item, tuple)
        and len(item) == 2
        and ((item[0] == INSERT and name_list([item[1]])) or (item[0] == DELETE and is_name(item[1])))
    ]


def external_names(term: Any) -> list[tuple[Any, Pid, Any]]:
    """``[{Name, Pid, RegNode}]``: names of processes that are on no Erlang node."""
    return name_list(term) or []


def resolution(ops: Any, known: Any, external: Any) -> Resolution | None:
    checked = operations(ops)
    return None if checked is None else Resolution(checked, known_nodes(known), external_names(external))


def lock_id(term: Any) -> tuple[Any, Any] | None:
    """``{ResourceId, LockRequesterId}``."""
    return term if isinstance(term, tuple) and len(term) == 2 and is_name(term) else None


def session_lock(extra: Any) -> tuple[Any, Any] | None:
    """The lock's id in the last element of ``new_nodes``, ``[{vsn, V}, {lock, Id}]``."""
    for item in extra if isinstance(extra, list) else []:
        if isinstance(item, tuple) and len(item) == 2 and item[0] == "lock":
            return lock_id(item[1])
    return None


def caller(sender: Any) -> Pid | None:
    """Who made a call."""
    if isinstance(sender, tuple) and len(sender) == 2 and isinstance(sender[0], Pid):
        return sender[0]
    return None


def _is_count(term: Any) -> bool:
    return type(term) is int and 0 <= term < 1 << 16
