"""The dist handshake under any cut, any noise and any changed byte."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barrel_p2p.proto import handshake_messages as wire
from barrel_p2p.proto.flags import DEFAULT
from barrel_p2p.proto.handshake import Connected, Framing, PeerNamed
from barrel_p2p.proto.machine import Failed
from pairs import ALICE, BOB, HandshakePair, events_of, handshake_acceptor, handshake_dialer

STATUSES = ("ok", "ok_simultaneous", "alive")


def framed(framing: Framing, message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message if framing is Framing.LENGTH16 else message


def acceptors_bytes(framing: Framing, status: str) -> bytes:
    """All that a good acceptor sends to ``handshake_dialer()``, whose challenge is 5."""
    messages = [wire.status(status), wire.challenge(DEFAULT, 9, 4, BOB), wire.ack(wire.digest(b"lab", 5))]
    return b"".join(framed(framing, message) for message in messages)


@given(
    st.sampled_from(Framing),
    st.sampled_from(STATUSES),
    st.lists(st.integers(0, 10_000), max_size=20),
    st.binary(max_size=40),
)
def test_no_cut_changes_what_a_dialer_sees(framing: Framing, status: str, points: list[int], tail: bytes) -> None:
    alice, data = handshake_dialer(framing=framing), acceptors_bytes(framing, status) + tail
    end = len(data) - len(tail)
    edges = [0, *sorted(point % end for point in points), len(data)]  # the tail comes with the last byte
    for a, b in pairwise(edges):
        alice.receive_data(data[a:b], now=0.1)
    assert events_of(alice) == [Connected(BOB, DEFAULT, DEFAULT, 4)]
    assert alice.trailing_data == tail


@pytest.mark.parametrize("framing", Framing)
@pytest.mark.parametrize("status", STATUSES)
def test_no_changed_bit_of_a_proof_connects(framing: Framing, status: str) -> None:
    good = acceptors_bytes(framing, status)
    for position in range(len(good) - 16, len(good)):
        for bit in range(8):
            data = bytearray(good)
            data[position] ^= 1 << bit
            alice = handshake_dialer(framing=framing)
            alice.receive_data(bytes(data), now=0.1)
            assert [type(event) for event in events_of(alice)] == [Failed]


@given(
    st.sampled_from(Framing),
    st.lists(
        st.one_of(
            st.binary(max_size=100),
            st.sampled_from(
                [
                    wire.name(DEFAULT, 4, ALICE),
                    wire.challenge(DEFAULT, 1, 4, BOB),
                    wire.answer(1, bytes(16)),
                    wire.ack(bytes(16)),
                    *(wire.status(word) for word in ("ok", "ok_simultaneous", "nok", "alive", "true", "false")),
                ]
            ),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_no_bytes_raise_or_connect(framing: Framing, pieces: list[bytes], frame: bool) -> None:
    for machine in (handshake_dialer(framing=framing), handshake_acceptor(framing=framing)):
        ends = 0
        for piece in pieces:
            machine.receive_data(framed(framing, piece) if frame else piece, now=0.1)
            for event in events_of(machine):
                if isinstance(event, PeerNamed):
                    machine.answer("ok", now=0.1)  # type: ignore[union-attr]
                else:
                    assert isinstance(event, Failed)
                    ends += 1
            assert len(machine._in) <= 1026
        assert ends <= 1


@given(
    st.sampled_from(Framing),
    st.sampled_from(STATUSES),
    st.text("ab\xe9", max_size=3),
    st.text("ab", max_size=3),
)
def test_cookies_decide(framing: Framing, status: str, ours: str, theirs: str) -> None:
    alice = handshake_dialer(cookie=ours, framing=framing)
    bob = handshake_acceptor(cookie=theirs, framing=framing)
    pair = HandshakePair(alice, bob, status=status, framing=framing).run()  # type: ignore[arg-type]
    assert pair.reasons == (("ok", "ok") if ours == theirs else ("waiting", "bad_cookie"))
