"""What both databases do alike: rows that climb, money in whole nano-dollars, pages, and faults by their names."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from gateway.ledger.daily_totals import DAY_US
from gateway.ledger.entry import CHARGED, MOST_NS, Entry
from gateway.ledger.errors import LedgerUnavailableError, LedgerUnusableError
from gateway.ledger.ledger import Change, Holds, Ledger, Sum
from tests.harness.postgres import CANARY
from tests.ledger.rows import HOUR_US, NOON_US, bound, held, released, settled, unknown
from tests.ledger.test_entry import LIVES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.postgres import PostgresServer


def all_rows(ledger: Ledger) -> list[Entry]:
    """Return every row that has an id of fal's or is held, by way of the questions that show whole rows."""
    rows = {row.id: row for row in ledger.overdue(2**52)}
    rows |= {row.id: row for row in ledger.unreconciled(0, 2**52)}
    return sorted(rows.values())


def test_a_batch_tells_what_changed_and_from_what(ledger: Ledger) -> None:
    """A new row has no old state, a purchase changes once in a batch, and what says nothing new changes nothing."""
    assert ledger.apply([]) == []
    assert ledger.apply([held(1), settled(1), held(2)]) == [Change(None, settled(1)), Change(None, held(2))]
    assert ledger.apply([held(1), settled(1), held(2)]) == []
    assert ledger.apply([settled(2), settled(3)]) == [Change(None, settled(3)), Change(held(2), settled(2))]


@pytest.mark.parametrize("life", LIVES)
def test_any_order_of_batches_gives_the_same_row(ledger: Ledger, life: tuple[Entry, ...]) -> None:
    """The rule of the lines holds in the database too: shuffled, repeated, one a batch."""
    for number in range(8):
        told = [entry._replace(id=f"{number:032x}", fal_request_id=f"job-{number}") for entry in (*life, *life)]
        random.Random(number).shuffle(told)  # noqa: S311
        changes = [change for entry in told for change in ledger.apply([entry])]
        top = life[-1]
        assert (changes[-1].new.status, changes[-1].new.cost_ns) == (top.status, top.cost_ns)
    assert all(row.fal_request_id for row in all_rows(ledger))


def test_every_field_comes_back(ledger: Ledger) -> None:
    """A row is what was told, also where nothing is known and where figures are long."""
    bare = bound(1, units=None, unit=None, unit_price=None, estimate_ns=None)
    long = bound(2, units="0.123456789012345678901234567890", cost_ns=MOST_NS, estimate_ns=MOST_NS, endpoint="ä" * 300)
    ledger.apply([bare, long])
    assert ledger.open_jobs() == [bare, long]


def test_spending_is_of_charged_rows_since_a_moment(ledger: Ledger) -> None:
    """Unknown, settled and reconciled count, by key and by team; held, released and what has no cost do not."""
    ledger.apply(
        [
            settled(1),
            unknown(2, key="other"),
            settled(3, status="reconciled", cost_ns=7, team="legal", key="third"),
            held(4, cost_ns=9),
            released(5, key="quiet"),
            settled(6, cost_ns=None),
            settled(7, admitted_at_us=NOON_US - 1),
        ]
    )
    spending = ledger.spent_since(NOON_US)
    assert spending.keys == {"web-prod": 50_000_000, "other": 25_000_000, "third": 7}
    assert spending.teams == {"design": 75_000_000, "legal": 7}
    assert type(spending.keys["web-prod"]) is int
    assert ledger.spent_since(NOON_US + 1).keys == {}


def test_large_sums_are_exact(ledger: Ledger) -> None:
    """Ten thousand requests at the most that one may cost, more than 64 bits hold: whatever is added up."""
    ledger.apply([settled(number, cost_ns=MOST_NS - 1) for number in range(10_000)])
    ledger.apply([held(number, estimate_ns=MOST_NS - 1) for number in range(10_000, 20_000)])
    assert ledger.spent_since(0).teams == {"design": 10_000 * (MOST_NS - 1)}
    assert [part.cost_ns for part in ledger.usage(0, 2**53, by=("team",))] == [10_000 * (MOST_NS - 1)]
    assert ledger.holds(0, 2**53).estimate_ns == 10_000 * (MOST_NS - 1)


