"""The dist handshake between two of our machines, and every way it can end."""

from __future__ import annotations

import itertools

import pytest

from barrel_p2p.errors import ConfigError, InternalError
from barrel_p2p.proto import handshake_messages as wire
from barrel_p2p.proto.flags import DEFAULT, HIDDEN, MANDATORY, MANDATORY_25, OTP_27, Flags, explain, missing
from barrel_p2p.proto.handshake import Connected, Framing, PeerNamed, StatusWord
from barrel_p2p.proto.machine import Failed, NeedData
from barrel_p2p.term.types import Atom
from pairs import (
    ALICE,
    BOB,
    HandshakePair,
    events_of,
    handshake_acceptor,
    handshake_config,
    handshake_dialer,
)

ERLANG = 0xD07DF5FBD  # what an OTP 27 node with upstream's carrier sends

# --- bytes seen on real connections -------------------------------------------------------------------------


def test_digest_is_erlangs() -> None:
    assert wire.digest(b"lab", 0x90F98DB5).hex() == "78bf461c1332304642aefbd28b5ca828"


def test_challenge_is_erlangs() -> None:
    seen = bytes.fromhex("4e0000000d07df5fbd90f98db500000004000b61403132372e302e302e31")
    assert wire.parse_challenge(seen) == (wire.Challenge(ERLANG, 0x90F98DB5, 4, "a@127.0.0.1"), len(seen))
    assert wire.challenge(ERLANG, 0x90F98DB5, 4, Atom("a@127.0.0.1")) == seen


def test_flags_are_erlangs() -> None:
    assert OTP_27 == ERLANG and HIDDEN == DEFAULT & ~1
    assert MANDATORY_25 == 0x1070F94 and MANDATORY == 0x403070F94


def test_the_digest_flag_stands_for_eleven() -> None:
    assert missing(Flags.MANDATORY_25_DIGEST | Flags.V4_NC | Flags.UNLINK_ID) == 0
    assert explain(missing(Flags.MANDATORY_25_DIGEST)) == ["UNLINK_ID", "V4_NC"]
    assert explain(0x1 | 1 << 50) == ["PUBLISHED", "0x4000000000000"]


# --- meeting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framing", "status", "glue", "chunk"),
    list(itertools.product(Framing, ["ok", "ok_simultaneous", "alive"], [True, False], [1, 3, 1 << 20])),
)
def test_two_nodes_connect(framing: Framing, status: StatusWord, glue: bool, chunk: int) -> None:
    pair = HandshakePair(framing=framing, status=status, glue=glue, chunk=chunk).run()
    assert pair.alice_saw == [Connected(BOB, DEFAULT, DEFAULT, 7)]
    assert pair.bob_saw == [PeerNamed(ALICE, DEFAULT, 7), Connected(ALICE, DEFAULT, DEFAULT, 7)]


def test_chosen_flags_are_what_both_have() -> None:
    alice, bob = handshake_dialer(flags=HIDDEN), handshake_acceptor(flags=DEFAULT & ~Flags.FRAGMENTS)
    pair = HandshakePair(alice, bob).run()
    both = HIDDEN & ~Flags.FRAGMENTS
    assert isinstance(pair.alice_saw[0], Connected) and pair.alice_saw[0].chosen == both
    assert isinstance(pair.bob_saw[1], Connected) and pair.bob_saw[1].chosen == both
    assert pair.bob_saw[1].flags == HIDDEN


def test_status_and_challenge_leave_apart_over_quic() -> None:
    bob = handshake_acceptor()
    bob.receive_data(b"".join(handshake_dialer().data_to_send()), now=0)
    bob.next_event()
    bob.answer("ok", now=0)
    status, challenge = bob.data_to_send()
    assert status == b"sok" and challenge[:1] == b"N" and bob.pause > 0
    assert handshake_acceptor(framing=Framing.LENGTH16).pause == 0


def test_what_follows_the_handshake_is_handed_on() -> None:
    pair = HandshakePair(tail=b"\0\0\0\0\0\0\0\x03abc").run()
    assert pair.reasons == ("ok", "ok")
    assert pair.alice.trailing_data == b"\0\0\0\0\0\0\0\x03abc"


