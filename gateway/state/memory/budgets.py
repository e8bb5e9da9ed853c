"""What is spent and held of each budget, in memory that the workers of one gateway share. Nanodollars, int64.

The decision: for each budget the present period's sums are kept and nothing else, and each worker writes to columns of
its own. Beside what it has done stands what of it is true if it dies now: as much as its journal tells, since the
ledger takes the rest back, or never hears of it (ledger/journal.py). So a death turns just that into spent money which
the ledger charges: runs that were written down may have been executed. What a queue job holds belongs to no worker. A
budget whose sums were never filled in from the ledger admits nothing: it is not known what was spent before this
gateway started. One that was forgotten since, because a reload took it out, stands there with its beginning below 0.

The ledger's process writes to cells of its own, which count in the period that it wrote them in, and it alone makes
places. So what workers write (worker_budgets.py) needs a lock only where there are several.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.platform.shared_table import NUMBERS, TAT, SharedTable, digest_of_name

PLACES: Final = 8_192
NEVER: Final = (1 << 62) - 1
"""Where no journal ever ends: the sums are just being changed."""

_REACH: Final = 256
SPENT: Final = NUMBERS
JOBS: Final = NUMBERS + 1
"""What the ledger filled in, and dead workers left."""

_ADDED_IN, _ADDED_SPENT, _ADDED_JOBS = NUMBERS + 2, NUMBERS + 3, NUMBERS + 4  # by the ledger's process
_NUMBERS: Final = 5
_COLUMNS: Final = 8  # those of `Columns`
_SHOWN: Final = 3


class BudgetTotals:
    """Sums of one budget: where it began (seconds since the epoch; 0: never filled in), spent, held."""

    __slots__ = ("held_ns", "spent_ns", "start")

    def __init__(self, start: int, spent_ns: int, held_ns: int) -> None:
        self.start: Final = start
        self.spent_ns: Final = spent_ns
        self.held_ns: Final = held_ns


class Cut(NamedTuple):
    """Sums of a budget, and where each worker's journal ended when it changed them last, by slot: they tell of no more.

    `start` is when the period began; `jobs_ns` is what queue jobs hold.
    """

    start: int
    spent_ns: int
    jobs_ns: int
    ends: tuple[int, ...]


class Slot:
    """Where a budget was found; -1: nowhere yet."""

    __slots__ = ("digest", "place")

    def __init__(self, digest: int) -> None:
        self.digest: Final = digest
        self.place = -1


class Columns:
    """One worker's cells, as distances from the beginning of a place.

    For all to see: what its runs `held`, what it has `spent`, and what it has added to what `jobs` hold. Judged at its
    death: `recorded` is what runs hold that are written down; the last three are those of its journal as far as `end`,
    and `was_spent`, `was_jobs` and `was_recorded` those before.
    """

    __slots__ = ("all", "end", "held", "jobs", "recorded", "spent", "was_jobs", "was_recorded", "was_spent")

    def __init__(self, first_seat: int, slots: int, slot: int) -> None:
        cells = [first_seat + column * slots + slot for column in range(_COLUMNS)]
        self.all: Final = cells
        self.held: Final = cells[0]
        self.spent: Final = cells[1]
        self.jobs: Final = cells[2]
        self.recorded: Final = cells[3]
        self.end: Final = cells[4]
        self.was_spent: Final = cells[5]
        self.was_jobs: Final = cells[6]
        self.was_recorded: Final = cells[7]


class BudgetTable:
    """The table. `fill`, `forget` and `add` are the ledger process's, the others the workers'.

    Where there are several workers, every call is made under the lock of the store that it belongs to.
    """

    def __init__(self, *, slots: int, places: int = PLACES) -> None:
        self._table = SharedTable(
            places=places, slots=slots, reach=_REACH, numbers=_NUMBERS, columns=_COLUMNS, shown=_SHOWN
        )
        first = self._table.first_seat
        self.cells: Final = self._table.cells
        self._columns: Final = [Columns(first, slots, slot) for slot in range(slots)]
        self._held_at: Final = first
        self._spent_at: Final = first + slots
        self._jobs_at: Final = first + 2 * slots
        self._nothing: Final = (0,) * (first + slots * _SHOWN)
        self._sites: dict[str, Slot] = {}

    def columns(self, slot: int) -> Columns:
        """Return a worker's cells."""
        return self._columns[slot]

    def site(self, name: str) -> Slot:
        """Return where a budget is found."""
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = Slot(digest_of_name(name))
        return site

    def row(self, site: Slot) -> tuple[int, ...]:
        """Return a budget's cells, at its place; where the ledger's process has made none, that is -1 and all are 0."""
        if site.place >= 0:
            row = self._table.row(site.place)
            if row[0] == site.digest:
                return row
        site.place = self._table.look(site.digest)
        return self._table.row(site.place) if site.place >= 0 else self._nothing

    def used(self, row: tuple[int, ...], start: int) -> int:
        """Return what is spent and held in a period."""
        used, jobs = row[SPENT], self.of_jobs(row)
        if row[_ADDED_IN] == start:
            used += row[_ADDED_SPENT]
        if jobs > 0:
            used += jobs
        for held_or_spent in row[self._held_at : self._jobs_at]:
            used += held_or_spent
        return used

    def of_jobs(self, row: tuple[int, ...]) -> int:
        """Return what jobs hold."""
        jobs = row[JOBS]
        if row[_ADDED_IN] == row[TAT]:
            jobs += row[_ADDED_JOBS]
        for added in row[self._jobs_at :]:
            jobs += added
        return jobs

    def turn(self, site: Slot, start: int) -> None:
        """Begin a new period of a budget that has a place."""
        cells, place = self.cells, site.place
        cells[place + SPENT] = 0
        cells[place + JOBS] = 0
        self._table.drop(place)
        cells[place + TAT] = start

    def fill(self, name: str, start: int, *, spent_ns: int, jobs_ns: int) -> bool:
        """Set the sums of a budget that was never filled in; False where it was."""
        place = self._table.find(self.site(name).digest)
        cells = self.cells
        if cells[place + TAT] > 0:
            return False
        if cells[place + TAT] != -start:
            self._table.drop(place)
        row = self._table.row(place)  # runs under way since before `forget` still hold what they hold
        cells[place + _ADDED_IN] = 0
        cells[place + SPENT] = spent_ns - sum(row[self._spent_at : self._jobs_at])
        cells[place + JOBS] = jobs_ns - sum(row[self._jobs_at :])
        cells[place + TAT] = start  # last: from here on calls are admitted
        return True

    def fill_again(self, name: str, start: int, *, spent_ns: int, jobs_ns: int) -> None:
        """Set the sums of a budget whose period began too late, by a clock that was ahead; no run holds anything."""
        place = self._table.find(self.site(name).digest)
        self.cells[place + TAT] = 0
        self.fill(name, start, spent_ns=spent_ns, jobs_ns=jobs_ns)

    def forget(self, name: str) -> None:
        """Take a budget that is no longer in force as never filled in: what is spent meanwhile is not counted here."""
        place = self._table.find(self.site(name).digest)
        self.cells[place + TAT] = -abs(int(self.cells[place + TAT]))

    def add(self, name: str, start: int, *, spent_ns: int, jobs_ns: int) -> None:
        """Add to the sums of the period that began at `start`, if it is still the present one; below 0 to take away."""
        site = self.site(name)
        row = self.row(site)
        if row[TAT] != start:
            return
        cells, place = self.cells, site.place
        if row[_ADDED_IN] != start:
            cells[place + _ADDED_SPENT] = 0
            cells[place + _ADDED_JOBS] = 0
            cells[place + _ADDED_IN] = start
        cells[place + _ADDED_SPENT] += spent_ns
        cells[place + _ADDED_JOBS] += jobs_ns

    def spent(self, name: str) -> tuple[int, int]:
        """Return when a budget's period began, and what is spent in it."""
        row = self.row(self.site(name))
        return row[TAT], self._spent(row)

    def _spent(self, row: tuple[int, ...]) -> int:
        spent_ns = row[SPENT] + sum(row[self._spent_at : self._jobs_at])
        return spent_ns + row[_ADDED_SPENT] if row[_ADDED_IN] == row[TAT] else spent_ns

    def cut(self, name: str) -> Cut | None:
        """Return a budget's sums, and of which lines they tell; None where it has no place, or is being changed."""
        site = self.site(name)
        row = self.row(site)
        if site.place < 0:
            return None
        ends = tuple(int(self.cells[site.place + columns.end]) for columns in self._columns)
        if NEVER in ends or self.row(site) != row:
            return None
        return Cut(row[TAT], self._spent(row), self.of_jobs(row), ends)

    def purse(self, name: str, start: int) -> BudgetTotals:
        """Return the sums of the period that began at `start`."""
        row = self.row(self.site(name))
        known = row[TAT]
        if 0 < known < start:  # nobody has asked for anything since it began
            return BudgetTotals(start, 0, 0)
        spent_ns = self._spent(row)
        return BudgetTotals(max(0, known), spent_ns, max(0, self.used(row, known) - spent_ns))

    def vacate(self, slot: int, end: int) -> None:
        """Count what a worker left that is gone, and whose journal ends there.

        What it held is spent, if that was written down: what it had sent may have been executed.
        """
        cells, of = self.cells, self._columns[slot]
        for place in self._table.taken():
            is_told = cells[place + of.end] <= end
            spent, jobs, recorded = (
                (of.spent, of.jobs, of.recorded) if is_told else (of.was_spent, of.was_jobs, of.was_recorded)
            )
            cells[place + SPENT] += cells[place + spent] + cells[place + recorded]
            cells[place + JOBS] += cells[place + jobs]
            for cell in of.all:
                cells[place + cell] = 0

    def close(self) -> None:
        """Give this process's mapping back."""
        self._table.close()
