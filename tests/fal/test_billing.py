"""fal's bill as the gateway reads it: by span and by id, to the nano-dollar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.fal.api.billing import BillingEvent, events_between, events_of
from tests.fal.stand import ENDPOINT, buy, named, page
from tests.harness.origin import answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.fal.api.client import FalApi
    from tests.harness.emulator import Emulator
    from tests.harness.origin import StartOrigin

DAY = timedelta(days=1)


def line(**changed: object) -> dict[str, Any]:
    """Return an entry of fal's list."""
    usual = {
        "request_id": "r-1",
        "endpoint_id": ENDPOINT,
        "timestamp": "2026-11-01T00:00:00Z",
        "output_units": 2,
        "unit_price": 0.025,
        "percent_discount": None,
        "cost_estimate_nano_usd": 50_000_000,
    }
    return {**usual, **changed}


def test_a_span_is_read_to_its_end(fal: Emulator, open_api: Callable[..., FalApi]) -> None:
    """Page after page, oldest first, with the discount taken off and nothing rounded on the way."""
    fal.settings(percent_discount="12.5", prices={ENDPOINT: {"unit": "megapixels", "usd": "0.0333"}}, page_size=2)
    now = datetime.now(UTC)
    bought = [buy(fal, faults=f"units={number}.1") for number in range(5)]
    found = list(events_between(open_api(fal.port), now - DAY, now + DAY))
    costs = [Decimal(f"{number}.1") * Decimal("0.0333") * Decimal("0.875") * 10**9 for number in range(5)]
    assert [event.request_id for event in found] == bought
    assert [event.cost_ns for event in found] == [int(cost.to_integral_value()) for cost in costs]
    assert (found[0].units, found[0].unit_price, found[0].percent_discount) == tuple(
        map(Decimal, ("0.1", "0.0333", "12.5"))
    )
    assert abs(found[0].at_us / 10**6 - now.timestamp()) < 60
    assert list(events_between(open_api(fal.port), now - DAY, now)) == []


def test_ids_are_asked_for_in_50s(fal: Emulator, open_api: Callable[..., FalApi]) -> None:
    """More ids than fal takes at once are several questions, each of which says that it means the last 90 days."""
    bought = [buy(fal) for _ in range(3)]
    ids = [*bought[:2], *(f"nobody's-{number}" for number in range(60)), bought[2]]
    now = datetime.now(UTC)
    assert [event.request_id for event in events_of(open_api(fal.port), ids, now=now)] == bought
    questions = [parse_qs(urlsplit(request["target"]).query) for request in fal.requests(host="api.fal.ai")]
    assert [len(question["request_id"]) for question in questions] == [50, 13]
    for question in questions:
        since = datetime.fromisoformat(question["start"][0])
        assert timedelta(days=89) < now - since < timedelta(days=90)


@pytest.mark.parametrize(
    ("changed", "cost_ns"),
    [
        ({}, 50_000_000),
        ({"cost_total": 0.1}, 50_000_000),  # the integer is exact, the total went through a float
        ({"cost_estimate_nano_usd": None, "cost_total": 0.1}, 100_000_000),
        ({"cost_estimate_nano_usd": None, "cost_total": 0.30000000000000004}, 300_000_000),
        ({"cost_estimate_nano_usd": None, "cost_total": 2.5e-09}, 2),  # half to even
        ({"cost_estimate_nano_usd": None, "cost_total": 3.5e-09}, 4),
        ({"cost_estimate_nano_usd": 1.5}, 2),
        ({"cost_estimate_nano_usd": 0}, 0),
        ({"output_units": None, "unit_price": None}, 50_000_000),
    ],
)
def test_the_cost_is_the_integer_or_else_the_total(
    changed: dict[str, object], cost_ns: int, start_origin: StartOrigin, open_api: Callable[..., FalApi]
) -> None:
    """In nano-dollars, rounded half to even."""
    origin = start_origin(answering(page("billing_events", [line(**changed)])))
    [event] = events_of(open_api(origin.port), ["r-1"], now=datetime.now(UTC))
    assert event.cost_ns == cost_ns
    assert isinstance(event.cost_ns, int)


def test_a_line_that_makes_no_sense_is_counted_and_left_out(
    start_origin: StartOrigin, open_api: Callable[..., FalApi], events: list[dict[str, Any]]
) -> None:
    """One such line does not hold up the bill."""
    wrong = [
        line(request_id=None),
        line(request_id=""),
        line(request_id="a\x1b[2J"),
        line(endpoint_id=7),
        line(timestamp="yesterday"),
        line(timestamp=1),
        line(cost_estimate_nano_usd=-1),
        line(cost_estimate_nano_usd=-1, cost_total=0.05),
        line(cost_total=-0.05),
        line(cost_estimate_nano_usd=10**30, cost_total=0.05),
        line(output_units=-1),
        line(timestamp="9999-12-31T23:59:59-14:00"),
        line(timestamp="0001-01-01T00:00:00+14:00"),
        line(cost_estimate_nano_usd=None),
        line(cost_estimate_nano_usd=10**30),
        line(cost_estimate_nano_usd=None, cost_total=1e12),
        line(cost_estimate_nano_usd="5"),
        line(cost_estimate_nano_usd=True),
    ]
    origin = start_origin(answering(page("billing_events", [*wrong, line()])))
    [event] = events_of(open_api(origin.port), ["r-1"], now=datetime.now(UTC))
    at_us = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 10**6
    assert event == BillingEvent("r-1", ENDPOINT, at_us, Decimal(2), Decimal("0.025"), None, 50_000_000)
    assert [told["count"] for told in named(events, "billing_events_unreadable")] == [len(wrong)]
