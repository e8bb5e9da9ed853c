"""What limits take: the same gateway without any, and under three on its key and team.

Decided here: CPU time of whole requests and not of the judgement alone, since fields in the answer, a colder cache and
the ticket are part of the price. The difference is smaller than what a shared machine drifts by in a minute, so each
round is judged by itself, with and without right behind each other (goals.py).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from benchmarks.case import Case, Column, Entry
from benchmarks.cases.posts import measure_posts, warm_up
from benchmarks.systems import GATEWAY, gateway

CONNECTIONS: Final = 64
LIMITED: Final = "gateway, three limits"

CASES: Final = (
    Case(
        key="quotas",
        title="What limits take",
        how="64 connections, small POSTs by one key; without limits, and under a rate and slots of the key's and a rate"
        " of its team's",
        columns=(
            Column("cpu_us", "CPU µs a request", 1, better="less"),
            Column("per_second", "requests/s", better="more"),
            Column("p99_ms", "p99 ms", 2, better="less"),
            Column("failed", "failed"),
        ),
        entries=tuple(
            Entry(
                system.name,
                system,
                partial(measure_posts, connections=CONNECTIONS),
                partial(warm_up, connections=CONNECTIONS),
            )
            for system in (GATEWAY, gateway(LIMITED, is_limited=True))
        ),
        group="quotas",
        ratio="cpu_us",
    ),
)
