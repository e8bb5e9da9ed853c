"""The schema: made once by several at a time, told apart from a newer one, and what the code thinks it is."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from gateway.ledger.database import Database
from gateway.ledger.errors import LedgerUnusableError
from gateway.ledger.ledger import Ledger
from gateway.ledger.migrate import config_of
from gateway.ledger.tables import METADATA, RELEASE, VERSION_TABLE
from tests.ledger.rows import settled

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    database = Database(url, may_make=True)
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
    database = Database(url, may_make=True)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
    database.close()


def test_the_release_is_the_last_step(url: str) -> None:
    """And the names of the steps, compared as texts, tell which of two is the later one."""
    with a_database(url) as database, database.writing() as connection:
        steps = ScriptDirectory.from_config(config_of(connection))
    names = [step.revision for step in steps.walk_revisions()]
    assert names == sorted(names, reverse=True)
    assert steps.get_current_head() == names[0] == RELEASE


def test_a_new_database_gets_what_the_steps_would_make(url: str, other_url: str, ledger: Ledger) -> None:
    """Columns, keys, indexes and their conditions: nobody can tell which way a database has come."""
    ledger.require_schema()
    climb(other_url, "head")
    assert described(url) == described(other_url)


def test_an_older_ledger_climbs_and_keeps_its_rows(url: str) -> None:
    """What was spent under an earlier release is there under this one, and so are its new tables."""
    climb(url, "0001")
    row = settled()
    with a_database(url) as database, database.writing() as connection:
        values = {f"v{number}": value for number, value in enumerate(row)}
        connection.execute(text(f"INSERT INTO fal_gateway_purchases VALUES (:{', :'.join(values)})"), values)  # noqa: S608
    ledger = Ledger(url)
    with pytest.raises(LedgerUnusableError, match="of this release"):
        ledger.require_schema()
    ledger.migrate()
    ledger.require_schema()
    assert ledger.spent_since(0).teams == {"design": 50_000_000}
    assert ledger.claim_warning("key/web", 0, "0.5")
    ledger.close()


def test_only_an_older_ledger_takes_the_tool_that_migrates(url: str) -> None:
    """A start that makes a ledger, and one that finds it, spare the time and the memory of loading it."""
    program = (
        "import sys; from gateway.ledger.ledger import Ledger; ledger = Ledger(sys.argv[1]); ledger.migrate(); "
        "ledger.require_schema(); sys.exit('alembic' in sys.modules)"
    )
    for _ in ("made", "found"):
        assert subprocess.run([sys.executable, "-c", program, url], check=False, timeout=60).returncode == 0


@contextmanager
def a_database(url: str) -> Iterator[Database]:
    """Give a database, and close it."""
    database = Database(url, may_make=True)
    yield database
    database.close()


def climb(url: str, revision: str) -> None:
    """Take the steps up to one of them."""
    with a_database(url) as database, database.writing() as connection:
        command.upgrade(config_of(connection), revision)


def described(url: str) -> dict[str, Any]:
    """Return everything that a database says of its tables, the order of things in them too."""
    sources = {
        True: "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
        False: "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname",
    }
    with a_database(url) as database, database.reading() as connection:
        look = inspect(connection)
        return {
            "version": connection.execute(text(f"SELECT * FROM {VERSION_TABLE}")).all(),  # noqa: S608
            "indexes": [tuple(row) for row in connection.execute(text(sources[database.is_sqlite]))],
            **{
                name: (look.get_pk_constraint(name), *({**part, "type": repr(part["type"])} for part in columns))
                for name in sorted(look.get_table_names())
                for columns in [look.get_columns(name)]
            },
        }


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
