"""Whatever a peer or a network does: no cut changes the outcome, no changed byte gets in, no bytes raise."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from barrel_p2p.proto.auth import Authenticated
from barrel_p2p.proto.auth_frames import Challenge, Fail, Hello, Ok, Response, decode, encode
from barrel_p2p.proto.machine import Failed
from pairs import (
    ALICE,
    ALICE_KEYS,
    BOB,
    BOB_KEYS,
    WALL,
    AuthPair,
    acceptor,
    config,
    dialer,
    events_of,
    pinned,
)


def strict_pair(**options: object) -> AuthPair:
    return AuthPair(
        dialer(config(ALICE, ALICE_KEYS), check_pin=pinned({BOB: BOB_KEYS})),
        acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: ALICE_KEYS})),
        **options,  # type: ignore[arg-type]
    )


def transcript() -> dict[str, bytes]:
    """All bytes of a good exchange in each direction; nonces and clocks are fixed, so it never varies."""
    seen = {"to bob": b"", "to alice": b""}

    def note(direction: str, data: bytes) -> bytes:
        seen[direction] += data
        return data

    assert strict_pair(bend=note).run().reasons == ("ok", "ok")
    return seen


GOOD = transcript()
WELL_FORMED = st.one_of(
    st.builds(Hello, st.just(ALICE), st.binary(min_size=32, max_size=32)),
    st.builds(Challenge, st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1)),
    st.builds(Response, st.binary(min_size=64, max_size=64)),
    st.just(Ok()),
    st.builds(Fail, st.text("abc_", max_size=20)),
)


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(data) + 1) for point in points), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(st.integers(0, 10_000), max_size=20), st.binary(max_size=50))
def test_no_cut_changes_what_an_acceptor_sees(points: list[int], tail: bytes) -> None:
    bob = acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: ALICE_KEYS}))
    for data in cuts(GOOD["to bob"] + tail, points):
        bob.receive_data(data, now=0.1, wall_ms=WALL)
    assert events_of(bob) == [Authenticated(ALICE, ALICE_KEYS.public, False)]
    assert bob.data_to_send() == GOOD["to alice"]


@given(st.lists(st.integers(0, 10_000), max_size=20), st.binary(max_size=50))
def test_no_cut_changes_what_a_dialer_sees(points: list[int], tail: bytes) -> None:
    alice = dialer(config(ALICE, ALICE_KEYS), check_pin=pinned({BOB: BOB_KEYS}))
    for data in cuts(GOOD["to alice"] + tail, points):
        alice.receive_data(data, now=0.1, wall_ms=WALL)
    assert events_of(alice) == [Authenticated(BOB, BOB_KEYS.public, False)]
    assert alice.data_to_send() == GOOD["to bob"]


def test_no_changed_byte_ends_with_both_sides_content() -> None:
    """Every byte of both directions, once: at least one side notices, and nobody raises."""
    for direction, size in ((d, len(data)) for d, data in GOOD.items()):
        for position in range(size):
            passed = {"to bob": 0, "to alice": 0}

            def bend(way: str, data: bytes, *, at: int = position, where: str = direction) -> bytes:
                start, passed[way] = passed[way], passed[way] + len(data)  # noqa: B023
                if way == where and start <= at < passed[way]:  # noqa: B023
                    data = bytearray(data)  # type: ignore[assignment]
                    data[at - start] ^= 1 << at % 8  # type: ignore[index]
                return bytes(data)

            reasons = strict_pair(bend=bend).run().reasons
            assert reasons != ("ok", "ok"), (direction, position)


def test_no_changed_byte_of_a_proof_gets_past_the_one_who_asked_for_it() -> None:
    """HELLO and RESPONSE are what an identity stands on: change them, and the reader of them says no."""
    hello_end = 2 + 36 + len(ALICE)
    response_start = len(GOOD["to bob"]) - 67
    for position in [*range(hello_end), *range(response_start, len(GOOD["to bob"]))]:
        for bit in range(8):
            data = bytearray(GOOD["to bob"])
            data[position] ^= 1 << bit
            bob = acceptor(config(BOB, BOB_KEYS), check_pin=pinned({ALICE: ALICE_KEYS}))
            bob.receive_data(bytes(data), now=0.1, wall_ms=WALL)
            assert not any(isinstance(event, Authenticated) for event in events_of(bob)), (position, bit)


@given(st.lists(st.one_of(st.binary(max_size=200), WELL_FORMED.map(encode)), max_size=8))
def test_no_bytes_raise_or_get_in(pieces: list[bytes]) -> None:
    bob = acceptor(config(BOB, BOB_KEYS))
    alice = dialer(config(ALICE, ALICE_KEYS))
    for machine in (alice, bob):
        for piece in pieces:
            machine.receive_data(piece, now=0.1, wall_ms=WALL)
            assert len(machine._in) <= 1026
        events = events_of(machine)
        assert len(events) <= 1 and all(isinstance(event, Failed) for event in events)


@given(st.binary(max_size=400))
def test_decoding_never_raises_and_encoding_gives_the_bytes_back(body: bytes) -> None:
    frame = decode(body)
    if isinstance(frame, Hello | Challenge | Response | Ok):
        assert encode(frame)[2:] == body


@settings(max_examples=50)
@given(WELL_FORMED)
def test_frames_survive_the_wire(frame: Hello | Challenge | Response | Ok | Fail) -> None:
    assert decode(encode(frame)[2:]) == frame


@given(st.sampled_from(["tofu", "strict"]), st.booleans(), st.booleans(), st.integers(-90_000, 90_000))
def test_roles_in_all_moods_end_together(mode: str, known: bool, right: bool, skew: int) -> None:
    """Both sides end, neither hangs: with success on both, or with a reason on the one that refused."""
    from pairs import EVE_KEYS

    pins = {ALICE: ALICE_KEYS} if known else {}
    pair = AuthPair(
        dialer(config(ALICE, ALICE_KEYS if right else EVE_KEYS)),
        acceptor(config(BOB, BOB_KEYS), check_pin=pinned(pins, strict=mode == "strict")),
        skew=skew,
    ).run()
    welcome = abs(skew) <= 60_000 and (right if known else mode == "tofu")
    assert (pair.reasons == ("ok", "ok")) is welcome
    assert "waiting" not in pair.reasons or not welcome
