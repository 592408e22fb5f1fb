"""epmd that is absent, gone, silent or something else; names it does not know, or knows already."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import ConfigError, Node, NotConnected
from barrel_p2p.net.epmd import Epmd as Mapper
from harness.erlang import COOKIE, Epmd, free_port
from harness.tcp_peer import node


def run(story: Callable[[Node], Awaitable[None]], epmd: Epmd, directory: Path, **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), node(epmd, directory, **options) as py:
            await story(py)

    asyncio.run(main())


# --- absent, gone, back -----------------------------------------------------------------------------------------------


def test_without_epmd_the_node_says_what_to_do(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(NotConnected, match="epmd -daemon") as failure:
            await Node(
                "py@127.0.0.1", proto_dist="inet_tcp", cookie=COOKIE, epmd_port=free_port(), data_dir=tmp_path
            ).start()
        assert failure.value.reason == "no_epmd"

    asyncio.run(main())


def test_epmd_can_be_started(tmp_path: Path) -> None:
    port = free_port()

    async def main() -> None:
        options = {"cookie": COOKIE, "epmd_port": port, "start_epmd": True}
        async with Node("py@127.0.0.1", proto_dist="inet_tcp", data_dir=tmp_path, **options):
            pass

    mapper = Epmd()
    mapper.port = port
    try:
        asyncio.run(main())
    finally:
        mapper.end_daemon()


def test_epmd_goes_away_and_comes_back(epmd: Epmd, tmp_path: Path) -> None:
    mapper = Epmd()
    mapper.start()

    async def main() -> None:
        async with node(mapper, tmp_path, "a@127.0.0.1") as a, node(mapper, tmp_path, "b@127.0.0.1") as b:
            await b.connect(a.name)
            mapper.kill()
            assert await b.ping(a.name)  # what is connected stays so
            b.disconnect(a.name)
            with pytest.raises(NotConnected, match="no epmd answers"):
                await b.connect(a.name)
            mapper.start()
            async with asyncio.timeout(20):
                while True:
                    try:
                        await b.connect(a.name)
                        break
                    except NotConnected:
                        await asyncio.sleep(0.05)  # until a has registered again

    try:
        asyncio.run(main())
    finally:
        mapper.kill()


def test_names_that_are_taken_unknown_or_of_the_other_kind(epmd: Epmd, tmp_path: Path) -> None:
    async def story(py: Node) -> None:
        with pytest.raises(ConfigError, match="already knows a node py"):
            await node(epmd, tmp_path / "second").start()
        with pytest.raises(NotConnected, match="does not know nobody"):
            await py.connect("nobody@127.0.0.1")
        with pytest.raises(NotConnected, match="short name") as failure:
            await py.connect("erl@localhost")
        assert failure.value.reason == "name_form"
        with pytest.raises(NotConnected, match="does not resolve"):
            await py.connect("erl@no-such-host.invalid")

    run(story, epmd, tmp_path)


def test_the_public_default_cookie_is_refused(epmd: Epmd, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="cookie"):
            await Node("py@127.0.0.1", proto_dist="inet_tcp", epmd_port=epmd.port, data_dir=tmp_path).start()

    asyncio.run(main())


# --- what answers on epmd's port is no epmd, or a bad one -------------------------------------------------------------

LOOKUP, REGISTRATION, NAMES = b"z", b"x", b"n"


class FalseEpmd:
    """Answers registrations as epmd does, and questions with ``answer``; None: never."""

    def __init__(
        self,
        answer: bytes | None,
        registration: bytes | None = b"v\0\0\0\0\x07",
        *,
        endless: bool = False,
        names: bytes = b"",
    ) -> None:
        self._answers = {LOOKUP: answer, REGISTRATION: registration, NAMES: names}
        self._endless = endless
        self.taken = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            answer = self._answers[request[:1]]
            if answer is not None:
                writer.write(answer)
            while self._endless and request[:1] == LOOKUP:
                writer.write(b"w" * 4096)
                await writer.drain()
                self.taken += 4096
            if answer is None or request[:1] == REGISTRATION:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def __aenter__(self) -> FalseEpmd:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "no epmd"),
        (b"w", "no epmd"),
        (b"w\0\x12", "no epmd"),
        (b"HTTP/1.1 400 Bad Request\r\n", "no epmd"),
        (None, "no epmd answers"),
        (b"w\x01", "does not know bob"),
        (b"w\0\0\0", "can't dial"),
        (b"w\0\0\x09" + bytes(60), "nobody listens there"),
    ],
)
def test_a_bad_answer_to_a_question_is_told(tmp_path: Path, answer: bytes | None, text: str) -> None:
    async def main() -> None:
        async with FalseEpmd(answer) as epmd, node(epmd, tmp_path, setup_timeout_ms=400) as py:  # type: ignore[arg-type]
            started = time.monotonic()
            with pytest.raises(NotConnected, match=text):
                await py.connect("bob@127.0.0.1")
            assert time.monotonic() - started < 2

    asyncio.run(main())


def test_names_and_ports_of_a_false_epmd_are_not_believed() -> None:
    odd = ["name x\x1b[2J\x9b at port 1", "name y at port \u00b2", "name z at port 9" + 5000 * "9"]
    lines = ["name bob at port 4321", *odd]

    async def main() -> None:
        async with FalseEpmd(b"", names=b"\0\0\x11\x11" + "\n".join(lines).encode()) as epmd:
            assert await Mapper(epmd.port).names("127.0.0.1") == {"bob": 4321, "x\\x1b[2J\\x9b": 1}

    asyncio.run(main())


def test_an_answer_without_end_is_cut(tmp_path: Path) -> None:
    async def main() -> None:
        async with FalseEpmd(b"x", endless=True) as epmd, node(epmd, tmp_path) as py:  # type: ignore[arg-type]
            with pytest.raises(NotConnected, match="no epmd"):
                await py.connect("bob@127.0.0.1")
            assert epmd.taken < 16 << 20, "what the kernel buffers, and no more"

    asyncio.run(main())


@pytest.mark.parametrize("registration", [None, b"", b"v", b"v\0\0", b"HTTP/1.1 400 Bad Request\r\n"])
def test_a_bad_answer_to_the_registration_ends_the_start(tmp_path: Path, registration: bytes | None) -> None:
    async def main() -> None:
        async with FalseEpmd(b"", registration) as epmd:
            started = time.monotonic()
            with pytest.raises(NotConnected, match=r"no epmd|epmd answers") as failure:
                await node(epmd, tmp_path, setup_timeout_ms=400).start()  # type: ignore[arg-type]
            assert failure.value.reason == "no_epmd" and time.monotonic() - started < 2

    asyncio.run(main())
