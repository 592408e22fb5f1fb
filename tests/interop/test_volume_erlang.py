"""A million messages each way between a Python and a stock Erlang node, and ten thousand terms of every type."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from barrel_p2p import Atom, Node, receive, self_pid, send, spawn
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.maps import TermMap, exact_key
from harness.beside import PY, run
from harness.erlang import Epmd, Erlang
from harness.terms import as_erlang_has_it, many_terms

MESSAGES = 1_000_000


async def flood_python(erlang: Erlang) -> None:
    await erlang.ask(
        f"""spawn(fun() -> (fun L(N) when N < {MESSAGES} -> {{test, '{PY}'}} ! {{N, payload}}, L(N + 1);
            L(_) -> ok end)(0) end)."""
    )


async def take_all() -> Any:
    """The flood from Erlang in order, and what else came meanwhile."""
    expected, others, payload = 0, [], Atom("payload")
    while expected < MESSAGES:
        message = await receive()
        if message == (expected, payload):
            expected += 1
        else:
            others.append(message)
            assert len(others) < 2, others
    return others


async def flood_erlang(erlang: Erlang) -> None:
    await erlang.ask(
        f"""register(sink, spawn(fun() ->
              L = fun L({MESSAGES}) -> ok; L(N) -> receive {{N, _}} -> L(N + 1); Other -> {{N, Other}} end end,
              {{test, '{PY}'}} ! {{sink, L(0)}} end))."""
    )

    async def flood() -> None:
        sink = (Atom("sink"), Atom(erlang.name))
        for number in range(MESSAGES):
            send(sink, (number, b"payload"))
            if number % 100 == 0:
                await asyncio.sleep(0)  # where a sender waits when the channel is busy

    spawn(flood)


def test_a_million_messages_each_way_at_once_and_in_order(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await flood_erlang(erlang)
        await flood_python(erlang)
        others = await take_all() or [await receive()]
        assert others == [("sink", "ok")]

    run(story, epmd, tmp_path)


def test_ten_thousand_terms_of_every_type_come_back_exactly_equal(epmd: Epmd, tmp_path: Path) -> None:
    """``exact_key`` tells 1 from 1.0 from true, 0.0 from -0.0, an atom from a binary, at any depth."""
    codec = Codec()
    seed = random.randrange(1 << 32)
    sent = many_terms(10_000, random.Random(seed))
    assert len({type(term) for term in sent}) >= 15, "of every type"

    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask("register(echo, spawn(fun L() -> receive {P, M} -> P ! M, L() end end)).")
        for start in range(0, len(sent), 250):
            batch = sent[start : start + 250]
            send((Atom("echo"), Atom(erlang.name)), (self_pid(), batch))
            back = await receive(timeout=60)
            assert len(back) == len(batch)
            for term, got in zip(batch, back, strict=True):
                # through the reader once more: an atom ``true`` is True on both sides then
                assert exact_key(got) == exact_key(codec.decode(codec.encode(as_erlang_has_it(term)))), (seed, term)

    run(story, epmd, tmp_path)


def test_what_looks_equal_to_python_is_told_apart(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask("register(echo, spawn(fun L() -> receive {P, M} -> P ! M, L() end end)).")
        terms = [1, 1.0, True, 0, 0.0, False, [], b"", (), {}, Atom("a"), b"a", None, Atom("none"), [1, 2], (1, 2)]
        keys = TermMap([(term, number) for number, term in enumerate(terms)])
        send((Atom("echo"), Atom(erlang.name)), (self_pid(), (terms, keys)))
        back, back_keys = await receive(timeout=10)
        assert [(type(term), term) for term in back] == [(type(term), term) for term in terms]
        assert [back_keys[term] for term in terms] == list(range(len(terms)))
        send((Atom("echo"), Atom(erlang.name)), (self_pid(), [-0.0, 0.0]))
        assert [str(number) for number in await receive(timeout=10)] == ["-0.0", "0.0"]

    run(story, epmd, tmp_path)
