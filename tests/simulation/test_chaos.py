"""Crashes, restarts, leaves, partitions, slow nodes, wrong clocks: afterwards the overlay is right again."""

from __future__ import annotations

import pytest

from barrel_p2p.testing import Scenario, checkers, run
from barrel_p2p.testing.cluster import Cluster
from barrel_p2p.testing.scenario import JoinPlan, Network

SEEDS = 100  # some 0.4 s each; ``make sim`` runs more


@pytest.mark.parametrize("seed", range(SEEDS))
def test_fifty_nodes_recover_from_chaos(seed: int) -> None:
    """The checkers are on all the time; what they find is the failure."""
    report = run("chaos", seed=seed)
    ready, end = report.phases["ready"], report.phases["end"]
    assert ready.component > 0.9  # some may still look for a contact
    assert end.component == 1.0
    assert 45 <= end.nodes <= 60  # some die for good, others come
    chaos, quiet = report.broadcasts
    assert quiet.complete == quiet.count == 10
    assert chaos.reliability > 0.8  # up to half of the nodes are cut off for up to half a minute, again and again


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


@pytest.mark.parametrize("seed", range(3))
def test_a_split_heals_although_all_nodes_but_the_contacts_were_replaced_meanwhile(seed: int) -> None:
    """A new release was rolled out on either side: nobody is left who had a neighbour on the other."""
    plan = Scenario(name="rollout", nodes=62, join=JoinPlan(within=30, contacts=2, configured=True))
    cluster = Cluster(plan, seed)
    clock = cluster.clock
    for number in range(plan.nodes):
        clock.at(number * 500, lambda name, _, __: cluster.start(name), f"n{number}@sim")
    clock.run(90_000)
    assert not checkers.connected(cluster)
    cluster.cut({member.name: member.number % 2 for member in cluster.live}, one_way=False)
    clock.run(clock.ms + 400_000)
    for old in cluster.live:
        if old.name not in cluster.contacts:
            cluster.crash(old)
            new = f"new{cluster.made}@sim"
            cluster.sides[new] = old.side
            cluster.start(new)
            clock.run(clock.ms + 3000)
    clock.run(clock.ms + 400_000)
    assert checkers.connected(cluster)
    cluster.heal()
    clock.run(clock.ms + 600_000)
    assert not checkers.connected(cluster)
    assert not checkers.symmetric(cluster)


@pytest.mark.parametrize("seed", range(30))
def test_contacts_that_start_together_become_one_cluster(seed: int) -> None:
    """Each takes a random other one; two pairs that found each other must find out that they are two."""
    plan = Scenario(
        name="contacts",
        nodes=6,
        seed=seed,
        duration=60.0,
        join=JoinPlan(within=0.1, contacts=6, settle=10.0, configured=True),
        network=Network(connect_failure=0.3),
    )
    assert run(plan).phases["end"].component == 1.0
