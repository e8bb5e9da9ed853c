"""Labels are closed or capped: 10,000 odd requests add no more series than docs/metrics.md says.

The decision it carries: the odd ones come over sockets, by callers with a key and without one, and by fal's statuses.
Whatever a caller can choose is among them: endpoint, key, path, method, and what it can make the origin answer.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gateway.telemetry.metrics.endpoint_labels import SEEN_LIMIT
from tests.harness.messages import proxy_request
from tests.harness.policy import GatewayKey
from tests.money.market import DOLLAR, FLUX, Market, market_policy, run_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.harness.emulator import Emulator

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
WEB: Final = GatewayKey(id="web", team="design")
NARROW: Final = GatewayKey(id="narrow", team="design", entry={"allowed_endpoints": [DOLLAR]})
AT_ONCE: Final = 100
STATUSES: Final = range(200, 600)
GUESSES: Final = 20
"""Wrong keys from one address in a minute that are answered by 401."""


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory, emulator: Emulator) -> Iterator[Market]:
    """Run a gateway of two workers before the emulator."""
    with Market(
        tmp_path_factory.mktemp("market"), emulator.overrides, market_policy([WEB, NARROW]), workers=2
    ) as opened:
        yield opened


def ask_all(market: Market, requests: Iterable[bytes]) -> Counter[int]:
    """Make requests, a hundred at once on a connection; return how often each status came."""
    rest, statuses = list(requests), Counter[int]()
    while rest:
        batch, rest = rest[:AT_ONCE], rest[AT_ONCE:]
        with market.connect() as client:
            client.send(b"".join(batch))
            statuses.update(client.read_response().status for _ in batch)
    return statuses


def ask_each(market: Market, requests: Iterable[bytes]) -> Counter[int]:
    """Make requests, each on a connection of its own."""
    statuses = Counter[int]()
    for request in requests:
        with market.connect() as client:
            statuses[client.ask(request).status] += 1
    return statuses


def series_of(market: Market) -> set[str]:
    """Return every series: its name and labels."""
    lines = market.gateway.ask_ops("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def stated() -> int:
    """Return the number of series that the documentation states."""
    found = re.search(r"add at most \*\*(\d+)\*\* series", DOCUMENT.read_text(encoding="utf-8"))
    assert found
    return int(found[1])


def test_odd_requests_add_few_series(market: Market) -> None:
    """Endpoints that are not allowed, wrong keys, paths, methods, and all statuses that an origin can answer."""
    before = series_of(market)
    endpoints = [run_of(NARROW, f"odd/{number}") for number in range(4_600)]
    keys = [proxy_request(key=f"gwk-{number}") for number in range(2_000)]
    paths = [proxy_request(None, key=WEB, path=f"/api/fal/proxy/{number}?{number}") for number in range(2_400)]
    methods = [proxy_request(key=WEB, method=f"ODD{number}", body=b"") for number in range(600)]
    statuses = [run_of(WEB, emulate=f"status={status}") for status in STATUSES]
    assert sum(map(len, (endpoints, keys, paths, methods, statuses))) == 10_000
    assert ask_all(market, endpoints) == {403: 4_600}
    assert ask_all(market, keys) == {401: GUESSES, 429: 2_000 - GUESSES}
    assert ask_all(market, paths) == {400: 2_400}
    assert ask_each(market, methods) == {405: 600}
    assert set(ask_each(market, statuses)) == set(STATUSES) - {401}  # 500 upstream_unauthorized
    page = market.gateway.metrics()
    assert page.value("requests_total") == 10_000
    added = series_of(market) - before
    assert len(added) <= stated()
    named = {series["endpoint"] for series in page.series("requests_total")}
    assert len(named) <= SEEN_LIMIT + len({"none", "other"}) + len({FLUX, DOLLAR, "shop/nano", "workflows/shop/film"})
    assert page.value("requests_total", endpoint="other", status="403") == 4_600 - SEEN_LIMIT
