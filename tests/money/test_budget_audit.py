"""Budgets in memory are compared with the ledger, and equal it whatever has happened to either of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.ledger.entry import RECONCILED
from gateway.ledger.folder import claim_folder
from gateway.ledger.journal import Journal
from gateway.ledger.spool import Spool
from gateway.policy.budget import period_start
from gateway.policy.quota import NO_LIMITS
from gateway.state.holdings import Hold
from gateway.state.local import LocalStore, Quotas
from gateway.state.store import Ask
from tests.ledger.rows import settled
from tests.money.test_midnight import BEFORE, BUDGETS, UP, Gateway, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        sums = gateway._quotas.purses.applied_sums(budget.store_name, (0,))
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

    def __init__(self, folder: Path, gateway: Gateway, seats: int) -> None:
        self.folder = claim_folder(folder / "spool", "own")
        self.journal = Journal(self.folder.path, name="worker-0")
        self.spool = Spool(folder / "spool", self.folder.path)
        self.quotas = Quotas(seats=seats, places=8, address_places=8)
        self.store = LocalStore(self.quotas, wall=lambda: gateway.now, lines=self.journal)
        self.numbers = 0
        self.gateway = gateway

    def buy(self, cost_ns: int) -> None:
        """Buy and settle, and end the turn."""
        self.numbers += 1
        hold = Hold((DAY,), cost_ns)
        assert self.store.ask(Ask("one", NO_LIMITS, "", hold), lambda _verdict: None)
        self.store.settle(hold, cost_ns)
        at_us = int(self.gateway.now * 10**6)
        row = settled(self.numbers, key="web", cost_ns=cost_ns, admitted_at_us=at_us)
        self.journal.append(row.to_line())
        self.store.write()
        self.journal.flush()

    def apply(self) -> None:
        """Bring the journal to the ledger."""
        batch = self.spool.read(100)
        self.gateway.ledger.apply(batch.entries)
        self.spool.applied(batch)

    def close(self) -> None:
        """Let go of everything."""
        self.journal.close()
        self.spool.close()
        self.folder.close()
        self.quotas.close()


@pytest.mark.parametrize("seats", [1, 2])
def test_what_is_on_its_way_to_the_ledger_is_no_difference(tmp_path: Path, gateway: Gateway, seats: int) -> None:
    """A budget is lowered only when the ledger has all that workers counted; it is raised at any moment."""
    from gateway.local_budgets import LocalBudgets  # noqa: PLC0415

    gateway.ledger.forget(2**62)
    gateway.now = BEFORE
    worker = Worker(tmp_path, gateway, seats)
    rest = [0] * (seats - 1)
    budgets = LocalBudgets(
        worker.quotas,
        gateway.ledger,
        applied=lambda: [worker.spool.own_journals().get("worker-0", 0), *rest],
        wall=lambda: gateway.now,
    )

    def spent() -> int:
        budgets.audit_soon()
        budgets.keep((DAY,), is_ledger_up=True)
        return budgets.purse(DAY).spent_ns

    budgets.keep((DAY,), is_ledger_up=True)
    worker.buy(3)
    assert spent() == 3
    worker.apply()
    assert spent() == 3
    worker.buy(2)
    worker.quotas.purses.add(DAY.store_name, period_start("day", gateway.now), spent_ns=2, jobs_ns=1)
    assert spent() == 7, "it may be right until the ledger has all"
    worker.apply()
    assert (spent(), budgets.purse(DAY).held_ns) == (5, 0)
    worker.buy(1)
    worker.quotas.purses.add(DAY.store_name, period_start("day", gateway.now), spent_ns=-6, jobs_ns=0)
    assert spent() == 5, "no less than the ledger has"
    worker.apply()
    assert spent() == 6
    worker.close()
