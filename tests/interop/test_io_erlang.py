"""Group leaders across nodes: what is printed on a stock Erlang node for Python appears here, and the reverse."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import (
    Atom,
    Node,
    NodeDown,
    call,
    group_leader,
    io,
    receive,
    self_pid,
    send,
    spawn,
    spawn_monitor,
    whereis,
)
from harness.beside import PY, run, shell_of
from harness.erlang import Epmd, Erlang

#: Requests of Erlang's ``io`` to the Python node, what they return there and what they print here.
REQUESTS = [
    ('io:put_chars(U, "chars\\n")', "ok", "chars\n"),
    ("io:put_chars(U, <<\"bin\">>)", "ok", "bin"),
    ('io:request(U, {put_chars, unicode, ["d", [<<"ee">>, $p], 8364]})', "ok", "deep€"),
    ("io:request(U, {put_chars, latin1, <<233>>})", "ok", "é"),
    ("io:nl(U)", "ok", "\n"),
    ("io:write(U, {a, [1, 2], <<\"b\">>})", "ok", "{a,[1,2],<<98>>}"),
    ('io:format(U, "~p and ~s: ~w~n", [[1, "two"], "text", "w"])', "ok", '[1,"two"] and text: [119]\n'),
    ('io:format(U, "~ts ~10.2f|~5..0b|", [[8364], 3.14159, 42])', "ok", "€       3.14|00042|"),
    ('io:fwrite(U, "plain~n", [])', "ok", "plain\n"),
    ("(fun() -> try io:format(U, \"~p~p\", [1]) catch error:R -> R end end)()", "badarg", ""),
    ("io:get_line(U, \"> \")", "eof", ""),
    ("io:get_chars(U, \"> \", 3)", "eof", ""),
    ("io:read(U, \"> \")", "eof", ""),
    ("io:fread(U, \"> \", \"~d\")", "eof", ""),
    ("io:request(U, {get_password, unicode})", "eof", ""),
    ("io:getopts(U)", "[{binary,false},{encoding,unicode}]", ""),
    ("io:setopts(U, [binary])", "{error,enotsup}", ""),
    ("io:columns(U)", "{error,enotsup}", ""),
    ("io:rows(U)", "{error,enotsup}", ""),
    ("io:requests(U, [{put_chars, unicode, \"a\"}, nl, {write, b}])", "ok", "a\nb"),
    ("io:request(U, {put_chars, unicode, os, cmd, [\"id\"]})", "{error,cmd}", ""),
    ("io:request(U, {put_chars, unicode, io_lib, print, [\"str\"]})", "ok", '"str"'),
    ("io:request(U, {put_chars, <<\"old\", 233>>})", "ok", "oldé"),
    ("io:request(U, {put_chars, io_lib, format, [\"~w\", [old]]})", "ok", "old"),
    ("io:request(U, {put_chars, unicode, not_chars})", "{error,put_chars}", ""),
    ("io:request(U, {put_chars, ebcdic, \"x\"})", "{error,put_chars}", ""),
    ("io:request(U, {no, such, request})", "{error,request}", ""),
    ("io:request(U, 17)", "{error,request}", ""),
]  # fmt: skip


def test_every_request_of_the_io_protocol(epmd: Epmd, tmp_path: Path) -> None:
    printed: list[str] = []

    async def story(node: Node, erlang: Erlang) -> None:
        send(await shell_of(erlang), (Atom("user"), whereis("user")))
        await erlang.ask("receive {user, U} -> U end.")
        for request, reply, text in REQUESTS:
            printed.clear()
            assert await erlang.ask(request + ".") == reply, request
            assert "".join(printed) == text, request
        for junk in ("junk", "{io_request}", "{io_request, a, b, c}", "{io_request, self(), b}"):
            await erlang.ask(f"U ! {junk}.")
        assert await erlang.ask('io:put_chars(U, "alive").') == "ok"

    run(story, epmd, tmp_path, on_output=printed.append)


def test_code_that_python_runs_on_erlang_prints_here(epmd: Epmd, tmp_path: Path) -> None:
    printed: list[str] = []

    async def story(node: Node, erlang: Erlang) -> None:
        assert await node.rpc(erlang.name, "io", "format", ["~s: ~p~n", [b"rpc", Atom("done")]]) == "ok"
        assert "".join(printed) == "rpc: done\n"
        printed.clear()
        _, ref = await spawn_monitor("io:format", b"spawned ~w", [1], node=erlang.name)
        assert await receive(match=lambda m: ref in m, timeout=5)
        assert "".join(printed) == "spawned 1"

    run(story, epmd, tmp_path, on_output=printed.append)


#: What code that Python runs on the Erlang node does, and the level and text of what is then logged here.
EVENTS = [
    ('logger:error("~p of ~s", [3, "apples"])', logging.ERROR, "3 of apples"),
    ('logger:warning("no arguments")', logging.WARNING, "no arguments"),
    ('logger:error("one~n\\e[31mtwo", [])', logging.ERROR, "one\n    \\x1b[31mtwo"),
    ("logger:notice(<<195, 169>>)", logging.INFO, "é"),
    ("logger:critical(#{what => {lost, 1.5}})", logging.CRITICAL, "#{what => {lost,1.5}}"),
    ("logger:alert([{what, lost}])", logging.CRITICAL, "[{what,lost}]"),
    ('logger:error("~p ~p", [too_few])', logging.ERROR, '["~p ~p",too_few]'),
    ("spawn(fun() -> error(burnt) end)", logging.ERROR, "burnt"),
    ("proc_lib:spawn(fun() -> error(burnt) end)", logging.ERROR, "crash"),
]


class Records(logging.Handler):
    """What a logger was told, to be awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.told: asyncio.Queue[logging.LogRecord] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.told.put_nowait(record)

    async def next(self) -> tuple[int, str | None, str]:
        record = await asyncio.wait_for(self.told.get(), 10)
        return record.levelno, getattr(record, "peer", None), record.getMessage()


