"""Bulk over streams, and what it does to messages beside it: ours, aioquic, and Erlang over TLS, in the same run.

    python benchmarks/streams.py [--mib 1024] [--runs 3] [--rivals] [--json results/streams.json]

Two OS processes on loopback. The sender writes blocks of 1 MiB, the receiver reads them all and answers with their
number. Beside it 1,000 messages a second go to a process on the other node and come back; each is timed. aioquic gets
a sixteenth of the bytes, because it is that slow; Erlang sends its bytes as 200 messages of 1 MiB (``message_1mib``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

MiB = 1 << 20
BLOCK = bytes(MiB)
RATE = 1000  # messages a second


# --- ours -------------------------------------------------------------------------------------------------------------


def _options(directory: str) -> dict[str, Any]:
    return {"cookie": "bench", "data_dir": f"{directory}/data", "discovery_dir": f"{directory}/found"}


async def ours_server(directory: str) -> None:
    from barrel_p2p import Node, Stream, receive, register, self_pid, send

    async def sink(stream: Stream) -> None:
        count = 0
        async for chunk in stream:
            count += len(chunk)
        await stream.write(count.to_bytes(8))

    async with Node("sink@127.0.0.1", **_options(f"{directory}/sink")) as node:
        node.streams.register_acceptor("sink", sink)
        register("echo", self_pid())
        print(*node.listen_address, flush=True)
        while True:
            who, when = await receive()
            send(who, when)


class Messages:
    """1,000 messages a second to ``echo`` over there, and the round trips."""

    def __init__(self) -> None:
        self.trips: list[float] = []
        self.stop = False

    async def flow(self) -> None:
        from barrel_p2p import receive, self_pid, send

        sent, start = 0, time.perf_counter()

        async def listen() -> None:
            while not self.stop or len(self.trips) < sent:
                try:
                    when = await receive(timeout=0.2)
                except TimeoutError:
                    continue
                self.trips.append(time.perf_counter() - when)

        listening = asyncio.create_task(listen())
        while not self.stop:
            due = int((time.perf_counter() - start) * RATE)
            while sent < due:
                send(("echo", "sink@127.0.0.1"), (self_pid(), time.perf_counter()))
                sent += 1
            await asyncio.sleep(0.001)
        await listening

    def percentiles(self) -> tuple[float, float]:
        ordered = sorted(self.trips)
        return ordered[len(ordered) // 2] * 1000, ordered[int(len(ordered) * 0.99)] * 1000


async def ours_client(directory: str, address: tuple[str, int], mib: int) -> dict[str, float]:
    from barrel_p2p import Node

    result: dict[str, float] = {}
    async with Node("source@127.0.0.1", **_options(f"{directory}/source")) as node:
        await node.connect("sink@127.0.0.1", address)

        async def pour(blocks: int) -> None:
            async with await node.streams.open("sink", "sink@127.0.0.1") as stream:
                for _ in range(blocks):
                    await stream.write(BLOCK)
                await stream.close()
                assert int.from_bytes(await stream.readexactly(8)) == blocks * MiB

        async def bulk(streams: int, blocks: int = mib) -> float:
            start = time.perf_counter()
            await asyncio.gather(*(pour(blocks // streams) for _ in range(streams)))
            return blocks // streams * streams * MiB / (time.perf_counter() - start) / 1e6

        await bulk(1, 64)  # warm
        for name, streams in (("quiet", 0), ("one", 1), ("sixteen", 16)):
            if streams:
                result[f"{name}_alone_mb_s"] = await bulk(streams)
            messages = Messages()
            flowing = asyncio.create_task(messages.flow())
            if streams:
                result[f"{name}_mb_s"] = await bulk(streams)
            else:
                await asyncio.sleep(3)
            messages.stop = True
            await flowing
            result[f"{name}_p50_ms"], result[f"{name}_p99_ms"] = messages.percentiles()
        stats = node.path_stats("sink@127.0.0.1")
        result["lost_packets"] = stats.lost_packets
    return result


# --- the run ----------------------------------------------------------------------------------------------------------


def serve_in_child(directory: str) -> tuple[subprocess.Popen[str], tuple[str, int]]:
    child = subprocess.Popen(
        [sys.executable, __file__, "--role", "ours", "--directory", directory], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    host, port = child.stdout.readline().split()
    return child, (host, int(port))


def one_round(mib: int, rivals: bool) -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="barrel-bench-") as directory:
        child, address = serve_in_child(directory)
        try:
            results["ours"] = asyncio.run(ours_client(directory, address, mib))
        finally:
            child.kill()
            child.wait()
        if not rivals:
            return results
    for name, work, row in (("aioquic", "stream", "one_mb_s"), ("otp_tls", "message_1mib", "message_1mib_mb_s")):
        figure = rival(name, work, mib)
        if figure is not None:
            results[name] = {row: figure}
    return results


def rival(name: str, work: str, mib: int) -> float | None:
    """What the benchmark has for this system; None if it can't run here."""
    from plan import FULL
    from run import known

    system = next(system for system in known() if system.name == name and work in system.works)
    why = system.missing()
    if why is not None:
        print(f"{name} is left out: {why}", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory(prefix="barrel-bench-") as directory:
        session = system.start(Path(directory))
        try:
            return session.run(work, replace(FULL, stream_mib=mib))[0]
        finally:
            session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--mib", type=int, default=1024, help="bytes of a bulk transfer, in MiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rivals", action="store_true", help="measure aioquic and Erlang over TLS too")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", choices=("ours",), help=argparse.SUPPRESS)
    parser.add_argument("--directory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.basicConfig(level="WARNING")
    if options.role:
        asyncio.run(ours_server(options.directory))
        return
    from report import machine

    found = {"machine": machine(), "mib": options.mib, "runs": []}
    for number in range(options.runs):
        found["runs"].append(one_round(options.mib, options.rivals))
        print(number + 1, json.dumps(found["runs"][-1], indent=None), flush=True)
    for system in found["runs"][0]:
        for row in found["runs"][0][system]:
            values = [run[system][row] for run in found["runs"]]
            print(f"{system:8} {row:22} {statistics.median(values):10.2f}   [{min(values):.2f} .. {max(values):.2f}]")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