def test_open_jobs_and_overdue_holds(ledger: Ledger) -> None:
    """A job is open while it is held under fal's id; a hold is overdue by its age, without an id perhaps by another."""
    ledger.apply([bound(1), held(2), settled(3, fal_request_id="job-3"), bound(4, admitted_at_us=NOON_US - HOUR_US)])
    assert [row.fal_request_id for row in ledger.open_jobs()] == ["job-4", "job-1"]
    assert [row.id[-1] for row in ledger.overdue(NOON_US)] == ["4"]
    assert [row.id[-1] for row in ledger.overdue(NOON_US + 1)] == ["4", "1", "2"]
    assert [row.id[-1] for row in ledger.overdue(NOON_US + 1, unbound_before_us=NOON_US)] == ["4", "1"]
    found = ledger.find_job("job-3")
    assert found == settled(3, fal_request_id="job-3")
    assert ledger.find_job("nobody") is None


def test_the_latest_jobs_that_came_to_a_cost(ledger: Ledger) -> None:
    """Jobs in every state that counts as spent, the oldest first; runs, open and cancelled ones are left out."""
    jobs = [
        settled(number, kind="submit", fal_request_id=f"job-{number}", admitted_at_us=NOON_US + number)
        for number in range(1, 5)
    ]
    others = [settled(6), bound(7), released(8, kind="submit", fal_request_id="job-8"), settled(9, kind="submit")]
    ledger.apply([*others, *jobs, unknown(5, kind="submit", fal_request_id="job-5", admitted_at_us=NOON_US + 5)])
    assert [row.fal_request_id for row in ledger.charged_jobs(0, most=3)] == ["job-3", "job-4", "job-5"]
    assert [row.fal_request_id for row in ledger.charged_jobs(NOON_US + 5, most=3)] == ["job-5"]


def test_purchases_are_found_by_the_ids_on_a_bill(ledger: Ledger) -> None:
    """A thousand ids at once, in whatever state the rows are; an id that nobody bought under finds nothing."""
    rows = [settled(number, fal_request_id=f"job-{number}") for number in range(3)]
    ledger.apply([*rows, settled(4, status="reconciled", fal_request_id="job-4"), bound(5), settled(6)])
    found = ledger.find_billed([f"job-{number}" for number in range(1, 1001)])
    assert sorted(row.id[-1] for row in found) == ["1", "2", "4", "5"]
    assert ledger.find_billed([]) == []


