"""The processes that asked for ``nodeup`` and ``nodedown`` (``net_kernel:monitor_nodes``)."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

from barrel_p2p.errors import ConfigError
from barrel_p2p.node.channel import Channel
from barrel_p2p.process.process import Process
from barrel_p2p.process.subscribers import Subscribers
from barrel_p2p.proto.connecting_events import DownReason
from barrel_p2p.proto.flags import Flags
from barrel_p2p.term.types import Atom

NodeType = Literal["visible", "hidden", "all"]

_NODEUP: Final = Atom("nodeup")
_NODEDOWN: Final = Atom("nodedown")
_NODE_TYPE: Final = Atom("node_type")
_NODEDOWN_REASON: Final = Atom("nodedown_reason")


class How(NamedTuple):
    """Which nodes a subscription is for, and what it tells of them. Without any option its messages are pairs."""

    node_type: NodeType | None = None
    nodedown_reason: bool = False


class NodeMonitors:
    """A process may have several subscriptions, one for each set of options; each gives it a message."""

    def __init__(self) -> None:
        self._subscribers: dict[How, Subscribers] = {}

    def add(self, process: Process, how: How) -> None:
        """Raises ConfigError: there is no such type of nodes."""
        if how.node_type is not None and how.node_type not in get_args(NodeType):
            raise ConfigError(f"node_type is one of {get_args(NodeType)}, not {how.node_type!r}", "node_type")
        self._subscribers.setdefault(how, Subscribers()).add(process)

    def remove(self, process: Process, how: How) -> None:
        if how in self._subscribers:
            self._subscribers[how].remove(process)

    def up(self, channel: Channel) -> None:
        self._tell(_NODEUP, channel, None)

    def down(self, channel: Channel, reason: DownReason) -> None:
        self._tell(_NODEDOWN, channel, reason)

    def _tell(self, what: Atom, channel: Channel, reason: DownReason | None) -> None:
        node_type = "visible" if channel.flags & Flags.PUBLISHED else "hidden"
        for how, subscribers in list(self._subscribers.items()):
            if how == How():
                subscribers.tell((what, channel.name))
            elif how.node_type in (None, "all", node_type):
                info: dict[Any, Any] = {}
                if how.node_type is not None:
                    info[_NODE_TYPE] = Atom(node_type)
                if how.nodedown_reason and reason is not None:
                    info[_NODEDOWN_REASON] = Atom(reason)
                subscribers.tell((what, channel.name, info))


__all__ = ["How", "NodeMonitors", "NodeType"]
