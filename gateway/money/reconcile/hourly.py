"""The comparison with fal's bill every hour, in a thread of the ledger's process.

The decision: each run looks at the last two days again. What fal bills late is found by a later run, and a run that
failed leaves nothing behind that the next one does not find; so an outage is an event in the log, and no more.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from gateway.fal.api.client import FalApi, FalApiError
from gateway.ledger.errors import LedgerUnavailableError, LedgerUnusableError
from gateway.ledger.report_query import Span
from gateway.money.reconcile.run import Audit, SpanError, audit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Timetable:
    """When the first comparison runs, how often they run, and how far back each one looks."""

    first_seconds: float = 60
    every_seconds: float = 3600
    back: timedelta = timedelta(hours=48)


def _not_known() -> None:
    return None


class Auditor:
    """The thread; `start` it once, in the process that uses it."""

    def __init__(
        self,
        api: FalApi,
        open_ledger: Callable[[], Ledger],
        *,
        on_audit: Callable[[Audit], None],
        credentials: Callable[[], Mapping[str, str] | None] = _not_known,
        timetable: Timetable | None = None,
    ) -> None:
        """Ask `api`, under an admin key and the auditor's own from here on, and correct the ledger that is opened.

        `open_ledger` is called in the thread, which alone uses what it returns.

        `credentials` is called in the thread before each comparison; see `audit`.

        `on_audit` is called from the thread, after each comparison that came to its end: `changes` are rows that the
        ledger has changed, for whoever counts money; `found.total` and `found.drift` are for metrics.
        """
        self._api = api
        self._open_ledger = open_ledger
        self._on_audit = on_audit
        self._credentials = credentials
        self._timetable = timetable or Timetable()
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._keep, name="auditor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_seconds: float = 5.0) -> None:
        """End the thread, and a question to fal that is under way; harmless when done twice."""
        self._closing.set()
        self._api.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        if not self._thread.is_alive():
            self._api.close()

    def _keep(self) -> None:
        ledger = self._open_ledger()
        pause = self._timetable.first_seconds
        while not self._closing.wait(pause):
            self._run(ledger)
            pause = self._timetable.every_seconds
        ledger.close()

    def _run(self, ledger: Ledger) -> None:
        now = datetime.now(UTC)
        try:
            span = Span(now - self._timetable.back, now)
            done = audit(self._api, ledger, span, now=now, credentials=self._credentials())
        except (FalApiError, LedgerUnavailableError, LedgerUnusableError, SpanError) as fault:
            if not self._closing.is_set():
                self._fail(fault)
            return
        self._failing = False
        found = done.found
        structlog.get_logger().info(
            "bill_compared",
            corrected=len(done.changes),
            matched=len(found.matches),
            unbilled=len(found.unbilled),
            unknown_events=len(found.unknown_events),
            amended=len(found.amendments),
            unreadable=found.unreadable,
            drift_ns=found.total.drift_ns,
        )
        self._on_audit(done)

    def _fail(self, fault: Exception) -> None:
        if not self._failing:
            structlog.get_logger().warning("bill_not_compared", reason=str(fault))
        self._failing = True
