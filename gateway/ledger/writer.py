"""The ledger process: tails the journals and applies them to the database, off every event loop.

The decision: plain synchronous code in a process of its own. While the database is away the journals wait on the disk,
which is all that workers see of it. Nothing is remembered that the files do not hold, so this process may be killed at
any moment: what it had not noted comes again, and changes nothing the second time.

A stop interrupts no statement. A database that hangs in one at the end is left by the alarm, which kills this process:
the lines stay for the next start.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from gateway.ledger.errors import LedgerNewerError, LedgerUnavailableError
from gateway.ledger.tables import RELEASE
from gateway.platform.progress import Progress
from gateway.platform.signals import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Change, Ledger
    from gateway.ledger.spool import Batch, Ends, Spool

BATCH_ROWS: Final = 4_000
"""Of one transaction. The more, the more of them share a page of an index, which is then written once."""

TICK_SECONDS: Final = 0.2
LONGEST_DELAY_SECONDS: Final = 5.0
NOTE_SECONDS: Final = 5.0
ADOPT_SECONDS: Final = 5.0
UPKEEP_SECONDS: Final = 60.0
WATERMARK_SECONDS: Final = 0.8
"""Between two watermarks of an idle gateway."""

LAST_FLUSH_SECONDS: Final = 10
RETENTION_DAYS: Final = 400
_DAY_US: Final = 86_400 * 10**6
_WRITING_SECONDS: Final = 0.1
_PAUSE_SECONDS: Final = 0.002


class Gauges(NamedTuple):
    """How things stand. `applied` counts rows that changed, `skipped` lines torn or garbage, both since the start."""

    is_up: bool
    spool_bytes: int
    oldest_seconds: float
    applied: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told what; all are called in the ledger process, and none may raise.

    `on_ready` once, after the first attempt: whether everything could be applied. `on_changed` after each batch that
    changed rows. `on_finished` with holds that dead writers left, once the database has them as unknown: at least
    once, so the listener goes by their ids. `on_batch` after each batch that the database has: this process works.
    `on_gauges` after each attempt.
    """

    on_ready: Callable[[bool], None]
    on_changed: Callable[[Sequence[Change]], None]
    on_finished: Callable[[Sequence[Entry]], None]
    on_batch: Callable[[], None]
    on_gauges: Callable[[Gauges], None]


def serve_ledger(writer: LedgerWriter, *, parent: int, stop_signal: signal.Signals = signal.SIGTERM) -> None:
    """Run until that signal comes, or until the parent process is gone; in the main thread of a process of its own.

    `parent` is its process id as the parent knows it: one that has died before this process looks is gone, too.
    Raises LedgerNewerError where the schema that is there was made by a newer release; not where this gateway has had a
    ledger: then that is waited out like a database that is down.
    """
    stop = Stop(stop_signal, last_seconds=LAST_FLUSH_SECONDS + 1)
    writer.begin()
    while not stop.comes_within(writer.delay_seconds) and os.getppid() == parent:
        writer.work()
    stop.ask()
    writer.finish(time.monotonic() + LAST_FLUSH_SECONDS)
    signal.alarm(0)


