"""What the active views look like as a graph: the measures of the HyParView paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from barrel_p2p.testing.member import Member


@dataclass(frozen=True, slots=True)
class Shape:
    """The graph of the active views of the live nodes.

    ``component`` is the share of nodes in the largest connected component, ``clustering`` the average clustering
    coefficient, ``path`` and ``longest_path`` the average and longest shortest path from a sample of nodes,
    ``in_degree`` how many nodes are in so many views of others.
    """

    nodes: int
    links: int
    one_sided: int
    component: float
    clustering: float
    path: float
    longest_path: int
    in_degree: dict[int, int]


def links(live: Sequence[Member]) -> list[list[int]]:
    """For each node the places in ``live`` of its active peers that live."""
    place = {member.name: at for at, member in enumerate(live)}
    return [[place[peer] for peer in member.hyparview.active if peer in place] for member in live]


def shape(live: Sequence[Member], rng: Random, samples: int = 100) -> Shape:
    """Measure the graph; shortest paths from ``samples`` random nodes."""
    out = links(live)
    sets = [set(peers) for peers in out]
    in_degree = Counter(dict.fromkeys(range(len(live)), 0))
    for peers in out:
        in_degree.update(peers)
    one_sided = sum(1 for at, peers in enumerate(out) for peer in peers if at not in sets[peer])
    both = [set(peers) for peers in out]
    for at, peers in enumerate(out):
        for peer in peers:
            both[peer].add(at)
    lengths: Counter[int] = Counter()
    for start in [rng.randrange(len(live)) for _ in range(min(samples, len(live)))] if live else []:
        lengths.update(distances(both, start))
    total = sum(count for hops, count in lengths.items() if hops)
    return Shape(
        nodes=len(live),
        links=(sum(map(len, out)) + one_sided) // 2,
        one_sided=one_sided,
        component=_largest(both) / len(live) if live else 1.0,
        clustering=_clustering(both),
        path=sum(hops * count for hops, count in lengths.items()) / total if total else 0.0,
        longest_path=max(lengths, default=0),
        in_degree=dict(sorted(Counter(in_degree.values()).items())),
    )


def distances(out: Sequence[set[int]] | Sequence[list[int]], start: int) -> list[int]:
    """The hops from ``start`` to each node it reaches."""
    seen = bytearray(len(out))
    seen[start] = 1
    found = [0]
    wave = [start]
    hops = 0
    while wave:
        hops += 1
        following = []
        for node in wave:
            for peer in out[node]:
                if not seen[peer]:
                    seen[peer] = 1
                    following.append(peer)
        found += [hops] * len(following)
        wave = following
    return found


def _largest(both: list[set[int]]) -> int:
    seen = bytearray(len(both))
    largest = 0
    for start in range(len(both)):
        if not seen[start]:
            seen[start] = 1
            stack, size = [start], 0
            while stack:
                size += 1
                for peer in both[stack.pop()]:
                    if not seen[peer]:
                        seen[peer] = 1
                        stack.append(peer)
            largest = max(largest, size)
    return largest


def _clustering(both: list[set[int]]) -> float:
    total = 0.0
    for peers in both:
        if len(peers) > 1:
            linked = sum(len(both[peer] & peers) for peer in peers)
            total += linked / (len(peers) * (len(peers) - 1))
    return total / len(both) if both else 0.0


__all__ = ["Shape", "distances", "links", "shape"]
