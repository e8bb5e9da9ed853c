"""Money is exact: prices in whole picodollars, costs in whole nanodollars, rounded once."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.entry import MOST_NS
from gateway.policy.price import (
    LARGEST_PICODOLLARS,
    MOST_COST_NS,
    Estimates,
    Price,
    cost_ns,
    picodollars_of,
    usd_of_picodollars,
    usd_text,
)

UNITS = st.decimals(min_value=0, max_value=10**9, places=9, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("units", "usd", "nanodollars"),
    [
        ("1", "0.025", 25_000_000),
        ("2.5", "0.025", 62_500_000),
        ("0", "5", 0),
        ("0.5", "0.000000001", 0),  # half a nanodollar goes to the even neighbour
        ("1.5", "0.000000001", 2),
        ("2.5", "0.000000001", 2),
        ("1000", "0.000000000001", 1),
        ("123456789.123456789", "999", 123_333_332_334_333_332_211),
    ],
)
def test_a_cost_is_units_times_price_rounded_half_to_even(units: str, usd: str, nanodollars: int) -> None:
    """It is rounded half-even to the nano-dollar, once."""
    price = picodollars_of(Decimal(usd))
    assert price is not None
    assert cost_ns(Decimal(units), price) == nanodollars


@given(UNITS, st.integers(min_value=0, max_value=10**15))
def test_no_digit_is_lost_before_the_rounding(units: Decimal, picodollars: int) -> None:
    """Whatever units and price: the cost is their exact product, rounded once."""
    assert cost_ns(units, picodollars) == round(Fraction(units) * picodollars / 1000)  # round() is half to even


@given(st.integers(min_value=0, max_value=LARGEST_PICODOLLARS))
def test_a_price_comes_back_from_its_text(picodollars: int) -> None:
    """What stands in the ledger is the price that was charged."""
    assert picodollars_of(Decimal(usd_of_picodollars(picodollars))) == picodollars


@given(st.integers(min_value=-(10**20), max_value=10**20))
def test_an_amount_comes_back_from_its_text(nanodollars: int) -> None:
    """Texts of money are exact, without an exponent, and without zeros that say nothing."""
    text = usd_text(nanodollars)
    assert Decimal(text).scaleb(9).quantize(Decimal(1), ROUND_HALF_EVEN) == nanodollars
    assert "E" not in text
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize("usd", ["0.0000000000001", "-1", "1000000.000001", "1e30"])
def test_a_price_that_memory_cannot_hold_is_none(usd: str) -> None:
    """Finer than picodollars, negative, or beyond what one request may cost."""
    assert picodollars_of(Decimal(usd)) is None


def test_one_request_may_cost_as_much_everywhere() -> None:
    """The accounting's bound and the ledger's are one figure."""
    assert MOST_COST_NS == MOST_NS


@given(UNITS, st.integers(min_value=1, max_value=LARGEST_PICODOLLARS), st.integers(1, LARGEST_PICODOLLARS))
def test_an_estimate_never_passes_the_bound(units: Decimal, seen_at: int, now_at: int) -> None:
    """Quantities that were usual at a low price may be absurd at the next one, and shared memory holds the estimate."""
    estimates = Estimates()
    estimates.see("a/b", units)
    assert 0 <= estimates.estimate_ns("a/b", Price("image", seen_at)) <= MOST_COST_NS
    assert 0 <= estimates.estimate_ns("a/b", Price("image", now_at)) <= MOST_COST_NS
    assert estimates.estimate_ns("a/b", Price("image", now_at, units)) <= MOST_COST_NS


def test_an_estimate_is_what_the_policy_says() -> None:
    """`typical_units` stand above what was seen."""
    estimates = Estimates()
    estimates.see("a/b", Decimal(9))
    assert estimates.estimate_ns("a/b", Price("image", 10**12, Decimal(2))) == 2 * 10**9


def test_an_estimate_is_the_median_of_what_was_seen() -> None:
    """Without `typical_units`: one unit first, then the middle of the last 99, which an outlier does not move."""
    estimates, price = Estimates(), Price("image", 10**12)
    assert estimates.estimate_ns("a/b", price) == 10**9
    for units in ("3", "4", "1000"):
        estimates.see("a/b", Decimal(units))
    assert estimates.estimate_ns("a/b", price) == 4 * 10**9
    for _ in range(99):
        estimates.see("a/b", Decimal("0.5"))
    assert estimates.estimate_ns("a/b", price) == 5 * 10**8
    assert estimates.estimate_ns("c/d", price) == 10**9
