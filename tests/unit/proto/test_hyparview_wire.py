"""The membership's messages: what upstream's nodes sent, what ours send them, and what nobody should send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.proto.hyparview_events import (
    Disconnect,
    ForwardJoin,
    Join,
    Message,
    Neighbor,
    NeighborReply,
    Shuffle,
    ShuffleReply,
)
from barrel_p2p.proto.hyparview_wire import MAX_NAMES, MAX_TTL, HyParViewWire
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, ImproperList

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "overlay.json").read_text())["messages"]
MEMBERSHIP = [vector for vector in VECTORS if vector["term"].startswith("{'$barrel_p2p_hyparview'")]
ALICE, BOB, CAROL = Atom("alice@127.0.0.1"), Atom("bob@127.0.0.1"), Atom("carol@host")

MESSAGES = [
    Join(),
    ForwardJoin(CAROL, 6),
    Disconnect(),
    Neighbor(True),
    Neighbor(False),
    NeighborReply(True),
    NeighborReply(False),
    Shuffle(3, (ALICE, CAROL)),
    ShuffleReply((CAROL,)),
    ShuffleReply(()),
]


PEER = Atom("peer")


def peer(name: Any, tag: Any = PEER) -> tuple[Any, ...]:
    return (tag, name, None, None, None, True, Atom("high"), None, 0, None)


def from_alice(*body: Any) -> tuple[Any, ...]:
    return (Atom("$barrel_p2p_hyparview"), ALICE, body)


@pytest.mark.parametrize("vector", MEMBERSHIP, ids=lambda vector: vector["term"][:60])
def test_every_message_of_an_erlang_node_is_read(vector: dict[str, str]) -> None:
    wire = HyParViewWire(vector["to"])
    term, _ = Codec().decode_prefix(bytes.fromhex(vector["hex"]))
    assert wire.decode(term, Atom(vector["from"])) is not None
    assert not wire.dropped


@pytest.mark.parametrize("vector", MEMBERSHIP, ids=lambda vector: vector["term"][:60])
def test_ours_are_written_as_theirs(vector: dict[str, str]) -> None:
    """All that is not the same is what Erlang nodes don't look at: the address and history of third nodes."""
    codec = Codec()
    theirs, _ = codec.decode_prefix(bytes.fromhex(vector["hex"]))
    message = HyParViewWire(vector["to"]).decode(theirs, Atom(vector["from"]))
    assert message is not None
    ours = codec.decode_prefix(codec.encode(HyParViewWire(vector["from"], ("127.0.0.1", 0)).encode(message)))[0]
    assert _essence(ours, vector["to"]) == _essence(theirs, vector["to"])


def _essence(term: Any, receiver: str) -> Any:
    if isinstance(term, tuple) and len(term) == 10 and term[0] == "peer":
        return ("peer", term[1])
    if isinstance(term, tuple):
        return tuple(_essence(value, receiver) for value in term)
    if isinstance(term, list):
        return [_essence(value, receiver) for value in term if value[1] != receiver]
    return term


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_a_message_comes_back(message: Message) -> None:
    codec = Codec()
    term = codec.decode_prefix(codec.encode(HyParViewWire(ALICE).encode(message)))[0]
    assert HyParViewWire(BOB).decode(term, ALICE) == message


