"""``barrel keys ...`` and ``barrel cert rotate``: the key and the pins of this command, or of a node by its data
directory."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from barrel_p2p.cli.arguments import Parser, Usage
from barrel_p2p.cli.identity import alive_name, home
from barrel_p2p.cli.status import FAILED, OK
from barrel_p2p.disk.directory import DataDir
from barrel_p2p.disk.keys import KeyStore, TrustStore
from barrel_p2p.errors import AuthError, ConfigError
from barrel_p2p.net import certificate
from barrel_p2p.proto.identity import fingerprint, fingerprint_hex
from barrel_p2p.proto.names import validate_node_name
from barrel_p2p.proto.words import fingerprint_words

TEXTS = {
    "keys show": "Shows the public key of this command (made on first use), or of the node that owns DIR.",
    "keys list": "Lists the keys pinned for other nodes: name, fingerprint, public key in hexadecimal.",
    "keys pin": "Trusts a public key for a node from now on. HEX is what `barrel keys show` prints as `public` there.",
    "keys unpin": "Forgets the key pinned for a node: the next key it presents is pinned (in tofu mode).",
    "keys export": "Prints the pins as `barrel keys pin` commands, for another node. With NODE the key of DIR as well, "
    "as that node's.",
    "keys rotate": "Makes a new key for the node NODE that owns DIR and is stopped; the old one goes to a backup and "
    "endorses the new one. A running node does it with node.rotate_identity().",
    "cert rotate": "Makes a new TLS certificate for the node that owns DIR and is stopped; the old one goes to a "
    "backup. A running node does it with node.rotate_cert().",
}
EXAMPLES = {
    "keys show": ("barrel keys show", "barrel keys show --data-dir data/bob@127.0.0.1"),
    "keys list": ("barrel keys list",),
    "keys pin": ("barrel keys pin bob@10.0.0.2 $(cat bobs-key.txt)",),
    "keys unpin": ("barrel keys unpin bob@10.0.0.2", "barrel keys unpin bob@10.0.0.2 --data-dir data/alice@10.0.0.1"),
    "keys export": ("barrel keys export bob@10.0.0.2 --data-dir data/bob@10.0.0.2",),
    "keys rotate": ("barrel keys rotate bob@10.0.0.2 --data-dir data/bob@10.0.0.2",),
    "cert rotate": ("barrel cert rotate --data-dir data/bob@10.0.0.2",),
}


def parser(name: str) -> Parser:
    made = Parser(name, TEXTS[name], EXAMPLES[name])
    made.set_defaults(action=name)
    if name in ("keys pin", "keys unpin", "keys rotate"):
        made.add_argument("node", metavar="NODE", help="its name, such as bob@127.0.0.1")
    if name == "keys export":
        made.add_argument("node", metavar="NODE", nargs="?", help="the name of the node that owns DIR")
    if name == "keys pin":
        made.add_argument("key", metavar="HEX", help="its public key, 64 hexadecimal digits")
    if name in ("keys rotate", "cert rotate"):
        made.add_argument("--data-dir", metavar="DIR", required=True, help="of the node")
    else:
        made.add_argument("--data-dir", metavar="DIR", help="of a node; default: the key and pins of this command")
    return made


def run(arguments: argparse.Namespace) -> int:
    directory = Path(arguments.data_dir) if arguments.data_dir else None
    match arguments.action:
        case "keys show":
            return _show(directory)
        case "keys list":
            for name, key in TrustStore(_keys(directory)).pins().items():
                print(f"{name}  {fingerprint(key)}  {key.hex()}")
            return OK
        case "keys export":
            return _export(directory, arguments.node)
    with _at_rest(directory):
        if directory is not None and arguments.action == "keys rotate":
            return _rotate(directory, arguments.node)
        if directory is not None and arguments.action == "cert rotate":
            made = certificate.rotate(directory / "quic")
            print(f"{directory / 'quic' / 'node.crt'} is new; it expires on {made.not_after:%Y-%m-%d}")
            return OK
        return _change(TrustStore(_keys(directory)), arguments)


def _show(directory: Path | None) -> int:
    identity = KeyStore(_keys(directory)).load_or_create()
    if directory is None:
        print(f"name         {alive_name(identity.public_key)}@<address of this host>")
    print(f"fingerprint  {identity.fingerprint}")
    print(f"hex          {fingerprint_hex(identity.public_key)}  (the fingerprint as Erlang nodes log it)")
    print(f"words        {fingerprint_words(identity.public_key)}")
    print(f"public       {identity.public_key.hex()}")
    return OK


def _export(directory: Path | None, node: str | None) -> int:
    keys = _keys(directory)
    if node is not None:
        print(f"barrel keys pin {validate_node_name(node)} {KeyStore(keys).load_or_create().public_key.hex()}")
    for name, key in TrustStore(keys).pins().items():
        print(f"barrel keys pin {name} {key.hex()}")
    return OK


def _rotate(directory: Path, node: str) -> int:
    name = validate_node_name(node)
    store = KeyStore(_keys(directory))
    old = store.load_or_create()
    new = store.rotate(name)
    print(f"{name} has a new key, endorsed by the old one")
    print(f"old    {old.fingerprint}")
    print(f"new    {new.fingerprint}")
    print(f"words  {fingerprint_words(new.public_key)}")
    print("nodes of this library accept it; on Erlang nodes remove the pin of the old one")
    return OK


def _change(trust: TrustStore, arguments: argparse.Namespace) -> int:
    if arguments.action == "keys unpin":
        forgotten = trust.unpin(arguments.node)
        print(f"{arguments.node} is unpinned" if forgotten else f"{arguments.node} was not pinned")
        return OK if forgotten else FAILED
    try:
        key = bytes.fromhex(arguments.key)
    except ValueError:
        raise Usage(f"barrel keys pin: {arguments.key!r:.80} is no hexadecimal number") from None
    try:
        trust.pin(arguments.node, key)
    except AuthError as error:
        raise Usage(f"barrel keys pin: {error} (barrel keys unpin {arguments.node})") from None
    print(f"{arguments.node} is pinned to {fingerprint(key)}")
    return OK


def _keys(directory: Path | None) -> Path:
    """The directory of the keys. One that a user names must be there: a slip of the pen makes no new identity."""
    if directory is None:
        return home() / "keys"
    if not (directory / "keys" / "node.key").exists():
        raise ConfigError(f"{directory} is no data directory of a node: there is no {directory / 'keys' / 'node.key'}")
    return directory / "keys"


def _at_rest(directory: Path | None) -> contextlib.AbstractContextManager[object]:
    """Pins of a running node are in its memory: a change on disk would not reach it, so it is refused."""
    if directory is None:
        return contextlib.nullcontext()
    _keys(directory)
    return DataDir(directory).lock()
