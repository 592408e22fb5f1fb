"""What must be true of a cluster, each under a name that a scenario's ``checks`` can use.

A checker looks at the cluster and returns what it finds wrong, one line each. Those of ``ALWAYS`` must hold at any
time, those of ``QUIET`` once things have been quiet for the scenario's ``quiet`` seconds.
"""

from __future__ import annotations

from collections.abc import Callable

from barrel_p2p.crdt import hlc
from barrel_p2p.testing import graph
from barrel_p2p.testing.cluster import Cluster
from barrel_p2p.testing.services import Services
from barrel_p2p.testing.shared import SHARED, service_of

Checker = Callable[[Cluster], list[str]]
MARGIN_MS = 1000  # a death may be noticed so long after the detection time, for what was under way
SETTLE_MS = 5000  # a link may be one-sided for less than this: messages are under way


def bounded(cluster: Cluster) -> list[str]:
    """Views keep their sizes, have no peer twice, and not the node itself."""
    config = cluster.scenario.membership
    found = []
    for member in cluster.honest:
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
    for member in cluster.honest:
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
    live = cluster.honest
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
    views = {member.name: member.hyparview.active for member in cluster.honest}
    return {(a, b): None for a, view in views.items() for b in view if b in views and a not in views[b]}


def clock(cluster: Cluster) -> list[str]:
    """No clock was dragged along by stamps of others further than ``crdt.hlc`` follows them."""
    found = []
    services = _services(cluster)
    for member in services.honest:
        ahead = hlc.wall_ms(services.shared[member].clock.last) - services.wall_ms(member)
        if ahead > hlc.MAX_AHEAD_MS:
            found.append(f"the clock of {member.name} is {ahead} ms ahead of its wall clock")
    return found


def sized(cluster: Cluster) -> list[str]:
    """No table of a node was larger than its bound when it was measured last."""
    services = _services(cluster)
    return services.growth.beyond(services.bounds())


def steady(cluster: Cluster) -> list[str]:
    """Tables that have no bound of their own are as small at the end as in the beginning."""
    services = _services(cluster)
    return services.growth.grown(services.bounds(), first=len(services.growth.samples) // 8 or 1)


def converged(cluster: Cluster) -> list[str]:
    """All copies of the shared map and of the registry are equal, and hold what honest nodes wrote last."""
    services, found = _services(cluster), []
    roots = {}
    for member in cluster.honest:
        shared = services.shared[member]
        copy = shared.maps[SHARED]
        roots[member.name] = copy.root()
        for key, value in services.writes.items():
            if copy.map.get(key) != value:
                found.append(f"{member.name} has {copy.map.get(key)!r} for {key}, last written was {value}")
        for node, pid in services.offers.items():
            pids = [one.pid for one in shared.registry.lookup(service_of(node)) if one.node == node]
            if pids != [pid]:
                found.append(f"{member.name} finds {pids} for the service of {node}, which offers {pid}")
    if len(set(roots.values())) > 1:
        found.append(f"copies of the map differ: {roots}")
    if services.searched != services.ended:
        found.append(f"{services.searched} searches, of which {services.ended} ended")
    return found


def _services(cluster: Cluster) -> Services:
    assert isinstance(cluster, Services), "this checker is for a scenario with ``services``"
    return cluster


ALWAYS: dict[str, Checker] = {
    "bounded": bounded,
    "no_dead": no_dead,
    "delivered": delivered,
    "clock": clock,
    "sized": sized,
}
QUIET: dict[str, Checker] = {
    "symmetric": symmetric,
    "connected": connected,
    "steady": steady,
    "converged": converged,
}

__all__ = ["ALWAYS", "QUIET", "Checker"]
