"""User streams of one connection, below the node: their preambles, their limits, and what a move does to them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from barrel_p2p.errors import (
    MigrationDisabled,
    MigrationError,
    MigrationTimeout,
    NotConnected,
    NotDialer,
    StreamError,
    StreamLost,
    StreamRefused,
)
from barrel_p2p.net.quic_stream import ByteStream
from quic_peers import CONTROL, LossyPath, Recorder, pair, sites

MiB = 1 << 20
Opened = asyncio.Queue[tuple[ByteStream, bytes]]


def take(recorder: Recorder) -> Opened:
    opened: Opened = asyncio.Queue()
    recorder.start().connection.on_stream = lambda stream, tag: opened.put_nowait((stream, tag))
    return opened


@contextlib.asynccontextmanager
async def two_ends(**options: Any) -> AsyncIterator[tuple[Recorder, Recorder, Opened]]:
    """A connection with the distribution started; the last is what the dialer opens."""
    async with pair(**options) as (dialer, acceptor):
        opened = take(acceptor)
        take(dialer)
        yield dialer, acceptor, opened


async def everything(stream: ByteStream) -> bytes:
    data = b""
    while piece := await stream.read():
        data += piece
    return data


def test_streams_begin_above_those_of_the_distribution() -> None:
    async def scenario() -> None:
        async with two_ends() as (dialer, acceptor, _):
            assert (await dialer.connection.open_stream()).id == 68
            assert (await acceptor.connection.open_stream()).id == 65

    asyncio.run(scenario())


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_a_preamble_in_any_pieces(step: int) -> None:
    async def scenario() -> None:
        async with two_ends() as (dialer, _, opened):
            stream = await dialer.connection.open_stream()
            data = b"\x05a tag" + b"payload"
            for start in range(0, len(data), step):
                await stream.write(data[start : start + step])
                await asyncio.sleep(0.002)
            theirs, tag = await opened.get()
            stream.finish()
            assert (tag, await everything(theirs)) == (b"a tag", b"payload")

    asyncio.run(scenario())


def test_a_preamble_that_does_not_come_to_its_end_in_time_is_refused() -> None:
    async def scenario() -> None:
        async with two_ends(preamble_timeout_ms=150) as (dialer, acceptor, opened):
            late, ends = await dialer.connection.open_stream(), await dialer.connection.open_stream()
            await late.write(b"\x05a t")
            await ends.write(b"\x05a t")
            ends.finish()
            for stream in (late, ends):
                with pytest.raises(StreamRefused):
                    await stream.read()
            assert acceptor.connection.stats()["preambles_unfinished"] == 2
            assert opened.empty() and acceptor.connection.stats()["streams"] == 0

    asyncio.run(scenario())


def test_more_unfinished_preambles_than_there_are_places_are_refused_and_whole_ones_need_none() -> None:
    async def scenario() -> None:
        async with two_ends(max_preambles=4) as (dialer, acceptor, opened):
            parked = [await dialer.connection.open_stream() for _ in range(5)]
            for stream in parked:
                await stream.write(b"\x05a")
            with pytest.raises(StreamRefused):
                await parked[4].read()
            assert acceptor.connection.stats()["preambles_crowded"] == 1
            whole = await dialer.connection.open_stream()
            await whole.write(b"\x05wholexyz")
            assert (await opened.get())[1] == b"whole"
            await parked[0].write(b" tag")
            assert (await opened.get())[1] == b"a tag"

    asyncio.run(scenario())


def test_who_opens_more_than_the_peer_allows_waits_for_room() -> None:
    async def scenario() -> None:
        async with two_ends(max_bidi_streams=20) as (dialer, _, opened):
            streams = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    while True:
                        streams.append(await dialer.connection.open_stream())
                        await streams[-1].write(b"\x01t")
            assert 0 < len(streams) <= 20
            waiting = asyncio.create_task(dialer.connection.open_stream())
            for stream in streams[:3]:  # QUIC gives new credit in steps of an eighth
                theirs, _ = await opened.get()
                stream.finish()
                theirs.finish()
                assert await everything(theirs) == await everything(stream) == b""
            async with asyncio.timeout(5):
                assert (await waiting).id > streams[-1].id

    asyncio.run(scenario())


def test_streams_and_messages_over_a_path_that_drops_doubles_and_reorders() -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            path = LossyPath(right.address, random.Random(7))
            dialer = await left.dial(await path.open())
            acceptor = await right.accepted.get()
            opened = take(acceptor)
            dialer.start()
            sent = random.Random(1).randbytes(3 * MiB)
            streams = [await dialer.connection.open_stream() for _ in range(3)]

            async def pour(stream: ByteStream) -> None:
                await stream.write(b"\x01t" + sent)
                stream.finish()
                await stream.acknowledged()

            pouring = [asyncio.create_task(pour(stream)) for stream in streams]
            for number in range(200):
                dialer.connection.send(CONTROL, number)
                await asyncio.sleep(0.001)
            theirs = [(await opened.get())[0] for _ in streams]
            assert await asyncio.gather(*(everything(stream) for stream in theirs)) == [sent] * 3
            await asyncio.gather(*pouring)
            await acceptor.until_received(200)
            assert [number for _, number in acceptor.received] == list(range(200))
            assert path.dropped > 0
            path.transport.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_the_end_of_the_connection_ends_what_waits_on_its_streams() -> None:
    async def scenario() -> None:
        async with two_ends() as (dialer, acceptor, opened):
            stream = await dialer.connection.open_stream()
            await stream.write(b"\x01tand what was under way")
            theirs, _ = await opened.get()
            reading = asyncio.create_task(stream.read())
            with pytest.raises(StreamError, match="another task"):
                await asyncio.sleep(0.01)
                await stream.read()

            async def pour() -> None:
                while True:
                    await theirs.write(bytes(MiB))

            pouring = asyncio.create_task(pour())
            await asyncio.sleep(0.2)
            assert (await reading) == bytes(len(await reading))
            dialer.connection.close(0, "enough")
            with pytest.raises(StreamLost):
                await stream.write(b"x")
            with pytest.raises(StreamLost):
                await pouring
            assert await theirs.read() == b"and what was under way"
            with pytest.raises(StreamLost, match="enough"):
                await theirs.read()
            with pytest.raises(StreamLost):
                await dialer.connection.open_stream()
            assert (await acceptor.end()).text == "enough"

    asyncio.run(scenario())


# --- moving -----------------------------------------------------------------------------------------------------------


def test_a_move_to_a_path_that_leads_nowhere_goes_back() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
            hole.bind(("127.0.0.1", 0))
            async with two_ends() as (dialer, acceptor, _):
                before = dialer.connection.local_address
                with pytest.raises(MigrationTimeout):
                    await dialer.connection.migrate(0.3, to=hole.getsockname())
                assert dialer.connection.local_address == before
                for number in range(10):
                    dialer.connection.send(CONTROL, number)
                    acceptor.connection.send(CONTROL, number)
                await dialer.until_received(10)
                await acceptor.until_received(10)
                await dialer.connection.migrate(5.0, to=acceptor.connection.local_address)
                assert dialer.connection.stats()["migrations"] == 1

    asyncio.run(scenario())


def test_a_peer_that_forbids_it_and_the_wrong_side() -> None:
    async def scenario() -> None:
        async with two_ends(refuse_migration=1) as (dialer, acceptor, _):
            with pytest.raises(MigrationDisabled):
                await dialer.connection.migrate(1.0)
            with pytest.raises(NotDialer):
                await acceptor.connection.migrate(1.0)
            moving = dialer.connection.local_address
            dialer.connection.close(0, "")
            with pytest.raises(NotConnected):
                await dialer.connection.migrate(1.0)
            assert moving

    asyncio.run(scenario())


def test_one_move_at_a_time_and_a_connection_that_ends_meanwhile() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
            hole.bind(("127.0.0.1", 0))
            async with two_ends() as (dialer, acceptor, _):
                moving = asyncio.create_task(dialer.connection.migrate(5.0, to=hole.getsockname()))
                await asyncio.sleep(0.05)
                with pytest.raises(MigrationError, match="already"):
                    await dialer.connection.migrate(5.0)
                acceptor.connection.close(0, "gone")
                with pytest.raises(NotConnected):
                    await moving

    asyncio.run(scenario())


def test_a_socket_of_the_callers_is_used_and_stays_theirs() -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
                mine.bind(("127.0.0.1", 0))
                host, port = right.address
                connection = await left.transport.dial(host, port, timeout=5.0, fd=mine.fileno())
                dialer, acceptor = Recorder(connection).start(), (await right.accepted.get()).start()
                assert acceptor.connection.peer_address == mine.getsockname()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
                another.bind(("127.0.0.1", 0))
                await connection.migrate(5.0, fd=another.fileno())
                assert acceptor.connection.peer_address == another.getsockname()
            dialer.connection.send(CONTROL, 1)
            await acceptor.until_received(1)
            with pytest.raises(NotConnected):
                await left.transport.dial(host, port, timeout=5.0, fd=987_654)

    asyncio.run(scenario())


def test_sockets_that_were_left_are_closed() -> None:
    async def scenario() -> None:
        async with two_ends(linger_ms=50) as (dialer, _, _opened):
            fds = dialer.connection._transport._fds
            before = len(fds)
            for _ in range(30):
                await dialer.connection.migrate(5.0)
            async with asyncio.timeout(5):
                while len(fds) > before:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.02)
            for _ in range(5):
                await dialer.connection.migrate(5.0)
            dialer.connection.close(0, "")
            async with asyncio.timeout(5):
                while len(fds) > before - 1:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.02)

    asyncio.run(scenario())


class Rebinding(LossyPath):
    """A NAT that gives its dialer another port now and then."""

    def __init__(self, target: tuple[str, int]) -> None:
        super().__init__(target, random.Random(0))
        self.outer: asyncio.DatagramTransport | None = None

    async def rebind(self) -> None:
        path = self

        class Outer(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
                assert path._dialer is not None
                path.transport.sendto(data, path._dialer)

        outer, _ = await asyncio.get_running_loop().create_datagram_endpoint(Outer, local_addr=("127.0.0.1", 0))
        if self.outer is not None:
            self.outer.close()
        self.outer = outer

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        self._dialer = sender
        assert self.outer is not None
        self.outer.sendto(data, self._target)


def test_a_nat_that_changes_its_port_is_followed_and_counted() -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            nat = Rebinding(right.address)
            await nat.rebind()
            dialer = (await left.dial(await nat.open())).start()
            acceptor = (await right.accepted.get()).start()
            for number in range(1, 6):
                await nat.rebind()
                dialer.connection.send(CONTROL, number)
                await acceptor.until_received(number)
                acceptor.connection.send(CONTROL, number)
                await dialer.until_received(number)
                assert nat.outer is not None
                assert acceptor.connection.peer_address == nat.outer.get_extra_info("sockname")
            assert acceptor.connection.stats()["migrations"] == 5
            assert dialer.connection.stats()["migrations"] == 0, "it can't know"
            nat.transport.close()
            nat.outer.close()

    asyncio.run(scenario())


def test_relays_are_swapped_without_the_peer_being_asked() -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            first, second = Rebinding(right.address), Rebinding(right.address)
            ports = []
            for relay in (first, second):
                await relay.rebind()
                ports.append(await relay.open())
            dialer = (await left.dial(ports[0])).start()
            acceptor = (await right.accepted.get()).start()
            for turn in range(1, 7):
                relay = (first, second)[turn % 2]
                await dialer.connection.migrate(5.0, to=("127.0.0.1", ports[turn % 2]))
                assert relay.outer is not None
                assert acceptor.connection.peer_address == relay.outer.get_extra_info("sockname")
                dialer.connection.send(CONTROL, turn)
                await acceptor.until_received(turn)
            for relay in (first, second):
                relay.transport.close()
                assert relay.outer is not None
                relay.outer.close()

    asyncio.run(scenario())
