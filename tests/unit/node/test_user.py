"""What is printed on one node: to standard output, by the group leader, until the node has ended."""

from __future__ import annotations

import asyncio
import io as sys_io
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, CallError, GenServer, Node, NoProc, group_leader, io, receive, self_pid, spawn, whereis
from barrel_p2p.node.user import answer


class Farewell(GenServer):
    async def init(self) -> None:
        from barrel_p2p import process_flag

        process_flag("trap_exit", True)

    async def terminate(self, reason: Any) -> None:
        await io.put_chars(f"ends for {reason}\n")


def node(directory: Path, **options: Any) -> Node:
    return Node("printer@127.0.0.1", data_dir=directory, discovery_dir=None, **options)


def test_text_goes_to_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with node(tmp_path):
            assert group_leader() == whereis("user")
            await io.put_chars("é\n")
            await io.format("~p~n", [{Atom("a"): (1, b"x")}])
            assert await io.get_line("> ") == "eof"
            await Farewell.start()

    asyncio.run(main())
    assert capsys.readouterr().out == 'é\n#{a => {1,<<"x">>}}\nends for shutdown\n'


def test_an_output_that_knows_few_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = sys_io.TextIOWrapper(raw := sys_io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", output)

    async def main() -> None:
        async with node(tmp_path):
            await io.put_chars("é €\n")

    asyncio.run(main())
    assert raw.getvalue() == b"\xe9 \\u20ac\n"


def test_a_leader_is_inherited(tmp_path: Path) -> None:
    heard: list[Any] = []

    async def leads() -> None:
        while True:
            _, sender, reply_as, request = await receive()
            heard.append(request[2])
            sender.send((Atom("io_reply"), reply_as, Atom("ok")))

    async def child(then: asyncio.Event, depth: int) -> None:
        await io.put_chars(f"level {depth}")
        if depth < 3:
            spawn(child, then, depth + 1)
        else:
            then.set()

    async def main() -> None:
        async with node(tmp_path):
            done, leader, user = asyncio.Event(), spawn(leads), group_leader()
            group_leader(leader)
            spawn(child, done, 1)
            await done.wait()
            group_leader(user, self_pid())
            assert group_leader() == user

    asyncio.run(main())
    assert heard == ["level 1", "level 2", "level 3"]


def test_failures_are_the_writers_own(tmp_path: Path) -> None:
    def broken(text: str) -> None:
        raise BrokenPipeError("nobody reads")

    async def main() -> None:
        async with node(tmp_path, on_output=broken):
            with pytest.raises(CallError) as refused:
                await io.put_chars("lost")
            assert refused.value.reason == "put_chars"
            with pytest.raises(CallError):
                await io.format("~p")
            with pytest.raises(NoProc):
                await io.put_chars("x", "nobody")
            gone = spawn(asyncio.sleep, 0)
            await asyncio.sleep(0.01)
            with pytest.raises(NoProc):
                await io.put_chars("x", gone)
            assert whereis("user") is not None

    asyncio.run(main())


def test_one_request_prints_so_much_and_no_more() -> None:
    assert answer((Atom("put_chars"), Atom("unicode"), b"12345678"), limit=5)[1] == "12345..."
    big = (Atom("put_chars"), Atom("unicode"), Atom("io_lib"), Atom("format"), [b"~99999999c", [120]])
    reply, text = answer((Atom("requests"), [big] * 100))
    assert reply == "ok" and len(text) < (1 << 20) + 10
    surrogate = (Atom("put_chars"), Atom("unicode"), Atom("io_lib"), Atom("format"), [b"~tc", [0xD800]])
    assert answer(surrogate) == ((Atom("error"), Atom("format")), "")
    nested = (Atom("requests"), [(Atom("requests"), [])])
    assert answer(nested) == ((Atom("error"), Atom("request")), "")
    assert answer((Atom("put_chars"), Atom("unicode"), [[120] * 10_000_000]), limit=5)[1] == "xxxxx..."
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    assert answer((Atom("put_chars"), Atom("unicode"), Atom("io_lib"), Atom("write"), [deep]))[1].startswith("[[[")
