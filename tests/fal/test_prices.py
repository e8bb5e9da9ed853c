"""Prices out of fal's list, and the feed that keeps them: exact, through outages, and bounded."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.fal.api.pricing import Quote, list_quotes
from gateway.money.price_cache import read_prices, write_prices
from gateway.money.price_feed import ENDPOINTS_MOST, PriceFeed, Rhythm
from tests.fal.stand import ENDPOINT, QUICK, Gathered, named, page
from tests.harness.messages import http_response
from tests.harness.origin import answering
from tests.harness.ports import refused_port
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.fal.api.client import FalApi
    from tests.harness.emulator import Emulator
    from tests.harness.origin import OriginConnection, Received, StartOrigin

FLUX = Quote(ENDPOINT, "megapixels", Decimal("0.025"))
OTHER = "maker/model"
OUTAGE = {"api.fal.ai": "status=503"}
BRISK = Rhythm(refresh_seconds=0.05, gather_seconds=0.01, again_seconds=0.05)
CALM = Rhythm(refresh_seconds=3600, gather_seconds=0.01, again_seconds=0.05)


@pytest.fixture
def start_feed() -> Iterator[Callable[..., PriceFeed]]:
    """Return `start(api, …)`: a feed that is closed after the test."""
    feeds: list[PriceFeed] = []

    def start(api: FalApi, **options: Any) -> PriceFeed:  # noqa: ANN401 - PriceFeed's own
        feeds.append(PriceFeed(api, **options))
        feeds[-1].start()
        return feeds[-1]

    yield start
    for feed in feeds:
        feed.close(20)


def asked(request: Received) -> list[str]:
    """Return the endpoints that a request asks for."""
    return parse_qs(urlsplit(request.target.decode()).query)["endpoint_id"]


def price(endpoint: str, usd: object = 0.5, **changed: object) -> dict[str, Any]:
    """Return an entry of fal's list."""
    return {"endpoint_id": endpoint, "unit_price": usd, "unit": "images", "currency": "USD", **changed}


def test_prices_are_exact_and_in_questions_of_50(fal: Emulator, open_api: Callable[..., FalApi]) -> None:
    """Any number of endpoints; what JSON writes is what it costs, and an endpoint without a price is not in it."""
    prices = {f"maker/model-{number}": f"0.1{number:03d}" for number in range(120)}
    fal.settings(prices={name: {"unit": "images", "usd": usd} for name, usd in prices.items()}, page_size=7)
    found = list_quotes(open_api(fal.port), [*prices, "maker/unheard-of"])
    assert found == {name: Quote(name, "images", Decimal(usd)) for name, usd in prices.items()}
    questions = [parse_qs(urlsplit(request["target"]).query) for request in fal.requests(host="api.fal.ai")]
    assert max(len(question["endpoint_id"]) for question in questions) == 50


def test_what_can_be_no_price_is_left_out_and_told(
    start_origin: StartOrigin, open_api: Callable[..., FalApi], events: list[dict[str, Any]]
) -> None:
    """Another currency, a unit that is none, an amount that is none: unpriced, never free."""
    wrong = {
        "euro": price("euro", currency="EUR"),
        "none": price("none", currency=None),
        "minus": price("minus", -1),
        "huge": price("huge", 1e300),
        "true": price("true", usd=True),
        "text": price("text", "0.5"),
        "no-price": price("no-price", None),
        "no-unit": price("no-unit", unit=""),
        "long-unit": price("long-unit", unit="u" * 64),
        "line": price("line", unit="a\nb"),
    }
    right = price("right", 1e-05)
    origin = start_origin(answering(page("prices", [*wrong.values(), right, price("unasked"), {}])))
    assert list_quotes(open_api(origin.port), [*wrong, "right"]) == {
        "right": Quote("right", "images", Decimal("0.00001"))
    }
    assert [event["endpoint"] for event in named(events, "price_unusable")] == list(wrong)


def test_one_unknown_endpoint_does_not_hide_the_others(
    start_origin: StartOrigin, open_api: Callable[..., FalApi]
) -> None:
    """Where fal refuses a question for an id in it, the others get their prices all the same."""

    def answer(request: Received) -> bytes:
        names = asked(request)
        return http_response(b"{}", 404) if "m/bad" in names else page("prices", [price(name) for name in names])

    names = [f"m/{number}" for number in range(20)]
    found = list_quotes(open_api(start_origin(answering(answer)).port), [*names[:7], "m/bad", *names[7:]])
    assert sorted(found) == sorted(names)


