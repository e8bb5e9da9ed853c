"""The ledger: what every paid request cost, asked and told in terms of entries and nano-dollars.

The decision: rows are merged here and not in SQL. What is new is inserted; of the rest the rows are read, locked,
merged with `entry.merged` and written back where they changed, all in one transaction. So there is one rule of how a
row climbs, the same for both databases, and the caller learns what changed and from what, which is how money is
counted once. Rows are locked in the order of their ids, so that two gateways do not wait for each other in a circle.

Sums of rows are exact, whatever they come to. Every list comes in pages, in the order of admission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import delete, func, or_, select, tuple_

from gateway.ledger import daily_totals, journal_places, schema, totals
from gateway.ledger.daily_totals import DAY_US, LedgerCut, LedgerSums, Spending
from gateway.ledger.database import Database
from gateway.ledger.entry import CHARGED, HELD, RECONCILED, RELEASED, UNKNOWN, Entry, folded, merged
from gateway.ledger.statements import insert_new, insert_warning, write_back
from gateway.ledger.tables import PURCHASES
from gateway.ledger.watermarks import Watermarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from gateway.ledger.journal_places import Places
    from gateway.ledger.totals import Total

PAGE_ROWS: Final = 1_000
FORGET_ROWS: Final = 10_000
_DOLLAR_NS: Final = 10**9
_ROW: Final = PURCHASES.c


class Change(NamedTuple):
    """A row that changed: as it was (None: it is new), and as it is."""

    old: Entry | None
    new: Entry


class Sum(NamedTuple):
    """One line of a report: the values of its names, and what was bought under them, of one source.

    `names` follow the report's `by`; a day is the number of days since the epoch. `units` is the decimal text of each
    request's quantity, None where it is not known; `cost_ns` is None where no cost is known, `unpriced` counts those.
    """

    names: tuple[str | int, ...]
    source: str
    unit: str | None
    units: str | None
    requests: int
    unpriced: int
    cost_ns: int | None


class Holds(NamedTuple):
    """Open holds: how many, and their estimates in nano-dollars as far as they are known."""

    requests: int
    estimate_ns: int


class Ledger:
    """One ledger, for one thread. Every method raises LedgerAwayError while the database does not answer."""

    def __init__(self, url: str) -> None:
        """Take a `sqlite:///FILE` or `postgresql://…`; LedgerUnusableError for anything else. Connects to nothing."""
        self._database = Database(url)
        self.watermarks: Final = Watermarks(self._database)

    def migrate(self, *, may_make: bool = True) -> str | None:
        """Bring the schema to this release's, safely also when several do; LedgerNewerError where it is newer.

        Not `may_make`: LedgerAwayError where there is no ledger. Returns which schema an older ledger had; None where
        there was none, or nothing to do.
        """
        return schema.migrate(self._database, may_make=may_make)

    def check_file(self) -> None:
        """Return where an SQLite file is the one that is open; LedgerAwayError where it is missing, or was replaced."""
        self._database.check_file()

    def require_schema(self) -> None:
        """Return where there is a ledger of this release; LedgerUnusableError says what is there else."""
        schema.require(self._database)

    def close(self) -> None:
        """Close the connection; harmless when done twice."""
        self._database.close()

    # -- telling ----------------------------------------------------------------------------------------------------

    def apply(self, entries: Sequence[Entry], *, places: Places | None = None) -> list[Change]:
        """Take what happened, in one transaction; return the rows that changed, at most one for each purchase.

        `places`: where journals are with it.
        """
        rows = dict(sorted(folded(entries).items()))
        if not rows and places is None:
            return []
        with self._database.writing() as connection:
            changes = self._apply(connection, rows) if rows else []
            if places is not None:
                journal_places.write(connection, places)
        return changes

    def _apply(self, connection: Connection, rows: dict[str, Entry]) -> list[Change]:
        fresh = insert_new(connection, list(rows.values()))
        known = [row for row in rows.values() if row.id not in fresh]
        climbed = _climb(connection, known) if known else []
        changes = [Change(None, row) for row in rows.values() if row.id in fresh] + climbed
        totals.add(connection, totals.shifts(changes), at_us=max(row.changed_at_us for row in rows.values()))
        daily_totals.add(connection, daily_totals.shifts(changes))
        return changes

    def claim_warning(self, budget: str, period_start: int, share: str) -> bool:
        """Return whether nobody has warned of this share of a budget in this period yet; now somebody has."""
        row = {"budget": budget, "period_start": period_start, "share": share}
        with self._database.writing() as connection:
            return insert_warning(connection, row)

    def forget(self, before_us: int) -> int:
        """Delete what was admitted before a moment, in portions, so that nobody waits long; return how many rows.

        What they cost stays in the totals, and in the day's, until that day has ended by then.
        """
        deleted = 0
        with self._database.writing() as connection:
            daily_totals.forget(connection, before_us)
        while True:
            portion = select(_ROW.id).where(_ROW.admitted_at_us < before_us).limit(FORGET_ROWS)
            with self._database.writing() as connection:
                gone = connection.execute(delete(PURCHASES).where(_ROW.id.in_(portion))).rowcount
            deleted += gone
            if gone < FORGET_ROWS:
                return deleted

    # -- asking -----------------------------------------------------------------------------------------------------

    def totals(self) -> list[Total]:
        """Return what was spent over all time, by team, key, endpoint and source, also by rows deleted since."""
        with self._database.reading() as connection:
            return totals.read(connection)

    def sums_since(self, since_us: int, *, runs_before_us: int = 0) -> LedgerSums:
        """Return what was spent, and is held by open jobs, of purchases admitted from a midnight on (UTC).

        Open runs are counted with the jobs where they were admitted before a moment.
        """
        with self._database.reading() as connection:
            return daily_totals.read(connection, since_us, runs_before_us=runs_before_us)

    def cut_since(self, since_us: int) -> LedgerCut:
        """Return the sums of purchases admitted from a midnight on (UTC), and which lines of journals they count."""
        with self._database.reading() as connection:
            return daily_totals.read_cut(connection, since_us)

    def spent_since(self, since_us: int) -> Spending:
        """Return what was spent by requests admitted from any moment on; adds them up, which takes seconds."""
        conditions = (_ROW.admitted_at_us >= since_us, _ROW.status.in_(CHARGED), _ROW.cost_ns.is_not(None))
        query = select(_ROW.team, _ROW.key, *_sum(_ROW.cost_ns)).where(*conditions).group_by(_ROW.team, _ROW.key)
        spending = Spending({}, {})
        with self._database.reading() as connection:
            for team, key, *sums in connection.execute(query):
                cost_ns = _added(*sums) or 0
                spending.teams[team] = spending.teams.get(team, 0) + cost_ns
                spending.keys[key] = spending.keys.get(key, 0) + cost_ns
        return spending

    def open_jobs(self, *, after: Entry | None = None, most: int = PAGE_ROWS) -> list[Entry]:
        """Return queue jobs that are held under fal's request id; those behind `after`, the last one of a page."""
        return self._page(_ROW.status == HELD, _ROW.fal_request_id.is_not(None), after=after, most=most)

    def released_jobs(self, since_us: int, *, after: Entry | None = None, most: int = PAGE_ROWS) -> list[Entry]:
        """Return queue jobs that were given back, of those admitted from a moment on; they may yet come to a cost."""
        of_jobs = (_ROW.status == RELEASED, _ROW.kind == "submit", _ROW.fal_request_id.is_not(None))
        return self._page(_ROW.admitted_at_us >= since_us, *of_jobs, after=after, most=most)

    def charged_jobs(self, since_us: int, *, most: int) -> list[Entry]:
        """Return the latest queue jobs that came to a cost, of those admitted from a moment on; the oldest first."""
        of_jobs = (_ROW.status.in_(CHARGED), _ROW.kind == "submit", _ROW.fal_request_id.is_not(None))
        query = select(PURCHASES).where(_ROW.admitted_at_us >= since_us, *of_jobs)
        latest = query.order_by(_ROW.admitted_at_us.desc(), _ROW.id.desc()).limit(most)
        with self._database.reading() as connection:
            return [Entry(*row) for row in connection.execute(latest)][::-1]

    def overdue(
        self,
        before_us: int,
        *,
        unbound_before_us: int | None = None,
        after: Entry | None = None,
        most: int = PAGE_ROWS,
    ) -> list[Entry]:
        """Return holds that were admitted before a moment; those without a request id of fal's before their own one.

        `unbound_before_us` left out is the same moment: a run that is still under way has no request id yet.
        """
        conditions = [_ROW.status == HELD, _ROW.admitted_at_us < before_us]
        if unbound_before_us is not None:
            conditions.append(or_(_ROW.fal_request_id.is_not(None), _ROW.admitted_at_us < unbound_before_us))
        return self._page(*conditions, after=after, most=most)

    def unreconciled(
        self, since_us: int, until_us: int, *, after: Entry | None = None, most: int = PAGE_ROWS
    ) -> list[Entry]:
        """Return what fal's bill has not spoken about yet, of a span of admission, as far as fal's id of it is known.

        Held and released rows are among them: a job whose answer went to a webhook is billed all the same.
        """
        conditions = (*_within(since_us, until_us), _ROW.status != RECONCILED, _ROW.fal_request_id.is_not(None))
        return self._page(*conditions, after=after, most=most)

    def unnamed(
        self, since_us: int, until_us: int, *, after: Entry | None = None, most: int = PAGE_ROWS
    ) -> list[Entry]:
        """Return what has no request id, of a span of admission: unknown, because its answer was lost, or held."""
        of_lost = (_ROW.status.in_((UNKNOWN, HELD)), _ROW.fal_request_id.is_(None))
        return self._page(*_within(since_us, until_us), *of_lost, after=after, most=most)

    def find_job(self, fal_request_id: str) -> Entry | None:
        """Return the purchase that fal knows under an id (the last one where there are several), None without one."""
        query = select(PURCHASES).where(_ROW.fal_request_id == fal_request_id).order_by(_ROW.admitted_at_us.desc())
        with self._database.reading() as connection:
            row = connection.execute(query.limit(1)).first()
        return None if row is None else Entry(*row)

    def find_billed(self, fal_request_ids: Sequence[str]) -> list[Entry]:
        """Return the purchases that fal knows under these ids, at most 1,000 of them at once, whatever their state."""
        query = select(PURCHASES).where(_ROW.fal_request_id.in_(fal_request_ids))
        with self._database.reading() as connection:
            return [Entry(*row) for row in connection.execute(query)]

    def usage(self, since_us: int, until_us: int, *, by: Sequence[str]) -> list[Sum]:
        """Return what was bought by requests admitted in [since, until), summed by names and source.

        `by` names any of team, key, endpoint and day. One sum for each quantity that occurs: they are added exactly by
        the caller, since SQLite cannot.
        """
        names = [_DAY if name == "day" else _ROW[name] for name in by]
        parts = [*names, _ROW.source, _ROW.unit, _ROW.units]
        counts = (func.count(), func.count() - func.count(_ROW.cost_ns), *_sum(_ROW.cost_ns))
        conditions = (*_within(since_us, until_us), _ROW.status.in_(CHARGED))
        with self._database.reading() as connection:
            rows = connection.execute(select(*parts, *counts).where(*conditions).group_by(*parts)).all()
        return [Sum._make((tuple(row[: len(names)]), *row[len(names) : -2], _added(row[-2], row[-1]))) for row in rows]

    def holds(self, since_us: int, until_us: int) -> Holds:
        """Return the open holds of requests admitted in [since, until)."""
        query = select(func.count(), *_sum(_ROW.estimate_ns)).where(*_within(since_us, until_us), _ROW.status == HELD)
        with self._database.reading() as connection:
            requests, *sums = connection.execute(query).one()
        return Holds(requests, _added(*sums) or 0)

    def _page(self, *conditions: ColumnElement[bool], after: Entry | None, most: int) -> list[Entry]:
        place = tuple_(_ROW.admitted_at_us, _ROW.id)
        query = select(PURCHASES).where(*conditions).order_by(_ROW.admitted_at_us, _ROW.id).limit(most)
        if after is not None:
            query = query.where(place > (after.admitted_at_us, after.id))
        with self._database.reading() as connection:
            return [Entry(*row) for row in connection.execute(query)]


