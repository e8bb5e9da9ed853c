"""The Cost dashboard: what was spent, on what, by whom, how sure that is, and what of it was for nothing."""

from __future__ import annotations

from typing import Final

from grafana.generator import budgets, variables
from grafana.generator.page import Page, Section, shelf
from grafana.generator.panels import COUNT, DOLLARS, Column, Line, Look, bars, gauges, graph, listing, note, number
from grafana.generator.queries import (
    CALLER,
    at_least_zero,
    counted,
    largest,
    ratio,
    spent,
    spent_bar,
    start_is_known,
)

EXACT: Final = "Exact: the ledger's sum at the range's end less its sum at the range's start."
ESTIMATE: Final = "About: a counter's rise, which Prometheus extrapolates to the ends of the range."
DAY: Final = "now/d"
MONTH: Final = "now/M"
OK: Final = "green"
WARN: Final = "orange"
BAD: Final = "red"
CENTS: Final = Look(decimals=2)
TINY: Final = 6
DUST: Final = "5e-10"
"""Below the ledger's smallest unit: what a difference of two floating-point numbers leaves of 0."""
HOUR_SECONDS: Final = 3600
SURE: Final = ratio(spent(matchers='source=~"exact|reconciled"'), spent())
MONTH_END: Final = f"({spent()}) * (days_in_month() * 86400 / clamp_min(vector($__range_s), {HOUR_SECONDS}))"
NOT_PRICED: Final = at_least_zero(counted("unpriced_requests_total", "endpoint"))
WASTED: Final = at_least_zero(counted("abandoned_cost_usd_total", "team", "key"))
REFUSED: Final = {"matchers": 'error_type="budget_exhausted"'}
NOTE: Final = """\
**Exact** is what the title says *spent*: the ledger's sum at the end of the range less its sum at the start, to the \
nano-dollar, for all replicas of a database together, unchanged by restarts. It is as sure as its **source**:

* `exact`: fal's own count of units times the price; `reconciled`: corrected by fal's bill.
* `estimated`, `unknown`: fal told no units, or never answered. `fal-gateway reconcile` settles both by the bill.
* What has **no price** is no money here; it is counted below.

*About* and *rate* mean a counter, which Prometheus extrapolates. Days and months are in **UTC**. \
A range that begins before Prometheus' first sample counts from the ledger's first dollar: \
**Start is known** then says no.
"""

SPEND: Final = Section(
    "Spend",
    (
        shelf(
            5,
            (4, number("Spent in the range", EXACT, DOLLARS, spent(), CENTS)),
            (4, number("Spent today", f"{EXACT} From midnight UTC.", DOLLARS, spent(), Look(2, span=DAY))),
            (4, number("Spent this month", f"{EXACT} From the first, UTC.", DOLLARS, spent(), Look(2, span=MONTH))),
            (
                4,
                number(
                    "Month at this pace",
                    "Forecast: this month so far, times the month's length over what has passed of it.",
                    DOLLARS,
                    MONTH_END,
                    Look(2, span=MONTH),
                ),
            ),
            (
                4,
                number(
                    "Share that is sure",
                    "Of the money spent in the range: by fal's own units or by fal's bill. The rest is estimated.",
                    "percentunit",
                    SURE,
                    Look(1, ((0, BAD), (0.9, WARN), (0.99, OK))),
                ),
            ),
            (
                4,
                number(
                    "Start is known",
                    "Whether the gateway was scraped when the range began. If not, spend in the range holds all that "
                    "the ledger had by then: choose a later start, or keep samples for longer.",
                    "short",
                    start_is_known(),
                    Look(words=(("0", "no", WARN), ("1", "yes", OK))),
                ),
            ),
        ),
        shelf(
            9,
            (
                16,
                bars(
                    "Spent over time",
                    f"{EXACT} Each bar is one whole step; the step under way is in none yet. Split as chosen above.",
                    "currencyUSD",
                    Line(spent_bar(by="$by"), "{{$by}}"),
                ),
            ),
            (8, note("How sure is this", "What the figures of this page rest on.", NOTE)),
        ),
    ),
)

