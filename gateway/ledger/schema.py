"""The schema of a ledger: which one is there, and the way from there to this release's.

The decision: `serve` migrates by itself, in one transaction and behind a lock, so that of several that start at once
one does it and the others find it done. A schema newer than this release is refused: its rows may mean what this
release does not know.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import func, select

from gateway.ledger.database import BUSY_SECONDS, Database
from gateway.ledger.faults import LedgerAwayError, LedgerUnusableError
from gateway.ledger.tables import VERSION_TABLE

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_ADVISORY_LOCK: Final = 0x66_61_6C_67_77  # "falgw"; the number is known to nobody else
_RETRY_SECONDS: Final = 0.05


def migrate(database: Database) -> None:
    """Bring the schema to this release's; LedgerUnusableError where it is newer, LedgerAwayError on faults."""
    _use_wal(database)
    with database.writing(most_seconds=0) as connection:
        if not database.is_sqlite:  # SQLite's write lock is held already
            connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        config = _config(connection)
        _refuse_newer(connection, config)
        command.upgrade(config, "head")


def require(database: Database) -> None:
    """Return where the schema is this release's; LedgerUnusableError says what else it is. Changes nothing."""
    if database.file is not None and not database.file.exists():  # to connect would make an empty one
        raise LedgerUnusableError(f"there is no ledger at {database.file.absolute()}; `fal-gateway serve` makes it")
    with database.reading() as connection:
        config = _config(connection)
        _refuse_newer(connection, config)
        if _revision(connection) != ScriptDirectory.from_config(config).get_current_head():
            raise LedgerUnusableError("the database holds no ledger of this release; `fal-gateway serve` makes it")


def _use_wal(database: Database) -> None:
    """Turn to WAL mode; SQLite does not wait for its turn there as it does elsewhere, so we do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return database.use_wal()
        except LedgerAwayError as fault:
            if "locked" not in str(fault) or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)


def _config(connection: Connection) -> Config:
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))  # its reader replaces %(names)s
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def _refuse_newer(connection: Connection, config: Config) -> None:
    revision = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise LedgerUnusableError(f"the ledger's schema ({revision}) was made by a newer release than this one")
