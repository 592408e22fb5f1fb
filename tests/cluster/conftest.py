"""``pytestmark = pytest.mark.usefixtures("carrier")`` runs the tests of a file over each carrier."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import cluster
from harness.erlang import Epmd


@pytest.fixture(scope="session")
def epmd() -> Iterator[Epmd]:
    with Epmd() as mapper:
        yield mapper


@pytest.fixture(params=["barrel_p2p", "inet_tcp"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    monkeypatch.setitem(cluster.common, "proto_dist", name)
    if name == "inet_tcp":
        monkeypatch.setitem(cluster.common, "epmd_port", request.getfixturevalue("epmd").port)
    return name
