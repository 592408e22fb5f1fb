"""What ``io_lib:format`` of a real node makes of random terms and of many formats, and what ours does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, Node, receive, self_pid, send
from barrel_p2p.term import io_lib
from barrel_p2p.term.types import Export, ImproperList, Pid, Port, Reference
from harness.beside import run
from harness.erlang import Epmd, Erlang
from harness.terms import many_terms

FORMATS: list[tuple[str, list[Any]]] = [
    ("plain", []),
    ("~~ ~n|", []),
    ("~3n~2c", [97]),
    ("~w ~p ~w", [[104, 105], [104, 105], b"hi"]),
    ("~s~s", [b"bin", [b"deep", [32, [b"list"]]]]),
    ("~ts", ["é€😀".encode()]),
    ("~ts", [[233, 8364]]),
    ("~tc~c", [8364, 233]),
    ("~10s|~-10s|~10.3s|~-10.3s|~3s", [b"abc", b"abc", b"abcdef", b"abcdef", b"abcdef"]),
    ("~10.4.*s|~*s", [ord("x"), b"abcdef", 6, b"ab"]),
    ("~s ~s", [Atom("atom"), None]),
    ("~b ~B ~.16b ~.16B ~.2b", [255, 255, 255, 255, -5]),
    ("~5b|~-5b|~5..0b|~2b", [42, 42, 42, 1234]),
    ("~.16# ~.16+ ~.8#", [255, 255, -8]),
    ("~.16x ~.16X", [31, list(b"0x"), -31, Atom("y")]),
    ("~f ~.2f ~10.2f|~-10.2f|", [1.5, 2.345, 3.14159, 2.5]),
    ("~e ~.3e ~.3e", [1.5, 12345.678, -0.00012]),
    ("~g ~g ~g", [0.5, 1234.5, 1.0e10]),
    ("~i~w", [b"ignored", 1]),
    ("~10w|~-10w|~3w|~10.5w|", [Atom("abc"), Atom("abc"), 123456, 12]),
    ("~w ~w ~w", [1000.0, 0.0001, 1.0e22]),
    ("~p", [{Atom("key"): [1, {b"k": ()}]}]),
    ("~W|~P", [[1, [2, [3, [4]]]], 100, [1, [2]], 100]),
]
BAD: list[tuple[str, list[Any]]] = [
    ("~w", []),
    ("~", []),
    ("~y", [1]),
    ("none", [1]),
    ("~b", [b"x"]),
    ("~s", [{}]),
    ("~s", [[8364]]),
    ("~.99b", [1]),
    ("~c", [b"x"]),
    ("~f", [b"x"]),
]
SERVE = """register(format, spawn(fun L() -> receive
    {P, All} ->
        P ! [[try unicode:characters_to_binary(io_lib:format(F, A)) catch _:_ -> bad end || F <- Fs] || {Fs, A} <- All],
        L()
    end end))."""


async def rendered(erlang: Erlang, requests: list[Any]) -> list[Any]:
    send((Atom("format"), Atom(erlang.name)), (self_pid(), requests))
    answer: list[Any] = await receive(match=lambda m: isinstance(m, list), timeout=60)
    return answer


def test_formats(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask(SERVE)
        theirs = await rendered(erlang, [([form], args) for form, args in FORMATS])
        for (form, args), [text] in zip(FORMATS, theirs, strict=True):
            assert io_lib.format(form, args).encode() == text, (form, args)
        assert await rendered(erlang, [([form], args) for form, args in BAD]) == [["bad"]] * len(BAD)
        for form, args in BAD:
            with pytest.raises(ValueError):
                io_lib.format(form, args)

    run(story, epmd, tmp_path, "+pc", "unicode")


def test_random_terms(epmd: Epmd, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    collected = [term for term in many_terms(6_000, random.Random(seed)) if not has_identifiers(term)]

    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask(SERVE)
        await erlang.ask("register(echo, spawn(fun L() -> receive {P, M} -> P ! M, L() end end)).")
        for start in range(0, len(collected), 500):
            send((Atom("echo"), Atom(erlang.name)), (self_pid(), collected[start : start + 500]))
            terms = await receive(timeout=60)  # with the pairs of maps in Erlang's order
            theirs = await rendered(erlang, [(["~w", "~tw", "~0p", "~0tp"], [term]) for term in terms])
            for term, texts in zip(terms, theirs, strict=True):
                ours = [
                    io_lib.write(term, strings=strings, unicode=unicode)
                    for strings in (False, True)
                    for unicode in (False, True)
                ]
                assert ours == [text.decode() for text in texts], (seed, term)
            await asyncio.sleep(0)

    run(story, epmd, tmp_path, "+pc", "unicode")


def has_identifiers(term: Any) -> bool:
    """Whether pids and the like, whose text names the node here, or funs are in it."""
    match term:
        case Pid() | Port() | Reference() | Export():
            return True
        case list() | tuple():
            return any(map(has_identifiers, term))
        case ImproperList():
            return has_identifiers((*term.elements, term.tail))
        case Mapping():
            return any(map(has_identifiers, term.items()))
    return False
