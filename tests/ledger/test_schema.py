"""The schema: made once by several at a time, told apart from a newer one, and what the code thinks it is."""

from __future__ import annotations

import multiprocessing
import sqlite3
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from gateway.ledger.database import Database
from gateway.ledger.faults import LedgerUnusableError
from gateway.ledger.ledger import Ledger
from gateway.ledger.tables import METADATA, VERSION_TABLE
from tests.ledger.rows import settled

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

STARTERS = 6


def migrate_at_once(url: str, number: int, barrier: Barrier) -> None:
    """Migrate as one of several gateways that start in the same moment, and use the ledger."""
    ledger = Ledger(url)
    barrier.wait(60)
    ledger.migrate()
    ledger.apply([settled(number)])
    ledger.close()


def test_several_that_start_at_once_migrate_once(url: str) -> None:
    """None of them fails, and each finds a ledger that it can use."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(STARTERS)
    starters = [spawn.Process(target=migrate_at_once, args=(url, number, barrier)) for number in range(STARTERS)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(90)
    assert [starter.exitcode for starter in starters] == [0] * STARTERS
    ledger = Ledger(url)
    assert ledger.spent_since(0).teams == {"design": STARTERS * 50_000_000}
    ledger.close()


def test_to_migrate_twice_changes_nothing(ledger: Ledger) -> None:
    """A second start finds all as it was."""
    ledger.apply([settled()])
    ledger.migrate()
    ledger.require_schema()
    assert ledger.spent_since(0).teams == {"design": 50_000_000}


def test_a_newer_schema_is_refused(url: str, ledger: Ledger) -> None:
    """An older release neither migrates nor reads what a newer one made."""
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))  # noqa: S608
    database.close()
    for ask in (ledger.migrate, ledger.require_schema):
        with pytest.raises(LedgerUnusableError, match="newer release"):
            ask()


def test_a_database_without_a_ledger_is_told_as_such(url: str, tmp_path: Path) -> None:
    """To read does not make one: no file, no table."""
    sqlite3.connect(tmp_path / "empty.db").close()
    for place in (url, f"sqlite:///{tmp_path}/empty.db"):
        ledger = Ledger(place)
        with pytest.raises(LedgerUnusableError, match="no ledger"):
            ledger.require_schema()
        ledger.close()
    assert not (tmp_path / "ledger.db").exists()


def test_the_tables_are_what_the_steps_make(url: str, ledger: Ledger) -> None:
    """What the code believes of the schema and what the migrations make do not differ."""
    ledger.require_schema()
    database = Database(url)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
    database.close()


def test_a_sqlite_ledger_is_read_while_it_is_written(tmp_path: Path) -> None:
    """The file is in WAL mode: a report does not wait for a gateway, nor the other way round."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.migrate()
    writer = Database(f"sqlite:///{tmp_path}/ledger.db")
    with writer.writing() as connection:
        connection.execute(text("DELETE FROM fal_gateway_purchases"))
        assert ledger.spent_since(0).teams == {}
    writer.close()
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()
