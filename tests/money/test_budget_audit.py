"""Budgets in memory are compared with the ledger, and equal it whatever has happened to either of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ledger.entry import RECONCILED
from gateway.ledger.journal import Journal
from gateway.ledger.spool import Spool
from gateway.ledger.spool_folder import claim_folder
from gateway.money.local_budget_sync import LocalBudgetSync
from gateway.policy.budget import period_start
from gateway.policy.quota import NO_LIMITS
from gateway.state.interface import Acquire
from gateway.state.memory.store import LocalStore, Quotas
from gateway.state.memory.worker_budgets import Reservation
from tests.ledger.rows import settled
from tests.money.test_midnight import BEFORE, BUDGETS, UP, Gateway, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DAY_SECONDS: Final = 86_400
DAY, WEEK, MONTH = BUDGETS
BUY, SUBMIT, FETCH, BILL, LOSE, JUMP = "buy", "submit", "fetch", "bill", "lose", "jump"
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just(BUY), st.integers(1, 9), st.integers(0, 9)),
        st.tuples(st.just(SUBMIT), st.integers(1, 9), st.just(0)),
        st.tuples(st.just(FETCH), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just(BILL), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just(LOSE), st.integers(-9, 9), st.integers(-9, 9)),
        st.tuples(st.just(JUMP), st.sampled_from([-DAY_SECONDS, DAY_SECONDS, 8 * DAY_SECONDS]), st.just(0)),
    ),
    max_size=12,
)


def audited(gateway: Gateway) -> Sums:
    """Return the sums after a comparison."""
    gateway.keeper._sums.audit_soon()
    gateway.keeper.on_gauges(UP)
    return gateway.sums


def ledger_sums(gateway: Gateway) -> Sums:
    """Return what the ledger has of the periods that are now."""
    told: Sums = {}
    for budget in BUDGETS:
        spent, jobs = gateway.ledger.sums_since(period_start(budget.period, gateway.now) * 10**6)
        told[budget.period] = (spent.of(budget.owner), jobs.of(budget.owner))
    return told


def step(gateway: Gateway, what: str, number: int, units: int) -> None:
    """Do one thing to the gateway, or to what it remembers."""
    if what == BUY:
        purchase = gateway.buy(estimate=number)
        if purchase is not None:
            gateway.settle(purchase, units)
    elif what == SUBMIT:
        gateway.submit(estimate=number, job_id=f"job-{gateway._numbers + 1}")
    elif what == FETCH:
        gateway.fetch(units, job_id=f"job-{number}")
    elif what == BILL:
        row = gateway.ledger.find_job(f"job-{number}")
        if row is not None:  # as `fal-gateway reconcile` does it, of which the gateway is told nothing
            gateway.ledger.apply([row._replace(status=RECONCILED, source="reconciled", cost_ns=units)])
    elif what == LOSE:
        start = period_start("week", gateway.now)
        gateway._quotas.purses.add(WEEK.store_name, start, spent_ns=number, jobs_ns=units)
    else:
        gateway.now += number


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return the gateway of all sequences, each of which finds an empty ledger."""
    made = Gateway(f"sqlite:///{tmp_path_factory.mktemp('audit')}/ledger.db")
    yield made
    made.close()


