"""Public test support: clusters of real nodes, and simulated ones in virtual time, with checkers.

::

    async with LocalCluster(3) as cluster:
        alice, bob, carol = cluster.nodes

    print("\\n".join(run("join", nodes=1000).lines()))

The nodes of a simulated cluster are the very machines of a real one (``proto.hyparview``, ``proto.plumtree``); clock,
network, crashes and partitions are simulated (``clock``, ``network``, ``faults``). A run follows from its scenario and
one seed. The pytest fixture ``barrel_cluster`` is in ``plugin``.
"""

from __future__ import annotations

from barrel_p2p.testing.broadcasts import Outcome
from barrel_p2p.testing.graph import Shape
from barrel_p2p.testing.local import LocalCluster
from barrel_p2p.testing.report import Report, SimulationFailed, Summary
from barrel_p2p.testing.run import Progress, run
from barrel_p2p.testing.scenario import Scenario, load, standard

__all__ = [
    "LocalCluster",
    "Outcome",
    "Progress",
    "Report",
    "Scenario",
    "Shape",
    "SimulationFailed",
    "Summary",
    "load",
    "run",
    "standard",
]
