"""What one worker holds of budgets, beside the purses that it shares with others (purses.py).

The decision: what a worker changes is written to the purses at the end of its turn, once for all requests of the turn,
as their lines are to the journal; nothing that was granted is sent before. So a purse is read once a turn and not four
times a request. Where there are several workers a hold is written at once, under the lock, since the others have to see
it; what it turned into waits for the end of the turn there too, and counts as held until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.state.places import TAT
from gateway.state.purses import JOBS, SPENT, Purses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from gateway.policy.budget import Budget
    from gateway.state.purses import Site


class Share:
    """One budget as one worker sees it: `start` and `used_ns` as of the last reading, and what is not written yet.

    `start` is below 0 where the budget was forgotten. What is not written belongs to the period that began then.
    """

    __slots__ = ("held_ns", "is_open", "is_read", "jobs_ns", "site", "spent_ns", "start", "used_ns")

    def __init__(self, site: Site) -> None:
        self.site: Final = site
        self.start = 0
        self.used_ns = 0
        self.is_read = False  # in this turn
        self.is_open = False  # read in this turn, or changed
        self.held_ns = 0
        self.spent_ns = 0
        self.jobs_ns = 0

    def forget(self) -> None:
        """Let go of what was not written: its period is over."""
        self.held_ns = self.spent_ns = self.jobs_ns = 0

    def is_of(self, start: int) -> bool:
        """Return whether it is of the period that began then, in force or forgotten."""
        return self.start == start or self.start == -start  # noqa: PLR1714 (compiled: no tuple, no call of abs)


_NONE: Final[list[Share]] = []  # of a hold that was not granted; nobody adds to it


class Hold:
    """What one purchase holds of its budgets: `estimate_ns`, in the periods that began at `starts`.

    `shares` are the holding worker's, where budgets live in memory.
    """

    __slots__ = ("budgets", "estimate_ns", "shares", "starts")

    def __init__(self, budgets: Sequence[Budget], estimate_ns: int) -> None:
        self.budgets: Final = tuple(budgets)
        self.estimate_ns: Final = estimate_ns
        self.starts: tuple[int, ...] = ()
        self.shares: list[Share] = _NONE


class Lack:
    """Which of a purchase's budgets, by its rank, has no room for it: `used_ns` in the period that began at `start`.

    -1 where it is not known what is used.
    """

    __slots__ = ("rank", "start", "used_ns")

    def __init__(self, rank: int, used_ns: int, start: int) -> None:
        self.rank: Final = rank
        self.used_ns: Final = used_ns
        self.start: Final = start


class Holdings:
    """One worker's holdings. `lock` is that of the purses; `is_alone`: no other worker holds of them."""

    def __init__(self, purses: Purses, seat: int, lock: AbstractContextManager[None], *, is_alone: bool) -> None:
        self._purses: Final = purses
        self._mine: Final = purses.first_seat + seat
        self._lock: Final = lock
        self._is_alone: Final = is_alone
        self._shares: dict[str, Share] = {}
        self._open: list[Share] = []

    def take(self, hold: Hold, starts: Sequence[int]) -> Lack | None:
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

    def _take(self, hold: Hold, starts: Sequence[int]) -> Lack | None:
        estimate_ns = hold.estimate_ns
        shares: list[Share] = []
        begun: list[int] = []
        for rank, budget in enumerate(hold.budgets):
            share = self._share(budget.store_name)
            if not share.is_read:
                self._read(share)
            if 0 < share.start < starts[rank]:
                self._purses.turn(share.site, starts[rank])
                self._read(share)
            if share.start <= 0 or share.used_ns + estimate_ns > budget.limit_ns:
                return Lack(rank, share.used_ns, share.start) if share.start > 0 else Lack(rank, -1, 0)
            shares.append(share)
            begun.append(share.start)
        for share in shares:
            share.held_ns += estimate_ns
            share.used_ns += estimate_ns
        hold.shares = shares
        hold.starts = tuple(begun)
        return None

    def settle(self, hold: Hold, spent_ns: int) -> None:
        """Turn what a run holds into what it cost, in each period that is still kept; 0: it cost nothing."""
        estimate_ns = hold.estimate_ns
        for rank, share in enumerate(hold.shares):
            if share.is_of(hold.starts[rank]):
                share.held_ns -= estimate_ns
                share.spent_ns += spent_ns
                share.used_ns += spent_ns - estimate_ns
                if not share.is_open:
                    self._opened(share)

    def bind(self, hold: Hold) -> None:
        """Hand what a run holds over to a queue job, which outlives the worker; written before anybody hears of it."""
        for rank, share in enumerate(hold.shares):
            if share.is_of(hold.starts[rank]):
                share.held_ns -= hold.estimate_ns
                share.jobs_ns += hold.estimate_ns
                if not share.is_open:
                    self._opened(share)
        self.write()

    def settle_job(self, purses: Sequence[tuple[Budget, int]], *, freed_ns: int, spent_ns: int) -> None:
        """Free what a job holds, and count what it cost, in each budget whose period is still the present one."""
        with self._lock:
            self._write_all()
            for budget, start in purses:
                self._purses.settle_job(budget.store_name, start, freed_ns=freed_ns, spent_ns=spent_ns)

    def write(self) -> None:
        """Write what has changed since the last time."""
        if self._open:
            with self._lock:
                self._write_all()

    def _share(self, name: str) -> Share:
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = Share(self._purses.site(name))
        return share

    def _opened(self, share: Share) -> None:
        share.is_open = True
        self._open.append(share)

    def _read(self, share: Share) -> None:
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
            if share.held_ns or share.spent_ns or share.jobs_ns:
                self._write(share)
            share.is_read = share.is_open = False
        self._open.clear()

    def _write(self, share: Share) -> None:
        """Add what is not written, if its period is still kept; what is freed comes last, lest a death loses it."""
        site = share.site
        row = self._purses.row(site)
        if share.is_of(row[TAT]) and site.place >= 0:
            cells, place = self._purses.cells, site.place
            if share.spent_ns:
                cells[place + SPENT] = row[SPENT] + share.spent_ns
            if share.jobs_ns:
                cells[place + JOBS] = row[JOBS] + share.jobs_ns
            if share.held_ns:
                held_ns = row[self._mine] + share.held_ns
                cells[place + self._mine] = held_ns if held_ns > 0 else 0  # noqa: FURB136 (compiled: no call)
        share.forget()
