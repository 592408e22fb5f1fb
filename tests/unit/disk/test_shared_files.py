"""Files that several processes write."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from barrel_p2p.disk.files import write_atomic


def write_often(path: Path) -> None:
    for _ in range(100):
        write_atomic(path, b"pin")


def test_processes_that_write_one_file_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(tmp_path / "bob.pub",)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["bob.pub"]