@given(STEPS)
@settings(derandomize=True, database=None, deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
def test_budgets_equal_the_ledger_after_a_comparison(gateway: Gateway, steps: list[tuple[str, int, int]]) -> None:
    """Whatever was bought, lost from memory, or billed by another program, and wherever the clock has been."""
    gateway.ledger.forget(2**62)
    gateway.now = BEFORE
    gateway.restart()
    for each in steps:
        step(gateway, *each)
    audited(gateway)
    expected = ledger_sums(gateway)
    for budget in BUDGETS:
        start = period_start(budget.period, gateway.now)
        sums = gateway._quotas.purses.cut(budget.store_name)
        if sums is not None and sums.start == start:  # else nobody has asked for anything since the period began
            assert (sums.spent_ns, sums.jobs_ns) == expected[budget.period]
    gateway.restart()  # which charges what is overdue
    assert audited(gateway) == ledger_sums(gateway)


def test_a_clock_that_was_a_day_ahead_leaves_the_days_budget_as_it_was(gateway: Gateway) -> None:
    """What was spent before the jump is spent after it, and so is what was spent meanwhile."""
    gateway.ledger.forget(2**62)
    gateway.now = BEFORE
    gateway.restart()
    gateway.settle(gateway.buy(estimate=3), 3)
    gateway.now = BEFORE + DAY_SECONDS
    gateway.settle(gateway.buy(), 1)
    gateway.now = BEFORE
    assert audited(gateway)["day"] == (4, 0)
    assert gateway.buy(estimate=7) is None
    gateway.settle(gateway.buy(estimate=6), 6)
    assert gateway.sums["day"] == (10, 0)


class Worker:
    """One worker over a journal, and the spool and the comparison of its gateway."""

    def __init__(self, folder: Path, gateway: Gateway, slots: int) -> None:
        self.folder = claim_folder(folder / "spool", "own")
        self.journal = Journal(self.folder.path, name="worker-0")
        self.spool = Spool(folder / "spool", self.folder.path)
        self.quotas = Quotas(slots=slots, places=8, address_places=8)
        self.store = LocalStore(self.quotas, wall=lambda: gateway.now, lines=self.journal)
        self.numbers = 0
        self.gateway = gateway

    def buy(self, cost_ns: int) -> None:
        """Buy and settle, and end the turn."""
        self.numbers += 1
        hold = Reservation((DAY,), cost_ns)
        assert self.store.ask(Acquire("one", NO_LIMITS, "", hold), lambda _verdict: None)
        self.store.settle(hold, cost_ns)
        at_us = int(self.gateway.now * 10**6)
        row = settled(self.numbers, key="web", cost_ns=cost_ns, admitted_at_us=at_us)
        self.journal.append(row.to_line())
        self.store.write()
        self.journal.flush()

    def apply_to(self, end: int) -> bool:
        """Bring the journal to the ledger up to a place, and nothing behind it; return whether all is there."""
        while not (batch := self.spool.read_until({"worker-0": end}, 1)).is_empty:
            self.gateway.ledger.apply(batch.entries)
            self.spool.applied(batch)
        return self.spool.own_journals()["worker-0"] >= end

    def close(self) -> None:
        """Let go of everything."""
        self.journal.close()
        self.spool.close()
        self.folder.close()
        self.quotas.close()


@pytest.mark.parametrize("slots", [1, 2])
def test_a_budget_that_is_spent_from_without_a_pause_is_corrected(tmp_path: Path, gateway: Gateway, slots: int) -> None:
    """Both sides are read at one cut: what is bought between the cut and the comparison is no difference."""
    gateway.ledger.forget(2**62)
    gateway.now = BEFORE
    worker = Worker(tmp_path, gateway, slots)
    start = period_start("day", gateway.now)
    reached: list[tuple[int, bool]] = []

    def apply_to(ends: Sequence[int]) -> bool:
        worker.buy(1)
        reached.append((ends[0], worker.apply_to(ends[0])))
        return reached[-1][1]

    budgets = LocalBudgetSync(worker.quotas, gateway.ledger, apply_to=apply_to, wall=lambda: gateway.now)

    def audited() -> tuple[int, int]:
        budgets.audit_soon()
        budgets.keep((DAY,), is_ledger_up=True)
        purse = budgets.purse(DAY)
        return purse.spent_ns - worker.numbers, purse.held_ns

    budgets.keep((DAY,), is_ledger_up=True)
    assert audited() == (0, 0)
    for spent_ns, jobs_ns in ((2, 0), (0, 1), (-1, 1)):
        worker.quotas.purses.add(DAY.store_name, start, spent_ns=spent_ns, jobs_ns=jobs_ns)
        assert audited() == (0, 0)
    spent, _ = gateway.ledger.sums_since(start * 10**6)
    assert spent.of(DAY.owner) < worker.numbers, "the ledger never had all while they were compared"
    assert len(reached) >= 8, "each difference was seen twice"
    assert all(is_there for _, is_there in reached)
    worker.close()


def test_a_budget_is_left_alone_while_the_ledger_cannot_have_what_it_counts(tmp_path: Path, gateway: Gateway) -> None:
    """A worker's journal that does not come as far as its budgets do says nothing of a difference."""
    gateway.ledger.forget(2**62)
    gateway.now = BEFORE
    worker = Worker(tmp_path, gateway, 2)
    budgets = LocalBudgetSync(worker.quotas, gateway.ledger, apply_to=lambda _ends: False, wall=lambda: gateway.now)
    budgets.keep((DAY,), is_ledger_up=True)
    worker.buy(3)
    budgets.audit_soon()
    budgets.keep((DAY,), is_ledger_up=True)
    assert budgets.purse(DAY).spent_ns == 3
    worker.close()
