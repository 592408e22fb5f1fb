"""Public test support: clusters of real nodes for your own tests.

::

    async with LocalCluster(3) as cluster:
        alice, bob, carol = cluster.nodes
"""

from __future__ import annotations

from barrel_p2p.testing.local import LocalCluster

__all__ = ["LocalCluster"]
