"""Nano-dollars as people and programs read them: exact decimal text. Pure."""

from __future__ import annotations

from typing import Final

_DOLLAR_NS: Final = 10**9


def usd(amount_ns: int) -> str:
    """Return nano-dollars as dollars, exact, without an exponent."""
    whole, part = divmod(abs(amount_ns), _DOLLAR_NS)
    return ("-" if amount_ns < 0 else "") + f"{whole}.{part:09d}".rstrip("0").rstrip(".")
