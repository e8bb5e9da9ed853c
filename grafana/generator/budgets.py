"""The Cost dashboard's part on budgets: limits, what is spent and held of them, and where the pace leads."""

from __future__ import annotations

from typing import Final

from grafana.generator.page import Section, shelf
from grafana.generator.panels import COUNT, DOLLARS, Column, Line, gauges, graph, listing
from grafana.generator.queries import CALLER, RATE, counted, select

OWNER: Final = "scope, id, period"
NEAR: Final = ((0.0, "green"), (0.8, "orange"), (1.0, "red"))
DAY_SECONDS: Final = 86_400
WEEK_SECONDS: Final = 604_800
MONDAY_SECONDS: Final = 3 * DAY_SECONDS
"""The epoch was a Thursday: this much later a week of UTC begins where time() divides by a week."""

OF_DAY: Final = f"{DAY_SECONDS} / (time() % {DAY_SECONDS} + 1)"
OF_WEEK: Final = f"{WEEK_SECONDS} / ((time() + {MONDAY_SECONDS}) % {WEEK_SECONDS} + 1)"
OF_MONTH: Final = (
    f"scalar(days_in_month()) * {DAY_SECONDS} / "
    f"((scalar(day_of_month()) - 1) * {DAY_SECONDS} + time() % {DAY_SECONDS} + 1)"
)


def hourly(family: str, *, by: str) -> str:
    """Return a counter's rate an hour."""
    return f"3600 * sum by ({by}) (rate({select(family, *CALLER)}[{RATE}]))"


def budget(family: str, matchers: str = "") -> str:
    """Return a gauge of budgets: those of the chosen teams and of the chosen keys; the same in all replicas."""
    parts = (
        select(family, matchers=",".join(filter(None, (f'scope="{scope}",id=~"${scope}"', matchers))))
        for scope in ("team", "key")
    )
    return " or ".join(f"max by ({OWNER}) ({part})" for part in parts)


def limit(matchers: str = "") -> str:
    """Return the limits to divide by: of a budget of nothing there is no share."""
    return f"(({budget('budget_limit_usd', matchers)}) > 0)"


def pace(period: str, stretch: str) -> str:
    """Return which share of the budgets of a period will be spent at its end, at the pace of the period so far."""
    matchers = f'period="{period}"'
    return f"({budget('budget_spent_usd', matchers)}) / {limit(matchers)} * ({stretch})"


USED: Final = f"(({budget('budget_spent_usd')}) + ({budget('budget_reserved_usd')})) / {limit()}"
FORECAST: Final = " or ".join(
    f"({pace(period, stretch)})" for period, stretch in (("day", OF_DAY), ("week", OF_WEEK), ("month", OF_MONTH))
)
LABELS: Final = {"scope": "Of", "id": "Name", "period": "Period"}

SECTION: Final = Section(
    "Budgets",
    (
        shelf(
            7,
            (
                16,
                listing(
                    "Budgets",
                    "Spent and held of each budget in its present period, at most 5 s old: what 402 is decided by. "
                    "At the period's end: the share that will be spent at the pace of the period so far.",
                    LABELS,
                    Column("Limit", budget("budget_limit_usd"), DOLLARS, 2),
                    Column("Spent", budget("budget_spent_usd"), DOLLARS, 4),
                    Column("Held", budget("budget_reserved_usd"), DOLLARS, 4),
                    Column("Used", USED, "percentunit", 1, NEAR),
                    Column("At the period's end", FORECAST, "percentunit", 0, NEAR),
                    sort_by="Used",
                ),
            ),
            (
                8,
                gauges(
                    "Who nears a budget",
                    "Spent and held as a share of the limit, the ten that are nearest; from 100 % on, calls get 402.",
                    "percentunit",
                    Line(f"topk(10, {USED})", "{{scope}} {{id}}, {{period}}"),
                    bands=NEAR,
                ),
            ),
        ),
        shelf(
            8,
            (
                16,
                graph(
                    "Budget burn",
                    "Spent and held as a share of the limit; it falls to 0 where a period ends.",
                    "percentunit",
                    Line(USED, "{{scope}} {{id}}, {{period}}"),
                ),
            ),
            (
                8,
                listing(
                    "Warnings",
                    "How often a share in `warn_at` was reached in the range. About: a counter's rise.",
                    LABELS,
                    Column("Warnings", f"{counted('budget_warnings_total', by=OWNER)} > 0", COUNT, 0),
                    sort_by="Warnings",
                ),
            ),
        ),
    ),
)
