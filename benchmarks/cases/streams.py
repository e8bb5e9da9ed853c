"""Many callers at once that each take little: slow readers of large answers, and event streams."""

from __future__ import annotations

import statistics
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.case import Case, Column, Entry, Figures, Stage
from benchmarks.cases.posts import warm_up
from benchmarks.load.events import EventStreams
from benchmarks.load.readers import SlowReaders
from benchmarks.load.wrk import LoadError
from benchmarks.processes import forget_peak, own_megabytes, peak_megabytes, resident_megabytes
from benchmarks.route import Route
from benchmarks.systems import ALL, SECRET

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ_PATH: Final = "/bench/down/20000000"
_EVENTS_PATH: Final = "/bench/events/3600/1000/requests/1"  # free: over when its caller has left
_OPEN_SECONDS: Final = 45.0
_LONGEST_SPREAD_SECONDS: Final = 2.0
_DIRECT_SECONDS: Final = 3.0
_NS_PER_MS: Final = 1e6
_WARM: Final = partial(warm_up, connections=64)  # what a first request loads for good is not the readers'


def measure_readers(stage: Stage) -> Figures:
    """Let all readers take their answers slowly, and see how far the system runs ahead of them."""
    running, extent = stage.running, stage.extent
    pids = running.pids
    forget_peak(pids)
    rest, resident, cpu = own_megabytes(pids), resident_megabytes(pids), running.cpu
    with SlowReaders(running.route, _READ_PATH, number=extent.readers) as readers:
        readers.read_for(extent.reader_seconds)
        growth = peak_megabytes(running.pids) - resident
    return {
        "rest_mb": rest,
        "growth_mb": max(0.0, growth),
        "cpu_seconds": running.cpu - cpu,
        "served_percent": 100 * readers.served / extent.readers,
    }


def measure_events(stage: Stage) -> Figures:
    """Open all streams, then see for a while how late their events are; the same to the origin directly before."""
    running, extent = stage.running, stage.extent
    direct = Route(stage.origin.port, SECRET, prefix="", path_only=True)
    spread = min(_LONGEST_SPREAD_SECONDS, extent.stream_seconds / 2)
    with EventStreams(direct, _EVENTS_PATH, number=extent.streams, spread_seconds=spread) as streams:
        bare = _delays_ms(streams, min(_DIRECT_SECONDS, extent.stream_seconds))
    resident = resident_megabytes(running.pids)
    with EventStreams(running.route, _EVENTS_PATH, number=extent.streams, spread_seconds=spread) as streams:
        streams.wait_open(_OPEN_SECONDS)
        cpu = running.cpu
        delays = _delays_ms(streams, extent.stream_seconds)
        cpu = running.cpu - cpu
        growth = resident_megabytes(running.pids) - resident
    return {
        "added_p50_ms": _percentile(delays, 50) - _percentile(bare, 50),
        "added_p99_ms": _percentile(delays, 99) - _percentile(bare, 99),
        "cpu_percent": 100 * cpu / extent.stream_seconds,
        "cpu_us": 1e6 * cpu / len(delays),
        "came_percent": 100 * len(delays) / (extent.streams * extent.stream_seconds),
        "kb_per_stream": 1000 * max(0.0, growth) / extent.streams,
    }


def _delays_ms(streams: EventStreams, seconds: float) -> Sequence[float]:
    streams.delays_ns.clear()
    streams.watch(seconds)
    if not streams.delays_ns:
        raise LoadError("no event came")
    return [delay / _NS_PER_MS for delay in streams.delays_ns]


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


READERS: Final = Case(
    key="readers",
    title="200 slow readers",
    how="200 callers take 1 KB a second each of answers of 20 MB; growth is the highest resident size less that before",
    columns=(
        Column("rest_mb", "memory at rest MB", better="less"),
        Column("growth_mb", "memory growth MB", 1, better="less"),
        Column("cpu_seconds", "CPU-seconds", 2, better="less"),
        Column("served_percent", "readers that got something, %"),
    ),
    entries=tuple(Entry(system.name, system, measure_readers, _WARM) for system in ALL),
    group="readers",
    ratio="growth_mb",
    repeats=False,
)
EVENTS: Final = Case(
    key="events",
    title="1,000 event streams",
    how="1,000 open streams, each with one event a second; delay since the origin sent it, less that without a system",
    columns=(
        Column("added_p50_ms", "added delay p50 ms", 2, better="less"),
        Column("added_p99_ms", "added delay p99 ms", 2, better="less"),
        Column("cpu_percent", "CPU, % of a core", 1, better="less"),
        Column("cpu_us", "CPU µs an event", 1, better="less"),
        Column("came_percent", "events that came, %", 1),
        Column("kb_per_stream", "memory KB a stream", 1, better="less"),
    ),
    entries=tuple(Entry(system.name, system, measure_events) for system in ALL),
    group="behaviour",
    ratio="cpu_us",
    repeats=False,
)
CASES: Final = (READERS, EVENTS)
