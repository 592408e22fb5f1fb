"""Replicated maps: puts from three nodes at once, local reads, puts that are kept on disk, memory.

    python benchmarks/maps.py [--puts 100000] [--runs 3] [--json PATH]

Three nodes in three OS processes on loopback, over QUIC, join and open one map. Each does a third of the puts; 20 % of
these go to keys that all three write. A run is over when all replicas are found equal. What is counted, and the
figures: docs/internals/maps.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from barrel_p2p import Node

RESULTS = Path(__file__).parent / "results" / "maps.json"
NAMES = ("alice", "bob", "carol")
BURST = 50  # puts between two turns of the event loop
VALUE = "x" * 64


# --- one node ---------------------------------------------------------------------------------------------------------


def rss() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Member:
    """What a node does when the program asks it to."""

    def __init__(self, node: Node, number: int) -> None:
        self.node = node
        self.number = number
        self.map = node.maps.open("bench")

    async def put(self, puts: int, shared: int) -> dict[str, float]:
        """Put ``puts`` keys, every fifth of them one of ``shared`` that all nodes write."""
        latest, began = 0.0, time.perf_counter()
        for number in range(puts):
            key = ("shared", number // 5 % shared) if number % 5 == 0 else (self.number, number)
            self.map[key] = f"{self.number}{VALUE}"
            if number % BURST == 0:
                turn = time.perf_counter()
                await asyncio.sleep(0)
                latest = max(latest, time.perf_counter() - turn)
        return {"seconds": time.perf_counter() - began, "longest_turn": latest}

    def state(self) -> tuple[int, str]:
        return len(self.map), self.map._state.root().hex()

    def wire(self) -> int:
        channels = self.node._routes.channels.values()
        return sum(channel.connection.stats()["bytes_sent"] for channel in channels)

    def reads(self) -> dict[str, float]:
        """Reads a second of keys of each usual kind, the best of five series."""
        m = self.node.maps.open("reads")
        kinds: dict[str, list[Any]] = {
            "int": list(range(10_000)),
            "str": [f"key {number}" for number in range(10_000)],
            "tuple": [("key", number) for number in range(10_000)],
        }
        rates = {}
        for kind, keys in kinds.items():
            for key in keys:
                m[key] = 1
            best = 1e9
            for _ in range(5):
                began = time.perf_counter()
                for key in keys:
                    m[key]
                best = min(best, time.perf_counter() - began)
            rates[kind] = len(keys) / best
        return rates

    def alone(self, puts: int, persist: bool) -> dict[str, float]:
        """Puts that nobody else hears of, all in one turn; then how long opening takes."""
        name = f"alone {persist}"
        m = self.node.maps.open(name, persist=persist)
        before, began = rss(), time.perf_counter()
        slowest = 0.0
        for number in range(puts):
            at = time.perf_counter()
            m[f"key {number}"] = f"{number}{VALUE}"
            slowest = max(slowest, time.perf_counter() - at)
        rate = puts / (time.perf_counter() - began)
        memory = (rss() - before) / puts
        self.node.maps.close(name)
        began = time.perf_counter()
        size = len(self.node.maps.open(name, persist=persist))
        seconds = time.perf_counter() - began
        self.node.maps.close(name)
        return {"rate": rate, "slowest_ms": 1000 * slowest, "memory": memory, "open_s": seconds if size else 0.0}


async def serve(options: dict[str, Any], number: int, seed: str) -> None:
    async with Node(**options) as node:
        member = Member(node, number)
        for function in (member.put, member.state, member.wire, member.reads, member.alone):
            node.export(function, module="member")
        if seed:
            await node.join(seed)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# --- the program ------------------------------------------------------------------------------------------------------


async def measure(puts: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:

        def options(name: str) -> dict[str, Any]:
            return {
                "name": f"{name}@127.0.0.1",
                "cookie": "bench",
                "data_dir": f"{directory}/{name}",
                "discovery_dir": f"{directory}/discovery",
            }

        programs = []
        try:
            for number, name in enumerate(NAMES):
                given = json.dumps([options(name), number, "" if number == 0 else f"{NAMES[0]}@127.0.0.1"])
                programs.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable, __file__, "--node", given, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                    )
                )
                assert programs[-1].stdout is not None
                assert await programs[-1].stdout.readline() == b"ready\n", f"{name} did not start"
            async with Node(**options("observer")) as node:
                return await observe(node, puts)
        finally:
            for program in programs:
                if program.returncode is None:
                    program.kill()
                await program.wait()


async def observe(node: Node, puts: int) -> dict[str, float]:
    async def ask(name: str, function: str, *args: Any) -> Any:
        return await node.rpc(f"{name}@127.0.0.1", "member", function, list(args), timeout=600)

    async def everyone(function: str, *args: Any) -> list[Any]:
        return list(await asyncio.gather(*(ask(name, function, *args) for name in NAMES)))

    each = puts // len(NAMES)
    before = sum(await everyone("wire"))
    began = time.perf_counter()
    turns = await everyone("put", each, max(each // 15, 1))
    written = time.perf_counter() - began
    while len({tuple(state) for state in await everyone("state")}) > 1:  # noqa: ASYNC110 - other programs
        await asyncio.sleep(0.02)
    equal = time.perf_counter() - began
    sent = sum(await everyone("wire")) - before
    size = (await ask(NAMES[0], "state"))[0]
    reads = await ask(NAMES[0], "reads")
    memory, kept = await ask(NAMES[1], "alone", 50_000, False), await ask(NAMES[2], "alone", 50_000, True)
    total = each * len(NAMES)
    return {
        "keys": size,
        "puts_s_until_written": total / written,
        "puts_s_until_equal": total / equal,
        "lag_s": equal - written,
        "longest_turn_ms": 1000 * max(turn["longest_turn"] for turn in turns),
        "wire_bytes_per_put": sent / total,
        "reads_s_int": reads["int"],
        "reads_s_str": reads["str"],
        "reads_s_tuple": reads["tuple"],
        "puts_s_alone": memory["rate"],
        "puts_s_persisted": kept["rate"],
        "slowest_persisted_ms": kept["slowest_ms"],
        "open_persisted_s": kept["open_s"],
        "bytes_per_entry": memory["memory"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures replicated maps.")
    parser.add_argument("--puts", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--node", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.node:
        asyncio.run(serve(*json.loads(given.node)))
        return 0
    runs = [asyncio.run(measure(given.puts)) for _ in range(given.runs)]
    table = {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name in runs[0]
        for values in [[run[name] for run in runs]]
    }
    for name, row in table.items():
        print(f"{name:24}{row['median']:14,.1f}   ({row['min']:,.1f} to {row['max']:,.1f})")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    conditions = {
        "puts": given.puts,
        "runs": given.runs,
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": Path("/proc/loadavg").read_text().split()[:3],
        "commit": commit.stdout.strip(),
    }
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps({"conditions": conditions, "rows": table}, indent=1) + "\n")
    print(f"written: {given.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
