"""``barrel ping NODE``: whether a node lets us in and answers."""

from __future__ import annotations

import argparse
import asyncio
import time

from barrel_p2p.cli.arguments import Parser
from barrel_p2p.cli.client import add_arguments, client
from barrel_p2p.cli.status import OK
from barrel_p2p.errors import NotConnected

TEXT = "Connects to a node and asks it for a sign of life (net_adm:ping). Exit status 0 if it answers, 3 if not."
EXAMPLES = (
    "barrel ping bob@127.0.0.1",
    "barrel ping bob@10.0.0.2 --cookie secret --peers bob@10.0.0.2=10.0.0.2:9100",
    "barrel ping bob@10.0.0.2 --config node.toml && echo bob is there",
)


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    add_arguments(made)
    return made


def run(arguments: argparse.Namespace) -> int:
    return asyncio.run(_ping(arguments))


async def _ping(arguments: argparse.Namespace) -> int:
    async with client(arguments) as visitor:
        await visitor.connect()
        started = time.perf_counter()
        if not await visitor.node.ping(visitor.target):
            raise NotConnected(f"{visitor.target} let us in, but its net_kernel does not answer")
        milliseconds = (time.perf_counter() - started) * 1000
    print(f"pong from {visitor.target}: {milliseconds:.1f} ms")
    return OK
