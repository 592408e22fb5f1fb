"""The Ed25519 exchange: who gets in, who does not, and what both sides read about it."""

from __future__ import annotations

from typing import Any

import pytest

from barrel_p2p.proto.auth import AuthConfig, Authenticated
from barrel_p2p.proto.auth_frames import Challenge, Fail, Hello, Ok, Response, decode, encode, signed_text
from barrel_p2p.proto.identity import PinVerdict, fingerprint
from barrel_p2p.proto.machine import Failed, NeedData
from barrel_p2p.term.types import Atom
from pairs import (
    ALICE,
    ALICE_KEYS,
    BINDING,
    BOB,
    BOB_KEYS,
    EVE_KEYS,
    WALL,
    AuthPair,
    acceptor,
    anyone,
    config,
    dialer,
    events_of,
    pinned,
)


def frames(data: bytes) -> list[Any]:
    out = []
    while data:
        size = int.from_bytes(data[:2], "big")
        out.append(decode(data[2 : 2 + size]))
        data = data[2 + size :]
    return out


# --- who gets in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_strangers_meet(chunk: int) -> None:
    pair = AuthPair(chunk=chunk).run()
    assert pair.alice_saw == [Authenticated(BOB, BOB_KEYS.public, True)]
    assert pair.bob_saw == [Authenticated(ALICE, ALICE_KEYS.public, True)]


def test_acquaintances_meet_in_strict_mode() -> None:
    pair = AuthPair(
        dialer(config(ALICE, ALICE_KEYS), check_pin=pinned({BOB: BOB_KEYS})),
        acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: ALICE_KEYS})),
    ).run()
    assert pair.alice_saw == [Authenticated(BOB, BOB_KEYS.public, False)]
    assert pair.bob_saw == [Authenticated(ALICE, ALICE_KEYS.public, False)]


def test_the_order_of_frames_is_upstreams() -> None:
    alice, bob = dialer(config(ALICE, ALICE_KEYS)), acceptor(config(BOB, BOB_KEYS))
    hello = alice.data_to_send()
    assert [type(f) for f in frames(hello)] == [Hello]
    bob.receive_data(hello, now=0, wall_ms=WALL)
    answer = bob.data_to_send()
    assert [type(f) for f in frames(answer)] == [Hello, Challenge]
    alice.receive_data(answer, now=0, wall_ms=WALL)
    answer = alice.data_to_send()
    assert [type(f) for f in frames(answer)] == [Challenge, Response]
    bob.receive_data(answer, now=0, wall_ms=WALL)
    assert [type(f) for f in frames(bob.data_to_send())] == [Response, Ok]


def test_a_dialer_may_send_its_challenge_early() -> None:
    """Upstream's acceptor reads from a buffer and does not mind; ours neither."""
    bob = acceptor(config(BOB, BOB_KEYS))
    early = encode(Hello(ALICE, ALICE_KEYS.public)) + encode(Challenge(b"\x07" * 32, WALL))
    bob.receive_data(early, now=0, wall_ms=WALL)
    _, challenge, _ = frames(bob.data_to_send())
    text = signed_text(challenge.nonce, challenge.timestamp, ALICE_KEYS.public, BINDING)
    bob.receive_data(encode(Response(ALICE_KEYS.sign(text))) + b"whatever", now=0, wall_ms=WALL)
    assert events_of(bob) == [Authenticated(ALICE, ALICE_KEYS.public, True)]


# --- pins ---------------------------------------------------------------------------------------------------


