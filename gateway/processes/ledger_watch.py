"""Watches what purchases are written down with: the folder of journals, the ledger process, and what is lost.

The decision: whoever can still act when others cannot does it. The supervisor makes a deleted folder again, says that
the ledger process hangs, and counts what a killed worker had in memory only; a worker says what found no room.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gateway.ledger.spool_folder import FolderTakenError
from gateway.telemetry.metrics.families import LOST_PURCHASES
from gateway.telemetry.metrics.ledger_health import HANG_SECONDS, LedgerHealth

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.ledger.spool_folder import SpoolFolder
    from gateway.telemetry.metrics.scoreboard import Scoreboard

WATCH_SECONDS: Final = 1.0
_SAY_SECONDS: Final = 10.0


class LedgerWatch:
    """The supervisor's part; `look` is called all the time."""

    def __init__(self, scoreboard: Scoreboard, folder: SpoolFolder, *, keep_ledger: Callable[[], None]) -> None:
        """Begin with a ledger process that works. `keep_ledger` keeps others from it; OSError if it fails."""
        self._folder = folder
        self._keep_ledger = keep_ledger
        self._health = LedgerHealth(scoreboard.ledger.ledger_health)
        self._health.live()
        self._region = scoreboard.supervisor.region
        self._lost = self._region.claim_spare(LOST_PURCHASES.name, ())
        self._look_at = 0.0
        self._is_folder_missing = False
        self._is_stalled = False
        self._events = structlog.get_logger()

    def look(self, now: float) -> None:
        """Look at everything, once a second; `now` is of the monotonic clock."""
        if now < self._look_at:
            return
        self._look_at = now + WATCH_SECONDS
        self._keep_folder()
        if self._health.is_silent != self._is_stalled:
            self._is_stalled = not self._is_stalled
            if self._is_stalled:
                self._events.error("ledger_stalled", silent_seconds=HANG_SECONDS)
            else:
                self._events.info("ledger_resumed")

    def count_lost(self, purchases: int) -> None:
        """Count purchases that a dead worker had in memory only."""
        if purchases:
            self._region.cells[self._lost] += purchases
            self._events.error("purchases_lost", purchases=purchases, reason="worker_died")

    def _keep_folder(self) -> None:
        is_there = self._folder.is_there()
        try:
            if not is_there:
                self._folder.restore()
            self._keep_ledger()
        except (OSError, FolderTakenError) as fault:
            if not self._is_folder_missing:
                self._is_folder_missing = True
                self._events.error("spool_missing", path=str(self._folder.path), reason=str(fault))
        else:
            self._is_folder_missing = False
            if not is_there:
                self._events.warning("spool_restored", path=str(self._folder.path))


class WatchedJournal(Protocol):
    """A journal, as it is watched."""

    @property
    def is_full(self) -> bool:
        """Whether no new hold may be made; who asks looks at the files."""

    @property
    def lost_purchases(self) -> int:
        """How many purchases were dropped, since the start."""

    @property
    def restored(self) -> int:
        """How often files were written again."""


class LossCounter(Protocol):
    """Where lost purchases are counted."""

    def count_lost_purchases(self, purchases: int) -> None:
        """Count purchases that could not be written down."""


class JournalWatch:
    """One worker's part."""

    def __init__(self, journal: WatchedJournal, counts: LossCounter) -> None:
        self._journal = journal
        self._counts = counts
        self._counted = 0
        self._said = 0
        self._say_at = 0.0
        self._restored = 0
        self._events = structlog.get_logger()

    def look(self) -> None:
        """Look at the journal's files, and count what it has dropped; to be called once a second, and at the end."""
        is_full, lost = self._journal.is_full, self._journal.lost_purchases
        if lost > self._counted:
            self._counts.count_lost_purchases(lost - self._counted)
            self._counted = lost
        now = monotonic()
        if lost > self._said and (now >= self._say_at or not is_full):
            self._events.error("purchases_lost", purchases=lost - self._said, reason="no_room")
            self._said, self._say_at = lost, now + _SAY_SECONDS
        if self._journal.restored > self._restored:
            self._restored = self._journal.restored
            self._events.warning("journal_restored")
