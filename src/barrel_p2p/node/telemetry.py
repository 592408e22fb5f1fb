"""What one node measures: counters kept here, and what its parts know anyhow, read when somebody asks.

Parts of the node call ``count`` and ``record`` for what happens seldom (a handshake, a neighbour lost, a broadcast);
what happens often (messages, bytes, queues) is counted by its owner and only read (``observe``). Nothing here knows
who looks: ``Node.statistics``, the text for Prometheus and OpenTelemetry read the same values.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from barrel_p2p.node.instruments import CATALOGUE, LOOP_LAG, NODE_ATTRIBUTES, Instrument

log = logging.getLogger("barrel_p2p.metrics")

MAX_SERIES: Final = 1_024  # sets of attributes of one instrument; a guess. What is new past it counts for peer "other"
OTHER: Final = "other"
LAG_PERIOD: Final = 1.0  # seconds between two looks at the event loop

Values = tuple[str, ...]
Source = Callable[[], Iterable[tuple[Values, float]]]
Listener = Callable[[Instrument, float, Values], None]


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values a histogram was given.

    Attributes:
        bounds: Upper bounds of the buckets, inclusive.
        buckets: How many values fell into each, and behind the last bound: one more than ``bounds``.
        total: Their sum.
    """

    bounds: tuple[float, ...]
    buckets: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.buckets)


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument at one moment: a number or a distribution for each set of attribute values."""

    instrument: Instrument
    series: Mapping[Values, float | Distribution]

    @property
    def value(self) -> float:
        """The sum over all attributes."""
        return sum(one.count if isinstance(one, Distribution) else one for one in self.series.values())


class Telemetry:
    """The measurements of one node."""

    def __init__(self) -> None:
        self._counts: dict[Instrument, dict[Values, float]] = {}
        self._distributions: dict[Instrument, dict[Values, _Buckets]] = {}
        self._sources: dict[Instrument, Source] = {}
        self._listeners: list[Listener] = []
        self._failed: set[object] = set()
        self._looks: asyncio.TimerHandle | None = None
        #: The loop whose thread alone may read, while the node runs.
        self.loop: asyncio.AbstractEventLoop | None = None
        #: How late the event loop was when it was looked at last, in seconds.
        self.lag = 0.0
        #: Called once a second.
        self.each_second: list[Callable[[], None]] = []

    # --- for what measures ------------------------------------------------------------------------------------------

    def count(self, counter: Instrument, *values: str, by: float = 1) -> None:
        """Add to a counter; ``values`` are those of its attributes, in their order."""
        series = self._counts.get(counter)
        if series is None:
            series = self._counts[counter] = {}
        if values not in series and len(series) >= MAX_SERIES:
            values = without_names(counter, values)
        series[values] = series.get(values, 0) + by

    def record(self, histogram: Instrument, value: float, *values: str) -> None:
        """Give a value to a histogram."""
        series = self._distributions.setdefault(histogram, {})
        buckets = series.get(values)
        if buckets is None:
            buckets = series[values] = _Buckets(histogram.bounds)
        buckets.add(value)
        for listener in list(self._listeners):
            try:
                listener(histogram, value, values)
            except Exception:
                self._complain(listener, "a listener of %s failed", histogram.name)

    def observe(self, instrument: Instrument, source: Source) -> None:
        """Ask ``source`` for the values whenever somebody wants to know; it replaces an earlier one."""
        self._sources[instrument] = source

    # --- for who looks ----------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, Metric]:
        """All instruments by name, at this moment."""
        return {instrument.name: Metric(instrument, self._series(instrument)) for instrument in CATALOGUE}

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with each value that a histogram is given; returns what ends that."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    def _series(self, instrument: Instrument) -> dict[Values, float | Distribution]:
        found: dict[Values, float | Distribution] = {
            values: buckets.distribution() for values, buckets in self._distributions.get(instrument, {}).items()
        }
        found |= self._counts.get(instrument, {})
        source = self._sources.get(instrument)
        if source is not None:
            try:
                for values, number in source():
                    if values not in found and len(found) >= MAX_SERIES:
                        values = without_names(instrument, values)
                    before = found.get(values, 0)
                    assert not isinstance(before, Distribution)
                    found[values] = before + number
            except Exception:  # what can't be read is missing; the rest is there
                self._complain(source, "%s can't be read", instrument.name)
        if not found and not instrument.attributes and instrument.kind == "counter":
            found[()] = 0
        return found

    def _complain(self, culprit: object, text: str, name: str) -> None:
        if culprit not in self._failed:
            self._failed.add(culprit)
            log.exception(f"internal error: {text}, which is said once", name)

    # --- the event loop ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Look at the event loop from now on."""
        self.loop = asyncio.get_running_loop()
        self._look_again(self.loop)

    def stop(self) -> None:
        self.loop = None
        if self._looks is not None:
            self._looks.cancel()

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + LAG_PERIOD
        self._looks = loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.lag = max(0.0, loop.time() - due)
        self.record(LOOP_LAG, self.lag)
        for action in self.each_second:
            action()
        self._look_again(loop)


class _Buckets:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def distribution(self) -> Distribution:
        return Distribution(self.bounds, tuple(self.counts), self.total)


def without_names(instrument: Instrument, values: Values) -> Values:
    """The values with ``other`` in place of names of nodes."""
    return tuple(
        OTHER if name in NODE_ATTRIBUTES else value for name, value in zip(instrument.attributes, values, strict=True)
    )


__all__ = ["MAX_SERIES", "OTHER", "Distribution", "Metric", "Source", "Telemetry", "Values"]
