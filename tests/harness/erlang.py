"""Real Erlang nodes for tests: an epmd of one's own, and ``erl`` that evaluates what the test asks.

::

    with Epmd() as epmd, Erlang(epmd, "erl") as erlang:
        assert erlang.eval("1 + 1.") == "2"
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

COOKIE = "interop-cookie"
HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds for one answer of a node on a busy machine

# Reads one line of expressions after the other, evaluates it in one process, and prints its value on one line.
LOOP = """
Loop = fun Loop(Bindings) ->
  case io:get_line("") of
    eof -> erlang:halt(0);
    Line ->
      Next = try
        {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Line)),
        {ok, Exprs} = erl_parse:parse_exprs(Tokens),
        {value, Value, New} = erl_eval:exprs(Exprs, Bindings),
        io:format("= ~0tp~n", [Value]),
        New
      catch C:R -> io:format("! ~0tp~n", [{C, R}]), Bindings end,
      Loop(Next)
  end end,
io:setopts([{encoding, unicode}]),
io:format("ready~n"), Loop([]).
"""


def tool(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} is missing: these tests need Erlang (apt-get install erlang-base)"
    return path


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Epmd:
    """A port mapper of our own, so that no daemon stays behind and no other node is in the way.

    Args:
        host: The address of its host, which the names of its nodes have.
        inside: The command in front of every program that runs on that host (see ``harness.wire``).
        port: All hosts of a cluster have the same one.
    """

    def __init__(self, host: str = HOST, inside: Sequence[str] = (), port: int | None = None) -> None:
        self.host = host
        self.inside = list(inside)
        self.port = port or free_port()
        self.environment = {
            **os.environ,
            "ERL_EPMD_PORT": str(self.port),
            "ERL_EPMD_ADDRESS": host,
            "ERL_CRASH_DUMP_SECONDS": "0",  # a node that crashes on purpose leaves no file behind
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        epmd = [*self.inside, tool("epmd"), "-port", str(self.port)]
        self.process = subprocess.Popen([*epmd, "-address", self.host])  # it listens on 127.0.0.1, too
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([*epmd, "-names"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            assert time.monotonic() < deadline, "epmd does not start"
            time.sleep(0.01)  # nothing to await: epmd tells nobody when it listens

    def port_of(self, alive: str) -> int:
        """PORT_PLEASE2_REQ: where a node listens."""
        with self._open() as epmd:
            epmd.sendall((len(alive) + 1).to_bytes(2, "big") + b"z" + alive.encode())
            reply = epmd.recv(1024)
        assert reply[:2] == b"w\0", f"epmd does not know {alive}"
        return int.from_bytes(reply[2:4], "big")

    def register(self, alive: str, port: int) -> socket.socket:
        """ALIVE2_REQ: make a node known as long as the socket is open."""
        name = alive.encode()
        body = b"x" + port.to_bytes(2, "big") + b"M\0\0\x06\0\x06" + len(name).to_bytes(2, "big") + name + b"\0\0"
        epmd = self._open()
        epmd.sendall(len(body).to_bytes(2, "big") + body)
        assert epmd.recv(16)[1] == 0, f"epmd does not take {alive}"
        return epmd

    def _open(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def end_daemon(self) -> None:
        """End an epmd that somebody else started on our port; it refuses as long as nodes are registered."""
        subprocess.run([tool("epmd"), "-port", str(self.port), "-kill"], check=True, stdout=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Erlang:
    """An ``erl`` node. ``eval`` runs in one process of it, which keeps its variables and its mailbox.

    Args:
        flags: More words of its command line.
        short: Give it a short name, ``alive@localhost``.
    """

    def __init__(self, epmd: Epmd, alive: str, *flags: str, cookie: str = COOKIE, short: bool = False) -> None:
        self.name = f"{alive}@{'localhost' if short else epmd.host}"
        interface = "{" + epmd.host.replace(".", ",") + "}"
        options = ["-noshell", "-sname" if short else "-name", self.name, "-setcookie", cookie, "-start_epmd", "false"]
        options += ["-kernel", "inet_dist_use_interface", interface, "-kernel", "logger_level", "error"]
        self.process = subprocess.Popen(
            [*epmd.inside, tool("erl"), *options, *flags, "-eval", LOOP.replace("\n", " ")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=epmd.environment,
        )
        self.log: list[str] = []
        assert self._line() == "ready"

    def eval(self, expressions: str) -> str:
        """The value of the expressions, as ``~0tp`` prints it; AssertionError if they raise."""
        self.send(expressions)
        return self.answer()

    async def ask(self, expressions: str) -> str:
        """The same while this process's own nodes go on."""
        return await asyncio.get_running_loop().run_in_executor(None, self.eval, expressions)

    def send(self, expressions: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(expressions.split()).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        while True:
            line = self._line()
            if line.startswith("= "):
                return line[2:]
            assert not line.startswith("! "), line
            self.log.append(line)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.name} ended: {self.log}"
        return line.decode().rstrip("\n")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
