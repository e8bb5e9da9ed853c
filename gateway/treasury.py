"""What the ledger process does for budgets that replicas share: the bookkeeper's part, over the store.

The decisions it carries:

* The ledger is the truth and the store its shadow. A purse that is missing is filled in with what the ledger has up to
  a few seconds ago; what was settled since, and what is held, is stated by the processes that did it
  (state/redis_registers.py). A gateway that has just begun takes all that the ledger has, and waits for nobody, and so
  is a budget filled in that a reload has brought: there is none that could say more.
* A process of this gateway that is gone can never come back; what it had to say is said in its name (last_words.py),
  and its holds become spent money with the next look. One of another gateway is dead when that has shown no life for
  ten minutes.
* A job is closed in the store before it is charged as overdue, and by a result before that is charged: who closes it
  charges it, so that none is charged twice.
* Sums that operators see are those of the store's, as of the last look.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

import structlog

from gateway.ledger.ledger import LATEST_US
from gateway.policy.budget import counts_in, period_end, period_start
from gateway.policy.job import OPEN, SETTLED
from gateway.state.last_words import digest_of_key
from gateway.state.redis_books import OPENING_SECONDS, RedisBooks, StoreAwayError
from gateway.state.redis_registers import purse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Ledger
    from gateway.policy.budget import Budget
    from gateway.policy.job import Job
    from gateway.shared import Shared
    from gateway.state.last_words import LastWord, LastWords
    from gateway.state.redis_books import SharedPurse

LOOK_SECONDS: Final = 1.0
LAG_SECONDS: Final = 5
"""What was settled longer ago is in the ledger, whoever did it: journals are read five times a second."""

YOUNG_SECONDS: Final = 5.0
_PATIENCE_SECONDS: Final = 10.0  # with a gateway that has to show its life anew after the store was lost
_MICROSECONDS: Final = 1_000_000


def open_treasury(url: str, shared: Shared, ledger: Ledger, *, job_of: Callable[[Entry], Job]) -> Treasury:
    """Return the treasury of a gateway's ledger process; connects to nothing yet."""
    return Treasury(
        RedisBooks(url, shared.replica),
        ledger,
        replica=shared.replica,
        workers=lambda: [seat.pid for seat in shared.board.workers],
        born_at=shared.born_at,
        last_words=shared.last_words,
        job_of=job_of,
    )


