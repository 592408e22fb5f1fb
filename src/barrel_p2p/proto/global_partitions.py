"""Prevention of overlapping partitions, OTP's default since 25: if two nodes lose each other, no third keeps both.

A node that loses another tells all it knows (``lost_connection``); who hears it for the first time passes it on and
leaves the lost node (``remove_connection`` asks that node to disconnect). The graph falls into parts that are meshes.

One departure. OTP's node reports every node it loses, and the others then leave both: the one that reports and the one
that it lost. A live Erlang node reports the loss of us by itself, and the loss of a dead one all notice; our own report
would only make the others leave a healthy Erlang node because of us. So we report the loss of nodes of this library and
of no others. Partitions still can't overlap: of any two nodes that lose each other at least one reports it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from barrel_p2p.proto.global_core import LISTS_VERSIONS, Core
from barrel_p2p.proto.global_events import Disconnect
from barrel_p2p.proto.global_strands import Receive, Waiting
from barrel_p2p.shown import printable
from barrel_p2p.term.types import Atom

PREVENTS_PARTITIONS: Final = LISTS_VERSIONS  # the same version brought both
REMEMBER_SECONDS: Final = 3600.0
"""How long a report is known for an old one (OTP's value)."""
INSIST_SECONDS: Final = 5.0
"""After which we close a connection that the peer was asked to close; a guess."""
MAX_REPORTS: Final = 4096
"""Reports remembered, the oldest goes first; a guess: pairs of nodes within an hour."""


class Partitions:
    """``leave(node)`` takes a node out of all tables."""

    def __init__(self, core: Core, creation: int, leave: Callable[[Atom], None]) -> None:
        self._core = core
        self._life = core.rng.getrandbits(26) << 32 | creation  # tells our reports from those of an earlier life
        self._leave = leave
        self._reports: dict[tuple[Atom, Atom], tuple[int, int, float]] = {}

    def lost(self, node: Atom, *, kin: bool) -> None:
        """We lost a node."""
        if kin and self._core.mesh:
            message = (Atom("lost_connection"), self._core.me, self._life, self._core.number(), node)
            self._spread(message, node)

    def reported(self, message: tuple[Any, ...]) -> None:
        """``{lost_connection, A, Life, Number, B}``: A says that it lost B."""
        core = self._core
        _, reporter, life, number, lost = message
        if not core.mesh:
            return
        before = self._reports.pop((reporter, lost), None)
        if before is not None and before[0] == life and number <= before[1]:
            self._reports[reporter, lost] = before
            return
        self._spread(message, reporter)
        self._remember(reporter, lost, life, number)
        other = reporter if lost == core.me else lost
        if other not in core.known and other not in core.pending:
            return
        core.log(
            "warning",
            f"global: asks {other} to disconnect, to prevent overlapping partitions ({printable(reporter)} lost it)",
        )
        core.tell(other, (Atom("remove_connection"), core.me))
        core.removing[other] = None
        self._leave(other)
        core.strands.start(self._insist(other))

    def _insist(self, node: Atom) -> Generator[Waiting, Any, None]:
        """It disconnects, not we, or it might report the loss of us. OTP's node does not if it thinks that the two of
        us are no longer, or not yet, in touch; then we do."""
        yield Receive(seconds=INSIST_SECONDS)
        if node in self._core.removing and node in self._core.connected:
            self._core.emit(Disconnect(node))

    def asked_to_go(self, node: Atom) -> None:
        """``{remove_connection, Node}``: that node leaves us."""
        core = self._core
        if node not in core.known and node not in core.connected:
            return
        core.log("warning", f"global: disconnects from {node}, to prevent overlapping partitions: {node} asks for it")
        core.emit(Disconnect(node))
        core.removing[node] = None
        self._leave(node)

    def _spread(self, message: tuple[Any, ...], skip: Atom) -> None:
        core = self._core
        for node, version in [*core.known.items(), *core.pending.items()]:
            if node != skip and version >= PREVENTS_PARTITIONS:
                core.tell(node, message)

    def _remember(self, reporter: Atom, lost: Atom, life: int, number: int) -> None:
        now = self._core.now
        for key in list(self._reports):
            if len(self._reports) < MAX_REPORTS and self._reports[key][2] > now - REMEMBER_SECONDS:
                break
            del self._reports[key]
        self._reports[reporter, lost] = (life, number, now)
