"""Money about midnight UTC: what was admitted before belongs to the period before, wherever its cost becomes known.

The decision it carries: accounting, shared memory, ledger and budget sync are real, and run on a clock that a test
sets. The midnight is one at which a day and a month end and a week does not: the week has what the others must not
have.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, cast

import pytest
from structlog.testing import capture_logs

from gateway.fal.calls import Call
from gateway.ledger.entry import RECONCILED, Entry, from_line
from gateway.ledger.ledger import Change, Ledger
from gateway.ledger.writer import Gauges
from gateway.money.accounting import Accounting
from gateway.money.budget_sync import BudgetSync
from gateway.money.purchase import Purchase, RequestResult
from gateway.platform.published import Published
from gateway.policy.budget import Budget
from gateway.policy.credential import Principal
from gateway.policy.price import Estimates, Price
from gateway.policy.quota import NO_LIMITS
from gateway.processes.overseer import Overseer
from gateway.state.interface import Acquire
from gateway.state.memory.jobs import JobTable, LocalJobs
from gateway.state.memory.store import LocalStore, Quotas
from gateway.telemetry.metrics.meter import Meter
from gateway.telemetry.metrics.scoreboard import Scoreboard
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.config.ruleset import Ruleset
    from gateway.processes.shared import Shared

MIDNIGHT: Final = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
"""A Tuesday's beginning."""

BEFORE: Final = MIDNIGHT - 2
AFTER: Final = MIDNIGHT + 3
LIMIT: Final = 10
BUDGETS: Final = (
    Budget("key/web", "day", LIMIT, (0.5,)),
    Budget("key/web", "week", 10 * LIMIT, (0.5,)),
    Budget("key/web", "month", 2 * LIMIT),
)
WEB: Final = Principal("web", "design", None, None, None, budgets=BUDGETS)
FLUX: Final = "fal-ai/flux/dev"
RUN: Final = Call("run", "paid", FLUX, None, "run")
SUBMIT: Final = Call("queue", "paid", FLUX, None, "submit")
UP: Final = Gauges(is_up=True, spool_bytes=0, oldest_seconds=0.0, applied=0, skipped=0)
NANO: Final = 1_000
"""Picodollars of a unit's price: what is bought costs a nano-dollar a unit."""

Sums = dict[str, tuple[int, int]]


class Rules:
    """As much of a ruleset as is asked for; a job is overdue after a minute."""

    budgets: Final = {"key/web": BUDGETS}
    settle_deadline: Final = 60.0
    price_source: Final = "policy"
    budget_webhook: Final = None


