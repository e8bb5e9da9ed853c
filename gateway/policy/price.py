"""What a call costs: a price, an estimate before the units are known, and the cost when they are.

The decision: money is exact. Prices are whole picodollars (10^-12 US dollars), because memory that processes share has
no decimals; costs are whole nanodollars, rounded half to even once, when units meet their price. What is not known is
None, never 0.
"""

from __future__ import annotations

from collections import deque
from decimal import ROUND_HALF_EVEN, Context, Decimal
from statistics import median_low
from typing import Final

NANODOLLARS: Final = 10**9
MOST_COST_NS: Final = 10**15
"""A million dollars for one request: a cost above is garbage. The ledger's bound, too (ledger/entry.py)."""

MOST_USD: Final = MOST_COST_NS // NANODOLLARS
LARGEST_PICODOLLARS: Final = MOST_USD * 10**12
"""Of a price: more than this for one unit could never be charged."""

_PICO_PER_NANO: Final = 1000
_ONE: Final = Decimal(1)
_EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
_SEEN_KEPT: Final = 99
_SIGHTINGS: Final = 64
_ENDPOINTS_KEPT: Final = 1024
_COSTS_KEPT: Final = 1024  # most requests use one of a few quantities


class Price:
    """One unit's price in picodollars, what a unit is, and how many are usual (None: not said).

    `usd`: the price in US dollars, exactly. `typical_ns`: what the usual many cost.
    """

    __slots__ = ("_costs", "picodollars", "typical_ns", "typical_units", "unit", "usd")

    def __init__(self, unit: str, picodollars: int, typical_units: Decimal | None = None) -> None:
        self.unit: Final = unit
        self.picodollars: Final = picodollars
        self.typical_units: Final = typical_units
        self.usd: Final = usd_of_picodollars(picodollars)
        self.typical_ns: Final = cost_ns(typical_units, picodollars) if typical_units is not None else None
        self._costs: Final[dict[Decimal, int]] = {}

    def cost_ns(self, units: Decimal) -> int:
        """Return what so many units cost, in nanodollars, rounded half to even."""
        known = self._costs.get(units)
        if known is None:
            if len(self._costs) >= _COSTS_KEPT:
                self._costs.clear()
            known = self._costs[units] = cost_ns(units, self.picodollars)
        return known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Price) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[str, int, Decimal | None]:
        return self.unit, self.picodollars, self.typical_units


def picodollars_of(usd: Decimal) -> int | None:
    """Return a price in US dollars as picodollars, None where it does not come out even, or is beyond all bounds."""
    scaled = _EXACT.scaleb(usd, 12)
    whole = int(scaled)
    return whole if whole == scaled and 0 <= whole <= LARGEST_PICODOLLARS else None


def cost_ns(units: Decimal, picodollars: int) -> int:
    """Return what so many units cost, in nanodollars, rounded half to even."""
    parts, whole = units.as_integer_ratio()
    cost, rest = divmod(parts * picodollars, whole * _PICO_PER_NANO)
    twice = 2 * rest - whole * _PICO_PER_NANO
    return cost + 1 if twice > 0 or (twice == 0 and cost % 2 == 1) else cost


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


class _Sightings:
    """What was seen of one endpoint: the latest quantities, how many there were, and what the usual many cost."""

    __slots__ = ("count", "picodollars", "seen", "usual_ns")

    def __init__(self) -> None:
        self.seen: Final[deque[Decimal]] = deque(maxlen=_SEEN_KEPT)
        self.count = 0
        self.picodollars = -1  # at which price `usual_ns` was reckoned; -1: it has to be reckoned anew
        self.usual_ns = 0


class Estimates:
    """What calls of an endpoint will probably cost: as the policy says, else as most of those lately seen did.

    The middle of what was seen is worked out anew at each 64th sighting: it takes as long as half a request.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, _Sightings] = {}

    def see(self, endpoint: str, units: Decimal) -> None:
        """Take note of the units of a call; the first 1,024 endpoints are remembered."""
        known = self._endpoints.get(endpoint)
        if known is None:
            if len(self._endpoints) >= _ENDPOINTS_KEPT:
                return
            known = self._endpoints[endpoint] = _Sightings()
        known.seen.append(units)
        known.count += 1
        if known.count < _SEEN_KEPT or known.count % _SIGHTINGS == 0:
            known.picodollars = -1

    def estimate_ns(self, endpoint: str, price: Price) -> int:
        """Return the estimate in nanodollars, at most what one request may cost."""
        if price.typical_ns is not None:
            return min(price.typical_ns, MOST_COST_NS)
        known = self._endpoints.get(endpoint)
        if known is None:
            return price.cost_ns(_ONE)
        if known.picodollars != price.picodollars:  # what was usual was seen at another price, perhaps
            usual_ns = min(price.cost_ns(median_low(known.seen)), MOST_COST_NS)
            known.picodollars, known.usual_ns = price.picodollars, usual_ns
        return known.usual_ns
