"""Everything a node measures: the name, kind, unit and attributes of each instrument.

The first group has upstream's names, attributes and units, so that the dashboards of an Erlang cluster show Python
nodes as well; upstream defines two of them (``joined``, ``shuffle``) and never counts. The second is what an operator
misses there; its times are in seconds, as OpenTelemetry has them. The table in ``docs/reference/metrics.md`` is made
from this one.

Attributes are few: ``peer`` is bounded (``telemetry.MAX_SERIES``), all others come from fixed sets of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

#: Upper bounds of the buckets, for times from a loopback to a timeout; a guess.
MILLISECONDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0)
SECONDS: Final = tuple(bound / 1000 for bound in MILLISECONDS)


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """One thing that is measured.

    Attributes:
        name: As OpenTelemetry shows it, words with dots.
        unit: In UCUM, ``{message}`` for a number of messages.
        text: What it says, for people.
        attributes: Names of the attributes, in the order in which values are given.
        bounds: Upper bounds of the buckets of a histogram.
    """

    name: str
    kind: Kind
    unit: str
    text: str
    attributes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _counter(name: str, unit: str, text: str, *attributes: str) -> Instrument:
    return Instrument(f"barrel_p2p.{name}", "counter", unit, text, attributes)


def _gauge(name: str, unit: str, text: str, *attributes: str) -> Instrument:
    return Instrument(f"barrel_p2p.{name}", "gauge", unit, text, attributes)


# --- upstream's -------------------------------------------------------------------------------------------------------

PEER_UP = _counter("hyparview.peer_up", "{event}", "Nodes that became neighbours", "peer")
PEER_DOWN = _counter("hyparview.peer_down", "{event}", "Neighbours that were lost", "peer", "reason")
JOINED = _counter("hyparview.joined", "{event}", "Times this node, which had no neighbour, got one")
LEFT = _counter("hyparview.left", "{event}", "Times this node left the overlay")
SHUFFLE = _counter("hyparview.shuffle", "{exchange}", "Exchanges of names that this node began", "target")
PENDING_TIMEOUT = _counter("hyparview.pending_timeout", "{event}", "Attempts to win a neighbour that timed out", "peer")
AUTH_ATTEMPTS = _counter("dist.auth.attempts", "{exchange}", "Ed25519 key exchanges", "role", "outcome")
AUTH_DURATION = Instrument(
    "barrel_p2p.dist.auth.duration_ms",
    "histogram",
    "ms",
    "Time of an Ed25519 key exchange",
    ("role", "outcome"),
    MILLISECONDS,
)
GOSSIP_SENT = _counter("plumtree.gossip.sent", "{message}", "Broadcasts sent in full, one for each neighbour")
GOSSIP_RECEIVED = _counter("plumtree.gossip.received", "{message}", "Broadcasts that came, duplicates too", "from")
IHAVE_SENT = _counter("plumtree.ihave.sent", "{message}", "Announcements sent, one for each neighbour")
GRAFT_SENT = _counter("plumtree.graft.sent", "{message}", "Requests for a broadcast and an eager link", "peer")
PRUNE_SENT = _counter("plumtree.prune.sent", "{message}", "Links made lazy since a broadcast came twice", "peer")
REAP = _counter("dist_gc.reap", "{channel}", "Channels closed because nobody used them", "peer")
MIGRATE = _counter("dist.migrate", "{migration}", "Connections moved to another path", "peer", "outcome")
REQUEST_DROPPED = _counter("router.request_dropped", "{request}", "Searches of other nodes refused by overload")
CAST_DROPPED = _counter("service_proxy.cast_dropped", "{message}", "Always 0 here: senders to a full proxy wait")
PREAMBLE_DROPPED = _counter("streams.preamble_dropped", "{stream}", "Streams refused since too many had no tag yet")

# --- ours -------------------------------------------------------------------------------------------------------------

CHANNELS = _gauge("channel.count", "{channel}", "Nodes this one has a channel to")
MESSAGES = _counter("channel.messages", "{message}", "Messages", "peer", "direction")
BYTES = _counter(
    "channel.bytes",
    "By",
    "Bytes on the wire as the transport counts them; the last second of a channel may be missing",
    "peer",
    "direction",
)
QUEUED = _gauge("channel.queued", "By", "Bytes that wait to be sent", "peer")
BUSY_TIME = _counter("channel.busy_time", "s", "Time in which senders had to wait for the channel", "peer")
ROUND_TRIP = _gauge("channel.round_trip", "s", "Round trip to the peer, smoothed by QUIC; none over TCP", "peer")
PACKETS_LOST = _counter("channel.packets_lost", "{packet}", "QUIC packets that were lost on the way", "peer")
STREAMS = _gauge("streams.open", "{stream}", "Byte streams of both sides that have not ended", "peer")
STREAMS_REFUSED = _counter("streams.refused", "{stream}", "Byte streams of the peer that nobody took", "peer")
HANDSHAKES = _counter("dist.handshakes", "{connection}", "Attempts to connect by how they ended", "role", "reason")
TURNED_AWAY = _counter(
    "dist.turned_away", "{connection}", "Dialers that got no handshake, or had to prove their address first", "reason"
)
STRANGERS = _gauge("dist.strangers", "{connection}", "Inbound connections whose peers have not shown who they are")
HANDSHAKE_DURATION = Instrument(
    "barrel_p2p.dist.handshake.duration",
    "histogram",
    "s",
    "Time from the connection to the channel, or to the refusal",
    ("role", "outcome"),
    SECONDS,
)
ACTIVE = _gauge("hyparview.active", "{node}", "Neighbours in the overlay")
PASSIVE = _gauge("hyparview.passive", "{node}", "Nodes kept as replacements for neighbours")
EAGER = _gauge("plumtree.eager", "{node}", "Neighbours that get broadcasts in full")
LAZY = _gauge("plumtree.lazy", "{node}", "Neighbours that get announcements only")
MISSING = _gauge("plumtree.missing", "{message}", "Broadcasts that were announced and have not come yet")
DROPPED = _counter("overlay.dropped", "{message}", "Malformed or forged messages dropped", "protocol", "reason")
ENTRIES = _gauge("replica.entries", "{entry}", "Entries of the registry or of a replicated map, about", "instance")
REFUSED = _counter(
    "replica.refused", "{entry}", "Parts of what other nodes sent that were refused", "instance", "reason"
)
PROCESSES = _gauge("process.count", "{process}", "Processes on this node")
MAILBOXES = _gauge("process.mailbox.messages", "{message}", "Messages in all mailboxes")
LONGEST_MAILBOX = _gauge("process.mailbox.longest", "{message}", "Messages in the fullest mailbox")
LOOP_LAG = Instrument(
    "barrel_p2p.loop.lag",
    "histogram",
    "s",
    "How late the event loop ran what was due, looked at once a second",
    (),
    SECONDS,
)

CATALOGUE: Final[tuple[Instrument, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Instrument)
)
#: Their values are names of nodes: as many as there are peers, so these are what a bound cuts off.
NODE_ATTRIBUTES: Final = frozenset({"peer", "from", "target"})

__all__ = ["CATALOGUE", "NODE_ATTRIBUTES", "Instrument", "Kind"]
