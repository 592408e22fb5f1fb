"""The short-lived node behind ``ping``, ``call`` and ``doctor``: hidden, reachable by nobody, gone with the command."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barrel_p2p.cli import logs
from barrel_p2p.cli.arguments import Parser, Usage, given
from barrel_p2p.cli.identity import alive_name, own_host, seat
from barrel_p2p.disk.keys import KeyStore
from barrel_p2p.errors import AuthError, ConfigError, HandshakeError, NotConnected
from barrel_p2p.net.discovery import Answer, Discovery
from barrel_p2p.net.dns import ServiceRecords
from barrel_p2p.node.config import Given, check_options
from barrel_p2p.node.establishing import LAST_WORDS_SECONDS
from barrel_p2p.node.node import Node
from barrel_p2p.node.options import Options
from barrel_p2p.proto.names import host_of, validate_node_name
from barrel_p2p.term.types import Atom

#: What a file or a variable says about the node that it is written for, not about a command that visits another one.
OF_THE_NODE = frozenset(
    {
        "name",
        "app",
        "data_dir",
        "listen_host",
        "published",
        "log_level",
        "json_logs",
        "observable",
        "max_unauthenticated",
    }
)
_NO_ARGUMENTS = frozenset({"listen_host", "listen_port", "published", "max_unauthenticated"})
_ARGUMENTS = frozenset(Options.__dataclass_fields__) - _NO_ARGUMENTS | {"log_level"}
#: Options that mean something else to a visitor than to the node they are made for.
_TEXTS = {
    "data_dir": "Use the key and the pins of the node that owns this directory; it must be stopped. "
    "Default: a key of this command, in ~/.local/share/barrel-p2p.",
    "log_level": "Show what the node behind this command logs. Default: nothing.",
}


def add_arguments(parser: Parser) -> None:
    """What all commands that visit a node have in common."""
    parser.add_argument("node", metavar="NODE", help="its name, such as bob@127.0.0.1")
    parser.add_argument("--as", dest="own_name", metavar="NAME", help="connect under this name")
    parser.add_settings(_ARGUMENTS.__contains__, **_TEXTS)


@dataclass(slots=True)
class Client:
    """A running node and what it takes to find ``target``.

    Attributes:
        data_dir: Given by the user, whose node's key is used then; None for the key of this command.
        answers: What each place of discovery said, once ``find`` is over.
    """

    node: Node
    target: Atom
    options: Options
    data_dir: Path | None
    answers: list[Answer] = field(default_factory=list)

    @property
    def finds_by_itself(self) -> bool:
        """Whether the carrier looks up addresses in its own way (epmd)."""
        return self.options.proto_dist != "barrel_p2p"

    async def find(self) -> list[tuple[str, int]]:
        """The addresses of the target: of the first place that has some.

        The node itself is given no discovery directory: it would publish a file for its short life.
        """
        options = self.options
        directory = Path(options.discovery_dir) if options.discovery_dir is not None else None
        if directory is not None and not directory.is_dir():
            self.answers.append(Answer(f"the discovery directory {directory}", "is not there"))
            directory = None
        discovery = Discovery(
            static=options.peers,
            directory=directory,
            services=ServiceRecords() if options.dns_srv else None,
            own_port=options.listen_port,
        )
        async for answer in discovery.ask(self.target):
            self.answers.append(answer)
            if answer.addresses:
                return list(answer.addresses)
        return []

    async def dial(self, address: tuple[str, int] | None) -> None:
        """Connect by one address. After a refusal it waits until the target has read why we refuse it."""
        try:
            await self.node.connect(self.target, address)
        except (AuthError, HandshakeError):
            await asyncio.sleep(2 * LAST_WORDS_SECONDS)
            raise

    async def connect(self) -> None:
        """Connect to the target. Raises NotConnected, AuthError or HandshakeError."""
        if self.finds_by_itself:
            await self.dial(None)
            return
        failure = None
        for address in await self.find():
            try:
                await self.dial(address)
                return
            except NotConnected as error:
                failure = error
        said = "; ".join(f"{answer.place} {answer.text}" for answer in self.answers)
        if failure is None:
            raise NotConnected(f"nobody knows where {self.target} listens: {said}", "unknown_address")
        raise NotConnected(f"no connection to {self.target}: {failure} ({said})", failure.reason, failure.code)


@contextlib.asynccontextmanager
async def client(arguments: argparse.Namespace) -> AsyncIterator[Client]:
    """Start the node; it stops with the block.

    Raises:
        Usage, ConfigError: An argument or option can't be used.
    """
    try:
        target = validate_node_name(arguments.node)
    except ConfigError as error:
        raise Usage(str(error)) from None
    found = {
        name: entry
        for name, entry in given(arguments).items()
        if name not in OF_THE_NODE or entry.source.startswith("--")
    }
    options = check_options(found)
    if "log_level" in found:
        logs.set_up(found["log_level"].value, as_json=False)
    else:
        logs.off()  # what goes wrong is said once, by the command itself
    given_dir = Path(options.data_dir) if options.data_dir is not None else None
    with contextlib.ExitStack() as stack:
        if given_dir is not None:
            data_dir, alive = given_dir, alive_name(KeyStore(given_dir / "keys").load_or_create().public_key)
        else:
            taken = stack.enter_context(seat())
            data_dir, alive = taken.data_dir, taken.alive
        name = (
            arguments.own_name or f"{alive}@{await own_host(host_of(target), short=options.proto_dist == 'inet_tcp')}"
        )
        async with Node(name, **_node_options(found, options, data_dir)) as node:
            yield Client(node, target, options, given_dir)


def _node_options(found: dict[str, Given], options: Options, data_dir: Path) -> dict[str, Any]:
    own: dict[str, Any] = {"data_dir": data_dir, "listen_host": "127.0.0.1", "listen_port": 0}
    if options.proto_dist == "barrel_p2p":
        own |= {"discovery_dir": None, "peers": {}}  # ``Client.find`` asks them
    known = Options.__dataclass_fields__
    return {name: entry.value for name, entry in found.items() if name in known} | own


__all__ = ["Client", "add_arguments", "client"]
