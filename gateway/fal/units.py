"""What fal says that a request used: the units it bills (`x-fal-billable-units`).

The decision: a quantity has a bound, a billion. What is beyond is no quantity, with a price or without: counters and
sums have 64 bits, and a garbled figure must not stop whoever adds it up.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

_LONGEST: Final = 40
_DECIMAL: Final = re.compile(r"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_LEAST_EXPONENT: Final = -18
MOST_UNITS: Final = 10**9
_TEXTS_KEPT: Final = 1_024


@lru_cache(maxsize=_TEXTS_KEPT)
def units_of(text: str | None) -> Decimal | None:
    """Return the quantity billed, None where there is none or it is no plain decimal from 0 to MOST_UNITS."""
    if text is None or len(text) > _LONGEST or not _DECIMAL.fullmatch(text):  # `Decimal` would take 1_000, too
        return None
    units = Decimal(text)
    return units if units.adjusted() >= _LEAST_EXPONENT and units <= MOST_UNITS else None
