"""A net split by dropped packets: two hosts, a wire that is cut and healed, and no word to either side.

The left host has a real Erlang node or a Python node, the right one a Python node. A *side* is a node with two
processes: ``main`` links to, and monitors three times, the ``worker`` of the other side; ``worker`` tells ``main`` what
it is told.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from harness.erlang import COOKIE, Epmd, Erlang
from harness.python import Python
from harness.wire import Host, Wire

#: What a side must hear of the death of the connection, and how often.
BROKEN = sorted(["nodedown", "EXIT noconnection", "worker EXIT noconnection", *["DOWN noconnection"] * 3])
SLACK = 2.0  # seconds that a busy machine may add


class Side(Protocol):
    """``name`` is that of its node; ``eval`` waits for the value, ``send`` and ``answer`` are its two halves."""

    name: str

    def eval(self, code: str) -> str: ...
    def send(self, code: str) -> None: ...
    def answer(self) -> str: ...

    def connect(self, peer: str) -> str: ...
    def tell_worker(self, peer: str) -> str: ...
    def watch(self, peer: str) -> str: ...
    def shout(self, peer: str, count: int) -> str: ...
    def count(self, count: int) -> str: ...
    def events(self, seconds: float) -> str: ...
    def end_worker(self) -> str: ...


PREPARE_ERLANG = """
process_flag(trap_exit, true), net_kernel:monitor_nodes(true, [{node_type, all}]),
Main = self(), register(main, Main),
register(worker, spawn(fun() ->
  process_flag(trap_exit, true),
  (fun W() -> receive
      {'EXIT', _, R} -> Main ! {worker, R}, W();
      stop -> exit(stopped)
    end end)()
  end)),
Text = fun
  ({nodeup, _, _}) -> "nodeup";
  ({nodedown, _, _}) -> "nodedown";
  ({'EXIT', _, R}) -> "EXIT " ++ atom_to_list(R);
  ({'DOWN', _, process, _, R}) -> "DOWN " ++ atom_to_list(R);
  ({worker, R}) -> "worker EXIT " ++ atom_to_list(R);
  (Other) -> lists:flatten(io_lib:format("~0p", [Other]))
end,
Events = fun(Milliseconds) ->
  Start = erlang:monotonic_time(millisecond),
  (fun Next(Found) ->
    Passed = erlang:monotonic_time(millisecond) - Start,
    receive M -> Next([{erlang:monotonic_time(millisecond) - Start, Text(M)} | Found])
    after max(0, Milliseconds - Passed) -> lists:reverse(Found) end end)([])
end,
Count = fun(N) ->
  (fun Next(I) when I =:= N -> ordered;
       Next(I) -> receive {number, I} -> Next(I + 1); {number, J} -> {I, J} after 20000 -> {missing, I} end end)(0)
end, ok.
"""


class ErlangSide(Erlang):
    def __init__(self, epmd: Epmd, seconds: int) -> None:
        super().__init__(epmd, "left", "-kernel", "net_ticktime", str(seconds))
        assert self.eval(PREPARE_ERLANG) == "ok"

    def connect(self, peer: str) -> str:
        return f"net_kernel:connect_node('{peer}')."

    def tell_worker(self, peer: str) -> str:
        return f"{{main, '{peer}'}} ! {{worker_is, whereis(worker)}}, ok."

    def watch(self, peer: str) -> str:
        return f"""receive {{worker_is, Worker}} -> link(Worker), monitor(process, Worker), monitor(process, Worker),
            monitor(process, {{worker, '{peer}'}}), ok after 9000 -> nothing end."""

    def shout(self, peer: str, count: int) -> str:
        return f"[{{main, '{peer}'}} ! {{number, I}} || I <- lists:seq(0, {count} - 1)], ok."

    def count(self, count: int) -> str:
        return f"Count({count})."

    def events(self, seconds: float) -> str:
        return f"Events({int(seconds * 1000)})."

    def end_worker(self) -> str:
        return "worker ! stop, ok."


PREPARE_PYTHON = """
async def be_worker():
    process_flag("trap_exit", True)
    while (message := await receive()) != "stop":
        send(main, (Atom("worker"), message[2]))
    exit(Atom("stopped"))

