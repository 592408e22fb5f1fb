"""A Python node in an OS process of its own that evaluates what the test asks, as ``harness.erlang.Erlang`` does.

::

    with Python({"name": "py@127.0.0.1", "cookie": "secret"}) as python:
        assert python.eval("1 + 1") == "2"
        python.eval("await node.connect('bob@127.0.0.1')")

All lines run in one process of the node, the one that started it; they keep their variables and its mailbox.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import barrel_p2p
from barrel_p2p import Node


class Python:
    """The node as the test sees it.

    Args:
        options: Those of ``Node``, ``name`` among them.
        inside: The command in front, to run it on another host (see ``harness.wire``).
    """

    def __init__(self, options: dict[str, Any], inside: Sequence[str] = ()) -> None:
        self.name = str(options["name"])
        self.process = subprocess.Popen(
            [*inside, sys.executable, __file__, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert self._line() == "ready"
        except BaseException:
            self.kill()
            raise

    def eval(self, code: str) -> str:
        """The ``str`` of the expression's value, empty for statements; AssertionError if it raises."""
        self.send(code)
        return self.answer()

    def send(self, code: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(code).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        line = self._line()
        assert line.startswith("= "), line
        return line[2:]

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.name} ended"
        return line.decode().rstrip("\n")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


# --- the program ------------------------------------------------------------------------------------------------------


async def evaluate(code: str, names: dict[str, Any]) -> Any:
    try:
        tree = compile(code, "<test>", "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        tree = compile(code, "<test>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    value = eval(tree, names)
    return await value if inspect.iscoroutine(value) else value


async def main() -> None:
    logging.basicConfig(level="ERROR", stream=sys.stderr)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    options = json.loads(sys.argv[1])
    options["peers"] = {name: tuple(address) for name, address in options.get("peers", {}).items()}
    async with Node(**options) as node:
        names = {**vars(barrel_p2p), "asyncio": asyncio, "node": node}
        print("ready", flush=True)
        while line := await lines.readline():
            try:
                value = await evaluate(json.loads(line), names)
                print("=", "" if value is None else value, flush=True)
            except Exception as error:
                print("!", repr(error), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
