"""What is spent and held of each budget, in memory that the workers of one gateway share. Nanodollars, int64.

The decision: for each budget the present period's sums are kept and nothing else. What a run holds stands in its
worker's column, so that a worker's death turns just that into spent money (its runs may have been executed); what a
queue job holds belongs to no worker. A budget whose sums were never filled in from the ledger admits nothing: it is
not known what was spent before this gateway started. One that was forgotten since, because a reload took it out, stands
there with its beginning below 0.

The ledger's process writes to cells of its own, which count in the period that it wrote them in, and it alone makes
places. So what workers write (holdings.py) needs a lock only where there are several.
"""

from __future__ import annotations

from typing import Final

from gateway.state.places import NUMBERS, TAT, Places, digest_of_name

PLACES: Final = 8_192
_REACH: Final = 256
SPENT: Final = NUMBERS
JOBS: Final = NUMBERS + 1
_ADDED_IN, _ADDED_SPENT, _ADDED_JOBS = NUMBERS + 2, NUMBERS + 3, NUMBERS + 4  # by the ledger's process
_NUMBERS: Final = 5


class Purse:
    """Sums of one budget: where it began (seconds since the epoch; 0: never filled in), spent, held."""

    __slots__ = ("held_ns", "spent_ns", "start")

    def __init__(self, start: int, spent_ns: int, held_ns: int) -> None:
        self.start: Final = start
        self.spent_ns: Final = spent_ns
        self.held_ns: Final = held_ns


class Site:
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
        self.first_seat: Final = self._table.first_seat
        self.cells: Final = self._table.cells
        self._nothing: Final = (0,) * (self.first_seat + seats)
        self._sites: dict[str, Site] = {}

    def site(self, name: str) -> Site:
        """Return where a budget is found."""
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = Site(digest_of_name(name))
        return site

    def row(self, site: Site) -> tuple[int, ...]:
        """Return a budget's cells, at its place; where the ledger's process has made none, that is -1 and all are 0."""
        if site.place >= 0:
            row = self._table.row(site.place)
            if row[0] == site.digest:
                return row
        site.place = self._table.look(site.digest)
        return self._table.row(site.place) if site.place >= 0 else self._nothing

    def used(self, row: tuple[int, ...], start: int) -> int:
        """Return what is spent and held in a period."""
        spent, jobs = row[SPENT], row[JOBS]
        if row[_ADDED_IN] == start:
            spent += row[_ADDED_SPENT]
            jobs += row[_ADDED_JOBS]
        if jobs > 0:
            spent += jobs
        for held in row[self.first_seat :]:
            spent += held
        return spent

    def turn(self, site: Site, start: int) -> None:
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
        if cells[place + TAT] != -start:  # runs under way since before `forget` still hold what they hold
            self._table.drop(place)
        cells[place + _ADDED_IN] = 0
        cells[place + SPENT] = spent_ns
        cells[place + JOBS] = jobs_ns
        cells[place + TAT] = start  # last: from here on calls are admitted
        return True

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

    def purse(self, name: str, start: int) -> Purse:
        """Return the sums of the period that began at `start`."""
        row = self.row(self.site(name))
        known = row[TAT]
        if 0 < known < start:  # nobody has asked for anything since it began
            return Purse(start, 0, 0)
        spent_ns = row[SPENT] + (row[_ADDED_SPENT] if row[_ADDED_IN] == known else 0)
        return Purse(max(0, known), spent_ns, max(0, self.used(row, known) - spent_ns))

    def settle_job(self, name: str, start: int, *, freed_ns: int, spent_ns: int) -> None:
        """Free what a job holds in one budget, and count what it cost, if that period is still the present one."""
        site = self.site(name)
        row = self.row(site)
        if row[TAT] == start:
            cells, place = self.cells, site.place
            cells[place + JOBS] = max(0, row[JOBS] - freed_ns)
            cells[place + SPENT] = row[SPENT] + spent_ns

    def vacate(self, seat: int) -> None:
        """Count what a worker held that is gone as spent: what it had sent may have been executed."""
        for place in self._table.taken():
            self.cells[place + SPENT] += self._table.held_by(place, seat)
        self._table.vacate(seat)

    def close(self) -> None:
        """Give this process's mapping back."""
        self._table.close()
