"""The broadcast's messages: what upstream's nodes sent, what ours send them, and what nobody should send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.proto.plumtree_events import Gossip, Graft, IHave, Message, Prune
from barrel_p2p.proto.plumtree_wire import MAX_ID, MAX_WEIGHED, PlumtreeWire, weigh
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.maps import TermMap
from barrel_p2p.term.types import Atom, BitString, Fun, ImproperList

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "overlay.json").read_text())["messages"]
BROADCAST = [vector for vector in VECTORS if vector["term"].startswith("{'$barrel_p2p_plumtree'")]
ALICE, BOB, CAROL = Atom("alice@127.0.0.1"), Atom("bob@127.0.0.1"), Atom("carol@host")
ID = bytes(range(32))


def from_alice(*body: Any) -> tuple[Any, ...]:
    return (Atom("$barrel_p2p_plumtree"), (*body, ALICE))


@pytest.mark.parametrize("vector", BROADCAST, ids=lambda vector: vector["term"][:60])
def test_a_message_of_an_erlang_node_is_read_and_written_to_the_byte(vector: dict[str, str]) -> None:
    codec = Codec()
    sent = bytes.fromhex(vector["hex"])
    message = PlumtreeWire(vector["to"]).decode(codec.decode_prefix(sent)[0], Atom(vector["from"]))
    assert message is not None
    assert codec.encode(PlumtreeWire(vector["from"]).encode(message)) == sent


@pytest.mark.parametrize("message", [Gossip(ID, "chat", b"hi", 18), IHave(ID), Graft(ID), Prune()], ids=repr)
def test_a_message_comes_back(message: Message) -> None:
    assert PlumtreeWire(BOB).decode(PlumtreeWire(ALICE).encode(message), ALICE) == message


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (None, "not an envelope"),
        ((Atom("$barrel_p2p_plumtree"),), "not an envelope"),
        ((Atom("$barrel_p2p_plumtree"), [Atom("prune"), ALICE]), "not an envelope"),
        ((Atom("$barrel_p2p_plumtree"), ()), "unknown message"),
        (from_alice(Atom("flood"), ID), "unknown message"),
        (from_alice("ihave", ID), "unknown message"),
        (from_alice({}, ID), "unknown message"),
        (from_alice(Atom("prune"), ID), "wrong number of fields"),
        (from_alice(Atom("ihave")), "wrong number of fields"),
        (from_alice(Atom("gossip"), ID, Atom("tag")), "wrong number of fields"),
        ((Atom("$barrel_p2p_plumtree"), (Atom("prune"), CAROL)), "claimed sender is not the peer"),
        ((Atom("$barrel_p2p_plumtree"), (Atom("prune"), b"alice@127.0.0.1")), "claimed sender is not the peer"),
        (from_alice(Atom("ihave"), 7), "not an id"),
        (from_alice(Atom("ihave"), b""), "not an id"),
        (from_alice(Atom("graft"), bytes(MAX_ID + 1)), "not an id"),
        (from_alice(Atom("gossip"), [], Atom("tag"), 1), "not an id"),
        (from_alice(Atom("gossip"), ID, b"tag", 1), "tag is not an atom"),
    ],
)
def test_what_has_a_wrong_shape_is_dropped_and_counted(term: Any, reason: str) -> None:
    wire = PlumtreeWire(BOB)
    assert wire.decode(term, ALICE) is None
    assert wire.dropped == {reason: 1}


def nested(depth: int, inner: Any) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "payload",
    [
        b"x" * 1000,
        [b"x" * 100] * 10,
        {Atom("key"): (1 << 8000, 2.0, None)},
        TermMap([([1], b"x" * 1000)]),
        ImproperList((1, b"x" * 1000), 2),
        BitString(b"x" * 1000, 4),
        Fun(b"x" * 1000),
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_a_payload_weighs_what_its_bytes_do(payload: Any) -> None:
    assert 1000 <= weigh(payload) < 4000


@pytest.mark.parametrize(
    "payload",
    [
        [[]] * (10 * MAX_WEIGHED),
        [b"x" * (10 * MAX_WEIGHED), *[1] * MAX_WEIGHED],
        [nested(50, [b"x" * (10 * MAX_WEIGHED)]), *[1] * MAX_WEIGHED],
        {Atom("hidden"): nested(50, [1.5] * (2 * MAX_WEIGHED)), **{str(i): 1 for i in range(MAX_WEIGHED)}},
        dict.fromkeys(range(2 * MAX_WEIGHED), 1),
    ],
    ids=["lists", "last", "deep", "in a map", "large map"],
)
def test_many_values_hide_no_large_one(payload: Any) -> None:
    assert weigh(payload) >= 10 * MAX_WEIGHED


def test_a_payload_larger_than_a_usual_term_is_weighed() -> None:
    size = 65 << 20
    assert weigh([bytes(size), *[1] * MAX_WEIGHED]) > size


def test_a_payload_that_can_not_be_passed_on_is_dropped() -> None:
    wire = PlumtreeWire(BOB)
    assert wire.decode(from_alice(Atom("gossip"), b"id", Atom("t"), [Fun(b"u"), *[1] * MAX_WEIGHED]), ALICE) is None
    assert wire.dropped == {"payload that can't be passed on": 1}


leaves = st.none() | st.booleans() | st.integers() | st.binary(max_size=40) | st.sampled_from([ALICE, BOB])
leaves |= st.sampled_from([*map(Atom, ("gossip", "ihave", "graft", "prune", "$barrel_p2p_plumtree"))])
terms = st.recursive(leaves, lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple))


@given(terms | st.builds(lambda body: from_alice(*body), st.lists(terms, max_size=5)))
def test_no_term_makes_it_raise(term: Any) -> None:
    wire = PlumtreeWire(BOB)
    message = wire.decode(term, ALICE)
    assert message is not None or sum(wire.dropped.values()) == 1
