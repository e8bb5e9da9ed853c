"""Rules of the settings, and of the bills that follow from them."""

from __future__ import annotations

import pytest

from gateway.emulator.behaviour import Behaviour, Price, changed
from gateway.emulator.billing import billing_event
from gateway.emulator.ledger import Visit


def visit(units: str) -> Visit:
    """Return an execution of so many units."""
    return Visit("id-1", "run", "POST", "fal.run", "/a/b", "", 1.0, endpoint="a/b", units=units)


def test_settings_change_by_name() -> None:
    """Only the names given change."""
    behaviour, errors = changed(Behaviour(), {"queued_ms": 5, "prices": {"a/b": {"unit": "images", "usd": "0.1"}}})
    assert not errors
    assert (behaviour.queued_ms, behaviour.running_ms) == (5, Behaviour().running_ms)
    assert behaviour.prices == {"a/b": Price("images", "0.1")}


@pytest.mark.parametrize(
    "wanted",
    [
        {"nonsense": 1},
        {"queued_ms": -1},
        {"queued_ms": True},
        {"locked": "yes"},
        {"units": "many"},
        {"percent_discount": 101},
        {"prices": {"a/b": {"usd": "1"}}},
        {"faults": {"example.com": "status=500"}},
        {"faults": {"fal.run": "nonsense"}},
        {"admin_key": 5},
        [],
    ],
)
def test_impossible_settings_change_nothing(wanted: object) -> None:
    """One wrong setting, and all stay as they were, with a reason."""
    before = Behaviour()
    after, errors = changed(before, wanted)
    assert after is before
    assert len(errors) == 1


def test_every_error_is_told_at_once() -> None:
    """Whoever sets several things wrongly reads of all of them."""
    assert len(changed(Behaviour(), {"nonsense": 1, "run_ms": "x", "events": 3})[1]) == 2


def test_a_bill_is_exact() -> None:
    """Cost is units times price less the discount, rounded half-even to the nano-dollar and never by floats."""
    behaviour, _ = changed(
        Behaviour(), {"prices": {"a/b": {"unit": "images", "usd": "0.0000000105"}}, "percent_discount": "10"}
    )
    assert billing_event(visit("100"), behaviour)["cost_estimate_nano_usd"] == 945
    free, _ = changed(behaviour, {"percent_discount": "0"})
    assert billing_event(visit("1"), free)["cost_estimate_nano_usd"] == 10  # 10.5 goes to the even neighbour


def test_an_endpoint_without_a_price_costs_nothing() -> None:
    """A bill of an endpoint without a price shows its units at 0 dollars."""
    event = billing_event(visit("2.5"), Behaviour())
    assert (event["output_units"], event["cost_total"]) == (2.5, 0)
