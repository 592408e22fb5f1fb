"""Bytes of real nodes, bent: whatever comes from the network is read or refused, and nothing else is raised.

The seeds are the vectors of real Erlang nodes. ``make fuzz`` runs this file for longer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.crdt.wire import Rules, read_entries
from barrel_p2p.errors import DecodeError
from barrel_p2p.proto.auth import Authenticated
from barrel_p2p.proto.auth_frames import decode as decode_frame
from barrel_p2p.proto.endorsement import Chain, decode_chain, encode_chain, follow
from barrel_p2p.proto.hyparview_wire import HyParViewWire
from barrel_p2p.proto.plumtree_wire import PlumtreeWire
from barrel_p2p.term.codec import Codec
from chains import K, chain, changed
from pairs import ALICE, ALICE_KEYS, BOB, BOB_KEYS, WALL, AuthPair, acceptor, config, dialer, events_of, pinned

VECTORS = Path(__file__).parents[1] / "vectors"


def hexes(node: Any) -> set[str]:
    """Every text of hexadecimal digits in a file of vectors, whatever it is called there."""
    if isinstance(node, dict):
        return set().union(*(hexes(value) for value in node.values()), set())
    if isinstance(node, list):
        return set().union(*(hexes(value) for value in node), set())
    if isinstance(node, str) and len(node) >= 2 and len(node) % 2 == 0 and set(node) <= set("0123456789abcdef"):
        return {node}
    return set()


def corpus(name: str) -> list[bytes]:
    seeds = sorted(bytes.fromhex(text) for text in hexes(json.loads((VECTORS / f"{name}.json").read_text())))
    assert len(seeds) > 10, f"no seeds in {name}.json"
    return [seed for seed in seeds if len(seed) <= 4096]


@st.composite
def bent(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some bytes changed, cut out, doubled or put in from another seed."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case _:
                other = draw(st.sampled_from(seeds))
                start = draw(st.integers(0, len(other)))
                data[at:at] = other[start : start + 64]
    return bytes(data)


TERMS = corpus("etf") + corpus("overlay") + corpus("crdt")
CODEC = Codec(max_bytes=1 << 20)


@given(bent(TERMS))
def test_terms_are_read_or_refused_and_what_was_read_can_be_written(data: bytes) -> None:
    try:
        term = CODEC.decode(data)
    except DecodeError:
        return
    CODEC.encode(term)


@given(bent(corpus("overlay") + corpus("crdt")))
def test_messages_of_the_overlay_are_taken_or_dropped(data: bytes) -> None:
    try:
        term = CODEC.decode(data)
    except DecodeError:
        return
    for wire in (HyParViewWire(BOB), PlumtreeWire(BOB)):
        wire.decode(term, ALICE)
        assert len(wire.dropped) < 32, "what is counted is one of a few words"
    parts = term if isinstance(term, tuple) else ()
    inner = parts[-1] if parts and isinstance(parts[-1], tuple) else ()
    for part in (term, *parts, *inner):
        read_entries(part, Rules(), WALL)


@given(st.lists(bent(corpus("auth")), max_size=4), st.booleans())
def test_frames_of_the_key_exchange_let_nobody_in(bodies: list[bytes], framed: bool) -> None:
    for machine in (acceptor(config(BOB, BOB_KEYS)), dialer(config(ALICE, ALICE_KEYS))):
        for body in bodies:
            decode_frame(body)
            data = len(body).to_bytes(2, "big") + body if framed else body
            machine.receive_data(data, now=0.1, wall_ms=WALL)
        assert not any(isinstance(event, Authenticated) for event in events_of(machine))


@given(bent([encode_chain(chain(*K[:n])) for n in (2, 3, 5)]))
def test_a_bent_chain_leads_nowhere_new(data: bytes) -> None:
    try:
        links = decode_chain(data)
    except ValueError:
        return
    good: Chain = chain(*K[:5])
    for presented in {link.new for link in links}:
        way = follow(links, ALICE, pinned=K[0].public, presented=presented, wall_ms=WALL)
        assert not isinstance(way, tuple) or way == good[: len(way)], "only what the keys really said"


@given(st.integers(0, 10_000), st.integers(0, 7), st.sampled_from(["to bob", "to alice"]))
def test_an_exchange_with_new_keys_and_a_changed_bit_does_not_end_well(at: int, bit: int, where: str) -> None:
    passed = {"to bob": 0, "to alice": 0}
    did = []

    def bend(way: str, data: bytes) -> bytes:
        start, passed[way] = passed[way], passed[way] + len(data)
        if way == where and start <= at < passed[way]:
            did.append(at)
            changed_data = bytearray(data)
            changed_data[at - start] ^= 1 << bit
            return bytes(changed_data)
        return data

    alice = dialer(changed(ALICE, K[0], K[1]), check_pin=pinned({BOB: K[2]}))
    bob = acceptor(changed(BOB, K[2], K[3]), check_pin=pinned({ALICE: K[0]}))
    pair = AuthPair(alice, bob, bend=bend).run()
    assert (pair.reasons == ("ok", "ok")) is not bool(did)
    for saw, key in ((pair.alice_saw, K[3].public), (pair.bob_saw, K[1].public)):
        for event in saw:
            assert not isinstance(event, Authenticated) or event.public_key == key


def test_most_seeds_are_good_before_they_are_bent() -> None:
    def is_good(seed: bytes) -> bool:
        try:
            CODEC.decode(seed)
        except DecodeError:
            return False
        return True

    assert sum(map(is_good, TERMS)) > 100
