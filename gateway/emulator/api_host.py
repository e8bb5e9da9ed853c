"""api.fal.ai: the price list and the billing events, in pages.

Decision: an endpoint without a price is left out of the list rather than an error, and a bill shows only what was
executed to its end: no job that waits, runs, or was cancelled, and nothing that cost no units.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Final

from gateway.emulator.answers import Answer, as_json, failure
from gateway.emulator.billing import billing_event, listed_price
from gateway.emulator.handler import Reception
from gateway.emulator.jobs import COMPLETED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.emulator.ledger import Visit

IDS_MOST: Final = 50
PAGE_MOST: Final = 1000


class Paged(Reception):
    """A list in pages: `limit` and `cursor` in, `next_cursor` and `has_more` out."""

    def names(self, argument: str) -> list[str]:
        """Return the values of a query argument that may be repeated or hold several with commas."""
        return [name for text in self.get_query_arguments(argument) for name in text.split(",") if name]

    def number(self, argument: str, default: int) -> int:
        """Return a whole number out of the query; the default where there is none that can be used."""
        text = self.get_query_argument(argument, "")
        return int(text) if text.isascii() and text.isdigit() else default

    def page(self, name: str, entries: Iterator[dict[str, object]]) -> Answer:
        """Return the page that was asked for, of entries that are in a stable order."""
        start = self.number("cursor", 0)
        size = max(1, min(self.number("limit", self.world.behaviour.page_size), PAGE_MOST))
        found = list(islice(entries, start, start + size + 1))
        more = len(found) > size
        return as_json(200, {name: found[:size], "next_cursor": str(start + size) if more else None, "has_more": more})


class Pricing(Paged):
    """`GET` /v1/models/pricing?endpoint_id=…: 1 to 50 ids, repeated or with commas."""

    async def compose(self) -> Answer:
        """Return the prices that are known."""
        wanted = self.names("endpoint_id")
        if not 1 <= len(wanted) <= IDS_MOST:
            return failure(400, detail=f"endpoint_id: 1 to {IDS_MOST} ids, not {len(wanted)}")
        prices = self.world.behaviour.prices
        return self.page("prices", (listed_price(name, prices[name]) for name in wanted if name in prices))

    get = Reception.respond


class BillingEvents(Paged):
    """`GET` /v1/models/billing-events?request_id=…&endpoint_id=…&start=…&end=…: the truth, for an admin key."""

    async def compose(self) -> Answer:
        """Return the events, oldest first."""
        admin = self.world.behaviour.admin_key
        if admin is not None and self.request.headers.get("authorization", "").partition(" ")[2].strip() != admin:
            return failure(403, detail="This needs a key of the scope ADMIN")
        wanted = self.names("request_id")
        if len(wanted) > IDS_MOST:
            return failure(400, detail=f"request_id: at most {IDS_MOST} ids, not {len(wanted)}")
        try:
            since, until = self._moment("start"), self._moment("end")
        except ValueError:
            return failure(422, detail="start and end must be dates or times of ISO 8601")
        behaviour = self.world.behaviour
        billed = self._billed(wanted, since, until)
        return self.page("billing_events", (billing_event(visit, behaviour) for visit in billed))

    def _moment(self, argument: str) -> float | None:
        text = self.get_query_argument(argument, "")
        if not text:
            return None
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    def _billed(self, wanted: Sequence[str], since: float | None, until: float | None) -> Iterator[Visit]:
        ids, endpoints = frozenset(wanted), frozenset(self.names("endpoint_id"))
        latest = self.world.wall() - self.world.behaviour.billing_delay_ms / 1000
        for visit in self.world.ledger.executions():
            at = visit.whole_at or visit.started_at
            if (ids and visit.request_id not in ids) or (endpoints and visit.endpoint not in endpoints):
                continue
            if at > latest or (since is not None and at < since) or (until is not None and at >= until):
                continue
            if Decimal(visit.units) > 0 and self._is_done(visit):
                yield visit

    def _is_done(self, visit: Visit) -> bool:
        if visit.kind != "submit":
            return True
        job = self.world.jobs.find(visit.request_id)
        return job is None or (not job.cancelled and job.state(self.world.now()) == COMPLETED)

    get = Reception.respond
