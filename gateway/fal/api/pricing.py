"""What one unit costs at an endpoint, as fal lists it.

The decision: what cannot be a price in dollars is no price. An endpoint without one is left out, so that it counts as
unpriced, and never as free.
"""

from __future__ import annotations

import re
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog

from gateway.fal.api.client import IDS_MOST, FalApi, FalApiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH: Final = "/v1/models/pricing"
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9._~-]+)*")
_UNIT: Final = re.compile(r"[!-~](?:[ -~]{0,61}[!-~])?")
_LONGEST_ENDPOINT: Final = 200
_HIGHEST_USD: Final = Decimal(1_000_000)
_EXPONENTS: Final = range(-30, 13)
_UNKNOWN: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY})


class Quote(NamedTuple):
    """The price of an endpoint: US dollars for one unit, exactly as listed, before the account's discount."""

    endpoint: str
    unit: str
    usd: Decimal


def is_endpoint(text: str) -> bool:
    """Say whether fal can be asked about it; a comma, for one, would make two of it."""
    return len(text) <= _LONGEST_ENDPOINT and _ENDPOINT.fullmatch(text) is not None


def list_quotes(api: FalApi, endpoints: Sequence[str]) -> dict[str, Quote]:
    """Return the quotes that fal has, by endpoint; what has none is left out. Raises FalApiError."""
    found: dict[str, Quote] = {}
    for at in range(0, len(endpoints), IDS_MOST):
        found |= _quotes_of(api, endpoints[at : at + IDS_MOST])
    return found


def _quotes_of(api: FalApi, endpoints: Sequence[str]) -> dict[str, Quote]:
    """Ask once. Where fal refuses the question for what it asks, halves of it are asked, down to the one unknown id."""
    try:
        listed = list(api.entries(PATH, name="prices", query=[("endpoint_id", name) for name in endpoints]))
    except FalApiError as error:
        if error.status not in _UNKNOWN:
            raise
        if len(endpoints) == 1:
            return {}
        middle = len(endpoints) // 2
        return _quotes_of(api, endpoints[:middle]) | _quotes_of(api, endpoints[middle:])
    quotes = (_quote_or_none(entry) for entry in listed if entry.get("endpoint_id") in endpoints)
    return {quote.endpoint: quote for quote in quotes if quote is not None}


def quote_fault(quote: Quote) -> str | None:
    """Return why a quote is none that could be true; None where nothing is wrong with it."""
    if not is_endpoint(quote.endpoint):
        return "the endpoint is none"
    if not _UNIT.fullmatch(quote.unit):
        return "the unit is no short text"
    return "the price is no amount of dollars" if amount_of(quote.usd, most=_HIGHEST_USD) is None else None


def amount_of(value: object, *, most: Decimal) -> Decimal | None:
    """Return a JSON number from 0 to `most` as a decimal; None for all else, also what is written to absurd length."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or amount.as_tuple().exponent not in _EXPONENTS or not 0 <= amount <= most:
        return None
    return abs(amount)  # a minus before 0 means nothing


def _quote_or_none(entry: Mapping[str, Any]) -> Quote | None:
    usd, unit = amount_of(entry.get("unit_price"), most=_HIGHEST_USD), entry.get("unit")
    no_amount = Decimal("NaN")
    quote = Quote(entry["endpoint_id"], unit if isinstance(unit, str) else "", no_amount if usd is None else usd)
    fault = "the currency is not USD" if entry.get("currency") != "USD" else quote_fault(quote)
    if fault is not None:
        structlog.get_logger().warning("price_unusable", endpoint=quote.endpoint, reason=fault)
    return quote if fault is None else None
