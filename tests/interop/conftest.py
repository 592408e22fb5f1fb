"""What every test beside a real Erlang node needs: an epmd of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.erlang import Epmd


@pytest.fixture(scope="module")
def epmd() -> Iterator[Epmd]:
    with Epmd() as mapper:
        yield mapper
