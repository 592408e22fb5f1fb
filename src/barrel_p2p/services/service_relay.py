"""What proxies on Erlang nodes ask of a node on their way to a service: two functions, and nothing else.

An Erlang node that has no channel to a service's node lets a neighbour of its own make the call (``relay``) or the cast
(``gen_server:cast``). It names the *process* by the name of the service. We need no further hop: a Python node connects
to any node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.errors import CallError, CallTimeout, NodeDown, NoProc
from barrel_p2p.process.call import call, cast
from barrel_p2p.term.types import Atom

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node

TIMEOUT_S: Final = 10.0  # upstream's
_OK: Final = Atom("ok")
_ERROR: Final = Atom("error")


class Relay:
    """The two functions, for the exports of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def export(self) -> None:
        """Serve them; what the user exports under these names comes first."""
        exports = self._node.exports
        for module, name, function in (
            ("barrel_p2p_service_proxy", "relay", self.relay),
            ("gen_server", "cast", self.cast),
        ):
            if exports.find(module, name) is None:
                exports.add(function, module=module, name=name)

    async def relay(self, name: Any, node: Any, request: Any, context: Any) -> Any:
        """``barrel_p2p_service_proxy:relay/4``."""
        ttl = context.get(Atom("ttl")) if isinstance(context, Mapping) else None
        if type(ttl) is not int or type(node) is not Atom:
            return (_ERROR, Atom("badarg"))
        if ttl <= 0:
            return (_ERROR, Atom("ttl_expired"))
        target = self._target(name, node)
        if target is None:
            return (_ERROR, Atom("service_not_found"))
        try:
            return await call(target, request, TIMEOUT_S)
        except NoProc:
            return (_ERROR, Atom("service_not_found"))
        except NodeDown:
            return (_ERROR, Atom("node_down"))
        except CallTimeout:
            return (_ERROR, Atom("timeout"))
        except CallError as error:
            return (_ERROR, error.reason)

    def cast(self, to: Any, request: Any) -> Any:
        """``gen_server:cast/2`` with ``{Name, Node}``."""
        match to:
            case (name, Atom() as node):
                target = self._target(name, node)
                if target is not None:
                    cast(target, request)
        return _OK

    def _target(self, name: Any, node: Atom) -> Any:
        """The process of that name, or our service of it."""
        if node == self._node.name:
            if type(name) is Atom and self._node.runtime.find_name(name) is not None:
                return name
            service = self._node.registry.lookup_local(name) if isinstance(name, (Atom, str, bytes)) else None
            return None if service is None else service.pid
        return (name, node) if type(name) is Atom else None


__all__ = ["Relay"]
