"""One connection to the ledger's database, and what its faults are called.

The decision: SQLite and PostgreSQL go through SQLAlchemy's Core, so that each statement is written once. Two kinds of
trouble leave this module: `LedgerUnavailableError`, which passes by itself or by an operator's hand on the database,
and `LedgerUnusableError`, which takes another setting or another release. Neither quotes the URL's user or password.

PostgreSQL: a statement, a wait for a lock and an idle transaction have deadlines that the server keeps. One that hangs
keeps none, so at the end of its own deadline the client cuts the connection: libpq waits for an answer for ever.

SQLite: transactions are begun by us, those that write with the write lock from the first statement on, or two writers
that both have read could not both go on. In WAL mode a report reads while a gateway writes; with synchronous=NORMAL a
loss of power may take the last commits with it, but not the file.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from gateway.ledger.address import DatabaseAddress, parse_database_url
from gateway.ledger.errors import LedgerUnavailableError, LedgerUnusableError
from gateway.ledger.sqlite_file import SqliteFile
from gateway.platform.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sqlalchemy.engine import Connection, Engine

BUSY_SECONDS: Final = 5
STATEMENT_SECONDS: Final = 30
"""A statement that takes longer waits on a server that hangs; migrations may."""

_LOCK_SECONDS: Final = 10
_IDLE_SECONDS: Final = 60  # within a transaction: its process was stopped, and holds rows that others wait for
_GRACE_SECONDS: Final = 5  # for the server to say itself that it was too slow

_SQLITE_CACHE_KIBIBYTES: Final = 8_192
_SQLITE_LOG_PAGES: Final = 4_000
"""So many pages of 4 KiB before they are carried from the log to the file: each batch touches the same ones again, and
by SQLite's own 1,000 every page is written twice for two batches."""

_BEGIN: Final = "falgw_begin"
_POSTGRESQL_WANTED: Final[Mapping[str, object]] = MappingProxyType(
    {
        "application_name": "fal-gateway",
        "connect_timeout": 5,
        "keepalives_idle": 10,  # seconds; the system's own are hours
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,  # milliseconds
    }
)


class Database:
    """One connection, opened when it is needed and again after it broke; for one thread."""

    def __init__(self, url: str, *, may_make: bool = False) -> None:
        """Take a `sqlite:///FILE` or `postgresql://…`; LedgerUnusableError for anything else. Connects to nothing.

        `may_make`: an SQLite file that is missing is made.
        """
        address = _parsed(url)
        self._secrets: Final = address.secrets
        self.file: Final[Path | None] = address.file
        self.is_sqlite: Final = address.file is not None
        self._engine = _sqlite_engine(address) if self.is_sqlite else _postgresql_engine(address)
        self._wire = CuttableConnection()
        self._file = SqliteFile(address.file, may_make=may_make) if address.file is not None else None
        event.listen(self._engine, "connect", self._wire.connected if self._file is None else self._file.opened)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection within a transaction that only reads. Raises LedgerAwayError."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, *, most_seconds: int = STATEMENT_SECONDS) -> Iterator[Connection]:
        """Give a connection within a transaction that writes, committed at the end. Raises LedgerAwayError.

        On PostgreSQL a statement is given up after `most_seconds`, and the transaction soon behind; 0: never.
        """
        with self._transaction(writes=True, most_seconds=most_seconds) as connection:
            yield connection

    @contextlib.contextmanager
    def making(self, *, may_make: bool) -> Iterator[None]:
        """Let an SQLite file that is missing be made within, or not."""
        if self._file is None:
            yield
            return
        before, self._file.may_make = self._file.may_make, may_make
        try:
            yield
        finally:
            self._file.may_make = before

    def check_file(self) -> None:
        """Return where the connection still has the file of that name, or may open it; nothing on PostgreSQL.

        LedgerAwayError where SQLite's file is missing, and once where it was replaced: the next use opens the new one.
        """
        if self._file is not None and self._file.is_replaced():
            self._engine.dispose()
            raise self._file.set_log_aside()

    def use_wal(self) -> None:
        """Turn the file to WAL mode, which it keeps; nothing on PostgreSQL. LedgerAwayError while others write."""
        if self.is_sqlite:
            self.check_file()
            with self._faults_named(), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")  # within no transaction

    def close(self) -> None:
        """Close the connection; the next use opens another one."""
        self._engine.dispose()
        if self._file is not None:
            self._file.closed()

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool, most_seconds: int = STATEMENT_SECONDS) -> Iterator[Connection]:
        self.check_file()
        with (
            self._faults_named(),
            self._wire.cut_after(self._patience(most_seconds)),
            self._engine.connect() as connection,
        ):
            connection.execution_options(**{_BEGIN: "BEGIN IMMEDIATE" if writes else "BEGIN"})
            with connection.begin():
                if not self.is_sqlite:
                    connection.exec_driver_sql(_deadlines(most_seconds))
                yield connection
        if writes:
            self.check_file()  # or what was written is in a file that is gone

    def _patience(self, most_seconds: int) -> float:
        return most_seconds + _GRACE_SECONDS if most_seconds and not self.is_sqlite else 0

    @contextlib.contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as fault:
            raise LedgerUnavailableError(
                self._reason(fault)
            ) from None  # the cause would quote connection data in a trace

    def _reason(self, fault: DBAPIError) -> str:
        return redacted(" ".join(str(fault.orig).split()), self._secrets)


