"""What a flood of handshakes does to the peers a node has: round trips and memory, without it and under it.

    python benchmarks/flood.py [--rate 10000] [--seconds 10] [--json results/flood.json]

Four OS processes on loopback. A node has two authenticated peers in a process of their own: one dialled it and shares
the listener's socket with the flood, the other was dialled and has a socket to itself. Each sends a message every
two milliseconds, to a process that sends it back. ``tests/foreign/flood.py`` begins the handshakes, from 32 addresses.
Meanwhile a stranger connects again and again, as a new peer would.

Where there are two cores the flood gets one, and the node and its peers share the other. So that the rows compare
what the flood does to the node, not what its program does to the machine, the row ``elsewhere`` has the same flood
sent to a socket that nobody reads.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

GENERATOR = Path(__file__).parents[1] / "tests" / "foreign" / "flood.py"
PAUSE = 0.002  # seconds between two messages of a peer
TRIES = 0.5  # seconds between two strangers
HOST = "127.0.0.1"


# --- the node that is attacked ----------------------------------------------------------------------------------------


async def victim(directory: str) -> None:
    """Echoes; each line of its input is answered with how it is."""
    from barrel_p2p import Node, receive, register, self_pid, send, spawn

    async def echo() -> None:
        register("echo", self_pid())
        while True:
            who, when = await receive()
            send(who, when)

    async with Node(f"victim@{HOST}", **_options(directory, "victim")) as node:
        spawn(echo)
        say(node.listen_address)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if dial := json.loads(line):
                await node.connect(*dial)
            metric = node.statistics().metrics.get("barrel_p2p.dist.turned_away")
            turned_away = {} if metric is None else {"_".join(key): int(n) for key, n in metric.series.items()}
            say({"rss_mib": round(resident(), 1), "cpu": time.process_time(), "turned_away": turned_away})


def resident() -> float:
    """Our memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


# --- its peers --------------------------------------------------------------------------------------------------------


async def peers(directory: str, address: tuple[str, int]) -> None:
    """Each line of its input is a number of seconds to measure for."""
    from barrel_p2p import Node

    async with (
        Node(f"dialer@{HOST}", **_options(directory, "dialer")) as dialer,
        Node(f"dialled@{HOST}", **_options(directory, "dialled")) as dialled,
    ):
        await dialer.connect(f"victim@{HOST}", address)
        say([dialled.name, dialled.listen_address])
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            seconds = json.loads(line)
            results = await asyncio.gather(
                round_trips(dialer, seconds), round_trips(dialled, seconds), strangers(directory, address, seconds)
            )
            say(dict(zip(("accepted", "dialled", "strangers"), results, strict=True)))


async def round_trips(node: Any, seconds: float) -> dict[str, float]:
    from barrel_p2p import monitor, receive, self_pid, send

    found: list[float] = []

    async def measure() -> None:
        end = time.perf_counter() + seconds
        echo = ("echo", f"victim@{HOST}")
        while time.perf_counter() < end:
            send(echo, (self_pid(), time.perf_counter()))
            sent = await receive(timeout=30)
            found.append(time.perf_counter() - sent)
            await asyncio.sleep(PAUSE)

    process = node.runtime.spawn(measure)
    with node.runtime.block():
        reference = monitor(process.pid)
        down = await receive(match=lambda message: message[1] == reference)
    assert down[4] == "normal", down
    found.sort()
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    trips = {name: round(found[min(len(found) - 1, int(len(found) * part))] * 1000, 3) for name, part in at.items()}
    return {"count": len(found), **trips}


async def strangers(directory: str, address: tuple[str, int], seconds: float) -> dict[str, float]:
    """Nodes that the victim has not met, one after the other."""
    from barrel_p2p import BarrelError, Node

    end, took, failed = time.perf_counter() + seconds, [], 0
    while time.perf_counter() < end:
        name = f"new{time.monotonic_ns()}"
        async with Node(f"{name}@{HOST}", **_options(directory, name)) as node:
            start = time.perf_counter()
            try:
                await node.connect(f"victim@{HOST}", address)
                took.append(time.perf_counter() - start)
            except BarrelError:
                failed += 1
        await asyncio.sleep(TRIES)
    took.sort()
    slowest = round(took[-1] * 1000, 1) if took else 0.0
    return {"let_in": len(took), "failed": failed, "slowest_ms": slowest}


def _options(directory: str, name: str) -> dict[str, Any]:
    return {"cookie": "bench", "data_dir": f"{directory}/{name}", "discovery_dir": None}


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


# --- the run ----------------------------------------------------------------------------------------------------------


class Child:
    def __init__(self, *arguments: str, cores: set[int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def tell(self, value: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, value: Any) -> Any:
        self.tell(value)
        return self.hear()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def child(*arguments: str, cores: set[int]) -> Iterator[Child]:
    one = Child(*arguments, cores=cores)
    try:
        yield one
    finally:
        one.end()


def measure(rate: int, seconds: float) -> dict[str, Any]:
    first, *others = sorted(os.sched_getaffinity(0))
    ours, theirs = {first}, set(others) or {first}
    rows: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="barrel-bench-") as directory,
        child(__file__, "--role", "victim", "--directory", directory, cores=ours) as node,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
    ):
        sink.bind((HOST, 0))
        host, port = node.hear()
        with child(__file__, "--role", "peers", "--directory", directory, "--port", str(port), cores=ours) as around:
            node.ask(around.hear())

            def row(name: str, target: int, then: str) -> None:
                before = node.ask(None)
                flood = ["--rate", str(rate), "--seconds", str(seconds + 2), "--then", then]
                cores = theirs if target else ours
                arguments = [str(GENERATOR), host, str(target), *flood] if target else ["-c", "print('{}')"]
                with child(*arguments, cores=cores) as generator:
                    time.sleep(2.0)  # it prepares its packets, and begins
                    start = node.ask(None)
                    found = around.ask(seconds)
                    during = node.ask(None)
                    found["cpu_percent"] = round((during["cpu"] - start["cpu"]) / seconds * 100, 1)
                    found["flood"] = generator.hear()
                time.sleep(12)  # the time that a handshake may take is over
                after = node.ask(None)
                found["turned_away"] = {
                    reason: count - before["turned_away"].get(reason, 0)
                    for reason, count in after["turned_away"].items()
                }
                for when, state in (("before", before), ("during", during), ("after", after)):
                    found[f"rss_mib_{when}"] = state["rss_mib"]
                rows[name] = found
                print(name, json.dumps(found), flush=True)

            around.ask(1)  # warm
            row("quiet", 0, "nothing")
            row("elsewhere", sink.getsockname()[1], "nothing")
            for then in ("nothing", "stall", "hang-up"):
                row(then, port, then)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=int, default=10_000, help="handshakes begun in a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", choices=("victim", "peers"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level="ERROR")
    if options.role == "victim":
        asyncio.run(victim(options.directory))
    elif options.role == "peers":
        asyncio.run(peers(options.directory, (HOST, options.port)))
    else:
        from report import machine

        found = {"machine": machine(), "rate": options.rate, "rows": measure(options.rate, options.seconds)}
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
