"""The registry in a cluster on this machine: how soon a service is visible, 10,000 of them, look-ups, idle nodes.

    python benchmarks/registry.py [--nodes 20] [--services 10000] [--json PATH]

All nodes are real ones over QUIC on loopback; all but two live in this OS process, on one core, so that the figures are
what 18 nodes cost each other, not what a network does. What they mean: docs/reference/registry.md.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from barrel_p2p import Atom, Node, receive, spawn
from barrel_p2p.node.replication import wall_ms
from barrel_p2p.proto.registry_state import RegistryState
from barrel_p2p.term.codec import decode, encode

RESULTS = Path(__file__).parent / "results" / "registry.json"
REGISTRATIONS = 200


def options(directory: str, name: str, **more: Any) -> dict[str, Any]:
    places = {"data_dir": f"{directory}/{name}", "discovery_dir": f"{directory}/discovery"}
    return {"cookie": "a benchmark", **places, **more}


async def child(name: str, directory: str, seed: str, services: int) -> None:
    """A node of its own OS process; offers ``services`` when it is told to on its standard input."""
    async with Node(name, **options(directory, name.partition("@")[0])) as node:
        await node.join(seed)
        print("ready", flush=True)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while await lines.readline():
            pid = spawn(_idle)
            for number in range(services):
                node.registry.register(f"service {number}", pid, {"number": number})
                if number % 50 == 0:
                    await asyncio.sleep(0)
            print(f"registered {time.time()}", flush=True)


async def _idle() -> None:
    await receive()


async def main(nodes: int, services: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        results["alone"] = await alone(directory, services)
        cluster = []
        for number in range(nodes - 2):
            node = Node(f"n{number}@127.0.0.1", **options(directory, f"n{number}"))
            cluster.append(await stack.enter_async_context(node))
        for node in cluster[1:]:
            await node.join(cluster[0].name)
        children = []
        for number in range(2):
            arguments = [f"child{number}@127.0.0.1", directory, cluster[number + 1].name, str(services)]
            children.append(await start_child(stack, arguments))
        await until(lambda: all(len(node.overlay.lives.nodes()) == nodes for node in cluster))
        await asyncio.sleep(5)
        results["visible"] = await visible(cluster)
        results["idle"] = await idle(cluster)
        results["many"] = await many(cluster, children[0], services)
        results["joiner"] = await joiner(stack, directory, cluster, services)
        results["idle with services"] = await idle(cluster)
    return results


async def start_child(stack: AsyncExitStack, arguments: list[str]) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--child", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    stack.push_async_callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    assert (await process.stdout.readline()).startswith(b"ready")
    return process


async def until(condition: Any, seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def visible(cluster: list[Node]) -> dict[str, Any]:
    """From ``register`` on one node to the look-up's success on each of the others."""
    rng = random.Random(1)
    each: list[float] = []
    last: list[float] = []
    for number in range(REGISTRATIONS):
        owner = rng.choice(cluster)
        name = f"visible {number}"
        seen: dict[str, float] = {}
        for node in cluster:
            node.registry._replica._notify = _noting(node, name, seen)
        began = time.perf_counter()
        owner.registry.register(name)
        await _until_seen(seen, len(cluster))
        times = [at - began for node, at in seen.items() if node != owner.name]
        each += times
        last.append(max(times))
        for node in cluster:
            node.registry._replica._notify = node.registry._changed
        owner.registry.unregister(name)
        await asyncio.sleep(0.05)
    return {"registrations": REGISTRATIONS, "one node": _quantiles(each), "all nodes": _quantiles(last)}


async def _until_seen(seen: dict[str, float], count: int) -> None:
    await until(lambda: len(seen) == count, 30)


def _noting(node: Node, name: str, seen: dict[str, float]) -> Any:
    def noted(changes: Any) -> None:
        node.registry._changed(changes)
        if node.registry.lookup(name):
            seen.setdefault(node.name, time.perf_counter())

    return noted


def _quantiles(seconds: list[float]) -> dict[str, float]:
    cut = statistics.quantiles(seconds, n=100)
    return {
        "p50_ms": round(cut[49] * 1000, 2),
        "p99_ms": round(cut[98] * 1000, 2),
        "max_ms": round(max(seconds) * 1000, 2),
    }


