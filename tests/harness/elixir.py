"""Real Elixir nodes for tests: an Erlang node with Elixir's own code, which compiles and runs Elixir.

::

    with Epmd() as epmd, Elixir(epmd, "ex") as elixir:
        assert elixir.eval_elixir("Enum.sum(1..4)") == "10"
"""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

from harness.erlang import Epmd, Erlang, tool

SOURCES = Path(__file__).parents[1] / "interop" / "elixir"


class Elixir(Erlang):
    """An Elixir node; ``eval`` still takes Erlang, ``eval_elixir`` Elixir."""

    def __init__(self, epmd: Epmd, alive: str, *flags: str) -> None:
        library = Path(tool("elixir")).resolve().parents[1] / "lib"
        super().__init__(epmd, alive, "+fnu", "-pa", str(library / "elixir" / "ebin"), *flags)
        self.eval("{ok, _} = application:ensure_all_started(elixir).")

    def eval_elixir(self, code: str) -> str:
        """The value of the code, written as Erlang writes it."""
        encoded = base64.b64encode(code.encode()).decode()
        return self.eval(f"element(1, 'Elixir.Code':eval_string(base64:decode(\"{encoded}\"), [{{home, self()}}])).")

    async def run(self, code: str) -> str:
        """The same while this process's own nodes go on."""
        return await asyncio.get_running_loop().run_in_executor(None, self.eval_elixir, code)

    def compile(self, name: str) -> None:
        """Compile a file of ``tests/interop/elixir``."""
        self.eval(f"'Elixir.Code':compile_file(<<\"{SOURCES / name}\">>), ok.")
