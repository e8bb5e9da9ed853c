"""What was spent, out of the ledger, for people, for sheets, and for programs.

The decision: every figure carries its source, and what is not known is a count and never 0 dollars. One
row for each combination of the names asked for and each source; released requests bought nothing and are not in it,
open holds stand apart. Quantities of different units are not added: such a row has none. Money is exact decimal text.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.ledger.ledger import Ledger
from gateway.ledger.report_query import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from gateway.ledger.ledger import Sum
    from gateway.ledger.report_query import Form, Span

_DOLLAR_NS: Final = 10**9
_DIGITS: Final = 100  # of a sum of quantities: each has at most 40 before and behind the point
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_FIGURES: Final = ("requests", "units", "unit", "cost_usd", "source", "unpriced")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """What was bought under some names, of one source; `units` and `unit` are None where units differ."""

    names: tuple[str, ...]
    source: str
    requests: int
    unpriced: int
    units: Decimal | None
    unit: str | None
    cost_ns: int | None

    def cells(self) -> tuple[object, ...]:
        """Return its figures in the order in which every form shows them; None for what is not known."""
        cost_usd = None if self.cost_ns is None else usd(self.cost_ns)
        return (self.requests, plain(self.units), self.unit, cost_usd, self.source, self.unpriced)


class Report(NamedTuple):
    """All rows of a span, their total, and the open holds; money in nano-dollars."""

    by: tuple[str, ...]
    span: Span
    rows: list[Row]
    total_ns: int
    held_ns: int
    held_requests: int


def report(url: str, span: Span, *, by: tuple[str, ...]) -> Report:
    """Read the ledger at `url`; LedgerAwayError and LedgerUnusableError say what is wrong with it."""
    ledger = Ledger(url)
    try:
        ledger.require_schema()
        moments = (_microseconds(span.since), _microseconds(span.until))
        rows = rows_of(ledger.usage(*moments, by=by))
        holds = ledger.holds(*moments)
    finally:
        ledger.close()
    total_ns = sum(row.cost_ns or 0 for row in rows)
    return Report(by, span, rows, total_ns, holds.estimate_ns, holds.requests)


def rows_of(sums: Iterable[Sum]) -> list[Row]:
    """Add up the ledger's sums to one row for each combination of names and source, sorted."""
    parts: dict[tuple[tuple[str, ...], str], list[Sum]] = {}
    for part in sums:
        shown = tuple(_day(value) if isinstance(value, int) else value for value in part.names)
        parts.setdefault((shown, part.source), []).append(part)
    return [_added(shown, source, parts[shown, source]) for shown, source in sorted(parts)]


def rendered(found: Report, *, form: Form) -> str:
    """Return the report as text, its last line feed included."""
    return _RENDERERS[form](found)


def usd(amount_ns: int) -> str:
    """Return nano-dollars as dollars, exact, without an exponent."""
    whole, part = divmod(amount_ns, _DOLLAR_NS)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")


def plain(figure: Decimal | None) -> str | None:
    """Return a quantity without an exponent and without zeros at its end; None for none."""
    if figure is None:
        return None
    text = format(figure, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _added(shown: tuple[str, ...], source: str, parts: list[Sum]) -> Row:
    costs = [part.cost_ns for part in parts if part.cost_ns is not None]
    known = [part for part in parts if part.units is not None]
    units = {part.unit for part in known}
    with localcontext() as context:
        context.prec = _DIGITS
        total = sum((Decimal(part.units or 0) * part.requests for part in known), Decimal(0))
    return Row(
        shown,
        source,
        requests=sum(part.requests for part in parts),
        unpriced=sum(part.unpriced for part in parts),
        units=total if len(units) <= 1 else None,
        unit=units.pop() if len(units) == 1 else None,
        cost_ns=sum(costs) if costs else None,
    )


def _as_json(found: Report) -> str:
    rows = [dict(zip((*found.by, *_FIGURES), (*row.names, *row.cells()), strict=True)) for row in found.rows]
    content = {
        "since": iso(found.span.since),
        "until": iso(found.span.until),
        "rows": rows,
        "total_usd": usd(found.total_ns),
        "held_usd": usd(found.held_ns),
        "held_requests": found.held_requests,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _as_csv(found: Report) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*found.by, *_FIGURES))
    writer.writerows([_harmless(cell) for cell in (*row.names, *row.cells())] for row in found.rows)
    return text.getvalue()


def _as_table(found: Report) -> str:
    head = (*found.by, "requests", "units", "unit", "usd", "source", "unpriced")
    rows = [tuple("-" if cell is None else str(cell) for cell in (*row.names, *row.cells())) for row in found.rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    numbers = {"requests", "units", "usd", "unpriced"}
    lines = [
        "  ".join(
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(head, row, widths, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
    unpriced = sum(row.unpriced for row in found.rows)
    lines += [
        "",
        f"{iso(found.span.since)} to {iso(found.span.until)}",
        f"spent {usd(found.total_ns)} USD" + (f", and {unpriced} requests of unknown cost" if unpriced else ""),
        f"held {usd(found.held_ns)} USD for {found.held_requests} open requests",
    ]
    return "\n".join(lines) + "\n"


_RENDERERS: Final[Mapping[Form, Callable[[Report], str]]] = MappingProxyType(
    {"table": _as_table, "csv": _as_csv, "json": _as_json}
)


def _harmless(cell: object) -> object:
    """Return a cell that no sheet takes for a formula: an endpoint's name is a caller's to choose."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def _microseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
