"""Peers that break the rules: each costs its own connection only, and the reason says what was wrong."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamReset
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from barrel_p2p.errors import NotConnected
from foreign.initials import Hello, fresh_id, retry_of
from quic_peers import CONTROL, Site, identity, pair, sites

HELLO = Hello()
CLIENT = QuicConfiguration(alpn_protocols=["erlang-dist"], verify_mode=0)


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


TEXT = Path(__file__).read_bytes()
GOOD = frame(bytes([131, 68, 0, 104, 1, 97, 5]))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(b"\x83\x44\x00\x68\x02\x61"), "can't be decoded"),
        (frame(b"\x83\x44\x00" + b"l\x00\x00\x00\x01" * 10_000), "can't be decoded"),
        (frame(b"\x83\x44\x00\x68\x01\x61\x01\x61\x02\x61\x03"), "2 bytes after the message"),
        (frame(b"\x83\x44\x00\x61\x01\x61\x02"), "no tuple"),
        (frame(b"\x83\x44\x00\x68\x00"), "no tuple"),
        (frame(b"\x83\x44\x01\x61\x01"), "atom cache"),
        (frame(b"p\x83\x61\x01"), "headers were negotiated"),
        (frame(b"GET / HTTP/1.1"), "unknown frame header"),
        (b"GET / HTTP/1.1\r\n", "more than the"),
        (frame(b"\x83\x46" + bytes(16)), "unknown sequence"),
        (frame(b"\x83\x45" + bytes(7)), "cut off"),
    ],
)
def test_bytes_that_are_no_message(data: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            bystander, bad = await left.dial(right), await left.dial(right)
            bystander_end, bad_end = await right.accepted.get(), await right.accepted.get()
            for recorder in (bystander, bystander_end, bad_end):
                recorder.start(max_frame=100_000)
            bad.write_raw(4, GOOD + GOOD + data)
            ended = await bad_end.end()
            assert ended.kind == "protocol" and reason in ended.text
            assert [control for control, _ in bad_end.received] == [(5,), (5,)], "what came before is good"
            told = await bad.end()
            assert told.kind == "application" and reason in told.text
            bystander.connection.send(CONTROL, "still here")
            await bystander_end.until(lambda: bystander_end.received)

    asyncio.run(scenario())


def test_messages_on_any_low_stream_ticks_everywhere_and_ends_of_streams() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            acceptor.start()
            dialer.connection.open_bi()
            dialer.connection.write(0, bytes(4) + b"not a tick, dropped")
            dialer.write_raw(8, bytes(4) + GOOD + bytes(8) + GOOD[:3])
            dialer.write_raw(12, GOOD, fin=True)
            dialer.connection.write(8, GOOD[3:])
            await acceptor.until(lambda: len(acceptor.received) == 3)
            dialer.connection.write(8, GOOD)
            await acceptor.until(lambda: len(acceptor.received) == 4)
            assert acceptor.reason is None

    asyncio.run(scenario())


def test_fragments_of_a_large_message_interleaved_with_another() -> None:
    def fragment(tag: int, sequence: int, number: int, body: bytes) -> bytes:
        atoms = b"\0" if tag == 69 else b""
        return frame(bytes([131, tag]) + struct.pack(">QQ", sequence, number) + atoms + body)

    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            acceptor.start()
            control = bytes([104, 1, 97, 5])
            term = b"m" + struct.pack(">I", 100_000) + b"x" * 100_000
            dialer.write_raw(4, fragment(69, 9, 3, control + term[:40_000]) + fragment(69, 8, 2, control))
            dialer.connection.write(4, fragment(70, 9, 2, term[40_000:80_000]) + fragment(70, 8, 1, b"\x61\x07"))
            dialer.connection.write(4, fragment(70, 9, 1, term[80_000:]))
            await acceptor.until(lambda: len(acceptor.received) == 2)
            assert acceptor.received == [((5,), 7), ((5,), b"x" * 100_000)]

    asyncio.run(scenario())


def test_a_stranger_may_not_send_much_before_it_is_known() -> None:
    async def scenario() -> None:
        async with pair() as (dialer, acceptor):
            dialer.connection.open_uni()
            dialer.connection.write(2, b"x" * 100_000)
            ended = await acceptor.end()
            assert ended.kind == "protocol" and "before the distribution started" in ended.text
            assert len(acceptor.streams.get(2, b"")) <= 64 << 10

    asyncio.run(scenario())


def test_strangers_are_counted() -> None:
    async def scenario() -> None:
        async with sites(max_unauthenticated=4) as (left, right):
            for _ in range(4):  # the last two are asked to prove their address first
                await left.dial(right)
            with pytest.raises(NotConnected, match="too many handshakes"):
                await left.dial(right)
            (await right.accepted.get()).start()  # one of them is known now
            await left.dial(right)

    asyncio.run(scenario())


def test_a_dialer_that_stalls_its_handshake_is_dropped() -> None:
    async def scenario() -> None:
        site = await Site(handshake_timeout_ms=300, max_unauthenticated=1).listen()
        with dialer("127.9.0.1") as stalled:  # asked to prove its address, it does, and says no more
            stalled.sendto(HELLO.initial(fresh_id()), site.address)
            retry = await until_retry(stalled)
            stalled.sendto(HELLO.initial(*retry), site.address)
            async with asyncio.timeout(5):
                while not site.transport.strangers():  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.005)
            await refused_then_admitted(site)
        await site.transport.close()

    async def refused_then_admitted(site: Site) -> None:
        refusals = 0
        async with asyncio.timeout(5):
            while True:
                try:
                    await site.dial(site)
                    break
                except NotConnected as refused:
                    assert "too many" in str(refused)
                    refusals += 1
        assert refusals and site.transport.turned_away()["refused_load"] == refusals

    asyncio.run(scenario())


def test_who_has_not_proven_its_address_gives_way_to_who_has() -> None:
    async def scenario() -> None:
        site = await Site(max_unauthenticated=2).listen()
        with dialer("127.9.0.1") as forged:
            forged.sendto(HELLO.initial(fresh_id()), site.address)
            await site.dial(site)
            assert site.transport.strangers() == 2
            await site.dial(site)
            assert site.transport.strangers() == 2 and site.transport.turned_away()["gave_way"] == 1
            with pytest.raises(NotConnected, match="too many handshakes"):
                await site.dial(site)
        await site.transport.close()

    asyncio.run(scenario())


def test_who_ends_its_connection_at_once_leaves_its_place() -> None:
    async def scenario() -> None:
        site = await Site(max_unauthenticated=1000, handshakes_per_second=1000).listen()
        with dialer("127.9.0.1") as fickle:
            for _ in range(200):
                own_id = fresh_id()
                fickle.sendto(HELLO.initial(own_id), site.address)
                fickle.sendto(HELLO.hang_up(own_id), site.address)
                await asyncio.sleep(0)
            await site.dial(site)
            async with asyncio.timeout(5):
                while site.transport.strangers() > 1:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.005)
        assert not any(site.transport.turned_away().values())
        await site.transport.close()

    asyncio.run(scenario())


@contextlib.contextmanager
def dialer(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        sock.setblocking(False)
        yield sock


async def until_retry(sock: socket.socket) -> tuple[bytes, bytes]:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        while True:
            retry = retry_of(await loop.sock_recv(sock, 2048))
            if retry is not None:
                return retry


def test_another_alpn_is_refused_by_the_acceptor() -> None:
    async def scenario() -> None:
        site = await Site().listen()
        stranger = Site(alpn=b"h3")
        with pytest.raises(NotConnected, match="no common ALPN"):
            await stranger.dial(site)
        assert site.accepted.empty()
        await stranger.transport.close()
        await site.transport.close()

    asyncio.run(scenario())


def aioquic_server(*, alpn: list[str] | None, key: Any = None) -> QuicConfiguration:
    certificate, own_key = identity()
    configuration = QuicConfiguration(is_client=False, alpn_protocols=alpn)
    configuration.certificate = x509.load_der_x509_certificate(certificate)
    configuration.private_key = key or load_der_private_key(own_key, None)
    return configuration


async def dial_aioquic(configuration: QuicConfiguration) -> None:
    server = await serve("127.0.0.1", 0, configuration=configuration)
    site = Site()
    try:
        port = server._transport.get_extra_info("sockname")[1]  # type: ignore[attr-defined]
        await site.dial(port)
    finally:
        await site.transport.close()
        server.close()


def test_an_acceptor_that_selects_no_alpn_is_refused_by_the_dialer() -> None:
    """Erlang's server goes on without ALPN when there is no overlap."""
    with pytest.raises(NotConnected, match="no common ALPN"):
        asyncio.run(dial_aioquic(aioquic_server(alpn=None)))


