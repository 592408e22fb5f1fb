"""Who is declared dead, how fast, and who is not. The peers are processes of their own."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from quic_peers import CONTROL, Child, Recorder, Site, child


async def connect(site: Site, peer: Child, *, we_dial: bool) -> Recorder:
    """A connection in the distribution phase, dialed by one side or the other."""
    if we_dial:
        return (await site.dial(peer.port)).start()
    await peer.ask("dial", port=site.address[1])
    return (await site.accepted.get()).start()


@pytest.mark.parametrize("we_dial", [True, False], ids=["dialer", "acceptor"])
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_a_killed_process_is_noticed_within_a_second(we_dial: bool, busy: bool) -> None:
    async def scenario() -> None:
        site = await Site().listen()
        async with child() as peer:
            connection = await connect(site, peer, we_dial=we_dial)
            other = await connect(site, peer, we_dial=not we_dial)
            assert await connection.connection.probe(2.0)
            await asyncio.sleep(0.5)  # let both fall silent, so that only keep-alives are left
            peer.signal(signal.SIGKILL)
            killed = time.monotonic()
            if busy:
                for n in range(100):
                    connection.connection.send(CONTROL, n)
            reason = await connection.end(5)
            took = time.monotonic() - killed
            assert reason.kind == "unreachable", reason
            assert took < 1.0
            assert (await other.end(1)).kind == "unreachable"
        await site.transport.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("we_dial", [True, False], ids=["dialer", "acceptor"])
def test_a_stopped_process_is_not_dead(we_dial: bool) -> None:
    async def scenario() -> None:
        site = await Site().listen()
        async with child() as peer:
            connection = await connect(site, peer, we_dial=we_dial)
            peer.signal(signal.SIGSTOP)
            for n in range(1000):
                connection.connection.send(CONTROL, n)
            await asyncio.sleep(4)
            assert connection.reason is None
            peer.signal(signal.SIGCONT)
            answer = await peer.ask("wait", count=1000)
            assert answer == {"count": 1000, "ordered": True, "reason": "None"}
            assert connection.reason is None
        await site.transport.close()

    asyncio.run(scenario())


def test_a_stopped_process_is_dead_after_the_idle_timeout() -> None:
    async def scenario() -> None:
        site = await Site(idle_timeout_ms=1000).listen()
        async with child() as peer:
            connection = await connect(site, peer, we_dial=True)
            peer.signal(signal.SIGSTOP)
            assert (await connection.end(5)).kind == "timeout"
        await site.transport.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("we_dial", [True, False], ids=["dialer", "acceptor"])
def test_a_blocked_loop_keeps_its_connections_and_gets_its_messages(we_dial: bool) -> None:
    async def scenario() -> None:
        site = await Site(idle_timeout_ms=1000).listen()
        async with child(idle_timeout_ms=1000) as peer:
            connection = await connect(site, peer, we_dial=we_dial)
            assert await peer.ask("block", seconds=3.0) == "blocking"
            for n in range(200):
                connection.connection.send(CONTROL, (n, b"x" * 10_000))
                await asyncio.sleep(0.01)
            assert connection.reason is None, "the idle timeout of 1 s went by twice"
            assert connection.connection.queued == 0, "the watcher acknowledges"
            woke = await peer.answer()
            assert woke["stood_in"] > 0
            answer = await peer.ask("wait", count=200)
            assert answer == {"count": 200, "ordered": True, "reason": "None"}
        await site.transport.close()

    asyncio.run(scenario())


def test_without_its_watcher_a_blocked_loop_is_dead() -> None:
    """The opposite of the test above: it shows that the one above can fail."""

    async def scenario() -> None:
        site = await Site(idle_timeout_ms=1000).listen()
        async with child(idle_timeout_ms=1000, watcher_ms=0) as peer:
            connection = await connect(site, peer, we_dial=True)
            assert await peer.ask("block", seconds=3.0) == "blocking"
            assert (await connection.end(5)).kind == "timeout"
        await site.transport.close()

    asyncio.run(scenario())


def test_a_restarted_peer_on_the_same_port_resets_old_connections() -> None:
    async def scenario() -> None:
        site = Site()
        async with child() as first:
            port = first.port
            connection = (await site.dial(port)).start()
            first.signal(signal.SIGKILL)
            await first.process.wait()
            second = await Site().listen(port)  # the same reset key
            reason = await connection.end(2)
            assert reason.kind == "reset"
            assert (await site.dial(second)).connection.closed is False
            await second.transport.close()
        await site.transport.close()

    asyncio.run(scenario())


def test_a_probe_of_a_dead_peer_fails_and_of_a_live_one_succeeds() -> None:
    async def scenario() -> None:
        site = Site()
        async with child() as peer:
            connection = (await site.dial(peer.port)).start()
            assert await connection.connection.probe(2.0)
            peer.signal(signal.SIGSTOP)
            assert not await connection.connection.probe(0.3)
        await site.transport.close()

    asyncio.run(scenario())
