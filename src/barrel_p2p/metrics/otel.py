"""The measurements of a node as instruments of OpenTelemetry; needs the API alone (extra ``otel``).

Counters and gauges are observable: they are read when a reader asks, which readers do in threads of their own. A node
belongs to its event loop, so the loop's thread reads, once for all instruments of one collection. A loop that is
blocked is waited for ``PATIENCE`` seconds; then the last readings stand. Histograms are told each value as it comes.

Whatever a provider, a reader or an exporter does wrong is logged once and left at that.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from barrel_p2p.errors import ConfigError
from barrel_p2p.node.instruments import CATALOGUE, Instrument
from barrel_p2p.node.node import Node
from barrel_p2p.node.telemetry import Distribution, Metric, Telemetry, Values

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation

log = logging.getLogger("barrel_p2p.metrics")

PATIENCE: Final = 1.0  # seconds a reader's thread waits for the event loop; a guess
FRESH: Final = 0.2  # seconds in which readings count as those of the same collection; a guess


def instrument(node: Node, meter_provider: MeterProvider | None = None) -> Instrumentation:
    """Offer everything that ``node`` measures to OpenTelemetry, under the meter ``barrel_p2p``.

    ::

        node = Node("alice@127.0.0.1", cookie="secret")
        instrument(node)                  # best before the node starts: histograms are not told afterwards
        async with node: ...

    Args:
        node: Every value gets its name as the attribute ``node``.
        meter_provider: By default the one that the program has set for OpenTelemetry.

    Raises:
        ConfigError: ``opentelemetry-api`` is not installed.
    """
    try:
        from opentelemetry import metrics
    except ImportError as error:
        raise ConfigError("instrument() needs OpenTelemetry: pip install 'barrel-p2p[otel]'") from error
    # a meter of its own for each node: of two observable instruments of one name the SDK asks only the first
    meter = metrics.get_meter("barrel_p2p", version("barrel-p2p"), meter_provider, attributes={"node": str(node.name)})
    return Instrumentation(node, meter, metrics.Observation)


class Instrumentation:
    """What ``instrument`` returns; ``stop()`` ends it."""

    def __init__(self, node: Node, meter: Meter, observation: type[Observation]) -> None:
        self._node: dict[str, str] = {"node": str(node.name)}
        self._readings = _Readings(node.telemetry)
        self._observation = observation
        self._histograms: dict[Instrument, Any] = {}
        self._stopped = False
        for one in CATALOGUE:
            try:
                self._register(one, meter)
            except Exception:  # the provider's fault; the node and the other instruments go on
                log.exception("OpenTelemetry does not take the instrument %s", one.name)
        self._end = node.telemetry.listen(self._record)

    def stop(self) -> None:
        """Tell no more values. OpenTelemetry has no way to take an instrument back."""
        self._stopped = True
        self._end()

    def _register(self, one: Instrument, meter: Meter) -> None:
        if one.kind == "counter":
            meter.create_observable_counter(one.name, [self._observer(one)], one.unit, one.text)
        elif one.kind == "gauge":
            meter.create_observable_gauge(one.name, [self._observer(one)], one.unit, one.text)
        else:
            self._histograms[one] = meter.create_histogram(
                one.name, one.unit, one.text, explicit_bucket_boundaries_advisory=one.bounds
            )

    def _observer(self, one: Instrument) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            metric = None if self._stopped else self._readings.now().get(one.name)
            if metric is None:
                return []
            return [
                self._observation(number, self._attributes(one, values))
                for values, number in metric.series.items()
                if not isinstance(number, Distribution)
            ]

        return observe

    def _record(self, one: Instrument, value: float, values: Values) -> None:
        histogram = self._histograms.get(one)
        if histogram is not None:
            histogram.record(value, self._attributes(one, values))

    def _attributes(self, one: Instrument, values: Values) -> dict[str, str]:
        return self._node | {name: str(value) for name, value in zip(one.attributes, values, strict=True)}


class _Readings:
    """Reads a node from any thread."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._last: Mapping[str, Metric] = {}
        self._read_at = float("-inf")

    def now(self) -> Mapping[str, Metric]:
        loop = self._telemetry.loop
        if loop is None:  # the node does not run
            return {}
        with self._lock:
            if time.monotonic() - self._read_at > FRESH:
                if _is_running_here(loop):
                    self._read()
                else:
                    self._read_there(loop)
                self._read_at = time.monotonic()
            return self._last

    def _read_there(self, loop: Any) -> None:
        done = threading.Event()

        def read() -> None:
            self._read()
            done.set()

        try:
            loop.call_soon_threadsafe(read)
        except RuntimeError:  # the loop has just been closed
            return
        done.wait(PATIENCE)

    def _read(self) -> None:
        self._last = self._telemetry.metrics()


def _is_running_here(loop: Any) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


__all__ = ["Instrumentation", "instrument"]
