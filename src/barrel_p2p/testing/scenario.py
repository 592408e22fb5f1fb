"""A scenario as data: how many nodes, how they join, over what network, what goes wrong and what is broadcast.

::

    name = "halves"
    nodes = 100
    duration = 300.0

    [join]
    within = 20.0

    [[fault]]
    kind = "partition"
    at = 30.0
    lasts = 60.0

Times are in seconds; those of faults and broadcasts, and the duration, count from the moment when the cluster is
ready: all nodes have joined and ``join.settle`` has passed.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from barrel_p2p.errors import ConfigError
from barrel_p2p.proto.hyparview_config import HyParViewConfig
from barrel_p2p.proto.plumtree_config import PlumtreeConfig

FaultKind = Literal["crash", "leave", "partition", "slow", "churn", "chaos"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinPlan:
    """How the cluster comes to be: one node after the other, each through a random one of the first ``contacts``.

    ``configured``: those are the ``contact_nodes`` of every node, so that one without a neighbour comes back by itself.
    Else a node joins through a random live node when it starts again, when its join failed, or when its contact died
    before it knew anybody else.
    """

    within: float = 10.0
    contacts: int = 1
    settle: float = 60.0
    configured: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What lies between the nodes.

    ``channel`` is what nodes have, QUIC or TCP: messages arrive in order and once while the connection lives, and a
    ``loss`` costs a retransmission (``resend_ms``). ``datagram`` is for stress: there ``loss``, ``duplicate`` and
    ``reorder`` are shares of messages that are lost, doubled, late.
    """

    mode: Literal["channel", "datagram"] = "channel"
    latency_ms: tuple[float, float] = (10.0, 50.0)
    """One way, drawn once for a connection."""
    jitter_ms: float = 5.0
    """Up to this much more for each message."""
    detection: tuple[float, float] = (1.0, 3.0)
    """Until a node notices that the other end of a channel is gone or cut off."""
    refused: float = 0.5
    """The share of failing attempts to connect that fail after a round trip; the others take ``connect_timeout``."""
    connect_timeout: float = 7.0
    connect_failure: float = 0.0
    """The share of attempts that fail although the peer is there."""
    idle_close: float = 5.0
    """A channel that neither end needs is closed after this."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    resend_ms: float = 200.0

    @property
    def plain(self) -> bool:
        """Whether messages just arrive."""
        return self.mode == "channel" and not self.loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """How wrong the clocks of the nodes are: up to so many seconds off, up to so many parts in a million too fast."""

    offset: float = 0.0
    drift_ppm: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something goes wrong at ``at`` with ``share`` of the nodes, and for ``lasts`` seconds where that has a meaning.

    - ``crash``: they die without a word, at once; ``restart`` seconds later they come back empty (0: never).
    - ``leave``: they leave, then stop.
    - ``partition``: they and the others can't reach each other; ``one_way``: they don't hear the others.
    - ``slow``: what they get waits ``delay_ms`` longer.
    - ``churn``: in each minute ``share`` of the nodes crash, and as many new ones join.
    - ``chaos``: a random mixture of all of these.
    """

    kind: FaultKind
    at: float = 0.0
    lasts: float = 60.0
    share: float = 0.1
    restart: float = 0.0
    delay_ms: float = 200.0
    one_way: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcasts:
    """``count`` broadcasts, one each ``every`` seconds from ``at`` on, from a random live node or always the first.

    ``flood`` doesn't run a protocol: it asks which nodes a flood over the active views, as they are at that moment,
    would reach (the paper's measure of HyParView).
    """

    at: float = 0.0
    count: int = 10
    every: float = 1.0
    senders: Literal["random", "first"] = "random"
    mode: Literal["plumtree", "flood"] = "plumtree"
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malicious:
    """One member, the last to join, says what nobody should (see ``malice``), from when the cluster is ready until it
    has to be quiet: ``per_minute`` messages beside those of an honest one."""

    per_minute: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """See the head of this file; ``load`` makes one of a TOML file."""

    name: str
    about: str = ""
    nodes: int = 50
    duration: float = 120.0
    seed: int = 1
    wire: bool = False
    """Send every message through the codec of the wire."""
    services: bool = False
    """Let the nodes share maps, services and leases, and look for services; messages are bytes, as on a real node."""
    join: JoinPlan = field(default_factory=JoinPlan)
    network: Network = field(default_factory=Network)
    clocks: Clocks = field(default_factory=Clocks)
    membership: HyParViewConfig = field(default_factory=HyParViewConfig)
    broadcast: PlumtreeConfig = field(default_factory=PlumtreeConfig)
    faults: tuple[Fault, ...] = ()
    broadcasts: tuple[Broadcasts, ...] = ()
    malicious: Malicious | None = None
    checks: tuple[str, ...] = ("bounded", "symmetric", "connected", "delivered", "no_dead")
    """Names of checkers (see ``checkers``)."""
    check_every: float = 5.0
    """Between two looks of the checkers that hold at any time."""
    quiet: float = 60.0
    """So long after the last fault the views must be right, and so long around a broadcast nothing may happen for it to
    have to reach everybody."""

    @property
    def ready(self) -> float:
        """When the cluster is ready, in seconds of simulated time."""
        return self.join.within + self.join.settle


def load(source: str | Path) -> Scenario:
    """Read a scenario: a path of a TOML file, or the name of a standard one (see ``standard``).

    Raises:
        ConfigError: there is no such file, or it is not a scenario; the message says which and why.
    """
    path = Path(source)
    if path.suffix == ".toml":
        try:
            text = path.read_text()
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    elif str(source) in standard():
        text = resources.files(__package__).joinpath("scenarios", f"{source}.toml").read_text()
    else:
        raise ConfigError(f"{source} is no scenario: give a .toml file, or one of {', '.join(standard())}")
    try:
        return from_mapping(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}") from None


def standard() -> list[str]:
    """The names of the scenarios that come with the package."""
    folder = resources.files(__package__).joinpath("scenarios")
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def from_mapping(table: Mapping[str, Any]) -> Scenario:
    """A scenario of what a TOML file holds; tables ``[[fault]]`` and ``[[broadcasts]]`` may repeat."""
    table = dict(table)
    values: dict[str, Any] = {
        "faults": tuple(_make(Fault, item, "fault") for item in table.pop("fault", ())),
        "broadcasts": tuple(_make(Broadcasts, item, "broadcasts") for item in table.pop("broadcasts", ())),
    }
    for name, kind in _PARTS.items():
        if name in table:
            values[name] = _make(kind, table.pop(name), name)
    scenario: Scenario = _make(Scenario, {**table, **values}, "scenario")
    return scenario


_PARTS: dict[str, type] = {
    "join": JoinPlan,
    "network": Network,
    "clocks": Clocks,
    "membership": HyParViewConfig,
    "broadcast": PlumtreeConfig,
    "malicious": Malicious,
}


def _make(kind: Any, table: Mapping[str, Any], where: str) -> Any:
    known = {item.name for item in dataclasses.fields(kind)}
    for name in table:
        if name not in known:
            raise ConfigError(f"{where} has no setting {name!r}; it has {', '.join(sorted(known))}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in table.items()})
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from None


__all__ = [
    "Broadcasts",
    "Clocks",
    "Fault",
    "JoinPlan",
    "Malicious",
    "Network",
    "Scenario",
    "from_mapping",
    "load",
    "standard",
]
