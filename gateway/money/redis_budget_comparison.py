"""The comparison of budgets that replicas share with the ledger, which corrects them whatever the cause was.

The decisions it carries:

* Both sides are compared as of the same lines of all journals, so no pause is needed. A purse is read, and from then on
  what processes state of it is listed beside it, with the places where their journals end (a cut). A second later the
  ledger's sums are read together with the places up to which it has each journal. The purse as of these places is what
  was read, and what was stated since up to there.
* It counts only where the ledger has by then all that the purse had counted when it was read, of every process.
* The difference is added, so the purse may have moved on; by as much as two cuts in a row have in common, since what a
  process states can be on its way to the store while its journal is in the ledger already. A job that is settled by
  another gateway before its submit is in the ledger looks like a hold that the purse lacks, for tenths of a second.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from gateway.money.comparison import AUDIT_SECONDS, log_correction
from gateway.state.redis.admin import CUT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.ledger.daily_totals import LedgerCut
    from gateway.ledger.ledger import Ledger
    from gateway.policy.budget import Budget
    from gateway.state.redis.admin import RedisBudgetAdmin
    from gateway.state.redis.budget_totals import RedisBudgetTotals, Statement

CUT_AGE_SECONDS: Final = 0.9
"""How old a cut is at least when it is compared: journals are read five times a second, statements made each second."""

_RETRY_SECONDS: Final = 2.0
_MICROSECONDS: Final = 1_000_000


class _Difference(NamedTuple):
    """By how much the ledger has more than a purse of this edition and period."""

    edition: int
    start: int
    spent_ns: int
    jobs_ns: int


class RedisBudgetComparison:
    """One gateway's comparison; several may compare the same purses, one at a time."""

    def __init__(self, books: RedisBudgetAdmin, ledger: Ledger, *, cut_age_seconds: float = CUT_AGE_SECONDS) -> None:
        self._books = books
        self._ledger = ledger
        self._cut_age_seconds = cut_age_seconds
        self._audit_at = 0.0
        self._name = ""
        self._cuts: dict[Budget, RedisBudgetTotals] = {}
        self._opened_at = 0.0
        self._differences: dict[Budget, _Difference] = {}

    def soon(self) -> None:
        """Compare with the next look: something has changed that does not reach purses otherwise."""
        self._audit_at = 0.0

    def compare(self, purses: Iterable[Budget]) -> None:
        """Compare these purses when it is time; LedgerAwayError, StoreAwayError."""
        age_seconds = monotonic() - self._opened_at
        if self._cuts and age_seconds >= self._cut_age_seconds:
            self._compare(is_last=age_seconds > CUT_SECONDS / 2)
        if not self._cuts and monotonic() >= self._audit_at:
            self._open(list(purses))

    def _open(self, budgets: list[Budget]) -> None:
        self._name = uuid4().hex
        self._opened_at = monotonic()
        self._audit_at = self._opened_at + AUDIT_SECONDS
        found = self._books.open_cuts(budgets, self._name)
        self._cuts = {budget: purse for budget, purse in zip(budgets, found, strict=True) if purse is not None}
        self._differences = {each: found for each, found in self._differences.items() if each in self._cuts}
        if len(self._cuts) < len(budgets):
            self._audit_at = self._opened_at + _RETRY_SECONDS

    def _compare(self, *, is_last: bool) -> None:
        was_different = bool(self._differences)
        starts = {purse.start for purse in self._cuts.values()}
        ledger = {start: self._ledger.cut_since(start * _MICROSECONDS) for start in starts}
        ready = {budget: cut for budget, cut in self._cuts.items() if _has_all(ledger[cut.start].places, cut)}
        self._cuts = {} if is_last else {budget: cut for budget, cut in self._cuts.items() if budget not in ready}
        for (budget, cut), stated in zip(ready.items(), self._books.close_cuts(ready, self._name), strict=True):
            if stated is not None:
                self._correct(budget, cut, _difference(budget, cut, stated, ledger[cut.start]))
        if self._differences and not was_different:
            self._audit_at = 0.0
        elif self._differences or is_last:
            self._audit_at = monotonic() + _RETRY_SECONDS

    def _correct(self, budget: Budget, cut: RedisBudgetTotals, found: _Difference) -> None:
        """Add what two cuts in a row found, and keep the rest for the next."""
        known = self._differences.pop(budget, None)
        spent_ns = jobs_ns = 0
        if known is not None and known[:2] == found[:2]:
            spent_ns = _in_common(known.spent_ns, found.spent_ns)
            jobs_ns = _in_common(known.jobs_ns, found.jobs_ns)
        if (spent_ns or jobs_ns) and self._books.add(budget, cut, spent_ns=spent_ns, jobs_ns=jobs_ns):
            log_correction(budget, spent_ns=spent_ns, held_ns=jobs_ns)
        if found.spent_ns != spent_ns or found.jobs_ns != jobs_ns:
            self._differences[budget] = found._replace(
                spent_ns=found.spent_ns - spent_ns, jobs_ns=found.jobs_ns - jobs_ns
            )


def _has_all(places: Mapping[tuple[str, str], int], cut: RedisBudgetTotals) -> bool:
    """Say whether the ledger has what each process had stated; not where its journal is not known there."""
    reached = _by_holder(places)
    return all(0 <= cut.stated.get(holder, 0) <= reached.get(holder, -1) for holder in {*cut.holders, *cut.stated})


def _by_holder(places: Mapping[tuple[str, str], int]) -> dict[bytes, int]:
    """Return places by process (`<gateway>:<pid>`); a journal is named `worker-<slot>-<pid>`."""
    return {f"{gateway}:{name.rpartition('-')[2]}".encode(): place for (gateway, name), place in places.items()}


def _difference(budget: Budget, cut: RedisBudgetTotals, stated: Iterable[Statement], ledger: LedgerCut) -> _Difference:
    """Return by how much the ledger has more than the purse as of the same lines."""
    reached = _by_holder(ledger.places)
    counted = [each for each in stated if each.place <= reached.get(each.holder, -1)]
    spent_ns = cut.counted_ns + sum(each.spent_ns for each in counted)
    jobs_ns = cut.open_ns + sum(each.jobs_ns for each in counted)
    sums = ledger.sums
    return _Difference(
        cut.edition, cut.start, sums.spent.of(budget.owner) - spent_ns, sums.jobs.of(budget.owner) - jobs_ns
    )


def _in_common(known_ns: int, found_ns: int) -> int:
    """Return how much of two differences is the same: 0 where one is up and the other down."""
    if known_ns > 0 < found_ns:
        return min(known_ns, found_ns)
    return max(known_ns, found_ns) if known_ns < 0 > found_ns else 0
