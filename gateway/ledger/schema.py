"""The schema of a ledger: which one is there, and the way from there to this release's.

The decision: `serve` migrates by itself, in one transaction and behind a lock, so that of several that start at once
one does it and the others find it done. A schema newer than this release is refused: its rows may mean what this
release does not know.

What is there is told by one query. An empty database gets this release's tables as they are (tables.py), which a test
holds to be what the steps would make; only an older ledger climbs by the steps, and only then is alembic loaded. So a
start costs its 90 ms and 9 MB once in the life of a database and not each time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, insert, inspect, select

from gateway.ledger.database import BUSY_SECONDS, Database
from gateway.ledger.errors import LedgerNewerError, LedgerUnavailableError, LedgerUnusableError
from gateway.ledger.tables import METADATA, RELEASE, VERSION, VERSION_TABLE

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_ADVISORY_LOCK: Final = 0x66_61_6C_67_77  # "falgw"; the number is known to nobody else
_RETRY_SECONDS: Final = 0.05


def migrate(database: Database, *, may_make: bool = True) -> str | None:
    """Bring the schema to this release's; LedgerNewerError where it is newer, LedgerAwayError on faults.

    Not `may_make`: there was a ledger, and an empty database, or none, is a fault. Returns which schema an older ledger
    had; None where there was none, or nothing to do.
    """
    with database.making(may_make=may_make):
        return _migrate(database, may_make=may_make)


def _migrate(database: Database, *, may_make: bool) -> str | None:
    _use_wal(database)
    with database.reading() as connection:
        if _revision(connection) == RELEASE:
            return None
    with database.writing(most_seconds=0) as connection:
        if not database.is_sqlite:  # SQLite's write lock is held already
            connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        revision = _revision(connection)
        if revision is None and not may_make:
            raise LedgerUnavailableError("the database holds no ledger any more; restart the gateway for an empty one")
        if revision is None:
            _make(connection)
        elif revision != RELEASE:  # nobody else was quicker
            _climb(connection, revision)
            return revision
    return None


def require(database: Database) -> None:
    """Return where the schema is this release's; LedgerUnusableError says what else it is. Changes nothing."""
    if database.file is not None and not database.file.exists():  # to connect would make an empty one
        raise LedgerUnusableError(f"there is no ledger at {database.file.absolute()}; `fal-gateway serve` makes it")
    with database.reading() as connection:
        revision = _revision(connection)
    if revision is not None and revision > RELEASE:
        raise _newer(revision)
    if revision != RELEASE:
        raise LedgerUnusableError("the database holds no ledger of this release; `fal-gateway serve` makes it")


def _use_wal(database: Database) -> None:
    """Turn to WAL mode; SQLite does not wait for its turn there as it does elsewhere, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return database.use_wal()
        except LedgerUnavailableError as fault:
            if "locked" not in str(fault) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _revision(connection: Connection) -> str | None:
    """Return the step that the schema has reached; None where there is no ledger."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(VERSION.c.version_num)).scalar()


def _make(connection: Connection) -> None:
    METADATA.create_all(connection, checkfirst=False)
    VERSION.create(connection)
    connection.execute(insert(VERSION).values(version_num=RELEASE))


def _climb(connection: Connection, revision: str) -> None:
    if revision > RELEASE:
        raise _newer(revision)
    from gateway.ledger.migrate import climb  # noqa: PLC0415 (see above)

    climb(connection)


def _newer(revision: str) -> LedgerNewerError:
    return LedgerNewerError(
        f"the ledger's schema ({revision}) was made by a newer release than this one ({RELEASE}): run that release, "
        "or restore the backup from before the upgrade"
    )