def test_what_erlang_logs_for_python_is_logged_here(epmd: Epmd, tmp_path: Path) -> None:
    """OTP's logger leaves it to the node of the group leader: here or nowhere."""

    async def story(node: Node, erlang: Erlang) -> None:
        await erlang.ask("logger:set_primary_config(level, notice).")
        records = Records()
        logger = logging.getLogger("barrel_p2p.erlang")
        logger.addHandler(records)
        logger.setLevel(logging.DEBUG)
        try:
            for source, level, text in EVENTS:
                await evaluate(node, erlang.name, source)
                told = await records.next()
                assert told[:2] == (level, erlang.name)
                assert text in told[2], source
            # what makes no sense is no event, and ends nothing
            for nonsense in ("17", "{log, error, no_text, no_meta}", '{log, loud, "x", #{}}'):
                await erlang.ask(f"{{logger_proxy, '{PY}'}} ! {nonsense}.")
            await erlang.ask(f"{{logger_proxy, '{PY}'}} ! {{log, info, [1|2], [3], #{{}}}}.")
            assert (await records.next())[0] == logging.INFO
        finally:
            logger.removeHandler(records)
            logger.setLevel(logging.NOTSET)

    run(story, epmd, tmp_path)


async def evaluate(node: Node, there: str, source: str) -> None:
    """Run Erlang source in a process whose group leader is ours."""
    _, tokens, _ = await node.rpc(there, "erl_scan", "string", [list((source + ".").encode())])
    _, forms = await node.rpc(there, "erl_parse", "parse_exprs", [tokens])
    await node.rpc(there, "erl_eval", "exprs", [forms, []])


async def chatty(to: Any) -> None:
    await io.put_chars("first\n")
    await io.format("~p of ~s left~n", [3, "apples"])

    async def child() -> None:
        await io.put_chars("from the child\n")
        send(to, (Atom("leader"), group_leader(), await io.get_line("")))

    spawn(child)


async def say(text: bytes) -> str:
    await io.put_chars(text.decode() + "\n")
    return Atom("said")