def test_unreconciled_rows_come_in_pages(ledger: Ledger) -> None:
    """Pages cover all rows of a span once, also where many were admitted in the same microsecond."""
    rows = [
        settled(number, fal_request_id=f"job-{number}", admitted_at_us=NOON_US + number // 10) for number in range(95)
    ]
    done = settled(99, status="reconciled", fal_request_id="job-99")
    ledger.apply([*rows, done, settled(200), settled(201, fal_request_id="late", admitted_at_us=NOON_US + 10)])
    pages, after = [], None
    while page := ledger.unreconciled(NOON_US, NOON_US + 10, after=after, most=20):
        pages.append(page)
        after = page[-1]
    assert [len(page) for page in pages] == [20, 20, 20, 20, 15]
    assert [row for page in pages for row in page] == rows


def test_usage_sums_by_names_and_source(ledger: Ledger) -> None:
    """One sum for each combination; an unknown cost is counted, and no cost at all is None."""
    ledger.apply(
        [
            settled(1),
            settled(2),
            unknown(3),
            settled(4, cost_ns=None, unit_price=None, endpoint="new"),
            settled(5, admitted_at_us=NOON_US + DAY_US),
            held(6),
            released(7),
        ]
    )
    day = NOON_US // DAY_US
    assert sorted(ledger.usage(NOON_US, NOON_US + 2 * DAY_US, by=("endpoint", "day")), key=str) == [
        Sum(("fal-ai/flux/dev", day), "exact", "megapixels", "2", 2, 0, 100_000_000),
        Sum(("fal-ai/flux/dev", day), "unknown", "megapixels", None, 1, 0, 25_000_000),
        Sum(("fal-ai/flux/dev", day + 1), "exact", "megapixels", "2", 1, 0, 50_000_000),
        Sum(("new", day), "exact", "megapixels", "2", 1, 1, None),
    ]
    assert ledger.usage(NOON_US, NOON_US, by=("team",)) == []
    assert ledger.holds(NOON_US, NOON_US + 1) == Holds(1, 25_000_000)
    assert ledger.holds(0, 1) == Holds(0, 0)


def test_what_is_old_is_forgotten(ledger: Ledger) -> None:
    """Rows admitted before the moment go, all of them, whatever their state."""
    ledger.apply([settled(1, admitted_at_us=5), held(2, admitted_at_us=6), settled(3)])
    assert (ledger.forget(6), ledger.forget(6), ledger.forget(7)) == (1, 0, 1)
    assert set(ledger.spent_since(0).teams.values()) == {50_000_000}


def test_a_hundred_thousand_rows_are_no_burden(ledger: Ledger) -> None:
    """They are applied, reported, and forgotten within the time of a test; the real figures are far below."""
    before = time.monotonic()
    for start in range(0, 100_000, 1_000):
        rows = [settled(start + number, units=f"{number}.5") for number in range(1_000)]
        assert len(ledger.apply(rows)) == 1_000
    sums = ledger.usage(0, 2**52, by=("team", "key", "endpoint", "day"))
    assert sum(part.requests for part in sums) == 100_000
    assert ledger.spent_since(0).keys == {"web-prod": 100_000 * 50_000_000}
    assert ledger.forget(2**52) == 100_000
    assert time.monotonic() - before < 60


def test_the_states_of_spending_are_those_of_the_contract() -> None:
    """Held and released are no spending."""
    assert set(CHARGED) == {"unknown", "settled", "reconciled"}


QUESTIONS: tuple[Callable[[Ledger], object], ...] = (
    Ledger.migrate,
    Ledger.open_jobs,
    lambda ledger: ledger.apply([held()]),
    lambda ledger: ledger.spent_since(0),
    lambda ledger: ledger.usage(0, 1, by=("team",)),
    lambda ledger: ledger.forget(0),
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_database_that_is_not_there_is_one_fault(question: Callable[[Ledger], object], tmp_path: Path) -> None:
    """Whatever is asked, the fault has one name, and its text no password."""
    for url in (f"sqlite:///{tmp_path}/no/folder/x.db", f"postgresql://me:{CANARY}@127.0.0.1:1/x"):
        with pytest.raises(LedgerUnavailableError) as raised:
            question(Ledger(url))
        assert str(raised.value)
        assert CANARY not in f"{raised.value!r}{raised.value.__cause__!r}"


def test_the_password_is_hidden_wherever_it_stands() -> None:
    """Whatever a driver says, the password is not in it; here it is a word of the driver's own."""
    with pytest.raises(LedgerUnavailableError) as raised:
        Ledger("postgresql://me:refused@127.0.0.1:1/x").open_jobs()
    assert "***" in str(raised.value)
    assert "refused" not in str(raised.value)


def test_an_unknown_database_on_a_real_server_is_a_fault(postgres: PostgresServer) -> None:
    """The server's own words are passed on: they name what an operator must make."""
    with pytest.raises(LedgerUnavailableError, match='database "nowhere" does not exist') as raised:
        Ledger(postgres.url("nowhere")).migrate()
    assert CANARY not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "mysql://h/d",
        "no url",
        f"postgresql://u:{CANARY}@h:port/d",
    ],
)
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    """What could never work is told before anything is connected to, without quoting what may be a secret."""
    with pytest.raises(LedgerUnusableError) as raised:
        Ledger(url)
    assert CANARY not in str(raised.value)
