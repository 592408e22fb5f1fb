"""Control messages between connected nodes: the operations, and what each tuple must look like.

Taken from erl_dist_protocol, "Protocol between Connected Nodes". A control message is a tuple whose first
element is the operation; some are followed by a second term, the message or the exit reason. Field orders
stand in ``_FIELDS`` below, which is also what ``check`` holds a tuple against. ``_TT`` forms carry a
sequential trace token and are otherwise equal.

The four sends (``SEND``, ``SEND_SENDER``, ``REG_SEND``, ``ALIAS_SEND``) are the hot path of a node: the
driver looks at the one field it needs and does without ``check``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from barrel_p2p.errors import ProtocolError
from barrel_p2p.shown import shown
from barrel_p2p.term.types import Atom, Pid, Port, Reference


class Op(IntEnum):
    """First element of a control message."""

    LINK = 1
    SEND = 2
    EXIT = 3
    UNLINK = 4  # until OTP 25; newer nodes send UNLINK_ID
    NODE_LINK = 5
    REG_SEND = 6
    GROUP_LEADER = 7
    EXIT2 = 8
    SEND_TT = 12
    EXIT_TT = 13
    REG_SEND_TT = 16
    EXIT2_TT = 18
    MONITOR_P = 19
    DEMONITOR_P = 20
    MONITOR_P_EXIT = 21
    SEND_SENDER = 22
    SEND_SENDER_TT = 23
    PAYLOAD_EXIT = 24
    PAYLOAD_EXIT_TT = 25
    PAYLOAD_EXIT2 = 26
    PAYLOAD_EXIT2_TT = 27
    PAYLOAD_MONITOR_P_EXIT = 28
    SPAWN_REQUEST = 29
    SPAWN_REQUEST_TT = 30
    SPAWN_REPLY = 31
    SPAWN_REPLY_TT = 32
    ALIAS_SEND = 33
    ALIAS_SEND_TT = 34
    UNLINK_ID = 35
    UNLINK_ID_ACK = 36
    ALTACT_SIG_SEND = 37  # only with the flag ALTACT_SIG (OTP 28), which we don't offer


# Flags of a SPAWN_REPLY: what the remote side set up between the requester and the new process.
SPAWN_FLAG_LINK = 1
SPAWN_FLAG_MONITOR = 2

MAX_UNLINK_ID = (1 << 64) - 1
MAX_OP = 0xFFFF  # far above what there is; an unknown one is remembered, so that it is logged once

_Check = Callable[[Any], bool]


def _any(term: Any) -> bool:
    return True


def _pid(term: Any) -> bool:
    return type(term) is Pid


def _ref(term: Any) -> bool:
    return type(term) is Reference


def _name(term: Any) -> bool:
    # The codec turns three atoms into Python's own values; as names of processes they are still atoms.
    return type(term) is Atom or term is None or type(term) is bool


def _process(term: Any) -> bool:
    return type(term) is Pid or _name(term)


def _exited(term: Any) -> bool:
    return type(term) is Port or _process(term)


def _spawned(term: Any) -> bool:
    return type(term) is Pid or _name(term)


def _entry(term: Any) -> bool:
    return (
        type(term) is tuple
        and len(term) == 3
        and _name(term[0])
        and _name(term[1])
        and type(term[2]) is int
        and 0 <= term[2] <= 255
    )


def _list(term: Any) -> bool:
    return type(term) is list


def _spawn_flags(term: Any) -> bool:
    return type(term) is int and 0 <= term < 1 << 32


def _unlink_id(term: Any) -> bool:
    return type(term) is int and 1 <= term <= MAX_UNLINK_ID


def _altact_flags(term: Any) -> bool:
    return type(term) is int and term >= 0


# op -> (field name, check) in the order of the tuple, after the operation; and whether a second term follows.
_FROM_TO = (("from", _pid), ("to", _pid))
_WATCH = (("watcher", _pid), ("target", _process), ("ref", _ref))
_REQUEST = (
    ("request", _ref),
    ("from", _pid),
    ("group_leader", _pid),
    ("module, function and arity", _entry),
    ("options", _list),
)
_REPLY = (("request", _ref), ("to", _pid), ("flags", _spawn_flags), ("result", _spawned))
_UNLINKING = (("id", _unlink_id), ("from", _pid), ("to", _pid))
_TOKEN = (("token", _any),)
_REASON = (("reason", _any),)

_FIELDS: dict[Op, tuple[tuple[tuple[str, _Check], ...], bool]] = {
    Op.LINK: (_FROM_TO, False),
    Op.SEND: ((("unused", _any), ("to", _pid)), True),
    Op.EXIT: (_FROM_TO + _REASON, False),
    Op.UNLINK: (_FROM_TO, False),
    Op.NODE_LINK: ((), False),
    Op.REG_SEND: ((("from", _pid), ("unused", _any), ("to", _name)), True),
    Op.GROUP_LEADER: (_FROM_TO, False),
    Op.EXIT2: (_FROM_TO + _REASON, False),
    Op.SEND_TT: ((("unused", _any), ("to", _pid), *_TOKEN), True),
    Op.EXIT_TT: (_FROM_TO + _TOKEN + _REASON, False),
    Op.REG_SEND_TT: ((("from", _pid), ("unused", _any), ("to", _name), *_TOKEN), True),
    Op.EXIT2_TT: (_FROM_TO + _TOKEN + _REASON, False),
    Op.MONITOR_P: (_WATCH, False),
    Op.DEMONITOR_P: (_WATCH, False),
    Op.MONITOR_P_EXIT: ((("target", _exited), ("watcher", _pid), ("ref", _ref), *_REASON), False),
    Op.SEND_SENDER: (_FROM_TO, True),
    Op.SEND_SENDER_TT: (_FROM_TO + _TOKEN, True),
    Op.PAYLOAD_EXIT: (_FROM_TO, True),
    Op.PAYLOAD_EXIT_TT: (_FROM_TO + _TOKEN, True),
    Op.PAYLOAD_EXIT2: (_FROM_TO, True),
    Op.PAYLOAD_EXIT2_TT: (_FROM_TO + _TOKEN, True),
    Op.PAYLOAD_MONITOR_P_EXIT: ((("target", _exited), ("watcher", _pid), ("ref", _ref)), True),
    Op.SPAWN_REQUEST: (_REQUEST, True),
    Op.SPAWN_REQUEST_TT: (_REQUEST + _TOKEN, True),
    Op.SPAWN_REPLY: (_REPLY, False),
    Op.SPAWN_REPLY_TT: (_REPLY + _TOKEN, False),
    Op.ALIAS_SEND: ((("from", _pid), ("alias", _ref)), True),
    Op.ALIAS_SEND_TT: ((("from", _pid), ("alias", _ref), *_TOKEN), True),
    Op.UNLINK_ID: (_UNLINKING, False),
    Op.UNLINK_ID_ACK: (_UNLINKING, False),
    Op.ALTACT_SIG_SEND: ((("flags", _altact_flags), ("from", _pid), ("to", _any)), True),
}


# The types of the terms that well-behaved peers put into a field. A check that is not named here looks at the value.
_TYPES: dict[_Check, tuple[type, ...]] = {
    _any: (Atom,),
    _pid: (Pid,),
    _ref: (Reference,),
    _name: (Atom,),
    _process: (Pid, Atom),
}


def _usual(fields: tuple[tuple[str, _Check], ...]) -> frozenset[tuple[type, ...]]:
    """The types that the whole tuple usually has: one that has them needs no closer look."""
    return frozenset(itertools.product((int,), *(_TYPES.get(right, ()) for _, right in fields)))


_SHAPES = {int(op): (op, fields, payload, _usual(fields)) for op, (fields, payload) in _FIELDS.items()}


def reg_send(sender: Pid, name: Atom) -> tuple[int, Pid, Atom, Atom]:
    """The control message of a send to a registered name."""
    return (_REG_SEND, sender, _UNUSED, name)


def with_token(control: tuple[Any, ...], token: Any) -> tuple[Any, ...]:
    """The ``_TT`` form of a send or a spawn; any other control message as it is."""
    op = _TRACED.get(control[0])
    return control if op is None else (op, *control[1:], token)


def without_token(control: tuple[Any, ...]) -> tuple[Any, ...]:
    """The plain form of what ``with_token`` made."""
    op = _UNTRACED.get(control[0])
    return control if op is None else (op, *control[1:-1])


_TRACED = {
    int(Op.SEND_SENDER): int(Op.SEND_SENDER_TT),
    int(Op.REG_SEND): int(Op.REG_SEND_TT),
    int(Op.SPAWN_REQUEST): int(Op.SPAWN_REQUEST_TT),
}
_UNTRACED = {traced: plain for plain, traced in _TRACED.items()}
_REG_SEND = int(Op.REG_SEND)
_UNUSED = Atom("")  # a field that was for a cookie


def check(control: Any, *, has_payload: bool) -> Op | None:
    """Hold a decoded control message against the protocol.

    Args:
        control: the first term of a dist message, as decoded.
        has_payload: whether a second term (message or reason) came with it.

    Returns:
        The operation, or None for one that this file does not know: a newer node may send it, skip it.

    Raises:
        ProtocolError: no control message, or one with a wrong field; the text names the field.
    """
    if type(control) is not tuple or not control or type(control[0]) is not int or not 0 <= control[0] <= MAX_OP:
        raise ProtocolError(f"a control message is a tuple that starts with an operation, not {shown(control, 100)}")
    shape = _SHAPES.get(control[0])
    if shape is None:
        return None
    op, fields, payload, usual = shape
    if has_payload is payload and tuple(map(type, control)) in usual:
        return op
    given = len(control) - 1
    if given != len(fields) and not (op is Op.ALTACT_SIG_SEND and given == len(fields) + 1):
        raise ProtocolError(f"{op.name} has {len(fields)} fields, not {given}")
    for (field, right), term in zip(fields, control[1:], strict=False):
        if not right(term):
            raise ProtocolError(f"{op.name}: {shown(term, 100)} can't be its {field}")
    if payload and not has_payload:
        raise ProtocolError(f"{op.name} came without the term that belongs to it")
    if has_payload and not payload:
        raise ProtocolError(f"{op.name} came with a term too many")
    return op


__all__ = [
    "MAX_OP",
    "MAX_UNLINK_ID",
    "SPAWN_FLAG_LINK",
    "SPAWN_FLAG_MONITOR",
    "Op",
    "check",
    "reg_send",
    "with_token",
    "without_token",
]
