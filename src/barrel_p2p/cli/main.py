"""``barrel``: finds the command, reads its arguments, runs it, and says in one line what went wrong."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib.metadata import version

from barrel_p2p.cli.arguments import Parser, Usage
from barrel_p2p.cli.status import FAILED, NOT_CONNECTED, OK, USAGE
from barrel_p2p.errors import AuthError, BarrelError, ConfigError, HandshakeError, NodeDown, NotConnected
from barrel_p2p.node.config import nearest
from barrel_p2p.shown import printable

#: Each command, what it does in a few words, and the module that has its ``parser()`` and ``run(arguments)``.
COMMANDS = {
    "start": ("run a node until it is told to stop", "start"),
    "ping": ("ask whether a node answers", "ping"),
    "call": ("call a function of a node and print its result", "call"),
    "top": ("watch a node and its cluster", "top"),
    "graph": ("draw the overlay around a node as SVG", "graph"),
    "doctor": ("connect to a node step by step and explain what fails", "doctor"),
    "sim": ("simulate a cluster of thousands of nodes", "sim"),
    "keys show": ("show the key of a node or of this command", "keys"),
    "keys list": ("list the pinned keys", "keys"),
    "keys pin": ("trust a key for a node", "keys"),
    "keys unpin": ("forget the key of a node", "keys"),
    "keys export": ("print keys for other nodes to pin", "keys"),
    "keys rotate": ("make a new key for a stopped node", "keys"),
    "cert rotate": ("make a new TLS certificate for a stopped node", "keys"),
}

HELP = """\
Usage: barrel COMMAND ...

Nodes of Erlang distribution over authenticated QUIC: start them, reach them, and find out why they don't connect.

{commands}

Try it, in two terminals:
  export BARREL_COOKIE=secret
  barrel start bob@127.0.0.1
  barrel ping bob@127.0.0.1

`barrel COMMAND --help` explains a command and shows examples.
Options can also stand in a TOML file (--config FILE) and in the environment (BARREL_COOKIE=secret and so on).
Exit status: 0 done, 1 the called function failed, 2 wrong usage or configuration, 3 no connection.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(_help(), end="")
            return OK if words else USAGE
        if words[0] == "--version":
            print(f"barrel {version('barrel-p2p')}")
            return OK
        return _run(words)
    except (Usage, ConfigError) as error:
        return _complain(error, USAGE)
    except (NotConnected, AuthError, HandshakeError, NodeDown) as error:
        return _complain(f"{error}\n`barrel doctor` with the same arguments explains it step by step", NOT_CONNECTED)
    except BarrelError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return 130  # what a shell expects of a program that Ctrl-C ended
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output is gone; nobody is left to complain to
        return FAILED


def _run(words: list[str]) -> int:
    name, rest = _command(words)
    from importlib import import_module

    module = import_module(f"barrel_p2p.cli.{COMMANDS[name][1]}")
    parser: Parser = module.parser(name)
    status: int = module.run(parser.read(rest))
    return status


def _command(words: list[str]) -> tuple[str, list[str]]:
    for size in (2, 1):
        name = " ".join(words[:size])
        if name in COMMANDS:
            return name, words[size:]
    group = [name for name in COMMANDS if name.startswith(words[0] + " ")]
    if group:
        raise Usage(f"barrel {words[0]} needs one more word: {', '.join(group)}")
    raise Usage(f"there is no command {words[0]!r}{nearest(words[0], COMMANDS)}")


def _help() -> str:
    lines = [f"  {name:<12} {text}" for name, (text, _) in COMMANDS.items()]
    return HELP.format(commands="\n".join(lines))


def _complain(error: Exception | str, status: int) -> int:
    print("barrel: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
    return status
