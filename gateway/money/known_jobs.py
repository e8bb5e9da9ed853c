"""Queue jobs read from the ledger, for the tables that remember them: a gateway's own, and the shared store."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gateway.ledger.entry import HELD
from gateway.ledger.entry import RELEASED as GIVEN_BACK
from gateway.policy.job import OPEN, RELEASED, SETTLED, Job
from gateway.policy.price import picodollars_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.ledger.entry import Entry
    from gateway.ledger.ledger import Ledger

_STATES: Final = MappingProxyType({HELD: OPEN, GIVEN_BACK: RELEASED})
_RECENT_US: Final = 86_400 * 10**6

_CHARGED_JOBS: Final = 20_000
"""So many of the last day are remembered at a start: it takes a second, and a gateway is ready behind it."""


def recent_jobs(ledger: Ledger, now: float) -> Iterator[tuple[str, Job]]:
    """Yield jobs by fal's id: the latest of the last day that came to a cost, those given back, last all that are open.

    Open ones come last, and from the others before them a later result is refused, or charged once. LedgerAwayError.
    """
    since_us = int(now * 10**6) - _RECENT_US
    yield from _named(ledger.charged_jobs(since_us, most=_CHARGED_JOBS))
    yield from _named(all_pages(partial(ledger.released_jobs, since_us)))
    yield from open_jobs(ledger)


def open_jobs(ledger: Ledger) -> Iterator[tuple[str, Job]]:
    """Yield jobs that are held, by fal's id. LedgerAwayError."""
    yield from _named(all_pages(ledger.open_jobs))


def _named(entries: Iterator[Entry] | list[Entry]) -> Iterator[tuple[str, Job]]:
    return ((entry.fal_request_id, job_of(entry)) for entry in entries if entry.fal_request_id is not None)


def all_pages(ask: Callable[..., list[Entry]]) -> Iterator[Entry]:
    """Yield the entries of all pages of a list."""
    last: Entry | None = None
    while page := ask(after=last):
        yield from page
        last = page[-1]


def job_of(entry: Entry) -> Job:
    """Return the job that a row of the ledger describes."""
    price = picodollars_of(Decimal(entry.unit_price)) if entry.unit_price is not None else None
    return Job(
        entry.team,
        entry.key,
        entry.endpoint,
        entry.id,
        entry.admitted_at_us,
        entry.estimate_ns or 0,
        price if price is not None else -1,
        entry.unit or "",
        _STATES.get(entry.status, SETTLED),
    )
