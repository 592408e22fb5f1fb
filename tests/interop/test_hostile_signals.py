"""A member that misuses links, monitors, spawns and control messages: what it costs, and who pays."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from barrel_p2p import Atom, GenServer, Node, Pid, alias, call, exit, receive, send, spawn, spawn_link
from barrel_p2p.node import dispatch, guests
from barrel_p2p.proto.control import Op
from barrel_p2p.proto.handshake import Connected
from barrel_p2p.term.codec import Codec
from barrel_p2p.term.types import Export, ImproperList, Reference
from harness.erlang import COOKIE, Epmd
from harness.tcp_peer import Peer, config, node

EVE = Atom("eve@127.0.0.1")
ME = Pid(EVE, 7, 0, 5)
HUGE = 1 << 20_000  # Python refuses to write it in decimal
Attack = Callable[[Node, Peer], Awaitable[None]]


def run(epmd: Epmd, tmp_path: Path, attack: Attack) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), node(epmd, tmp_path, "alice@127.0.0.1") as alice, member(alice) as eve:
            await attack(alice, eve)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def member(alice: Node) -> AsyncIterator[Peer]:
    eve = await Peer.connect(alice)
    assert isinstance(await eve.shake(alice, config(COOKIE, EVE)), Connected)
    await until(lambda: EVE in alice.nodes())
    yield eve
    eve.close()


def signal(eve: Peer, *control: Any) -> None:
    """A control message without a term behind it."""
    eve.frame(b"\x83D\0" + Codec().encode(control)[1:])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


async def idle() -> None:
    await receive(match=lambda _: False)


def ref(number: int) -> Reference:
    return Reference(EVE, 5, (number & 0x3FFFF, number >> 18, 9))


# --- links and monitors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["links", "monitors"])
def test_links_and_monitors_of_one_peer_are_bounded(
    epmd: Epmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "MAX_BONDS", 1000)

    async def attack(alice: Node, eve: Peer) -> None:
        pid = spawn(idle)
        for number in range(1001):
            if what == "links":
                signal(eve, int(Op.LINK), Pid(EVE, number, 0, 5), pid)
            else:
                signal(eve, int(Op.MONITOR_P), ME, pid, ref(number))
            if number % 100 == 99:
                await until(lambda number=number: alice.runtime.bonds(EVE) in (number + 1, 0))
        await eve.ended()
        assert EVE not in alice.nodes() and not alice.runtime.bonds(EVE)

    run(epmd, tmp_path, attack)
    assert "1000 links and monitors bind its processes to ours already" in caplog.text


def test_a_death_that_overflows_a_channel_is_told_no_further(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Thousands of links and one reason of a megabyte would make gigabytes, for a peer that reads nothing."""

    async def attack(alice: Node, eve: Peer) -> None:
        pid = spawn(idle)
        for number in range(2000):
            signal(eve, int(Op.LINK), Pid(EVE, number, 0, 5), pid)
            signal(eve, int(Op.MONITOR_P), ME, pid, ref(number))
        await until(lambda: alice.runtime.bonds(EVE) == 4000)
        exit(pid, bytes(1 << 20))
        await until(lambda: EVE not in alice.nodes())
        assert EVE not in alice._routes._pending, "the rest of it waits for the next connection"

    run(epmd, tmp_path, attack)
    assert caplog.text.count("could not tell another node of a death") == 1


