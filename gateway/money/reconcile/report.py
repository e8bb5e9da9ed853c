"""What a comparison with fal's bill found, for people and for programs.

The decision: money is exact decimal text, and the table is for reading, so its lists are cut short with a word that
says so; JSON has all of it. Sums of what fal alone knows are told beside the drift and not in it: they are no error of
ours as long as others use the same account.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from gateway.ledger.report_query import iso
from gateway.units import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.fal.api.billing import BillingEvent
    from gateway.ledger.entry import Entry
    from gateway.ledger.report_query import Span
    from gateway.money.reconcile.compare import Amendment, Correction, Drift, Reconciliation

Form = Literal["table", "json"]

FORMS: Final = ("table", "json")
SHOWN_MOST: Final = 20
_MATCHED: Final = ("matched with a bill", "would be matched with a bill")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Line = dict[str, object]


class Report(NamedTuple):
    """A comparison and what was asked for."""

    span: Span
    dry_run: bool
    found: Reconciliation


def rendered(report: Report, *, form: Form) -> str:
    """Return the report as text, its last line feed included."""
    return _RENDERERS[form](report)


def _as_json(report: Report) -> str:
    found = report.found
    content = {
        "since": iso(report.span.since),
        "until": iso(report.span.until),
        "dry_run": report.dry_run,
        "corrected": [_correction(one) for one in found.corrections],
        "matched": [_match(one) for one in found.matches],
        "only_fal": [_event(one) for one in found.unknown_events],
        "only_ours": [_row(one) for one in found.unbilled],
        "changed_since": [_amendment(one) for one in found.amendments],
        "agreeing": found.agreeing,
        "unreadable": found.unreadable,
        "drift": [{"endpoint": name, **_drift(one)} for name, one in found.drift.items()],
        "total": _drift(found.total),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _as_table(report: Report) -> str:
    found = report.found
    corrected = "would be corrected" if report.dry_run else "corrected"
    drifts = [{"endpoint": name, **_drift(one)} for name, one in found.drift.items()]
    only_fal_ns = sum(event.cost_ns for event in found.unknown_events)
    sections = [
        _section(f"{len(found.corrections)} purchases {corrected}", map(_correction, found.corrections)),
        _section(
            f"{len(found.matches)} purchases whose answer was lost {_MATCHED[report.dry_run]}",
            map(_match, found.matches),
        ),
        _section(
            f"{len(found.unknown_events)} lines of fal's bill without a purchase here, {usd(only_fal_ns)} USD",
            map(_event, found.unknown_events),
        ),
        _section(f"{len(found.unbilled)} purchases that fal has not billed", map(_row, found.unbilled)),
        _section(
            f"{len(found.amendments)} purchases whose bill changed after they were corrected (left as they are)",
            map(_amendment, found.amendments),
        ),
        _section("Drift by endpoint", drifts, most=len(drifts)) if drifts else "",
        _summary(report),
    ]
    return "\n".join(section for section in sections if section)


def _summary(report: Report) -> str:
    total = report.found.total
    charged = f"charged {usd(total.ours_ns)} USD" + (f" and {total.unknown} of unknown cost" if total.unknown else "")
    lines = (
        f"{iso(report.span.since)} to {iso(report.span.until)}",
        f"{report.found.agreeing} purchases agreed already",
        *(
            [f"{report.found.unreadable} lines of fal's bill are invalid; they and their requests are left out"]
            * bool(report.found.unreadable)
        ),
        f"{charged}, billed {usd(total.true_ns)} USD, drift {usd(total.drift_ns)} USD",
    )
    return "".join(f"{line}\n" for line in lines)


def _section(head: str, lines: Iterable[Line], *, most: int = SHOWN_MOST) -> str:
    """Return a heading with a table under it, and how many lines were left out of it."""
    listed = list(lines)
    text = f"{head}\n"
    if listed:
        text += _columns(listed[:most])
    if len(listed) > most:
        text += f"... and {len(listed) - most} more; --format json lists them all\n"
    return text


def _columns(lines: Sequence[Line]) -> str:
    head = tuple(lines[0])
    cells = [tuple("-" if value is None else str(value) for value in line.values()) for line in lines]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    shown = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *cells)
    )
    return "".join(f"  {line}\n" for line in shown)


def _correction(one: Correction) -> Line:
    old, new = one
    return {
        **_row(old),
        "true_units": new.units,
        "true_cost_usd": usd(new.cost_ns or 0),
    }


def _match(one: Correction) -> Line:
    return {**_correction(one), "fal_request_id": one.new.fal_request_id}


def _amendment(one: Amendment) -> Line:
    return {**_row(one.row), "true_cost_usd": usd(one.cost_ns)}


def _row(row: Entry) -> Line:
    return {
        "id": row.id,
        "fal_request_id": row.fal_request_id,
        "admitted_at": _moment(row.admitted_at_us),
        "team": row.team,
        "key": row.key,
        "endpoint": row.endpoint,
        "status": row.status,
        "units": row.units,
        "cost_usd": None if row.cost_ns is None else usd(row.cost_ns),
    }


def _event(event: BillingEvent) -> Line:
    return {
        "fal_request_id": event.request_id,
        "at": _moment(event.at_us),
        "endpoint": event.endpoint,
        "units": None if event.units is None else format(event.units, "f"),
        "cost_usd": usd(event.cost_ns),
    }


def _drift(one: Drift) -> Line:
    return {
        "purchases": one.rows,
        "unknown": one.unknown,
        "charged_usd": usd(one.ours_ns),
        "billed_usd": usd(one.true_ns),
        "drift_usd": usd(one.drift_ns),
        "drift_ratio": None if one.ratio is None else f"{one.ratio:.6f}",
    }


def _moment(at_us: int) -> str:
    return iso(_EPOCH + timedelta(microseconds=at_us))


_RENDERERS: Final[Mapping[Form, Callable[[Report], str]]] = MappingProxyType({"table": _as_table, "json": _as_json})
