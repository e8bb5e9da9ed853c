"""What an execution costs, to the nano-dollar. Pure.

Decision: exact decimals inside; the JSON numbers that fal's page shows are made at the very end, and the integer of
nano-dollars beside them is the one to compare with.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Final

from gateway.emulator.behaviour import Behaviour, Price

if TYPE_CHECKING:
    from gateway.emulator.ledger import Visit

NANO: Final = Decimal(10) ** 9
FREE: Final = Price("requests", "0")


def billing_event(visit: Visit, behaviour: Behaviour) -> dict[str, object]:
    """Return the billing event of an execution, by the prices and the discount in force."""
    units, price = Decimal(visit.units), Decimal(behaviour.prices.get(visit.endpoint, FREE).usd)
    subtotal = units * price
    discount = subtotal * Decimal(behaviour.percent_discount) / 100
    total = subtotal - discount
    return {
        "request_id": visit.request_id,
        "endpoint_id": visit.endpoint,
        "timestamp": datetime.fromtimestamp(visit.whole_at or visit.started_at, UTC).isoformat(),
        "output_units": float(units),
        "unit_price": float(price),
        "percent_discount": float(behaviour.percent_discount),
        "cost_subtotal": float(subtotal),
        "cost_discount": float(discount),
        "cost_total": float(total),
        "cost_estimate_nano_usd": int((total * NANO).to_integral_value(ROUND_HALF_EVEN)),
    }


def listed_price(endpoint: str, price: Price) -> dict[str, object]:
    """Return one entry of the price list."""
    return {"endpoint_id": endpoint, "unit_price": float(price.usd), "unit": price.unit, "currency": "USD"}
