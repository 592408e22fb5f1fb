"""Small files that must never be seen half written, nor by other users."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from barrel_p2p.errors import ConfigError

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700


def write_atomic(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace ``path`` by ``data`` so that a crash at any point leaves the old file or the new one, whole.

    Raises:
        OSError: nothing was replaced.
    """
    temporary = path.with_name(path.name[:240] + ".tmp")  # a file name has at most 255 bytes
    with _alone_in(path.parent):  # commands that run at once share their pins
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # of a crash; O_EXCL below then makes sure that the file and its mode are ours
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), mode)  # the umask has no say
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    sync_directory(path.parent)


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: as good as it gets
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync_directory(path: Path) -> None:
    """Make renames and removals in ``path`` outlive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_private_directory(path: Path) -> None:
    """Create ``path`` (and its parents) for this user only; an existing one must not be writable by others.

    Raises:
        ConfigError: it can't be created, is no directory, or others may write there.
    """
    make_directory(path)
    mode = path.stat().st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"other users may write to {path} (mode {stat.S_IMODE(mode):04o}), so the keys in it can't be "
            "trusted: "
            f"check its content, then run chmod 700 {path}"
        )


def make_directory(path: Path, option: str = "data_dir") -> None:
    """Create ``path`` (and its parents), the value of ``option``, if it is not there; a new one is for this user only.

    Raises:
        ConfigError: it can't be created, or is no directory.
    """
    try:
        path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(path, "create the directory", error, option) from None


def make_backup_directory(parent: Path) -> Path:
    """Create ``backups/<time>`` in ``parent`` (upstream's form of the time, UTC); never one that exists
    already.

    Raises:
        ConfigError: it can't be created.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    make_private_directory(parent / "backups")
    for number in itertools.count(1):
        path = parent / "backups" / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            path.mkdir(mode=PRIVATE_DIR)
            break
        except FileExistsError:
            continue
        except OSError as error:
            raise unusable(path, "create the directory", error) from None
    return path


def require_private(path: Path) -> None:
    """Check that nobody else can read a secret.

    Raises:
        ConfigError: the mode of the file lets others in.
    """
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(
            f"{path} is a private key, but its mode {mode:04o} lets other users at it: run chmod 600 {path}, "
            "and make "
            "a new key if somebody may have read it"
        )


def unusable(path: Path, attempt: str, error: OSError, option: str = "data_dir") -> ConfigError:
    """The ConfigError for a file operation that failed below the directory that ``option`` names."""
    return ConfigError(f"could not {attempt} {path}: {error.strerror or error}; {remedy(error.errno, option)}")


def remedy(code: int | None, option: str = "data_dir") -> str:
    """What to do about an error of the operating system with a file below the directory that ``option`` names."""
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"free some space there, or choose another {option}"
    if code == errno.EROFS:
        return f"mount it writable, or choose another {option}"
    if code in (errno.EMFILE, errno.ENFILE):
        return "this process may open no more files: raise its limit (ulimit -n, LimitNOFILE= of systemd)"
    return f"choose another {option} or fix its rights"


__all__ = [
    "PRIVATE_DIR",
    "PRIVATE_FILE",
    "make_backup_directory",
    "make_directory",
    "make_private_directory",
    "remedy",
    "require_private",
    "sync_directory",
    "unusable",
    "write_atomic",
]
