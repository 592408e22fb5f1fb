"""``barrel call NODE MODULE FUNCTION ARGS...``: one remote call, and its result printed."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from barrel_p2p.cli.arguments import Parser, Usage
from barrel_p2p.cli.client import add_arguments, client
from barrel_p2p.cli.status import FAILED, OK
from barrel_p2p.cli.terms import as_json, parse, show
from barrel_p2p.errors import RemoteError
from barrel_p2p.shown import printable
from barrel_p2p.term.types import Atom

TEXT = """\
Calls MODULE:FUNCTION(ARGS...) on a node and prints what it returns. A Python node runs what it has exported, an Erlang
node any function.

Every ARG is a JSON value; besides, :ok is an atom, (1, 2) a tuple and b"raw" a binary of bytes. Texts stand in quotes
of their own: '"hello"'. The result is printed in the same way.

Exit status: 0 with a result, 1 if the function failed or gave no result in time, 2 wrong usage, 3 no connection.
"""
EXAMPLES = (
    "barrel call bob@127.0.0.1 math sqrt 2",
    """barrel call bob@127.0.0.1 shop price '"apples"' 3""",
    "barrel call erl@127.0.0.1 lists reverse '[1, 2, 3]'",
    "barrel call erl@127.0.0.1 application get_env :kernel :logger_level --json",
)


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    add_arguments(made)
    made.add_argument("module", metavar="MODULE")
    made.add_argument("function", metavar="FUNCTION")
    made.add_argument(
        "args", metavar="ARG", nargs="*", default=[], help='a value: JSON, or an :atom, a (tuple), b"bytes"'
    )
    made.add_argument("--timeout", metavar="SECONDS", type=float, default=5.0, help="wait so long for the result (5)")
    made.add_argument("--json", action="store_true", help="print strict JSON: atoms and bytes become texts")
    return made


def run(arguments: argparse.Namespace) -> int:
    return asyncio.run(_call(arguments, [_value(number, text) for number, text in enumerate(arguments.args, 1)]))


def _value(number: int, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        hint = f"""; for the text {text} write '"{text}"'""" if text.isprintable() and text[:1].isalpha() else ""
        raise Usage(f"barrel call: argument {number}: {error}{hint}") from None


async def _call(arguments: argparse.Namespace, args: list[Any]) -> int:
    async with client(arguments) as visitor:
        await visitor.connect()
        try:
            result = await visitor.node.rpc(
                visitor.target, arguments.module, arguments.function, args, timeout=arguments.timeout
            )
        except RemoteError as error:
            called = f"{arguments.module}:{arguments.function}/{len(args)}"
            print(_told(error, called, visitor.target), file=sys.stderr)
            return FAILED
    print(as_json(result) if arguments.json else show(result))
    return OK


def _told(error: RemoteError, called: str, node: str) -> str:
    """A remote error for people: kind, reason, and the stack with one line for each frame."""
    lines = [f"barrel: {called} on {node} failed"]
    if error.kind == "error" and error.reason == "undef":
        lines[0] = f"barrel: {node} has no {called} to call; a Python node runs only what it exports (node.export)"
    lines.append(f"  kind    {printable(error.kind)}")
    match error.reason:
        case (Atom("exception"), str(kind) | bytes(kind), str(text) | bytes(text)):
            lines.append(f"  reason  {printable(f'{_text(kind)}: {_text(text)}')}")
        case reason:
            lines.append(f"  reason  {show(reason, 100, 10)}")
    if isinstance(error.stack, list) and error.stack:
        lines.append("  stack")
        lines += [f"    {_frame(frame)}" for frame in error.stack]
    elif error.stack:
        lines.append(f"  stack   {show(error.stack, 100, 10)}")
    return "\n".join(lines)


def _frame(frame: Any) -> str:
    """``{Module, Function, Arity or Args, [{file, ...}, {line, ...}]}`` as ``module:function (file:line)``."""
    match frame:
        case (str(module), str(function), arity, list(places)):
            known = {place[0]: place[1] for place in places if isinstance(place, tuple) and len(place) == 2}
            count = f"/{arity if isinstance(arity, int) else len(arity)}" if arity else ""
            file = known.get("file")
            where = f" ({_text(file)}:{known.get('line', '?')})" if file else ""
            return printable(f"{module}:{function}{count}{where}")
    return show(frame)


def _text(value: Any) -> str:
    """A text in any of the forms that Erlang has for it."""
    if isinstance(value, list) and all(isinstance(code, int) for code in value):
        value = bytes(code if 0 <= code < 256 else 63 for code in value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
