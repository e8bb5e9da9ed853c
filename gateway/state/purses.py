"""What is spent and held of each budget, in memory that the workers of one gateway share. Nanodollars, int64.

The decision: for each budget the present period's sums are kept and nothing else. What a run holds stands in its
worker's column, so that a worker's death turns just that into spent money (its runs may have been executed); what a
queue job holds belongs to no worker. A budget whose sums were never filled in from the ledger admits nothing: it is
not known what was spent before this gateway started. One that was forgotten since, because a reload took it out, stands
there with its beginning below 0.

The ledger's process writes to cells of its own, which count in the period that it wrote them in, and it alone makes
places. So what workers write needs a lock only where there are several: record locks are a third of the time that the
money of a request takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.state.places import NUMBERS, TAT, Places, digest_of_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.policy.budget import Budget
    from gateway.policy.quota import Verdict

PLACES: Final = 8_192
_REACH: Final = 256
_SPENT, _JOBS = NUMBERS, NUMBERS + 1
_ADDED_IN, _ADDED_SPENT, _ADDED_JOBS = NUMBERS + 2, NUMBERS + 3, NUMBERS + 4  # by the ledger's process
_NUMBERS: Final = 5


class Hold:
    """What one purchase holds of its budgets: `estimate_ns`, in the periods that began at `starts`."""

    __slots__ = ("budgets", "estimate_ns", "starts")

    def __init__(self, budgets: Sequence[Budget], estimate_ns: int) -> None:
        self.budgets: Final = tuple(budgets)
        self.estimate_ns: Final = estimate_ns
        self.starts: tuple[int, ...] = ()


class Purse:
    """Sums of one budget: where it began (seconds since the epoch; 0: never filled in), spent, held."""

    __slots__ = ("held_ns", "spent_ns", "start")

    def __init__(self, start: int, spent_ns: int, held_ns: int) -> None:
        self.start: Final = start
        self.spent_ns: Final = spent_ns
        self.held_ns: Final = held_ns


class _Site:
    """Where a budget was found; -1: nowhere yet."""

    __slots__ = ("digest", "place")

    def __init__(self, digest: int) -> None:
        self.digest: Final = digest
        self.place = -1


class Purses:
    """The table. `fill`, `forget` and `add` are the ledger process's, the others the workers'.

    Where there are several workers, every call is made under the lock of the store that it belongs to.
    """

    def __init__(self, *, seats: int, places: int = PLACES) -> None:
        self._table = Places(places=places, seats=seats, reach=_REACH, numbers=_NUMBERS)
        self._first_seat: Final = self._table.first_seat
        self._nothing: Final = (0,) * (self._first_seat + seats)
        self._sites: dict[str, _Site] = {}

    def _site(self, name: str) -> _Site:
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = _Site(digest_of_name(name))
        return site

    def _row(self, site: _Site) -> tuple[int, ...]:
        """Return a budget's cells, at its place; where the ledger's process has made none, that is -1 and all are 0."""
        if site.place >= 0:
            row = self._table.row(site.place)
            if row[0] == site.digest:
                return row
        site.place = self._table.look(site.digest)
        return self._table.row(site.place) if site.place >= 0 else self._nothing

    def _used(self, row: tuple[int, ...], start: int) -> int:
        """Return what is spent and held in a period."""
        spent, jobs = row[_SPENT], row[_JOBS]
        if row[_ADDED_IN] == start:
            spent += row[_ADDED_SPENT]
            jobs += row[_ADDED_JOBS]
        if jobs > 0:
            spent += jobs
        for held in row[self._first_seat :]:
            spent += held
        return spent

    def _turn(self, place: int, start: int) -> None:
        """Begin a new period."""
        cells = self._table.cells
        cells[place + _SPENT] = 0
        cells[place + _JOBS] = 0
        self._table.drop(place)
        cells[place + TAT] = start

    def fill(self, name: str, start: int, *, spent_ns: int, jobs_ns: int) -> bool:
        """Set the sums of a budget that was never filled in; False where it was."""
        place = self._table.find(self._site(name).digest)
        cells = self._table.cells
        if cells[place + TAT] > 0:
            return False
        if cells[place + TAT] != -start:  # runs under way since before `forget` still hold what they hold
            self._table.drop(place)
        cells[place + _ADDED_IN] = 0
        cells[place + _SPENT] = spent_ns
        cells[place + _JOBS] = jobs_ns
        cells[place + TAT] = start  # last: from here on calls are admitted
        return True

    def forget(self, name: str) -> None:
        """Take a budget that is no longer in force as never filled in: what is spent meanwhile is not counted here."""
        place = self._table.find(self._site(name).digest)
        self._table.cells[place + TAT] = -abs(int(self._table.cells[place + TAT]))

    def add(self, name: str, start: int, *, spent_ns: int, jobs_ns: int) -> None:
        """Add to the sums of the period that began at `start`, if it is still the present one; below 0 to take away."""
        site = self._site(name)
        row = self._row(site)
        if row[TAT] != start:
            return
        cells, place = self._table.cells, site.place
        if row[_ADDED_IN] != start:
            cells[place + _ADDED_SPENT] = 0
            cells[place + _ADDED_JOBS] = 0
            cells[place + _ADDED_IN] = start
        cells[place + _ADDED_SPENT] += spent_ns
        cells[place + _ADDED_JOBS] += jobs_ns

    def purse(self, name: str, start: int) -> Purse:
        """Return the sums of the period that began at `start`."""
        row = self._row(self._site(name))
        known = row[TAT]
        if 0 < known < start:  # nobody has asked for anything since it began
            return Purse(start, 0, 0)
        spent_ns = row[_SPENT] + (row[_ADDED_SPENT] if row[_ADDED_IN] == known else 0)
        return Purse(max(0, known), spent_ns, max(0, self._used(row, known) - spent_ns))

    def take(self, hold: Hold, seat: int, *, starts: Sequence[int], verdict: Verdict) -> bool:
        """Hold the estimate in every budget if all have room, else write into the verdict which has none.

        `starts`: when the present period of each began, in seconds since the epoch. A clock that was set back does not
        bring an earlier period back.
        """
        estimate_ns, mine = hold.estimate_ns, self._first_seat + seat
        own: list[int] = []  # the cells to write, and what they hold
        held: list[int] = []
        begun: list[int] = []
        for rank, budget in enumerate(hold.budgets):
            site = self._site(budget.store_name)
            row = self._row(site)
            start = row[TAT]
            if 0 < start < starts[rank]:
                start = starts[rank]
                self._turn(site.place, start)
                row = self._table.row(site.place)
            used_ns = self._used(row, start) if start > 0 else -1
            if start <= 0 or used_ns + estimate_ns > budget.limit_ns:
                verdict.granted = False
                verdict.over_budget = rank
                verdict.used_ns = used_ns
                verdict.begun_at = max(0, start)
                return False
            own.append(site.place + mine)
            held.append(row[mine])
            begun.append(start)
        for rank, cell in enumerate(own):
            self._table.cells[cell] = held[rank] + estimate_ns
        hold.starts = tuple(begun)
        return True

    def settle(self, hold: Hold, seat: int, spent_ns: int) -> None:
        """Turn what a run holds into what it cost; 0: it cost nothing."""
        self._free(hold, seat, into=_SPENT, amount_ns=spent_ns)

    def bind(self, hold: Hold, seat: int) -> None:
        """Hand what a run holds over to a queue job, which outlives the worker."""
        self._free(hold, seat, into=_JOBS, amount_ns=hold.estimate_ns)

    def _free(self, hold: Hold, seat: int, *, into: int, amount_ns: int) -> None:
        """Free what a run holds in each period that is still kept, and add an amount there instead."""
        cells, starts, mine = self._table.cells, hold.starts, self._first_seat + seat
        for rank, budget in enumerate(hold.budgets):
            site = self._site(budget.store_name)
            row = self._row(site)
            if site.place >= 0 and abs(row[TAT]) == starts[rank]:
                left_ns = row[mine] - hold.estimate_ns
                cells[site.place + mine] = left_ns if left_ns > 0 else 0  # noqa: FURB136 (compiled: no call)
                cells[site.place + into] = row[into] + amount_ns

    def settle_job(self, name: str, start: int, *, freed_ns: int, spent_ns: int) -> None:
        """Free what a job holds in one budget, and count what it cost, if that period is still the present one."""
        site = self._site(name)
        row = self._row(site)
        if row[TAT] == start:
            cells, place = self._table.cells, site.place
            cells[place + _JOBS] = max(0, row[_JOBS] - freed_ns)
            cells[place + _SPENT] = row[_SPENT] + spent_ns

    def vacate(self, seat: int) -> None:
        """Count what a worker held that is gone as spent: what it had sent may have been executed."""
        for place in self._table.taken():
            self._table.cells[place + _SPENT] += self._table.held_by(place, seat)
        self._table.vacate(seat)

    def close(self) -> None:
        """Give this process's mapping back."""
        self._table.close()
