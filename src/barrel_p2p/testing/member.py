"""A node of a simulated cluster: the machines of a real one, its end of each channel, its timers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from barrel_p2p.proto.hyparview_events import Kind
    from barrel_p2p.proto.hyparview_wire import HyParViewWire
    from barrel_p2p.proto.plumtree_wire import PlumtreeWire


class End:
    """One end of a channel. ``last_ms``: when what was sent here last arrives; ``held``: what a partition holds up."""

    __slots__ = ("held", "last_ms", "latency", "member", "open", "other", "peer")

    def __init__(self, member: Member, peer: Member, latency: float) -> None:
        self.member = member
        self.peer = peer
        self.latency = latency
        self.last_ms = 0
        self.open = True
        self.held: list[Any] | None = None
        self.other: End = self


class Member:
    """A running node; one that restarts is another member of the same name.

    ``number`` counts the members of the simulation. Its clock shows ``time * rate + offset``.
    """

    __slots__ = (
        "alive",
        "died_ms",
        "ends",
        "hyparview",
        "hyparview_wire",
        "kind",
        "malicious",
        "name",
        "number",
        "offset",
        "plumtree",
        "plumtree_wire",
        "rate",
        "side",
        "slow_ms",
        "timers",
        "up_ms",
    )

    def __init__(self, name: str, number: int, hyparview: Any, plumtree: Any, kind: Kind = "python") -> None:
        self.name = name
        self.number = number
        self.hyparview = hyparview
        self.plumtree = plumtree
        self.kind: Kind = kind
        self.alive = True
        self.malicious = False  # what it does and believes is nobody's concern
        self.up_ms = -1  # when it had its first neighbour
        self.died_ms = -1
        self.ends: dict[str, End] = {}
        self.timers: dict[str, int] = {}  # when each fires
        self.rate = 1.0
        self.offset = 0.0
        self.slow_ms = 0.0
        self.side = 0  # of a partition
        self.hyparview_wire: HyParViewWire | None = None
        self.plumtree_wire: PlumtreeWire | None = None


__all__ = ["End", "Member"]
