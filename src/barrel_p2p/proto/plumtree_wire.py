"""The broadcast's messages as upstream writes them: ``{'$barrel_p2p_plumtree', Msg}``.

Each names its sender, which must be the peer at the other end of the channel; what doesn't, or has a wrong shape, is
dropped and counted under its reason.
"""

from __future__ import annotations

from typing import Any, Final

from barrel_p2p.proto.plumtree_events import Gossip, Graft, IHave, Message, Prune
from barrel_p2p.term.types import Atom

TAG: Final = Atom("$barrel_p2p_plumtree")
PROCESS: Final = Atom("barrel_p2p_plumtree")  # the registered name it is sent to

MAX_ID: Final = 64  # bytes; upstream's ids have 32
_FIELDS: Final = {"gossip": 5, "ihave": 3, "graft": 3, "prune": 2}
MAX_WEIGHED: Final = 10_000  # values looked at when a payload is weighed; the rest counts as 64 bytes each


class PlumtreeWire:
    """Writes and reads the messages of one node::

        term = wire.encode(IHave(id))
        message = wire.decode(term, Atom("bob@host"))   # None: it was dropped

    Args:
        name: our node name.
    """

    def __init__(self, name: str) -> None:
        self._name = Atom(name)
        self._prune = (TAG, (Atom("prune"), self._name))
        self.dropped: dict[str, int] = {}
        """How many messages were dropped, by reason."""

    def encode(self, message: Message) -> tuple[Any, ...]:
        """The term of a message of ours."""
        match message:
            case Gossip(id, tag, payload):
                return (TAG, (Atom("gossip"), id, Atom(tag), payload, self._name))
            case IHave(id):
                return (TAG, (Atom("ihave"), id, self._name))
            case Graft(id):
                return (TAG, (Atom("graft"), id, self._name))
            case Prune():
                return self._prune

    def decode(self, term: Any, peer: str) -> Message | None:
        """The message in ``term``, which came from ``peer``; None if it was dropped."""
        message = self._decode(term, peer)
        if isinstance(message, str):
            self.dropped[message] = self.dropped.get(message, 0) + 1
            return None
        return message

    def _decode(self, term: Any, peer: str) -> Message | str:
        """The message, or why it is none: one of few texts, since they are counted."""
        if not (isinstance(term, tuple) and len(term) == 2 and term[0] == TAG and isinstance(term[1], tuple)):
            return "not an envelope"
        body = term[1]
        kind = body[0] if body else None
        if not isinstance(kind, Atom) or kind not in _FIELDS:
            return "unknown message"
        if len(body) != _FIELDS[kind]:
            return "wrong number of fields"
        if peer == self._name:
            return "from this node itself"
        if not isinstance(body[-1], Atom) or body[-1] != peer:
            return "claimed sender is not the peer"
        if kind == "prune":
            return Prune()
        id = body[1]
        if not isinstance(id, bytes) or not 0 < len(id) <= MAX_ID:
            return "not an id"
        if kind == "ihave":
            return IHave(id)
        if kind == "graft":
            return Graft(id)
        if not isinstance(body[2], Atom):
            return "tag is not an atom"
        return Gossip(id, body[2], body[3], weigh(body[3]))


def weigh(payload: Any) -> int:
    """About how many bytes a payload takes, for the bound of the cache."""
    total = 0
    stack = [payload]
    for _ in range(MAX_WEIGHED):
        if not stack:
            return total
        value = stack.pop()
        total += 16  # a guess: the least a Python value takes beside its content
        if isinstance(value, bytes | str):
            total += len(value)
        elif isinstance(value, tuple | list):
            stack.extend(value)
        elif isinstance(value, dict):
            stack.extend(value.keys())
            stack.extend(value.values())
        elif isinstance(value, int):
            total += value.bit_length() >> 3
    return total + 64 * len(stack)


__all__ = ["MAX_ID", "PROCESS", "TAG", "PlumtreeWire", "weigh"]
