"""``barrel doctor NODE``: connect step by step, and say of the step that fails whose fault it is and what to do."""

from __future__ import annotations

import argparse
import asyncio

from barrel_p2p.cli.arguments import Parser
from barrel_p2p.cli.client import add_arguments, client
from barrel_p2p.cli.examination import Examination
from barrel_p2p.cli.examination_tcp import TcpExamination, without_own_epmd
from barrel_p2p.errors import NotConnected

TEXT = """\
Connects to a node and shows each step: its address, transport, key, clock, name, distribution flags, cookie, round
trip. Of a step that fails it says whose fault that is and what to do. Exit status 0 if all is well, 3 if not.

With --proto-dist inet_tcp it visits a stock Erlang node: address, epmd, transport, name, flags, cookie, round trip.

It connects with the key of this command. To see what another node would meet, stop that node and give its name and
data directory: --as alice@10.0.0.1 --data-dir data/alice@10.0.0.1
"""
EXAMPLES = (
    "barrel doctor bob@127.0.0.1",
    "barrel doctor bob@10.0.0.2 --config node.toml",
    "barrel doctor erl@10.0.0.2 --proto-dist inet_tcp --cookie secret",
    "barrel doctor bob@10.0.0.2 --as alice@10.0.0.1 --data-dir data/alice@10.0.0.1",
)


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    add_arguments(made)
    return made


def run(arguments: argparse.Namespace) -> int:
    return asyncio.run(_doctor(arguments))


async def _doctor(arguments: argparse.Namespace) -> int:
    try:
        async with client(arguments) as visitor:
            over_tcp = visitor.options.proto_dist == "inet_tcp"
            return await (TcpExamination if over_tcp else Examination)(visitor).run()
    except NotConnected as error:
        if error.reason != "no_epmd":
            raise
        return without_own_epmd(error)
