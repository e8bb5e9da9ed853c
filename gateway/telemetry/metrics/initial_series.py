"""Series that stand at 0 before anything has happened, so that `increase()` sees the first dollar.

Best claimed in the supervisor's region: the zeros stand once, and take no room in each worker's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.telemetry.metrics import families as metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.telemetry.metrics.counters import Labels, Region
    from gateway.telemetry.metrics.families import Family

_REFUSALS: Final = ("quota_exceeded", "budget_exhausted")


def introduce(region: Region, keys: Iterable[tuple[str, str]], *, endpoints: Iterable[str]) -> None:
    """Start the series of each configured key (team, key) and priced endpoint; what stands already keeps its count."""
    priced = tuple(endpoints)
    for team, key in keys:
        for error_type in _REFUSALS:
            _claim(region, metrics.REFUSALS, (team, key, error_type))
        _claim(region, metrics.ABANDONED_COST, (team, key))
        for family in (metrics.REQUEST_BYTES, metrics.RESPONSE_BYTES):
            _claim(region, family, (team, "paid"))
        for endpoint in priced:
            _claim(region, metrics.COST, (team, key, endpoint, "exact"))
            _claim(region, metrics.REQUESTS, (team, key, endpoint, "paid", "200"))


def _claim(region: Region, family: Family, labels: Labels) -> None:
    region.claim(family.name, labels, width=family.width)