def test_an_acceptor_without_the_key_of_its_certificate_is_refused() -> None:
    """Else anybody on the path could show a copy of it, and the channel binding would bind nothing."""
    thief = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(NotConnected, match="TLS alert"):
        asyncio.run(dial_aioquic(aioquic_server(alpn=["erlang-dist"], key=thief)))
    asyncio.run(dial_aioquic(aioquic_server(alpn=["erlang-dist"])))


def test_user_streams_are_reset_with_erlangs_code() -> None:
    class Peer(QuicConnectionProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.resets: asyncio.Queue[StreamReset] = asyncio.Queue()

        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, StreamReset):
                self.resets.put_nowait(event)

    async def scenario() -> None:
        site = await Site().listen()
        async with connect(*site.address, configuration=CLIENT, create_protocol=Peer) as peer:
            assert isinstance(peer, Peer)
            acceptor = await site.accepted.get()
            peer._quic.send_stream_data(68, b"\x04echohello")
            peer.transmit()
            await peer.ping()
            acceptor.start()
            async with asyncio.timeout(5):
                event = await peer.resets.get()
            assert (event.stream_id, event.error_code) == (68, 0x100)
            peer._quic.send_stream_data(4, GOOD)
            peer.transmit()
            await acceptor.until(lambda: acceptor.received)
        await site.transport.close()

    asyncio.run(scenario())


def test_datagrams_of_garbage_disturb_nobody() -> None:
    async def scenario() -> None:
        async with sites() as (left, right):
            dialer = (await left.dial(right)).start()
            acceptor = (await right.accepted.get()).start()
            loop = asyncio.get_running_loop()
            noise, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=right.address)
            for n in range(300):
                noise.sendto(TEXT[n : 2 * n + 1])
                noise.sendto(bytes([0xC0 | n & 0x3F, 0, 0, 0, 1, 8]) + bytes(n * 4))
                noise.sendto(bytes([0x40 | n & 0x3F]) + bytes(n))
                dialer.connection.send(CONTROL, n)
                await asyncio.sleep(0)
            await acceptor.until(lambda: len(acceptor.received) == 300)
            noise.close()

    asyncio.run(scenario())
