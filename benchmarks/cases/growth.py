"""The gateway alone: two workers against one, many keys against one, many open exchanges against none."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.case import Case, Column, Entry, Extent, Figures, Stage
from benchmarks.cases.posts import measure_posts, warm_up
from benchmarks.load.events import EventStreams
from benchmarks.processes import resident_megabytes
from benchmarks.systems import gateway

if TYPE_CHECKING:
    from benchmarks.case import Measure

CONNECTIONS: Final = 64
_SILENT_PATH: Final = "/bench/events/2/3600000/requests/1"  # free: over when its caller has left
_OPEN_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 2.0
_COLUMNS: Final = (
    Column("per_second", "requests/s", better="more"),
    Column("cpu_us", "CPU µs a request", 1, better="less"),
    Column("p99_ms", "p99 ms", 2, better="less"),
    Column("failed", "failed"),
)


def measure_beside_held(stage: Stage, *, held: int) -> Figures:
    """Small POSTs beside open event streams that say nothing; what those cost alone is measured before."""
    running = stage.running
    resident = resident_megabytes(running.pids)
    with EventStreams(running.route, _SILENT_PATH, number=held) as streams:
        streams.wait_open(_OPEN_SECONDS)
        begin, before = time.monotonic(), running.cpu
        time.sleep(_IDLE_SECONDS)
        idle = (running.cpu - before) / (time.monotonic() - begin)
        growth = resident_megabytes(running.pids) - resident
        figures = measure_posts(stage, connections=CONNECTIONS)
    return {**figures, "idle_percent": 100 * idle, "kb_per_exchange": 1000 * max(0.0, growth) / max(1, held)}


def _case(key: str, title: str, how: str, *, entries: tuple[Entry, ...], columns: tuple[Column, ...]) -> Case:
    return Case(key=key, title=title, how=how, columns=columns, entries=entries, group=key, ratio="cpu_us")


def _workers() -> Case:
    measure: Measure = partial(measure_posts, connections=CONNECTIONS)
    warm: Measure = partial(warm_up, connections=CONNECTIONS)
    entries = tuple(
        Entry(name, gateway(name, workers=number, spreads=True), measure, warm)
        for number, name in ((1, "1 worker"), (2, "2 workers"))
    )
    how = "64 connections; the gateway may use all cores, of which one is also the load's and the origin's"
    return _case("workers", "Two workers against one", how, entries=entries, columns=_COLUMNS)


def _keys(extent: Extent) -> Case:
    measure: Measure = partial(measure_posts, connections=CONNECTIONS)
    warm: Measure = partial(warm_up, connections=CONNECTIONS)
    entries = tuple(
        Entry(name, gateway(name, keys=number), measure, warm)
        for number, name in ((1, "1 key"), (extent.keys, f"{extent.keys:,} keys"))
    )
    how = "64 connections; the requests use all keys in turn"
    return _case("keys", "Cost by the number of keys", how, entries=entries, columns=_COLUMNS)


def _held(extent: Extent) -> Case:
    roomy = gateway("gateway, roomy", max_inflight=2 * extent.held + CONNECTIONS)
    entries = tuple(
        Entry(name, roomy, partial(measure_beside_held, held=number), partial(warm_up, connections=CONNECTIONS))
        for number, name in ((1, "1 open exchange"), (extent.held, f"{extent.held:,} open exchanges"))
    )
    how = "64 connections, beside event streams that are open and silent"
    columns = (
        *_COLUMNS,
        Column("idle_percent", "CPU of the open ones alone, % of a core", 1, better="less"),
        Column("kb_per_exchange", "memory KB an open exchange", 1, better="less"),
    )
    return _case("held", "Cost by the number of open exchanges", how, entries=entries, columns=columns)


def cases(extent: Extent) -> tuple[Case, ...]:
    """Return the three cases."""
    return _workers(), _keys(extent), _held(extent)
