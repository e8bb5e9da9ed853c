"""Prices that fal told, on their way from the ledger process to the workers.

The decision: they are published like the policy (platform/published.py), as JSON with decimals as text. What the policy
itself prices stands above what fal says: an operator who writes a price means it.
"""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING

import orjson

from gateway.policy.price import Price, picodollars_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.fal.api.pricing import Quote


def content_of(quotes: Mapping[str, Quote]) -> bytes:
    """Return quotes as `with_quotes` reads them."""
    return orjson.dumps({endpoint: (quote.unit, str(quote.usd)) for endpoint, quote in quotes.items()})


def with_quotes(own: Mapping[str, Price], content: bytes) -> Mapping[str, Price]:
    """Return the policy's prices, and fal's for all other endpoints; one that memory cannot hold is left out."""
    prices = {}
    for endpoint, (unit, usd) in orjson.loads(content).items():
        picodollars = picodollars_of(Decimal(usd))
        if picodollars is not None:
            prices[endpoint] = Price(unit, picodollars)
    return MappingProxyType({**prices, **own})
