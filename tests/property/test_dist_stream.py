"""A channel over TCP: whatever is sent arrives as it was, wherever the bytes are cut."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from barrel_p2p._native import NO_MESSAGE, DistStream
from barrel_p2p.errors import EncodeError
from barrel_p2p.term import types
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom, Pid
from harness.terms import terms

FORMS = [(True, True), (True, False), (False, True), (False, False)]  # fragments, atom cache


def stream(fragments: bool, atom_cache: bool, **options: Any) -> tuple[DistStream, socket.socket]:
    """A channel end, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    options = {"max_frame": 64 << 20, "high_water": 1 << 20, "low_water": 1 << 18, "tick_ms": 60_000, **options}
    native = DistStream(Codec(), lambda *_: None, ours.detach(), fragments=fragments, atom_cache=atom_cache, **options)
    return native, theirs


def bytes_of(messages: list[tuple[Any, Any]], fragments: bool, atom_cache: bool) -> bytes:
    """What a channel writes for these messages."""
    sender, wire = stream(fragments, atom_cache)
    with wire:
        data = bytearray()
        for control, message in messages:
            sender.send(control, message)
            while sender.flush() & 1 or sender.queued:
                data += wire.recv(1 << 20)
            try:
                while more := wire.recv(1 << 20):
                    data += more
            except BlockingIOError:
                pass
        sender.close()
    return bytes(data)


def fed(parts: list[bytes], fragments: bool, atom_cache: bool) -> tuple[list[Any], Any]:
    receiver, wire = stream(fragments, atom_cache)
    got: list[Any] = []
    end = None
    with wire:
        for part in parts:
            messages, end = receiver.feed(part)
            got += messages
            if end is not None:
                break
        receiver.close()
    return got, end


def control(n: int) -> tuple[Any, ...]:
    return (22, Pid(Atom(f"n{n % 5}@host"), n, 0, 7), Pid(Atom("me@host"), 1, 0, 9))


def as_received(term: Any) -> Any:
    """``Atom("true")`` comes back as ``True`` and the like."""
    try:
        return term if term is NO_MESSAGE else Codec().decode(Codec().encode(term))
    except EncodeError:  # a map with the keys None and Atom("undefined"), which are one
        reject()


messages = st.lists(st.one_of(terms().map(as_received), st.just(NO_MESSAGE)), max_size=6).map(
    lambda found: [(control(i), message) for i, message in enumerate(found)]
)


@pytest.mark.parametrize(("fragments", "atom_cache"), FORMS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sent=messages, cuts=st.lists(st.floats(0, 1), max_size=8))
def test_any_cut_gives_the_same_messages(
    fragments: bool, atom_cache: bool, sent: list[tuple[Any, Any]], cuts: list[float]
) -> None:
    data = bytes_of(sent, fragments, atom_cache)
    places = sorted(int(cut * len(data)) for cut in cuts)
    parts = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert fed(parts, fragments, atom_cache) == (sent, None)
    assert fed([bytes([byte]) for byte in data[:2000]] + [data[2000:]], fragments, atom_cache) == (sent, None)


@pytest.mark.parametrize(("fragments", "atom_cache"), FORMS)
def test_large_messages_with_many_atoms_between_small_ones(fragments: bool, atom_cache: bool) -> None:
    large = [[Atom(f"atom{i * 7 % 3000}") for i in range(40_000)], b"x" * 300_000]
    sent = [(control(0), Atom("before")), (control(1), large), (control(2), [Atom(f"atom{i}") for i in range(300)])]
    data = bytes_of(sent, fragments, atom_cache)
    assert fed([data[i : i + 10_007] for i in range(0, len(data), 10_007)], fragments, atom_cache) == (sent, None)
    if atom_cache:
        assert len(bytes_of(sent[2:] * 2, fragments, True)) < 1.6 * len(bytes_of(sent[2:], fragments, True))


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), form=st.sampled_from(FORMS))
def test_no_bytes_do_harm(data: bytes, form: tuple[bool, bool]) -> None:
    for payload in (data, b"\x83D" + data, b"\x83E" + data, b"\x83F" + data):
        _, end = fed([len(payload).to_bytes(4, "big") + payload], *form)
        assert end is None or end[0] == "protocol"


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_other_messages_or_an_end(place: float, bit: int) -> None:
    data = bytearray(bytes_of([(control(i), [Atom(f"a{i}"), {Atom("k"): i}]) for i in range(4)], True, True))
    data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    messages, end = fed([bytes(data)], True, True)
    assert len(messages) <= 4 and (end is None or end[0] == "protocol")


def test_a_message_without_form_leaves_the_cache_as_it_was() -> None:
    sender, wire = stream(True, True)
    with wire:
        sender.send(control(0), Atom("known"))
        with pytest.raises(EncodeError):
            sender.send(control(0), [Atom("known"), Atom("new"), object()])
        sender.send(control(0), [Atom("new"), Atom("known")])
        sender.flush()
        assert [m for _, m in fed([wire.recv(1 << 16)], True, True)[0]] == ["known", ["new", "known"]]
        sender.close()


def test_a_send_while_another_one_is_encoded_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding can run Python code (here: the first look at a pid), and that may send."""
    sender, wire = stream(True, True)
    plain = types.atom_etf

    def sneaky(name: str) -> bytes:
        monkeypatch.setattr(types, "atom_etf", plain)
        sender.send(control(1), [Atom("inner"), Atom("outer")])
        return plain(name)

    with wire:
        sender.send(control(0), Atom("outer"))
        pid = Pid(Atom("late@host"), 1, 2, 3)
        monkeypatch.setattr(types, "atom_etf", sneaky)
        sender.send((22, Atom("x"), Atom("y")), [Atom("outer"), pid, Atom("inner")])
        sender.send(control(0), Atom("inner"))
        sender.flush()
        got = [m for _, m in fed([wire.recv(1 << 16)], True, True)[0]]
        assert got == ["outer", ["inner", "outer"], ["outer", pid, "inner"], "inner"]
        sender.close()
