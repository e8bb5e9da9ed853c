"""What fal's bill says about the ledger's rows. Pure.

The decision: a row is found by fal's request id. Only a row whose answer was lost has none; it is matched with a bill
that no row has (matching.py). What fal billed is true, whatever the row said: also a hold, and also a row that was
released. What fal did not bill stays as it is and is listed, because a bill comes later, and some of it never.

fal's pages speak of one event for a request. Where there are several, they are lines of one bill and are added up; but
the very same line, seen twice while the bill was read in pages, counts once. So nothing depends on the order in which
events come, and a second reconciliation changes nothing. A request is left out, row and bill, if a line of it makes no
sense, or its lines come to more than one request may cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.ledger.entry import CHARGED, MOST_NS, RECONCILED, RELEASED, Entry
from gateway.money.reconcile.matching import OWN_CREDENTIAL, UnmatchedBill, match

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    from gateway.fal.api.billing import BillingEvent, Unreadable

_LONGEST_FIGURE: Final = 40


class Correction(NamedTuple):
    """A row as it was, and as fal's bill has it."""

    old: Entry
    new: Entry


class Lost(NamedTuple):
    """Rows without fal's request id, lost ones and those under way; and which credential each team uses, by name.

    A team that is not in `credentials` is not matched. None: not known; a team is then taken to use the gateway's own,
    unless it has other purchases and none of them is on the bill.
    """

    rows: Sequence[Entry]
    credentials: Mapping[str, str] | None


_NONE_LOST: Final = Lost((), None)


class Amendment(NamedTuple):
    """A row that was reconciled before, and what fal's bill says of it now; the ledger keeps what it has."""

    row: Entry
    cost_ns: int


class Drift(NamedTuple):
    """How far the ledger was from the bill, over the rows that were corrected.

    `ours_ns` is what they were charged, a hold or a released row nothing; `true_ns` is what fal billed. `unknown`
    counts those of unknown cost: they are in `true_ns`, and nothing stands for them in `ours_ns`.
    """

    rows: int = 0
    unknown: int = 0
    ours_ns: int = 0
    true_ns: int = 0

    @property
    def drift_ns(self) -> int:
        """What fal billed beyond what was charged; negative where it billed less."""
        return self.true_ns - self.ours_ns

    @property
    def ratio(self) -> float | None:
        """The drift as a part of what was charged, for people to read; None where nothing was."""
        return self.drift_ns / self.ours_ns if self.ours_ns else None


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a bill changes, and what it leaves open; `drift` is by endpoint as the ledger has it.

    `matches` are corrections of rows that had no request id; `unreadable` counts lines that were left out.
    """

    corrections: tuple[Correction, ...]
    matches: tuple[Correction, ...]
    unbilled: tuple[Entry, ...]
    unknown_events: tuple[BillingEvent, ...]
    amendments: tuple[Amendment, ...]
    agreeing: int
    unreadable: int
    drift: Mapping[str, Drift]
    total: Drift


class _Bill(NamedTuple):
    """All that fal billed for one request."""

    cost_ns: int
    units: Decimal | None
    unit_price: Decimal | None


def reconcile(  # noqa: PLR0913 (what there is to compare, by name)
    rows: Iterable[Entry],
    events: Iterable[BillingEvent],
    *,
    now_us: int,
    lag_us: int,
    lost: Lost = _NONE_LOST,
    unreadable: Unreadable | None = None,
) -> Reconciliation:
    """Compare rows with the events about them.

    `now_us` becomes the moment of the changes, microseconds since the epoch. A row without an event is listed only once
    it is older than `lag_us`, by which time fal has billed what it bills. Of rows with the same request id of fal's,
    which there should not be, the first admitted gets the bill.
    """
    stated = sorted(set(events), key=_place)
    absurd = {request_id for request_id, bill in _bills(stated).items() if bill.cost_ns > MOST_NS}
    left_out = absurd | (unreadable.request_ids if unreadable is not None else set())
    lines = [line for line in stated if line.request_id not in left_out]
    bills = _bills(lines)
    known = sorted(
        {row.id: row for row in rows if row.fal_request_id not in left_out}.values(),
        key=lambda row: (row.admitted_at_us, row.id),
    )
    payers = _payers(known)
    named = [(row, bills[row.fal_request_id]) for row in payers.values() if row.fal_request_id in bills]
    corrections = tuple(Correction(row, _corrected(row, bill, now_us)) for row, bill in named if _is_open(row))
    amendments = tuple(
        Amendment(row, bill.cost_ns) for row, bill in named if not _is_open(row) and row.cost_ns != bill.cost_ns
    )
    billed = {row.id for row, _ in named}
    unknown = [line for line in lines if line.request_id not in payers]
    on_bill = {row.team for row, _ in named}
    credentials = lost.credentials if lost.credentials is not None else _guessed(lost.rows, payers.values(), on_bill)
    matches = _matches(Lost(lost.rows, credentials), unknown, bills, on_bill=on_bill, now_us=now_us)
    claimed = {correction.new.fal_request_id for correction in matches}
    drift = _drift((*corrections, *matches))
    return Reconciliation(
        corrections=corrections,
        matches=matches,
        unbilled=tuple(row for row in known if row.id not in billed and _is_late(row, now_us - lag_us)),
        unknown_events=tuple(line for line in unknown if line.request_id not in claimed),
        amendments=amendments,
        agreeing=len(named) - len(corrections) - len(amendments),
        unreadable=(unreadable.count if unreadable is not None else 0)
        + sum(line.request_id in absurd for line in stated),
        drift=MappingProxyType(drift),
        total=_added(drift.values()),
    )


def _guessed(lost: Iterable[Entry], named: Iterable[Entry], on_bill: set[str]) -> dict[str, str]:
    """Return the credentials of lost rows' teams where no policy tells: another's account bills nothing here."""
    elsewhere = {row.team for row in named} - on_bill
    return {row.team: f"of {row.team}" if row.team in elsewhere else OWN_CREDENTIAL for row in lost}


def _matches(
    lost: Lost, unknown: Sequence[BillingEvent], bills: Mapping[str, _Bill], *, on_bill: set[str], now_us: int
) -> tuple[Correction, ...]:
    """Return the lost rows with the bills that are theirs; `on_bill`: teams of which a row was found by its id."""
    credentials = lost.credentials or {}
    firsts = {line.request_id: line for line in reversed(unknown)}
    unmatched = [UnmatchedBill(line.at_us, name, line.endpoint, bills[name].cost_ns) for name, line in firsts.items()]
    proven = frozenset(credentials[team] for team in on_bill if team in credentials)
    pairs = match(lost.rows, unmatched, credentials=credentials, proven=proven, now_us=now_us)
    return tuple(
        Correction(row, _corrected(row, bills[name], now_us)._replace(fal_request_id=name)) for row, name in pairs
    )


def _place(event: BillingEvent) -> tuple[int, str, int, str, str]:
    """Return where a line stands in the bill: the oldest first, and never by how it happened to come."""
    return event.at_us, event.request_id, event.cost_ns, str(event.units), str(event.unit_price)


def _payers(rows: Sequence[Entry]) -> dict[str, Entry]:
    """Return the row that pays for each of fal's request ids."""
    payers: dict[str, Entry] = {}
    for row in rows:
        if row.fal_request_id is not None:
            payers.setdefault(row.fal_request_id, row)
    return payers