def test_a_feed_tells_the_whole_book_when_it_changes(
    fal: Emulator, open_api: Callable[..., FalApi], start_feed: Callable[..., PriceFeed], events: list[dict[str, Any]]
) -> None:
    """At the start, and with each change, which the log tells with both prices; the same prices again are no news."""
    books = Gathered()
    start_feed(open_api(fal.port), on_prices=books, endpoints=[ENDPOINT], rhythm=BRISK)
    until(lambda: fal.requests_total() > 3, "a few refreshes")
    assert books.all() == [{ENDPOINT: FLUX}]
    fal.settings(prices={ENDPOINT: {"unit": "megapixels", "usd": "0.03"}})
    until(lambda: len(books.all()) == 2, "the new price")
    assert books.all()[1] == {ENDPOINT: FLUX._replace(usd=Decimal("0.03"))}
    [changed] = named(events, "price_changed")
    assert (changed["endpoint"], changed["unit"]) == (ENDPOINT, "megapixels")
    assert (changed["old_usd"], changed["new_usd"]) == ("0.025", "0.03")
    fal.settings(prices={})
    until(lambda: len(books.all()) == 3, "the price that is gone")
    assert (books.all()[2], named(events, "price_changed")[1]["new_usd"]) == ({}, None)


def test_a_new_endpoint_is_asked_for_soon_and_once(
    fal: Emulator, open_api: Callable[..., FalApi], start_feed: Callable[..., PriceFeed]
) -> None:
    """Not at the next refresh but now, alone; one that fal does not know is unpriced until then."""
    books = Gathered()
    feed = start_feed(open_api(fal.port), on_prices=books, endpoints=[ENDPOINT], rhythm=CALM)
    until(lambda: books.all() == [{ENDPOINT: FLUX}], "the first price")
    assert all(feed.want(name) for name in ("fal-ai/flux/schnell", "maker/unheard-of", ENDPOINT))
    until(lambda: feed.unpriced() == {"maker/unheard-of"} and len(feed.prices()) == 2, "the new endpoints")
    assert feed.want("maker/unheard-of")
    last = fal.requests(host="api.fal.ai")[-1]
    assert "flux%2Fdev" not in last["target"]
    assert [sorted(book) for book in books.all()][-1] == [ENDPOINT, "fal-ai/flux/schnell"]


def test_an_outage_keeps_the_prices_and_is_told_once(
    fal: Emulator, open_api: Callable[..., FalApi], start_feed: Callable[..., PriceFeed], events: list[dict[str, Any]]
) -> None:
    """One event as it begins and one as it ends, however often fal was asked in between."""
    books = Gathered()
    feed = start_feed(open_api(fal.port), on_prices=books, endpoints=[ENDPOINT], rhythm=BRISK)
    until(feed.prices, "the first price")
    for fault in ("status=503", "cut=5", "close=head"):
        fal.settings(faults={"api.fal.ai": fault})
        seen = fal.requests_total()
        until(lambda seen=seen: fal.requests_total() > seen + 10, "several questions")  # type: ignore[misc]
        assert feed.prices() == {ENDPOINT: FLUX}
    assert (len(named(events, "price_feed_failed")), named(events, "price_feed_ok")) == (1, [])
    fal.settings(faults={})
    until(lambda: named(events, "price_feed_ok"), "the end of the outage")
    assert books.all() == [{ENDPOINT: FLUX}]


def test_a_new_endpoint_does_not_hurry_an_outage(
    fal: Emulator, open_api: Callable[..., FalApi], start_feed: Callable[..., PriceFeed], events: list[dict[str, Any]]
) -> None:
    """While fal does not answer it is asked at its own pace, however many endpoints wait for a price."""
    fal.settings(faults=OUTAGE)
    patient = Rhythm(refresh_seconds=3600, gather_seconds=0.001, again_seconds=0.2)
    feed = start_feed(open_api(fal.port), on_prices=Gathered(), endpoints=[ENDPOINT], rhythm=patient)
    until(lambda: named(events, "price_feed_failed"), "the outage")
    feed.want(OTHER)
    began, seen = time.monotonic(), fal.requests_total()
    until(lambda: fal.requests_total() >= seen + 3 * QUICK.attempts, "three questions in vain")
    assert time.monotonic() - began > 2 * patient.again_seconds


