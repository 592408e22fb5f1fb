"""epmd, Erlang's port mapper: where a node listens, and making this one known (erl_dist_protocol, "EPMD").

epmd runs once per host, on port 4369 or ``ERL_EPMD_PORT``. A node is registered for as long as its connection to the
epmd of its own host is open. When epmd goes away the node lives on, unknown to newcomers, and registers again once epmd
is back; the creation stays what it was, as live connections and pids hold it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import shutil
from collections.abc import Awaitable, Callable

from barrel_p2p.errors import ConfigError, NotConnected
from barrel_p2p.net.discovery import RESOLVE_TIMEOUT, Address
from barrel_p2p.net.dns import resolve_host
from barrel_p2p.shown import printable
from barrel_p2p.term.types import Atom

log = logging.getLogger("barrel_p2p.epmd")

DEFAULT_PORT = 4369
OWN_HOST = "127.0.0.1"  # a node registers with the epmd of its own host, as OTP does
RETRY_SECONDS = (0.25, 5.0)  # first and longest pause between attempts to register again; a guess
START_SECONDS = 5.0  # for an epmd that we started to listen; a guess
MAX_ANSWER = 64 << 10  # bytes of one answer; a list of names is the longest

_ALIVE2_REQ = b"x"
_PORT_PLEASE2_REQ = b"z"
_NAMES_REQ = b"n"
_ALIVE2_RESP, _ALIVE2_X_RESP, _PORT2_RESP = ord("y"), ord("v"), ord("w")
_TCP_IPV4 = 0
_VERSION = 6  # of the distribution; highest and lowest are the same since OTP 25
_NORMAL, _HIDDEN = 77, 72

Resolver = Callable[[str], Awaitable[list[str]]]


class Epmd:
    """Asks the epmd of any host.

    Args:
        port: Its TCP port; None: ``ERL_EPMD_PORT`` of the environment, or 4369.
        timeout: Seconds for each question.
        resolve: From a host name to addresses; by default the system's resolver.
    """

    def __init__(self, port: int | None = None, *, timeout: float = 7.0, resolve: Resolver = resolve_host) -> None:
        self.port = port or _port_of_environment()
        self.timeout = timeout
        self._resolve = resolve

    async def lookup(self, alive: str, host: str) -> list[Address]:
        """The addresses on which the node ``alive@host`` listens.

        Raises:
            NotConnected: The host does not resolve, no epmd answers there, or it does not know the node.
        """
        failures = []
        for address, _ in await self.resolve(host, self.port):
            try:
                port = await self._port_please(alive, address)
            except (OSError, NotConnected) as error:
                failures.append(f"no epmd answers at {address}:{self.port} ({_why(error)})")
                continue
            if port is None:
                raise NotConnected(
                    f"epmd at {address}:{self.port} does not know {alive}: no such node runs on {host}",
                    "unknown_address",
                )
            return [(address, port)]
        raise NotConnected(f"{alive}@{host}: {'; '.join(failures)}", "no_answer")

    async def names(self, host: str) -> dict[str, int]:
        """The nodes that the epmd of a host knows, and their ports.

        Raises:
            NotConnected: The host does not resolve, or no epmd answers there.
        """
        address = (await self.resolve(host, self.port))[0][0]
        try:
            answer = await self._ask(address, _NAMES_REQ)
        except OSError as error:
            raise NotConnected(f"no epmd answers at {address}:{self.port} ({_why(error)})", "no_answer") from error
        found = {}
        for line in answer[4:].decode("utf-8", "replace").splitlines():
            words = line.split()  # name NAME at port PORT
            if len(words) == 5 and words[0] == "name" and words[4].isdecimal() and len(words[4]) <= 5:
                found[printable(words[1])] = int(words[4])
        return found

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, with a port. Raises NotConnected if there are none."""
        with contextlib.suppress(ValueError):
            return [(str(ipaddress.ip_address(host)), port)]
        try:
            found = await asyncio.wait_for(self._resolve(host), RESOLVE_TIMEOUT)
        except (OSError, UnicodeError):  # TimeoutError is an OSError
            found = []
        if not found:
            raise NotConnected(f"the host name {host} does not resolve", "unknown_address")
        return [(address, port) for address in found]

    async def _port_please(self, alive: str, address: str) -> int | None:
        answer = await self._ask(address, _PORT_PLEASE2_REQ + alive.encode("utf-8"))
        if len(answer) >= 2 and answer[0] == _PORT2_RESP and answer[1] != 0:
            return None
        if len(answer) < 4 or answer[0] != _PORT2_RESP:
            raise NotConnected(f"what answers is no epmd: {answer[:20]!r}")
        return int.from_bytes(answer[2:4], "big")

    async def _ask(self, address: str, request: bytes) -> bytes:
        async with asyncio.timeout(self.timeout):
            reader, writer = await asyncio.open_connection(address, self.port)
            try:
                writer.write(_framed(request))
                answer = bytearray()
                while len(answer) < MAX_ANSWER and (more := await reader.read(4096)):
                    answer += more
                return bytes(answer)
            finally:
                writer.close()


