"""A key that is replaced vouches for the next: who is believed, and who is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from barrel_p2p.proto.auth import Authenticated
from barrel_p2p.proto.auth_exchange import ENDORSEMENT_SECONDS
from barrel_p2p.proto.auth_frames import Challenge, Endorse, Fail, Hello, decode, encode
from barrel_p2p.proto.endorsement import (
    LIFETIME_MS,
    LINK_SIZE,
    MAX_AHEAD_MS,
    MAX_LINKS,
    Broken,
    Chain,
    decode_chain,
    encode_chain,
    endorse,
    follow,
)
from chains import DAY, K, chain, changed, link
from pairs import ALICE, BOB, BOB_KEYS, WALL, AuthPair, Keys, acceptor, config, dialer, events_of, pinned


def way(links: Chain, pinned: Keys, presented: Keys, *, name: Any = ALICE, wall_ms: int = WALL) -> Chain | Broken:
    return follow(links, name, pinned=pinned.public, presented=presented.public, wall_ms=wall_ms)


# --- chains -------------------------------------------------------------------------------------------------


def test_a_peer_that_was_away_follows_several_changes() -> None:
    links = chain(*K[:4])
    assert way(links, K[0], K[3]) == links
    assert way(links, K[2], K[3]) == links[2:]
    assert way(links, K[0], K[2]) == links[:2]


def test_a_chain_of_any_length_up_to_the_bound_survives_the_wire() -> None:
    links = chain(*K[: MAX_LINKS + 1])
    assert len(links) == MAX_LINKS and decode_chain(encode_chain(links)) == links
    assert way(links, K[0], K[MAX_LINKS]) == links
    for body in (b"x", encode_chain(links)[:-1], encode_chain(chain(*K))):
        with pytest.raises(ValueError, match="no chain"):
            decode_chain(body)
    assert isinstance(way(chain(*K), K[0], K[MAX_LINKS + 1]), Broken)


@pytest.mark.parametrize("at", [*range(0, LINK_SIZE, 7), LINK_SIZE - 1])
def test_a_link_with_one_bit_changed_is_refused(at: int) -> None:
    raw = bytearray(encode_chain(chain(K[0], K[1])))
    raw[at] ^= 1
    assert isinstance(way(decode_chain(bytes(raw)), K[0], K[1]), Broken)


def test_forgeries_are_refused() -> None:
    eve, good = Keys(99), link(K[0], K[1])
    assert isinstance(way((replace(good, by_old=eve.sign(b"")),), K[0], K[1]), Broken)
    by_eve = endorse(
        ALICE, old=K[0].public, new=eve.public, time=WALL, sign_old=eve.sign, sign_new=eve.sign
    )  # she has not the old key
    assert isinstance(way((by_eve,), K[0], eve), Broken)
    of_another = endorse(
        ALICE, old=K[0].public, new=K[1].public, time=WALL, sign_old=K[0].sign, sign_new=K[0].sign
    )  # the new key's owner does not know of it
    assert isinstance(way((of_another,), K[0], K[1]), Broken)
    assert isinstance(way((good,), K[0], K[1], name=BOB), Broken), "it was said of another node"
    assert isinstance(way((good, link(eve, K[2])), K[0], K[2]), Broken), "links that don't join"


def test_statements_expire_and_none_comes_from_the_future() -> None:
    links = (link(K[0], K[1], time=WALL),)
    assert way(links, K[0], K[1], wall_ms=WALL + LIFETIME_MS) == links
    assert isinstance(way(links, K[0], K[1], wall_ms=WALL + LIFETIME_MS + 1), Broken)
    assert way(links, K[0], K[1], wall_ms=WALL - MAX_AHEAD_MS) == links
    assert isinstance(way(links, K[0], K[1], wall_ms=WALL - MAX_AHEAD_MS - 1), Broken)


def test_a_statement_that_led_here_does_not_lead_back() -> None:
    """The pin has moved on to the third key: who stole the first or the second one has nothing to show."""
    links = chain(*K[:3])
    for stolen in (K[0], K[1]):
        assert isinstance(way(links, K[2], stolen), Broken)
        evil = Keys(98)
        assert isinstance(way((*links[:1], link(stolen, evil)), K[2], evil), Broken)


# --- on the wire --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_dialer_with_a_new_key_is_let_in(chunk: int) -> None:
    bob = acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: K[0]}))
    pair = AuthPair(dialer(changed(ALICE, K[0], K[1], K[2])), bob, chunk=chunk).run()
    assert pair.reasons == ("ok", "ok")
    assert pair.bob_saw == [Authenticated(ALICE, K[2].public, False, endorsed=chain(K[0], K[1], K[2]))]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_acceptor_with_a_new_key_is_believed(chunk: int) -> None:
    alice = dialer(config(ALICE, K[0]), check_pin=pinned({BOB: K[1]}))
    pair = AuthPair(alice, acceptor(changed(BOB, K[1], K[2])), chunk=chunk).run()
    assert pair.reasons == ("ok", "ok")
    (seen,) = pair.alice_saw
    assert isinstance(seen, Authenticated) and seen.endorsed == (link(K[1], K[2], BOB),)


def test_both_have_changed_their_keys() -> None:
    alice = dialer(changed(ALICE, K[0], K[1], K[2]), check_pin=pinned({BOB: K[3]}))
    bob = acceptor(changed(BOB, K[3], K[4]), check_pin=pinned({ALICE: K[0]}))
    pair = AuthPair(alice, bob).run()
    assert pair.reasons == ("ok", "ok")
    assert all(isinstance(seen, Authenticated) and seen.endorsed for seen in pair.alice_saw + pair.bob_saw)


def test_who_does_not_own_the_new_key_gains_nothing_by_its_endorsement() -> None:
    """The chain is public: everybody who was shown it can show it again."""
    thief = replace(changed(ALICE, K[0], K[1]), sign=Keys(99).sign)
    pair = AuthPair(dialer(thief), acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: K[0]}))).run()
    assert pair.reasons == ("rejected:signature_invalid", "signature_invalid")


def test_a_chain_that_does_not_count_is_refused_with_the_reason() -> None:
    for bad, why in (
        (changed(ALICE, K[5], K[1]), "pinned key"),
        (config(ALICE, K[1], chain=(link(K[0], K[1], BOB),)), "signature"),
        (config(ALICE, K[1], chain=(link(K[0], K[1], time=WALL - LIFETIME_MS - DAY),)), "days old"),
        (config(ALICE, K[1], chain=(link(K[0], K[2]),)), "presented key"),
    ):
        bob = acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: K[0]}))
        pair = AuthPair(dialer(bad), bob).run().hang_up()
        assert pair.reasons == ("rejected:key_mismatch", "key_mismatch")
        (failed,) = pair.bob_saw
        assert why in failed.message and failed.details["pinned"] == K[0].public  # type: ignore[union-attr]


def test_a_chain_is_offered_once_and_to_nobody_who_does_not_ask() -> None:
    alice = dialer(changed(ALICE, K[0], K[1]))
    alice.data_to_send()
    alice.receive_data(encode(Fail("untrusted_key")), now=0, wall_ms=WALL)
    assert alice.data_to_send() == b"" and events_of(alice)[0].reason == "rejected:untrusted_key"
    alice = dialer(changed(ALICE, K[0], K[1]))
    alice.data_to_send()
    alice.receive_data(encode(Fail("key_mismatch")), now=0, wall_ms=WALL)
    assert alice.data_to_send() == encode(Endorse(0, link(K[0], K[1])))
    alice.receive_data(encode(Fail("key_mismatch")), now=0, wall_ms=WALL)
    assert alice.data_to_send() == b"" and events_of(alice)[0].reason == "rejected:key_mismatch"


def test_nobody_waits_long_for_an_endorsement() -> None:
    bob = acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: K[0]}))
    bob.receive_data(encode(Hello(ALICE, K[1].public)), now=1.0, wall_ms=WALL)
    assert bob.deadline == 1.0 + ENDORSEMENT_SECONDS
    bob.tick(bob.deadline + 0.001)
    assert [event.reason for event in events_of(bob)] == ["key_mismatch"]
    alice = dialer(changed(ALICE, K[0], K[1]))
    alice.receive_data(encode(Fail("key_mismatch")), now=1.0, wall_ms=WALL)
    alice.tick(1.0 + ENDORSEMENT_SECONDS + 0.001)
    assert [event.reason for event in events_of(alice)] == ["rejected:key_mismatch"]


def test_links_without_an_end_are_not_collected() -> None:
    bob = acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: K[0]}))
    bob.receive_data(encode(Hello(ALICE, K[1].public)), now=0, wall_ms=WALL)
    bob.receive_data(encode(Endorse(MAX_LINKS - 1, link(K[0], K[1]))) * 1000, now=0, wall_ms=WALL)
    assert [event.reason for event in events_of(bob)] == ["key_mismatch"]


def test_an_erlang_node_sees_nothing_new() -> None:
    """A node that changed its key says to strangers, and to nodes that know the new key, what it always said."""
    for pins in ({}, {ALICE: K[1]}):
        bob = acceptor(config(BOB, BOB_KEYS), check_pin=pinned(pins, strict=False))  # type: ignore[arg-type]
        alice = dialer(changed(ALICE, K[0], K[1]), check_pin=pinned({}, strict=False))
        heard: list[Any] = []

        def listen(direction: str, data: bytes, heard: list[Any] = heard) -> bytes:
            while data:
                size = int.from_bytes(data[:2], "big")
                heard.append(type(decode(data[2 : 2 + size])))
                data = data[2 + size :]
            return b""

        listen("", alice.data_to_send())
        assert heard == [Hello]
        bob.receive_data(encode(Hello(ALICE, K[1].public)), now=0, wall_ms=WALL)
        listen("", bob.data_to_send())
        assert heard == [Hello, Hello, Challenge]