async def many(cluster: list[Node], child: asyncio.subprocess.Process, services: int) -> dict[str, Any]:
    """One node offers many services, as fast as it can."""
    assert child.stdin is not None and child.stdout is not None
    began = time.time()
    child.stdin.write(b"go\n")
    registered = asyncio.ensure_future(child.stdout.readline())
    await until(lambda: all(_has_all(node, services) for node in cluster), 300)
    ended = time.time()
    done = float((await registered).split()[1])
    return {"services": services, "registered_s": round(done - began, 2), "everywhere_s": round(ended - began, 2)}


def _has_all(node: Node, services: int) -> bool:
    return len(node.registry._state) >= services


async def joiner(stack: AsyncExitStack, directory: str, cluster: list[Node], services: int) -> dict[str, Any]:
    node = await stack.enter_async_context(Node("late@127.0.0.1", **options(directory, "late")))
    began = time.perf_counter()
    await node.join(cluster[3].name)
    await until(lambda: _has_all(node, services))
    return {"services": services, "joined_and_copied_s": round(time.perf_counter() - began, 2)}


async def idle(cluster: list[Node], seconds: float = 20.0) -> dict[str, Any]:
    """What nodes cost that do nothing, heartbeats included."""
    cpu = time.process_time()
    before = _sent(cluster)
    await asyncio.sleep(seconds)
    after = _sent(cluster)
    sent = sum(max(0, count - before[channel]) for channel, count in after.items() if channel in before)
    return {
        "nodes_in_process": len(cluster),
        "cpu_percent_per_node": round((time.process_time() - cpu) / seconds / len(cluster) * 100, 3),
        "messages_per_s_per_node": round(sent / seconds / len(cluster), 1),
    }


def _sent(cluster: list[Node]) -> dict[tuple[str, str], int]:
    return {(node.name, name): peer.sent_messages for node in cluster for name, peer in node.statistics().peers.items()}


async def alone(directory: str, services: int) -> dict[str, Any]:
    """One node without neighbours: cost of an entry, speed of look-ups."""
    async with Node("alone@127.0.0.1", **options(directory, "alone")) as node:
        pid = spawn(_idle)
        for number in range(1000):  # what is allocated once
            node.registry.register(f"warm {number}", pid)
        before = _rss()
        began = time.perf_counter()
        for number in range(services):
            node.registry.register(f"service {number}", pid, {"number": number})
        took = time.perf_counter() - began
        grown = _rss() - before
        registry, found = node.registry, {"bytes_per_copied_entry": copied(registry_copy(node), services)}
        for label, call in (
            ("lookup_local", registry.lookup_local),
            ("lookup", registry.lookup),
        ):
            for kind, name in (("bytes", b"service 77"), ("str", "service 77")):
                call(name)
                began = time.perf_counter()
                for _ in range(1_000_000):
                    call(name)
                found[f"{label}_{kind}_per_s"] = round(1_000_000 / (time.perf_counter() - began))
        return {
            "register_us": round(took / services * 1e6, 1),
            "bytes_per_own_entry_and_cached_broadcast": grown // services,
            **found,
        }


def registry_copy(node: Node) -> list[bytes]:
    return [encode(part) for part in node.registry._state.snapshot(0, python=True)]


def copied(parts: list[bytes], services: int) -> int:
    """Memory of an entry that came from another node."""
    gc.collect()
    before = _rss()
    state = RegistryState(Atom("other@127.0.0.1"), wall_ms())
    for part in parts:
        state.merge(decode(part), wall_ms())
    gc.collect()
    assert len(state) >= services
    return (_rss() - before) // len(state)


def _rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def conditions(nodes: int) -> dict[str, Any]:
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "nodes": nodes,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "commit": head.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    if sys.argv[1:2] == ["--child"]:
        asyncio.run(child(*sys.argv[2:5], int(sys.argv[5])))
        sys.exit()
    parser = argparse.ArgumentParser(description="Measures the registry in a cluster on this machine.")
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--services", type=int, default=10_000)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    figures = {"conditions": conditions(given.nodes), **asyncio.run(main(given.nodes, given.services))}
    print(json.dumps(figures, indent=1))
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps(figures, indent=1) + "\n")