def test_a_key_other_than_the_pinned_one_is_refused_by_the_acceptor() -> None:
    pair = AuthPair(
        dialer(config(ALICE, EVE_KEYS)),
        acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: ALICE_KEYS})),
    ).run()
    assert pair.reasons == ("rejected:key_mismatch", "waiting"), "Bob waits for a moment: she may have an endorsement"
    pair.hang_up()
    assert pair.reasons == ("rejected:key_mismatch", "key_mismatch")
    log = pair.bob_saw[0].message  # type: ignore[union-attr]
    assert fingerprint(ALICE_KEYS.public) in log and fingerprint(EVE_KEYS.public) in log and "unpin" in log
    assert fingerprint(EVE_KEYS.public) in pair.alice_saw[0].message  # type: ignore[union-attr]
    details = {"presented": EVE_KEYS.public, "pinned": ALICE_KEYS.public}
    assert pair.bob_saw[0].details == details  # type: ignore[union-attr]


def test_a_key_other_than_the_pinned_one_is_refused_by_the_dialer_before_it_signs_anything() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS), check_pin=pinned({BOB: BOB_KEYS}))
    said: list[Any] = []

    def listen(direction: str, data: bytes) -> bytes:
        said.extend(frames(data) if direction == "to bob" else [])
        return data

    pair = AuthPair(alice, acceptor(config(BOB, EVE_KEYS)), bend=listen).run().hang_up()
    assert pair.reasons == ("key_mismatch", "rejected:key_mismatch")
    assert said == [Hello(ALICE, ALICE_KEYS.public), Fail("key_mismatch")]


def test_strict_mode_refuses_strangers() -> None:
    pair = AuthPair(bob=acceptor(config(BOB, BOB_KEYS), check_pin=pinned({}))).run()
    assert pair.reasons == ("rejected:untrusted_key", "untrusted_key")
    pair = AuthPair(dialer(config(ALICE, ALICE_KEYS), check_pin=pinned({}))).run()
    assert pair.reasons == ("untrusted_key", "waiting")


def test_a_damaged_pin_is_not_replaced_and_not_told() -> None:
    bob = acceptor(config(BOB, BOB_KEYS), check_pin=lambda name, key: PinVerdict.DAMAGED)
    assert AuthPair(bob=bob).run().reasons == ("rejected:key_mismatch", "pin_damaged")


def test_of_two_first_meetings_at_once_one_wins() -> None:
    """While Eve's exchange runs, Alice's ends and is pinned."""
    pins: dict[Atom, Any] = {}

    def check(name: Atom, key: bytes) -> PinVerdict:
        return pinned(pins, strict=False)(name, key)

    bob = acceptor(config(BOB, BOB_KEYS), check_pin=check)
    eve = dialer(config(ALICE, EVE_KEYS))
    for _ in range(2):
        bob.receive_data(eve.data_to_send(), now=0, wall_ms=WALL)
        eve.receive_data(bob.data_to_send(), now=0, wall_ms=WALL)
        pins[ALICE] = ALICE_KEYS
    assert [event.reason for event in events_of(bob)] == ["key_mismatch"]
    assert [event.reason for event in events_of(eve)] == ["rejected:key_mismatch"]


# --- proofs -------------------------------------------------------------------------------------------------


def test_a_relay_with_another_certificate_is_noticed() -> None:
    pair = AuthPair(dialer(config(ALICE, ALICE_KEYS), binding=b"\xee" * 32)).run()
    assert pair.reasons == ("signature_invalid", "signature_invalid")


def test_a_thief_of_a_public_key_fails() -> None:
    pair = AuthPair(dialer(AuthConfig(ALICE, EVE_KEYS.sign, ALICE_KEYS.public))).run()
    assert pair.reasons == ("rejected:signature_invalid", "signature_invalid")


def test_our_own_challenge_handed_back_proves_nothing() -> None:
    """Eve opens two connections, has the second one sign the challenge of the first, and claims our key."""
    first, second = acceptor(config(BOB, BOB_KEYS)), acceptor(config(BOB, BOB_KEYS))
    first.receive_data(encode(Hello(ALICE, BOB_KEYS.public)), now=0, wall_ms=WALL)
    challenge = next((f for f in frames(first.data_to_send()) if isinstance(f, Challenge)), None)
    if challenge is not None:
        second.receive_data(encode(Hello(ALICE, EVE_KEYS.public)) + encode(challenge), now=0, wall_ms=WALL)
        response = next(f for f in frames(second.data_to_send()) if isinstance(f, Response))
        first.receive_data(encode(Challenge(b"x" * 32, WALL)) + encode(response), now=0, wall_ms=WALL)
    assert [event.reason for event in events_of(first)] == ["own_key"]


