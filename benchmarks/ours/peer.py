"""One of two of our nodes under measurement: reads a command a line on stdin, answers with a line.

    python peer.py barrel_p2p NAME PORT PEER PEER_PORT DATA_DIR COOKIE
    python peer.py inet_tcp NAME EPMD_PORT PEER EPMD_PORT DATA_DIR COOKIE

    oneway PAIRS MESSAGES_PER_PAIR BYTES BATCH -> result MESSAGES_PER_SECOND   (measured where they arrive)
    pingpong ROUNDS BYTES                      -> result P50_US P99_US
    call CALLERS CALLS_PER_CALLER BYTES        -> result CALLS_PER_SECOND
    setup ROUNDS                               -> result P50_MS
    stream MIB                                 -> result MB_PER_SECOND         (until the receiver counted them)

benchmarks/erlang/bench_peer.erl does the same works in the same way, but for streams; change both or neither.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from time import perf_counter_ns
from typing import Any

from barrel_p2p import Atom, GenServer, Node, Pid, Stream, call, receive, self_pid, send, spawn, spawn_link

WORK, PING, PONG, STOP = Atom("work"), Atom("ping"), Atom("pong"), Atom("stop")
RECEIVERS, ECHO, SPAN, DONE = Atom("receivers"), Atom("echo"), Atom("span"), Atom("done")
CALL_TIMEOUT = 60.0
BLOCK = bytes(1 << 20)


async def main(carrier: str, name: str, port: int, peer: str, peer_port: int, data_dir: str, cookie: str) -> None:
    if carrier == "inet_tcp":
        found: dict[str, Any] = {"epmd_port": port}
    else:
        found = {"listen_port": port, "peers": {peer: ("127.0.0.1", peer_port)}}
    node = Node(name, proto_dist=carrier, data_dir=data_dir, cookie=cookie, discovery_dir=None, **found)
    async with node:
        if carrier == "barrel_p2p":
            node.streams.register_acceptor("bench_bytes", take_bytes)
        spawn(sink, name="bench_sink")
        await Server.start_link(name="bench_server")
        print("ready", flush=True)
        while (line := await asyncio.to_thread(sys.stdin.readline)) and line != "stop\n":
            work, *arguments = line.split()
            try:
                await node.connect(peer)
                numbers = await run(node, peer, work, [int(text) for text in arguments])
            except Exception:
                traceback.print_exc()
                print("error", work, flush=True)
            else:
                print("result", *(round(number, 3) for number in numbers), flush=True)


async def run(node: Node, peer: str, work: str, arguments: list[int]) -> list[float]:
    match work, arguments:
        case "oneway", [pairs, count, size, batch]:
            await oneway(peer, pairs, warm_up(count), size, batch)
            return [await oneway(peer, pairs, count, size, batch)]
        case "pingpong", [rounds, size]:
            await pingpong(peer, warm_up(rounds), size)
            times = sorted(await pingpong(peer, rounds, size))
            return [percentile(times, 0.50) / 1e3, percentile(times, 0.99) / 1e3]
        case "call", [callers, count, size]:
            await calls(peer, callers, warm_up(count), size)
            return [await calls(peer, callers, count, size)]
        case "setup", [rounds]:
            node.monitor_nodes()
            await disconnect(node, peer)
            await setups(node, peer, warm_up(rounds))
            times = sorted(await setups(node, peer, rounds))
            node.monitor_nodes(False)
            return [percentile(times, 0.50) / 1e6]
        case "stream", [mib]:
            await stream_bytes(node, peer, warm_up(mib))
            return [await stream_bytes(node, peer, mib)]
    raise ValueError(f"{work} {arguments}")


def warm_up(count: int) -> int:
    return max(2, count // 10)


def percentile(ordered: list[int], part: float) -> int:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


# --- one way: the receivers' node has the clock ---------------------------------------------------------


async def oneway(peer: str, pairs: int, count: int, size: int, batch: int) -> float:
    send(("bench_sink", peer), (RECEIVERS, self_pid(), pairs, count))
    pids = await receive(timeout=CALL_TIMEOUT)
    message = (WORK, b"\7" * size)
    for pid in pids:
        spawn_link(flood, pid, message, count, batch)
    return float((pairs * count - 1) * 1e9 / await receive())


async def flood(pid: Pid, message: Any, count: int, batch: int) -> None:
    """``send`` never waits, so a sender that means to be fair lets the loop turn now and then."""
    while count > 0:
        for _ in range(min(batch, count)):
            send(pid, message)
        count -= batch
        await asyncio.sleep(0)


async def sink() -> None:
    while True:
        match await receive():
            case ("receivers", sender, pairs, count):
                spawn(collect, sender, pairs, count)
            case ("echo", sender):
                send(sender, spawn(echo))


async def collect(sender: Pid, pairs: int, count: int) -> None:
    owner = self_pid()
    send(sender, [spawn(receiver, owner, count) for _ in range(pairs)])
    spans = [await receive() for _ in range(pairs)]
    send(sender, max(last for _, _, last in spans) - min(first for _, first, _ in spans))


async def receiver(owner: Pid, count: int) -> None:
    await receive()
    first = perf_counter_ns()
    for _ in range(count - 1):
        await receive()
    send(owner, (SPAN, first, perf_counter_ns()))


# --- round trips ----------------------------------------------------------------------------------------


async def pingpong(peer: str, rounds: int, size: int) -> list[int]:
    send(("bench_sink", peer), (ECHO, self_pid()))
    other = await receive(timeout=CALL_TIMEOUT)
    ping, times = (PING, self_pid(), b"\7" * size), []
    for _ in range(rounds):
        start = perf_counter_ns()
        send(other, ping)
        await receive()
        times.append(perf_counter_ns() - start)
    send(other, STOP)
    return times


async def echo() -> None:
    while True:
        match await receive():
            case ("ping", sender, payload):
                send(sender, (PONG, payload))
            case "stop":
                return


# --- calls ----------------------------------------------------------------------------------------------


class Server(GenServer):
    async def handle_call(self, request: Any, from_: Any) -> Any:
        return request[1]


async def calls(peer: str, callers: int, count: int, size: int) -> float:
    request, owner = (WORK, b"\7" * size), self_pid()
    start = perf_counter_ns()
    for _ in range(callers):
        spawn_link(caller, ("bench_server", peer), request, count, owner)
    for _ in range(callers):
        await receive()
    return callers * count * 1e9 / (perf_counter_ns() - start)


async def caller(server: tuple[str, str], request: Any, count: int, owner: Pid) -> None:
    for _ in range(count):
        await call(server, request, timeout=CALL_TIMEOUT)
    send(owner, DONE)


# --- bytes over a stream --------------------------------------------------------------------------------


async def stream_bytes(node: Node, peer: str, mib: int) -> float:
    start = perf_counter_ns()
    async with await node.streams.open("bench_bytes", peer) as stream:
        for _ in range(mib):
            await stream.write(BLOCK)
        await stream.close()
        arrived = int.from_bytes(await stream.readexactly(8))
    assert arrived == mib * len(BLOCK)
    return arrived * 1e3 / (perf_counter_ns() - start)


async def take_bytes(stream: Stream) -> None:
    count = 0
    async for chunk in stream:
        count += len(chunk)
    await stream.write(count.to_bytes(8))


# --- connection set-up ----------------------------------------------------------------------------------


async def setups(node: Node, peer: str, rounds: int) -> list[int]:
    times = []
    for _ in range(rounds):
        start = perf_counter_ns()
        await node.connect(peer)
        times.append(perf_counter_ns() - start)
        await receive(match=lambda message: message[0] == "nodeup", timeout=5)
        await disconnect(node, peer)
    return times


async def disconnect(node: Node, peer: str) -> None:
    """The pause lets the other node see the end too; it isn't part of what is measured."""
    if node.disconnect(peer):
        await receive(match=lambda message: message[0] == "nodedown", timeout=5)
    await asyncio.sleep(0.02)


if __name__ == "__main__":
    CARRIER, NAME, PORT, PEER, PEER_PORT, DATA_DIR, COOKIE = sys.argv[1:]
    asyncio.run(main(CARRIER, NAME, int(PORT), PEER, int(PEER_PORT), DATA_DIR, COOKIE))