def _bills(lines: Sequence[BillingEvent]) -> dict[str, _Bill]:
    """Add up the lines of each request; they come oldest first, and the newest price stands."""
    bills: dict[str, _Bill] = {}
    for line in lines:
        before = bills.get(line.request_id, _Bill(0, None, None))
        units = before.units if line.units is None else line.units + (before.units or 0)
        price = before.unit_price if line.unit_price is None else line.unit_price
        bills[line.request_id] = _Bill(before.cost_ns + line.cost_ns, units, price)
    return bills


def _corrected(row: Entry, bill: _Bill, now_us: int) -> Entry:
    return row._replace(
        status=RECONCILED,
        source="reconciled",
        cost_ns=bill.cost_ns,
        units=row.units if bill.units is None else _plain(bill.units),
        unit_price=row.unit_price if bill.unit_price is None else _plain(bill.unit_price),
        changed_at_us=max(now_us, row.changed_at_us),
    )


def _plain(figure: Decimal) -> str:
    """Return a figure without an exponent, unless it would be longer than the ledger takes."""
    text = format(figure, "f")
    return text if len(text) <= _LONGEST_FIGURE else str(figure)


def _is_open(row: Entry) -> bool:
    """Say whether a row may still be corrected: what is reconciled stays, as the ledger's rows only climb."""
    return row.status != RECONCILED


def _is_late(row: Entry, before_us: int) -> bool:
    """Say whether a row's bill should be there by now; nobody waits for one of what was released."""
    return row.status not in (RELEASED, RECONCILED) and row.admitted_at_us < before_us


def _drift(corrections: Sequence[Correction]) -> dict[str, Drift]:
    drift: dict[str, Drift] = {}
    for old, new in corrections:
        charged = old.status in CHARGED
        one = Drift(
            rows=1,
            unknown=int(charged and old.cost_ns is None),
            ours_ns=(old.cost_ns or 0) if charged else 0,
            true_ns=new.cost_ns or 0,
        )
        drift[old.endpoint] = _added([drift.get(old.endpoint, Drift()), one])
    return dict(sorted(drift.items()))


def _added(parts: Iterable[Drift]) -> Drift:
    columns = zip(*parts, strict=True)
    return Drift(*(sum(column) for column in columns))
