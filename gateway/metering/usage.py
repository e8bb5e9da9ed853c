"""What fal says that a request used: the units it bills (PROTOCOL 4, `x-fal-billable-units`)."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final

_LONGEST: Final = 40
_DECIMAL: Final = re.compile(r"\+?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_MOST_EXPONENT: Final = 18
_TEXTS_KEPT: Final = 1_024


@lru_cache(maxsize=_TEXTS_KEPT)
def units_of(text: str | None) -> Decimal | None:
    """Return the quantity billed, None where there is none or it is no plain, finite, non-negative decimal."""
    if text is None or len(text) > _LONGEST or not _DECIMAL.fullmatch(text):  # `Decimal` would take 1_000, too
        return None
    units = Decimal(text)
    return units if abs(units.adjusted()) <= _MOST_EXPONENT else None
