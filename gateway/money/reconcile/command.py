"""The command `reconcile`: one comparison of the ledger with fal's bill, from a database's URL to a text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from gateway.fal.api.billing import DAYS_BACK
from gateway.ledger.ledger import Ledger
from gateway.ledger.report_query import Span
from gateway.money.reconcile.report import Form, Report, rendered
from gateway.money.reconcile.run import SpanError, audit, compare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.fal.api.client import FalApi


def reconciled(  # noqa: PLR0913 (what the command line says, by name)
    api: FalApi, database_url: str, span: Span, *, credentials: Mapping[str, str] | None, form: Form, dry_run: bool
) -> str:
    """Return the report of a comparison, after which the ledger is corrected unless it is a dry run.

    `credentials` names the one of each team, "" for the gateway's own (None: not known).

    Raises SpanError, FalApiError, LedgerAwayError and LedgerUnusableError; what was corrected by then stays corrected.
    """
    now = datetime.now(UTC)
    if span.since >= now:
        raise SpanError("the span lies in the future")
    if span.since < now - timedelta(days=DAYS_BACK):
        raise SpanError(f"the span begins more than {DAYS_BACK} days ago; fal tells of its bills no further back")
    past = Span(span.since, min(span.until, now))  # an end far ahead has no day behind it
    ledger = Ledger(database_url)
    try:
        ledger.require_schema()
        if dry_run:
            found = compare(api, ledger, past, now=now, credentials=credentials)
        else:
            found = audit(api, ledger, past, now=now, credentials=credentials).found
    finally:
        ledger.close()
    return rendered(Report(span, dry_run, found), form=form)
