"""What must be true of a cluster, each under a name that a scenario's ``checks`` can use.

A checker looks at the cluster and returns what it finds wrong, one line each. Those of ``ALWAYS`` must hold at any
time, those of ``QUIET`` once things have been quiet for the scenario's ``quiet`` seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from barrel_p2p.testing import graph
from barrel_p2p.testing.cluster import Cluster

Checker = Callable[[Cluster], list[str]]
MARGIN_MS = 1000  # a death may be noticed so long after the detection time, for what was under way
SETTLE_MS = 5000  # a link may be one-sided for less than this: messages are under way


def bounded(cluster: Cluster) -> list[str]:
    """Views keep their sizes, have no peer twice, and not the node itself."""
    config = cluster.scenario.membership
    found = []
    for member in cluster.live:
        active, passive = member.hyparview.active, member.hyparview.passive
        if len(active) > config.active_size or len(passive) > config.passive_size:
            found.append(f"{member.name} has {len(active)} active and {len(passive)} passive peers")
        if member.name in active or member.name in passive or not set(active).isdisjoint(passive):
            found.append(f"{member.name} has itself or an active peer in a view: {active} {passive}")
    return found


def no_dead(cluster: Cluster) -> list[str]:
    """No active peer is dead for longer than the detection of that takes."""
    latest = cluster.clock.ms - cluster.scenario.network.detection[1] * 1000 - MARGIN_MS
    found = []
    for member in cluster.live:
        for peer in member.hyparview.active:
            end = member.ends.get(peer)
            if end is None:
                found.append(f"{member.name} has {peer} in its active view without a channel")
            elif not end.peer.alive and end.peer.died_ms < latest:
                found.append(f"{member.name} has {peer} in its active view, dead since {end.peer.died_ms / 1000} s")
    return found


def delivered(cluster: Cluster) -> list[str]:
    """No broadcast is delivered twice; see also ``run``, which looks at each quiet broadcast when it is over."""
    return cluster.ledger.twice


def connected(cluster: Cluster) -> list[str]:
    """There is a path between any two live nodes."""
    live = cluster.live
    out = graph.links(live)
    both = [set(peers) for peers in out]
    for at, peers in enumerate(out):
        for peer in peers:
            both[peer].add(at)
    reached = len(graph.distances(both, 0)) if live else 0
    return [] if reached == len(live) else [f"{reached} of {len(live)} nodes are reached from {live[0].name}"]


def symmetric(cluster: Cluster) -> list[str]:
    """Who has a peer in its active view is in that peer's."""
    before = _one_sided(cluster)
    if not before:
        return []
    cluster.clock.run(cluster.clock.ms + SETTLE_MS)
    after = _one_sided(cluster)
    return [f"{a} has {b} in its active view, but not the other way round" for a, b in before if (a, b) in after]


def _one_sided(cluster: Cluster) -> dict[tuple[str, str], None]:
    views = {member.name: member.hyparview.active for member in cluster.live}
    return {(a, b): None for a, view in views.items() for b in view if b in views and a not in views[b]}


ALWAYS: dict[str, Checker] = {"bounded": bounded, "no_dead": no_dead, "delivered": delivered}
QUIET: dict[str, Checker] = {"symmetric": symmetric, "connected": connected}

__all__ = ["ALWAYS", "QUIET", "Checker"]
