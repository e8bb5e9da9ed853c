"""What counts as a quantity that fal bills."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import pytest

from gateway.fal.units import units_of

GOOD: Final = ("0", "1", "1.5", "+2", ".5", "3.", "1e3", "2.5E-4", "1000000000", "0.000000001")
WORDS: Final = ("", " ", "NaN", "sNaN", "Infinity", "2;x", ".", "1e")
BEYOND: Final = ("-1", "1000000000.1", "123456789012345678", "1e99", "1e-99", "9" * 41, "1e9999999999")
ODD: Final = ("1_000", "1 ", "\uff11", "0x10", "1,5")


@pytest.mark.parametrize("text", GOOD)
def test_plain_decimals_are_quantities(text: str) -> None:
    """Exactly as they are told."""
    assert units_of(text) == Decimal(text)


@pytest.mark.parametrize("text", [None, *WORDS, *BEYOND, *ODD], ids=ascii)
def test_anything_else_is_none(text: str | None) -> None:
    """Rather unknown than wrong."""
    assert units_of(text) is None
