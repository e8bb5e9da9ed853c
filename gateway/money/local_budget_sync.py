"""Budgets in the memory of one gateway: filled in from the ledger, and compared with it several times a minute.

The decisions it carries:

* The ledger is the truth. A budget is filled in from it at the start, and where a reload brings a new one; until then
  it admits nothing.
* The comparison corrects whatever the cause was: a killed worker, a clock that was set back, fal's bill, rows that
  another program wrote. Both sides are read at one cut through the journals: a budget's sums with the places that the
  workers' journals had reached, and the ledger's once it has all up to these places and nothing behind them. Callers
  are admitted and charged meanwhile; the difference is added to whatever the sums are by then.
* A difference counts if a second cut shows it, too: a worker may have been in the midst of writing several budgets.
* A gateway that was stopped, or whose supervisor was killed, may still have calls under way when the next one starts.
  In the ledger they are open runs from before that start, and are held here until they end.
"""

from __future__ import annotations

from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.money.comparison import AUDIT_SECONDS, log_correction
from gateway.policy.budget import period_start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gateway.ledger.daily_totals import LedgerSums
    from gateway.ledger.ledger import Ledger
    from gateway.policy.budget import Budget
    from gateway.state.memory.budgets import BudgetTotals, Cut
    from gateway.state.memory.store import Quotas

_RETRY_SECONDS: Final = 1.0
_MOST_RETRIES: Final = 10
_MOST_CUTS: Final = 5
_CONFIRM_SECONDS: Final = 0.02
_MICROSECONDS: Final = 1_000_000


class _Difference(NamedTuple):
    """By how much the ledger has more than a budget in memory, in the period that began then."""

    start: int
    spent_ns: int
    jobs_ns: int


