"""Thousands of random terms go to a real Erlang node and back: the value is the same, and Erlang agrees.

The two speak over pipes, each frame with its length in four bytes before it (``{packet, 4}``). For each term
that we encode Erlang tells whether what it read is equal (``=:=``) to what it reads from its own encoding of
it, whether it took all the bytes, and sends the term back.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from barrel_p2p.errors import EncodeError
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.maps import exact_key
from barrel_p2p.term.types import Atom
from harness.terms import as_erlang_has_it, terms

# the strategy is recursive, and hypothesis wonders at the length of its repr
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

# with -noinput nobody else reads standard input, and a port on the two descriptors cuts the frames
ECHO = r"""
Port = open_port({fd, 0, 1}, [binary, {packet, 4}, eof]),
Answer = fun(Data) ->
    try binary_to_term(Data, [used]) of
        {Term, Used} ->
            Equal = case Term of
                {same, A, B} -> A =:= B;
                _ -> Term =:= binary_to_term(term_to_binary(Term))
            end,
            {ok, Equal, Used =:= byte_size(Data), Term}
    catch error:badarg -> badarg
    end
end,
Loop = fun Next() ->
    receive
        {Port, {data, Data}} -> port_command(Port, term_to_binary(Answer(Data))), Next();
        {Port, eof} -> halt(0)
    end
end,
Loop().
"""


class Erlang:
    """A node that answers each term."""

    def __init__(self) -> None:
        erl = shutil.which("erl")
        if erl is None:
            pytest.fail("this test talks to a real Erlang: install it (Debian: apt-get install erlang-base)")
        self.process = subprocess.Popen(
            [erl, "-noshell", "-noinput", "-boot", "start_clean", "-eval", ECHO],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, data: bytes) -> bytes:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(len(data).to_bytes(4, "big") + data)
        self.process.stdin.flush()
        size = int.from_bytes(self.process.stdout.read(4), "big")
        assert size, "the node ended"
        return self.process.stdout.read(size)

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


@pytest.fixture(scope="module")
def erlang() -> Iterator[Erlang]:
    erlang = Erlang()
    yield erlang
    erlang.close()


@settings(
    max_examples=3_000,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(terms())
def test_random_terms_survive_the_way_through_erlang(erlang: Erlang, term: Any) -> None:
    codec = Codec()
    try:
        data = codec.encode(term)
    except EncodeError:
        return  # two keys of a map that Erlang takes for one
    reply = codec.decode(erlang.ask(data))
    if reply == Atom("badarg"):
        assert b"\x46\x80\0\0\0\0\0\0\0" in data, "OTP 25 and 26 may refuse keys 0.0 and -0.0"
        return
    ok, equal, used_all, back = reply
    assert (ok, equal, used_all) == (Atom("ok"), True, True)
    # through the reader once more, so that both sides are what a decoder makes of them
    assert exact_key(back) == exact_key(codec.decode(codec.encode(as_erlang_has_it(codec.decode(data)))))
    # what we read of Erlang's own encoding and write again is the term that we sent
    assert codec.decode(erlang.ask(codec.encode((Atom("same"), term, back))))[1] is True


def test_a_str_is_the_same_binary_to_erlang_as_its_bytes(erlang: Erlang) -> None:
    codec = Codec()
    for text in ("", "x", "é€😀", "y" * 70_000):
        as_text, as_bytes = (codec.decode(erlang.ask(codec.encode(form))) for form in (text, text.encode()))
        assert as_text == as_bytes
        assert as_text[3] == text.encode()


def test_erlang_sees_the_same_order_of_bytes_as_we_do(erlang: Erlang) -> None:
    """Erlang's own encoding of what it read is ours; atoms apart, whose tag changed in OTP 26."""
    codec = Codec()
    for term in (1, -1, 2**70, 1.5, b"bytes", [1, 2, 3], [1, 256], (1, (2, [3])), {1: 2, 3: 4}, [], (), {}):
        data = codec.encode(term)
        reply = erlang.ask(data)
        assert reply.endswith(data[1:]), term


def test_what_we_refuse_erlang_refuses_too(erlang: Erlang) -> None:
    codec = Codec()
    bad = [
        "8374000000026101610161016103",
        "83467ff8000000000000",
        "837701ff",
        "834d0000000108",
        "83c801",
        "8379",
    ]
    for data in bad:
        assert codec.decode(erlang.ask(bytes.fromhex(data))) == Atom("badarg")
