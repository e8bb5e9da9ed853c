"""What limits take: the same gateway without any, and under three on its key and team.

Decided here: both ways of asking stand in the table. Whole requests, with and without limits, have everything in them,
but the difference is smaller than what a shared machine drifts by within a round; so the goal is judged by the limits
timed by themselves, against the CPU time of a request under them.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from benchmarks.case import Case, Column, Entry, Figures, Stage
from benchmarks.cases.posts import measure_posts, warm_up
from benchmarks.cases.profile import alone_us
from benchmarks.systems import GATEWAY, gateway

CONNECTIONS: Final = 64
LIMITED: Final = "gateway, three limits"
LIMITS: Final = "limits_percent"


def measure_limits(stage: Stage) -> Figures:
    """Put small POSTs on the gateway under limits, then time the limits alone."""
    figures, limits_us = measure_posts(stage, connections=CONNECTIONS), alone_us("limits_alone")
    return {**figures, "limits_us": limits_us, LIMITS: 100 * limits_us / figures["cpu_us"]}


_measure = partial(measure_posts, connections=CONNECTIONS)
_warm = partial(warm_up, connections=CONNECTIONS)

CASES: Final = (
    Case(
        key="quotas",
        title="What limits take",
        how="64 connections, small POSTs by one key; without limits, and under a rate and slots of the key's and a rate"
        " of its team's; the three timed by themselves, too",
        columns=(
            Column("cpu_us", "CPU µs a request", 1, better="less"),
            Column("per_second", "requests/s", better="more"),
            Column("p99_ms", "p99 ms", 2, better="less"),
            Column("limits_us", "limits alone µs", 2, better="less"),
            Column(LIMITS, "limits alone, %", 1, better="less"),
            Column("failed", "failed"),
        ),
        entries=(
            Entry(GATEWAY.name, GATEWAY, _measure, _warm),
            Entry(LIMITED, gateway(LIMITED, is_limited=True), measure_limits, _warm),
        ),
        group="quotas",
        ratio="cpu_us",
    ),
)
