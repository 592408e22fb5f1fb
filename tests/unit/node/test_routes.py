"""The driver of the table of connections: what it does when its orders meet a world that is not ready for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from barrel_p2p.errors import BarrelError, NotConnected
from barrel_p2p.net.quic import CloseReason
from barrel_p2p.node.attempt import Attempt
from barrel_p2p.node.channel import Channel
from barrel_p2p.node.establish import Accepting, DialYielded
from barrel_p2p.node.options import Options
from barrel_p2p.node.routes import Routes
from barrel_p2p.proto.connecting import MAX_QUEUES
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Atom

ALICE, BOB = Atom("alice@host"), Atom("bob@host")


class FakeConnection:
    """What a channel needs of a connection; ``alive`` answers probes."""

    def __init__(self) -> None:
        self.closed: str | None = None
        self.sent: list[Any] = []
        self.alive: bool | Exception = True

    def send(self, control: Any, message: Any) -> int:
        self.sent.append(message)
        return 0

    def close(self, code: int, reason: str) -> None:
        self.closed = reason

    async def probe(self, timeout: float) -> bool:
        await asyncio.sleep(0)
        if isinstance(self.alive, Exception):
            raise self.alive
        return self.alive


class FakeAccepting(Accepting):
    def __init__(self, routes: Routes) -> None:
        self.did: list[str] = []
        self.number = routes.arrived(self)

    def let_in(self, *, simultaneous: bool = False) -> None:
        self.did.append("let in")

    def turn_away(self, why: str) -> None:
        self.did.append("turned away")

    def yield_to_dial(self) -> None:
        self.did.append("yielded")

    def abort(self, why: str) -> None:
        self.did.append("aborted")


class Handshake:
    """A dial whose connection stands: the test lets it come up or fail."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.aborted = False

    def abort(self, why: str) -> None:
        self.aborted = True


class Bench:
    """Routes with everything around it replaced."""

    def __init__(self) -> None:
        self.dials: list[Handshake] = []
        self.told: list[tuple[str, Atom]] = []
        self.connected = asyncio.Event()
        self.connected.set()
        self.routes = Routes(ALICE, Options(), Codec(), self, self._dial)  # type: ignore[arg-type]

    async def _dial(self, attempt: Attempt) -> Handshake:
        await self.connected.wait()
        self.dials.append(Handshake(attempt))
        return self.dials[-1]

    def channel(self, creation: int = 5) -> Channel:
        return Channel(
            BOB,
            FakeConnection(),  # type: ignore[arg-type]
            self.routes,
            flags=0,
            creation=creation,
            public_key=None,
            high_water=1000,
            hard_limit=2000,
        )

    def received(self, channel: Channel, batch: Any) -> None: ...

    def node_up(self, channel: Channel) -> None:
        self.told.append(("up", channel.name))

    def node_down(self, channel: Channel, why: str, reason: str) -> None:
        self.told.append(("down", channel.name, reason))

    def unreachable(self, name: Atom) -> None:
        self.told.append(("unreachable", name))

    async def connected_by_bob(self, creation: int = 5) -> Channel:
        accepting = FakeAccepting(self.routes)
        self.routes.peer_named(accepting, BOB, creation)
        channel = self.channel(creation)
        self.routes.accepted(accepting, channel)
        assert self.routes.up(BOB) is channel
        return channel


