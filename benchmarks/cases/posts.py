"""Small POSTs: 256 bytes in, 1 KB out, over connections that are kept; at 1 connection, what the way through adds."""

from __future__ import annotations

from functools import partial
from typing import Final

from benchmarks.case import Case, Column, Entry, Figures, Stage
from benchmarks.load.wrk import send_posts
from benchmarks.route import Route
from benchmarks.systems import ALL, PURE, SECRET

_COLUMNS: Final = (
    Column("per_second", "requests/s", better="more"),
    Column("cpu_us", "CPU µs a request", 1, better="less"),
    Column("per_cpu_second", "requests per CPU-second", better="more"),
    Column("p50_ms", "p50 ms", 2, better="less"),
    Column("p99_ms", "p99 ms", 2, better="less"),
    Column("failed", "failed"),
)
_ADDED: Final = Column("added_p50_ms", "added p50 ms", 3, better="less")


def measure_posts(stage: Stage, *, connections: int) -> Figures:
    """Saturate the system with so many connections."""
    running = stage.running
    before = running.cpu
    posts = send_posts(running.route, connections=connections, seconds=stage.extent.post_seconds, keys=running.keys)
    cpu = running.cpu - before
    good = posts.requests - posts.bad_statuses
    return {
        "per_second": good / posts.seconds,
        "cpu_us": 1e6 * cpu / good,
        "per_cpu_second": good / cpu if cpu else float("inf"),
        "p50_ms": posts.p50_ms,
        "p99_ms": posts.p99_ms,
        "failed": posts.bad_statuses + posts.broken,
    }


def measure_latency(stage: Stage) -> Figures:
    """One connection; the same to the origin directly right before, so that the two are of one moment."""
    direct = Route(stage.origin.port, SECRET, prefix="", path_only=True)
    seconds = max(1.0, stage.extent.post_seconds / 2)
    bare = send_posts(direct, connections=1, seconds=seconds, keys=stage.running.keys)
    figures = measure_posts(stage, connections=1)
    return {**figures, "added_p50_ms": figures["p50_ms"] - bare.p50_ms}


def warm_up(stage: Stage, *, connections: int) -> Figures:
    """Let compilers, pools and caches come to rest."""
    seconds, keys = stage.extent.warm_seconds, stage.running.keys
    if not seconds:
        return {}
    posts = send_posts(stage.running.route, connections=connections, seconds=seconds, keys=keys)
    return {"requests": posts.requests}


def _case(connections: int) -> Case:
    warm = partial(warm_up, connections=connections)
    measure = measure_latency if connections == 1 else partial(measure_posts, connections=connections)
    return Case(
        key=f"posts-{connections}",
        title=f"Small POST, {connections} connection{'s' if connections > 1 else ''}",
        how="256 bytes in, 1 KB out, kept connections, as fast as answers come (wrk)",
        columns=(*_COLUMNS[:3], _ADDED, *_COLUMNS[3:]) if connections == 1 else _COLUMNS,
        entries=tuple(Entry(system.name, system, measure, warm) for system in (*ALL, PURE)),
        group="posts",
        ratio="per_cpu_second",
    )


CASES: Final = (_case(1), _case(64), _case(512))
