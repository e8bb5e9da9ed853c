"""What the ledger process does beside carrying lines to the database: it keeps the sums that budgets go by.

The decisions it carries:

* The ledger is the truth, and the sums that budgets go by are compared with it (local_budget_sync.py,
  redis_budget_sync.py). So what this process changes in the ledger by itself, it tells no budget: it asks for a
  comparison.
* Queue jobs are remembered anew: those that are still open, so that a result fetched after a restart finds who paid;
  the latest of the others, so that a restart does not open them to strangers.
* A job without a known cost is charged as estimated once the policy's deadline is over.
* What operators see of budgets (gauges.py) comes from the same sums that decide.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

import structlog

from gateway.ledger.entry import HELD
from gateway.ledger.entry import RELEASED as GIVEN_BACK
from gateway.ledger.errors import LedgerUnavailableError
from gateway.money.known_jobs import recent_jobs
from gateway.money.local_budget_sync import LocalBudgetSync
from gateway.policy.job import SETTLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.config.ruleset import Ruleset
    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Change, Ledger
    from gateway.ledger.writer import Gauges
    from gateway.money.redis_budget_sync import RedisBudgetSync
    from gateway.policy.budget import Budget
    from gateway.state.memory.budgets import BudgetTotals
    from gateway.state.memory.jobs import JobTable
    from gateway.state.memory.store import Quotas
    from gateway.telemetry.metrics.meter import Meter

_MICROSECONDS: Final = 1_000_000
_DEADLINE_LOOK_SECONDS: Final = 30.0
_LONGEST_RUN_SECONDS: Final = 86_400.0  # a run's hold ends with its worker's journal, unless a full disk lost that
_LEAST_LINE_SECONDS, _MOST_LINE_SECONDS = 30.0, 3_600.0
_LINE_DEADLINES: Final = 4
"""Of a job's deadlines: by then, within these bounds, the line of who settled it is here, or was never written, because
its writer died, or stopped, before the store had answered it."""


class BudgetSync:
    """The ledger process's part in budgets; every call in that process."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        ledger: Ledger,
        *,
        quotas: Quotas,
        jobs: JobTable,
        meter: Meter,
        rules: Callable[[], Ruleset],
        ready: Callable[[], None],
        budget_sync: RedisBudgetSync | None = None,
        apply_to: Callable[[Sequence[int]], bool] | None = None,
        began_us: int = 0,
        wall: Callable[[], float] = time,
    ) -> None:
        """Take the ledger, the shared memory, where to count, and what gives the rules in force.

        `budget_sync`: where replicas share the sums, which are then kept there and not in this gateway's memory.
        `apply_to` brings each worker's journal into the ledger up to a place, by slot. `began_us` is when this gateway
        started, in microseconds since the epoch. `wall` gives seconds since the epoch.
        """
        self._wall = wall
        self._budget_sync = budget_sync
        self._ledger = ledger
        self._sums = budget_sync or LocalBudgetSync(quotas, ledger, apply_to=apply_to, wall=wall, began_us=began_us)
        self._jobs = jobs
        self._meter = meter
        self._rules = rules
        self._ready = ready
        self._are_jobs_known = False
        self._deadline_look_at = 0.0
        self._events = structlog.get_logger()

    # -- told by the ledger process (`Listeners`) -------------------------------------------------------------------

    def on_ready(self, up: bool) -> None:  # noqa: FBT001 (the listener's shape)
        """Fill in what is known; a gateway is ready also while its database is unavailable, with its budgets closed."""
        self._keep(is_ledger_up=up)
        self._ready()

    def on_finished(self, entries: Sequence[Entry]) -> None:
        """Count what a dead worker left; its holds became spent money when it died (state/memory/budgets.py)."""
        for entry in entries:
            self._meter.count_cost(entry)

    def on_gauges(self, gauges: Gauges) -> None:
        """Keep the sums."""
        self._keep(is_ledger_up=gauges.is_up)

    def leave(self) -> bool:
        """Look a last time, once all is applied: this gateway's processes hold nothing in a shared store any more.

        Returns whether the store was told, where there is one.
        """
        return self._budget_sync is None or self._budget_sync.leave(self._budgets())

    def _keep(self, *, is_ledger_up: bool) -> None:
        budgets = self._budgets()
        try:
            if is_ledger_up and not self._are_jobs_known:
                self._remember_jobs()
                self._are_jobs_known = True
            self._sums.keep(budgets, is_ledger_up=is_ledger_up)
            if is_ledger_up and self._sums.is_up and monotonic() >= self._deadline_look_at:
                self._deadline_look_at = monotonic() + min(_DEADLINE_LOOK_SECONDS, self._rules().settle_deadline / 4)
                self._charge_overdue()
                self._sums.keep(budgets, is_ledger_up=True)
        except LedgerUnavailableError as fault:  # said by the ledger writer with its next attempt
            self._events.debug("ledger_away", reason=str(fault))

    def on_reconciled(self, changes: Sequence[Change]) -> None:
        """Take rows that fal's bill has corrected: their jobs come to no other cost, and budgets are compared."""
        for change in changes:
            before_ns = (change.old.cost_ns or 0) if change.old is not None else 0
            spent_ns = (change.new.cost_ns or 0) - before_ns
            was_open = change.old is not None and change.old.status in (HELD, GIVEN_BACK)
            if was_open and not self._closes(change.new):
                continue  # a result has come first, and was counted: its line is on its way here
            if spent_ns > 0:
                self._meter.count_cost(change.new._replace(cost_ns=spent_ns, units=None))
        self._sums.audit_soon()

    def purses(self) -> Iterator[tuple[Budget, BudgetTotals]]:
        """Yield each budget with its sums in the period that is now."""
        return ((budget, self._sums.purse(budget)) for budget in self._budgets())

    def _budgets(self) -> list[Budget]:
        return [budget for owned in self._rules().budgets.values() for budget in owned]

    # -- jobs -------------------------------------------------------------------------------------------------------

    def _remember_jobs(self) -> None:
        """Remember whose jobs are; last those that may still come to a cost: the last ones stay in a full table."""
        for name, job in recent_jobs(self._ledger, self._wall()):
            if self._jobs.find(name) is None:
                self._jobs.remember(name, job)

    def _charge_overdue(self) -> None:
        """Charge jobs that nobody settled in time as estimated, and holds that no journal ends any more."""
        now = self._wall()
        before, lost = (
            int((now - age) * _MICROSECONDS) for age in (self._rules().settle_deadline, _LONGEST_RUN_SECONDS)
        )
        last: Entry | None = None
        while page := self._ledger.overdue(before, unbound_before_us=lost, after=last):
            last = page[-1]
            due = [_charged(entry, now) for entry in page if self._may_charge(entry, before)]
            for change in self._ledger.apply(due):
                self._meter.count_cost(change.new)
                self._sums.audit_soon()

    def _may_charge(self, entry: Entry, before_us: int) -> bool:
        """Close a job, unless a result has settled it just now: its line is on its way here then."""
        if entry.fal_request_id is None:
            return True
        line_seconds = min(
            max(_LEAST_LINE_SECONDS, _LINE_DEADLINES * self._rules().settle_deadline), _MOST_LINE_SECONDS
        )
        is_late = entry.admitted_at_us < before_us - line_seconds * _MICROSECONDS
        if self._budget_sync is not None and not self._budget_sync.claim_job(entry, is_late=is_late):
            return False
        is_known = self._jobs.find(entry.fal_request_id) is not None
        is_first = self._jobs.close_job(entry.fal_request_id, SETTLED) is not None
        return is_first or is_late or not is_known or self._budget_sync is not None

    def _closes(self, entry: Entry) -> bool:
        """Close a job that a bill has charged, so that no later result is; False where a result came first."""
        if entry.fal_request_id is None:
            return True
        known = self._jobs.find(entry.fal_request_id) is not None
        is_first = self._jobs.close_job(entry.fal_request_id, SETTLED) is not None or not known
        if self._budget_sync is not None and self._budget_sync.is_up:
            return self._budget_sync.claim_job(entry, is_late=False) or not self._budget_sync.is_up
        return is_first


def _charged(entry: Entry, now: float) -> Entry:
    source = "estimated" if entry.estimate_ns is not None else "unknown"
    return entry._replace(
        status="settled", cost_ns=entry.estimate_ns, source=source, changed_at_us=int(now * _MICROSECONDS)
    )