class Gateway:
    """One gateway's money on the clock `now`, over a ledger that each of its lives finds again."""

    def __init__(self, url: str) -> None:
        self.now = BEFORE
        self.ledger = Ledger(url)
        self.ledger.migrate()
        self._numbers = 0
        self._prices: dict[str, Price] = {}
        self._begin()

    def _begin(self) -> None:
        self._quotas, self._jobs = Quotas(places=16, address_places=8), JobTable(sets=1)
        self._store = LocalStore(self._quotas, wall=lambda: self.now)
        self.scoreboard = Scoreboard(workers=1)
        self.meter = Meter(self.scoreboard.ledger.region, self.scoreboard.endpoints, emit=lambda _record: None)
        self.keeper = BudgetSync(
            self.ledger,
            quotas=self._quotas,
            jobs=self._jobs,
            meter=self.meter,
            rules=lambda: cast("Ruleset", Rules()),
            ready=lambda: None,
            wall=lambda: self.now,
        )
        self.keeper.on_gauges(UP)
        self.accounting = Accounting(
            prices=self._prices,
            budgets_of=lambda owner: BUDGETS if owner == "key/web" else (),
            refuses_unpriced=True,
            store=self._store,
            jobs=LocalJobs(self._jobs),
            journal=self,
            takings=self,
            estimates=Estimates(),
            wall=lambda: self.now,
        )

    def restart(self) -> None:
        """Forget all but the ledger."""
        self._quotas.close()
        self._jobs.close()
        self._begin()

    def is_full_for(self, key: str) -> bool:  # noqa: ARG002 (for everybody)
        """Say that there is room (`Journal`)."""
        return False

    def flush(self) -> bool:
        """Say that it is written (`Journal`)."""
        return True

    def append(
        self,
        line: bytes,
        refused: Callable[[], None] | None = None,  # noqa: ARG002 (never refused)
        optional: bool = False,  # noqa: ARG002, FBT001, FBT002 (and never dropped)
    ) -> None:
        """Bring a line to the ledger (`Journal`)."""
        entry = from_line(line)
        assert entry is not None
        self.ledger.apply([entry])

    def account(self, *_labels: str | None) -> Gateway:
        """Return where nothing is counted (`Takings`)."""
        return self

    def count(self, *_figures: object) -> None:
        """Count nothing (`Account`)."""

    def buy(self, call: Call = RUN, *, estimate: int = 1) -> Purchase | None:
        """Admit a request that is estimated at so many nano-dollars; None where a budget has no room for it."""
        self._numbers += 1
        self._prices[FLUX] = Price("image", NANO, Decimal(estimate))
        purchase = self.accounting.open(WEB, call, f"{self._numbers:032x}")
        assert isinstance(purchase, Purchase)
        assert purchase.hold is not None
        verdict = self._store.ask(Acquire(purchase.id, NO_LIMITS, "", purchase.hold), lambda _verdict: None)
        assert verdict is not None
        if not verdict.granted:
            return None
        self.accounting.record(purchase, lambda: pytest.fail("it could not be written"))
        self._store.write()  # the turn ends
        return purchase

    def settle(self, purchase: Purchase | None, units: int) -> None:
        """Let a run be answered with so many units."""
        assert purchase is not None
        units_told = Decimal(units)
        self.accounting.close(
            purchase, RequestResult(was_sent=True, status=200, units=units_told, is_answered=True, fal_id="run")
        )
        self._store.write()

    def submit(self, *, estimate: int, job_id: str = "job-1") -> Entry | None:
        """Submit a job; return its row, None where a budget has no room for it."""
        purchase = self.buy(SUBMIT, estimate=estimate)
        if purchase is None:
            return None
        self.accounting.bind(purchase, job_id, lambda: None)
        return self.row(job_id)

    def fetch(self, units: int, *, job_id: str = "job-1") -> None:
        """Fetch a job's result."""
        result = Call("queue", "free", "fal-ai/flux", job_id, "result")
        self.accounting.job_answered(result, 200, Decimal(units), lambda _charge: None)

    def cancel(self, job_id: str) -> None:
        """Cancel a job; fal says that it was in the queue."""
        cancel = Call("queue", "free", "fal-ai/flux", job_id, "cancel")
        self.accounting.job_answered(cancel, 202, None, lambda _charge: None)

    def row(self, fal_id: str) -> Entry:
        """Return the row of what fal knows under an id."""
        entry = self.ledger.find_job(fal_id)
        assert entry is not None
        return entry

    @property
    def sums(self) -> Sums:
        """What is spent and held, by period."""
        return {budget.period: (purse.spent_ns, purse.held_ns) for budget, purse in self.keeper.purses()}

    def close(self) -> None:
        """Let go of everything."""
        self.ledger.close()
        self._quotas.close()
        self._jobs.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """Return a gateway, two seconds before midnight."""
    made = Gateway(f"sqlite:///{tmp_path}/ledger.db")
    yield made
    made.close()


def in_week(spent: int, held: int = 0) -> Sums:
    """Return the sums where all belongs to the week alone."""
    return {"day": (0, 0), "week": (spent, held), "month": (0, 0)}


def test_a_run_over_midnight_belongs_to_the_day_before(gateway: Gateway) -> None:
    """Its cost burdens no period that began meanwhile; a gateway that starts then reads the same out of the ledger."""
    purchase = gateway.buy(estimate=3)
    assert set(gateway.sums.values()) == {(0, 3)}
    gateway.now = AFTER
    assert gateway.sums["day"] == gateway.sums["month"] == (0, 0)
    gateway.settle(purchase, 4)
    assert gateway.row("run").admitted_at_us == BEFORE * 10**6
    assert gateway.sums == in_week(4)
    gateway.restart()
    assert gateway.sums == in_week(4)


@pytest.mark.parametrize("restarts", [False, True], ids=["of one life", "over a restart"])
def test_a_job_over_midnight_belongs_to_the_day_of_its_submit(gateway: Gateway, *, restarts: bool) -> None:
    """It holds nothing of the new day and month, and its result costs them nothing."""
    gateway.submit(estimate=3)
    gateway.now = AFTER
    if restarts:
        gateway.restart()
    assert gateway.sums == in_week(0, held=3)
    gateway.fetch(5)
    assert gateway.sums == in_week(5)
    gateway.restart()
    assert gateway.sums == in_week(5)


