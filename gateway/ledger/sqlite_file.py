"""The file of an SQLite ledger: whether the open connection still belongs to the file of that name.

The decision: SQLite goes on writing to a file that was deleted, moved or replaced, and what it commits there is lost.
So the file is compared before each transaction, and after each that wrote. While it is missing the ledger is
unavailable, and journals wait; it is not made again, since an empty ledger would open every budget. Once a ledger is at
its place it is used, whether it is the same file or another one, such as a restored backup. What is no ledger is left
alone.

SQLite would apply the log (`-wal`) of the file before to the one that replaces it. So that log gets another name; not
where the file has the same size and time as before, since it was moved to another disk and back.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from gateway.ledger.errors import LedgerUnavailableError
from gateway.ledger.tables import VERSION_TABLE

if TYPE_CHECKING:
    from pathlib import Path


class _Identity(NamedTuple):
    """Which file it is."""

    device: int
    number: int


class SqliteFile:
    """One database's file, and which one the connection has. `may_make`: one that is missing may be made now."""

    def __init__(self, path: Path, *, may_make: bool) -> None:
        self._path = path
        self.may_make = may_make
        self._opened: _Identity | None = None
        self._log: _Identity | None = None
        self._looks: tuple[int, int] | None = None  # size and time of the file when it was seen last
        self._logs_aside: dict[_Identity, str] = {}  # by the file that they belong to

    def opened(self, _connection: object, _record: object) -> None:
        """Remember which file a new connection has."""
        self._opened, self._looks = self._look()
        self._log = _identity(f"{self._path}-wal")

    def closed(self) -> None:
        """Take it that no connection is open."""
        self._opened = None

    def is_replaced(self) -> bool:
        """Say whether another ledger is at its place, for which the connection must be closed; `set_log_aside` follows.

        LedgerAwayError where there is none.
        """
        found, looks = self._look()
        if found is None and (self._opened is not None or not self.may_make):
            raise LedgerUnavailableError(
                f"the database file {self._path.absolute()} is missing: put it back, or restart the gateway for an"
                " empty one"
            )
        if self._opened is None or found == self._opened:
            self._looks = looks
            self._log = _identity(f"{self._path}-wal") or self._log
            return False
        if looks != self._looks and not _holds_table(self._path, VERSION_TABLE):
            raise LedgerUnavailableError(
                f"the database file {self._path.absolute()} was replaced by one that is no ledger"
            )
        return True

    def set_log_aside(self) -> LedgerUnavailableError:
        """Take the file that is there now as the one to open next; return what is said of that."""
        found, looks = self._look()
        is_ours = self._log is not None and self._log == _identity(f"{self._path}-wal")
        if looks != self._looks and is_ours and self._opened is not None:
            aside = self._logs_aside[self._opened] = f".replaced-{time.time_ns() // 1_000_000}"
            self._rename_log("", aside)
        if found is not None and found in self._logs_aside:  # it is back
            self._rename_log(self._logs_aside.pop(found), "")
        self._opened = self._log = None
        return LedgerUnavailableError(f"the database file {self._path.absolute()} was replaced by another one")

    def _rename_log(self, old: str, new: str) -> None:
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(OSError):  # another process was quicker
                os.rename(f"{self._path}{suffix}{old}", f"{self._path}{suffix}{new}")  # noqa: PTH104

    def _look(self) -> tuple[_Identity | None, tuple[int, int] | None]:
        try:
            found = self._path.stat()
        except OSError:
            return None, None
        return _Identity(found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns)


def _holds_table(path: Path, name: str) -> bool:
    """Say whether a file is a database with such a table, whatever log is beside it."""
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            query = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
            return bool(connection.execute(query, (name,)).fetchone()[0])
    except sqlite3.Error:
        return False


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return _Identity(found.st_dev, found.st_ino)
