"""What fal says that a request used: the units it bills (PROTOCOL 4, `x-fal-billable-units`)."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Final

_LONGEST: Final = 40
_MOST_EXPONENT: Final = 18
_TEXTS_KEPT: Final = 1_024


@lru_cache(maxsize=_TEXTS_KEPT)
def units_of(text: str | None) -> Decimal | None:
    """Return the quantity billed, None where there is none or it is no plain, finite, non-negative decimal."""
    if text is None or not 0 < len(text) <= _LONGEST:
        return None
    try:
        units = Decimal(text)
    except InvalidOperation:
        return None
    return units if units.is_finite() and units >= 0 and abs(units.adjusted()) <= _MOST_EXPONENT else None
