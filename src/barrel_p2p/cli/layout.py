"""Where the nodes of a drawing go, so that links can be followed by eye: by forces, after T. Fruchterman, E. Reingold,
"Graph Drawing by Force-Directed Placement", Software: Practice and Experience 21 (1991).

Nodes push each other away, links pull their ends together, and the longest move shrinks until nothing moves. It starts
from a circle in the given order, so the same cluster is drawn the same way. Departures: links have weights, a weak pull
to the middle keeps parts together that nothing links, and the result is stretched to fill the unit square.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

ROUNDS: Final = 300  # a guess: drawings of a hundred nodes stand still by then
MIDDLE: Final = 0.05  # pull to the middle, of that of a link; a guess

Point = tuple[float, float]


def layout(nodes: Sequence[str], links: Mapping[tuple[str, str], float]) -> dict[str, Point]:
    """A place in the unit square for each node; ``links`` gives the weight of each pair, 1 for a usual one."""
    count = len(nodes)
    if count == 0:
        return {}
    number = {name: i for i, name in enumerate(nodes)}
    xs = [math.cos(2 * math.pi * i / count - math.pi / 2) for i in range(count)]
    ys = [math.sin(2 * math.pi * i / count - math.pi / 2) for i in range(count)]
    pairs = [(number[a], number[b], weight) for (a, b), weight in links.items()]
    ideal = 2 / math.sqrt(count)
    for step in range(ROUNDS if count > 3 else 0):
        _move(xs, ys, pairs, ideal, most=0.3 * (1 - step / ROUNDS) ** 2 + 0.001)
    return dict(zip(nodes, _stretched(xs, ys), strict=True))


def _move(xs: list[float], ys: list[float], pairs: list[tuple[int, int, float]], ideal: float, most: float) -> None:
    count = len(xs)
    dx = [-MIDDLE * x for x in xs]
    dy = [-MIDDLE * y for y in ys]
    for i in range(count):
        for j in range(i):
            x, y = xs[i] - xs[j], ys[i] - ys[j]
            push = ideal * ideal / (x * x + y * y + 1e-6)
            dx[i], dy[i], dx[j], dy[j] = dx[i] + x * push, dy[i] + y * push, dx[j] - x * push, dy[j] - y * push
    for i, j, weight in pairs:
        x, y = xs[i] - xs[j], ys[i] - ys[j]
        pull = weight * math.hypot(x, y) / ideal
        dx[i], dy[i], dx[j], dy[j] = dx[i] - x * pull, dy[i] - y * pull, dx[j] + x * pull, dy[j] + y * pull
    for i in range(count):
        length = math.hypot(dx[i], dy[i])
        if length > 0:
            scale = min(length, most) / length
            xs[i] += dx[i] * scale
            ys[i] += dy[i] * scale


def _stretched(xs: list[float], ys: list[float]) -> list[Point]:
    return list(zip(_to_unit(xs), _to_unit(ys), strict=True))


def _to_unit(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [0.5 if high - low < 1e-9 else (value - low) / (high - low) for value in values]


__all__ = ["layout"]