def test_a_late_signature_is_refused() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS))
    bob = acceptor(config(BOB, BOB_KEYS, window_ms=2000))
    bob.receive_data(alice.data_to_send(), now=0, wall_ms=WALL)
    alice.receive_data(bob.data_to_send(), now=0, wall_ms=WALL)
    bob.receive_data(alice.data_to_send(), now=2.5, wall_ms=WALL + 2500)
    assert [event.reason for event in events_of(bob)] == ["late_response"]


# --- clocks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [60_000, -60_000, 0])
def test_clocks_may_differ_by_a_minute(skew: int) -> None:
    pair = AuthPair(skew=skew).run()
    assert pair.reasons == ("ok", "ok")
    assert pair.alice_saw[0].clock_offset_ms == skew  # type: ignore[union-attr]


@pytest.mark.parametrize(("skew", "word"), [(60_001, "ahead of"), (-3_600_000, "behind")])
def test_clocks_further_apart_are_refused_with_the_difference(skew: int, word: str) -> None:
    pair = AuthPair(skew=skew).run()
    assert pair.reasons[0] == "clock_skew"
    message = pair.alice_saw[0].message  # type: ignore[union-attr]
    assert word in message and f"{abs(skew) / 1000:.1f} s" in message
    assert pair.alice_saw[0].details == {"clock_offset_ms": skew, "allowed_ms": 60_000}  # type: ignore[union-attr]


def test_the_acceptor_tells_the_dialer_about_the_clock() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS, window_ms=10_000_000))
    assert AuthPair(alice, skew=3_600_000).run().reasons == ("rejected:clock_skew", "clock_skew")


# --- names --------------------------------------------------------------------------------------------------


def test_another_node_than_the_dialled_one_is_refused() -> None:
    pair = AuthPair(bob=acceptor(config(Atom("carol@127.0.0.1"), BOB_KEYS))).run()
    assert pair.reasons == ("name_mismatch", "waiting")
    assert "carol@127.0.0.1" in pair.alice_saw[0].message  # type: ignore[union-attr]


def test_our_own_name_is_refused() -> None:
    assert AuthPair(dialer(config(BOB, EVE_KEYS))).run().reasons == ("rejected:own_name", "own_name")


def test_our_own_key_under_another_name_is_refused() -> None:
    pair = AuthPair(dialer(config(ALICE, BOB_KEYS))).run()
    assert pair.reasons == ("rejected:own_key", "own_key")
    assert "key directory" in pair.bob_saw[0].message  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [b"alice", b"a@b@c", b"../../x@h", b"\xc3\xa9@h", b"a@", b""])
def test_a_bad_name_is_refused(name: bytes) -> None:
    bob = acceptor(config(BOB, BOB_KEYS))
    body = b"\x01\x02" + len(name).to_bytes(2, "big") + name + ALICE_KEYS.public
    bob.receive_data(len(body).to_bytes(2, "big") + body, now=0, wall_ms=WALL)
    assert [event.reason for event in events_of(bob)] == ["bad_name"]
    assert frames(bob.data_to_send()) == [Fail("bad_name")]


# --- cookie-only nodes --------------------------------------------------------------------------------------


def test_both_lists_agree() -> None:
    pair = AuthPair(
        dialer(config(ALICE, ALICE_KEYS, cookie_only=("bob@*",)), check_pin=pinned({})),
        acceptor(config(BOB, BOB_KEYS, cookie_only=("*@127.0.0.1",)), check_pin=pinned({})),
    ).run()
    assert pair.alice_saw == [Authenticated(BOB, None)]
    assert pair.bob_saw == [Authenticated(ALICE, None)]


