"""Random sequences of what moves money, in one process: the sums that decide are those of what happened.

The decision it carries: test_totals.py goes through real processes, too slow to be shrunk to the few steps that matter.
Here fifty sequences take a second or two, and a failure names its shortest one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.policy.budget import period_start
from tests.money.test_midnight import BEFORE, BUDGETS, Gateway, Rules, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY_SECONDS: Final = 86_400
RUN, SUBMIT, FETCH, CANCEL, WAIT, RESTART = "run", "submit", "fetch", "cancel", "wait", "restart"
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just(RUN), st.integers(1, 9), st.integers(0, 9)),
        st.tuples(st.just(SUBMIT), st.integers(1, 9), st.just(0)),
        st.tuples(st.just(FETCH), st.integers(0, 5), st.integers(0, 9)),
        st.tuples(st.just(CANCEL), st.integers(0, 5), st.just(0)),
        st.tuples(st.just(WAIT), st.sampled_from([2, 30, 90, DAY_SECONDS]), st.just(0)),
        st.tuples(st.just(RESTART), st.just(0), st.just(0)),
    ),
    max_size=25,
)


class Bought:
    """One purchase as it should be: `held` its estimate, until it came to what it `spent`."""

    def __init__(self, at: float, *, held: int = 0, spent: int = 0) -> None:
        self.at, self.held, self.spent = at, held, spent
        self.is_settled = not held
        self.is_forgotten = False

    def end(self, spent: int) -> None:
        """Settle it, or release it where it cost nothing; once settled it stays so."""
        if not self.is_settled and not self.is_forgotten:
            self.held, self.spent, self.is_settled = 0, spent, spent > 0


class Books:
    """What should be in the sums, kept beside a gateway that does the same."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.bought: list[Bought] = []
        self.jobs: list[Bought] = []

    def sums(self) -> Sums:
        """Return what should be spent and held in the periods that are now."""
        told: Sums = {}
        for budget in BUDGETS:
            start = period_start(budget.period, self.gateway.now)
            inside = [each for each in self.bought if each.at >= start]
            told[budget.period] = (sum(each.spent for each in inside), sum(each.held for each in inside))
        return told

    def has_room(self, estimate: int) -> bool:
        """Say whether every budget has room for so much more."""
        sums = self.sums()
        return all(sum(sums[budget.period]) + estimate <= budget.limit_ns for budget in BUDGETS)

    def step(self, what: str, number: int, units: int) -> None:
        """Do one thing, in both books."""
        if what in (RUN, SUBMIT):
            self._buy(what, number, units)
        elif what == WAIT:
            self.gateway.now += number
        elif what == RESTART:
            self.gateway.restart()
            self._restarted()
        elif number < len(self.jobs):
            self.jobs[number].end(units if what == FETCH else 0)
            if what == FETCH:
                self.gateway.fetch(units, job_id=f"job-{number}")
            else:
                self.gateway.cancel(f"job-{number}")

    def _buy(self, what: str, estimate: int, units: int) -> None:
        now, has_room = self.gateway.now, self.has_room(estimate)
        if what == RUN:
            purchase = self.gateway.buy(estimate=estimate)
            is_granted = purchase is not None
            if is_granted:
                self.gateway.settle(purchase, units)
                self.bought.append(Bought(now, spent=units))
        else:
            is_granted = self.gateway.submit(estimate=estimate, job_id=f"job-{len(self.jobs)}") is not None
            if is_granted:
                self.jobs.append(Bought(now, held=estimate))
                self.bought.append(self.jobs[-1])
        assert is_granted == has_room

    def _restarted(self) -> None:
        """A gateway that begins charges what is overdue, and remembers what was given back for a day."""
        for job in self.jobs:
            if job.held and job.at < self.gateway.now - Rules.settle_deadline:
                job.end(job.held)
            job.is_forgotten |= not job.held and job.at < self.gateway.now - DAY_SECONDS


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return the gateway of all sequences, each of which finds an empty ledger."""
    made = Gateway(f"sqlite:///{tmp_path_factory.mktemp('sequences')}/ledger.db")
    yield made
    made.close()


@given(STEPS)
@settings(derandomize=True, database=None, deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))
def test_sums_are_those_of_what_happened(gateway: Gateway, steps: list[tuple[str, int, int]]) -> None:
    """Whatever is bought, fetched, cancelled, waited for and restarted; and what has room is admitted, nothing else."""
    gateway.ledger.forget(2**62)
    gateway.now = BEFORE
    gateway.restart()
    books = Books(gateway)
    for step in steps:
        books.step(*step)
        assert gateway.sums == books.sums(), step
