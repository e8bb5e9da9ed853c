"""Budgets in the memory of one gateway: filled in from the ledger, and compared with it several times a minute.

The decisions it carries:

* The ledger is the truth. A budget is filled in from it at the start, and where a reload brings a new one; until then
  it admits nothing.
* The comparison corrects whatever the cause was: a killed worker, a clock that was set back, fal's bill, rows that
  another program wrote. It changes a budget only where both sides are known to be about the same purchases: everything
  that the workers have counted is applied to the ledger, and nothing was counted while the ledger was read. Callers are
  admitted meanwhile; a budget in constant use is compared when there is a pause, which one that is spent has by itself.
* A gateway that was stopped, or whose supervisor was killed, may still have calls under way when the next one starts.
  In the ledger they are open runs from before that start, and are held here until they end.
* Workers count before the ledger does. So a budget that has less spent than the ledger is wrong at any moment, and is
  raised at once.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.budget_log import log_correction
from gateway.policy.budget import period_start

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gateway.ledger.daily_totals import LedgerSums
    from gateway.ledger.ledger import Ledger
    from gateway.policy.budget import Budget
    from gateway.state.local import Quotas
    from gateway.state.purses import AppliedSums, Purse

AUDIT_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 1.0
_MOST_RETRIES: Final = 10
_MICROSECONDS: Final = 1_000_000


class LocalBudgets:
    """The budgets of one gateway; every call in its ledger process."""

    is_up: Final = True

    def __init__(
        self,
        quotas: Quotas,
        ledger: Ledger,
        *,
        applied: Callable[[], Sequence[int]] | None,
        wall: Callable[[], float],
        began_us: int = 0,
    ) -> None:
        """`applied` returns how far each worker's journal is in the ledger, by seat; left out: all of it, always.

        `wall` gives seconds since the epoch: periods of budgets begin by the calendar. `began_us`: this gateway's
        start, in microseconds since the epoch; none of its own runs was admitted before.
        """
        self._quotas = quotas
        self._ledger = ledger
        self._applied = applied or (lambda: (0,) * quotas.seats)
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

    def purse(self, budget: Budget) -> Purse:
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
        applied = self._applied()
        seen = {budget: self._look(budget, applied) for budget in budgets if budget.store_name in self._filled}
        starts = {budget: period_start(budget.period, self._wall()) for budget in seen}  # as of after the look
        ledger = self._sums(starts.values())
        applied = self._applied()  # no more than before, but a worker may have died
        is_done = True
        for budget, start in starts.items():
            unchanged = seen[budget] if seen[budget] == self._look(budget, applied) else None
            is_done &= self._compare(budget, start, unchanged, ledger[start])
        if is_done:
            self._retries = 0
        elif self._retries:
            self._retries -= 1
            self._audit_at = monotonic() + _RETRY_SECONDS

    def _look(self, budget: Budget, applied: Sequence[int]) -> AppliedSums | None:
        with self._quotas.purse_lock:
            return self._quotas.purses.applied_sums(budget.store_name, applied)

    def _compare(self, budget: Budget, start: int, seen: AppliedSums | None, ledger: LedgerSums) -> bool:
        """Correct a budget; return whether it was seen to be about the same purchases as the ledger."""
        spent_ns, jobs_ns = _owned(budget, ledger)
        name = budget.store_name
        with self._quotas.purse_lock:
            begun, counted_ns = self._quotas.purses.spent(name)
            if begun > start:  # the clock was ahead
                self._quotas.purses.fill_again(name, start, spent_ns=spent_ns, jobs_ns=jobs_ns)
                log_correction(budget, spent_ns=spent_ns, held_ns=jobs_ns)
            elif begun == start and seen is not None:
                self._add(budget, start, spent_ns - seen.spent_ns, jobs_ns - seen.jobs_ns)
            elif begun == start:
                self._add(budget, start, max(0, spent_ns - counted_ns), 0)
        return seen is not None or begun != start  # nothing is counted of a period without a purchase

    def _add(self, budget: Budget, start: int, spent_ns: int, jobs_ns: int) -> None:
        if spent_ns or jobs_ns:
            self._quotas.purses.add(budget.store_name, start, spent_ns=spent_ns, jobs_ns=jobs_ns)
            log_correction(budget, spent_ns=spent_ns, held_ns=jobs_ns)


def _owned(budget: Budget, sums: LedgerSums) -> tuple[int, int]:
    """Return what the ledger has of a budget's owner: spent, and held by jobs."""
    return sums.spent.of(budget.owner), sums.jobs.of(budget.owner)
