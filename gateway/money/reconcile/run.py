"""A span of the ledger compared with fal's bill, and corrected by it.

The decision: the bill is read for a span, which is few questions, and by request ids only for what a span cannot show
whole: rows whose bill may have come behind its end, and rows from before its beginning. Everything is read before
anything is written, so that a bill of which a part is missing changes nothing.

Rows whose answer was lost are matched with the bills that no row has (matching.py): also those of the day before the
span, since a queue job may be billed in it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.fal.api.billing import Unreadable, events_between, events_of
from gateway.ledger.entry import RECONCILED
from gateway.money.reconcile.compare import Lost, Reconciliation, reconcile
from gateway.money.reconcile.matching import LATE_JOB_US

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.fal.api.billing import BillingEvent
    from gateway.fal.api.client import FalApi
    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Change, Ledger
    from gateway.ledger.report_query import Span

LAG: Final = timedelta(hours=1)
"""How old a request is before a missing bill is worth telling."""

LATEST_BILL: Final = timedelta(days=1)
"""How long after a span its bills are looked for in one go; those that come later are asked for by id."""

ROWS_MOST: Final = 500_000
_BATCH_ROWS: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class SpanError(Exception):
    """A span that cannot be compared, too long or too long ago; the text says what to do."""


class Audit(NamedTuple):
    """What came of a comparison, and which rows the ledger has changed by it."""

    found: Reconciliation
    changes: list[Change]


def audit(
    api: FalApi, ledger: Ledger, span: Span, *, now: datetime, credentials: Mapping[str, str] | None = None
) -> Audit:
    """Compare what was admitted in a span with fal's bill, and correct the ledger.

    `credentials` names the one of each team, "" for the gateway's own (None: not known, see `Lost`).

    Raises FalApiError, LedgerAwayError, and SpanError.
    """
    found = compare(api, ledger, span, now=now, credentials=credentials)
    corrected = [correction.new for correction in (*found.corrections, *found.matches)]
    batches = (corrected[at : at + _BATCH_ROWS] for at in range(0, len(corrected), _BATCH_ROWS))
    return Audit(found, [change for batch in batches for change in ledger.apply(batch)])


def compare(
    api: FalApi, ledger: Ledger, span: Span, *, now: datetime, credentials: Mapping[str, str] | None = None
) -> Reconciliation:
    """Compare and change nothing; a bill that is not there after LAG is missing. Raises as `audit` does."""
    rows = _open_rows(ledger, span)
    until_us = microseconds(span.until)
    unreadable = Unreadable()
    events = list(events_between(api, span.since, min(now, span.until + LATEST_BILL), unreadable=unreadable))
    strays = _strays(ledger, rows, events, until_us=until_us)
    asked = _to_ask(rows, strays, events, span=span, now=now)
    events += events_of(api, asked, now=now, unreadable=unreadable)
    lost = Lost(_unnamed_rows(ledger, span), credentials)
    known = [*rows, *strays]
    named = {row.fal_request_id for row in known}
    told = [event for event in events if event.at_us < until_us or event.request_id in named]
    return reconcile(
        known, told, now_us=microseconds(now), lag_us=LAG // _MICROSECOND, lost=lost, unreadable=unreadable
    )


def microseconds(at: datetime) -> int:
    """Return a moment in microseconds since the epoch."""
    return (at - _EPOCH) // _MICROSECOND


def _open_rows(ledger: Ledger, span: Span) -> list[Entry]:
    rows: list[Entry] = []
    since_us, until_us = microseconds(span.since), microseconds(span.until)
    while page := ledger.unreconciled(since_us, until_us, after=rows[-1] if rows else None):
        rows += page
        if len(rows) > ROWS_MOST:
            raise SpanError(f"there are more than {ROWS_MOST} open purchases in this span; take a shorter one")
    return rows


def _unnamed_rows(ledger: Ledger, span: Span) -> list[Entry]:
    """Return the rows without fal's request id: those whose answer was lost, and those under way."""
    rows: list[Entry] = []
    since_us, until_us = microseconds(span.since) - LATE_JOB_US, microseconds(span.until)
    while page := ledger.unnamed(since_us, until_us, after=rows[-1] if rows else None):
        rows += page
        if len(rows) > ROWS_MOST:
            raise SpanError(f"there are more than {ROWS_MOST} lost purchases in this span; take a shorter one")
    return rows


def _strays(ledger: Ledger, rows: Sequence[Entry], events: Sequence[BillingEvent], *, until_us: int) -> list[Entry]:
    """Return the rows beside `rows` that the span's events speak about: reconciled before, or admitted before it."""
    at_hand = {row.fal_request_id for row in rows}
    ids = sorted({event.request_id for event in events if event.at_us < until_us} - at_hand)
    return [row for at in range(0, len(ids), _BATCH_ROWS) for row in ledger.find_billed(ids[at : at + _BATCH_ROWS])]


def _to_ask(
    rows: Sequence[Entry], strays: Sequence[Entry], events: Sequence[BillingEvent], *, span: Span, now: datetime
) -> list[str]:
    """Return fal's ids of the rows whose bill the span's events may not show whole, or not at all."""
    since_us = microseconds(span.since)
    cut = [row for row in strays if row.admitted_at_us < since_us or row.status != RECONCILED]
    billed = {event.request_id for event in events}
    goes_on = span.until + LATEST_BILL < now
    late = [row for row in rows if row.fal_request_id not in billed] if goes_on else []
    return sorted({row.fal_request_id for row in [*cut, *late] if row.fal_request_id is not None})