def text(message):
    match message:
        case ("nodeup" | "nodedown" as what, _):
            return what
        case ("EXIT", _, reason):
            return f"EXIT {reason}"
        case ("DOWN", _, "process", _, reason):
            return f"DOWN {reason}"
        case ("worker", reason):
            return f"worker EXIT {reason}"
    return repr(message).replace('"', "'")

async def events(seconds):
    clock, found = asyncio.get_running_loop().time, []
    start = clock()
    while True:
        try:
            message = await receive(timeout=max(0, start + seconds - clock()))
        except TimeoutError:
            return "[" + ",".join(found) + "]"
        found.append('{%d,"%s"}' % ((clock() - start) * 1000, text(message)))

async def count(n):
    for i in range(n):
        try:
            got = await receive(match=lambda m: m[0] == "number", timeout=20)
        except TimeoutError:
            return ("missing", i)
        if got[1] != i:
            return (i, got[1])
    return "ordered"

async def watch(peer):
    worker = (await receive(match=lambda m: m[0] == "worker_is", timeout=9))[1]
    link(worker)
    monitor(worker)
    monitor(worker)
    monitor((Atom("worker"), Atom(peer)))
    return "ok"

process_flag("trap_exit", True)
main = self_pid()
register("main", main)
register("worker", spawn(be_worker))
node.monitor_nodes()
"""


class PythonSide(Python):
    def __init__(self, host: Host, alive: str, options: dict[str, Any]) -> None:
        super().__init__({"name": f"{alive}@{host.address}", **options}, host.inside)
        self.eval(PREPARE_PYTHON)

    def connect(self, peer: str) -> str:
        return f"await node.connect({peer!r})"

    def tell_worker(self, peer: str) -> str:
        return f"send(('main', {peer!r}), (Atom('worker_is'), whereis('worker')))"

    def watch(self, peer: str) -> str:
        return f"await watch({peer!r})"

    def shout(self, peer: str, count: int) -> str:
        return f"for i in range({count}): send((Atom('main'), Atom({peer!r})), (Atom('number'), i))"

    def count(self, count: int) -> str:
        return f"await count({count})"

    def events(self, seconds: float) -> str:
        return f"await events({seconds})"

    def end_worker(self) -> str:
        return "send(whereis('worker'), Atom('stop'))"


class Pair:
    """Two sides and the wire between them; ``tick`` is the tick time of both in seconds."""

    def __init__(self, wire: Wire, left: Side, right: Side, tick: int) -> None:
        self.wire = wire
        self.sides = (left, right)
        self.tick = tick

    def other(self, side: Side) -> Side:
        return self.sides[self.sides[0] is side]

    def hear(self, seconds: float) -> list[list[tuple[float, str]]]:
        """What arrives at ``main`` of either side meanwhile, with the seconds after which it did."""
        for side in self.sides:
            side.send(side.events(seconds))
        found = [re.findall(r'{(\d+),"(.*?)"}', side.answer()) for side in self.sides]
        return [[(int(after) / 1000, text) for after, text in events] for events in found]

    def heard(self, seconds: float) -> list[list[str]]:
        return [sorted(text for _, text in events) for events in self.hear(seconds)]

    def connect(self, dialer: Side) -> None:
        dialer.eval(dialer.connect(self.other(dialer).name))
        assert self.heard(1.0) == [["nodeup"], ["nodeup"]]

    def watch(self) -> None:
        for side in self.sides:
            side.eval(side.tell_worker(self.other(side).name))
        for side in self.sides:
            assert side.eval(side.watch(self.other(side).name)) == "ok"

    def shout(self, count: int) -> None:
        for side in self.sides:
            side.eval(side.shout(self.other(side).name, count))

    def check_order(self, count: int) -> None:
        for side in self.sides:
            side.send(side.count(count))
        assert [side.answer() for side in self.sides] == ["ordered", "ordered"]


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def over_tcp(wire: Wire, stack: ExitStack, directory: Path, tick: int) -> Pair:
    """An Erlang node, and a Python node that speaks its distribution."""
    here = stack.enter_context(Epmd(wire.left.address, wire.left.inside))
    stack.enter_context(Epmd(wire.right.address, wire.right.inside, here.port))
    left = stack.enter_context(ErlangSide(here, tick))
    options = {"proto_dist": "inet_tcp", "cookie": COOKIE, "epmd_port": here.port}
    options |= {"net_ticktime_ms": tick * 1000, "data_dir": str(directory / "right")}
    right = stack.enter_context(PythonSide(wire.right, "right", options))
    return Pair(wire, left, right, tick)


def over_quic(wire: Wire, stack: ExitStack, directory: Path, tick: int) -> Pair:
    """Two Python nodes."""
    hosts = {"left": wire.left, "right": wire.right}
    peers = {f"{alive}@{host.address}": (host.address, 9100) for alive, host in hosts.items()}
    sides = []
    for alive, host in hosts.items():
        options = {"cookie": COOKIE, "listen_port": 9100, "net_ticktime_ms": tick * 1000, "peers": peers}
        options |= {"data_dir": str(directory / alive), "discovery_dir": None}
        sides.append(stack.enter_context(PythonSide(host, alive, options)))
    return Pair(wire, sides[0], sides[1], tick)


CLUSTERS = {"tcp": over_tcp, "quic": over_quic}


# --- longer than the tick time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("carrier", "dialer"), [("tcp", 0), ("tcp", 1), ("quic", 1)])
def test_both_sides_hear_of_a_split_once_and_find_each_other_after_it(
    wire: Wire, stack: ExitStack, tmp_path: Path, carrier: str, dialer: int
) -> None:
    pair = CLUSTERS[carrier](wire, stack, tmp_path, 4)
    pair.connect(pair.sides[dialer])
    pair.watch()
    pair.shout(1000)
    pair.check_order(1000)

    wire.cut()
    cut_at = time.monotonic()
    pair.shout(10)  # into the void
    passed = time.monotonic() - cut_at
    for events in pair.hear(1.25 * pair.tick + SLACK):
        assert sorted(text for _, text in events) == BROKEN
        for after, _ in events:
            assert 0.75 * pair.tick - 1 < passed + after < 1.25 * pair.tick + SLACK

    wire.heal()
    pair.connect(pair.sides[dialer])  # nothing but nodeup: what was sent into the void stays there
    pair.shout(1000)
    pair.check_order(1000)
    for side in pair.sides:  # the pids are those of before, the links and monitors are not
        side.eval(side.end_worker())
    assert pair.heard(1.0) == [[], []]


@pytest.mark.parametrize(("carrier", "mute"), [("tcp", "left"), ("tcp", "right"), ("quic", "left")])
def test_a_wire_that_is_cut_one_way_is_cut(
    wire: Wire, stack: ExitStack, tmp_path: Path, carrier: str, mute: str
) -> None:
    """Who hears nothing gives up after its tick time. Over TCP the mute side is told so; over QUIC it hears nothing
    from then on, and needs a tick time of its own."""
    pair = CLUSTERS[carrier](wire, stack, tmp_path, 4)
    pair.connect(pair.sides[0])
    pair.watch()
    wire.cut(getattr(wire, mute))
    rounds = 2 if carrier == "quic" else 1
    assert pair.heard(rounds * 1.25 * pair.tick + SLACK) == [BROKEN, BROKEN]
    wire.heal()
    pair.connect(pair.sides[1])
    pair.shout(100)
    pair.check_order(100)


# --- shorter than the tick time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["tcp", "quic"])
def test_a_short_split_loses_nothing_and_tells_nobody(
    wire: Wire, stack: ExitStack, tmp_path: Path, carrier: str
) -> None:
    pair = CLUSTERS[carrier](wire, stack, tmp_path, 8)
    pair.connect(pair.sides[0])
    pair.watch()
    wire.cut()
    pair.shout(1000)
    assert pair.heard(2.0) == [[], []]  # nothing comes through
    wire.heal()
    pair.check_order(1000)  # retransmitted
    assert pair.heard(6.0) == [[], []]
    for side in pair.sides:
        side.eval(side.end_worker())
    died = sorted(["EXIT stopped", *["DOWN stopped"] * 3])
    assert pair.heard(1.0) == [died, died]
