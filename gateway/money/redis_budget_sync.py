"""What the ledger process does for budgets that replicas share: fills them in, compares them, ends what the dead hold.

The decisions it carries:

* The ledger is the truth and the store its shadow. A purse that is missing is filled in with all that the ledger has;
  what is held, and what was settled in the last seconds, is stated by the processes that did it
  (state/redis/budget_counters.py).
* A store may be older than what was written to it: emptied, restored from a snapshot, or a replica that lagged behind
  and was promoted. Each gateway raises its own number there (a fence); where that is missing, or lower than the one
  which it wrote last, or the server has begun since (it may lack the last second), every purse is filled in again that
  no gateway has filled in since, and jobs are written again: open ones, and those of the last day that were settled or
  given back, so that none is settled twice.
* Whatever else goes wrong is corrected by the comparison with the ledger (redis_budget_comparison.py).
* A process of this gateway that is gone can never come back. Once its journal is applied its holds become spent money,
  and the comparison takes away what of it the ledger does not have. One of another gateway is dead when that has shown
  no life for ten minutes, or when this gateway has adopted its journals and applied them.
* A job is closed in the store before it is charged as overdue, and by a result before that is charged: who closes it
  charges it, so that none is charged twice.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic, time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from gateway.money.known_jobs import job_of, open_jobs, recent_jobs
from gateway.money.living_gateways import LifeSigns
from gateway.money.redis_budget_comparison import RedisBudgetComparison
from gateway.policy.budget import period_end, period_start
from gateway.policy.job import SETTLED
from gateway.state.memory.budgets import BudgetTotals
from gateway.state.redis.admin import OPENING_SECONDS, RedisBudgetAdmin, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Ledger
    from gateway.policy.budget import Budget
    from gateway.state.redis.budget_totals import RedisBudgetTotals

LOOK_SECONDS: Final = 1.0
LAG_SECONDS: Final = 1
"""What was settled longer ago is in the ledger, as a rule: journals are read five times a second."""

_PATIENCE_SECONDS: Final = 10.0  # with a gateway that has to show its life again after the store was lost
_REPEATS: Final = 3  # looks: what was submitted just before the store was lost comes to the ledger within a second
_MICROSECONDS: Final = 1_000_000


class Journals(NamedTuple):
    """Up to where each journal of this gateway is in the ledger, by process; a dead one's is here until all of it is.

    `adopted` names gateways whose journals this one has adopted and applied to the end.
    """

    applied: Mapping[int, int]
    adopted: Iterable[str] = ()


def open_redis_budget_sync(
    url: str, replica: str, ledger: Ledger, *, workers: Callable[[], Sequence[int]], journals: Callable[[], Journals]
) -> RedisBudgetSync:
    """Return the budget sync of a gateway's ledger process; connects to nothing yet."""
    return RedisBudgetSync(RedisBudgetAdmin(url, replica), ledger, replica=replica, workers=workers, journals=journals)