_DAY: Final = _ROW.admitted_at_us // DAY_US


def _within(since_us: int, until_us: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _ROW.admitted_at_us >= since_us, _ROW.admitted_at_us < until_us


def _sum(column: ColumnElement[int]) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Sum in two parts, dollars and what is beyond them: one of 64 bits has no room for 9,223 purchases at their bound.

    Each as an integer: PostgreSQL widens it to a decimal otherwise.
    """
    kind = PURCHASES.c.cost_ns.type
    return func.sum(column // _DOLLAR_NS).cast(kind), func.sum(column % _DOLLAR_NS).cast(kind)


def _added(dollars: int | None, rest: int | None) -> int | None:
    return None if dollars is None or rest is None else dollars * _DOLLAR_NS + rest


def _climb(connection: Connection, entries: list[Entry]) -> list[Change]:
    """Merge entries into rows that are there; return those that changed."""
    ids = [entry.id for entry in entries]
    rows = connection.execute(select(PURCHASES).where(_ROW.id.in_(ids)).order_by(_ROW.id).with_for_update())
    old = {row.id: Entry(*row) for row in rows}
    pairs = [(old[entry.id], merged(old[entry.id], entry)) for entry in entries if entry.id in old]
    changes = [Change(before, after) for before, after in pairs if after is not before]
    if changes:
        write_back(connection, [change.new for change in changes])
    return changes
