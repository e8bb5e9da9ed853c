"""Deadlines of statements: who waits for a lock, or on a server that hangs, is told so in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.ledger import database as of_database
from gateway.ledger.database import Database
from gateway.ledger.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from tests.harness.postgres import PostgresServer


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let locks and hanging servers be waited for a second only."""
    monkeypatch.setattr(of_database, "_LOCK_SECONDS", 1)
    monkeypatch.setattr(of_database, "_GRACE_SECONDS", 0.5)


@pytest.mark.usefixtures("hasty")
def test_a_server_that_hangs_is_left(postgres: PostgresServer) -> None:
    """A statement that is never answered ends with an error; once the server goes on, so does the ledger."""
    database = Database(postgres.new_database())
    with pytest.raises(LedgerUnavailableError), database.writing(most_seconds=1) as connection, postgres.frozen():
        connection.exec_driver_sql("SELECT 1")
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    database.close()


@pytest.mark.usefixtures("hasty")
def test_a_lock_that_is_not_given_back_is_not_waited_for(postgres: PostgresServer) -> None:
    """Another session holds a table: the error says that it is a lock."""
    url = postgres.new_database()
    greedy, patient = Database(url), Database(url)
    with greedy.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE rows (id int)")
    with greedy.writing() as connection:
        connection.exec_driver_sql("LOCK TABLE rows")
        with pytest.raises(LedgerUnavailableError, match="lock timeout"), patient.writing() as other:
            other.exec_driver_sql("INSERT INTO rows VALUES (1)")
    greedy.close()
    patient.close()
