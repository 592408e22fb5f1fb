"""Crashes, restarts, leaves, partitions, slow nodes, wrong clocks: afterwards the overlay is right again."""

from __future__ import annotations

import pytest

from barrel_p2p.testing import run

SEEDS = 100  # some 0.4 s each; ``make sim`` runs more


@pytest.mark.parametrize("seed", range(SEEDS))
def test_fifty_nodes_recover_from_chaos(seed: int) -> None:
    """The checkers are on all the time; what they find is the failure."""
    report = run("chaos", seed=seed)
    ready, end = report.phases["ready"], report.phases["end"]
    assert ready.component == end.component == 1.0
    assert 45 <= end.nodes <= 60  # some die for good, others come
    chaos, quiet = report.broadcasts
    assert quiet.complete == quiet.count == 10
    assert chaos.reliability > 0.9


def test_a_split_cluster_becomes_one_again() -> None:
    report = run("partition")
    parted, whole = report.broadcasts
    assert parted.reliability < 0.7
    assert whole.complete == whole.count
    assert report.phases["end"].component == 1.0


def test_links_are_mended_where_messages_get_lost() -> None:
    report = run("datagrams")
    [lossy] = report.broadcasts
    assert lossy.reliability > 0.999
    assert report.phases["end"].component == 1.0
    assert report.phases["end"].one_sided <= 4