class Registration:
    """Keeps this node known to the epmd of its host.

    Args:
        epmd: Says which port epmd has.
        name: Our node name.
        port: The TCP port that the node listens on.
        hidden: Register as a hidden node.
        start: Start an epmd if none answers.
    """

    def __init__(self, epmd: Epmd, name: Atom, port: int, *, hidden: bool, start: bool) -> None:
        self._epmd = epmd
        self._alive = name.partition("@")[0]
        self._port = port
        self._type = _HIDDEN if hidden else _NORMAL
        self._start = start
        self._writer: asyncio.StreamWriter | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def registered(self) -> bool:
        """Whether epmd knows this node right now."""
        return self._writer is not None

    async def open(self) -> int:
        """Register; returns the creation that epmd gave.

        Raises:
            NotConnected: No epmd answers; says what to do.
            ConfigError: The name is taken on this host.
        """
        where = f"{OWN_HOST}:{self._epmd.port}"
        try:
            reader, creation = await self._register()
        except OSError as error:
            if not self._start:
                raise NotConnected(
                    f"no epmd answers at {where} ({_why(error)}): start one with `epmd -daemon`, or pass "
                    "start_epmd=True; ERL_EPMD_PORT and epmd_port= name another port",
                    "no_epmd",
                ) from error
            reader, creation = await self._start_and_register()
        self._keeper = asyncio.get_running_loop().create_task(self._keep(reader))
        return creation

    async def close(self) -> None:
        """Take the registration back. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        self._drop()

    async def _register(self) -> tuple[asyncio.StreamReader, int]:
        async with asyncio.timeout(self._epmd.timeout):
            reader, writer = await asyncio.open_connection(OWN_HOST, self._epmd.port)
            try:
                writer.write(_framed(self._request()))
                head = await reader.readexactly(2)
                if head[0] not in (_ALIVE2_RESP, _ALIVE2_X_RESP):
                    raise NotConnected(f"what answers at {OWN_HOST}:{self._epmd.port} is no epmd: {head!r}", "no_epmd")
                if head[1] != 0:
                    raise ConfigError(
                        f"epmd on this host already knows a node {self._alive}; choose another name, or stop that node"
                    )
                creation = int.from_bytes(await reader.readexactly(4 if head[0] == _ALIVE2_X_RESP else 2), "big")
            except asyncio.IncompleteReadError:
                writer.close()
                raise ConnectionResetError("it closed the connection without an answer") from None
            except BaseException:
                writer.close()
                raise
        self._writer = writer
        return reader, creation

    def _request(self) -> bytes:
        alive = self._alive.encode("utf-8")
        numbers = (self._port, 2), (self._type, 1), (_TCP_IPV4, 1), (_VERSION, 2), (_VERSION, 2), (len(alive), 2)
        return _ALIVE2_REQ + b"".join(n.to_bytes(size, "big") for n, size in numbers) + alive + bytes(2)

    async def _start_and_register(self) -> tuple[asyncio.StreamReader, int]:
        program = shutil.which("epmd")
        if program is None:
            raise NotConnected("no epmd answers, and there is none to start: install erlang-base", "no_epmd")
        log.info("starting %s on port %d", program, self._epmd.port)
        process = await asyncio.create_subprocess_exec(program, "-daemon", "-port", str(self._epmd.port))
        await process.wait()
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while True:
            try:
                return await self._register()
            except OSError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise NotConnected(f"{program} was started but does not answer: {error}", "no_epmd") from error
                await asyncio.sleep(0.02)  # it tells nobody when it listens

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        """Wait for the end of the registration, then register anew until it works, for ever."""
        while True:
            with contextlib.suppress(OSError):
                while await reader.read(4096):
                    pass
            self._drop()
            log.warning("epmd is gone: newcomers can't find %s until it is back; connections live on", self._alive)
            pause, longest = RETRY_SECONDS
            told = False
            while True:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                try:
                    reader, _ = await self._register()
                    break
                except (ConfigError, NotConnected) as error:  # somebody took the name meanwhile, or the port
                    if not told:
                        log.error("can't register with epmd again: %s; it is tried on", error)
                        told = True
                except OSError as error:
                    log.debug("epmd is still gone: %s", error)
            log.info("epmd knows %s again", self._alive)

    def _drop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def _framed(request: bytes) -> bytes:
    return len(request).to_bytes(2, "big") + request


def _port_of_environment() -> int:
    text = os.environ.get("ERL_EPMD_PORT", "")
    if not text:
        return DEFAULT_PORT
    if text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    raise ConfigError(f"ERL_EPMD_PORT={text!r} is no port", "epmd_port")


__all__ = ["DEFAULT_PORT", "Epmd", "Registration"]
