"""What budgets are compared with: each key's spending a day and its open jobs' estimates, at every change of a row."""

from __future__ import annotations

import contextlib
import random
import sqlite3

import pytest
from alembic import command
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from gateway.ledger.daily_totals import DAY_US, MOST_DAY_NS, SUMS, LedgerSums, Spending
from gateway.ledger.database import Database
from gateway.ledger.entry import CHARGED, HELD, MOST_NS, Entry
from gateway.ledger.ledger import Ledger
from gateway.ledger.migrate import config_of
from gateway.ledger.tables import DAILY_TOTALS, PURCHASES
from tests.ledger.rows import NOON_US, bound, held, released, settled, unknown
from tests.ledger.test_entry import LIVES

MIDNIGHT_US = NOON_US // DAY_US * DAY_US


def added_up(url: str, since_us: int) -> LedgerSums:
    """Return what the rows themselves add up to; amounts of nothing are left out."""
    database, sums = Database(url), LedgerSums(Spending({}, {}), Spending({}, {}))
    with database.reading() as connection:
        rows = [Entry(*row) for row in connection.execute(select(PURCHASES))]
    database.close()
    for row in rows:
        if row.admitted_at_us >= since_us:
            if row.status in CHARGED and row.cost_ns:
                _add(sums.spent, row, row.cost_ns)
            if row.status == HELD and row.fal_request_id is not None and row.estimate_ns:
                _add(sums.jobs, row, row.estimate_ns)
    return sums


def _add(spending: Spending, row: Entry, amount_ns: int) -> None:
    spending.keys[row.key] = spending.keys.get(row.key, 0) + amount_ns
    spending.teams[row.team] = spending.teams.get(row.team, 0) + amount_ns


def test_spending_and_open_jobs_are_of_a_midnight_on(ledger: Ledger) -> None:
    """Unknown, settled and reconciled are spent; jobs hold under fal's id; runs and what was released do not count."""
    ledger.apply(
        [
            settled(1),
            unknown(2, key="other"),
            settled(3, status="reconciled", cost_ns=7, team="legal", key="third"),
            held(4, cost_ns=9),
            released(5, key="quiet"),
            settled(6, cost_ns=None),
            settled(7, admitted_at_us=MIDNIGHT_US - 1),
            bound(8),
            bound(9, key="other"),
            bound(10, admitted_at_us=MIDNIGHT_US - 1),
            bound(11, key="unpriced", estimate_ns=None),
        ]
    )
    spent, jobs = ledger.sums_since(MIDNIGHT_US)
    assert spent == ({"web-prod": 50_000_000, "other": 25_000_000, "third": 7}, {"design": 75_000_000, "legal": 7})
    assert (jobs.of("key/web-prod"), jobs.of("key/other"), jobs.of("team/design")) == (
        25_000_000,
        25_000_000,
        50_000_000,
    )
    assert (spent.of("key/nobody"), spent.of("team/web-prod")) == (0, 0)
    assert type(spent.keys["web-prod"]) is int
    assert ledger.sums_since(MIDNIGHT_US + DAY_US) == LedgerSums(Spending({}, {}), Spending({}, {}))


def test_open_runs_of_a_gateway_before_are_held_with_the_jobs(ledger: Ledger) -> None:
    """Those admitted before a moment, and from the midnight on; not the asking gateway's own, later ones."""
    moment = MIDNIGHT_US + 1_000
    runs = {1: moment - 1, 2: moment, 3: MIDNIGHT_US - 1}
    ledger.apply([held(number, admitted_at_us=at_us) for number, at_us in runs.items()])
    ledger.apply([settled(4, admitted_at_us=moment - 1), bound(5, admitted_at_us=moment)])
    assert ledger.sums_since(MIDNIGHT_US, runs_before_us=moment).jobs.of("key/web-prod") == 50_000_000
    assert ledger.sums_since(MIDNIGHT_US).jobs.of("key/web-prod") == 25_000_000


def test_whatever_is_told_in_whatever_order_the_sums_are_those_of_the_rows(url: str, ledger: Ledger) -> None:
    """Lives of purchases over three days, shuffled, repeated and cut into batches."""
    chance = random.Random(20_261_130)  # noqa: S311 (a test's own)
    lines = []
    for number in range(60):
        day_us = (number % 3) * DAY_US
        for entry in LIVES[number % len(LIVES)] * 2:
            moved = entry.admitted_at_us + day_us
            lines.append(entry._replace(id=f"{number:032x}", key=f"key-{number % 4}", admitted_at_us=moved))
    chance.shuffle(lines)
    while lines:
        ledger.apply([lines.pop() for _ in range(min(len(lines), chance.randrange(1, 40)))])
    for since_us in (0, MIDNIGHT_US, MIDNIGHT_US + DAY_US, MIDNIGHT_US + 2 * DAY_US):
        found, expected = ledger.sums_since(since_us), added_up(url, since_us)
        assert {owner: ns for owner, ns in found.spent.keys.items() if ns} == expected.spent.keys
        assert {owner: ns for owner, ns in found.jobs.teams.items() if ns} == expected.jobs.teams


def test_an_older_ledger_is_added_up_once(url: str) -> None:
    """What purchases have cost under an earlier release is in the sums of their days."""
    database = Database(url, may_make=True)
    with database.writing() as connection:
        command.upgrade(config_of(connection), "0003")
        rows = [settled(1), settled(2), unknown(3, admitted_at_us=MIDNIGHT_US - 1), held(4), settled(5, cost_ns=None)]
        connection.execute(PURCHASES.insert(), [row._asdict() for row in rows])
    database.close()
    ledger = Ledger(url)
    ledger.migrate()
    assert ledger.sums_since(MIDNIGHT_US).spent.keys == {"web-prod": 100_000_000}
    assert ledger.sums_since(MIDNIGHT_US - DAY_US).spent.keys == {"web-prod": 125_000_000}
    ledger.close()


def test_a_day_is_forgotten_when_it_has_ended(url: str, ledger: Ledger) -> None:
    """The table holds no more days than purchases are kept for."""
    ledger.apply([settled(1, admitted_at_us=MIDNIGHT_US - 1), settled(2)])
    ledger.forget(MIDNIGHT_US)
    database = Database(url)
    with database.reading() as connection:
        assert connection.execute(select(DAILY_TOTALS.c.day)).scalars().all() == [MIDNIGHT_US // DAY_US]
    database.close()


def test_garbled_figures_hold_nothing_up(ledger: Ledger) -> None:
    """A day's sum ends well below 64 bits, so that a month of such days still adds up."""
    for day in range(31):
        rows = [settled(day * 200 + number, cost_ns=MOST_NS, admitted_at_us=day * DAY_US) for number in range(200)]
        ledger.apply(rows)
    assert ledger.sums_since(0).spent.keys == {"web-prod": 31 * MOST_DAY_NS}


def test_no_purchase_is_read_that_is_not_open(ledger: Ledger, url: str) -> None:
    """Both figures come by an index of their own, however many purchases there are: SQLite shows its plan."""
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL plans by how many rows there are")
    ledger.apply([settled(1), bound(2)])
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        statement = SUMS.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", [0] * 6))
    assert "SEARCH fal_gateway_daily_totals USING" in plan, plan
    assert "SEARCH fal_gateway_purchases USING INDEX fal_gateway_purchases_held (admitted_at_us>?)" in plan, plan
