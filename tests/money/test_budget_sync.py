"""What fal's bill changes in the sums of budgets, once the ledger has it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

import pytest

from gateway.ledger.entry import RECONCILED, RELEASED, Entry
from gateway.ledger.ledger import Ledger
from gateway.ledger.writer import Gauges
from gateway.money.budget_sync import BudgetSync
from gateway.money.known_jobs import job_of
from gateway.policy.budget import Budget
from gateway.policy.job import SETTLED
from gateway.state.memory.jobs import JobTable
from gateway.state.memory.store import Quotas
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.metrics.scoreboard import Scoreboard
from tests.ledger.rows import bound, settled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gateway.config.ruleset import Ruleset
    from gateway.ledger.ledger import Change

MONTH: Final = Budget("key/web-prod", "month", 10**9)
TRUE_NS: Final = 40_000_000


class Rules:
    """As much of a ruleset as a budget sync asks for."""

    budgets: Final = {MONTH.owner: (MONTH,)}
    settle_deadline: Final = 86_400.0


class Desk:
    """A budget sync over a real ledger and real shared memory."""

    def __init__(self, url: str, rows: list[Entry]) -> None:
        self.ledger = Ledger(url)
        self.ledger.migrate()
        self.ledger.apply(rows)
        self.quotas, self.jobs = Quotas(places=8, address_places=8), JobTable(sets=1)
        scoreboard = Scoreboard(workers=1)
        self.keeper = BudgetSync(
            self.ledger,
            quotas=self.quotas,
            jobs=self.jobs,
            meter=Meter(scoreboard.ledger.region, scoreboard.endpoints, emit=lambda _record: None),
            rules=lambda: cast("Ruleset", Rules()),
            ready=lambda: None,
        )
        self.tick()

    def tick(self) -> None:
        """Let the keeper look, as after each attempt of the ledger's process."""
        self.keeper.on_gauges(Gauges(is_up=True, spool_bytes=0, oldest_seconds=0.0, applied=0, skipped=0))

    @property
    def sums(self) -> tuple[int, int]:
        """Spent and held of the budget."""
        ((_, purse),) = self.keeper.purses()
        return purse.spent_ns, purse.held_ns

    def reconcile(self, row: Entry) -> None:
        """Bring the true cost of a purchase to the ledger and its keeper."""
        true = row._replace(status=RECONCILED, source="reconciled", cost_ns=TRUE_NS)
        self.ledger.apply([row])
        self.keeper.on_reconciled(self.ledger.apply([true]))
        self.tick()

    def close(self) -> None:
        """Let go of everything."""
        self.ledger.close()
        self.quotas.close()
        self.jobs.close()


@pytest.fixture
def now_us() -> int:
    """Return a moment of the present month."""
    return time.time_ns() // 1_000


@pytest.fixture
def job(now_us: int) -> Entry:
    """Return a job that is held."""
    return bound(1, admitted_at_us=now_us, changed_at_us=now_us)


@pytest.fixture
def services(tmp_path: Path, job: Entry, now_us: int) -> Iterator[Desk]:
    """Return a keeper whose ledger knows a job that is held, and a run that was settled."""
    opened = Desk(f"sqlite:///{tmp_path}/ledger.db", [job, settled(2, admitted_at_us=now_us, changed_at_us=now_us)])
    yield opened
    opened.close()


def test_sums_are_the_ledgers(services: Desk, job: Entry) -> None:
    """What was settled is spent, what jobs hold is held, and a job is found by fal's id."""
    assert services.sums == (50_000_000, job.estimate_ns)
    assert services.jobs.find("job-1") == job_of(job)


def test_a_bill_corrects_what_was_spent(services: Desk, now_us: int) -> None:
    """By the difference between what was charged and what fal billed."""
    services.reconcile(settled(2, admitted_at_us=now_us, changed_at_us=now_us))
    assert services.sums == (TRUE_NS, 25_000_000)


def test_a_bill_before_the_result_ends_the_hold(services: Desk, job: Entry) -> None:
    """The job has come to its cost: it holds no more, and a result fetched later is not charged again."""
    services.reconcile(job)
    assert services.sums == (50_000_000 + TRUE_NS, 0)
    assert services.jobs.close_job("job-1", SETTLED) is None


def test_a_bill_for_a_job_that_was_given_back_is_charged_once(services: Desk, job: Entry) -> None:
    """Cancelled, and billed all the same: a result that came first, or comes later, is not counted beside the bill."""
    for number, is_fetched in ((5, False), (6, True)):
        name = f"job-{number}"
        row = job._replace(id=f"{number:032x}", fal_request_id=name, status=RELEASED, cost_ns=0)
        services.jobs.remember(name, job_of(row))
        if is_fetched:
            assert services.jobs.close_job(name, SETTLED) is not None  # the accounting counts what this result says
        services.reconcile(row)
        assert services.jobs.close_job(name, SETTLED) is None
    assert services.sums == (50_000_000 + 2 * TRUE_NS, job.estimate_ns)


def test_a_job_whose_settler_left_no_line_is_charged_after_some_deadlines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now_us: int
) -> None:
    """Somebody settled it and died before writing that down: it is not held for longer than four deadlines more."""
    monkeypatch.setattr(Rules, "settle_deadline", 60.0)
    services = Desk(f"sqlite:///{tmp_path}/ledger.db", [])
    for number, age_seconds in ((1, 200), (2, 400)):
        admitted_at_us = now_us - age_seconds * 1_000_000
        row = bound(number, admitted_at_us=admitted_at_us, changed_at_us=admitted_at_us)
        services.ledger.apply([row])
        services.jobs.remember(f"job-{number}", job_of(row))
        services.jobs.close_job(f"job-{number}", SETTLED)
    services.keeper._deadline_look_at = 0.0
    services.tick()
    assert [row.fal_request_id for row in services.ledger.overdue(now_us, unbound_before_us=0, after=None)] == ["job-1"]
    services.close()


def test_a_result_in_the_moment_of_the_deadline_is_not_counted_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now_us: int
) -> None:
    """The job is closed before it is charged: a result that is fetched meanwhile changes nothing of its money."""
    monkeypatch.setattr(Rules, "settle_deadline", 60.0)
    services = Desk(f"sqlite:///{tmp_path}/ledger.db", [])
    row = bound(1, admitted_at_us=now_us - 200_000_000, changed_at_us=now_us - 200_000_000)
    services.ledger.apply([row])
    services.jobs.remember("job-1", job_of(row))
    charge, closed = services.ledger.apply, []

    def fetched_meanwhile(entries: Sequence[Entry]) -> list[Change]:
        closed.append(services.jobs.close_job("job-1", SETTLED))
        return charge(entries)

    monkeypatch.setattr(services.ledger, "apply", fetched_meanwhile)
    services.keeper._deadline_look_at = 0.0
    services.tick()
    assert closed == [None]
    assert services.ledger.overdue(now_us, unbound_before_us=0, after=None) == []
    services.close()
