"""The sums over all time: they follow every change of a row, outlive the rows, and are one for all gateways."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from alembic import command
from sqlalchemy import select

from gateway.ledger.database import Database
from gateway.ledger.entry import CHARGED, MOST_NS, Entry
from gateway.ledger.ledger import Ledger
from gateway.ledger.migrate import config_of
from gateway.ledger.tables import PURCHASES
from gateway.ledger.totals import MOST_TOTAL_NS, Names, Total
from tests.ledger.rows import NOON_US, bound, held, released, settled, unknown
from tests.ledger.test_entry import LIVES


def told(ledger: Ledger) -> dict[Names, int]:
    """Return the sums that are not zero."""
    return {total[:4]: total.cost_ns for total in ledger.totals() if total.cost_ns}


def summed(url: str) -> dict[Names, int]:
    """Return what the rows themselves add up to."""
    database, sums = Database(url), dict[Names, int]()
    with database.reading() as connection:
        for row in (Entry(*row) for row in connection.execute(select(PURCHASES))):
            if row.status in CHARGED and row.cost_ns:
                names = (row.team, row.key, row.endpoint, row.source)
                sums[names] = sums.get(names, 0) + row.cost_ns
    database.close()
    return sums


def test_sums_are_of_what_was_charged(ledger: Ledger) -> None:
    """Settled, unknown and reconciled count by their source; held, released and what has no cost do not."""
    ledger.apply([settled(1), settled(2), unknown(3), held(4), released(5), settled(6, cost_ns=None)])
    ledger.apply([settled(7, team="legal", key="third", endpoint="shop/film", cost_ns=7)])
    names = ("design", "web-prod", "fal-ai/flux/dev")
    assert told(ledger) == {
        (*names, "exact"): 100_000_000,
        (*names, "unknown"): 25_000_000,
        ("legal", "third", "shop/film", "exact"): 7,
    }


def test_a_bill_moves_money_between_sources(ledger: Ledger) -> None:
    """What was exact becomes reconciled, with the true cost: no nano-dollar stands in both."""
    ledger.apply([bound(1), settled(1, fal_request_id="job-1"), settled(2)])
    ledger.apply([settled(1, status="reconciled", source="reconciled", cost_ns=40_000_000)])
    names = ("design", "web-prod", "fal-ai/flux/dev")
    assert told(ledger) == {(*names, "exact"): 50_000_000, (*names, "reconciled"): 40_000_000}


def test_whatever_is_told_in_whatever_order_the_sums_are_those_of_the_rows(url: str, ledger: Ledger) -> None:
    """Lives of purchases shuffled, repeated and cut into batches: the sums follow each row."""
    chance = random.Random(20_261_122)  # noqa: S311 (a test's own)
    lines = []
    for number in range(60):
        life = LIVES[number % len(LIVES)]
        endpoint = f"shop/{number % 4}"
        lines += [entry._replace(id=f"{number:032x}", endpoint=endpoint) for entry in (*life, *life)]
    chance.shuffle(lines)
    while lines:
        batch = [lines.pop() for _ in range(min(len(lines), chance.randrange(1, 40)))]
        ledger.apply(batch)
    assert told(ledger) == summed(url) != {}


def test_what_is_deleted_stays_in_the_sum(url: str, ledger: Ledger) -> None:
    """Retention takes rows, not the spending of which dashboards show the difference."""
    ledger.apply([settled(1, admitted_at_us=NOON_US - 1), settled(2)])
    before = told(ledger)
    assert ledger.forget(NOON_US) == 1
    assert sum(summed(url).values()) == 50_000_000
    assert told(ledger) == before
    assert sum(before.values()) == 100_000_000


def test_the_sums_begin_with_the_rows_that_are_there(url: str) -> None:
    """A ledger of an earlier release is summed as it is migrated; its sums come in the order in which they began."""
    database = Database(url, may_make=True)
    with database.writing() as connection:
        command.upgrade(config_of(connection), "0002")
    ledger, later = Ledger(url), NOON_US + 1
    rows = [settled(1, changed_at_us=later, key="b"), settled(2, key="c"), settled(3, key="c"), held(4), unknown(5)]
    with database.writing() as connection:
        connection.execute(PURCHASES.insert(), [row._asdict() for row in rows])
    database.close()
    ledger.migrate()
    assert ledger.totals() == [
        Total("design", "c", "fal-ai/flux/dev", "exact", 100_000_000),
        Total("design", "web-prod", "fal-ai/flux/dev", "unknown", 25_000_000),
        Total("design", "b", "fal-ai/flux/dev", "exact", 50_000_000),
    ]
    ledger.close()


def test_garbled_figures_hold_nothing_up(ledger: Ledger) -> None:
    """A sum stops short of 64 bits: an overflow would refuse every row behind it, or be no whole number any more."""
    batch = 1_000
    for first in range(0, 10_000, batch):
        ledger.apply([settled(number, cost_ns=MOST_NS) for number in range(first, first + batch)])
    ledger.apply([settled(10_001, cost_ns=5)])
    ((*_, total_ns),) = ledger.totals()
    assert total_ns == MOST_TOTAL_NS
    assert type(total_ns) is int


def test_gateways_of_one_database_add_to_the_same_sums(url: str, ledger: Ledger) -> None:
    """Two that write the same sums at the same time lose nothing, and neither waits for the other for ever."""

    def buy(number: int) -> None:
        own = Ledger(url)
        for batch in range(0, 200, 5):
            places = range(number * 1_000 + batch, number * 1_000 + batch + 5)
            own.apply([settled(place, endpoint=f"shop/{(place + number) % 5}") for place in places])
        own.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(buy, (0, 1)))
    assert told(ledger) == summed(url)
    assert sum(told(ledger).values()) == 400 * 50_000_000