def test_who_asks_and_never_reads_the_answers_loses_its_channel(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def attack(alice: Node, eve: Peer) -> None:
        channel = alice._routes.channels[EVE]
        channel._hard_limit = 1 << 20
        one = b"\x83D\0" + Codec().encode((int(Op.UNLINK_ID), 5, ME, spawn(idle)))[1:]
        frames = (len(one).to_bytes(4, "big") + one) * 1000
        while EVE in alice.nodes():
            eve.writer.write(frames)
            with contextlib.suppress(ConnectionError):
                await eve.writer.drain()
            await asyncio.sleep(0)

    run(epmd, tmp_path, attack)
    assert "more than send_hard_limit" in caplog.text and "internal error" not in caplog.text


@pytest.mark.parametrize("way", [Op.SEND_SENDER, Op.SEND_SENDER_TT, Op.REG_SEND_TT, Op.ALIAS_SEND, Op.ALIAS_SEND_TT])
def test_a_bounded_mailbox_holds_up_its_senders_whatever_they_send_by(epmd: Epmd, tmp_path: Path, way: Op) -> None:
    async def attack(alice: Node, eve: Peer) -> None:
        opened: asyncio.Future[Reference] = asyncio.get_running_loop().create_future()

        async def slow() -> None:
            opened.set_result(alias())
            await asyncio.sleep(60)

        pid = spawn(slow, name="slow", max_mailbox=100)
        to: Any = await opened if "ALIAS" in way.name else pid
        fields = (ME, Atom(""), Atom("slow")) if way is Op.REG_SEND_TT else (ME, to)
        for _ in range(20_000):
            eve.message((int(way), *fields, *([1] if way.name.endswith("TT") else [])), 1)
        process = alice.runtime.find(pid)
        assert process is not None
        await until(lambda: alice._routes.channels[EVE].waiting_for)
        assert len(process.mailbox) < 5_000, "the batch that was being read, and no more"

    run(epmd, tmp_path, attack)


def test_no_message_passes_for_the_nodes_order_to_end(epmd: Epmd, tmp_path: Path) -> None:
    async def attack(alice: Node, eve: Peer) -> None:
        servers = dict(alice.runtime.names)
        assert {"user", "rex", "net_kernel", "global_name_server"} <= servers.keys()
        for name, process in servers.items():
            order = (Atom("EXIT"), alice.runtime.pid, Atom("shutdown"))
            eve.message((int(Op.REG_SEND), ME, Atom(""), Atom(name)), order)
            eve.message((int(Op.SEND_SENDER), ME, process.pid), order)
            eve.message((int(Op.SEND_SENDER_TT), ME, process.pid, 1), order)
        signal(eve, int(Op.LINK), ME, spawn(idle))
        await until(lambda: alice.runtime.bonds(EVE))
        for _ in range(10):
            await asyncio.sleep(0)
        assert alice.runtime.names == servers
        async with node(epmd, tmp_path, "bob@127.0.0.1") as bob:
            assert await bob.ping(alice.name)

    run(epmd, tmp_path, attack)


def test_no_clash_of_global_names_ends_a_process_of_the_node(epmd: Epmd, tmp_path: Path) -> None:
    """Any member may ask for a clash to be settled, and says itself who clashes."""

    async def attack(alice: Node, eve: Peer) -> None:
        servers, victim = dict(alice.runtime.names), spawn(idle)
        kill = Export(Atom("global"), Atom("random_exit_name"), 3)
        for pid in (*(process.pid for process in servers.values()), victim):
            arguments = [kill, Atom("x"), Pid(Atom("aaa@h"), 1, 0, 1), pid]
            asked = [ref(1), Atom("global"), Atom("resolve_it"), arguments]
            eve.message((int(Op.SPAWN_REQUEST), ref(1), ME, ME, (Atom("erpc"), Atom("execute_call"), 4), []), asked)
        await until(lambda: alice.runtime.find(victim) is None)
        assert alice.runtime.names == servers

    run(epmd, tmp_path, attack)


def test_all_that_can_be_called_before_anything_is_exported(epmd: Epmd, tmp_path: Path) -> None:
    """Each of them is a way into a node: SECURITY.md and the page of remote calls name them."""

    async def attack(alice: Node, eve: Peer) -> None:
        functions = {":".join(name) for name in alice.exports._functions}
        assert functions == {"global:resolve_it", "barrel_p2p_service_proxy:relay", "gen_server:cast"}
        page = (Path(__file__).parents[2] / "docs/reference/rpc.md").read_text()
        assert all(f"`{function}" in page for function in functions)

    run(epmd, tmp_path, attack)


def test_nobody_answers_a_call_that_was_made_to_another(epmd: Epmd, tmp_path: Path) -> None:
    """A reference that was seen, in a call to oneself, tells nothing of the next ones."""

    class Slow(GenServer):
        async def handle_call(self, request: Any, from_: Any) -> Any:
            asked.set()
            await tried.wait()
            return "right"

    asked, tried = asyncio.Event(), asyncio.Event()

    async def attack(alice: Node, eve: Peer) -> None:
        server = await Slow.start()
        one, two, three = alice.runtime.reference().ids
        answer = asyncio.create_task(ask(server))
        await asked.wait()
        for step in range(1, 300):
            for ids in ((one + step, two, three), (one, two + step, three), (one, two, three + step)):
                guess = Reference(alice.name, alice.runtime.creation, tuple(word & 0xFFFFFFFF for word in ids))
                eve.message((int(Op.ALIAS_SEND), ME, guess), (ImproperList((Atom("alias"),), guess), "forged"))
        signal(eve, int(Op.LINK), ME, server)
        await until(lambda: alice.runtime.bonds(EVE))
        tried.set()
        assert await answer == "right"

    async def ask(server: Pid) -> Any:
        return await call(server, "which?", 10)

    run(epmd, tmp_path, attack)


def test_exits_of_unknown_processes_are_kept_for_spawns_that_link_alone(epmd: Epmd, tmp_path: Path) -> None:
    """They were held against every open request, and kept with each of the caller's."""

    async def attack(alice: Node, eve: Peer) -> None:
        async def ask() -> None:
            await spawn("m:f", node=EVE)

        async def bear() -> None:
            await spawn_link("m:f", node=EVE)

        asking, bearing = spawn(ask), spawn(bear)
        await until(lambda: len(alice.spawner._requests) == 2)
        for pid in (asking, bearing):
            eve.message((int(Op.PAYLOAD_EXIT), Pid(EVE, 99, 0, 5), pid), b"reason")
        kept = {request.owner: request.early_exits for request in alice.spawner._requests.values()}
        await until(lambda: kept[bearing])
        assert kept[asking] == {}

    run(epmd, tmp_path, attack)


# --- control messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "control",
    [
        (int(Op.EXIT), HUGE, 1),
        (HUGE, ME),
        (int(Op.UNLINK_ID), HUGE, ME, ME),
        (int(Op.LINK), Pid(Atom("bob@127.0.0.1"), 1, 0, 1), ME),
        (int(Op.MONITOR_P), ME, [HUGE], ref(1)),
        (Atom("link"), [[HUGE]]),
    ],
    ids=["huge", "operation", "id", "another's", "target", "atom"],
)
def test_a_control_message_of_a_wrong_shape_is_the_peers_fault(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture, control: tuple[Any, ...]
) -> None:
    async def attack(alice: Node, eve: Peer) -> None:
        signal(eve, *control)
        await eve.ended()
        assert EVE not in alice.nodes()

    run(epmd, tmp_path, attack)
    assert "broke the distribution protocol" in caplog.text and "internal error" not in caplog.text