def test_code_that_erlang_runs_on_python_prints_there(epmd: Epmd, tmp_path: Path) -> None:
    printed: list[str] = []

    async def story(node: Node, erlang: Erlang) -> None:
        node.export(chatty, module="shop")
        node.export(say, module="shop")
        # a leader of the test's own, since the standard input of this node is in use
        await erlang.ask(
            """Self = self(), Leader = spawn(fun L() -> receive
                {io_request, From, As, {put_chars, unicode, Chars}} ->
                    Self ! {printed, Chars}, From ! {io_reply, As, ok}, L();
                {io_request, From, As, {put_chars, unicode, M, F, A}} ->
                    Self ! {printed, unicode:characters_to_binary(apply(M, F, A))}, From ! {io_reply, As, ok}, L();
                {io_request, From, As, {get_line, unicode, _}} ->
                    From ! {io_reply, As, "a_line" ++ [10]}, L()
                end end),
            Led = fun(F) -> spawn(fun() -> group_leader(Leader, self()), Self ! {result, F()} end),
                receive {result, R} -> R after 5000 -> missing end end."""
        )
        printed_there = "receive {printed, Text%d} -> Text%d after 5000 -> missing end."
        await erlang.ask(f"Led(fun() -> spawn('{PY}', shop, chatty, [Self]) end).")
        for number, text in enumerate(("first\\n", "3 of apples left\\n", "from the child\\n")):
            assert await erlang.ask(printed_there % (number, number)) == f'<<"{text}">>'
        answer = "receive {leader, Leader, Line} -> Line after 5000 -> missing end."
        assert await erlang.ask(answer) == '"a_line\\n"'
        ways = ("erpc:call({}, {})", "rpc:call({}, {})", "rpc:block_call({}, {})")
        for number, way in enumerate(ways, 10):
            said = way.format(f"'{PY}'", 'shop, say, [<<"hi">>]')
            assert await erlang.ask(f"Led(fun() -> {said} end).") == "said"
            assert await erlang.ask(printed_there % (number, number)) == '<<"hi\\n">>'
        assert printed == []

        # the leader of a process of ours is changed from there
        async def waits() -> None:
            await receive()
            await io.put_chars("led")

        pid = spawn(waits)
        send(await shell_of(erlang), (Atom("pid"), pid))
        await erlang.ask("receive {pid, P} -> group_leader(Leader, P), P ! go end.")
        assert await erlang.ask(printed_there % (20, 20)) == '<<"led">>'

    run(story, epmd, tmp_path, on_output=printed.append)


def test_a_leader_that_is_gone(epmd: Epmd, tmp_path: Path) -> None:
    async def story(node: Node, erlang: Erlang) -> None:
        shell = await shell_of(erlang)
        group_leader(shell)  # which never answers
        asking = asyncio.create_task(io.put_chars("into the void"))
        assert await node.ping(erlang.name)
        assert not asking.done()
        erlang.kill()
        with pytest.raises(NodeDown):
            await asking

    run(story, epmd, tmp_path)


def test_a_flood_of_text_waits_and_the_node_goes_on(epmd: Epmd, tmp_path: Path) -> None:
    gate, printed = threading.Event(), []

    def slow_terminal(text: str) -> None:
        assert gate.wait(60)
        printed.append(text)

    async def story(node: Node, erlang: Erlang) -> None:
        count = 20_000
        process = node.runtime.find_name("user")
        assert process is not None
        send(await shell_of(erlang), (Atom("user"), process.pid))
        await erlang.ask("receive {user, U} -> U end.")
        flood = '[U ! {io_request, self(), N, {put_chars, unicode, <<"line\\n">>}} || N <- lists:seq(1, %d)], ok.'
        flooding = asyncio.create_task(erlang.ask(flood % count))
        most = 0
        for _ in range(50):
            await asyncio.sleep(0.01)
            most = max(most, len(process.mailbox))
            assert await call("net_kernel", (Atom("is_auth"), node.name)) == "yes"
        assert not printed and 0 < most < count / 2, "the connection is not read while user is full"
        gate.set()
        await flooding
        answered = "[receive {io_reply, N, ok} -> ok end || N <- lists:seq(1, %d)], ok."
        assert await erlang.ask(answered % count) == "ok"
        assert "".join(printed) == "line\n" * count
        # one text has a limit, however it comes about
        printed.clear()
        assert await erlang.ask('io:format(U, "~999999999c~*c", [$x, 999999999, $y]).') == "ok"
        assert await erlang.ask('io:put_chars(U, binary:copy(<<"x">>, 1 bsl 24)).') == "ok"
        assert sum(map(len, printed)) < 3 << 20 and "".join(printed).count("...") == 2
        assert self_pid().node == PY

    run(story, epmd, tmp_path, on_output=slow_terminal)
