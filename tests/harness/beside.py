"""Stories of one Python node beside one Erlang node, over the carrier ``inet_tcp``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from barrel_p2p import Node, receive, register, self_pid
from harness.erlang import COOKIE, Epmd, Erlang

PY = "py@127.0.0.1"

Story = Callable[[Node, Erlang], Awaitable[None]]


def python(epmd: Epmd, directory: Path, name: str = PY, **options: Any) -> Node:
    """A node that is not started yet."""
    options = {"cookie": COOKIE, "epmd_port": epmd.port, "data_dir": directory / name, **options}
    return Node(name, proto_dist="inet_tcp", **options)


def run(story: Story, epmd: Epmd, directory: Path, *flags: str, limit: float = 100, **options: Any) -> None:
    """Run ``story`` as the process ``test`` of a Python node beside an Erlang node it is not connected to yet."""
    with Erlang(epmd, "erl", *flags) as erlang:
        tell(story, erlang, epmd, directory, limit=limit, **options)


def tell(story: Story, erlang: Erlang, epmd: Epmd, directory: Path, *, limit: float = 100, **options: Any) -> None:
    """The same with an Erlang node that runs already."""

    async def main() -> None:
        async with asyncio.timeout(limit), python(epmd, directory, **options) as node:
            register("test", self_pid())
            await story(node, erlang)

    asyncio.run(main())


async def shell_of(erlang: Erlang) -> Any:
    """The pid of the process that evaluates what the test asks; the current process must be called ``test``."""
    await erlang.ask(f"{{test, '{PY}'}} ! {{shell, self()}}.")
    return (await receive(match=lambda m: isinstance(m, tuple) and m[0] == "shell", timeout=10))[1]


async def load(erlang: Erlang, module: str) -> None:
    """Compile a module of ``tests/interop/erlang`` in the node's memory."""
    path = Path(__file__).parents[1] / "interop" / "erlang" / module
    load = '(fun() -> {ok, M, B} = compile:file("%s", [binary]), code:load_binary(M, "", B) end)().'
    assert await erlang.ask(load % path) == f"{{module,{module}}}"


async def nothing_more(seconds: float = 0.2) -> None:
    """No message comes any more; a short wait is the only way to see that."""
    try:
        message = await receive(timeout=seconds)
    except TimeoutError:
        return
    raise AssertionError(f"unexpected: {message!r}")
