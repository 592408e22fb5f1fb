"""``net_kernel``: the process that other nodes ask whether this one is there (``net_adm:ping``)."""

from __future__ import annotations

from typing import Any

from barrel_p2p.process.gen_server import GenServer
from barrel_p2p.term.types import Atom


class NetKernel(GenServer):
    """Answers ``{is_auth, Node}`` with ``yes``: whoever can ask has been let in."""

    async def handle_info(self, message: Any) -> None:
        """Nothing that is sent to it means anything; OTP ignores it too."""

    async def handle_cast(self, request: Any) -> None:
        """Likewise."""

    async def handle_call(self, request: Any, from_: Any) -> Any:
        if isinstance(request, tuple) and len(request) == 2 and request[0] == "is_auth":
            return Atom("yes")
        return (Atom("error"), Atom("unknown_call"))