def run(story: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(Bench())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks left behind"

    asyncio.run(main())


async def turn(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def test_a_stop_ends_a_dial_and_tells_who_waits_for_it() -> None:
    async def story(bench: Bench) -> None:
        bench.connected.clear()
        waiting = asyncio.create_task(bench.routes.connect(BOB))
        await turn()
        await bench.routes.close()
        with pytest.raises(NotConnected, match="stopped"):
            await waiting
        assert bench.routes.route(BOB) is None

    run(story)


@pytest.mark.parametrize("stopped", [True, False])
def test_a_dial_that_comes_up_although_it_was_given_up_is_closed(stopped: bool) -> None:
    async def story(bench: Bench) -> None:
        bench.routes.route(BOB)
        await turn()
        handshake = bench.dials[0]
        if stopped:
            await bench.routes.close()
        else:
            bench.routes.peer_named(FakeAccepting(bench.routes), BOB, 5)
        assert handshake.aborted
        late = bench.channel()
        handshake.attempt.up(late)
        assert late.connection.closed and bench.routes.channels == {}
        assert ("up", BOB) not in bench.told
        await bench.routes.close()

    run(story)


def test_a_send_while_the_peer_is_let_in_waits_for_it_and_does_not_dial() -> None:
    async def story(bench: Bench) -> None:
        accepting = FakeAccepting(bench.routes)
        bench.routes.peer_named(accepting, BOB, 5)
        pending = bench.routes.route(BOB)
        assert pending is not None
        pending.send(None, (22, 1, 2), "hello")
        await turn()
        assert bench.dials == []
        channel = bench.channel()
        bench.routes.accepted(accepting, channel)
        assert channel.connection.sent == ["hello"]  # type: ignore[attr-defined]

        bench.routes.channel_closed(channel, CloseReason("timeout", 0, "silence"))
        assert bench.told == [("up", BOB), ("down", BOB, "net_tick_timeout")]

    run(story)


def test_a_dial_that_yields_waits_for_the_peer() -> None:
    async def story(bench: Bench) -> None:
        waiting = asyncio.create_task(bench.routes.connect(BOB))
        await turn()
        bench.dials[0].attempt.failed(DialYielded("the peer's own dial goes on"))
        await turn()
        assert len(bench.dials) == 1 and not waiting.done()
        channel = await bench.connected_by_bob()
        assert await waiting is channel
        await bench.routes.close()

    run(story)


def test_a_connection_without_a_name_ends_with_the_node() -> None:
    async def story(bench: Bench) -> None:
        stranger = FakeAccepting(bench.routes)
        await bench.routes.close()
        assert stranger.did == ["aborted"]
        late = FakeAccepting(bench.routes)
        bench.routes.peer_named(late, BOB, 5)
        assert late.did == ["aborted"]

    run(story)


def test_a_probe_that_fails_by_a_bug_does_not_lock_the_name(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench) -> None:
        channel = await bench.connected_by_bob(creation=5)
        connection = channel.connection
        connection.alive = RuntimeError("bug")  # type: ignore[attr-defined]
        first = FakeAccepting(bench.routes)
        bench.routes.peer_named(first, BOB, 6)
        await turn()
        assert first.did == ["turned away"] and bench.routes.up(BOB) is channel

        connection.alive = False  # type: ignore[attr-defined]
        second = FakeAccepting(bench.routes)
        bench.routes.peer_named(second, BOB, 6)
        await turn()
        assert second.did == ["let in"] and not connection.closed
        bench.routes.accepted(second, bench.channel(creation=6))
        assert connection.closed and bench.told[-2:] == [("down", BOB, "connection_closed"), ("up", BOB)]
        await bench.routes.close()

    run(story)
    assert "bug" in caplog.text


def test_a_queue_that_fails_half_way_is_no_silent_gap(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench) -> None:
        waiting = asyncio.create_task(bench.routes.connect(BOB))
        await turn()
        pending = bench.routes.route(BOB)
        assert pending is not None
        pending.send(None, (22, 1, 2), "hello")
        channel = bench.channel()

        def broken(control: Any, message: Any) -> int:
            raise RuntimeError("bug")

        channel.connection.send = broken  # type: ignore[method-assign]
        bench.dials[0].attempt.up(channel)
        assert await waiting is channel and not pending.gate.closed
        assert bench.told == [("up", BOB), ("down", BOB, "shutdown")]
        assert channel.connection.closed and bench.routes.channels == {}
        await bench.routes.close()

    run(story)
    assert "bug" in caplog.text


def test_a_dial_that_fails_by_a_bug_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench) -> None:
        async def broken(attempt: Attempt) -> Any:
            raise RuntimeError("bug")

        bench.routes._dial = broken
        with pytest.raises(BarrelError, match="bug"):
            await bench.routes.connect(BOB)
        assert bench.told == [("unreachable", BOB)]

    run(story)
    assert "bug" in caplog.text


def test_that_a_node_is_away_is_told_once_at_info(caplog: pytest.LogCaptureFixture) -> None:
    async def story(bench: Bench) -> None:
        async def nobody(attempt: Attempt) -> Any:
            raise NotConnected("nobody listens there", "unreachable")

        bench.routes._dial = nobody

        async def levels(dials: int) -> list[str]:
            caplog.clear()
            for _ in range(dials):
                with pytest.raises(NotConnected):
                    await bench.routes.connect(BOB)
            return [record.levelname for record in caplog.records if "no connection to" in record.getMessage()]

        assert await levels(3) == ["INFO", "DEBUG", "DEBUG"]
        channel = await bench.connected_by_bob()
        channel.closed(CloseReason("application", 0, "the node stops"))
        assert await levels(2) == ["DEBUG", "DEBUG"], "its loss was told"
        await bench.connected_by_bob(6)
        bench.routes.disconnect(BOB)
        assert await levels(2) == ["INFO", "DEBUG"], "it was there when we left"

    caplog.set_level(logging.DEBUG)
    run(story)


def test_who_waits_for_too_many_nodes_is_told_that_one_is_unreachable() -> None:
    async def story(bench: Bench) -> None:
        bench.connected.clear()
        for i in range(MAX_QUEUES):
            assert bench.routes.route(Atom(f"n{i}@host")) is not None
        assert bench.routes.route(BOB) is None
        assert bench.told == [], "not before a link or monitor could be noted"
        await turn(1)
        assert bench.told == [("unreachable", BOB)]
        with pytest.raises(NotConnected, match="too many"):
            await bench.routes.connect(BOB)
        await bench.routes.close()

    run(story)
