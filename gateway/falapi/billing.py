"""What fal has billed: one event for each request that it executed.

The decision: the cost of an event is the integer of nano-dollars that fal states, which is exact; `cost_total` is the
same amount through a float, and stands in where there is no integer. The question always says from when on: left out,
fal looks at the last 24 hours only, also for requests that are named by their ids.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from gateway.falapi.client import IDS_MOST
from gateway.falapi.pricing import amount_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gateway.falapi.client import FalApi

PATH: Final = "/v1/models/billing-events"
DAYS_BACK: Final = 90
"""How far back fal tells of its bills, and how long a span it takes."""

_PAGE_EVENTS: Final = 1_000
_NANO: Final = Decimal(10) ** 9
_HIGHEST_NS: Final = 10**15  # a million dollars for one request: the ledger's own bound
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


def events_of(api: FalApi, request_ids: Sequence[str], *, now: datetime) -> Iterator[BillingEvent]:
    """Yield what was billed for these requests in the last 90 days. Raises FalApiError."""
    since = [("start", _iso(now - timedelta(days=DAYS_BACK, minutes=-1)))]  # the minute is for a clock that goes after
    for at in range(0, len(request_ids), IDS_MOST):
        asked = request_ids[at : at + IDS_MOST]
        yield from _events(api, [("request_id", request_id) for request_id in asked] + since)


def events_between(api: FalApi, since: datetime, until: datetime) -> Iterator[BillingEvent]:
    """Yield what was billed in [since, until), a span of at most 90 days. Raises FalApiError.

    The end is always told: fal's cursor is the number of a page, and pages of a list that still grows would shift.
    """
    return _events(api, [("start", _iso(since)), ("end", _iso(until))])


def _events(api: FalApi, query: Sequence[tuple[str, str]]) -> Iterator[BillingEvent]:
    listed = api.entries(PATH, name="billing_events", query=[*query, ("limit", str(_PAGE_EVENTS))])
    return _readable(listed)


def _readable(listed: Iterable[Mapping[str, Any]]) -> Iterator[BillingEvent]:
    """Yield the entries that make sense; the others are counted in one event of the log."""
    unreadable = 0
    for entry in listed:
        event = _event_or_none(entry)
        if event is None:
            unreadable += 1
        else:
            yield event
    if unreadable:
        structlog.get_logger().warning("billing_events_unreadable", count=unreadable)


def _event_or_none(entry: Mapping[str, Any]) -> BillingEvent | None:
    request_id, endpoint = entry.get("request_id"), entry.get("endpoint_id")
    at_us, cost_ns = _moment_us(entry.get("timestamp")), _cost_ns(entry)
    if not _is_id(request_id) or not _is_id(endpoint) or at_us is None or cost_ns is None:
        return None
    units, price, discount = (_figure(entry.get(name)) for name in ("output_units", "unit_price", "percent_discount"))
    return BillingEvent(str(request_id), str(endpoint), at_us, units, price, discount, cost_ns)


def _cost_ns(entry: Mapping[str, Any]) -> int | None:
    exact, total = _figure(entry.get("cost_estimate_nano_usd")), _figure(entry.get("cost_total"))
    amount = exact if exact is not None else total * _NANO if total is not None else None
    rounded = None if amount is None else int(amount.to_integral_value(ROUND_HALF_EVEN))
    return rounded if rounded is not None and rounded <= _HIGHEST_NS else None


def _figure(value: object) -> Decimal | None:
    return amount_of(value, most=Decimal(_HIGHEST_NS))


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_ID and value.isprintable()


def _moment_us(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
