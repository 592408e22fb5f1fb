"""The measurements of a node for others: as text for Prometheus, and as instruments of OpenTelemetry.

::

    prometheus_text(node)             # for a handler of the HTTP server that the program has anyhow
    instrument(node)                  # with the meter provider of the program; needs the extra ``otel``
    node.statistics().metrics         # the same as plain data

``docs/reference/metrics.md`` lists the instruments.
"""

from __future__ import annotations

from barrel_p2p.metrics.otel import Instrumentation, instrument
from barrel_p2p.metrics.prometheus import CONTENT_TYPE, prometheus_text

__all__ = ["CONTENT_TYPE", "Instrumentation", "instrument", "prometheus_text"]