@pytest.mark.parametrize(("framing", "tick"), [(Framing.RAW, bytes(4)), (Framing.LENGTH16, bytes(2))])
def test_ticks_between_messages_mean_nothing(framing: Framing, tick: bytes) -> None:
    bob = handshake_acceptor(framing=framing)
    bob.receive_data(tick + tick + handshake_dialer(framing=framing).data_to_send()[0] + tick, now=0)
    assert [type(event) for event in events_of(bob)] == [PeerNamed]


def test_ok_and_ok_simultaneous_are_told_apart_byte_by_byte() -> None:
    """Without lengths ``sok`` may be all or only the start."""
    for status in (b"sok", b"sok_simultaneous"):
        alice = handshake_dialer()
        for byte in status + wire.challenge(DEFAULT, 1, 4, BOB):
            alice.receive_data(bytes([byte]), now=0)
        assert alice.next_event() == NeedData()
        assert alice.data_to_send()[-1][:1] == b"r"


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", Framing)
@pytest.mark.parametrize("status", ["nok", "not_allowed"])
def test_the_driver_may_say_no(framing: Framing, status: StatusWord) -> None:
    assert HandshakePair(framing=framing, status=status).run().reasons == (status, status)


def test_a_wrong_cookie_is_found_by_the_acceptor_first() -> None:
    pair = HandshakePair(bob=handshake_acceptor(cookie="other")).run()
    assert pair.reasons == ("waiting", "bad_cookie")
    pair.alice.connection_lost("closed by peer")
    (event,) = events_of(pair.alice)
    assert event.reason == "closed" and "cookie differs" in event.message


def test_an_acceptor_without_the_cookie_is_found_too() -> None:
    alice = handshake_dialer()
    alice.receive_data(b"sok" + wire.challenge(DEFAULT, 1, 4, BOB) + b"a" + bytes(16), now=0)
    assert [event.reason for event in events_of(alice)] == ["bad_cookie"]


def test_missing_flags_are_named_on_the_acceptor() -> None:
    alice = handshake_dialer(flags=DEFAULT & ~(Flags.V4_NC | Flags.UNLINK_ID))
    pair = HandshakePair(alice).run()
    assert pair.reasons == ("not_allowed", "missing_flags")
    message = pair.bob_saw[0].message  # type: ignore[union-attr]
    assert "UNLINK_ID, V4_NC" in message and "ALIAS" not in message


def test_missing_flags_are_named_on_the_dialer() -> None:
    alice = handshake_dialer()
    old = MANDATORY_25 & ~Flags.BIG_CREATION | Flags.UNLINK_ID | Flags.V4_NC
    alice.receive_data(b"sok" + wire.challenge(old, 1, 4, BOB), now=0)
    (event,) = events_of(alice)
    assert event.reason == "missing_flags" and "BIG_CREATION" in event.message
    assert event.details == {"missing_flags": ["BIG_CREATION"]}


def test_another_node_than_the_dialled_one_is_refused() -> None:
    alice = handshake_dialer()
    alice.receive_data(b"sok" + wire.challenge(DEFAULT, 1, 4, Atom("eve@h")), now=0)
    assert [event.reason for event in events_of(alice)] == ["name_mismatch"]


@pytest.mark.parametrize(("name", "told"), [("eve@h", "eve@h"), ("x@h; rm -rf ~", "?"), ("x@h\n\x1b[2J", "?")])
def test_the_doctor_repeats_no_name_that_is_none(name: str, told: str) -> None:
    """It is part of a command that people copy."""
    alice = handshake_dialer()
    alice.receive_data(b"sok" + wire.challenge(DEFAULT, 1, 4, Atom(name)), now=0)
    (event,) = events_of(alice)
    assert event.details == {"answered": told} and event.message.isprintable()


def test_a_name_other_than_the_authenticated_one_is_refused() -> None:
    pair = HandshakePair(bob=handshake_acceptor(expected=Atom("carol@127.0.0.1"))).run()
    assert pair.reasons == ("not_allowed", "name_mismatch")


