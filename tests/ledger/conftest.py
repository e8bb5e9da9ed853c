"""Both kinds of database, real ones: a new empty one for each test that asks."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from gateway.ledger.ledger import Ledger
from tests.harness.postgres import PostgresServer
from tests.ledger.rows import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL server for the session."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def other_url(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> str:
    """Return the URL of a second empty database of the kind of `url`."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path}/other.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """Return a migrated ledger over an empty database."""
    ready = Ledger(url)
    ready.migrate()
    yield ready
    ready.close()


@pytest.fixture
def spool_folder(tmp_path: Path) -> Path:
    """Return where the gateways of a test have their folders."""
    return tmp_path / "spool"


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Return `start(module, *arguments)`: a program of the tests as a process, killed after the test."""
    with ExitStack() as stack:

        def start(module: str, *arguments: object) -> Program:
            number = len(list(tmp_path.glob("program-*")))
            program = Program(f"tests.ledger.{module}", arguments, folder=tmp_path / f"program-{number}")
            stack.callback(program.kill)
            return program

        yield start