def test_a_start_in_an_outage_uses_the_cache(
    fal: Emulator,
    open_api: Callable[..., FalApi],
    start_feed: Callable[..., PriceFeed],
    tmp_path: Path,
    events: list[dict[str, Any]],
) -> None:
    """What one feed learned, the next one knows before it has asked; and it goes on asking for it."""
    cache = tmp_path / "prices.json"
    first = start_feed(open_api(fal.port), on_prices=Gathered(), cache=cache, endpoints=[ENDPOINT], rhythm=CALM)
    until(cache.exists, "the cache")
    first.close(20)
    fal.settings(faults=OUTAGE)
    books = Gathered()
    start_feed(open_api(fal.port), on_prices=books, cache=cache, rhythm=BRISK)
    assert books.all() == [{ENDPOINT: FLUX}]
    until(lambda: named(events, "price_feed_failed"), "the outage")
    fal.settings(faults={}, prices={ENDPOINT: {"unit": "megapixels", "usd": "9"}})
    until(lambda: len(books.all()) == 2, "the price of today")
    assert [path.name for path in tmp_path.iterdir()] == ["prices.json"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"prices": 1}',
        '{"prices": [["a"]]}',
        '{"prices": [["a/b", "images", "x"]]}',
        '{"prices": [["a/b", "images", null]]}',
    ],
)
def test_a_cache_that_makes_no_sense_is_an_empty_one(
    content: str, tmp_path: Path, events: list[dict[str, Any]]
) -> None:
    """A start does not fail over it."""
    (tmp_path / "cache").write_text(content, encoding="utf-8")
    assert read_prices(tmp_path / "cache") == {}
    assert named(events, "price_cache_unreadable")


def test_a_price_in_the_cache_is_judged_like_any_other(tmp_path: Path) -> None:
    """Nobody's edit makes a price of what is none."""
    listed = [["a/b", "images", "NaN"], ["a/c", "images", "-1"], ["a,b", "images", "1"], ["a/d", "images", "0.1"]]
    (tmp_path / "cache").write_text(json.dumps({"version": 1, "prices": listed}), encoding="utf-8")
    assert read_prices(tmp_path / "cache") == {"a/d": Quote("a/d", "images", Decimal("0.1"))}


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path, events: list[dict[str, Any]]) -> None:
    """The disk's refusal is an event."""
    write_prices(tmp_path / "nowhere" / "cache", {ENDPOINT: FLUX})
    assert named(events, "price_cache_unwritable")
    assert read_prices(tmp_path / "nowhere" / "cache") == {}


def test_the_book_is_bounded(
    fal: Emulator, open_api: Callable[..., FalApi], start_feed: Callable[..., PriceFeed]
) -> None:
    """Made-up endpoints make room for new ones; before fal was asked about any, there is none."""
    feed = start_feed(open_api(refused_port()), on_prices=Gathered(), rhythm=CALM)
    assert all(feed.want(f"made/up-{number}") for number in range(ENDPOINTS_MOST))
    assert not feed.want(OTHER)
    asking = start_feed(open_api(fal.port), on_prices=Gathered(), endpoints=[ENDPOINT], rhythm=CALM)
    for number in range(ENDPOINTS_MOST - 1):
        asking.want(f"made/up-{number}")
    until(lambda: len(asking.unpriced()) == ENDPOINTS_MOST - 1, "an answer about all of them")
    assert asking.want(OTHER)
    assert "made/up-0" not in asking.unpriced()
    assert asking.prices() == {ENDPOINT: FLUX}


@pytest.mark.parametrize("text", ["", "a,b", "a b", "/a", "a" * 201, "a/../é"])
def test_what_is_no_endpoint_is_not_asked_for(text: str, open_api: Callable[..., FalApi]) -> None:
    """A comma would make two questions of it."""
    assert not PriceFeed(open_api(refused_port()), on_prices=Gathered()).want(text)


def test_closing_does_not_wait_for_fal(
    start_origin: StartOrigin, open_api: Callable[..., FalApi], start_feed: Callable[..., PriceFeed]
) -> None:
    """A question that is under way is ended."""

    def silent(connection: OriginConnection) -> None:
        connection.read_request()
        connection.wait_for_leaving()

    origin = start_origin(silent)
    feed = start_feed(open_api(origin.port), on_prices=Gathered(), endpoints=[ENDPOINT], rhythm=CALM)
    origin.wait_for_requests(1)
    feed.close(15)
    feed.close(15)
    assert not feed._thread.is_alive()
