"""What limits and money take: the same gateway without any, under three limits, and under two budgets with a price.

Decided here: both ways of asking stand in the table. Whole requests, with and without, have everything in them, also
what a cold cache adds, but the difference is hardly larger than what a shared machine drifts by within a round; so the
goals are judged by limits and money timed by themselves, against the CPU time of a request under them. The ledger is
in no row: without budgets each paid request is written down, too.
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
BUDGETED: Final = "gateway, two budgets"
MONEY: Final = "money_percent"


def measure_limits(stage: Stage) -> Figures:
    """Put small POSTs on the gateway under limits, then time the limits alone."""
    figures, limits_us = measure_posts(stage, connections=CONNECTIONS), alone_us("limits_alone")
    return {**figures, "limits_us": limits_us, LIMITS: 100 * limits_us / figures["cpu_us"]}


def measure_money(stage: Stage) -> Figures:
    """Put small POSTs on the gateway under budgets, then time the money alone."""
    figures, money_us = measure_posts(stage, connections=CONNECTIONS), alone_us("money_alone")
    return {**figures, "money_us": money_us, MONEY: 100 * money_us / figures["cpu_us"]}


_measure = partial(measure_posts, connections=CONNECTIONS)
_warm = partial(warm_up, connections=CONNECTIONS)

CASES: Final = (
    Case(
        key="quotas",
        title="What limits and money take",
        how="64 connections, small POSTs by one key; without limits, under a rate and slots of the key's and a rate"
        " of its team's, and under a budget of each with a price; limits and money timed by themselves, too. CPU time"
        " is that of all processes: the ledger's takes part",
        columns=(
            Column("cpu_us", "CPU µs a request", 1, better="less"),
            Column("per_second", "requests/s", better="more"),
            Column("p99_ms", "p99 ms", 2, better="less"),
            Column("limits_us", "limits alone µs", 2, better="less"),
            Column(LIMITS, "limits alone, %", 1, better="less"),
            Column("money_us", "money alone µs", 2, better="less"),
            Column(MONEY, "money alone, %", 1, better="less"),
            Column("failed", "failed"),
        ),
        entries=(
            Entry(GATEWAY.name, GATEWAY, _measure, _warm),
            Entry(LIMITED, gateway(LIMITED, is_limited=True), measure_limits, _warm),
            Entry(BUDGETED, gateway(BUDGETED, is_budgeted=True), measure_money, _warm),
        ),
        group="quotas",
        ratio="cpu_us",
    ),
)
