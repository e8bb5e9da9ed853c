"""What operators see of money: budgets, and what the ledger says was spent over all time.

The decision: `ledger_cost_usd` is asked of the database every few seconds, all of its sums, so that the gauge is the
ledger's and not this process's: no restart changes it, and gateways that share a database show the same. Reading 1,000
sums takes 4 ms; a ledger has one for each key, endpoint and source that ever came to a cost. Names that no policy knows
any more keep their series, or the spending of a month would change with the policy. What is beyond the bounds is
`other`. A budget that a reload took out is not shown any more; one whose sums are not known just now stands still.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.ledger.errors import LedgerUnavailableError
from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.counters import VOID
from gateway.telemetry.metrics.families import LEDGER_COST
from gateway.telemetry.metrics.purchase_counter import clamped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.ledger.ledger import Ledger
    from gateway.ledger.totals import Total
    from gateway.ledger.writer import Gauges
    from gateway.policy.budget import Budget
    from gateway.state.memory.budgets import BudgetTotals
    from gateway.telemetry.metrics.counters import Labels, Region

SHOW_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 3.0
"""From one reading to the next; what gauges say of money is at most 5 s old."""

MOST_SERIES: Final = 20_000
"""So many get a series of their own, the oldest first: the others' gauges need room in the memory, too."""

_PURSE_GAUGES: Final = (metrics.BUDGET_SPENT, metrics.BUDGET_RESERVED)


class MoneyGauges:
    """Begun with the ledger process, and asked several times a second to show how things stand."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        ledger: Ledger,
        region: Region,
        *,
        purses: Callable[[], Iterable[tuple[Budget, BudgetTotals]]],
        label: Callable[[str], str],
        most_series: int = MOST_SERIES,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Take the region of the ledger's slot; `purses` gives budgets and their sums, `label` an endpoint's label.

        `clock` gives seconds.
        """
        self._purses = purses
        self._ledger, self._region, self._label = ledger, region, label
        self._most_series, self._clock = most_series, clock
        self._show_at = self._due_at = 0.0
        left = region.series()  # by the process before this one
        self._budgets: set[Labels] = {series.labels for series in left if series.family == metrics.BUDGET_LIMIT.name}
        self._shown = {series.first for series in left if series.family == LEDGER_COST.name}

    def show(self, gauges: Gauges) -> None:
        """Show everything that is due."""
        now = self._clock()
        if now >= self._show_at:
            self._show_at = now + SHOW_SECONDS
            self._show_budgets()
        self.show_totals(is_up=gauges.is_up)

    def _show_budgets(self) -> None:
        shown: set[Labels] = set()
        for budget, purse in self._purses():
            scope, _, owner = budget.owner.partition("/")
            labels: Labels = (scope, owner, budget.period)
            shown.add(labels)
            self._set(metrics.BUDGET_LIMIT, labels, budget.limit_ns)
            self._show_purse(labels, purse)
        for labels in self._budgets - shown:
            for family in (metrics.BUDGET_LIMIT, *_PURSE_GAUGES):
                self._set(family, labels, VOID)
        self._budgets = shown

    def _show_purse(self, labels: Labels, purse: BudgetTotals) -> None:
        for family, value in zip(_PURSE_GAUGES, (purse.spent_ns, purse.held_ns), strict=True):
            if purse.start:
                self._set(family, labels, value)
            else:  # not known just now: what was shown stands still, or a store that was emptied would show a drop
                self._region.claim(family.name, labels)

    def _set(self, family: metrics.Family, labels: Labels, value: int) -> None:
        cell = self._region.claim(family.name, labels)
        if cell is not None:
            self._region.cells[cell] = clamped(value)

    def show_totals(self, *, is_up: bool) -> None:
        """Show what was spent over all time, anew where it is time to; `is_up`: the database answers."""
        now = self._clock()
        if not is_up or now < self._due_at:
            return
        self._due_at = now + LOOK_SECONDS
        try:
            totals = self._ledger.totals()
        except LedgerUnavailableError:  # said by the ledger writer with its next attempt
            return
        self._show_sums(totals)

    def _show_sums(self, totals: Iterable[Total]) -> None:
        sums: dict[Labels, int] = {}
        for total in totals:
            labels: Labels = (total.team, total.key, self._label(total.endpoint), total.source)
            if labels not in sums and len(sums) >= self._most_series:
                labels = LEDGER_COST.overflow(labels)
            sums[labels] = sums.get(labels, 0) + total.cost_ns
        values: dict[int, int] = {}
        for labels, cost_ns in sums.items():
            cell = self._cell(labels)
            values[cell] = values.get(cell, 0) + cost_ns
        cells = self._region.cells
        for cell in self._shown.difference(values):
            cells[cell] = VOID
        for cell, cost_ns in values.items():
            cells[cell] = clamped(cost_ns)
        self._shown = set(values)

    def _cell(self, labels: Labels) -> int:
        cell = self._region.claim(LEDGER_COST.name, labels)
        return cell if cell is not None else self._region.claim_spare(LEDGER_COST.name, LEDGER_COST.overflow(labels))