class Treasury:
    """The shared budgets, as one ledger process keeps them."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        books: RedisBooks,
        ledger: Ledger,
        *,
        replica: str,
        workers: Callable[[], Sequence[int]],
        born_at: float,
        last_words: LastWords,
        job_of: Callable[[Entry], Job],
    ) -> None:
        """Take the store and the ledger. `workers`: ids of this gateway's worker processes; `born_at`: its start."""
        self.is_up = False
        """Whether the last look found the store there."""
        self._books = books
        self._ledger = ledger
        self._replica = replica.encode()
        self._workers = workers
        self._born_at = born_at
        self._last_words = last_words
        self._job_of = job_of
        self._look_at = 0.0
        self._strange: dict[bytes, float] = {}  # holders of gateways without a sign of life, and since when
        self._purses: dict[str, SharedPurse] = {}
        self._seen: set[str] = set()  # purses that were there once, so that one that is missing was lost
        self._events = structlog.get_logger()

    def keep(self, budgets: Sequence[Budget], *, is_ledger_up: bool) -> None:
        """Look after the purses, when it is time; LedgerAwayError."""
        if monotonic() < self._look_at:
            return
        self._look_at = monotonic() + LOOK_SECONDS
        self.is_up = False
        try:
            self._keep(budgets, is_ledger_up=is_ledger_up)
            self.is_up = True
        except StoreAwayError as fault:  # said by the workers
            self._look_at = monotonic() + LOOK_SECONDS  # it may have taken a second to find out
            self._events.debug("state_store_away", reason=str(fault))

    def _keep(self, budgets: Sequence[Budget], *, is_ledger_up: bool) -> None:
        seated = self._workers()  # who ends from here on is dead with the next look, when its last words are known
        living = self._books.show_life()
        is_lost = is_ledger_up and not self._books.knows_jobs()
        if is_lost:
            jobs = self._open_jobs()
            self._books.tell_jobs((entry.fal_request_id, self._job_of(entry)) for entry in jobs if entry.fal_request_id)
        found = dict(zip(budgets, self._books.purses(budgets), strict=True))
        missing = [budget for budget, purse in found.items() if purse is None]
        if is_ledger_up and missing:
            self._fill(missing, is_lost=is_lost)
        self._purses = {budget.store_name: purse for budget, purse in found.items() if purse is not None}
        self._seen = (self._seen | self._purses.keys()) & {budget.store_name for budget in budgets}
        workers = {*seated, *self._workers()}
        self._speak_for_the_dead(found, workers)
        for budget, purse in found.items():
            if purse is not None:
                self._bury(budget, purse, living, workers)

    def purse(self, budget: Budget) -> SharedPurse | None:
        """Return the sums as of the last look; None where they were not known."""
        return self._purses.get(budget.store_name)

    # -- filling in -------------------------------------------------------------------------------------------------

    def _fill(self, missing: Sequence[Budget], *, is_lost: bool) -> None:
        """Fill purses in; `is_lost`: the store has lost all that it knew."""
        now = time()
        is_young = monotonic() - self._born_at < YOUNG_SECONDS
        lost = [budget for budget in missing if not is_young and (is_lost or budget.store_name in self._seen)]
        if lost:
            since = int(now) - LAG_SECONDS
            self._fill_from(lost, now, since=since, before_us=since * _MICROSECONDS, seconds=OPENING_SECONDS)
        fresh = [budget for budget in missing if budget not in lost]
        if fresh:
            self._fill_from(fresh, now, since=int(now), before_us=LATEST_US, seconds=0.0)

    def _fill_from(self, budgets: Sequence[Budget], now: float, *, since: int, before_us: int, seconds: float) -> None:
        """Fill in what the ledger knew before a moment, for calls to be admitted in so many seconds."""
        jobs = self._held_at(before_us)
        for budget in budgets:
            start = period_start(budget.period, now)
            spending = self._ledger.spent_since(start * _MICROSECONDS, changed_before_us=before_us)
            scope, _, owner = budget.owner.partition("/")
            self._books.fill(
                budget,
                (start, period_end(budget.period, start)),
                spent_ns=(spending.keys if scope == "key" else spending.teams).get(owner, 0),
                jobs_ns=sum(entry.estimate_ns or 0 for entry in jobs if _is_in(entry, budget, start)),
                since=since,
                seconds=seconds,
            )

    def _held_at(self, moment_us: int) -> list[Entry]:
        """Return the jobs that were open at a moment, as far as the ledger can tell."""
        still = [entry for entry in self._open_jobs() if entry.changed_at_us < moment_us]
        return still + [entry for entry in self._ledger.ended_jobs(moment_us) if entry.admitted_at_us < moment_us]

    def _open_jobs(self) -> list[Entry]:
        found: list[Entry] = []
        while page := self._ledger.open_jobs(after=found[-1] if found else None):
            found += page
        return found

    # -- the dead ---------------------------------------------------------------------------------------------------

    def _speak_for_the_dead(self, purses: Mapping[Budget, SharedPurse | None], workers: Collection[int]) -> None:
        words = self._last_words.of_dead(workers)
        if not words:
            return
        known = {digest_of_key(purse_key(budget)): budget for budget in purses}
        for word in words:
            budget, holder = known.get(word.budget), b"%b:%d" % (self._replica, word.pid)
            purse = purses[budget] if budget is not None else None
            told = word if purse is None else _in_period_of(purse, word)
            if budget is not None:
                self._books.testify(budget, holder, told)
            self._last_words.forget(word)  # before the store forgets whose word it was, and would count it again
            if budget is not None:
                self._books.sweep(budget, told.start, holder, is_gone=True)

    def _bury(self, budget: Budget, purse: SharedPurse, living: Sequence[bytes], workers: Collection[int]) -> None:
        for holder in purse.holders:
            replica, _, pid = holder.rpartition(b":")
            if replica == self._replica:
                if int(pid) not in workers:
                    self._books.sweep(budget, purse.start, holder, is_gone=True)
            elif replica in living:
                self._strange.pop(holder, None)
            elif purse.holders[holder] and self._is_patience_over(holder):
                self._books.sweep(budget, purse.start, holder, is_gone=False)

    def _is_patience_over(self, holder: bytes) -> bool:
        return monotonic() - self._strange.setdefault(holder, monotonic()) > _PATIENCE_SECONDS

    # -- overdue ----------------------------------------------------------------------------------------------------

    def claim_overdue(self, entry: Entry, *, is_late: bool) -> bool:
        """Close a job that is to be charged as overdue, and return whether it may be.

        Not where a result has closed it before, since its cost is on its way to the ledger; where that should have come
        long ago (`is_late`) it was lost. From here on no result settles it. Gateways that claim it at once all may: the
        ledger takes one charge.
        """
        try:
            return self._close(entry) is not None or is_late
        except StoreAwayError:
            return False  # with the next look

    def _close(self, entry: Entry) -> Job | None:
        """Close a job in the name of its purchase, so that whoever asks again is told the same."""
        if entry.fal_request_id is None:
            return None
        closer = b"overdue/" + entry.id.encode()
        return self._books.close_job(entry.fal_request_id, SETTLED, self._job_of(entry), closer=closer)

    def close_overdue(self, entry: Entry, budgets: Sequence[Budget]) -> None:
        """Free what a job holds that the ledger has charged as overdue; once for each, as the ledger says it once."""
        try:
            job = self._close(entry)
            if job is not None and job.state == OPEN:
                self._free(job, entry, budgets)
        except StoreAwayError as fault:
            self._events.warning("overdue_job_not_freed", reason=str(fault), fal_request_id=entry.fal_request_id)

    def correct(self, entry: Entry, spent_ns: int, budgets: Sequence[Budget]) -> None:
        """Add to what a purchase has cost, in budgets of the present period: fal's bill said so."""
        at = entry.admitted_at_us / _MICROSECONDS
        try:
            for budget in budgets:
                start = period_start(budget.period, at)
                if _is_in(entry, budget, start):
                    self._books.adjust(budget, start, spent_ns=spent_ns, jobs_ns=0)
        except StoreAwayError as fault:
            self._events.warning("budget_not_corrected", reason=str(fault), spent_ns=spent_ns)

    def _free(self, job: Job, entry: Entry, budgets: Sequence[Budget]) -> None:
        at = entry.admitted_at_us / _MICROSECONDS
        for budget in budgets:
            start = period_start(budget.period, at)
            if _is_in(entry, budget, start):
                self._books.adjust(budget, start, spent_ns=entry.cost_ns or 0, jobs_ns=-job.estimate_ns)


def _in_period_of(purse: SharedPurse, word: LastWord) -> LastWord:
    """Return what a word comes to in the present period: nothing, where it is of an earlier one, or of none yet."""
    if word.start >= purse.start:
        return word
    return word._replace(start=purse.start, edition=purse.edition, spent_ns=0, jobs_ns=0, held_ns=0)


def _is_in(entry: Entry, budget: Budget, start: int) -> bool:
    return counts_in(budget, start, key=entry.key, team=entry.team, admitted_at_us=entry.admitted_at_us)
