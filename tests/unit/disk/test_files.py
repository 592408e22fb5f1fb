"""What is said about a file that can't be read or written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from barrel_p2p.disk.files import unusable


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "mount it writable"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EACCES, "fix its rights"),
    ],
)
def test_the_advice_fits_the_cause(code: int, advice: str) -> None:
    text = str(unusable(Path("data/lock"), "write", OSError(code, os.strerror(code))))
    assert "data/lock" in text and os.strerror(code) in text and advice in text
