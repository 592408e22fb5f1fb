"""``barrel top NODE``: a live view of a node and of the cluster around it, in plain text."""

from __future__ import annotations

import argparse
import asyncio
import functools
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from barrel_p2p.cli.arguments import Parser, Usage
from barrel_p2p.cli.client import Client, add_arguments, client
from barrel_p2p.cli.crawl import Cluster, crawl, refusal
from barrel_p2p.cli.picture import picture
from barrel_p2p.cli.status import FAILED, OK
from barrel_p2p.cli.top_view import View
from barrel_p2p.errors import BarrelError, NodeDown, RemoteError
from barrel_p2p.term.types import Atom

TEXT = """\
Shows how a node is, refreshed every few seconds: its peers with round trips and rates, its place in the overlay, its
processes, and the nodes that can be seen through it. Ctrl-C ends it.

The node must allow it: `barrel start --observable`, or `export_observer(node)` in its program. Neighbours that allow
it as well are asked through the node; this command connects to no other.

To a terminal it draws in place; into a file or a pipe it prints one view after the other.
"""
EXAMPLES = (
    "barrel top bob@127.0.0.1",
    "barrel top bob@10.0.0.2 --interval 5 --sort wakes",
    "barrel top bob@127.0.0.1 --once --rows 5",
    "barrel top bob@127.0.0.1 --once --svg top.svg",
)
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_OTHER_SCREEN, _OWN_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def parser(name: str) -> Parser:
    made = Parser(name, TEXT, EXAMPLES)
    add_arguments(made)
    made.add_argument("--interval", metavar="SECONDS", type=float, default=2.0, help="time between two views (2)")
    made.add_argument("--once", action="store_true", help="print one view, with the rates of one interval, and end")
    made.add_argument("--svg", metavar="FILE", type=Path, help="with --once: write the view there, as a picture")
    made.add_argument("--count", metavar="NUMBER", type=int, help="end after so many views")
    made.add_argument("--rows", metavar="NUMBER", type=int, default=10, help="rows of each table (10)")
    made.add_argument("--sort", choices=("mailbox", "wakes"), default="mailbox", help="order of processes (mailbox)")
    made.add_argument("--max-nodes", metavar="NUMBER", type=int, default=50, help="nodes of the cluster to ask (50)")
    return made


def run(arguments: argparse.Namespace) -> int:
    if arguments.interval < 0.1 or arguments.rows < 1 or arguments.max_nodes < 1:
        raise Usage("barrel top: --interval must be at least 0.1, --rows and --max-nodes at least 1")
    if arguments.svg is not None and not arguments.once:
        raise Usage("barrel top: --svg is a picture of one view: give --once too")
    if arguments.svg is not None and not arguments.svg.parent.is_dir():
        raise Usage(f"barrel top: there is no directory {arguments.svg.parent}")
    return asyncio.run(_top(arguments))


async def _top(arguments: argparse.Namespace) -> int:
    async with client(arguments) as visitor:
        await visitor.connect()
        try:
            before = await crawl(visitor, arguments.max_nodes)
        except RemoteError as error:
            print(f"barrel: {refusal(error, visitor.target)}", file=sys.stderr)
            return FAILED
        if arguments.once:
            show = print if arguments.svg is None else functools.partial(_save, arguments.svg)
            await _watch(arguments, visitor, before, show, views=1)
        elif sys.stdout.isatty():
            print(_OTHER_SCREEN, end="")
            try:
                await _watch(arguments, visitor, before, _draw, views=arguments.count)
            finally:
                print(_OWN_SCREEN, end="", flush=True)
        else:
            await _watch(arguments, visitor, before, _print, views=arguments.count)
        return OK


async def _watch(
    arguments: argparse.Namespace,
    visitor: Client,
    before: Cluster,
    show: Callable[[str], None],
    *,
    views: int | None,
) -> None:
    """Show a view every now and then: ``views`` of them, None: for ever."""
    shown = 0
    while views is None or shown < views:
        await asyncio.sleep(arguments.interval)
        now = await _look(visitor, arguments.max_nodes)
        view = View(visitor.target, arguments.rows, arguments.sort, shutil.get_terminal_size((110, 40)).columns)
        show(view.frame(now, before, time.strftime("%H:%M:%S")))
        before = now
        shown += 1


async def _look(visitor: Client, max_nodes: int) -> Cluster:
    try:
        return await crawl(visitor, max_nodes)
    except BarrelError as error:
        raise NodeDown((Atom("nodedown"), visitor.target), f"{visitor.target} is gone: {error}") from error


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(picture(text, "barrel top"), encoding="utf-8")
    except OSError as error:
        raise Usage(f"barrel top: {path} can't be written: {error.strerror}") from None


def _print(text: str) -> None:
    print(text, end="\n\n", flush=True)


def _draw(text: str) -> None:
    lines = text.splitlines()[: shutil.get_terminal_size().lines - 1]
    print(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW, end="", flush=True)