class LedgerWriter:
    """Carries lines from the spool to the ledger. `delay_seconds` is how long to wait before the next attempt."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        ledger: Ledger,
        spool: Spool,
        *,
        listeners: Listeners,
        retention_days: int = RETENTION_DAYS,
        may_make: bool = True,
        gateway: str = "",
    ) -> None:
        """Take what it works with, and whom it tells.

        Not `may_make`: this gateway has had a ledger, so one that is missing is a fault, and no new one is made.
        `gateway` is this one's name among those that share the database; left out: it shares it with none.
        """
        self.delay_seconds = TICK_SECONDS
        self._ledger = ledger
        self._spool = spool
        self._listeners = listeners
        self._retention_us = retention_days * _DAY_US
        self._may_make = may_make
        self._gateway = gateway
        self._is_migrated = False
        self._is_up: bool | None = None
        self._oldest_us: int | None = None
        self._applied = 0
        self._skipped = 0
        self._adopt_at = 0.0
        self._upkeep_at = 0.0
        self._note_at = 0.0
        self._watermark_at = 0.0
        self._is_whole = False  # what the last watermark was to say
        self._removed: set[str] = set()
        self._events = structlog.get_logger()

    def begin(self) -> None:
        """Apply what is there for the first time."""
        self._listeners.on_ready(self.work())

    def work(self, *, deadline: float | None = None) -> bool:
        """Apply what is there, and keep house when it is time; return whether the database took everything.

        `deadline` is of the monotonic clock; at it whatever is left waits.
        """
        try:
            self._spool.require_folder()
            self._adopt_and_migrate()
            began_us, ends = self._begin()
            self._apply_all(deadline)
            self._mark(began_us, ends)
            self._forget()
        except LedgerNewerError as fault:
            if self._may_make and self._is_up is None:  # a gateway's start
                raise
            self._rest(str(fault))
        except LedgerUnavailableError as fault:
            self._rest(str(fault))
        else:
            self._resume(self._spool.unreadable)
        self._show()
        return bool(self._is_up)

    def apply_to(self, places: Mapping[str, int]) -> bool:
        """Apply journals of this gateway up to places, by name, and nothing behind them; LedgerAwayError.

        Returns whether all of it is in the ledger. A worker that has just named its place may still be writing.
        """
        deadline = time.monotonic() + _WRITING_SECONDS
        while True:
            while not (batch := self._spool.read_until(places, BATCH_ROWS)).is_empty:
                self._apply(batch)
            applied = self._spool.own_journals()
            if all(applied.get(name, 0) >= place for name, place in places.items()):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_SECONDS)

    def finish(self, deadline: float) -> None:
        """Apply what is left, once, up to the deadline, and let go of the spool and the database."""
        self._watermark_at = 0.0
        self.work(deadline=deadline)
        self._leave()
        self._spool.close()
        self._ledger.close()

    def _adopt_and_migrate(self) -> None:
        """Adopt also while the database is away: what is adopted is seen in the gauges.

        A gateway before this one may end its last calls while this one serves, and their cost is in its journals alone.
        """
        if time.monotonic() >= self._adopt_at:
            self._adopt_at = time.monotonic() + ADOPT_SECONDS
            self._spool.adopt()
        if self._is_migrated:
            self._ledger.check_file()
        else:  # also after each fault: what has come back may be another database, such as a restored backup
            self._migrate()
            self._is_migrated = True
            self._may_make = False

    def _migrate(self) -> None:
        began = time.monotonic()
        with Progress("bringing the ledger to this release's schema"):
            older = self._ledger.migrate(may_make=self._may_make)
        if older is not None:
            seconds = round(time.monotonic() - began, 1)
            self._events.info("ledger_migrated", from_schema=older, to_schema=RELEASE, seconds=seconds)

    def _apply_all(self, deadline: float | None) -> None:
        """Apply all that is there now; what writers add meanwhile is the next turn's, or this one might never end."""
        left_bytes = self._spool.unapplied_bytes()
        while left_bytes >= 0 and not (batch := self._spool.read(BATCH_ROWS)).is_empty:
            self._apply(batch)
            left_bytes -= batch.size_bytes
            if deadline is not None and time.monotonic() > deadline:
                break
        if time.monotonic() >= self._note_at:
            self._note_at = time.monotonic() + NOTE_SECONDS
            self._spool.note()

    def _apply(self, batch: Batch) -> None:
        rows = batch.entries + batch.finished
        self._oldest_us = rows[0].changed_at_us if rows else None
        for start in range(0, max(1, len(rows)), BATCH_ROWS):
            places = batch.places if self._gateway and start + BATCH_ROWS >= len(rows) else None
            changes = self._ledger.apply(rows[start : start + BATCH_ROWS], places=places)
            if changes:
                self._applied += len(changes)
                self._listeners.on_changed(changes)
        if batch.finished:
            self._listeners.on_finished(batch.finished)
        self._spool.applied(batch)
        self._listeners.on_batch()
        self._skipped += batch.skipped
        self._oldest_us = None

    def _begin(self) -> tuple[int, Ends | None]:
        """Return the database's time before the journals are looked at, and their ends; None: no watermark is due."""
        if not self._gateway or time.monotonic() < self._watermark_at:
            return 0, None
        return self._ledger.watermarks.clock_us(), self._spool.ends()

    def _mark(self, began_us: int, ends: Ends | None) -> None:
        """Write a watermark, where all is in the ledger that was in the journals when this began."""
        if ends is not None and not self._spool.unreadable and self._spool.has_applied(ends):
            self._ledger.watermarks.write(self._gateway, began_us)
            self._watermark_at = time.monotonic() + WATERMARK_SECONDS
            self._is_whole = True
        elif ends is not None:
            self._is_whole = False

    def _leave(self) -> None:
        """Take the watermark along, where all is in the ledger; else it stays, and says from when on it may lack."""
        if self._gateway and self._is_up and self._is_whole:
            try:
                self._ledger.watermarks.remove([self._gateway])
            except LedgerUnavailableError as fault:
                self._events.debug("ledger_away", reason=str(fault))

    def _forget(self) -> None:
        ended = set(self._spool.adopted_to_the_end()) - self._removed
        if ended and self._gateway:
            self._ledger.watermarks.remove(ended)
            self._removed |= ended
        if time.monotonic() >= self._upkeep_at:
            self._upkeep_at = time.monotonic() + UPKEEP_SECONDS
            self._ledger.forget(_now_us() - self._retention_us)
            if self._gateway:
                self._ledger.watermarks.remove(())

    def _rest(self, reason: str) -> None:
        self._say(reason)
        self._is_migrated = False
        self.delay_seconds = min(self.delay_seconds * 2, LONGEST_DELAY_SECONDS)

    def _resume(self, unreadable: str) -> None:
        """Go on; the ledger is no less down where a journal is unreadable, while the lines of others reach it."""
        self._say(unreadable)
        self.delay_seconds = TICK_SECONDS

    def _say(self, reason: str) -> None:
        if reason and self._is_up is not False:
            self._events.error("ledger_down", reason=reason)
        elif not reason and self._is_up is not True:
            self._events.info("ledger_up")
        self._is_up = not reason

    def _show(self) -> None:
        oldest = 0.0 if self._oldest_us is None else max(0, _now_us() - self._oldest_us) / 10**6
        spool_bytes = self._spool.unapplied_bytes()
        self._listeners.on_gauges(Gauges(bool(self._is_up), spool_bytes, oldest, self._applied, self._skipped))


def _now_us() -> int:
    return time.time_ns() // 1_000
