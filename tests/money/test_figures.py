"""Figures that do not fit: whatever fal says of units, one request is charged its estimate and all others go on.

The decision it carries: every figure goes through the real gateway, two workers before an emulator that says it, and
the same gateway serves all tests of the module, so that a worker that stops at one figure fails those behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.waiting import until
from tests.money.market import DOLLAR, FLUX, UNPRICED, Market, bill_of, budget, buyer, market_policy, request_id_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.emulator import Emulator

BOUND: Final = buyer("bound", budget("1000000"))
FREE: Final = buyer("free")
OTHER: Final = buyer("other", budget("10"))
ESTIMATE_NS: Final = 25_000_000
UNITS: Final = "x-fal-billable-units"
BEYOND: Final = (
    "field=x-fal-billable-units:1e9,field=x-other:1",  # 25 million dollars
    "field=x-fal-billable-units:999999999999",
    "field=x-fal-billable-units:1e13",
    "field=x-fal-billable-units:9223372036854775807",
    "field=x-fal-billable-units:9999999999999999999999999999999999999999",
    "field=x-fal-billable-units:1e999",
    "field=x-fal-billable-units:-1",
    "field=x-fal-billable-units:NaN",
    "field=x-fal-billable-units:Infinity",
    "field=x-fal-billable-units:many",
    "field=x-fal-billable-units:",
    "field=x-fal-billable-units:1,field=x-fal-billable-units:2",
    "field=x-fal-billable-units:1,field=x-fal-billable-units:1",
    "field=x-fal-billable-units:1,field=X-Fal-Billable-Units:1",
)


@pytest.fixture(scope="module")
def market(open_market: Callable[..., Market], fal: Emulator) -> Market:
    """Return the module's market: two workers before the emulator."""
    return open_market(fal, market_policy((BOUND, FREE, OTHER), unpriced_endpoints="allow"), workers=2)


@pytest.fixture(autouse=True)
def _others_go_on(market: Market) -> object:
    """After each figure: another caller is told its exact cost, no worker has died, and `/metrics` answers."""
    yield
    for _ in range(4):  # both workers
        response = market.ask(OTHER, emulate="units=1")
        assert (response.status, response.field("x-gateway-cost-usd")) == (200, "0.025")
    metrics = market.gateway.metrics()
    assert not any(metrics.table("process_restarts_total", "process").values())
    assert metrics.value("ledger_up") == 1
    assert not market.gateway.events("library_message")


@pytest.mark.parametrize(("emulate", "status"), [*((emulate, 200) for emulate in BEYOND), (BEYOND[2], 422)])
def test_units_that_make_no_sense_are_charged_at_the_estimate(market: Market, emulate: str, status: int) -> None:
    """The row is `unknown` at its estimate, the budget counts that, and the caller gets its answer, without a cost."""
    response = market.ask(BOUND, emulate=",".join(["units=none", *[f"status={status}"] * (status != 200), emulate]))
    assert response.status == status
    assert response.field("x-gateway-cost-usd") is None
    entry = market.entry(response)
    assert (entry.status, entry.cost_ns, entry.source, entry.units) == ("unknown", ESTIMATE_NS, "unknown", None)
    event = market.event(response)
    assert (event["cost_usd"], event["cost_source"]) == ("0.025", "unknown")


@pytest.mark.parametrize("emulate", BEYOND)
def test_units_without_a_price_are_bounded_too(market: Market, emulate: str) -> None:
    """What cannot be priced is no quantity either: it is not counted, and its cost is not known."""
    response = market.ask(FREE, UNPRICED, emulate=f"units=none,{emulate}")
    entry = market.entry(response)
    if "1e9," in emulate:  # a quantity that could be priced
        assert (entry.status, entry.cost_ns, entry.units) == ("settled", None, "1E+9")
    else:
        assert (entry.status, entry.cost_ns, entry.source, entry.units) == ("unknown", None, "unknown", None)


@pytest.mark.parametrize("emulate", [BEYOND[0], BEYOND[2], BEYOND[-1]])
def test_a_job_whose_units_make_no_sense_is_charged_its_estimate(market: Market, emulate: str) -> None:
    """Once, by the first result that has the field; nothing stays held."""
    submitted = market.submit(BOUND, emulate=f"queued=0,running=0,on=result,units=none,{emulate}")
    job = request_id_of(submitted)
    answer = until(lambda: found if (found := market.job(BOUND, job)).status == 200 else None, "the result")
    assert answer.field("x-gateway-cost-usd") is None
    entry = market.entry(submitted, "unknown", "settled")
    assert (entry.status, entry.cost_ns, entry.source) == ("unknown", ESTIMATE_NS, "unknown")
    market.job(BOUND, job)
    assert market.entry(submitted, "unknown", "settled") == entry


def test_a_cost_up_to_a_million_dollars_is_a_cost(market: Market) -> None:
    """The bound itself is no garbage: 40,000,000 units at 0.025 USD."""
    response = market.ask(FREE, emulate="units=40000000")
    assert response.field("x-gateway-cost-usd") == "1000000"
    assert market.entry(response).cost_ns == 10**15
    above = market.ask(FREE, emulate="units=40000000.0000001")
    assert (market.entry(above).status, market.entry(above).cost_ns) == ("unknown", ESTIMATE_NS)


def test_a_flood_of_them_is_a_few_lines_of_the_log(market: Market) -> None:
    """`units_unreadable` says how many there were since the last one, and names one of them."""
    before = len(market.gateway.events("units_unreadable"))
    for _ in range(40):
        market.ask(FREE, emulate="units=1e13")
    events = market.gateway.events("units_unreadable")
    assert events, "the ones before were told"
    assert len(events) - before <= 4
    assert {"endpoint", "request_id", "count"} <= set(events[-1])
    assert events[-1]["endpoint"] in (FLUX, UNPRICED)


def test_a_lost_answer_gets_its_bill(market: Market, fal: Emulator) -> None:
    """It was executed, and the answer lost: unknown at its estimate, until `reconcile` finds the bill that is its."""
    lost = market.ask(FREE, DOLLAR, emulate="close=whole,units=3")
    assert lost.status == 500
    entry = market.entry(lost)
    assert (entry.status, entry.cost_ns, entry.fal_request_id) == ("unknown", 10**9, None)
    known = {row.fal_request_id for row in market.books.entries()}
    [billed] = [name for name in bill_of(fal) if name not in known]
    told = market.command("reconcile", "--format", "json", FAL_ADMIN_KEY="any:admin")
    [matched] = told["matched"]
    assert (matched["id"], matched["fal_request_id"], matched["true_cost_usd"]) == (entry.id, billed, "3")
    row = market.books.entry(entry.id)
    assert (row.status, row.source, row.cost_ns, row.fal_request_id) == ("reconciled", "reconciled", 3 * 10**9, billed)
    again = market.command("reconcile", "--format", "json", FAL_ADMIN_KEY="any:admin")
    assert (again["matched"], again["corrected"], again["only_fal"]) == ([], [], [])
