"""Endpoint files: a directory with one small file for each node, ``bob@10.0.0.2.endpoint``, as upstream has them.

Nodes of one host or file system share it; the content is one Erlang term, ``{"10.0.0.2", 9100}.``, so Erlang and Python
nodes find each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import os
import re
from pathlib import Path

from barrel_p2p.disk.files import make_directory, unusable, write_atomic
from barrel_p2p.errors import ConfigError
from barrel_p2p.proto.names import host_of, is_node_name
from barrel_p2p.term.types import Atom

MAX_ENDPOINT_FILE = 4096  # bytes
MAX_NODE_NAME_IN_FILE = 240  # bytes of a name that still fit a file name with its suffixes

_ENDPOINT = re.compile(
    r"""\s*\{\s*
    (?: "(?P<text>[^"\\]*)" | <<\s*"(?P<binary>[^"\\]*)"\s*>> | \{(?P<tuple>[\d\s,]*)\} )
    \s*,\s*(?P<port>\d{1,5})\s*\}\s*\.\s*""",
    re.VERBOSE,
)

_log = logging.getLogger("barrel_p2p.discovery")


class EndpointFiles:
    """The files of one directory, which is made if it is not there. Raises ConfigError if it can't be used."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: int | None = None
        make_directory(directory, "discovery_dir")

    def path(self, node: Atom) -> Path | None:
        """The file of a node; None for a name that is too long for a file."""
        return None if len(node) > MAX_NODE_NAME_IN_FILE else self._directory / f"{node}.endpoint"

    def read(self, path: Path) -> tuple[str, int] | str:
        """The entry of an endpoint file, or what is wrong with it."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_ENDPOINT_FILE)
        except FileNotFoundError:
            return "is not there"
        except OSError as error:
            return f"can't be read ({error.strerror})"
        entry = parse_endpoint(data)
        if entry is None:
            _log.warning('%s is no endpoint file: it must hold {"host", port}. and nothing else', path)
            return 'does not hold {"host", port}.'
        return entry

    def publish(self, node: Atom, port: int) -> None:
        """Write the file of this node: its host (after the ``@``) and its port, and hold it until ``unpublish``.

        Held is a lock on the file itself, which ends with the OS process: a file without it was left by a dead node.
        Erlang nodes take none.

        Raises:
            ConfigError: the file can't be written, or a node of this name that lives holds it.
        """
        path = self.path(node)
        if path is None:
            raise ConfigError(f"{node[:60]}... is too long for a file name: at most {MAX_NODE_NAME_IN_FILE} characters")
        try:
            before = _lock(path)
        except BlockingIOError:
            now = self.read(path)
            raise ConfigError(
                f"another node called {node} is running{f' on port {now[1]}' if isinstance(now, tuple) else ''} (it "
                f"holds {path}): stop it, or choose another name"
            ) from None
        try:
            write_atomic(path, f'{{"{host_of(node)}",{port}}}.\n'.encode("ascii"), mode=0o644)
        except OSError as error:
            raise unusable(path, "write", error, "discovery_dir") from None
        finally:
            if before is not None:
                os.close(before)
        with contextlib.suppress(BlockingIOError):  # of who starts at the very same moment: either may have it
            self._held = _lock(path)

    def unpublish(self, node: Atom, port: int) -> None:
        """Remove the file of this node, unless a successor has written its own port there meanwhile."""
        path = self.path(node)
        if path is not None and self.read(path) == (host_of(node), port):
            with contextlib.suppress(OSError):
                path.unlink()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def names(self) -> list[Atom]:
        """The nodes that have a file which can be read."""
        names = []
        with contextlib.suppress(OSError):
            for path in self._directory.glob("*.endpoint"):
                name = path.name.removesuffix(".endpoint")
                if is_node_name(name) and isinstance(self.read(path), tuple):
                    names.append(Atom(name))
        return names


def _lock(path: Path) -> int | None:
    """An open file with a lock; None where there is no file, or no lock to be had (some network file systems).

    Raises:
        BlockingIOError: somebody else has it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle


def parse_endpoint(data: bytes) -> tuple[str, int] | None:
    """Read the content of an endpoint file: ``{"host", port}.``, also with a binary or an address tuple as
    host.
    """
    match = _ENDPOINT.fullmatch(data.decode("latin-1"))
    if match is None:
        return None
    port = int(match["port"])
    host = match["text"] or match["binary"]
    if match["tuple"] is not None:
        host = _host_of_tuple(match["tuple"])
    return (host, port) if host and 0 < port < 65536 and host.isascii() and host.isprintable() else None


def _host_of_tuple(text: str) -> str | None:
    try:
        numbers = [int(part) for part in text.split(",")]
        if len(numbers) == 4:
            return str(ipaddress.IPv4Address(bytes(numbers)))
        if len(numbers) == 8:
            return str(ipaddress.IPv6Address(b"".join(number.to_bytes(2, "big") for number in numbers)))
    except (ValueError, OverflowError):
        pass
    return None


__all__ = ["EndpointFiles", "parse_endpoint"]
