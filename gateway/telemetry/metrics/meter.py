"""The counting of exchanges: one call at the start of each, one at its end.

The decision: `Meter.close` makes of an exchange's record (telemetry/record.py) exactly one count and exactly one log
event. Everything that can be looked up beforehand is: a tuple of label values leads to the cells to add to, so that
start and end together cost about 3 us (prometheus_client takes 8, rendering a log line 20 more).
"""

from __future__ import annotations

import time
from bisect import bisect_left
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.telemetry.metrics import families as metrics
from gateway.telemetry.metrics.endpoint_labels import OTHER, EndpointLabels
from gateway.telemetry.metrics.exemplars import SLOTS, SLOTS_OF_A_CLASS, SLOTS_OF_A_FAMILY, exemplar_of
from gateway.telemetry.metrics.families import CLASSES, DURATION_BUCKETS, HISTOGRAM_CELLS, ORIGIN_ERRORS, Family
from gateway.telemetry.metrics.purchase_counter import PurchaseCounter, clamped
from gateway.telemetry.metrics.unreadable_units import UnreadableUnits

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.ledger.entry import Entry
    from gateway.telemetry.metrics.counters import Labels, Region
    from gateway.telemetry.record import ExchangeRecord

_STATUS_LABELS: Final = MappingProxyType({status: str(status) for status in range(100, 600)})
_SUM_CELL: Final = HISTOGRAM_CELLS - 1
_MICROSECONDS: Final = 1_000_000
_EXEMPLAR_SECONDS: Final = 1.0


