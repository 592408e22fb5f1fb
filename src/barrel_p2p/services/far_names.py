"""Names that a registry on an Erlang or Elixir node keeps: its module is asked by remote calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from barrel_p2p.services.rpc import rpc
from barrel_p2p.term.types import Atom, Pid

if TYPE_CHECKING:
    from barrel_p2p.node.node import Node

TIMEOUT = 5.0  # seconds for one answer; OTP's default for a call


class FarNames:
    """The resolver behind ``via((module, node), name)``: any module with the functions that OTP asks of ``via``."""

    def __init__(self, node: Node, module: Atom, peer: Atom) -> None:
        self._node = node
        self._module = module
        self._peer = peer

    async def register_name(self, name: Any, pid: Pid) -> bool:
        """Give ``pid`` the name, if the registry takes processes of other nodes (Elixir's ``Registry`` does not)."""
        return await self._ask("register_name", name, pid) in (True, "yes")

    async def unregister_name(self, name: Any) -> None:
        """Take the name away."""
        await self._ask("unregister_name", name)

    async def whereis_name(self, name: Any) -> Pid | None:
        """Who has the name."""
        found = await self._ask("whereis_name", name)
        return found if isinstance(found, Pid) else None

    async def _ask(self, function: str, *args: Any) -> Any:
        return await rpc(self._node, self._peer, self._module, function, list(args), TIMEOUT)


__all__ = ["FarNames"]