WHO: Final = Section(
    "Who and what",
    (
        shelf(
            7,
            *(
                (
                    8,
                    gauges(
                        f"Spent by {name}",
                        f"{EXACT} The ten that spent most.",
                        DOLLARS,
                        Line(f"topk(10, {spent(by=name)})", f"{{{{{name}}}}}"),
                    ),
                )
                for name in CALLER
            ),
        ),
        shelf(
            8,
            (
                16,
                listing(
                    "Top spenders",
                    f"{EXACT} The hundred combinations that spent most.",
                    {"team": "Team", "key": "Key", "endpoint": "Endpoint"},
                    Column("Spent", f"topk(100, {spent(by='team, key, endpoint')} > {DUST})", DOLLARS, TINY),
                    sort_by="Spent",
                ),
            ),
            (
                8,
                gauges(
                    "Spent by source",
                    f"{EXACT} How sure the money is: `exact` and `reconciled` are; the rest is estimated.",
                    DOLLARS,
                    Line(spent(by="source"), "{{source}}"),
                ),
            ),
        ),
    ),
)

LOST: Final = Section(
    "Not sure, not priced, for nothing",
    (
        shelf(
            5,
            (
                6,
                number(
                    "Requests without a price",
                    f"Paid requests whose cost nobody knows: no price. They are not in any sum above. {ESTIMATE}",
                    COUNT,
                    NOT_PRICED,
                    Look(0, ((1, WARN),)),
                ),
            ),
            (
                6,
                number(
                    "Spent with unknown outcome",
                    f"Sent, and no answer came: charged as estimated, since fal may have executed it. {EXACT}",
                    DOLLARS,
                    at_least_zero(spent(matchers='source="unknown"')),
                    Look(2, ((0.01, WARN),)),
                ),
            ),
            (
                6,
                number(
                    "For nobody, about",
                    f"Paid requests whose client had left before the answer was whole. {ESTIMATE}",
                    DOLLARS,
                    WASTED,
                    Look(2, ((0.01, WARN),)),
                ),
            ),
            (
                6,
                number(
                    "Refused by a budget",
                    f"Requests answered 402; they cost nothing. {ESTIMATE}",
                    COUNT,
                    at_least_zero(counted("refusals_total", "team", "key", **REFUSED)),
                    Look(0, ((1, WARN),)),
                ),
            ),
        ),
        shelf(
            7,
            (
                8,
                listing(
                    "Without a price",
                    f"Add these endpoints to `prices`, or set `price_source: fal`. {ESTIMATE}",
                    {"endpoint": "Endpoint"},
                    Column(
                        "Requests", f"{counted('unpriced_requests_total', 'endpoint', by='endpoint')} > 0", COUNT, 0
                    ),
                    sort_by="Requests",
                ),
            ),
            (
                8,
                listing(
                    "Refused, and for nobody",
                    f"By key: requests refused by a budget, and money whose answer nobody took. {ESTIMATE}",
                    {"team": "Team", "key": "Key"},
                    Column(
                        "Refused (402)",
                        f"{counted('refusals_total', 'team', 'key', by='team, key', **REFUSED)} > 0",
                        COUNT,
                        0,
                    ),
                    Column(
                        "For nobody",
                        f"{counted('abandoned_cost_usd_total', 'team', 'key', by='team, key')} > 0",
                        DOLLARS,
                        TINY,
                    ),
                ),
            ),
            (
                8,
                graph(
                    "Pace by source, an hour",
                    "Rate, by source, of what each gateway has counted since it started (`cost_usd_total`), not of the "
                    "ledger: the pace, and never a sum.",
                    "currencyUSD",
                    Line(f"{budgets.hourly('cost_usd_total', by='source')}", "{{source}} an hour"),
                    stacked=True,
                ),
            ),
        ),
    ),
)

FIGURES: Final = Section(
    "Units and fal's bill",
    (
        shelf(
            7,
            (
                12,
                listing(
                    "Units that fal billed",
                    f"By endpoint and unit, in the range. {ESTIMATE}",
                    {"endpoint": "Endpoint", "unit": "Unit"},
                    Column("Units", f"{counted('billable_units_total', *CALLER, by='endpoint, unit')} > 0", COUNT, 2),
                    sort_by="Units",
                ),
            ),
            (
                12,
                listing(
                    "Fal's bill less ours",
                    "As of the last comparison (`FAL_ADMIN_KEY`): what fal billed beyond what the ledger has. Above 0: "
                    "we count too little.",
                    {"endpoint": "Endpoint"},
                    Column("Difference", largest("billing_drift_usd", "endpoint", by="endpoint"), DOLLARS, TINY),
                    sort_by="Difference",
                ),
            ),
        ),
    ),
)

COST: Final = Page(
    "Cost",
    "What was spent on fal, by whom and on what, how sure that is, what the month will be, and who nears a budget.",
    "now-7d",
    (
        variables.source(),
        variables.gateways(),
        *variables.labels_of("requests_total|ledger_cost_usd", *CALLER),
        variables.grouping("team", "key", "endpoint", "source"),
    ),
    (SPEND, WHO, budgets.SECTION, LOST, FIGURES),
)
