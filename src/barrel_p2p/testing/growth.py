"""Whether something grows: the sizes of all tables of a machine, found by walking over its attributes.

A table is a dict, a list, a set or a deque. It goes by the path of attributes that leads to it; those of many objects
in one table, such as the queues of all peers, have one path, and the largest counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

MARGIN: Final = 64  # entries by which a table may be larger than it was: messages that happen to be under way
NAMED: Final = 8  # a table of so few with atoms or words as keys, such as that of all replicas, has a path for each
DEPTH: Final = 8
_VALUES: Final = ("barrel_p2p.term", "barrel_p2p.crdt.entry")


class Growth:
    """Samples of the sizes of all tables of some nodes::

    growth.sample([{"hyparview": machine}])
    growth.grown(first=2)
    """

    def __init__(self) -> None:
        self.samples: list[dict[str, int]] = []

    def sample(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Take down the largest size of each table on any of ``nodes``, whose roots have names."""
        largest: dict[str, int] = {}
        for roots in nodes:
            for path, size in tables(roots):
                largest[path] = max(size, largest.get(path, 0))
        self.samples.append(largest)

    def largest(self, count: int = 8) -> dict[str, int]:
        """The largest tables of the latest sample."""
        latest = self.samples[-1] if self.samples else {}
        return dict(sorted(latest.items(), key=lambda item: -item[1])[:count])

    def beyond(self, bounds: Mapping[str, int]) -> list[str]:
        """Tables that exceeded their bound in the latest sample."""
        latest = self.samples[-1] if self.samples else {}
        return [
            f"{path} has {latest[path]} entries, and its bound is {bound}"
            for path, bound in bounds.items()
            if latest.get(path, 0) > bound
        ]

    def grown(self, bounds: Mapping[str, int], *, first: int) -> list[str]:
        """Tables without a bound that are larger at last than in the ``first`` samples, by more than a margin."""
        latest = self.samples[-1] if self.samples else {}
        found = []
        for path, size in latest.items():
            before = max(sample.get(path, 0) for sample in self.samples[:first])
            if path not in bounds and size > before * 1.25 + MARGIN:
                found.append(f"{path} grew from {before} to {size} entries")
        return found


def tables(roots: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Path and size of every table that can be reached from ``roots``."""
    seen: set[int] = set()
    todo = deque((name, value, 0) for name, value in roots.items())  # the shortest path names a table
    while todo:
        path, value, depth = todo.popleft()
        if id(value) in seen or depth > DEPTH:
            continue
        seen.add(id(value))
        if isinstance(value, (dict, list, set, deque)):
            yield path, len(value)
            todo += [(f"{path}{step}", item, depth + 1) for step, item in _items(value)]
        elif _is_ours(value):
            todo += [(f"{path}.{name}", item, depth + 1) for name, item in _attributes(value)]


def _items(table: Any) -> Iterator[tuple[str, Any]]:
    """What may lead on in a table, with its place in the path."""
    if not isinstance(table, dict):
        yield from (("[]", item) for item in table if isinstance(item, (dict, list, set, deque)) or _is_ours(item))
        return
    named = len(table) <= NAMED and all(isinstance(key, str) and "@" not in key for key in table)
    for key, item in table.items():
        if isinstance(item, (dict, list, set, deque)) or _is_ours(item):
            yield (f"[{key}]" if named else "[]"), item


def _is_ours(value: Any) -> bool:
    """An object of this library that changes: what doesn't, a message or an entry, is what tables hold."""
    kind = type(value)
    frozen = getattr(getattr(kind, "__dataclass_params__", None), "frozen", False) or isinstance(value, tuple)
    return kind.__module__.startswith("barrel_p2p.") and not frozen and not kind.__module__.startswith(_VALUES)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    for name in {**dict.fromkeys(names), **getattr(value, "__dict__", {})}:
        if hasattr(value, name):
            yield name, getattr(value, name)


__all__ = ["Growth", "tables"]
