"""``barrel graph NODE``: the overlay around a node as a picture."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from barrel_p2p.cli.arguments import Parser, Usage
from barrel_p2p.cli.client import add_arguments, client
from barrel_p2p.cli.crawl import crawl, refusal
from barrel_p2p.cli.drawing import draw, links_of
from barrel_p2p.cli.status import FAILED, OK
from barrel_p2p.errors import RemoteError

TEXT = """\
Draws the nodes that can be seen through a node and the links between them: branches of the broadcast tree, the other
links of the overlay, and channels that were made on demand. The picture is SVG, which every browser shows.

The nodes must allow it: `barrel start --observable`, or `export_observer(node)` in their programs. What does not is
drawn with a dashed line, as far as its neighbours tell. The nodes are asked one through the other; this command
connects to the named one alone.
"""
EXAMPLES = (
    "barrel graph bob@127.0.0.1 --output overlay.svg",
    "barrel graph bob@127.0.0.1 > overlay.svg",
)


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    add_arguments(made)
    made.add_argument("--output", metavar="FILE", type=Path, help="write it there; default: standard output")
    made.add_argument("--max-nodes", metavar="NUMBER", type=int, default=200, help="nodes to draw (200)")
    return made


def run(arguments: argparse.Namespace) -> int:
    if arguments.max_nodes < 1:
        raise Usage("barrel graph: --max-nodes must be at least 1")
    if arguments.output is not None and not arguments.output.parent.is_dir():
        raise Usage(f"barrel graph: there is no directory {arguments.output.parent}")
    return asyncio.run(_graph(arguments))


async def _graph(arguments: argparse.Namespace) -> int:
    async with client(arguments) as visitor:
        await visitor.connect()
        try:
            cluster = await crawl(visitor, arguments.max_nodes)
        except RemoteError as error:
            print(f"barrel: {refusal(error, visitor.target)}", file=sys.stderr)
            return FAILED
    picture = draw(cluster, f"Overlay of {len(cluster.seen) + len(cluster.unseen)} nodes, seen from {visitor.target}")
    if arguments.output is None:
        print(picture, end="")
        return OK
    try:
        arguments.output.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise Usage(f"barrel graph: {arguments.output} can't be written: {error.strerror}") from None
    by_name = f" ({len(cluster.unseen)} by name only)" if cluster.unseen else ""
    nodes = len(cluster.seen) + len(cluster.unseen)
    print(f"{arguments.output}: {nodes} nodes{by_name}, {len(links_of(cluster))} links")
    return OK
