"""What a key's holder may read of itself: spend, budgets, limits. Published by the ledger process to the workers.

The decision: sums of the present day, week and month are kept as rows change, and read anew from the ledger now and
then, since other gateways write there too. Budgets are told as they decide. No worker asks a database for it, and what
is told is a few seconds old.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.policy.budget import iso, period_end, period_start
from gateway.policy.price import usd_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Change, Ledger
    from gateway.platform.published import Published
    from gateway.policy.budget import Budget
    from gateway.policy.credential import Principal
    from gateway.policy.quota import Limit
    from gateway.state.memory.budgets import BudgetTotals

PERIODS: Final = ("day", "week", "month")
_READ_SECONDS: Final = 60.0
_MICROSECONDS: Final = 1_000_000


class UsageSnapshot:
    """Sums by key, in nanodollars, and those of budgets; in the ledger process."""

    def __init__(self) -> None:
        self._starts: dict[str, int] = {}
        self._sums: dict[str, dict[str, int]] = {period: {} for period in PERIODS}
        self._read_at = 0.0
        self._published = b""

    def add(self, changes: Sequence[Change]) -> None:
        """Take rows that changed."""
        for change in changes:
            cost_ns = _cost_of(change.new) - (_cost_of(change.old) if change.old is not None else 0)
            for period, start in self._starts.items():
                if cost_ns and change.new.admitted_at_us >= start * _MICROSECONDS:
                    sums = self._sums[period]
                    sums[change.new.key] = sums.get(change.new.key, 0) + cost_ns

    def content(self, ledger: Ledger, purses: Iterable[tuple[Budget, BudgetTotals]], *, now: float) -> bytes | None:
        """Return what is to be published, None where nothing is new; `now` in seconds since the epoch."""
        starts = {period: period_start(period, now) for period in PERIODS}
        if starts != self._starts or monotonic() >= self._read_at:
            self._starts = starts
            self._sums = {
                period: ledger.sums_since(start * _MICROSECONDS).spent.keys for period, start in starts.items()
            }
            self._read_at = monotonic() + _READ_SECONDS
        budgets = {budget.store_name: (purse.start, purse.spent_ns, purse.held_ns) for budget, purse in purses}
        content = orjson.dumps({"spent": self._sums, "budgets": budgets})
        if content == self._published:
            return None
        self._published = content
        return content


class SnapshotReader:
    """What was published last, read once for all keys; in a worker.

    5,000 keys take 3 ms to read, too long for each request of each key.
    """

    def __init__(self, published: Published) -> None:
        self._published = published
        self._generation = 0
        self._snapshot: Mapping[str, Any] = {}

    def read(self) -> Mapping[str, Any]:
        """Return the sums by period and key, and those of budgets by their names; empty before the first."""
        if self._published.generation != self._generation:
            self._generation, content = self._published.read()
            self._snapshot = orjson.loads(content)
        return self._snapshot


def account_of(principal: Principal, snapshot: Mapping[str, Any]) -> bytes:
    """Return the JSON that a key's holder reads: money as decimal texts of US dollars, moments as ISO times in UTC."""
    sums, purses = snapshot.get("spent", {}), snapshot.get("budgets", {})
    spent = {period: usd_text(sums.get(period, {}).get(principal.key, 0)) for period in PERIODS}
    account = {
        "key": principal.key,
        "team": principal.team,
        "spent_usd": spent,
        "budgets": [_budget_of(budget, purses.get(budget.store_name)) for budget in principal.budgets],
        "limits": [_limit_of(limit) for limit in dict.fromkeys((*principal.paid.limits, *principal.free.limits))],
    }
    return orjson.dumps(account)


def _budget_of(budget: Budget, sums: Sequence[int] | None) -> dict[str, object]:
    scope, _, owner = budget.owner.partition("/")
    named = {"scope": scope, "id": owner, "period": budget.period, "limit_usd": usd_text(budget.limit_ns)}
    if sums is None or not sums[0]:  # not filled in yet
        return {**named, "spent_usd": None, "held_usd": None, "starts_at": None, "ends_at": None}
    start, spent_ns, held_ns = sums
    return {
        **named,
        "spent_usd": usd_text(spent_ns),
        "held_usd": usd_text(held_ns),
        "starts_at": iso(start),
        "ends_at": iso(period_end(budget.period, start)),
    }


def _limit_of(limit: Limit) -> dict[str, object]:
    scope, _, owner = limit.owner.partition("/")
    return {
        "scope": scope,
        "id": owner,
        "name": limit.name,
        "unit": limit.unit,
        "quota": limit.quota,
        "window_seconds": int(limit.window) or None,
        "burst": limit.burst,
        "enforced": not limit.shadow,
    }


def _cost_of(entry: Entry) -> int:
    return entry.cost_ns or 0
