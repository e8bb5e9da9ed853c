"""How many rows at once are inserted and written back: the one thing that the two databases do not do alike.

The decision: PostgreSQL gets all rows as one JSON text, since its driver looks through a statement for 15,000
parameters for longer than the server works on the rows. SQLite takes them one by one from a prepared statement, which
is its quickest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson
from sqlalchemy import Text, bindparam, cast, column, func, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from gateway.ledger.tables import PURCHASES, WARNINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.engine import Connection

    from gateway.ledger.entry import Entry

_ROW: Final = PURCHASES.c
_REST: Final = tuple(name for name in _ROW.keys() if name != "id")  # noqa: SIM118 (a collection of columns, no dict)

_TOLD: Final = (
    func.jsonb_to_recordset(cast(bindparam("told", type_=Text), JSONB))
    .table_valued(*[column(part.name, part.type) for part in _ROW])
    .render_derived(name="told", with_types=True)
)
_INSERT_POSTGRESQL: Final = (
    postgresql_insert(PURCHASES)
    .from_select(["id", *_REST], select(_TOLD.c.id, *[_TOLD.c[name] for name in _REST]))
    .on_conflict_do_nothing(index_elements=[_ROW.id])
    .returning(_ROW.id)
)
_UPDATE_POSTGRESQL: Final = (
    update(PURCHASES).where(_ROW.id == _TOLD.c.id).values({name: _TOLD.c[name] for name in _REST})
)

_INSERT_SQLITE: Final = str(sqlite_insert(PURCHASES).compile(dialect=sqlite.dialect()))
_KNOWN_SQLITE: Final = f"SELECT id FROM {PURCHASES.name} WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
_UPDATE_SQLITE: Final = (
    update(PURCHASES).where(_ROW.id == bindparam("told_id")).values({name: bindparam(f"told_{name}") for name in _REST})
)


def insert_new(connection: Connection, rows: Sequence[Entry]) -> set[str]:
    """Insert the rows whose ids are not there; return those ids."""
    if connection.dialect.name == "sqlite":
        return _insert_new_sqlite(connection, rows)
    return set(connection.execute(_INSERT_POSTGRESQL, {"told": _as_json(rows)}).scalars())


def _insert_new_sqlite(connection: Connection, rows: Sequence[Entry]) -> set[str]:
    """Ask which are there, then insert the others: within a transaction that writes nobody else does meanwhile.

    By the driver's own way for many rows, which cannot return anything: one statement that returns the ids of a
    thousand rows takes two and a half times as long.
    """
    ids = orjson.dumps([row.id for row in rows]).decode()
    known = set(connection.exec_driver_sql(_KNOWN_SQLITE, (ids,)).scalars())
    fresh = [tuple(row) for row in rows if row.id not in known]
    if fresh:
        connection.exec_driver_sql(_INSERT_SQLITE, fresh)
    return {row.id for row in rows if row.id not in known}


def insert_warning(connection: Connection, row: Mapping[str, object]) -> bool:
    """Insert a row of warnings; False where it is there."""
    insert = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    statement = insert(WARNINGS).on_conflict_do_nothing().returning(WARNINGS.c.budget)
    return connection.execute(statement, row).first() is not None


def write_back(connection: Connection, rows: Sequence[Entry]) -> None:
    """Set the rows of these ids, which are there, to these states."""
    if connection.dialect.name == "sqlite":
        values = [{f"told_{name}": value for name, value in row._asdict().items()} for row in rows]
        connection.execute(_UPDATE_SQLITE, values)
    else:
        connection.execute(_UPDATE_POSTGRESQL, {"told": _as_json(rows)})


def _as_json(rows: Sequence[Entry]) -> str:
    return orjson.dumps([row._asdict() for row in rows]).decode()
