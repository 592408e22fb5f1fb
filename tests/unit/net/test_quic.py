"""Connections, streams and messages between two transports over loopback."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest

from barrel_p2p.errors import ConfigError, EncodeError, NotConnected
from barrel_p2p.net.quic import NO_MESSAGE, CloseReason
from barrel_p2p.term.types import Atom
from quic_peers import CONTROL, LossyPath, Recorder, Site, identity, pair, sites


def test_the_dialer_gets_the_certificate_and_both_know_the_addresses() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            assert dialer.connection.certificate_der == identity()[0]
            assert acceptor.connection.certificate_der == identity()[0]
            assert dialer.connection.is_dialer and not acceptor.connection.is_dialer
            assert dialer.connection.peer_address == acceptor.connection.local_address
            assert dialer.connection.local_address[1] == acceptor.connection.peer_address[1]
            assert dialer.connection.setup_seconds > 0

    asyncio.run(scenario())


def test_handshake_streams_have_upstreams_numbers_and_carry_bytes_both_ways() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            assert dialer.connection.open_uni() == 2
            assert acceptor.connection.open_uni() == 3
            assert dialer.connection.open_bi() == 0
            dialer.connection.write(2, b"hello")
            dialer.connection.finish(2)
            acceptor.connection.write(3, b"welcome")
            dialer.connection.write(0, b"name")
            await acceptor.until(lambda: 2 in acceptor.finished and acceptor.streams.get(0) == b"name")
            assert acceptor.streams[2] == b"hello"
            acceptor.connection.write(0, b"status")
            await dialer.until(lambda: dialer.streams == {3: b"welcome", 0: b"status"})

    asyncio.run(scenario())


def test_a_burst_leaves_before_the_sender_lets_the_loop_turn() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            dialer.start()
            acceptor.start()
            queued = [dialer.connection.send(CONTROL, b"x" * 1000) for _ in range(200)]
            assert queued[0] < queued[1], "little waits for the end of the turn"
            assert max(queued) < 3 * 16 * 1024, "much does not"
            await acceptor.until_received(200)

    asyncio.run(scenario())


@pytest.mark.parametrize("fragments", [True, False])
def test_messages_arrive_in_order_and_none_is_not_no_message(fragments: bool) -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            dialer.start(fragments=fragments)
            acceptor.start(fragments=fragments)
            for n in range(3000):
                dialer.connection.send(CONTROL, n)
            dialer.connection.send(CONTROL, None)
            dialer.connection.send((5,))
            dialer.connection.send((5,), NO_MESSAGE)
            acceptor.connection.send(CONTROL, (Atom("back"), b"x" * 100_000))
            await acceptor.until(lambda: len(acceptor.received) == 3003)
            assert [message for _, message in acceptor.received[:3000]] == list(range(3000))
            assert acceptor.received[3000:] == [(CONTROL, None), ((5,), NO_MESSAGE), ((5,), NO_MESSAGE)]
            await dialer.until(lambda: dialer.received)
            assert dialer.received == [(CONTROL, ("back", b"x" * 100_000))]

    asyncio.run(scenario())


def test_a_message_of_16_mib() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            payload = bytes(range(256)) * (1 << 16)
            dialer.start().connection.send(CONTROL, payload)
            acceptor.start()
            await acceptor.until(lambda: acceptor.received)
            assert acceptor.received[0][1] == payload

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(3))
def test_a_path_that_drops_doubles_and_reorders(seed: int) -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            path = LossyPath(right.address, random.Random(seed))
            dialer = (await left.dial(await path.open())).start()
            acceptor = (await right.accepted.get()).start()
            for n in range(300):
                dialer.connection.send(CONTROL, (n, b"x" * (n * 37 % 30_000)))
                acceptor.connection.send(CONTROL, n)
                await asyncio.sleep(0)
            await acceptor.until(lambda: len(acceptor.received) == 300, 30)
            await dialer.until(lambda: len(dialer.received) == 300, 30)
            assert [message[0] for _, message in acceptor.received] == list(range(300))
            assert all(message[1] == b"x" * (message[0] * 37 % 30_000) for _, message in acceptor.received)
            assert [message for _, message in dialer.received] == list(range(300))
            assert path.dropped > 0
            path.transport.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("listen", "dial"), [("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1"), ("0.0.0.0", "")])
def test_other_addresses(listen: str, dial: str) -> None:
    async def scenario() -> None:
        right = await Site().listen(host=listen)
        left = Site()
        connection = await left.transport.dial(dial or "127.0.0.1", right.address[1], timeout=2)
        dialer = Recorder(connection).start()
        acceptor = (await right.accepted.get()).start()
        dialer.connection.send(CONTROL, 1)
        acceptor.connection.send(CONTROL, 2)
        await acceptor.until(lambda: acceptor.received)
        await dialer.until(lambda: dialer.received)
        await right.transport.close()
        await left.transport.close()

    asyncio.run(scenario())


def test_what_cannot_be_encoded_raises_and_leaves_no_trace() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            dialer.start()
            acceptor.start()
            dialer.connection.send(CONTROL, 1)
            with pytest.raises(EncodeError):
                dialer.connection.send(CONTROL, [b"x" * 1000, object()])
            dialer.connection.send(CONTROL, 2)
            await acceptor.until(lambda: len(acceptor.received) == 2)
            assert [message for _, message in acceptor.received] == [1, 2]

    asyncio.run(scenario())


def test_messages_that_overtake_start_dist_are_kept() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            dialer.start()
            for n in range(100):
                dialer.connection.send(CONTROL, n)
            await acceptor.connection.probe(1.0)  # they are there by now
            assert not acceptor.received and not acceptor.streams
            acceptor.start()
            await acceptor.until(lambda: len(acceptor.received) == 100)

    asyncio.run(scenario())


def test_send_before_start_dist_is_an_error_and_after_the_end_nothing() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            with pytest.raises(NotConnected):
                dialer.connection.send(CONTROL, 1)
            dialer.start()
            acceptor.connection.close(7, "enough")
            assert await dialer.end() == CloseReason("application", 7, "enough")
            assert dialer.connection.closed
            assert dialer.connection.send(CONTROL, 1) == 0
            assert dialer.connection.stats() == {} or dialer.connection.queued == 0
            assert acceptor.reason is None  # who closes is not told

    asyncio.run(scenario())


def test_what_was_sent_before_a_close_by_the_peer_is_delivered_first() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            dialer.start()
            acceptor.start()
            acceptor.connection.pause()
            for n in range(2000):
                dialer.connection.send(CONTROL, n)
            await dialer.connection.probe(1.0)  # all is there: it is less than what may be in flight
            assert not acceptor.received
            dialer.connection.close(0, "bye")
            await acceptor.end()
            assert [message for _, message in acceptor.received] == list(range(2000))

    asyncio.run(scenario())


def test_a_paused_receiver_fills_the_senders_queue_and_nothing_is_lost() -> None:
    async def scenario() -> None:
        async with pair(high_water=1 << 20) as (dialer, acceptor):
            dialer.start()
            acceptor.start().connection.pause()
            payload = b"x" * 10_000
            sent = queued = 0
            while queued < 16 << 20:
                queued = dialer.connection.send(CONTROL, (sent, payload))
                sent += 1
                if sent % 100 == 0:
                    await asyncio.sleep(0)
            # What the network took is bounded by the windows of both sides.
            assert sent * len(payload) - queued < 24 << 20
            before = dialer.writable_calls
            assert await dialer.connection.probe(2.0), "a paused peer is a live peer"
            assert dialer.connection.queued >= 8 << 20 and dialer.writable_calls == before
            acceptor.connection.resume()
            await dialer.until(lambda: dialer.writable_calls == before + 1)
            assert dialer.connection.queued <= 256 << 10
            await acceptor.until(lambda: len(acceptor.received) == sent, 30)
            assert [message[0] for _, message in acceptor.received] == list(range(sent))

    asyncio.run(scenario())


def test_two_senders_do_not_wait_for_a_third_connection_that_is_paused() -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            ends: list[tuple[Recorder, Recorder]] = []
            for _ in range(3):
                dialer = (await left.dial(right)).start()
                ends.append((dialer, (await right.accepted.get()).start()))
            ends[0][1].connection.pause()
            for dialer, _ in ends:
                for n in range(50):
                    dialer.connection.send(CONTROL, (n, b"x" * 500_000))
            for _, acceptor in ends[1:]:
                await acceptor.until(lambda a=acceptor: len(a.received) == 50)  # type: ignore[misc]
            assert not ends[0][1].received

    asyncio.run(scenario())


def test_a_batch_is_bounded_so_that_others_get_their_turn() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            sizes: list[int] = []

            class Counting(Recorder):
                def messages(self, batch: Any) -> None:
                    sizes.append(len(batch))
                    super().messages(batch)

            dialer.start()
            counting = Counting(acceptor.connection)
            for n in range(20_000):
                dialer.connection.send(CONTROL, n)
            await dialer.connection.probe(1.0)
            counting.start()
            await counting.until(lambda: len(counting.received) == 20_000)
            assert max(sizes) < 2000 and len(sizes) > 10

    asyncio.run(scenario())


def test_a_handler_that_raises_costs_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            good = (await left.dial(right)).start()
            good_end = (await right.accepted.get()).start()
            bad = (await left.dial(right)).start()
            bad_end = await right.accepted.get()

            def messages(batch: Any) -> None:
                raise RuntimeError("a bug")

            bad_end.messages = messages  # type: ignore[method-assign]
            bad_end.start()
            bad.connection.send(CONTROL, 1)
            assert (await bad.end()).text == "internal error"
            assert bad_end.reason == CloseReason("local", 0, "internal error"), "it would count on the connection"
            good.connection.send(CONTROL, 2)
            await good_end.until(lambda: good_end.received)

    asyncio.run(scenario())
    assert "a bug" in caplog.text


def test_nobody_listens() -> None:
    async def scenario() -> None:
        site = Site()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        async with asyncio.timeout(1):  # the kernel says so, nobody waits for the dial's timeout
            with pytest.raises(NotConnected, match="nobody listens"):
                await site.dial(port)
        await site.transport.close()

    asyncio.run(scenario())


def test_nobody_answers() -> None:
    async def scenario() -> None:
        site = Site()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            port = silent.getsockname()[1]
            with pytest.raises(NotConnected, match=r"no answer from 127.0.0.1:\d+ \(UDP\) within 0.3 s"):
                await site.transport.dial("127.0.0.1", port, timeout=0.3)
        await site.transport.close()

    asyncio.run(scenario())


def test_setups_that_cannot_work_say_what_to_do() -> None:
    async def scenario() -> None:
        site = await Site().listen()
        with pytest.raises(ConfigError, match=r"in use.*choose another listen_port") as in_use:
            await Site().listen(site.address[1])
        assert in_use.value.option == "listen_port"
        with pytest.raises(ConfigError, match=r"192\.0\.2\.1 is no address of this host"):
            await Site().transport.listen("192.0.2.1", 0)
        with pytest.raises(ConfigError, match="no IP address"):
            await Site().transport.listen("localhost", 0)
        with pytest.raises(ConfigError, match="there is no QUIC option ide_timeout_ms"):
            Site(ide_timeout_ms=1)
        with pytest.raises(ConfigError, match=r"certificate|key"):
            await Site(private_key=b"no key").listen()
        await site.transport.close()

    asyncio.run(scenario())


def test_closing_a_transport_tells_the_peers_and_frees_the_port() -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            dialer = await left.dial(right)
            await right.accepted.get()
            port = right.address[1]
            await right.transport.close("the node stops")
            assert await dialer.end(1) == CloseReason("application", 0, "the node stops")
            again = await Site().listen(port)
            await again.transport.close()
            await again.transport.close()  # idempotent

    asyncio.run(scenario())
