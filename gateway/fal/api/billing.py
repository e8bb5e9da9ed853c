"""What fal has billed: one event for each request that it executed.

The decision: the cost of an event is the integer of nano-dollars that fal states, which is exact; `cost_total` is the
same amount through a float, and stands in where there is no integer. The question always says from when on: left out,
fal looks at the last 24 hours only, also for requests that are named by their ids.

A line with a figure that is none (negative, absurd, no number) is left out and counted, and whoever compares leaves out
whatever else the bill says of that request: a part of a bill is not a bill.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from gateway.fal.api.client import IDS_MOST
from gateway.fal.api.pricing import amount_of
from gateway.ledger.entry import MOST_NS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gateway.fal.api.client import FalApi

PATH: Final = "/v1/models/billing-events"
DAYS_BACK: Final = 90
"""How far back fal tells of its bills, and how long a span it takes."""

_PAGE_EVENTS: Final = 1_000
_NANO: Final = Decimal(10) ** 9
_LATEST_US: Final = 2**53
_LONGEST_ID: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class BillingEvent(NamedTuple):
    """One line of the bill. `at_us` is in microseconds since the epoch, UTC.

    `cost_ns` is what fal charges, in nano-dollars, the account's discount taken off. `units`, `unit_price` (US dollars)
    and `percent_discount` are as fal states them, None where it does not.
    """

    request_id: str
    endpoint: str
    at_us: int
    units: Decimal | None
    unit_price: Decimal | None
    percent_discount: Decimal | None
    cost_ns: int


class Unreadable:
    """Invalid lines of a bill: how many, and which requests they are of, as far as that can be read."""

    def __init__(self) -> None:
        self.count = 0
        self.request_ids: set[str] = set()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Count a line."""
        self.count += 1
        if _is_id(entry.get("request_id")):
            self.request_ids.add(str(entry["request_id"]))


def events_of(
    api: FalApi, request_ids: Sequence[str], *, now: datetime, unreadable: Unreadable | None = None
) -> Iterator[BillingEvent]:
    """Yield what was billed for these requests in the last 90 days; count invalid lines. Raises FalApiError."""
    since = [("start", _iso(now - timedelta(days=DAYS_BACK, minutes=-1)))]  # the minute is for a clock that goes after
    for at in range(0, len(request_ids), IDS_MOST):
        asked = request_ids[at : at + IDS_MOST]
        yield from _events(api, [("request_id", request_id) for request_id in asked] + since, unreadable)


def events_between(
    api: FalApi, since: datetime, until: datetime, *, unreadable: Unreadable | None = None
) -> Iterator[BillingEvent]:
    """Yield what was billed in [since, until), a span of at most 90 days; count invalid lines.

    Raises FalApiError. The end is always given: fal's cursor is the number of a page, and pages of a list that still
    grows would shift.
    """
    return _events(api, [("start", _iso(since)), ("end", _iso(until))], unreadable)


def _events(api: FalApi, query: Sequence[tuple[str, str]], unreadable: Unreadable | None) -> Iterator[BillingEvent]:
    listed = api.entries(PATH, name="billing_events", query=[*query, ("limit", str(_PAGE_EVENTS))])
    return _readable(listed, unreadable or Unreadable())


def _readable(listed: Iterable[Mapping[str, Any]], unreadable: Unreadable) -> Iterator[BillingEvent]:
    """Yield the entries that make sense; the others are counted, also in one event of the log."""
    before = unreadable.count
    for entry in listed:
        event = _event_or_none(entry)
        if event is None:
            unreadable.add(entry)
        else:
            yield event
    if unreadable.count > before:
        structlog.get_logger().warning("billing_events_unreadable", count=unreadable.count - before)


def _event_or_none(entry: Mapping[str, Any]) -> BillingEvent | None:
    request_id, endpoint = entry.get("request_id"), entry.get("endpoint_id")
    at_us, cost_ns = _moment_us(entry.get("timestamp")), _cost_ns(entry)
    if not _is_id(request_id) or not _is_id(endpoint) or at_us is None or cost_ns is None:
        return None
    units, price, discount = (_figure(entry.get(name)) for name in ("output_units", "unit_price", "percent_discount"))
    if (units is None) != (entry.get("output_units") is None):
        return None
    return BillingEvent(str(request_id), str(endpoint), at_us, units, price, discount, cost_ns)


def _cost_ns(entry: Mapping[str, Any]) -> int | None:
    stated = [entry.get(name) for name in ("cost_estimate_nano_usd", "cost_total")]
    exact, total = (_figure(value) for value in stated)
    if any(value is not None and figure is None for value, figure in zip(stated, (exact, total), strict=True)):
        return None
    amount = exact if exact is not None else total * _NANO if total is not None else None
    rounded = None if amount is None else int(amount.to_integral_value(ROUND_HALF_EVEN))
    return rounded if rounded is not None and rounded <= MOST_NS else None


def _figure(value: object) -> Decimal | None:
    return amount_of(value, most=Decimal(MOST_NS))


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isprintable()


def _moment_us(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    at_us = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
    return at_us if 0 <= at_us <= _LATEST_US else None


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