class CuttableConnection:
    """The socket of a connection to PostgreSQL, which can be cut while a thread waits on it."""

    def __init__(self) -> None:
        self._connection: Any = None

    def connected(self, connection: Any, _record: object) -> None:  # noqa: ANN401 (the driver's own)
        """Take the connection that was opened last."""
        self._connection = connection

    @contextlib.contextmanager
    def cut_after(self, seconds: float) -> Iterator[None]:
        """Cut the connection after so many seconds, unless what is done in here is over; 0: never."""
        if not seconds:
            yield
            return
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        connection = self._connection
        if connection is not None and not connection.closed:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)


def _deadlines(most_seconds: int) -> str:
    """Return what sets them for this transaction only: the session may be a pooler's, shared with others."""
    wanted = {
        "statement_timeout": most_seconds,
        "lock_timeout": _LOCK_SECONDS if most_seconds else 0,
        "idle_in_transaction_session_timeout": _IDLE_SECONDS if most_seconds else 0,
    }
    return "SELECT " + ", ".join(f"set_config('{name}', '{seconds}s', true)" for name, seconds in wanted.items())


def _parsed(url: str) -> DatabaseAddress:
    try:
        return parse_database_url(url)
    except ValueError as fault:
        raise LedgerUnusableError(f"the database URL {fault}") from None


def _sqlite_engine(address: DatabaseAddress) -> Engine:
    url = URL.create("sqlite", database=str(address.file), query=address.query)
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _open_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _open_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 (the driver's own)
    connection.isolation_level = None  # the driver begins nothing by itself
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA cache_size=-{_SQLITE_CACHE_KIBIBYTES}")
    connection.execute(f"PRAGMA wal_autocheckpoint={_SQLITE_LOG_PAGES}")


def _begin_sqlite(connection: Connection) -> None:
    begin = connection.get_execution_options().get(_BEGIN)
    if begin is not None:
        connection.exec_driver_sql(begin)


def _postgresql_engine(address: DatabaseAddress) -> Engine:
    """Make an engine that notices a server that is gone; what the URL says about it goes first."""
    url = URL.create(
        "postgresql+psycopg",
        username=address.username,
        password=address.password,
        host=address.host,
        port=address.port,
        database=address.database,
        query=address.query,
    )
    arguments = {name: value for name, value in _POSTGRESQL_WANTED.items() if name not in url.query}
    return create_engine(url, hide_parameters=True, pool_size=1, pool_pre_ping=True, connect_args=arguments)
