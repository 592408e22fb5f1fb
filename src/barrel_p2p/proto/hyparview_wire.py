"""The membership's messages as upstream writes them: ``{'$barrel_p2p_hyparview', FromNode, Msg}``.

A peer is a record of ten fields of which only the name counts: nodes are dialled by name, and the rest (addresses,
times of a foreign clock, failures counted by somebody else) is of no use here. We send it as an Erlang node expects it.

What a peer sends is checked before the machine sees it. A message of a wrong shape, or whose claimed sender is not the
peer at the other end of the channel (every message of the protocol is sent by who is named in it), is dropped and
counted under its reason; so are single names in a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from barrel_p2p.proto.hyparview_events import (
    Disconnect,
    ForwardJoin,
    Join,
    Message,
    Neighbor,
    NeighborReply,
    Shuffle,
    ShuffleReply,
)
from barrel_p2p.proto.names import is_node_name
from barrel_p2p.term.types import Atom

TAG: Final = Atom("$barrel_p2p_hyparview")
PROCESS: Final = Atom("barrel_p2p_bridge")  # the registered name it is sent to

MAX_NAMES: Final = 64  # taken from one shuffle; upstream's length is 8, so anything longer is a setting or an attack
MAX_TTL: Final = 32  # hops; the paper's walks have 6. Erlang nodes let a walk with fewer than none go on for ever

_PEER, _HIGH, _LOW, _UNDEFINED = Atom("peer"), Atom("high"), Atom("low"), Atom("undefined")
_NONE = (_UNDEFINED, _UNDEFINED)


class HyParViewWire:
    """Writes and reads the messages of one node::

        term = wire.encode(Join())
        message = wire.decode(term, Atom("bob@host"))   # None: it was dropped

    Args:
        name: our node name.
        address: the IP address and port we listen on, for whom it may concern.
    """

    def __init__(self, name: str, address: tuple[str, int] | None = None) -> None:
        self._name = Atom(name)
        self._self = self._record(name, connected=True, address=address)
        self.dropped: dict[str, int] = {}
        """How many messages (or names in them) were dropped, by reason."""

    # --- writing ------------------------------------------------------------------------------------------------------

    def encode(self, message: Message) -> tuple[Any, ...]:
        """The term of a message of ours."""
        return (TAG, self._name, self._encode(message))

    def _encode(self, message: Message) -> tuple[Any, ...]:
        match message:
            case Join():
                return (Atom("join"), self._self)
            case ForwardJoin(joiner, ttl):
                return (Atom("forward_join"), self._record(joiner), ttl, self._self)
            case Disconnect():
                return (Atom("disconnect"), self._self)
            case Neighbor(high):
                return (Atom("neighbor"), _HIGH if high else _LOW, self._self)
            case NeighborReply(accept):
                return (Atom("neighbor_reply"), accept, self._self)
            case Shuffle(ttl, peers):
                return (Atom("shuffle"), ttl, [self._record(peer) for peer in peers], self._self)
            case ShuffleReply(peers):
                return (Atom("shuffle_reply"), [self._record(peer) for peer in peers], self._self)

    def _record(self, name: str, *, connected: bool = False, address: tuple[str, int] | None = None) -> tuple[Any, ...]:
        if not connected and name == self._name:
            return self._self
        ip, port = _NONE if address is None else (_ip_term(address[0]), address[1])
        return (_PEER, Atom(name), ip, port, _UNDEFINED, connected, _HIGH, _UNDEFINED, 0, _UNDEFINED)

    # --- reading ------------------------------------------------------------------------------------------------------

    def decode(self, term: Any, peer: str) -> Message | None:
        """The message in ``term``, which came from ``peer``; None if it was dropped."""
        try:
            return self._decode(term, peer)
        except _Malformed as error:
            self._count(str(error))
            return None

    def _decode(self, term: Any, peer: str) -> Message:
        if not (isinstance(term, tuple) and len(term) == 3 and term[0] == TAG and isinstance(term[2], tuple)):
            raise _Malformed("not an envelope")
        if peer == self._name:
            raise _Malformed("from this node itself")
        kind = term[2][0] if term[2] else None
        size, read = _READERS.get(kind, (0, None)) if isinstance(kind, Atom) else (0, None)
        if read is None:
            raise _Malformed("unknown message")
        if len(term[2]) != size:
            raise _Malformed("wrong number of fields")
        if _name_in(term[2][-1]) != peer:
            raise _Malformed("claimed sender is not the peer")
        return read(self, term[2])

    def _forward_join(self, message: tuple[Any, ...]) -> Message:
        joiner = _name_in(message[1])
        if joiner is None:
            raise _Malformed("joiner is not a peer record")
        return ForwardJoin(joiner, _ttl(message[2]))

    def _neighbor(self, message: tuple[Any, ...]) -> Message:
        if not (isinstance(message[1], Atom) and message[1] in (_HIGH, _LOW)):
            raise _Malformed("unknown priority")
        return Neighbor(message[1] == _HIGH)

    def _neighbor_reply(self, message: tuple[Any, ...]) -> Message:
        if not isinstance(message[1], bool):
            raise _Malformed("answer is not a boolean")
        return NeighborReply(message[1])

    def _shuffle(self, message: tuple[Any, ...]) -> Message:
        return Shuffle(_ttl(message[1]), self._names(message[2]))

    def _shuffle_reply(self, message: tuple[Any, ...]) -> Message:
        return ShuffleReply(self._names(message[1]))

    def _names(self, records: Any) -> tuple[str, ...]:
        if not isinstance(records, list):
            raise _Malformed("names are not in a list")
        names: dict[str, None] = {}
        if len(records) > MAX_NAMES:
            self._count("too many names")
        for record in records[:MAX_NAMES]:
            name = _name_in(record)
            if name is None:
                self._count("a name in a list is not a peer record")
            elif name != self._name:
                names[name] = None
        return tuple(names)

    def _count(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class _Malformed(Exception):
    """Why a message is dropped; one of few texts, since they are counted."""


def _name_in(record: Any) -> Atom | None:
    """The name in a peer record, or None if it is not one."""
    if isinstance(record, tuple) and len(record) == 10 and isinstance(record[0], Atom) and record[0] == _PEER:
        name = record[1]
        if isinstance(name, Atom) and is_node_name(name):
            return name
    return None


def _ttl(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Malformed("hops are not a number")
    return min(max(value, 0), MAX_TTL)


def _ip_term(host: str) -> Any:
    parts = host.split(".")
    return tuple(int(part) for part in parts) if len(parts) == 4 and all(p.isdigit() for p in parts) else _UNDEFINED


_READERS: Final[dict[str, tuple[int, Callable[[HyParViewWire, tuple[Any, ...]], Message] | None]]] = {
    "join": (2, lambda wire, message: Join()),
    "disconnect": (2, lambda wire, message: Disconnect()),
    "forward_join": (4, HyParViewWire._forward_join),
    "neighbor": (3, HyParViewWire._neighbor),
    "neighbor_reply": (3, HyParViewWire._neighbor_reply),
    "shuffle": (4, HyParViewWire._shuffle),
    "shuffle_reply": (3, HyParViewWire._shuffle_reply),
}

__all__ = ["MAX_NAMES", "MAX_TTL", "PROCESS", "TAG", "HyParViewWire"]
