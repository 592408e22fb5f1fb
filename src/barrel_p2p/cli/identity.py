"""Who the command is when it connects to a node: one key per user, and a name made of it.

::

    ~/.local/share/barrel-p2p/      (or $XDG_DATA_HOME/barrel-p2p)
        keys/                       the key, and the pins of the nodes it has met
        1/, 2/, ...                 one seat for each command that runs at the same moment

Nodes pin the key of every name they meet. With a fresh name or key for each call they would pin for ever, so the key
stays and the name follows from it: ``barrel-`` and eight digits of its fingerprint. Commands that run at once must
differ in name; the second one takes the second seat and has ``-2`` in its name, with the same key and the same pins.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from barrel_p2p.disk.directory import DataDir, DirectoryInUse
from barrel_p2p.disk.files import PRIVATE_FILE, make_private_directory, unusable
from barrel_p2p.disk.keys import KeyStore
from barrel_p2p.errors import ConfigError
from barrel_p2p.net.dns import resolve_host
from barrel_p2p.proto.identity import fingerprint_hex

SEATS = 64  # commands of one user at the same moment; a guess


@dataclass(frozen=True, slots=True)
class Seat:
    """A data directory to run a node in, and the part of its name before the ``@``."""

    data_dir: Path
    alive: str


def home() -> Path:
    """The directory of this user's key.

    Raises:
        ConfigError: The user has no home directory.
    """
    given = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(given) if given else Path.home() / ".local" / "share") / "barrel-p2p"
    except RuntimeError:
        raise ConfigError("this user has no home directory to keep a key in: give --data-dir DIR") from None


@contextlib.contextmanager
def seat() -> Iterator[Seat]:
    """Take a seat of this user for as long as the block runs; makes the key if there is none.

    Raises:
        ConfigError: The directory can't be used, or all seats are taken.
    """
    base = home()
    make_private_directory(base)
    with _alone(base):
        public_key = KeyStore(base / "keys").load_or_create().public_key
        number, reservation = _reserve(base)
    with reservation:
        data_dir = base / str(number) / "node"
        make_private_directory(data_dir)
        with contextlib.suppress(FileExistsError):
            (data_dir / "keys").symlink_to(Path("..", "..", "keys"))
        yield Seat(data_dir, alive_name(public_key, number))


def alive_name(public_key: bytes, number: int = 1) -> str:
    """The name that goes with a key, without its host."""
    suffix = "" if number == 1 else f"-{number}"
    return f"barrel-{fingerprint_hex(public_key)[:8]}{suffix}"


async def own_host(target: str, *, short: bool = False) -> str:
    """The host part of our name when we connect to a node on ``target``: our address as that host sees it.

    An Erlang node with a short name (no dot in its host) talks to short names only, so there it is this host's, or
    ``localhost`` again if ``short``.
    """
    if target == "localhost" and short:
        return target
    if "." not in target and target != "localhost":
        return socket.gethostname().partition(".")[0]
    try:
        addresses = [str(ipaddress.ip_address(target))]
    except ValueError:
        try:
            addresses = await resolve_host(target)
        except OSError:
            addresses = []
    for address in addresses:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing; picks the address that would be used
            return str(probe.getsockname()[0])
    return "127.0.0.1"


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """One command at a time; it waits for the others."""
    path = base / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise unusable(path, "open", error) from None
    try:
        with contextlib.suppress(OSError):  # a file system without locks: as good as it gets
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _reserve(base: Path) -> tuple[int, DataDir]:
    for number in range(1, SEATS + 1):
        with contextlib.suppress(DirectoryInUse):
            return number, DataDir(base / str(number)).lock()
    raise ConfigError(f"{SEATS} barrel commands run already; wait for one to end, or give --data-dir DIR")


__all__ = ["Seat", "alive_name", "home", "own_host", "seat"]