class RedisBudgetSync:
    """The shared budgets, as one ledger process keeps them."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        books: RedisBudgetAdmin,
        ledger: Ledger,
        *,
        replica: str,
        workers: Callable[[], Sequence[int]],
        journals: Callable[[], Journals],
        audit: RedisBudgetComparison | None = None,
    ) -> None:
        """Take the store and the ledger. `workers` returns the ids of this gateway's worker processes."""
        self.is_up = False
        """Whether the last look found the store there."""
        self.life_signs = LifeSigns(replica)
        self._books = books
        self._ledger = ledger
        self._replica = replica.encode()
        self._workers = workers
        self._journals = journals
        self._audit = audit or RedisBudgetComparison(books, ledger)
        self._look_at = 0.0
        self._fence: int | None = None
        self._run_id = ""
        self._is_another = False  # a server that began since, or another one: it may lack the last second
        self._is_found_again = False
        self._repeats = 0
        self._strange: dict[bytes, float] = {}  # holders of gateways without a sign of life, and since when
        self._adopted: frozenset[bytes] = frozenset()
        self._purses: dict[Budget, RedisBudgetTotals] = {}
        self._editions: dict[str, int] = {}  # of purses as they were seen last; 0: filled in, and not seen yet
        self._events = structlog.get_logger()

    def keep(self, budgets: Sequence[Budget], *, is_ledger_up: bool) -> None:
        """Look after the purses, when it is time; LedgerAwayError."""
        if monotonic() < self._look_at:
            return
        begun_at = monotonic()
        was_up, self.is_up = self.is_up, False
        try:
            if not was_up:
                self._check_server()
            self._keep(budgets, is_ledger_up=is_ledger_up)
            self.is_up = True
        except StoreUnavailableError as fault:  # said by the workers
            self._events.debug("state_store_away", reason=str(fault))
            self.life_signs.missed(begun_at=begun_at)
        finally:
            self._look_at = monotonic() + LOOK_SECONDS  # it may have taken a second to find out

    def _keep(self, budgets: Sequence[Budget], *, is_ledger_up: bool) -> None:
        seated = self._workers()
        living = self._show_life()
        fence = self._books.fence()
        is_older = self._fence is not None and (fence is None or fence < self._fence or self._is_another)
        if is_ledger_up:
            self._tell_jobs(is_lost=is_older or self._is_found_again)
        found = dict(zip(budgets, self._books.purses(budgets), strict=True))
        now = self._books.now()  # read behind the purses: none of them can have begun later
        lost = {
            budget: purse
            for budget, purse in found.items()
            if purse is None or self._is_lost(budget, purse, now, is_older=is_older)
        }
        self._purses = {budget: purse for budget, purse in found.items() if purse is not None and budget not in lost}
        if is_ledger_up and lost:
            self._fill(lost, now)
        else:
            self._close(lost)
        applied, _ = self._journals()
        ours = {*seated, *self._workers(), *applied}
        if is_ledger_up:
            self._audit.compare(self._purses)
        for budget, purse in self._purses.items():
            self._bury(budget, purse, living, ours)
        self._remember(budgets)
        if is_ledger_up or not (is_older or self._fence is None):  # at the end: what failed on the way is done again
            self._raise_fence(fence)
        if is_ledger_up:
            self._is_another = self._is_found_again = False

    def _show_life(self) -> list[bytes]:
        """Show this gateway's life; return who else lives, without those whose journals this one has adopted."""
        begun_at = monotonic()
        adopted = frozenset(self._journals().adopted)
        self._adopted = frozenset(name.encode() for name in adopted)
        found = self._books.show_life()
        self.life_signs.saw([name.decode() for name in found], begun_at=begun_at, ended=adopted)
        ended = self._adopted.intersection(found)
        if ended:
            self._books.end_life(name.decode() for name in ended)
        return [name for name in found if name not in self._adopted]

    def _remember(self, budgets: Sequence[Budget]) -> None:
        """Keep the editions that were seen, and forget budgets and processes that are gone."""
        names = {budget.store_name for budget in budgets}
        known = {name: edition for name, edition in self._editions.items() if name in names}
        self._editions = known | {budget.store_name: purse.edition for budget, purse in self._purses.items()}
        holders = {holder for purse in self._purses.values() for holder in (*purse.holders, *purse.stated)}
        self._strange = {holder: since for holder, since in self._strange.items() if holder in holders}

    def _raise_fence(self, read: int | None) -> None:
        """Write the next number; `read` is the one that was there when this look began."""
        number = max(read or 0, self._fence or 0) + 1
        is_same = self._books.write_fence(number) == read  # otherwise it was lost within this look: the next sees that
        self._fence = number if is_same else number + 1

    def leave(self, budgets: Sequence[Budget]) -> bool:
        """Look a last time, where the store is there, and return whether it was; the ledger is closed by now."""
        if self.is_up:
            self._look_at = 0.0
            self.keep(budgets, is_ledger_up=False)
        if self.is_up:
            with suppress(StoreUnavailableError):
                self._books.end_life([self._replica.decode()])
        return self.is_up

    def audit_soon(self) -> None:
        """Compare with the next look: this gateway has changed the ledger by itself."""
        self._audit.soon()

    def purse(self, budget: Budget) -> BudgetTotals:
        """Return the sums as of the last look, in the period that is now; `start` 0 where they are not known."""
        shared, start = self._purses.get(budget), period_start(budget.period, time())
        if shared is None or shared.start < start:
            return BudgetTotals(start if shared is not None else 0, 0, 0)
        return BudgetTotals(shared.start, shared.spent_ns, shared.held_ns + shared.jobs_ns)

    def _check_server(self) -> None:
        """Look at a store each time that it is found: whether it is the one from before, whether it deletes keys."""
        run_id = self._books.run_id()
        self._is_another |= bool(run_id and self._run_id and run_id != self._run_id)
        self._is_found_again = True
        self._run_id = run_id or self._run_id
        found = self._books.eviction()
        if found is not None and found.most_bytes and found.policy != "noeviction":
            self._events.warning("state_store_evicts", policy=found.policy, maxmemory_bytes=found.most_bytes)

    # -- what was lost, or is older -----------------------------------------------------------------------------------

    def _is_lost(self, budget: Budget, purse: RedisBudgetTotals, now: float, *, is_older: bool) -> bool:
        """Say whether a purse is older than what this gateway has seen, or of a period that has not begun."""
        if purse.start > period_start(budget.period, now):  # the store's clock was ahead
            return True
        edition = self._editions.get(budget.store_name, 0)
        return purse.edition < edition or (is_older and edition in (0, purse.edition))

    def _fill(self, lost: Mapping[Budget, RedisBudgetTotals | None], now: float) -> None:
        """Fill purses in with what the ledger has. One that was there before is closed until all have stated."""
        starts = {budget: period_start(budget.period, now) for budget in lost}
        sums = {start: self._ledger.sums_since(start * _MICROSECONDS) for start in set(starts.values())}
        for budget, start in starts.items():
            purse, edition = lost[budget], self._editions.get(budget.store_name)
            self._books.fill(
                budget,
                (start, period_end(budget.period, start)),
                spent_ns=sums[start].spent.of(budget.owner),
                jobs_ns=sums[start].jobs.of(budget.owner),
                since=int(time()) - LAG_SECONDS,
                seconds=OPENING_SECONDS if purse is not None or edition is not None else 0.0,
                replaces=purse.edition if purse is not None else None,
                latest=edition or 0,
            )
            self._editions.setdefault(budget.store_name, 0)
        self._audit.soon()

    def _close(self, lost: Mapping[Budget, RedisBudgetTotals | None]) -> None:
        """Let purses that are older admit nothing until the ledger is there."""
        for budget, purse in lost.items():
            if purse is not None:
                self._books.drop(budget, purse.edition)

    # -- the dead ---------------------------------------------------------------------------------------------------

    def _bury(self, budget: Budget, purse: RedisBudgetTotals, living: Collection[bytes], ours: Collection[int]) -> None:
        for holder in {*purse.holders, *purse.stated}:
            replica, _, pid = holder.rpartition(b":")
            is_gone = int(pid) not in ours if replica == self._replica else replica in self._adopted
            if is_gone:
                self._books.sweep(budget, purse.start, holder, is_gone=True)
                self._audit.soon()
            elif replica == self._replica or replica in living:
                self._strange.pop(holder, None)
            elif self._is_patience_over(holder):
                if holder not in purse.holders:  # it has left in order, and its gateway applied its journal
                    self._books.sweep(budget, purse.start, holder, is_gone=True)
                elif purse.holders[holder]:
                    self._books.sweep(budget, purse.start, holder, is_gone=False)

    def _is_patience_over(self, holder: bytes) -> bool:
        return monotonic() - self._strange.setdefault(holder, monotonic()) > _PATIENCE_SECONDS

    # -- jobs -------------------------------------------------------------------------------------------------------

    def _tell_jobs(self, *, is_lost: bool) -> None:
        """Tell jobs to a store that does not know them, or knows them as they were; at this gateway's start, too."""
        if is_lost:
            self._books.tell_jobs(recent_jobs(self._ledger, time()))
            self._repeats = _REPEATS
        elif self._repeats:
            self._books.tell_jobs(open_jobs(self._ledger))
            self._repeats -= 1

    def claim_job(self, entry: Entry, *, is_late: bool) -> bool:
        """Close a job that the ledger is to charge by itself, and return whether it may be.

        Not where a result has closed it before, since its cost is on its way to the ledger; where that should have come
        long ago (`is_late`) it was lost. From here on no result settles it. Gateways that claim it at once all may: the
        ledger takes one charge.
        """
        if not self.is_up or entry.fal_request_id is None:
            return False
        closer = b"overdue/" + entry.id.encode()
        try:
            job = self._books.close_job(entry.fal_request_id, SETTLED, job_of(entry), closer=closer)
        except StoreUnavailableError:
            self.is_up = False  # the other jobs wait for the next look, too, and not each for its own timeout
            return False
        return job is not None or is_late