def test_a_peer_record_is_what_an_erlang_node_matches_on() -> None:
    """Anything else than ten fields crashes its server."""
    wire = HyParViewWire(ALICE, ("10.0.0.1", 9100))
    undefined = Atom("undefined")
    me = (Atom("peer"), ALICE, (10, 0, 0, 1), 9100, undefined, True, Atom("high"), undefined, 0, undefined)
    carol = (Atom("peer"), CAROL, undefined, undefined, undefined, False, Atom("high"), undefined, 0, undefined)
    assert wire.encode(Join()) == (Atom("$barrel_p2p_hyparview"), ALICE, (Atom("join"), me))
    assert wire.encode(Shuffle(0, (ALICE, CAROL)))[2] == (Atom("shuffle"), 0, [me, carol], me)


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (None, "not an envelope"),
        ((), "not an envelope"),
        ((Atom("$barrel_p2p_hyparview"), ALICE, Atom("join")), "not an envelope"),
        ((Atom("$barrel_p2p_plumtree"), ALICE, (Atom("join"), peer(ALICE))), "not an envelope"),
        (from_alice(), "unknown message"),
        (from_alice(Atom("steal"), peer(ALICE)), "unknown message"),
        (from_alice("join", peer(ALICE)), "unknown message"),
        (from_alice([], peer(ALICE)), "unknown message"),
        (from_alice(Atom("join")), "wrong number of fields"),
        (from_alice(Atom("join"), peer(ALICE), 1), "wrong number of fields"),
        (from_alice(Atom("join"), peer(CAROL)), "claimed sender is not the peer"),
        (from_alice(Atom("disconnect"), peer(CAROL)), "claimed sender is not the peer"),
        (from_alice(Atom("join"), peer(b"alice@127.0.0.1")), "claimed sender is not the peer"),
        (from_alice(Atom("join"), peer(ALICE)[:9]), "claimed sender is not the peer"),
        (from_alice(Atom("join"), peer(ALICE, tag=Atom("pear"))), "claimed sender is not the peer"),
        (from_alice(Atom("join"), ALICE), "claimed sender is not the peer"),
        (from_alice(Atom("neighbor"), Atom("huge"), peer(ALICE)), "unknown priority"),
        (from_alice(Atom("neighbor"), True, peer(ALICE)), "unknown priority"),
        (from_alice(Atom("neighbor_reply"), 1, peer(ALICE)), "answer is not a boolean"),
        (from_alice(Atom("neighbor_reply"), Atom("yes"), peer(ALICE)), "answer is not a boolean"),
        (from_alice(Atom("forward_join"), peer(Atom("no name")), 6, peer(ALICE)), "joiner is not a peer record"),
        (from_alice(Atom("forward_join"), CAROL, 6, peer(ALICE)), "joiner is not a peer record"),
        (from_alice(Atom("forward_join"), peer(CAROL), 6.0, peer(ALICE)), "hops are not a number"),
        (from_alice(Atom("forward_join"), peer(CAROL), True, peer(ALICE)), "hops are not a number"),
        (from_alice(Atom("shuffle"), 1, peer(CAROL), peer(ALICE)), "names are not in a list"),
        (from_alice(Atom("shuffle"), 1, ImproperList([peer(CAROL)], CAROL), peer(ALICE)), "names are not in a list"),
        (from_alice(Atom("shuffle_reply"), {}, peer(ALICE)), "names are not in a list"),
    ],
)
def test_what_has_a_wrong_shape_is_dropped_and_counted(term: Any, reason: str) -> None:
    wire = HyParViewWire(BOB)
    assert wire.decode(term, ALICE) is None
    assert wire.dropped == {reason: 1}


def test_a_message_under_our_own_name_is_dropped() -> None:
    wire = HyParViewWire(BOB)
    assert wire.decode((Atom("$barrel_p2p_hyparview"), BOB, (Atom("join"), peer(BOB))), BOB) is None
    assert wire.dropped == {"from this node itself": 1}


@pytest.mark.parametrize(("sent", "taken"), [(-1, 0), (-(10**30), 0), (0, 0), (6, 6), (10**30, MAX_TTL)])
def test_hops_are_clamped(sent: int, taken: int) -> None:
    """An Erlang node passes a walk with fewer than none on for ever."""
    walk = from_alice(Atom("forward_join"), peer(CAROL), sent, peer(ALICE))
    assert HyParViewWire(BOB).decode(walk, ALICE) == ForwardJoin(CAROL, taken)


def test_bad_names_in_a_list_are_left_out() -> None:
    wire = HyParViewWire(BOB)
    names = [peer(CAROL), 7, peer(7), peer(Atom("x")), peer(BOB), peer(CAROL), (Atom("peer"),)]
    assert wire.decode(from_alice(Atom("shuffle"), 1, names, peer(ALICE)), ALICE) == Shuffle(1, (CAROL,))
    assert wire.dropped == {"a name in a list is not a peer record": 4}


def test_of_a_million_names_the_first_few_are_taken() -> None:
    wire = HyParViewWire(BOB)
    names = [peer(Atom(f"n{number % 500}@host")) for number in range(1_000_000)]
    message = wire.decode(from_alice(Atom("shuffle"), 1, names, peer(ALICE)), ALICE)
    assert message == Shuffle(1, tuple(f"n{number}@host" for number in range(MAX_NAMES)))
    assert wire.dropped == {"too many names": 1}


WORDS = ("$barrel_p2p_hyparview", "peer", "high", "low", "join", "disconnect", "neighbor", "shuffle")
atoms = st.sampled_from([ALICE, BOB, CAROL, *(Atom(word) for word in WORDS)])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=4) | st.text(max_size=4) | atoms
records = st.builds(peer, leaves | atoms)
terms = st.recursive(
    leaves | records,
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple) | st.dictionaries(atoms, inner),
    max_leaves=20,
)


@given(terms | st.builds(lambda body: from_alice(*body), st.lists(terms, max_size=5)))
def test_no_term_makes_it_raise(term: Any) -> None:
    wire = HyParViewWire(BOB)
    message = wire.decode(term, ALICE)
    assert message is not None or sum(wire.dropped.values()) == 1
