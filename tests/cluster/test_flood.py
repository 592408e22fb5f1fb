"""A flood of handshakes that nobody finishes: peers live on, and strangers still get in."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from barrel_p2p import Node, receive, register, self_pid, send

GENERATOR = Path(__file__).parents[1] / "foreign" / "flood.py"
RATE, SECONDS = 3_000, 2.0


def node(tmp_path: Path, name: str) -> Node:
    return Node(f"{name}@127.0.0.1", cookie="flood", data_dir=tmp_path / name, discovery_dir=None)


async def echo() -> None:
    register("echo", self_pid())
    while True:
        who, number = await receive()
        send(who, number)


@pytest.mark.parametrize("then", ["nothing", "stall", "hang-up"])
def test_peers_live_on_and_strangers_get_in(tmp_path: Path, then: str) -> None:
    async def main() -> None:
        async with asyncio.timeout(90), node(tmp_path, "bob") as bob, node(tmp_path, "alice") as alice:
            host, port = alice.listen_address
            alice.runtime.spawn(echo)
            await bob.connect(alice.name, alice.listen_address)
            before = memory()
            arguments = [host, str(port), "--rate", str(RATE), "--seconds", str(SECONDS), "--then", then]
            flood = await asyncio.create_subprocess_exec(
                sys.executable, str(GENERATOR), *arguments, stdout=asyncio.subprocess.PIPE
            )
            over = asyncio.create_task(flood.communicate())
            sent = strangers = most = 0
            while not over.done():
                for _ in range(50):
                    send(("echo", alice.name), (self_pid(), sent))
                    sent += 1
                    assert await receive(timeout=30) == sent - 1, "none is lost, none overtakes"
                most = max(most, value(alice, "barrel_p2p.dist.strangers"))
                if strangers < 5:
                    await comes_in(alice, strangers)
                    strangers += 1
            report = json.loads((await over)[0])
            await comes_in(alice, strangers)

            assert report["begun"] == RATE * SECONDS
            assert bob.peer_info(alice.name) is not None
            assert 32 <= most <= 64
            turned_away = alice.statistics().metrics["barrel_p2p.dist.turned_away"].series
            # What the kernel had no room for was lost on the way.
            assert report["retries"] / 2 < turned_away[("retry",)] and turned_away[("retry",)] > 100
            if then == "stall":
                assert turned_away[("refused_load",)] > 0 and turned_away[("ignored_load",)] > 0
                assert turned_away[("gave_way",)] > 0
            assert memory() - before < 100, "MiB"

    async def comes_in(alice: Node, number: int) -> None:
        async with node(tmp_path, f"new{number}") as new:
            await new.connect(alice.name, alice.listen_address)

    asyncio.run(main())


def value(of: Node, metric: str) -> int:
    return int(of.statistics().metrics[metric].value)


def memory() -> float:
    """Resident, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