class Meter:
    """The counting side of one process, over the region of its slot."""

    def __init__(
        self,
        region: Region,
        endpoints: EndpointLabels,
        *,
        emit: Callable[[ExchangeRecord], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the region over from whoever counted there before; `emit` takes each closed record to the log.

        `clock` gives seconds since the epoch.
        """
        region.attach()
        self._region = region
        self._cells = region.cells
        self._endpoints = endpoints
        self._emit = emit
        self._clock = clock
        self._exemplars = region.exemplars
        self._unreadable = UnreadableUnits()
        self._kept_at = [0.0] * SLOTS  # when each bucket's exemplar was kept
        self._rows: dict[tuple[str, str, str, str, int], tuple[int, int, int, int, int, int, int]] = {}
        self._failures = {error: self._cell(metrics.UPSTREAM_FAILURES, (error,)) for error in ORIGIN_ERRORS}
        self._refused_upstream = {
            reason: self._cell(metrics.UPSTREAM_REFUSALS, (reason,)) for reason in metrics.UPSTREAM_REFUSALS_OF
        }
        self._gone = self._cell(metrics.CLIENTS_GONE, ())
        self._dropped = self._cell(metrics.LOG_LINES_DROPPED, ())
        self._lost = self._cell(metrics.LOST_PURCHASES, ())
        self._spans_dropped = self._cell(metrics.TRACE_SPANS_DROPPED, ())
        self._store_errors = self._cell(metrics.STATE_STORE_ERRORS, ())
        self._degraded = self._cell(metrics.DEGRADED_REQUESTS, ())
        self._timers = {billing: self._timer_cells(billing) for billing in CLASSES}
        self._inflight = {billing: self._cell(metrics.INFLIGHT_REQUESTS, (billing,)) for billing in CLASSES}
        for family in metrics.OF_A_LIFE:
            region.zero(family.name)

    def open(self, record: ExchangeRecord) -> None:
        """Count an exchange as in flight, in the class that its record names; not needed before a refusal."""
        cell = record.inflight_cell = self._inflight[record.billing]
        self._cells[cell] += 1

    def close(self, record: ExchangeRecord) -> None:
        """Count a finished exchange and log it; a second call does nothing. The record is the log's from here on."""
        if record.closed:
            return
        record.closed = True
        record.timestamp = self._clock()
        self._count(record)
        if record.error_type is not None:
            self._count_error(record, record.error_type)
        if record.outcome == "client_gone":
            self._count_gone(record)
        self._emit(record)

    def log(self, record: ExchangeRecord) -> None:
        """Log a request that is none of the proxy's, and so not counted. The record is the log's from here on."""
        record.closed = True
        record.timestamp = self._clock()
        self._emit(record)

    def _count(self, record: ExchangeRecord) -> None:
        cells = self._cells
        label = self._endpoints.label(record.endpoint)
        labels = (record.team, record.key, label, record.billing, record.status)
        row = self._rows.get(labels) or self._row(*labels)
        requests, request_bytes, response_bytes, duration, first_byte, overhead, slot = row
        cells[requests] += 1
        cells[request_bytes] += record.request_bytes
        cells[response_bytes] += record.response_bytes
        now, kept_at = record.timestamp, self._kept_at
        place = slot + _observe(cells, duration, seconds=record.duration_seconds)
        if not 0.0 <= now - kept_at[place] < _EXEMPLAR_SECONDS:
            self._keep(place, record, seconds=record.duration_seconds)
        if record.first_byte_seconds is not None:
            place = slot + SLOTS_OF_A_FAMILY + _observe(cells, first_byte, seconds=record.first_byte_seconds)
            if not 0.0 <= now - kept_at[place] < _EXEMPLAR_SECONDS:
                self._keep(place, record, seconds=record.first_byte_seconds)
        if record.overhead_seconds is not None:
            _observe(cells, overhead, seconds=record.overhead_seconds)
        if record.inflight_cell >= 0:
            cells[record.inflight_cell] -= 1

    def _keep(self, slot: int, record: ExchangeRecord, *, seconds: float) -> None:
        """Make a request its bucket's exemplar."""
        self._kept_at[slot] = record.timestamp
        self._exemplars.keep(slot, exemplar_of(record, seconds))

    def _count_error(self, record: ExchangeRecord, error_type: str) -> None:
        if record.outcome == "refused":
            self._cells[self._cell(metrics.REFUSALS, (record.team, record.key, error_type))] += 1
        elif error_type in self._failures:
            self._cells[self._failures[error_type]] += 1

    def _count_gone(self, record: ExchangeRecord) -> None:
        """Count a client that has left, and what it leaves unused; a job's result can be fetched again."""
        self._cells[self._gone] += 1
        if record.billing == "paid" and record.cost_usd is not None:
            abandoned = self._cell(metrics.ABANDONED_COST, (record.team, record.key))
            parts = int(record.cost_usd * metrics.ABANDONED_COST.parts)
            self._cells[abandoned] = clamped(self._cells[abandoned] + parts)

    def count_upstream_refusal(self, reason: str) -> None:
        """Count an answer by which fal refused; `reason` is one of `metrics.UPSTREAM_REFUSALS_OF`."""
        self._cells[self._refused_upstream[reason]] += 1

    def count_dropped(self, lines: int) -> None:
        """Count log lines that were lost."""
        self._cells[self._dropped] += lines

    def count_lost_purchases(self, purchases: int) -> None:
        """Count purchases that could not be written down."""
        self._cells[self._lost] += purchases

    def count_dropped_spans(self, spans: int) -> None:
        """Count spans that were lost."""
        self._cells[self._spans_dropped] += spans

    def count_shadowed(self, team: str, key: str, count: int) -> None:
        """Count limits that would have refused a call if they were enforced."""
        self._cells[self._cell(metrics.SHADOW_REFUSALS, (team, key))] += count

    def count_store_error(self) -> None:
        """Count a call to the shared store that failed."""
        self._cells[self._store_errors] += 1

    def count_degraded(self) -> None:
        """Count a call that was judged without the shared store."""
        self._cells[self._degraded] += 1

    def account(self, team: str, key: str, endpoint: str, unit: str | None) -> PurchaseCounter:
        """Return the account of what a key buys at an endpoint."""
        return PurchaseCounter(self._cells, self._cell, (team, key, self._endpoints.label(endpoint)), unit=unit)

    def count_cost(self, entry: Entry) -> None:
        """Count a row of the ledger that has come to its cost, or to none that is known."""
        units = Decimal(entry.units) if entry.units is not None else None
        self.account(entry.team, entry.key, entry.endpoint, entry.unit).count(units, entry.cost_ns, entry.source)

    def note_unreadable_units(self, record: ExchangeRecord) -> None:
        """Take note of a request whose units, as fal names them, are no quantity."""
        self._unreadable.note(record)

    def count_warning(self, scope: str, owner: str, period: str) -> None:
        """Count a warning about a budget."""
        self._cells[self._cell(metrics.BUDGET_WARNINGS, (scope, owner, period))] += 1

    def label(self, endpoint: str) -> str:
        """Return the label value of an endpoint."""
        return self._endpoints.label(endpoint)

    def _row(
        self, team: str, key: str, label: str, billing: str, status: int
    ) -> tuple[int, int, int, int, int, int, int]:
        """Find the cells of a combination that is new to this process, and remember them."""
        requests = (team, key, label, billing, _STATUS_LABELS.get(status, OTHER))
        row = (
            self._cell(metrics.REQUESTS, requests),
            self._cell(metrics.REQUEST_BYTES, (team, billing)),
            self._cell(metrics.RESPONSE_BYTES, (team, billing)),
            *self._timers[billing],
            CLASSES.index(billing) * SLOTS_OF_A_CLASS,
        )
        # What has no series of its own is not remembered either: the table is bounded by the region.
        if self._claim(metrics.REQUESTS, requests) is not None:
            self._rows[team, key, label, billing, status] = row
        return row

    def _timer_cells(self, billing: str) -> tuple[int, int, int]:
        duration, first_byte, overhead = metrics.REQUEST_DURATION, metrics.FIRST_BYTE, metrics.OVERHEAD
        return self._cell(duration, (billing,)), self._cell(first_byte, (billing,)), self._cell(overhead, (billing,))

    def _claim(self, family: Family, labels: Labels) -> int | None:
        return self._region.claim(family.name, labels, width=family.width)

    def _cell(self, family: Family, labels: Labels) -> int:
        """Return the first cell of a series, or of its family's overflow where the region is full."""
        first = self._claim(family, labels)
        if first is not None:
            return first
        return self._region.claim_spare(family.name, family.overflow(labels), width=family.width)


def _observe(cells: memoryview, first: int, *, seconds: float) -> int:
    """Count an observation; return the number of its bucket."""
    bucket = bisect_left(DURATION_BUCKETS, seconds)
    cells[first + bucket] += 1
    cells[first + _SUM_CELL] += int(seconds * _MICROSECONDS)
    return bucket
