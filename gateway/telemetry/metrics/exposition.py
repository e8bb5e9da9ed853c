"""The numbers of all processes as one Prometheus page: sums of the cells, and what is on the scoreboard.

The decision: only the ops process runs this, at a scrape, by reading memory that the others go on writing; nobody is
asked and nobody waits. A page may therefore be a request apart between two families, never between two scrapes of a
counter.
"""

from __future__ import annotations

from itertools import accumulate, repeat
from operator import add
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as Shown
from prometheus_client.utils import floatToGoString

from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.counters import VOID, Labels, Region
from gateway.telemetry.metrics.exemplars import FIRST_SLOT, SLOTS_OF_A_CLASS
from gateway.telemetry.metrics.families import CLASSES, PREFIX, Family
from gateway.telemetry.metrics.scoreboard import Scoreboard, State
from gateway.version import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

_MICROSECONDS: Final = 1_000_000

Sums = dict[Labels, list[int]]
Reading = tuple[Family, Sums]
"""A family, and its series as somebody else has found them."""


class ScoreboardCollector(Collector):
    """Reads a scoreboard whole at each `collect`."""

    def __init__(
        self, scoreboard: Scoreboard, readings: Iterable[Reading] = (), *, has_exemplars: bool = False
    ) -> None:
        """Collect from the slots of `scoreboard`, and show `readings` beside; exemplars where the format has them."""
        self._scoreboard = scoreboard
        self._readings = readings
        self._has_exemplars = has_exemplars

    def collect(self) -> Iterator[Metric]:
        """Yield every declared family, those without a series as well."""
        sums = sum_series(slot.region for slot in self._scoreboard.slots)
        for family in metrics.COUNTED:
            if family.kind == "histogram":
                yield _histogram(family, sums[family.name], self._exemplars(family))
            else:
                yield _METRIC_OF[family.kind](family, sums[family.name])
        workers: Sums = {(state.name.lower(),): [self._scoreboard.count(state)] for state in State}
        yield _gauge(metrics.WORKERS, workers)
        yield _gauge(metrics.STATE_STORE_UP, {(): [int(self._scoreboard.has_store())]})
        yield _gauge(metrics.REPLICAS, {(): [self._scoreboard.replicas()]})
        yield _gauge(metrics.POLICY_GENERATION, {(): [self._scoreboard.generation()]})
        yield _gauge(metrics.BUILD_INFO, {(VERSION,): [1]})
        yield _gauge(metrics.INFLIGHT_LIMIT, {(): [self._scoreboard.inflight_limit()]})
        for family, read in self._readings:
            yield _METRIC_OF[family.kind](family, read)

    def _exemplars(self, family: Family) -> dict[Labels, list[Shown | None]]:
        """Return the newest exemplar of each bucket of each class, whichever worker has it."""
        first = FIRST_SLOT.get(family.name)
        if first is None or not self._has_exemplars:
            return {}
        slots_of = {billing: first + place * SLOTS_OF_A_CLASS for place, billing in enumerate(CLASSES)}
        return {
            (billing,): [self._exemplar(place) for place in range(begin, begin + SLOTS_OF_A_CLASS)]
            for billing, begin in slots_of.items()
        }

    def _exemplar(self, place: int) -> Shown | None:
        kept = filter(None, (slot.region.exemplars.read(place) for slot in self._scoreboard.workers))
        newest = max(kept, default=None)
        if newest is None:
            return None
        name = "trace_id" if newest.is_traced else "request_id"
        return Shown({name: newest.id}, newest.seconds, newest.timestamp)


def sum_series(regions: Iterable[Region]) -> dict[str, Sums]:
    """Return for each counted family its series, cell by cell summed over all regions."""
    sums: dict[str, Sums] = {family.name: {} for family in metrics.COUNTED}
    for region in regions:
        for series in region.series():
            values = region.values(series)
            earlier = sums[series.family].get(series.labels)
            sums[series.family][series.labels] = list(map(add, earlier, values)) if earlier else values
    return sums


def expose(scoreboard: Scoreboard, accept: str, readings: Iterable[Reading] = ()) -> tuple[bytes, str]:
    """Return the page and its content type: OpenMetrics where the Accept field asks for it, else Prometheus text."""
    encode, content_type = _encoder(accept)
    has_exemplars = content_type.startswith("application/openmetrics-text")
    return encode(ScoreboardCollector(scoreboard, readings, has_exemplars=has_exemplars)), content_type


def _bucket(name: str, count: int, shown: Shown | None) -> tuple[str, float] | tuple[str, float, Shown]:
    return (name, count) if shown is None else (name, count, shown)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:  # prometheus_client 0.26 compares a version such as "x" with numbers
        return choose_encoder("")


def _counter(family: Family, sums: Sums) -> Metric:
    metric = CounterMetricFamily(PREFIX + family.name, family.documentation, labels=family.labels)
    for labels, values in sums.items():
        metric.add_metric(labels, values[0] / family.parts if family.parts > 1 else values[0])
    return metric


def _gauge(family: Family, sums: Sums) -> Metric:
    metric = GaugeMetricFamily(PREFIX + family.name, family.documentation, labels=family.labels)
    for labels, values in sums.items():
        if values[0] != VOID:
            metric.add_metric(labels, values[0] / family.parts if family.parts > 1 else values[0])
    return metric


def _histogram(family: Family, sums: Sums, exemplars: Mapping[Labels, Sequence[Shown | None]]) -> Metric:
    names = (*map(floatToGoString, family.bounds), "+Inf")
    metric = HistogramMetricFamily(PREFIX + family.name, family.documentation, labels=family.labels)
    for labels, (*counts, microseconds) in sums.items():
        shown = exemplars.get(labels) or repeat(None, len(names))
        buckets = list(map(_bucket, names, accumulate(counts), shown))
        metric.add_metric(labels, buckets, microseconds / _MICROSECONDS)
    return metric


_METRIC_OF: Final = MappingProxyType({"counter": _counter, "gauge": _gauge})
