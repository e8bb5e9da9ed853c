"""What one worker holds of budgets, beside the purses that it shares with others (budgets.py).

The decision: what a worker changes is written to the purses at the end of its turn, once for all requests of the turn,
as their lines are to the journal; nothing that was granted is sent before. So a purse is read once a turn and not four
times a request. Where there are several workers a hold is written at once, under the lock, since the others have to see
it; what it turned into waits for the end of the turn there too, and counts as held until then.

What the ledger is to know is written with the place in the journal where its lines end, and what was there before is
kept until those are in the file: one of the two is what the ledger knows, at whichever moment this worker dies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gateway.platform.shared_table import TAT
from gateway.state.memory.budgets import NEVER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from gateway.policy.budget import Budget
    from gateway.state.memory.budgets import BudgetTable, Slot


class Lines(Protocol):
    """The journal, as places in it: those of later lines are greater."""

    @property
    def reach(self) -> int:
        """Where the file ends."""

    @property
    def end(self) -> int:
        """Where it will end once all is written that was appended."""


class NoLines:
    """Of a worker without a journal: whatever it does is true at once."""

    reach: Final = 0
    end: Final = 0


class WorkerTotals:
    """One budget as one worker sees it: `start` and `used_ns` as of the last reading, and what is not written yet.

    `start` is below 0 where the budget was forgotten. What is not written belongs to the period that began then.
    """

    __slots__ = ("held_ns", "is_open", "is_read", "jobs_ns", "recorded_ns", "site", "spent_ns", "start", "used_ns")

    def __init__(self, site: Slot) -> None:
        self.site: Final = site
        self.start = 0
        self.used_ns = 0
        self.is_read = False  # in this turn
        self.is_open = False  # read in this turn, or changed
        self.held_ns = 0
        self.spent_ns = 0
        self.jobs_ns = 0
        self.recorded_ns = 0  # of what is held, what the ledger knows of

    def forget(self) -> None:
        """Let go of what was not written: it was, or its period is over."""
        self.held_ns = self.spent_ns = self.jobs_ns = self.recorded_ns = 0

    def is_of(self, start: int) -> bool:
        """Return whether it is of the period that began then, in force or forgotten."""
        return self.start == start or self.start == -start  # noqa: PLR1714 (compiled: no tuple, no call of abs)


_NONE: Final[list[WorkerTotals]] = []  # of a hold that was not granted; nobody adds to it


class Reservation:
    """What one purchase holds of its budgets: `estimate_ns`, in the periods that began at `starts`.

    `is_recorded`: its purchase is written down. `shares` are the holding worker's, where budgets live in memory.
    """

    __slots__ = ("budgets", "estimate_ns", "is_recorded", "shares", "starts")

    def __init__(self, budgets: Sequence[Budget], estimate_ns: int) -> None:
        self.budgets: Final = tuple(budgets)
        self.estimate_ns: Final = estimate_ns
        self.is_recorded = False
        self.starts: tuple[int, ...] = ()
        self.shares: list[WorkerTotals] = _NONE


class Shortfall:
    """Which of a purchase's budgets, by its rank, has no room for it: `used_ns` in the period that began at `start`.

    -1 where it is not known what is used.
    """

    __slots__ = ("rank", "start", "used_ns")

    def __init__(self, rank: int, used_ns: int, start: int) -> None:
        self.rank: Final = rank
        self.used_ns: Final = used_ns
        self.start: Final = start


class WorkerBudgets:
    """One worker's holdings. `lock` is that of the purses; `is_alone`: no other worker holds of them."""

    def __init__(
        self, purses: BudgetTable, slot: int, lock: AbstractContextManager[None], *, is_alone: bool, lines: Lines
    ) -> None:
        self._purses: Final = purses
        self._lines: Final = lines
        self._mine: Final = purses.columns(slot)
        self._lock: Final = lock
        self._is_alone: Final = is_alone
        self._shares: dict[str, WorkerTotals] = {}
        self._open: list[WorkerTotals] = []

    def take(self, hold: Reservation, starts: Sequence[int]) -> Shortfall | None:
        """Hold the estimate in every budget if all have room, else return which has none.

        `starts`: when the present period of each began, in seconds since the epoch. A clock that was set back does not
        bring an earlier period back.
        """
        if self._is_alone:
            return self._take(hold, starts)
        with self._lock:
            lack = self._take(hold, starts)
            self._write_all()
            return lack

    def _take(self, hold: Reservation, starts: Sequence[int]) -> Shortfall | None:
        estimate_ns = hold.estimate_ns
        shares: list[WorkerTotals] = []
        begun: list[int] = []
        for rank, budget in enumerate(hold.budgets):
            share = self._share(budget.store_name)
            if not share.is_read:
                self._read(share)
            if 0 < share.start < starts[rank]:
                self._purses.turn(share.site, starts[rank])
                self._read(share)
            if share.start <= 0 or share.used_ns + estimate_ns > budget.limit_ns:
                return Shortfall(rank, share.used_ns, share.start) if share.start > 0 else Shortfall(rank, -1, 0)
            shares.append(share)
            begun.append(share.start)
        for share in shares:
            share.held_ns += estimate_ns
            share.used_ns += estimate_ns
        hold.shares = shares
        hold.starts = tuple(begun)
        return None

    def record(self, hold: Reservation) -> None:
        """Take a granted hold's purchase as written down, in this turn: it is spent if this worker dies."""
        hold.is_recorded = True
        for rank, share in enumerate(hold.shares):
            if share.is_of(hold.starts[rank]):
                share.recorded_ns += hold.estimate_ns
                if not share.is_open:
                    self._opened(share)

    def settle(self, hold: Reservation, spent_ns: int) -> None:
        """Turn what a run holds into what it cost, in each period that is still kept; 0: it cost nothing."""
        estimate_ns = hold.estimate_ns
        for rank, share in enumerate(hold.shares):
            if share.is_of(hold.starts[rank]):
                share.held_ns -= estimate_ns
                if hold.is_recorded:
                    share.recorded_ns -= estimate_ns
                share.spent_ns += spent_ns
                share.used_ns += spent_ns - estimate_ns
                if not share.is_open:
                    self._opened(share)

    def bind(self, hold: Reservation) -> None:
        """Hand what a run holds over to a queue job, which outlives the worker; its line is in the journal by now."""
        estimate_ns = hold.estimate_ns
        for rank, share in enumerate(hold.shares):
            if share.is_of(hold.starts[rank]):
                share.held_ns -= estimate_ns
                if hold.is_recorded:
                    share.recorded_ns -= estimate_ns
                share.jobs_ns += estimate_ns
                if not share.is_open:
                    self._opened(share)
        self.write()

    def settle_job(self, purses: Sequence[tuple[Budget, int]], *, freed_ns: int, spent_ns: int) -> None:
        """Free what a job holds, and count what it cost, in each budget whose period is still the present one.

        Its line is in the journal by now. What all jobs hold is never below nothing.
        """
        with self._lock:
            self._write_all()
            for budget, start in purses:
                share = self._share(budget.store_name)
                row = self._purses.row(share.site)
                if row[TAT] == start:
                    share.start = start
                    share.jobs_ns = -max(0, min(freed_ns, self._purses.of_jobs(row)))
                    share.spent_ns = spent_ns
                    self._write(share)

    def write(self) -> None:
        """Write what has changed since the last time."""
        if self._open:
            with self._lock:
                self._write_all()

    def _share(self, name: str) -> WorkerTotals:
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = WorkerTotals(self._purses.site(name))
        return share

    def _opened(self, share: WorkerTotals) -> None:
        share.is_open = True
        self._open.append(share)

    def _read(self, share: WorkerTotals) -> None:
        purses = self._purses
        row = purses.row(share.site)
        start = row[TAT]
        if not share.is_of(start):
            share.forget()
        share.start = start
        share.used_ns = purses.used(row, start) + share.held_ns + share.spent_ns + share.jobs_ns
        share.is_read = True
        if not share.is_open:
            self._opened(share)

    def _write_all(self) -> None:
        for share in self._open:
            if share.held_ns or share.spent_ns or share.jobs_ns or share.recorded_ns:
                self._write(share)
            share.is_read = share.is_open = False
        self._open.clear()

    def _write(self, share: WorkerTotals) -> None:
        """Add what is not written, if its period is still kept."""
        row = self._purses.row(share.site)
        place = share.site.place
        if place >= 0 and share.is_of(row[TAT]):
            cells, mine = self._purses.cells, self._mine
            if share.spent_ns or share.jobs_ns or share.recorded_ns:
                spent, jobs, recorded = row[mine.spent], row[mine.jobs], int(cells[place + mine.recorded])
                if int(cells[place + mine.end]) <= self._lines.reach:
                    cells[place + mine.was_spent] = spent
                    cells[place + mine.was_jobs] = jobs
                    cells[place + mine.was_recorded] = recorded
                cells[place + mine.end] = NEVER  # while it is changed, what was counts
                cells[place + mine.spent] = spent + share.spent_ns
                cells[place + mine.jobs] = jobs + share.jobs_ns
                cells[place + mine.recorded] = recorded + share.recorded_ns
                cells[place + mine.end] = self._lines.end
            if share.held_ns:
                held_ns = row[mine.held] + share.held_ns
                cells[place + mine.held] = held_ns if held_ns > 0 else 0  # noqa: FURB136 (compiled: no call)
        share.forget()
