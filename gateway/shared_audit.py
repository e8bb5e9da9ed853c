"""The comparison of budgets that replicas share with the ledger, which corrects them whatever the cause was.

The decisions it carries:

* A purse is set to what the ledger has where the ledger has all that the purse counts: every process's last statement
  is applied (`is_applied`), and nothing changed the purse since it was read. The difference has to be the same a second
  later: a worker that was cut off from the store may have written to the ledger what has not reached the store yet.
* A purse that is spent from without a pause is hardly ever at such a moment. Two things are certain of it all the same.
  It has no less spent than the ledger had seconds ago. And the ledger has no less than the purse had when its processes
  stated what is applied by now. So it is raised to the one, and lowered by what it had more than the other. What is
  left of an error is no more than what was spent in these seconds; the next pause takes it away.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.budget_log import log_correction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.ledger.daily_totals import LedgerSums
    from gateway.ledger.ledger import Ledger
    from gateway.policy.budget import Budget
    from gateway.state.redis_books import RedisBooks, SharedPurse

AUDIT_SECONDS: Final = 15.0
CONFIRM_SECONDS: Final = 0.9
"""For so long a difference has to stay the same, from one look to the next: statements are made each second."""

_CEILING_SECONDS: Final = 0.9
_RETRY_SECONDS: Final = 0.5
_MOST_RETRIES: Final = 10

_MICROSECONDS: Final = 1_000_000


class _Difference(NamedTuple):
    """By how much a purse of this edition and period differs from the ledger."""

    edition: int
    start: int
    spent_ns: int
    jobs_ns: int


class _Floor(NamedTuple):
    """What the ledger had spent in a period; no purse of it may have less a few seconds later."""

    start: int
    spent_ns: int
    at: float


class _Ceiling(NamedTuple):
    """What a purse had spent when its processes' journals ended at these places: what the ledger has there."""

    edition: int
    spent_ns: int
    stated: Mapping[bytes, int]


class SharedAudit:
    """One gateway's comparison; several may compare the same purses."""

    def __init__(self, books: RedisBooks, ledger: Ledger, *, confirm_seconds: float = CONFIRM_SECONDS) -> None:
        self._books = books
        self._ledger = ledger
        self._confirm_seconds = confirm_seconds
        self._audit_at = 0.0
        self._retries = 0
        self._differences: dict[str, tuple[_Difference, float]] = {}
        self._floors: dict[str, _Floor] = {}
        self._ceilings: dict[str, _Ceiling] = {}

    def soon(self) -> None:
        """Compare with the next look: something has changed that does not reach purses otherwise."""
        self._audit_at = 0.0
        self._retries = _MOST_RETRIES

    def compare(self, purses: Mapping[Budget, SharedPurse]) -> None:
        """Compare purses, as they were read just now, when it is time; LedgerAwayError, StoreAwayError."""
        if monotonic() < self._audit_at:
            return
        starts = {purse.start for purse in purses.values()}
        sums = {start: self._ledger.sums_since(start * _MICROSECONDS) for start in starts}
        names = {budget.store_name for budget in purses}
        self._differences = {name: found for name, found in self._differences.items() if name in names}
        self._floors = {name: floor for name, floor in self._floors.items() if name in names}
        self._ceilings = {name: ceiling for name, ceiling in self._ceilings.items() if name in names}
        for budget, purse in purses.items():
            if purse.is_applied:
                self._equalize(budget, purse, sums[purse.start])
                self._ceilings.pop(budget.store_name, None)
            else:
                self._differences.pop(budget.store_name, None)
                self._lower(budget, purse, sums[purse.start].spent.of(budget.owner))
            self._raise(budget, purse, sums[purse.start].spent.of(budget.owner))
        pause = self._confirm_seconds if self._differences else _CEILING_SECONDS if self._ceilings else AUDIT_SECONDS
        if self._retries and not all(purse.is_applied for purse in purses.values()):
            self._retries -= 1
            pause = _RETRY_SECONDS
        self._audit_at = monotonic() + pause

    def _equalize(self, budget: Budget, purse: SharedPurse, ledger: LedgerSums) -> None:
        spent_ns, jobs_ns = ledger.spent.of(budget.owner), ledger.jobs.of(budget.owner)
        found = _Difference(purse.edition, purse.start, spent_ns - purse.counted_ns, jobs_ns - purse.open_ns)
        known, since = self._differences.pop(budget.store_name, (None, 0.0))
        if not found.spent_ns and not found.jobs_ns:
            return
        if known != found:
            self._differences[budget.store_name] = found, monotonic()
        elif monotonic() - since < self._confirm_seconds:
            self._differences[budget.store_name] = found, since
        elif self._books.correct(budget, purse, spent_ns=spent_ns, jobs_ns=jobs_ns):
            log_correction(budget, spent_ns=found.spent_ns, held_ns=found.jobs_ns)

    def _lower(self, budget: Budget, purse: SharedPurse, spent_ns: int) -> None:
        """Take away what a purse had more than the ledger has by now; `spent_ns` was read behind the purse."""
        ceiling = self._ceilings.get(budget.store_name)
        if ceiling is None or ceiling.edition != purse.edition:
            self._ceilings[budget.store_name] = _Ceiling(purse.edition, purse.spent_ns, purse.stated)
        elif purse.has_applied(ceiling.stated):
            del self._ceilings[budget.store_name]
            excess_ns = ceiling.spent_ns - spent_ns
            if excess_ns > 0 and self._books.lower(budget, purse, excess_ns):
                log_correction(budget, spent_ns=-excess_ns, held_ns=0)

    def _raise(self, budget: Budget, purse: SharedPurse, spent_ns: int) -> None:
        floor = self._floors.get(budget.store_name)
        if floor is not None and floor.start == purse.start:
            if monotonic() - floor.at < self._confirm_seconds:
                return
            lacks_ns = floor.spent_ns - purse.spent_ns
            if not purse.is_applied and lacks_ns > 0 and self._books.raise_to(budget, purse, floor.spent_ns):
                log_correction(budget, spent_ns=lacks_ns, held_ns=0)
        self._floors[budget.store_name] = _Floor(purse.start, spent_ns, monotonic())