def test_an_overdue_job_is_charged_to_the_day_of_its_submit(gateway: Gateway) -> None:
    """Also where the month has changed before its deadline was over."""
    entry = gateway.submit(estimate=3)
    assert entry is not None
    gateway.now = AFTER + Rules.settle_deadline
    gateway.restart()
    charged = gateway.row("job-1")
    assert charged == entry._replace(
        status="settled", source="estimated", cost_ns=3, changed_at_us=int(gateway.now * 10**6)
    )
    assert gateway.sums == in_week(3)


def test_a_bill_of_last_month_corrects_nothing_of_this_one(gateway: Gateway) -> None:
    """It corrects the week that both months share."""
    gateway.settle(gateway.buy(), 4)
    gateway.now = AFTER
    old = gateway.row("run")
    new = old._replace(status=RECONCILED, source="reconciled", cost_ns=7)
    assert gateway.ledger.apply([new]) == [Change(old, new)]
    gateway.keeper.on_reconciled([Change(old, new)])
    gateway.keeper.on_gauges(UP)
    assert gateway.sums == in_week(7)
    gateway.restart()
    assert gateway.sums == in_week(7)


def test_budgets_start_anew_at_midnight(gateway: Gateway) -> None:
    """Not a moment sooner: the last of a day's budget is spent until the next day's first second."""
    gateway.settle(gateway.buy(), LIMIT)
    gateway.now = MIDNIGHT - 0.001
    assert gateway.buy() is None
    gateway.now = MIDNIGHT
    gateway.settle(gateway.buy(), LIMIT)
    assert gateway.sums == {"day": (LIMIT, 0), "week": (2 * LIMIT, 0), "month": (LIMIT, 0)}
    assert gateway.buy() is None


@pytest.mark.parametrize("life", ["before", "after"])
def test_a_keeper_that_starts_about_midnight_fills_in_its_own_period(gateway: Gateway, life: str) -> None:
    """Up to the last second it is the old month's sum; what it filled in then is nothing to the new one."""
    gateway.settle(gateway.buy(), 4)
    gateway.now = MIDNIGHT - 0.001 if life == "before" else MIDNIGHT
    gateway.restart()
    if life == "before":
        assert set(gateway.sums.values()) == {(4, 0)}
        gateway.now = MIDNIGHT
    assert gateway.sums == in_week(4)
    gateway.settle(gateway.buy(), 1)
    assert gateway.sums == {"day": (1, 0), "week": (5, 0), "month": (1, 0)}


def overseer_of(gateway: Gateway) -> Overseer:
    """Return what warns of a gateway's budgets, without fal or a webhook."""
    settings = SimpleNamespace(fal_admin_key=None, fal_key=None)
    shared = SimpleNamespace(settings=settings, statement=Published(), scoreboard=gateway.scoreboard, environ={})
    return Overseer(
        cast("Shared", shared),
        gateway.ledger,
        keeper=gateway.keeper,
        rules=lambda: cast("Ruleset", Rules()),
        region=gateway.scoreboard.ledger.region,
        meter=gateway.meter,
    )


def warned(overseer: Overseer) -> list[str]:
    """Let it look; return the periods of the budgets that it warns of."""
    until(lambda: monotonic() >= overseer._look_at, "the next look")
    with capture_logs() as events:
        overseer.tick(is_up=True)
    return [event["period"] for event in events if event["event"] == "budget_warning"]


def test_a_budget_is_warned_of_once_a_period(gateway: Gateway) -> None:
    """Half of a day's is warned of on each day, once, also by a gateway that starts anew."""
    overseer = overseer_of(gateway)
    gateway.settle(gateway.buy(), LIMIT // 2 - 1)
    assert warned(overseer) == []
    gateway.settle(gateway.buy(), 1)
    assert (warned(overseer), warned(overseer)) == (["day"], [])
    gateway.restart()
    assert warned(overseer_of(gateway)) == []
    gateway.now = AFTER
    overseer = overseer_of(gateway)
    assert warned(overseer) == []
    gateway.settle(gateway.buy(), LIMIT // 2)
    assert (warned(overseer), warned(overseer_of(gateway))) == (["day"], [])