def test_a_dialer_without_such_a_list_does_not_skip() -> None:
    pair = AuthPair(bob=acceptor(config(BOB, BOB_KEYS, cookie_only=("alice@*",)))).run()
    assert pair.reasons == ("unexpected_auth_ok", "ok")


def test_an_ok_in_the_middle_is_no_way_in() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS, cookie_only=("*@*",)))
    alice.receive_data(encode(Hello(BOB, BOB_KEYS.public)) + encode(Ok()), now=0, wall_ms=WALL)
    assert [event.reason for event in events_of(alice)] == ["unexpected_message"]


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\x00", "malformed"),
        (b"\x04\x01", "malformed"),  # 1025 bytes announced; nothing more has to come
        (b"\xff\xff", "malformed"),
        (b"GET / HTTP/1.1\r\n", "malformed"),
        (b"\x00\x01\x09", "malformed"),
        (b"\x00\x25\x01\x01" + bytes(35), "unsupported_version"),
        (encode(Ok()), "unexpected_message"),
        (encode(Challenge(bytes(32), WALL)), "unexpected_message"),
        (encode(Fail("key_mismatch")), "unexpected_message"),
        (encode(Hello(ALICE, ALICE_KEYS.public)) * 2, "unexpected_message"),
        (encode(Hello(ALICE, ALICE_KEYS.public)) + encode(Response(bytes(64))), "unexpected_message"),
    ],
)
def test_an_acceptor_refuses_bad_input_once_and_says_so(data: bytes, reason: str) -> None:
    bob = acceptor(config(BOB, BOB_KEYS))
    bob.receive_data(data, now=0, wall_ms=WALL)
    assert [event.reason for event in events_of(bob)] == [reason]
    assert frames(bob.data_to_send())[-1] == Fail(reason)
    bob.receive_data(encode(Hello(ALICE, ALICE_KEYS.public)), now=0, wall_ms=WALL)
    assert bob.next_event() == NeedData() and bob.data_to_send() == b""


def test_a_megabyte_of_noise_is_not_kept() -> None:
    bob = acceptor(config(BOB, BOB_KEYS))
    bob.receive_data(b"\xff" * (1 << 20), now=0, wall_ms=WALL)
    assert len(bob._in) == 0


def test_a_dialer_explains_words_it_does_not_know() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS))
    alice.receive_data(encode(Fail("full_moon")), now=0, wall_ms=WALL)
    (event,) = events_of(alice)
    assert event.reason == "rejected" and "full_moon" in event.message


# --- time and ends ------------------------------------------------------------------------------------------


def test_silence_ends_at_the_deadline() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS), now=100.0)
    alice.tick(110.0)
    assert alice.deadline == 110.0 and alice.next_event() == NeedData()
    alice.tick(110.1)
    (event,) = events_of(alice)
    assert event.reason == "timeout" and "nothing at all" in event.message


def test_dribbling_does_not_move_the_deadline() -> None:
    bob, hello = acceptor(config(BOB, BOB_KEYS)), encode(Hello(ALICE, ALICE_KEYS.public))
    for second, byte in enumerate(hello[:12]):
        bob.receive_data(bytes([byte]), now=float(second), wall_ms=WALL)
    assert [event.reason for event in events_of(bob)] == ["timeout"]


def test_a_closed_connection_is_explained() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS))
    alice.connection_lost("closed by peer, code 0")
    (event,) = events_of(alice)
    assert event.reason == "closed" and "clock" in event.message and "code 0" in event.message
    alice.connection_lost()
    assert alice.next_event() == NeedData()


def test_the_reason_told_before_the_close_wins() -> None:
    alice = dialer(config(ALICE, ALICE_KEYS), check_pin=anyone)
    alice.receive_data(encode(Fail("untrusted_key")), now=0, wall_ms=WALL)
    alice.connection_lost("code 0")
    events = events_of(alice)
    assert len(events) == 1 and isinstance(events[0], Failed) and events[0].reason == "rejected:untrusted_key"
