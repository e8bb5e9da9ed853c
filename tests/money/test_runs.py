"""What a run costs: told to the caller, logged, counted, and written down once."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import proxy_request
from tests.money.market import FLUX, NANO, NS, PRICES, UNPRICED, Market, budget, buyer, market_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.emulator import Emulator

PLAIN: Final = buyer("plain")
WEALTHY: Final = buyer("wealthy", budget("1000"), budget("100", "day"))
ROUNDED: Final = buyer("rounded", budget("1"))
FAILING: Final = buyer("failing", budget("1000"))
STREAMING: Final = buyer("streaming", budget("1000"))
CAREFUL: Final = buyer("careful", budget("1000"))
FREE: Final = buyer("free")
KEYS: Final = (PLAIN, WEALTHY, ROUNDED, FAILING, STREAMING, CAREFUL, FREE)


@pytest.fixture(scope="module")
def market(open_market: Callable[..., Market], fal: Emulator) -> Market:
    """Return the module's market: two workers before the emulator."""
    return open_market(fal, market_policy(KEYS), workers=2)


def test_a_run_tells_its_cost_everywhere(market: Market) -> None:
    """Units times price, exactly: in the answer's fields, the log's event, the metrics, and one row with everything."""
    response = market.ask(WEALTHY, emulate="units=2.5")
    assert response.field("x-gateway-cost-usd") == "0.0625"
    assert response.field("x-gateway-cost-source") == "exact"
    entry = market.entry(response)
    assert entry == entry._replace(
        status="settled",
        team="wealthy",
        key="wealthy",
        endpoint=FLUX,
        kind="run",
        fal_request_id=response.field("x-fal-request-id"),
        units="2.5",
        unit="megapixel",
        unit_price="0.025",
        estimate_ns=25_000_000,
        cost_ns=62_500_000,
        source="exact",
    )
    assert entry.admitted_at_us <= entry.changed_at_us
    event = market.event(response)
    assert (event["units"], event["cost_usd"], event["cost_source"]) == ("2.5", "0.0625", "exact")
    metrics = market.gateway.metrics()
    assert metrics.value("cost_usd_total", team="wealthy", key="wealthy", endpoint=FLUX, source="exact") == 0.0625
    assert metrics.value("billable_units_total", key="wealthy", endpoint=FLUX, unit="megapixel") == 2.5
    assert [row.id for row in market.books.of(WEALTHY)] == [entry.id]


@pytest.mark.parametrize(
    ("units", "cost_ns"), [("0.5", 0), ("1.5", 2), ("2.5", 2), ("0.000000001", 0), ("7", 7), ("2.51", 3)]
)
def test_a_cost_is_rounded_half_even_to_the_nano_dollar(market: Market, units: str, cost_ns: int) -> None:
    """At settlement, and only there."""
    response = market.ask(ROUNDED, NANO, emulate=f"units={units}")
    assert market.entry(response).cost_ns == cost_ns
    assert Decimal(str(response.field("x-gateway-cost-usd"))) * NS == cost_ns


@pytest.mark.parametrize(
    ("emulate", "status", "fate"),
    [
        ("status=500", 500, ("settled", "0", 0, "exact")),
        ("status=500,units=none", 500, ("released", None, 0, "exact")),
        ("status=500,units=2", 500, ("settled", "2", 50_000_000, "exact")),
        ("status=404,units=none", 404, ("released", None, 0, "exact")),
        ("status=422", 422, ("settled", "0", 0, "exact")),
        ("status=422,units=1", 422, ("settled", "1", 25_000_000, "exact")),
        ("status=422,units=none", 422, ("released", None, 0, "exact")),
        ("status=429", 429, ("settled", "0", 0, "exact")),
        ("status=429,units=none", 429, ("released", None, 0, "exact")),
        ("status=503", 503, ("settled", "0", 0, "exact")),
        ("status=503,units=none", 503, ("released", None, 0, "exact")),
        ("status=403", 403, ("settled", "0", 0, "exact")),
        ("status=403,units=none", 403, ("released", None, 0, "exact")),
        ("redirect", 307, ("settled", "0", 0, "exact")),
        ("redirect,units=none", 307, ("released", None, 0, "exact")),
        ("units=none", 200, ("settled", None, 25_000_000, "estimated")),
        ("field=x-fal-billable-units:many,units=none", 200, ("unknown", None, 25_000_000, "unknown")),
    ],
)
def test_an_answer_costs_what_its_units_say(
    market: Market, emulate: str, status: int, fate: tuple[str, str | None, int, str]
) -> None:
    """With units it is settled whatever the status; without, an error costs nothing and a good answer its estimate."""
    response = market.ask(FAILING, emulate=emulate)
    entry = market.entry(response)
    assert response.status == status
    assert (entry.status, entry.units, entry.cost_ns, entry.source) == fate
    assert (response.field("x-gateway-cost-usd") is None) == (entry.units is None)
    event = market.event(response)
    assert event["cost_source"] == entry.source
    assert Decimal(str(event["cost_usd"])) * NS == entry.cost_ns


@pytest.mark.parametrize(
    ("emulate", "fate"), [("units=3", ("3", 75_000_000, "exact")), ("units=none", (None, 25_000_000, "estimated"))]
)
def test_an_event_stream_costs_its_units_or_its_estimate(
    market: Market, emulate: str, fate: tuple[str | None, int, str]
) -> None:
    """The head goes out before the app knows its units, unless it set them there."""
    response = market.ask(STREAMING, f"{FLUX}/stream", emulate=f"{emulate},events=2,pace=1")
    entry = market.entry(response)
    assert str(response.field("content-type")).startswith("text/event-stream")
    assert (entry.units, entry.cost_ns, entry.source) == fate
    assert entry.endpoint == FLUX


