"""Keeps fal's prices of the endpoints that are in use, in a thread.

The decision: prices outlive an outage. What fal does not answer changes nothing, and is logged once as it begins and
once as it ends; only a list that fal has answered whole replaces what is known. Endpoints come out of requests, so any
number of them may be made up: the book is bounded, and one without a price makes room for a new one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gateway.fal.api.client import FalApi, FalApiError
from gateway.fal.api.pricing import Quote, is_endpoint, list_quotes
from gateway.money.price_cache import read_prices, write_prices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

ENDPOINTS_MOST: Final = 1_000
_LOG: Final = structlog.get_logger


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often all prices are read, how long to gather new endpoints for one question, how soon after a failure."""

    refresh_seconds: float = 3600
    gather_seconds: float = 1
    again_seconds: float = 60


class PriceFeed:
    """The book of prices, and the thread that keeps it; `start` it once, in the process that uses it."""

    def __init__(
        self,
        api: FalApi,
        *,
        on_prices: Callable[[dict[str, Quote]], None],
        cache: Path | None = None,
        endpoints: Iterable[str] = (),
        rhythm: Rhythm | None = None,
    ) -> None:
        """Tell `on_prices` the whole book whenever something in it has changed; from `start`, then from the thread.

        `api` is the feed's own from here on. `endpoints` are those to begin with, beside those in the `cache` file.
        """
        self._api = api
        self._on_prices = on_prices
        self._cache = cache
        self._rhythm = rhythm or Rhythm()
        self._wake = threading.Condition()
        self._endpoints: dict[str, bool] = {}  # in the order in which they came; whether fal was asked about it
        self._prices: dict[str, Quote] = {}
        self._failing = False
        self._closing = False
        self._thread = threading.Thread(target=self._keep, name="price-feed", daemon=True)
        for endpoint in endpoints:
            self.want(endpoint)

    def start(self) -> None:
        """Take the prices out of the cache, then start asking fal."""
        known = read_prices(self._cache) if self._cache else {}
        with self._wake:
            for endpoint in known:
                self._endpoints.setdefault(endpoint, False)
            self._prices = known
        if known:
            self._on_prices(dict(known))
        self._thread.start()

    def want(self, endpoint: str) -> bool:
        """Ask fal for this endpoint's price soon, if it is new; False where there is no room, or it is no endpoint."""
        with self._wake:
            if endpoint in self._endpoints:
                return True
            if not is_endpoint(endpoint) or not self._has_room():
                return False
            self._endpoints[endpoint] = False
            self._wake.notify()
            return True

    def prices(self) -> dict[str, Quote]:
        """Return the whole book, by endpoint."""
        with self._wake:
            return dict(self._prices)

    def unpriced(self) -> frozenset[str]:
        """Return the endpoints for which fal had no price when it was asked; the next refresh asks again."""
        with self._wake:
            return frozenset(name for name, asked in self._endpoints.items() if asked and name not in self._prices)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """End the thread, and a question that is under way; harmless when done twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._api.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        if not self._thread.is_alive():
            self._api.close()

    def _has_room(self) -> bool:
        """Make room if need be: the endpoint that has been without a price for longest goes."""
        if len(self._endpoints) < ENDPOINTS_MOST:
            return True
        oldest = next((name for name, asked in self._endpoints.items() if asked and name not in self._prices), None)
        if oldest is not None:
            del self._endpoints[oldest]
        return oldest is not None

    def _keep(self) -> None:
        due = time.monotonic()
        while self._waits_for_work(due):
            whole = time.monotonic() >= due
            asked = self._questions(whole=whole)
            try:
                found = list_quotes(self._api, asked)
            except FalApiError as error:
                if not self._closing:
                    self._fail(error)
                due = time.monotonic() + self._rhythm.again_seconds
                continue
            self._recover()
            self._take(asked, found)
            if whole:
                due = time.monotonic() + self._rhythm.refresh_seconds

    def _waits_for_work(self, due: float) -> bool:
        """Wait until the book is due, or there is a new endpoint to ask for; False once the feed is closing."""
        with self._wake:
            while not self._closing and time.monotonic() < due and not self._has_news():
                self._wake.wait(due - time.monotonic())
            if not self._closing and time.monotonic() < due:
                self._wake.wait_for(lambda: self._closing, self._rhythm.gather_seconds)
            return not self._closing

    def _has_news(self) -> bool:
        """Say whether there is an endpoint to ask for before the next refresh; during an outage that waits."""
        return not self._failing and not all(self._endpoints.values())

    def _questions(self, *, whole: bool) -> list[str]:
        with self._wake:
            return [name for name, asked in self._endpoints.items() if whole or not asked]

    def _take(self, asked: list[str], found: dict[str, Quote]) -> None:
        """Put what was found in place of what was known about these endpoints, and tell of it."""
        with self._wake:
            old = self._prices
            kept = {name: quote for name, quote in old.items() if name not in asked}
            self._prices = new = kept | found
            for name in asked:
                if name in self._endpoints:
                    self._endpoints[name] = True
        if new == old:
            return
        _log_changes(old, new)
        if self._cache:
            write_prices(self._cache, new)
        self._on_prices(dict(new))

    def _fail(self, error: FalApiError) -> None:
        if not self._failing:
            _LOG().warning("price_feed_failed", reason=str(error), prices=len(self._prices))
        self._failing = True

    def _recover(self) -> None:
        if self._failing:
            _LOG().info("price_feed_ok")
        self._failing = False


def _log_changes(old: dict[str, Quote], new: dict[str, Quote]) -> None:
    """Log what has another price than before; None where it has none any more."""
    for endpoint, before in old.items():
        after = new.get(endpoint)
        if after != before:
            _LOG().warning(
                "price_changed",
                endpoint=endpoint,
                unit=after.unit if after else before.unit,
                old_usd=str(before.usd),
                new_usd=str(after.usd) if after else None,
            )
