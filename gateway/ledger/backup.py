"""A consistent copy of an SQLite ledger, made while gateways write to it.

The decision: SQLite's own backup, within one transaction that reads: so it is the ledger of one moment, gateways go on
writing (WAL mode), and their commits do not make it begin again, as they do between the steps of a backup without one.
The copy gets its name last, when it is whole and on the disk: a file of that name is a backup, and never a part of one.
A file that is there already is never written over.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from gateway.ledger.errors import LedgerUnavailableError, LedgerUnusableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEP_PAGES: Final = 1_000
"""4 MB from one report of progress to the next."""

_BUSY_SECONDS: Final = 5.0


class BackupError(Exception):
    """The copy could not be made; the text says why. What there was of it is deleted."""


def back_up(source: Path, target: Path, *, shown: Callable[[int, int], None]) -> int:
    """Copy the ledger in `source` to `target`, which must not exist; return its size in bytes.

    `shown` is called after each step with how many pages are copied, and of how many. Raises BackupError,
    LedgerUnusableError where the ledger is damaged, LedgerAwayError where it cannot be read.
    """
    if os.path.lexists(target):
        raise BackupError(f"{target} exists already: name another file, or move this one")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        _copy(source, partial, shown)
        _give_name(partial, target)
    except OSError as fault:
        raise BackupError(f"{fault.filename or target}: {fault.strerror}") from fault
    finally:
        for name in (partial, *(partial.with_name(partial.name + end) for end in ("-journal", "-wal", "-shm"))):
            with contextlib.suppress(OSError):
                name.unlink()
    return target.stat().st_size


def _copy(source: Path, partial: Path, shown: Callable[[int, int], None]) -> None:
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # it says who bought what
    try:
        with contextlib.closing(_opened(source)) as ledger, contextlib.closing(sqlite3.connect(partial)) as copy:
            ledger.execute("BEGIN")
            ledger.execute("SELECT 1 FROM sqlite_schema").fetchone()  # from here on it reads this moment
            ledger.backup(copy, pages=STEP_PAGES, progress=lambda _status, left, of: shown(of - left, of), sleep=0)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
            _check(copy)
    except sqlite3.Error as fault:
        raise LedgerUnavailableError(f"the copy broke off: {fault}") from None


def _opened(source: Path) -> sqlite3.Connection:
    """Open the ledger; without making an empty file where there is none."""
    return sqlite3.connect(
        f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
    )


def _check(copy: sqlite3.Connection) -> None:
    (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LedgerUnusableError(f"the ledger is damaged: {verdict}")


def _give_name(partial: Path, target: Path) -> None:
    """Write the copy through to the disk, then give it its name; FileExistsError where another was quicker."""
    _sync(partial)
    try:
        os.link(partial, target)  # and not rename, which would replace a file
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        partial.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
