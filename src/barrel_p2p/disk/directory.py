"""The data directory of a node: one node at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from types import TracebackType

from barrel_p2p.disk.files import PRIVATE_FILE, make_directory, unusable
from barrel_p2p.errors import ConfigError

_log = logging.getLogger("barrel_p2p.disk")


class DirectoryInUse(ConfigError):
    """Another node, of this or another OS process, holds the data directory."""


class DataDir:
    """Owns a data directory: creates it, locks it, names what is in it.

    Two nodes on one directory would share a key and write over each other's pins, so the second one is
    refused. The lock belongs to the open file: it vanishes with the process, however that ends.

    Example::

        with DataDir("data/alice").lock() as data:
            KeyStore(data.keys)
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._handle: int | None = None

    @property
    def keys(self) -> Path:
        """Identity and pins."""
        return self.path / "keys"

    @property
    def quic(self) -> Path:
        """The TLS certificate and its key."""
        return self.path / "quic"

    @property
    def maps(self) -> Path:
        """Replicated maps that are kept."""
        return self.path / "maps"

    def lock(self) -> DataDir:
        """Create the directory if need be and take it for this node; ``release`` or the end of ``with`` gives
        it back.

        Raises:
            ConfigError: another node holds it, or it can't be created or written.
        """
        make_directory(self.path)
        path = self.path / "lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        except OSError as error:
            raise unusable(path, "open", error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise DirectoryInUse(
                f"the data directory {self.path} is in use by another node (process {holder}): give every "
                "node its own "
                "data_dir"
            ) from None
        except OSError as error:
            _log.warning("%s can't be locked (%s): take care that no other node uses it", self.path, error.strerror)
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(handle)
            raise unusable(path, "write", error) from None
        self._handle = handle
        return self

    def release(self) -> None:
        """Give the directory back; doing so twice is fine."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> DataDir:
        return self if self._handle is not None else self.lock()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


__all__ = ["DataDir", "DirectoryInUse"]