def test_an_unpriced_endpoint_is_refused_under_a_budget(market: Market, fal: Emulator) -> None:
    """Nobody knows what it would cost, so it may not be bought: 403, nothing sent, nothing written down."""
    before = fal.requests_total()
    response = market.ask(CAREFUL, UNPRICED)
    assert (response.status, response.json()["error_type"]) == (403, "endpoint_unpriced")
    assert response.field("x-fal-error-type") == "endpoint_unpriced"
    assert market.event(response)["outcome"] == "refused"
    assert fal.requests_total() == before
    assert market.books.of(CAREFUL) == []
    assert market.gateway.metrics().value("refusals_total", key="careful", error_type="endpoint_unpriced") == 1


def test_an_unpriced_endpoint_is_counted_without_a_budget(market: Market) -> None:
    """It passes; its cost is not known, which is no cost of 0."""
    response = market.ask(FREE, UNPRICED, emulate="units=4")
    entry, event = market.entry(response), market.event(response)
    assert response.status == 200
    assert response.field("x-gateway-cost-usd") is None
    assert (entry.units, entry.unit_price, entry.cost_ns, entry.source) == ("4", None, None, "unknown")
    assert (event["units"], event["cost_usd"], event["cost_source"]) == ("4", None, "unknown")
    assert market.gateway.metrics().value("unpriced_requests_total", endpoint="shop/unpriced") == 1
    rows = market.usage("--by", "key")["rows"]
    assert [(row["cost_usd"], row["unpriced"]) for row in rows if row["key"] == "free"] == [(None, 1)]


def test_a_run_without_a_budget_is_written_down_too(market: Market) -> None:
    """The ledger knows every paid request, also of keys that may spend what they like."""
    entry = market.entry(market.ask(PLAIN, emulate="units=2"))
    assert (entry.status, entry.cost_ns, entry.source) == ("settled", 50_000_000, "exact")


def test_unpriced_endpoints_may_be_allowed_under_a_budget(open_market: Callable[..., Market], fal: Emulator) -> None:
    """`unpriced_endpoints: allow`: they pass, are counted, and spend nothing of the budget."""
    key = buyer("lenient", budget("1"))
    market = open_market(fal, market_policy([key], unpriced_endpoints="allow"))
    entry = market.entry(market.ask(key, UNPRICED, emulate="units=4"))
    assert (entry.status, entry.cost_ns, entry.source) == ("settled", None, "unknown")
    assert market.charged_ns(key) == 0


@pytest.mark.parametrize("end", ["/", "/stream/", "/stream"])
def test_a_slash_at_the_end_is_no_other_endpoint(market: Market, end: str) -> None:
    """The endpoint is the same for its price, its row and its label, and the path is sent as it came."""
    response = market.ask(PLAIN, f"{FLUX}{end}")
    entry = market.entry(response)
    assert (entry.endpoint, entry.unit_price) == (FLUX, "0.025")
    assert market.event(response)["endpoint"] == FLUX


def test_no_spelling_of_an_endpoint_passes_a_spent_budget(open_market: Callable[..., Market], fal: Emulator) -> None:
    """Where unpriced endpoints are allowed, what may be another spelling of a priced one is not: nothing is sent."""
    key = buyer("spent", budget("0.05"))
    market = open_market(fal, market_policy([key], unpriced_endpoints="allow"))
    market.entry(market.ask(key, FLUX, emulate="units=2"))
    before = fal.requests_total()
    ends = (
        "",
        "/",
        "/stream",
        "/stream/",
        "/stream/stream",
        "/stream/stream/stream",
        "/STREAM/stream",
        "//",
        ";x",
        "%20",
        "%20/",
        ";",
        "~",
        ".",
        ",x",
        "/stream;x",
        "%3b",
        "/;x",
    )
    spellings = [
        *(f"{FLUX}{end}" for end in ends),
        FLUX.upper(),
        FLUX.title(),
        "fal-ai;x/flux/dev",
        "fal-ai/flux%20/dev",
        "110602490/flux/dev",
        "110602490-flux/dev/stream/stream",
    ]
    statuses = {spelling: market.ask(key, spelling).status for spelling in spellings}
    assert {status for spelling, status in statuses.items() if spelling in (FLUX, f"{FLUX}/", f"{FLUX}/stream/")} == {
        402
    }
    assert set(statuses.values()) <= {402, 412}, statuses
    assert fal.requests_total() == before
    assert market.ask(key, UNPRICED).status == 200, "an endpoint that has no price passes, as the policy says"


def test_free_requests_are_in_no_ledger(market: Market) -> None:
    """Storage, tokens and polls are never priced."""
    with market.connect() as client:
        target = "https://rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"
        body = b'{"content_type": "image/png", "file_name": "a.png"}'
        response = client.ask(proxy_request(target, key=FREE, body=body))
    assert response.status == 200
    assert market.books.find(str(response.field("x-gateway-request-id"))) is None


def test_prices_of_the_market_are_fals(fal: Emulator) -> None:
    """What the tests take for exact is what the emulator bills."""
    assert fal.control("GET", "settings")["prices"] == PRICES
