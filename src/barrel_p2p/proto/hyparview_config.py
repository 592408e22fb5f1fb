"""The settings of the membership, each with its default and where the default comes from."""

from __future__ import annotations

from dataclasses import dataclass, fields

from barrel_p2p.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class HyParViewConfig:
    """What ``HyParView`` can be told. Names and defaults are upstream's where nothing else is said."""

    active_size: int = 5
    """Neighbours of a node: who broadcasts go to. The paper's value: fanout 4 and the link a message came by."""
    passive_size: int = 30
    """Nodes kept as replacements (the paper's value)."""
    arwl: int = 6
    """Hops of the random walk that finds neighbours for a new node (the paper's value)."""
    prwl: int = 3
    """Hops left in that walk where the new node enters a passive view; hops of a shuffle (the paper's, upstream's)."""
    shuffle_length: int = 8
    """Names in a shuffle: the sender, up to 3 active peers and the rest passive ones (the paper's 1 + 3 + 4)."""
    shuffle_period_ms: int = 10_000
    """Time between two shuffles of a node in quiet times; half of it or 2 s when members come and go."""
    max_fail_count: int = 5
    """Failed attempts after which a passive peer is forgotten."""
    base_backoff_ms: int = 1_000
    """Wait after the first failure, doubled with each further one, at most five minutes."""
    passive_max_age_ms: int = 300_000
    """A passive peer that nobody mentioned for so long is forgotten."""
    churn_window_ms: int = 30_000
    """Comings and goings are counted over windows of this length to choose the shuffle period."""
    pending_timeout_ms: int = 30_000
    """Limit for an attempt to reach a peer, connecting included."""
    neighbor_timeout_ms: int = 5_000
    """Limit for the answer of a peer that is connected (a guess: many round trips; upstream waits for
    ``pending_timeout_ms``)."""
    contact_nodes: tuple[str, ...] = ()
    """Nodes joined through, one after the other: at first until one of them has been a neighbour and the others are
    known, at least by name (else nodes that find each other early stay clusters of their own), later whenever the
    active view is empty."""
    contact_retry_ms: int = 5_000
    """Time between the first two such attempts; doubled from one to the next, up to twelve times as much."""
    rejoin_ms: int = 60_000
    """Time after which a neighbour that was lost without a word is looked for again, doubled up to five minutes: heals
    a split network (a guess; upstream forgets it)."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "contact_nodes" and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{item.name} is a whole number from 1 on, not {value!r}", option=item.name)


MAX_BACKOFF = 300.0  # seconds; upstream's value
MIN_SHUFFLE_PERIOD, MAX_SHUFFLE_PERIOD = 2.0, 30.0  # seconds; upstream's values
BUSY_CHURN, WILD_CHURN = 5, 10  # changes in a window beyond which the period is halved, is the least; upstream's
FILL_DELAY = 1.0  # seconds until a free place is filled with a name a walk left behind; a guess: the walk is over
MAX_LOST = 8  # neighbours remembered to be looked for again; a guess: more than a view, fewer than a passive one

__all__ = ["HyParViewConfig"]
