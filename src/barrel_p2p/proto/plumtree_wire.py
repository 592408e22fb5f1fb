"""The broadcast's messages as upstream writes them: ``{'$barrel_p2p_plumtree', Msg}``.

Each names its sender, which must be the peer at the other end of the channel; what doesn't, or has a wrong shape, is
dropped and counted under its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from barrel_p2p.errors import EncodeError
from barrel_p2p.proto.plumtree_events import Gossip, Graft, IHave, Message, Prune
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, BitString, Fun, ImproperList

TAG: Final = Atom("$barrel_p2p_plumtree")
PROCESS: Final = Atom("barrel_p2p_plumtree")  # the registered name it is sent to

MAX_ID: Final = 64  # bytes; upstream's ids have 32
_FIELDS: Final = {"gossip": 5, "ihave": 3, "graft": 3, "prune": 2}
MAX_WEIGHED: Final = 100_000  # values that are looked at when a payload is weighed: 20 ms
_ANY_SIZE: Final = Codec(max_depth=1024, max_bytes=(1 << 32) - 1)  # whatever a channel lets in is weighed


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
        try:
            return Gossip(id, body[2], body[3], weigh(body[3]))
        except EncodeError:  # such as a fun of an old form
            return "payload that can't be passed on"


def weigh(payload: Any) -> int:
    """About how many bytes a payload takes, for the bound of the cache. One of many values is weighed by its encoding,
    which a peer can blow up to eight times that."""
    total = 0
    stack = [payload]
    seen = 1
    while stack and seen <= MAX_WEIGHED:
        value = stack.pop()
        if isinstance(value, bytes | str):
            total += 16 + len(value)
        elif isinstance(value, int):
            total += 16 + (value.bit_length() >> 3)
        elif isinstance(value, BitString | Fun):
            total += 64 + len(value.data)
        else:
            parts = _parts(value)
            total += 64
            seen += len(parts)
            if seen <= MAX_WEIGHED:
                stack += parts
    return total if seen <= MAX_WEIGHED else total + 8 * len(_ANY_SIZE.encode(payload))


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, tuple | list):
        return value
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()] if len(value) <= MAX_WEIGHED else range(len(value))
    if isinstance(value, ImproperList):
        return (value.elements, value.tail)
    return ()


__all__ = ["MAX_ID", "PROCESS", "TAG", "PlumtreeWire", "weigh"]