@pytest.mark.parametrize("name", [pytest.param(HUGE, id="huge"), "text", b"\xff", 1.5, [1, 2], (Atom("a"), Atom("b"))])
def test_a_spawn_with_an_impossible_name_is_refused(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: Any
) -> None:
    async def attack(alice: Node, eve: Peer) -> None:
        before = list(alice.runtime.names)
        mfa = (Atom("m"), Atom("f"), 0)
        eve.message((int(Op.SPAWN_REQUEST), ref(1), ME, ME, mfa, [(Atom("name"), name)]), [])
        async with asyncio.timeout(5):
            answer = b""
            while b"badarg" not in answer:
                answer += await eve.read()
        assert list(alice.runtime.names) == before and EVE in alice.nodes()

    run(epmd, tmp_path, attack)
    assert not caplog.records


def test_a_flood_of_spawns_is_told_once(
    epmd: Epmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guests, "MAX_GUESTS", 3)

    async def attack(alice: Node, eve: Peer) -> None:
        alice.export(idle, module="m", name="idle")
        for number in range(1000):
            eve.message((int(Op.SPAWN_REQUEST), ref(number), ME, ME, (Atom("m"), Atom("idle"), 0), []), [])
        signal(eve, int(Op.LINK), ME, spawn(idle))
        await until(lambda: alice.runtime.bonds(EVE))

    run(epmd, tmp_path, attack)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"{EVE} has 3 processes running here"
    ]


# --- what the log says ------------------------------------------------------------------------------------------------


def test_names_of_a_peers_making_begin_no_line_in_the_log(
    epmd: Epmd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evil = Atom("x\n12:00:00 INFO barrel_p2p.keys: all is well\x1b[2J\x9b")

    async def attack(alice: Node, eve: Peer) -> None:
        eve.message((int(Op.SPAWN_REQUEST), ref(1), ME, ME, (evil, evil, 0), []), [])
        arguments = [ref(2), evil, evil, []]
        eve.message((int(Op.SPAWN_REQUEST), ref(2), ME, ME, (Atom("erpc"), Atom("execute_call"), 4), []), arguments)
        arguments = [ref(3), HUGE, [HUGE], HUGE]
        eve.message((int(Op.SPAWN_REQUEST), ref(3), ME, ME, (Atom("erpc"), Atom("execute_call"), 4), []), arguments)
        lone = Pid(evil, 1, 0, 1)
        send(spawn(idle), lone)
        signal(eve, int(Op.EXIT), lone, ME, 1)
        await eve.ended()

    with caplog.at_level(logging.INFO):
        run(epmd, tmp_path, attack)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("all is well" in message for message in messages) >= 3
    assert all(message.isprintable() for message in messages)
