"""The messages of ``routing`` as terms, upstream's::

    {'$barrel_p2p_route', {route_request, {route_req, Name, TTL, Origin, [Visited]}, {Pid, Ref}}}
    {Ref, {found, Node, Pid}}  or  {Ref, {error, Reason}}

What comes in is checked here, and nothing in it raises.
"""

from __future__ import annotations

from typing import Any, Final

from barrel_p2p.proto.routing import MAX_VISITED, Failure, Request, Where
from barrel_p2p.term.types import Atom, Pid, Reference

PROCESS: Final = Atom("barrel_p2p_router")
MAX_NAME: Final = 4096  # bytes, as in the registry

_ROUTE, _REQUEST, _REQ = Atom("$barrel_p2p_route"), Atom("route_request"), Atom("route_req")
_FOUND, _ERROR = Atom("found"), Atom("error")


def encode_request(request: Request, reply_to: tuple[Pid, Reference]) -> Any:
    """The message for ``PROCESS`` of a neighbour."""
    body = (_REQ, request.name, request.ttl, request.origin, list(request.visited))
    return (_ROUTE, (_REQUEST, body, reply_to))


def decode_request(term: Any, peer: Atom) -> tuple[Request, tuple[Pid, Reference]] | None:
    """What ``peer`` asks and where the answer goes: to a process of its own. None: it is malformed."""
    match term:
        case (
            Atom() as tag,
            (
                Atom() as kind,
                (Atom() as record, name, ttl, Atom() as origin, list() as visited),
                (Pid() as pid, Reference() as ref),
            ),
        ) if tag == _ROUTE and kind == _REQUEST and record == _REQ:
            if not isinstance(name, (Atom, str, bytes)) or len(name) > MAX_NAME or type(ttl) is not int or ttl < 0:
                return None
            if len(visited) > MAX_VISITED or not all(type(node) is Atom for node in visited) or pid.node != peer:
                return None
            return Request(name, ttl, origin, tuple(visited)), (pid, ref)
    return None


def encode_answer(answer: Where | Failure) -> Any:
    """What goes back, beside the reference."""
    return (_ERROR, Atom(answer)) if isinstance(answer, str) else (_FOUND, *answer)


def decode_answer(term: Any) -> Where | None:
    """Where the service is; None for every other answer."""
    match term:
        case (Atom() as tag, Atom() as node, Pid() as pid) if tag == _FOUND:
            return node, pid
    return None


__all__ = ["PROCESS", "decode_answer", "decode_request", "encode_answer", "encode_request"]
