"""PromQL in pieces: selectors with the dashboards' variables, rates, quantiles, and what the ledger says was spent.

The decision: money comes out of the ledger's gauge as a difference of two of its values, and never out of a counter
by `increase()`, which extrapolates to the range's ends and loses what was counted before a restart. So spend is what
the ledger says, to the cent; everything else is a rate, and says so.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "fal_gateway_"
RATE: Final = "$__rate_interval"
RANGE: Final = "$__range"
BUCKET: Final = "$__interval"

CALLER: Final = ("team", "key", "endpoint")
"""Labels that say who bought what; each is a variable of the dashboards that have it."""

_GATEWAY: Final = "namespace, job"
"""What tells two gateways with ledgers of their own apart; replicas of one share both."""

_BRIDGED_COUNTER: Final = "1h"
_LEDGER: Final = "ledger_cost_usd"
_BRIDGED: Final = "6h"
"""How long a gap in what was scraped may be and still be bridged by the last value before it."""


def select(family: str, *variables: str, matchers: str = "") -> str:
    """Return a selector of one family: of the chosen gateways, narrowed by these variables and further matchers."""
    chosen = (f'{name}=~"${name}"' for name in ("job", *variables))
    return f"{PREFIX}{family}{{{','.join((*chosen, *filter(None, (matchers,))))}}}"


def per_second(family: str, *variables: str, by: str = "", matchers: str = "") -> str:
    """Return a counter's rate, summed over all but the labels in `by`."""
    return f"sum{_grouped(by)} (rate({select(family, *variables, matchers=matchers)}[{RATE}]))"


def counted(family: str, *variables: str, by: str = "", matchers: str = "") -> str:
    """Return by how much a counter rose in the range: an estimate that Prometheus extrapolates to the range's ends.

    A series that came into being within the range is counted from 0: `increase()` alone would miss its first count,
    which for rare events is all there is.
    """
    series = select(family, *variables, matchers=matchers)
    rise = f"sum{_grouped(by)} (increase({series}[{RANGE}]))"
    fresh = f"min_over_time({series}[{RANGE}]) unless last_over_time({series}[{_BRIDGED_COUNTER}] offset {RANGE})"
    return f"({rise} + (sum{_grouped(by)} ({fresh}) or 0 * {rise}))"


def total(family: str, *variables: str, by: str = "", matchers: str = "") -> str:
    """Return the sum of a gauge over all gateways that are chosen."""
    return f"sum{_grouped(by)} ({select(family, *variables, matchers=matchers)})"


def largest(family: str, *variables: str, by: str = "", matchers: str = "") -> str:
    """Return the largest value of a gauge that is the same in all replicas, or should be."""
    return f"max{_grouped(by)} ({select(family, *variables, matchers=matchers)})"


def quantile(share: float, family: str, *variables: str, by: str = "", window: str = RATE) -> str:
    """Return a quantile out of a histogram's buckets."""
    labels = ", ".join(filter(None, ("le", by)))
    buckets = select(f"{family}_bucket", *variables)
    return f"histogram_quantile({share:g}, sum by ({labels}) (rate({buckets}[{window}])))"


def ratio(part: str, whole: str) -> str:
    """Return one expression as a share of another; nothing where the whole is 0."""
    return f"({part}) / ({whole} > 0)"


def at_least_zero(expression: str) -> str:
    """Return an expression without labels, and 0 where nothing was counted yet."""
    return f"{expression} or vector(0)"


def spent(*, by: str = "", span: str = RANGE, matchers: str = "") -> str:
    """Return what the ledger says was spent in a span that ends at the moment of evaluation, exact.

    Sums are taken before the difference: money that moves from one series to another (an estimate that fal's bill
    corrects, an endpoint that is counted under `other`) is in both sums, and is not counted twice. Without `by` it is
    0 where the ledger is there and empty.
    """
    now, start = (_summed(_known(offset, matchers), by) for offset in ("", f" offset {span}"))
    if not by:
        return f"{now} - ({start} or 0 * {now}) or 0 * max({select('ledger_up')} == 1)"
    return f"(({now} or 0 * {start}) - ({start} or 0 * {now})) and on () {_seen()}"


def spent_bar(*, by: str) -> str:
    """Return what was spent in each step of a graph; no bar where nobody looked at its start."""
    now, start = (_summed(_known(offset, ""), by) for offset in ("", f" offset {BUCKET}"))
    looked = f"group({select('build_info')} offset {BUCKET})"
    return f"{now} - ({start} or (0 * {now} and on () {looked}))"


def start_is_known() -> str:
    """Return 1 where the gateway was being scraped when the range began, else 0."""
    return f"group(last_over_time({select('build_info')}[{_BRIDGED}] offset {RANGE})) or vector(0)"


def _known(offset: str, matchers: str) -> str:
    """Return the ledger's series as of a moment; the last ones before it where nothing at all was scraped then."""
    series = select(_LEDGER, *CALLER, matchers=matchers)
    labels = f"{_GATEWAY}, team, key, endpoint, source"
    there = f"group by ({_GATEWAY}) ({select(_LEDGER)}{offset})"
    earlier = f"max by ({labels}) (last_over_time({series}[{_BRIDGED}]{offset}))"
    return f"max by ({labels}) ({series}{offset}) or {earlier} unless on ({_GATEWAY}) {there}"


def _seen() -> str:
    return f"group(last_over_time({select(_LEDGER)}[{_BRIDGED}]))"


def _summed(expression: str, by: str) -> str:
    return f"sum{_grouped(by)} ({expression})"


def _grouped(by: str) -> str:
    return f" by ({by})" if by else ""
