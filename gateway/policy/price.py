"""What a call costs: a price, an estimate before the units are known, and the cost when they are.

The decision: money is exact. Prices are whole picodollars (10^-12 US dollars), because memory that processes share has
no decimals; costs are whole nanodollars, rounded half to even once, when units meet their price. What is not known is
None, never 0.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from statistics import median_low
from typing import Final

NANODOLLARS: Final = 10**9
LARGEST_PICODOLLARS: Final = 2**62
_PICO_PER_NANO: Final = Decimal(1000)
_ONE: Final = Decimal(1)
_EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
_SEEN_KEPT: Final = 99
_ENDPOINTS_KEPT: Final = 1024


@dataclass(frozen=True, slots=True)
class Price:
    """One unit's price in picodollars, what a unit is, and how many are usual (None: not said)."""

    unit: str
    picodollars: int
    typical_units: Decimal | None = None

    @property
    def usd(self) -> str:
        """The price in US dollars, exactly."""
        return usd_of_picodollars(self.picodollars)


def picodollars_of(usd: Decimal) -> int | None:
    """Return a price in US dollars as picodollars, None where it does not come out even, or is beyond all bounds."""
    scaled = _EXACT.scaleb(usd, 12)
    whole = int(scaled)
    return whole if whole == scaled and 0 <= whole <= LARGEST_PICODOLLARS else None


def cost_ns(units: Decimal, picodollars: int) -> int:
    """Return what so many units cost, in nanodollars, rounded half to even."""
    cost = _EXACT.divide(_EXACT.multiply(units, Decimal(picodollars)), _PICO_PER_NANO)
    return int(_EXACT.quantize(cost, _ONE))


def usd_text(nanodollars: int) -> str:
    """Return nanodollars as US dollars, exactly and without an exponent: `0.025`, `-1`, `12.000000001`."""
    return _decimal_text(nanodollars, places=9)


def usd_of_picodollars(picodollars: int) -> str:
    """Return picodollars as US dollars, exactly and without an exponent."""
    return _decimal_text(picodollars, places=12)


def _decimal_text(number: int, *, places: int) -> str:
    whole, rest = divmod(abs(number), 10**places)
    digits = str(rest).zfill(places).rstrip("0")
    sign = "-" if number < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"


class Estimates:
    """What calls of an endpoint will probably cost: as the policy says, else as most of those lately seen did."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[Decimal]] = {}
        self._typical: dict[str, Decimal] = {}

    def see(self, endpoint: str, units: Decimal) -> None:
        """Take note of the units of a call; the first 1,024 endpoints are remembered."""
        seen = self._seen.get(endpoint)
        if seen is None:
            if len(self._seen) >= _ENDPOINTS_KEPT:
                return
            seen = self._seen[endpoint] = deque(maxlen=_SEEN_KEPT)
        seen.append(units)
        self._typical.pop(endpoint, None)

    def estimate_ns(self, endpoint: str, price: Price) -> int:
        """Return the estimate in nanodollars."""
        return cost_ns(price.typical_units or self._usual(endpoint), price.picodollars)

    def _usual(self, endpoint: str) -> Decimal:
        typical = self._typical.get(endpoint)
        if typical is None:
            seen = self._seen.get(endpoint)
            typical = self._typical[endpoint] = median_low(seen) if seen else _ONE
            if len(self._typical) > _ENDPOINTS_KEPT:
                self._typical.clear()
        return typical
