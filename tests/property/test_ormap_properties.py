"""The laws of the merge: in any order, in any grouping, any number of times."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from barrel_p2p.crdt.entry import Entry, join
from barrel_p2p.crdt.keys import term_key
from barrel_p2p.crdt.ormap import ORMap
from barrel_p2p.crdt.wire import Rules, delta_term, read_entries
from barrel_p2p.term.codec import decode, encode
from barrel_p2p.term.types import Atom

nodes = st.sampled_from([Atom("a@h"), Atom("b@h"), Atom("é@h")])
stamps = st.integers(1, 6)
keys = st.sampled_from([1, 1.0, True, Atom("k"), b"k", [1], (1, [2.0])])
values: st.SearchStrategy[Any] = st.sampled_from([0, 1, 1.5, Atom("x"), "x", b"y", [1], {1: 2}])


@st.composite
def entries(draw: st.DrawFn, key: Any = None) -> Entry:
    """An entry of few stamps and nodes, so that ties are frequent; also what no honest node writes."""
    if key is None:
        key = draw(keys)
    if draw(st.booleans()):
        return Entry(key, term_key(key), None, None, draw(stamps))
    dots = draw(st.dictionaries(nodes, stamps, min_size=1, max_size=3))
    stamp, node = max((stamp, node) for node, stamp in dots.items())
    del dots[node]
    return Entry(key, term_key(key), draw(values), node, stamp, dots or None)


def winner(entry: Entry) -> tuple[Any, ...]:
    return (entry.node, entry.stamp, encode(entry.value))


def whole(entry: Entry) -> tuple[Any, ...]:
    return (*winner(entry), entry.dots())


same_key = entries(key=Atom("k"))


@settings(max_examples=1000, deadline=None)
@given(same_key, same_key)
def test_it_commutes(a: Entry, b: Entry) -> None:
    assert whole(join(a, b)) == whole(join(b, a))


@settings(max_examples=1000, deadline=None)
@given(same_key, same_key, same_key)
def test_it_associates(a: Entry, b: Entry, c: Entry) -> None:
    """Who wins does; dots beside the winner's may differ where a tombstone came between, and decide nothing."""
    assert winner(join(join(a, b), c)) == winner(join(a, join(b, c)))
    if a.live and b.live and c.live:
        assert whole(join(join(a, b), c)) == whole(join(a, join(b, c)))


@given(same_key, same_key)
def test_it_may_be_repeated(a: Entry, b: Entry) -> None:
    assert join(a, a) is a
    once = join(a, b)
    assert join(once, b) is once and whole(join(once, a)) == whole(once)


batches = st.lists(st.lists(entries(), max_size=6), max_size=6)


@settings(max_examples=300, deadline=None)
@given(batches, st.randoms(use_true_random=False))
def test_maps_that_got_the_same_are_equal(parts: list[list[Entry]], rng: Any) -> None:
    one, other = ORMap(), ORMap()
    for part in parts:
        one.merge(part)
    again = parts + [rng.choice(parts) for _ in range(3) if parts]
    rng.shuffle(again)
    for part in again:
        shuffled = list(part)
        rng.shuffle(shuffled)
        other.merge(shuffled)
    assert one.root == other.root and len(one) == len(other) and one.tombstones == other.tombstones
    for entry in one.entries():
        theirs = other.find(entry.index)
        assert theirs is not None and winner(theirs) == winner(entry)


@settings(max_examples=300, deadline=None)
@given(batches)
def test_a_delta_of_the_changes_brings_another_map_up_to_date(parts: list[list[Entry]]) -> None:
    one, other = ORMap(), ORMap()
    for part in parts:
        changed = {change.new.index: change.new for change in one.merge(part).changes if change.new}
        wire = decode(encode(delta_term(changed.values())))
        other.merge(read_entries(wire, Rules(), 10**12).entries)
        assert one.root == other.root
    recount = ORMap()
    recount.merge(list(one.entries()))
    assert recount.root == one.root and recount.sums(1024) == one.sums(1024)


# hostile input: whatever the term is, reading returns

scalars: st.SearchStrategy[Any] = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.binary(max_size=5), st.text(max_size=5)
)
words = st.sampled_from([Atom(w) for w in ("value", "tombstone", "timestamp", "a@h", "undefined")])
terms: st.SearchStrategy[Any] = st.recursive(
    scalars | words,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(words | st.integers(), inner, max_size=3),
    ),
    max_leaves=20,
)
stampish = st.tuples(words, terms, terms) | st.tuples(st.just(Atom("timestamp")), st.integers(), st.integers()) | terms
dottish = st.tuples(words | terms, stampish) | words
hashable_dots = dottish.filter(lambda dot: _hashable(dot))
entryish = st.one_of(
    terms,
    st.tuples(st.just(Atom("value")), terms, st.dictionaries(hashable_dots, terms, max_size=3) | terms),
    st.tuples(st.just(Atom("tombstone")), stampish),
)


def _hashable(term: Any) -> bool:
    try:
        hash(term)
    except TypeError:
        return False
    return True


@settings(max_examples=1000, deadline=None)
@given(st.dictionaries(words | st.integers() | st.text(), entryish, max_size=5) | terms)
def test_reading_never_raises_and_counts_everything(term: Any) -> None:
    def check(entry: Entry) -> str | None:
        return None if entry.value % 2 else "even"

    read = read_entries(term, Rules(check=check), 0)
    if isinstance(term, dict):
        assert len(read.entries) + sum(read.refused.values()) == len(term)
    else:
        assert read.refused == {"no_map": 1}
    ormap = ORMap()
    ormap.merge(read.entries)
    encode(delta_term(ormap.entries()))
