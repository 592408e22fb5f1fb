"""One node in one data directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from barrel_p2p.disk.directory import DataDir
from barrel_p2p.errors import ConfigError


def test_a_second_node_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    with DataDir(tmp_path / "alice").lock(), pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        DataDir(tmp_path / "alice").lock()
    with DataDir(tmp_path / "alice"):
        pass  # free again


def test_releasing_twice_is_fine(tmp_path: Path) -> None:
    data = DataDir(tmp_path).lock()
    data.release()
    data.release()
    DataDir(tmp_path).lock().release()


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    """The lock file of a killed node is still there, its lock is not."""
    program = (
        "import sys; from barrel_p2p.disk.directory import DataDir\n"
        f"d = DataDir({str(tmp_path)!r}).lock(); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
        with pytest.raises(ConfigError, match=f"process {holder.pid}"):
            DataDir(tmp_path).lock()
        holder.kill()
        holder.wait()
        DataDir(tmp_path).lock().release()


def test_a_directory_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/alice"):
        DataDir(tmp_path / "file" / "alice").lock()