class LocalBudgetSync:
    """The budgets of one gateway; every call in its ledger process."""

    is_up: Final = True

    def __init__(
        self,
        quotas: Quotas,
        ledger: Ledger,
        *,
        apply_to: Callable[[Sequence[int]], bool] | None,
        wall: Callable[[], float],
        began_us: int = 0,
    ) -> None:
        """`apply_to` brings each worker's journal into the ledger up to a place, by slot, and returns whether it could.

        Left out: all is there, always. `wall` gives seconds since the epoch: periods of budgets begin by the calendar.
        `began_us`: this gateway's start, in microseconds since the epoch; none of its runs was admitted before.
        """
        self._quotas = quotas
        self._ledger = ledger
        self._apply_to = apply_to or (lambda _ends: True)
        self._wall = wall
        self._began_us = began_us
        self._filled: set[str] = set()
        self._audit_at = 0.0
        self._retries = 0

    def keep(self, budgets: Sequence[Budget], *, is_ledger_up: bool) -> None:
        """Fill in budgets that are new here, forget those that a reload took out, and compare; LedgerAwayError."""
        if not is_ledger_up:
            return
        for name in self._filled.difference(budget.store_name for budget in budgets):
            with self._quotas.purse_lock:
                self._quotas.purses.forget(name)
            self._filled.remove(name)
        missing = [budget for budget in budgets if budget.store_name not in self._filled]
        if missing:
            self._fill(missing)
        self._audit(budgets)

    def _fill(self, missing: Sequence[Budget]) -> None:
        now = self._wall()
        starts = {budget: period_start(budget.period, now) for budget in missing}
        sums = self._sums(starts.values())
        for budget, start in starts.items():
            spent_ns, jobs_ns = _owned(budget, sums[start])
            with self._quotas.purse_lock:
                self._quotas.purses.fill(budget.store_name, start, spent_ns=spent_ns, jobs_ns=jobs_ns)
            self._filled.add(budget.store_name)

    def _sums(self, starts: Collection[int]) -> dict[int, LedgerSums]:
        return {
            start: self._ledger.sums_since(start * _MICROSECONDS, runs_before_us=self._began_us)
            for start in set(starts)
        }

    def purse(self, budget: Budget) -> BudgetTotals:
        """Return a budget's sums in the period that is now."""
        with self._quotas.purse_lock:
            return self._quotas.purses.purse(budget.store_name, period_start(budget.period, self._wall()))

    # -- comparison -------------------------------------------------------------------------------------------------

    def audit_soon(self) -> None:
        """Compare with the next `keep`: the ledger was changed by something that does not change budgets."""
        self._audit_at = 0.0
        self._retries = _MOST_RETRIES

    def _audit(self, budgets: Sequence[Budget]) -> None:
        """Compare budgets with the ledger when it is time, and correct them; LedgerAwayError."""
        if monotonic() < self._audit_at:
            return
        self._audit_at = monotonic() + AUDIT_SECONDS
        left = [budget for budget in budgets if budget.store_name in self._filled]
        self._begin_again(left)
        for _ in range(_MOST_CUTS):  # one that is changed while others are looked at has its turn with fewer of them
            left = self._compare(left)
            if not left:
                self._retries = 0
                return
        if self._retries:
            self._retries -= 1
            self._audit_at = monotonic() + _RETRY_SECONDS

    def _begin_again(self, budgets: Sequence[Budget]) -> None:
        """Fill in budgets whose period began too late, by a clock that was ahead."""
        now = self._wall()
        for budget in budgets:
            start, name = period_start(budget.period, now), budget.store_name
            with self._quotas.purse_lock:
                begun, _ = self._quotas.purses.spent(name)
            if begun > start:
                spent_ns, jobs_ns = _owned(budget, self._sums([start])[start])
                with self._quotas.purse_lock:
                    self._quotas.purses.fill_again(name, start, spent_ns=spent_ns, jobs_ns=jobs_ns)
                log_correction(budget, spent_ns=spent_ns, held_ns=jobs_ns)

    def _compare(self, budgets: Sequence[Budget]) -> list[Budget]:
        """Correct budgets that differ; return those that no cut could be made through."""
        found = self._differences(budgets)
        suspects = [budget for budget, difference in found.items() if difference.spent_ns or difference.jobs_ns]
        if suspects:
            sleep(_CONFIRM_SECONDS)
            again = self._differences(suspects)
            for budget in suspects:
                if again.get(budget) == found[budget]:
                    self._add(budget, found[budget])
                elif not (budget in again and again[budget].spent_ns == again[budget].jobs_ns == 0):
                    del found[budget]
        return [budget for budget in budgets if budget not in found]

    def _differences(self, budgets: Sequence[Budget]) -> dict[Budget, _Difference]:
        """Return how budgets differ from the ledger; not those that are in constant change."""
        cuts = self._cuts(budgets)
        ends = [max(places) for places in zip(*(cut.ends for cut in cuts.values()), strict=True)]
        if not cuts or not self._apply_to(ends):
            return {}
        starts = {budget: period_start(budget.period, self._wall()) for budget in cuts}  # as of after the cut
        sums = self._sums(starts.values())
        found = {}
        for budget, cut in cuts.items():
            spent_ns, jobs_ns = _owned(budget, sums[starts[budget]])
            found[budget] = _Difference(cut.start, spent_ns - cut.spent_ns, jobs_ns - cut.jobs_ns)
            if cut.start != starts[budget]:  # nothing was asked for since the period began
                found[budget] = _Difference(cut.start, 0, 0)
        return found

    def _cuts(self, budgets: Sequence[Budget]) -> dict[Budget, Cut]:
        """Return cuts through all budgets at once, of those that did not change while the others were read."""
        purses = self._quotas.purses
        with self._quotas.purse_lock:
            first = {budget: purses.cut(budget.store_name) for budget in budgets}
            return {
                budget: cut for budget, cut in first.items() if cut is not None and purses.cut(budget.store_name) == cut
            }

    def _add(self, budget: Budget, found: _Difference) -> None:
        with self._quotas.purse_lock:
            self._quotas.purses.add(budget.store_name, found.start, spent_ns=found.spent_ns, jobs_ns=found.jobs_ns)
        log_correction(budget, spent_ns=found.spent_ns, held_ns=found.jobs_ns)


def _owned(budget: Budget, sums: LedgerSums) -> tuple[int, int]:
    """Return what the ledger has of a budget's owner: spent, and held by jobs."""
    return sums.spent.of(budget.owner), sums.jobs.of(budget.owner)
