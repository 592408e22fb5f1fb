"""A thousand nodes: the shape of the overlay, mass crashes, the broadcast tree.

For ten thousand see ``benchmarks/overlay.py``.
"""

from __future__ import annotations

from barrel_p2p.testing import run


def test_a_thousand_nodes_joined_through_one_contact_are_a_random_graph() -> None:
    report = run("join")
    shape = report.phases["ready"]
    assert (shape.nodes, shape.component, shape.one_sided) == (1000, 1.0, 0)
    assert shape.in_degree.get(5, 0) >= 900
    assert max(shape.in_degree) == 5
    assert min(shape.in_degree) >= 1
    assert shape.clustering < 0.01  # that of a random graph: 0.004
    assert shape.path < 5.0  # of a random one: 4.7
    warm_up, quiet = report.broadcasts
    assert warm_up.complete == warm_up.count
    assert quiet.complete == quiet.count
    assert quiet.redundancy < 0.01


def test_eight_of_ten_crash_and_the_others_heal() -> None:
    report = run("crash")
    groups = {group.label: group for group in report.broadcasts}
    assert groups["before"].reliability == 1.0
    assert groups["unnoticed"].reliability < 0.5  # the crash is real
    assert groups["healed"].reliability >= 0.99
    assert groups["plumtree"].reliability >= 0.99


def test_broadcasts_reach_everybody_while_a_fifth_of_the_nodes_changes_every_minute() -> None:
    report = run("churn", nodes=300)
    groups = {group.label: group for group in report.broadcasts}
    assert groups["stable"].redundancy < 0.01
    assert groups["churn"].reliability > 0.999
    assert groups["churn"].redundancy < 1.0  # flooding: 3
    assert groups["after"].complete == groups["after"].count
