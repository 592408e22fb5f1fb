"""What the process layer asks of the network: the node implements ``Remote``, the runtime calls it.

Every method is a signal to a process of another node. None waits and none raises because the other node is away:
when it turns out unreachable, the node tells the runtime by ``connection_lost``, which fires the links and monitors.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from ..term.types import Atom, Pid, Reference

if TYPE_CHECKING:
    from .process import Process


class Remote(Protocol):
    """Signals to other nodes."""

    def send(self, sender: Process | None, to: Pid | Reference | tuple[Atom, Atom], message: Any) -> None:
        """Send to a pid, an alias or a ``(name, node)``. May suspend ``sender`` on the channel's gate."""

    def link(self, local: Pid, remote: Pid) -> None:
        """``local`` links itself to ``remote``."""

    def unlink(self, local: Pid, remote: Pid) -> None:
        """``local`` removes its link to ``remote``."""

    def exit_link(self, local: Pid, remote: Pid, reason: Any) -> None:
        """``local``, linked to ``remote``, ended (or never was, reason ``noproc``): EXIT to the other end."""

    def exit(self, sender: Pid, remote: Pid, reason: Any) -> None:
        """``exit(remote, reason)`` by ``sender``: EXIT2."""

    def monitor(self, watcher: Pid, target: Pid | tuple[Atom, Atom], ref: Reference) -> None:
        """``watcher`` monitors a pid or a ``(name, node)``."""

    def demonitor(self, watcher: Pid, target: Pid | tuple[Atom, Atom], ref: Reference) -> None:
        """``watcher`` ends that monitor."""

    def down(self, target: Pid | Atom, watcher: Pid, ref: Reference, reason: Any) -> None:
        """A local process ended that ``watcher`` monitored: by its pid, or by the registered name given here."""

    def spawn_request(
        self,
        caller: Process | None,
        node: Atom,
        function: Any,
        args: tuple[Any, ...],
        *,
        link: bool,
        monitor: Reference | None,
        name: Atom | None,
    ) -> Awaitable[Pid]:
        """Spawn an exported function on ``node``; the awaitable gives its pid or raises.

        With ``monitor`` the node records it by ``Runtime.expect_down`` before it asks, with ``link`` it records the
        link by ``Runtime.add_link`` once the reply confirms it.
        """
        ...


__all__ = ["Remote"]
