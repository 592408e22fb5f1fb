"""Trace contexts between nodes: a handler sees the span of who asked, and whoever does not trace notices nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, GenServer, Node, call, cast, receive, self_pid, send
from barrel_p2p.node.propagation import MAX_HEADERS, TRACE, Propagation
from barrel_p2p.process import system
from barrel_p2p.process.call import GEN_CALL, GEN_CAST
from barrel_p2p.process.traced import Traced
from barrel_p2p.proto.control import Op, with_token, without_token
from barrel_p2p.term.types import Pid
from barrel_p2p.tracing import propagate
from harness.cluster import Cluster, run

trace: Any = pytest.importorskip("opentelemetry.trace")
sdk: Any = pytest.importorskip("opentelemetry.sdk.trace")

TRACER = sdk.TracerProvider().get_tracer("test")


def here() -> int:
    """The id of the current trace, 0 outside of any."""
    return int(trace.get_current_span().get_span_context().trace_id)


class Shop(GenServer):
    async def init(self) -> None:
        self.told: list[tuple[Any, int]] = []

    async def handle_call(self, request: Any, from_: Any) -> Any:
        await asyncio.sleep(0)
        return here()

    async def handle_cast(self, request: Any) -> None:
        self.told.append((request, here()))

    async def handle_info(self, message: Any) -> None:
        self.told.append((message, here()))

    def get_state(self) -> Any:
        return self.told


async def pair(cluster: Cluster) -> tuple[Node, Node]:
    bob = await cluster.node("bob")
    await Shop.start(name="shop")
    bob.export(here, module="shop", name="here")
    alice = await cluster.node("alice")
    return alice, bob


@pytest.mark.usefixtures("carrier")
def test_calls_casts_and_remote_calls_carry_the_span_of_who_asks(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        for node in (alice, bob):
            propagate(node)
        with TRACER.start_as_current_span("order"):
            mine = here()
            assert await call(("shop", bob.name), "even while there is no channel yet") == mine
            assert await alice.rpc(bob.name, "shop", "here") == mine
            cast(("shop", bob.name), "cast")
            send(("shop", bob.name), "message")
        assert mine != 0
        assert await call(("shop", bob.name), "outside") == 0, "the server has left the context"
        assert await alice.rpc(bob.name, "shop", "here") == 0
        assert await system.get_state(("shop", bob.name)) == [("cast", mine), ("message", 0)]
        propagate(alice, on=False)
        with TRACER.start_as_current_span("order"):
            assert await call(("shop", bob.name), "off") == 0

    run(story, tmp_path)


def test_a_node_that_does_not_trace_takes_the_messages_as_ever(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        propagate(alice)
        with TRACER.start_as_current_span("order"):
            assert await call(("shop", bob.name), "hello") == 0
            assert await alice.rpc(bob.name, "shop", "here") == 0

    run(story, tmp_path)


def test_system_messages_and_plain_processes_get_what_was_sent(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        propagate(alice)
        propagate(bob)
        with TRACER.start_as_current_span("order"):
            await system.suspend(("shop", bob.name))
            await system.resume(("shop", bob.name))
            assert await system.get_state(("shop", bob.name)) == []
            cast(self_pid(), "to myself")
        assert await receive(timeout=5) == (GEN_CAST, "to myself")

    run(story, tmp_path)


def test_a_propagator_that_raises_costs_the_trace_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    propagators: Any = pytest.importorskip("opentelemetry.propagate")

    def bad(*_: Any, **__: Any) -> Any:
        raise RuntimeError("misconfigured")

    async def story(cluster: Cluster) -> None:
        alice, bob = await pair(cluster)
        propagate(alice)
        propagate(bob)
        with TRACER.start_as_current_span("order"):
            monkeypatch.setattr(propagators, "extract", bad)
            assert await call(("shop", bob.name), "hello") == 0
            monkeypatch.setattr(propagators, "inject", bad)
            assert await call(("shop", bob.name), "hello") == 0

    run(story, tmp_path)


# --- tokens -----------------------------------------------------------------------------------------------------------

REQUEST = (GEN_CALL, ("from", "tag"), "request")


@pytest.fixture
def propagation() -> Iterator[Propagation]:
    made = Propagation()
    made.within = lambda headers: pytest.fail("nobody enters this context")
    yield made


@pytest.mark.parametrize(
    "token",
    [
        (1, 2, 3, Pid(Atom("erl@h"), 1, 0, 1), 0),  # one of Erlang's
        b"",
        (TRACE,),
        (TRACE, []),
        (TRACE, {"name": b"bytes"}),
        (TRACE, {"name": "x" * 10_000}),
        (TRACE, {str(i): "" for i in range(MAX_HEADERS + 1)}),
        (TRACE, {1: "number"}),
        (Atom("other"), {"traceparent": "00-1-1-00"}),
    ],
    ids=lambda token: repr(token)[:30],
)
def test_tokens_that_are_not_ours_are_skipped(propagation: Propagation, token: Any) -> None:
    assert propagation.incoming(token, REQUEST) is REQUEST
    with propagation.entered(token):
        pass


@pytest.mark.parametrize("message", [(), "text", (1, 2), (Atom("other"), 1), [GEN_CALL]])
def test_only_calls_and_casts_are_wrapped(propagation: Propagation, message: Any) -> None:
    assert propagation.incoming((TRACE, {"a": "b"}), message) is message
    wrapped = propagation.incoming((TRACE, {"a": "b"}), REQUEST)
    assert type(wrapped) is Traced and wrapped == REQUEST and wrapped[2] == "request"


def test_a_token_can_be_taken_out_again() -> None:
    for op, rest in ((Op.SEND_SENDER, (1, 2)), (Op.REG_SEND, (1, 2, 3)), (Op.SPAWN_REQUEST, (1, 2, 3, 4, []))):
        control = (int(op), *rest)
        traced = with_token(control, "token")
        assert traced != control and traced[-1] == "token" and without_token(traced) == control
    link = (int(Op.LINK), 1, 2)
    assert with_token(link, "token") is link and without_token(link) is link
