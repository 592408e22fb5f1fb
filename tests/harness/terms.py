"""Random terms for property tests and for the talk with a real Erlang."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from barrel_p2p.term.maps import TermMap, exact_key
from barrel_p2p.term.types import Atom, BitString, Export, ImproperList, Pid, Port, Reference

u32 = st.integers(0, 2**32 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
atoms = st.one_of(st.sampled_from(["ok", "true", "undefined", "nil", ""]), text).map(Atom)
nodes = st.sampled_from([Atom("a@b"), Atom("é@host"), Atom("node@127.0.0.1")])
pids = st.builds(Pid, nodes, u32, u32, u32)
ports = st.builds(Port, nodes, st.integers(0, 2**64 - 1), u32)
references = st.builds(Reference, nodes, u32, st.lists(u32, min_size=1, max_size=5).map(tuple))
exports = st.builds(Export, atoms, atoms, st.integers(0, 255))
integers = st.one_of(st.integers(-300, 300), st.integers(-(2**33), 2**33), st.integers(-(2**70), 2**70), st.integers())
floats = st.floats(allow_nan=False, allow_infinity=False)
bit_strings = st.builds(BitString, st.binary(min_size=1, max_size=6), st.integers(1, 7))

leaves = st.one_of(
    atoms,
    st.none(),
    st.booleans(),
    integers,
    floats,
    st.binary(max_size=20),
    text,
    pids,
    ports,
    references,
    exports,
    bit_strings,
    st.lists(st.integers(0, 255), max_size=8),
)


def improper(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    tails = items.filter(lambda tail: not isinstance(tail, (list, ImproperList)))
    return st.builds(ImproperList, st.lists(items, min_size=1, max_size=3).map(tuple), tails)


def maps(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.lists(st.tuples(items, items), max_size=5, unique_by=lambda pair: exact_key(pair[0]))
    return pairs.map(as_map)


def as_map(pairs: list[tuple[Any, Any]]) -> Any:
    try:
        plain = dict(pairs)
    except TypeError:
        return TermMap(pairs)
    return plain if len(plain) == len(pairs) else TermMap(pairs)


def containers(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(items, max_size=5)
    return st.one_of(lists, lists.map(tuple), improper(items), maps(items))


def terms() -> st.SearchStrategy[Any]:
    """Values of every kind that both codecs know, but for funs, which only Erlang makes."""
    return st.recursive(leaves, containers, max_leaves=20)


def many_terms(count: int) -> list[Any]:
    """Different terms for tests that send many at once; others each time, so a failure has to show its term."""
    found: list[Any] = []

    @settings(
        max_examples=-(-count // 10),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(terms(), min_size=10, max_size=10))
    def collect(some: list[Any]) -> None:
        found.extend(some)

    collect()
    return found[:count]