def test_our_own_name_is_refused() -> None:
    pair = HandshakePair(handshake_dialer(name=BOB)).run()
    assert pair.reasons == ("not_allowed", "own_name")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wire.name(DEFAULT, 4, Atom("alice")), "bad_name"),
        (wire.name(DEFAULT, 4, Atom("../x@h")), "bad_name"),
        (wire.name(DEFAULT | Flags.NAME_ME, 0, Atom("127.0.0.1")), "dynamic_name"),
        (b"n\x00\x05\x00\x00\x00\x00old@host", "old_version"),
        (b"GET / HTTP/1.1", "unexpected_message"),
        (b"sok", "unexpected_message"),
        (b"N" + bytes(12) + b"\xff\xff", "malformed"),
    ],
)
def test_an_acceptor_refuses_bad_input(data: bytes, reason: str) -> None:
    bob = handshake_acceptor()
    bob.receive_data(data, now=0)
    assert [event.reason for event in events_of(bob)] == [reason]
    bob.receive_data(data, now=0)
    assert bob.next_event() == NeedData()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"sokay", "unexpected_message"),
        (b"sperhaps", "malformed"),
        (b"snamed:\0\x05x@hxx", "unexpected_status"),
        (b"sok" + b"n\x00\x05", "old_version"),
        (b"x", "unexpected_message"),
    ],
)
def test_a_dialer_refuses_bad_input(data: bytes, reason: str) -> None:
    alice = handshake_dialer()
    alice.receive_data(data, now=0)
    assert [event.reason for event in events_of(alice)] == [reason]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"sok_simul", "malformed"),
        (b"sokk", "malformed"),
        (b"s", "malformed"),
        (b"sok", None),
    ],
)
def test_framed_messages_have_exact_lengths(message: bytes, reason: str | None) -> None:
    alice = handshake_dialer(framing=Framing.LENGTH16)
    alice.receive_data(len(message).to_bytes(2, "big") + message, now=0)
    assert [event.reason for event in events_of(alice)] == ([reason] if reason else [])


def test_a_flood_before_its_turn_ends_the_handshake_even_between_naming_and_answer() -> None:
    bob = handshake_acceptor()
    bob.receive_data(handshake_dialer().data_to_send()[0] + bytes(1) * 5000, now=0)
    events = events_of(bob)
    assert [type(event) for event in events] == [PeerNamed, Failed]
    bob.answer("ok", now=0)  # the driver only got to the first event; it must not be punished for that
    assert bob.data_to_send() == [] and bob.next_event() == NeedData()


def test_an_old_connection_that_lives_stays() -> None:
    bob = handshake_acceptor()
    bob.receive_data(handshake_dialer().data_to_send()[0], now=0)
    bob.next_event()
    bob.answer("alive", now=0)
    assert bob.data_to_send() == [b"salive"]
    bob.receive_data(b"sfalse", now=0)
    assert [event.reason for event in events_of(bob)] == ["still_connected"]


# --- time ---------------------------------------------------------------------------------------------------


def test_each_step_has_its_own_seven_seconds() -> None:
    bob = handshake_acceptor()
    assert bob.deadline == 7.0
    bob.receive_data(handshake_dialer().data_to_send()[0], now=6.0)
    bob.next_event()
    bob.answer("ok", now=6.5)
    assert bob.deadline == 13.5
    bob.tick(13.5)
    assert bob.next_event() == NeedData()
    bob.tick(13.6)
    assert [event.reason for event in events_of(bob)] == ["timeout"]


def test_our_own_slowness_is_not_blamed_on_the_peer() -> None:
    bob = handshake_acceptor()
    bob.receive_data(handshake_dialer().data_to_send()[0], now=0)
    bob.next_event()
    bob.tick(7.1)
    (event,) = events_of(bob)
    assert event.reason == "timeout" and event.message.startswith("This node")
    bob.answer("ok", now=7.2)
    assert bob.data_to_send() == []


def test_a_dialer_guesses_the_cookie_when_erlang_falls_silent() -> None:
    alice = handshake_dialer()
    alice.receive_data(b"sok" + wire.challenge(DEFAULT, 1, 4, BOB), now=2.0)
    assert alice.deadline == 9.0
    alice.tick(9.1)
    (event,) = events_of(alice)
    assert event.reason == "timeout" and "cookie" in event.message


# --- our own mistakes ---------------------------------------------------------------------------------------


def test_answering_nobody_is_a_bug() -> None:
    with pytest.raises(InternalError):
        handshake_acceptor().answer("ok", now=0)


@pytest.mark.parametrize("options", [{"cookie": "pie€"}, {"creation": 0}, {"creation": 1 << 32}])
def test_bad_configuration_is_told(options: dict[str, object]) -> None:
    from barrel_p2p.proto.handshake import HandshakeConfig

    with pytest.raises(ConfigError):
        HandshakeConfig(**{"name": ALICE, "cookie": "c", "creation": 4, **options})  # type: ignore[arg-type]
    assert handshake_config(ALICE).creation == 7
