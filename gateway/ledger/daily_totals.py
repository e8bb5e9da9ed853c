"""What each key has spent a day, and what its open queue jobs hold: the figures that budgets are compared with.

The decision: a separate table, written in the transaction that changes the rows, by what changed, as the sums over
all time are (totals.py). Periods of budgets begin at a midnight (UTC), so a period's spending is a sum over days. Of
3 million purchases this reads a few thousand rows, where adding the purchases up takes seconds for each budget. Queue
jobs that are open are few among many, and are added up by an index of open ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import BigInteger, and_, bindparam, case, delete, func, literal, or_, select, union_all
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.entry import CHARGED, HELD
from gateway.ledger.tables import DAILY_TOTALS, JOURNALS, PURCHASES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

    from gateway.ledger.entry import Entry

DAY_US: Final = 86_400 * 10**6
MOST_DAY_NS: Final = 10**17
"""Where a day's sum ends: 100 million dollars are garbled figures, and a month of such days still fits 64 bits."""

_TOTAL: Final = DAILY_TOTALS.c
_ROW: Final = PURCHASES.c
_KEY: Final = (_TOTAL.day, _TOTAL.team, _TOTAL.key)

Names = tuple[int, str, str]


class Spending(NamedTuple):
    """An amount in nano-dollars, by id of key and by id of team; who has none is not in it."""

    keys: dict[str, int]
    teams: dict[str, int]

    def of(self, owner: str) -> int:
        """Return the amount of a budget's owner: `key/web-prod`, `team/design`."""
        scope, _, name = owner.partition("/")
        return (self.keys if scope == "key" else self.teams).get(name, 0)


class LedgerSums(NamedTuple):
    """What the ledger has of purchases admitted from a midnight on: known cost, and estimates of open queue jobs.

    `jobs` includes runs that are open, if they were admitted before a moment: those of a gateway that still drains.
    """

    spent: Spending
    jobs: Spending


class LedgerCut(NamedTuple):
    """Sums, and up to which place each journal is counted in them, by gateway and journal."""

    sums: LedgerSums
    places: dict[tuple[str, str], int]


def shifts(changes: Iterable[tuple[Entry | None, Entry]]) -> dict[Names, int]:
    """Return by how many nano-dollars rows that changed from one state to another move the sums; no zeros."""
    moved: dict[Names, int] = {}
    for old, new in changes:
        for row, sign in ((old, -1), (new, 1)):
            if row is not None and row.status in CHARGED and row.cost_ns:
                names = (row.admitted_at_us // DAY_US, row.team, row.key)
                moved[names] = moved.get(names, 0) + sign * row.cost_ns
    return {names: cost_ns for names, cost_ns in moved.items() if cost_ns}


def add(connection: Connection, moved: dict[Names, int]) -> None:
    """Move the sums, within the transaction of the rows, in the order of their names."""
    rows = [
        {"day": day, "team": team, "key": key, "cost_ns": min(cost_ns, MOST_DAY_NS)}
        for (day, team, key), cost_ns in sorted(moved.items())
    ]
    if rows:
        connection.execute(_ADD_SQLITE if connection.dialect.name == "sqlite" else _ADD_POSTGRESQL, rows)


def forget(connection: Connection, before_us: int) -> None:
    """Delete the sums of days that end before a moment."""
    connection.execute(delete(DAILY_TOTALS).where(_TOTAL.day < before_us // DAY_US))


def read(connection: Connection, since_us: int, *, runs_before_us: int) -> LedgerSums:
    """Return the sums from a midnight on, all as of one moment: it is one statement."""
    sums = LedgerSums(Spending({}, {}), Spending({}, {}))
    moments = {"day": since_us // DAY_US, "since_us": since_us, "runs_before_us": runs_before_us}
    for is_spent, team, key, amount_ns in connection.execute(SUMS, moments):
        _add(sums.spent if is_spent else sums.jobs, team, key, amount_ns)
    return sums


def read_cut(connection: Connection, since_us: int) -> LedgerCut:
    """Return the sums from a midnight on with the places of all journals, as of one moment: it is one statement."""
    cut = LedgerCut(LedgerSums(Spending({}, {}), Spending({}, {})), {})
    for kind, name, key, amount in connection.execute(_CUT, {"day": since_us // DAY_US, "since_us": since_us}):
        if kind == _IS_PLACE:
            cut.places[name, key] = amount
        else:
            _add(cut.sums.spent if kind else cut.sums.jobs, name, key, amount)
    return cut


def _add(amounts: Spending, team: str, key: str, amount_ns: int) -> None:
    amounts.keys[key] = amounts.keys.get(key, 0) + amount_ns
    amounts.teams[team] = amounts.teams.get(team, 0) + amount_ns


def _adding(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    """Return the statement that adds, up to MOST_DAY_NS."""
    more = insert.excluded.cost_ns
    added = case((_TOTAL.cost_ns > MOST_DAY_NS - more, MOST_DAY_NS), else_=_TOTAL.cost_ns + more)
    return insert.on_conflict_do_update(index_elements=list(_KEY), set_={"cost_ns": added})


_ADD_SQLITE: Final = _adding(sqlite.insert(DAILY_TOTALS))
_ADD_POSTGRESQL: Final = _adding(postgresql.insert(DAILY_TOTALS))

# The state as a literal: SQLite takes a partial index only where it sees the condition in the text of the statement.
_IS_OPEN: Final = and_(
    _ROW.status == literal(HELD, literal_execute=True),
    or_(
        _ROW.fal_request_id.is_not(None),
        _ROW.admitted_at_us < bindparam("runs_before_us", 0, type_=BigInteger),
    ),
)
_SPENT: Final = (
    select(literal(1), _TOTAL.team, _TOTAL.key, func.sum(_TOTAL.cost_ns).cast(BigInteger))
    .where(_TOTAL.day >= bindparam("day", 0, type_=BigInteger))
    .group_by(_TOTAL.team, _TOTAL.key)
)
_HELD: Final = (
    select(literal(0), _ROW.team, _ROW.key, func.coalesce(func.sum(_ROW.estimate_ns), 0).cast(BigInteger))
    .where(_IS_OPEN, _ROW.admitted_at_us >= bindparam("since_us", 0, type_=BigInteger))
    .group_by(_ROW.team, _ROW.key)
)
SUMS: Final = union_all(_SPENT, _HELD)
_IS_PLACE: Final = 2
_PLACES: Final = select(literal(_IS_PLACE), JOURNALS.c.gateway, JOURNALS.c.journal, JOURNALS.c.place)
_CUT: Final = union_all(_SPENT, _HELD, _PLACES)
