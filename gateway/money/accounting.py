"""What becomes of money on a request's way: an estimate is held, and turns into a cost, or is given back.

The decisions it carries:

* What was never sent whole costs nothing. What was answered costs what its units say; without units an answer of 4xx or
  5xx costs nothing, and a good one its estimate. What was sent and not answered is unknown, and charged as estimated:
  fal may have executed it.
* Units that are no quantity, or that come to more than one request may cost, are garbage: the request is unknown, and
  charged as estimated.
* A queue job keeps what its submit held, under fal's request id, for whoever paid. It is settled once, by the first
  result that carries units, whoever fetches it.
* Every purchase is in the journal before anything of it is sent, so that no death of a process can lose it. Under a
  budget one that could not be written there is not sent. Without a budget it is sent all the same, and counted if it is
  lost: a full disk does not stop those who have no limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from gateway.fal.calls import is_plain_endpoint
from gateway.http.problem import Problem, refusal
from gateway.ledger.entry import LineForm, bounded_endpoint
from gateway.money.purchase import NO_ROOM, Charge, Purchase
from gateway.policy.budget import moment_within, period_start
from gateway.policy.endpoint import PricedNames
from gateway.policy.job import OPEN, RELEASED, SETTLED, Job
from gateway.policy.price import MOST_COST_NS, Estimates, Price, cost_ns, usd_of_picodollars
from gateway.state.memory.worker_budgets import Reservation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal

    from gateway.fal.calls import Call
    from gateway.money.purchase import Account, Journal, RequestResult, Takings
    from gateway.policy.budget import Budget
    from gateway.policy.credential import Principal
    from gateway.state.interface import BudgetStore

_MICROSECONDS: Final = 1_000_000
_UNPRICED: Final = refusal(
    "endpoint_unpriced", "This endpoint has no price, and this key is under a budget: ask for a price to be set."
)
_NOT_PLAIN: Final = refusal(
    "target_invalid",
    "This key is under a budget, so the path must be a plain endpoint id, as fal writes it, whose price can be found.",
)
_NO_SUCCESS_FROM: Final = 300
_INVALID_INPUT: Final = 422
_CANCELLED: Final = 202
_WAYS_KEPT: Final = 4_096


class Jobs(Protocol):
    """Where queue jobs are remembered."""

    def remember(self, job_id: str, job: Job, answered: Callable[[], None]) -> bool:
        """Bind a job's id to its submitter; return whether `answered` is called once other gateways know it."""

    def close_job(self, job_id: str, state: int, told: Callable[[Job | None], None]) -> None:
        """Move a job's money up to a state; tell the job as it was before, None where that is not to be done.

        Told at once where it is known at once, and else later; exactly one of all who ask is told the job.
        """


class Accounting:
    """One worker's accounting under one set of rules."""

    def __init__(  # noqa: PLR0913 (put together in one place, by name)
        self,
        *,
        prices: Mapping[str, Price],
        budgets_of: Callable[[str], tuple[Budget, ...]],
        refuses_unpriced: bool,
        store: BudgetStore,
        jobs: Jobs,
        journal: Journal,
        takings: Takings,
        estimates: Estimates,
        wall: Callable[[], float],
    ) -> None:
        """Take prices by endpoint, and what budgets an owner (`key/web`, `team/design`) has; `wall`: epoch seconds."""
        self._prices = prices
        self._budgets_of = budgets_of
        self._refuses_unpriced = refuses_unpriced
        self._store = store
        self._jobs = jobs
        self._journal = journal
        self._takings = takings
        self._estimates = estimates
        self._wall = wall
        self._priced = PricedNames(prices)
        self._ways: dict[tuple[str, str, str], tuple[LineForm, Account]] = {}

    # -- a request that is paid for -----------------------------------------------------------------------------------

    def open(self, principal: Principal, call: Call, purchase_id: str) -> Purchase | Problem:
        """Return the purchase that a paid request is, with what it will have to hold; nothing is held yet."""
        price = self._prices.get(call.endpoint)
        estimate_ns = self._estimates.estimate_ns(call.endpoint, price) if price is not None else None
        hold = None
        if principal.budgets:
            if self._journal.is_full_for(principal.key):
                return NO_ROOM
            if price is None:
                if self._refuses_unpriced:
                    return _UNPRICED
                if not is_plain_endpoint(call.endpoint) or self._priced.has_other_name(call.endpoint):
                    return _NOT_PLAIN  # it may be another spelling of one that has a price
            hold = Reservation(principal.budgets, estimate_ns or 0)
        known = self._ways.get((principal.key, call.endpoint, call.action))
        form, account = known if known is not None else self._way(principal, call, price)
        return Purchase(
            purchase_id,
            principal,
            call,
            price=price,
            estimate_ns=estimate_ns,
            hold=hold,
            at_us=self._now_us(),
            form=form,
            account=account,
        )

    def _now_us(self) -> int:
        return int(self._wall() * _MICROSECONDS)

    def _way(self, principal: Principal, call: Call, price: Price | None) -> tuple[LineForm, Account]:
        """Return what purchases of this kind are written down by, and counted by."""
        unit, usd = (price.unit, price.usd) if price is not None else (None, None)
        form = LineForm(principal.team, principal.key, call.endpoint, call.action, unit=unit, unit_price=usd)
        way = form, self._takings.account(principal.team, principal.key, call.endpoint, unit)
        if len(self._ways) >= _WAYS_KEPT:  # endpoints that callers make up
            self._ways.clear()
        self._ways[principal.key, call.endpoint, call.action] = way
        return way

    def record(self, purchase: Purchase, refused: Callable[[], None]) -> None:
        """Write a purchase down that has got its hold, before it is sent.

        Under a budget `refused` is called where that fails (NO_ROOM): now, or when the turn ends. Nothing is sent then.
        """
        purchase.is_recorded = True
        hold = purchase.hold
        if hold is None:
            line = purchase.line("held", changed_at_us=purchase.admitted_at_us, source="estimated")
            self._journal.append(line, None, True)
            return
        if hold.starts:
            purchase.admitted_at_us = moment_within(purchase.admitted_at_us, hold.budgets, hold.starts)
        line = purchase.line("held", changed_at_us=purchase.admitted_at_us, source="estimated")
        self._store.record(hold)
        self._journal.append(line, refused)

    def close(self, purchase: Purchase, fate: RequestResult) -> Charge | None:
        """Bring a purchase to its end; return what it came to, None where there is nothing to tell."""
        if purchase.is_over:
            return None
        if not purchase.is_recorded:  # it never got its hold, or gives it back with its ticket
            purchase.is_over = True
            return None
        if fate.units is not None or fate.are_units_unreadable:
            return self._settle(purchase, fate.units, fate.fal_id)
        if fate.status >= _NO_SUCCESS_FROM or not (fate.status or fate.was_sent):
            return self._end(purchase, "released", cost=0, source="exact", fal_id=fate.fal_id)
        estimate_ns = purchase.estimate_ns
        if fate.status and fate.is_answered and purchase.call.action != "submit":
            source = "estimated" if estimate_ns is not None else "unknown"
            return self._end(purchase, "settled", cost=estimate_ns, source=source, fal_id=fate.fal_id)
        return self._end(purchase, "unknown", cost=estimate_ns, source="unknown", fal_id=fate.fal_id)

    def _settle(self, purchase: Purchase, units: Decimal | None, fal_id: str | None) -> Charge:
        """Charge the units; None: what fal named is no quantity."""
        price, estimate_ns = purchase.price, purchase.estimate_ns
        spent_ns = price.cost_ns(units) if price is not None and units is not None else None
        if units is None or (spent_ns is not None and spent_ns > MOST_COST_NS):
            self._end(purchase, "unknown", cost=estimate_ns, source="unknown", fal_id=fal_id)
            return Charge(estimate_ns, "unknown", is_unreadable=True)
        self._estimates.see(purchase.call.endpoint, units)
        source = "exact" if price is not None else "unknown"
        return self._end(purchase, "settled", cost=spent_ns, source=source, units=units, fal_id=fal_id)

    def bind(self, purchase: Purchase, job_id: str, known: Callable[[], None]) -> bool:
        """Hand a purchase over to the queue job that it has become; that is written down before anybody hears of it.

        Returns whether `known` is called, once other gateways know whose job it is, or cannot be told now.
        """
        if purchase.is_over:
            return False
        purchase.is_over = True
        principal, price = purchase.principal, purchase.price
        job = Job(
            principal.team,
            principal.key,
            bounded_endpoint(purchase.call.endpoint),
            purchase.id,
            purchase.admitted_at_us,
            purchase.estimate_ns or 0,
            price.picodollars if price is not None else -1,
            price.unit if price is not None else "",
        )
        line = purchase.line("held", changed_at_us=self._now_us(), fal_id=job_id, source="estimated")
        self._journal.append(line, None, purchase.hold is None)
        if purchase.hold is not None:
            self._store.bind(purchase.hold)
        self._journal.flush()
        return self._jobs.remember(job_id, job, known)

    def _end(  # noqa: PLR0913 (one row of the ledger)
        self,
        purchase: Purchase,
        status: str,
        *,
        cost: int | None,
        source: str,
        units: Decimal | None = None,
        fal_id: str | None,
    ) -> Charge:
        purchase.is_over = True
        if purchase.hold is not None:
            self._store.settle(purchase.hold, cost or 0)
        line = purchase.line(
            status, changed_at_us=self._now_us(), fal_id=fal_id, units=units, cost_ns=cost, source=source
        )
        self._journal.append(line, None, purchase.hold is None)
        purchase.account.count(units, cost, source)
        return Charge(cost, source)

    # -- a job, later -------------------------------------------------------------------------------------------------

    def job_answered(
        self,
        call: Call,
        status: int,
        units: Decimal | None,
        told: Callable[[Charge], None],
        *,
        are_units_unreadable: bool = False,
    ) -> None:
        """Take what an answer about a queue job says of its money, whoever asked; tell what changed by it, if it did.

        At once where jobs are this gateway's own, later where replicas share them. Unreadable `units` are None.
        """
        if call.job is None:
            return
        is_result = call.action == "result"
        costs_nothing = units is not None or status == _INVALID_INPUT
        if is_result and (are_units_unreadable or (units is not None and units > 0)):
            self._close_job(call.job, SETTLED, units, told)
        elif (is_result and costs_nothing) or (call.action == "cancel" and status == _CANCELLED):
            self._close_job(call.job, RELEASED, None, told)

    def _close_job(self, job_id: str, state: int, units: Decimal | None, told: Callable[[Charge], None]) -> None:
        def closed(job: Job | None) -> None:
            if job is not None and job.purchase:
                told(self._closed(job_id, job, state, units))

        self._jobs.close_job(job_id, state, closed)

    def _closed(self, job_id: str, job: Job, state: int, units: Decimal | None) -> Charge:
        priced = job.picodollars >= 0
        spent_ns = 0 if units is None else cost_ns(units, job.picodollars) if priced else None
        is_unreadable = (state == SETTLED and units is None) or (spent_ns is not None and spent_ns > MOST_COST_NS)
        status = "settled" if state == SETTLED else "released"
        if is_unreadable:
            status, units, spent_ns = "unknown", None, job.estimate_ns if priced else None
        source = "exact" if spent_ns is not None and not is_unreadable else "unknown"
        if units is not None:
            self._estimates.see(job.endpoint, units)
        unit = job.unit or None
        usd = usd_of_picodollars(job.picodollars) if priced else None
        line = LineForm(job.team, job.key, job.endpoint, "submit", unit=unit, unit_price=usd).line(
            job.purchase,
            status,
            job_id,
            job.admitted_at_us,
            self._now_us(),
            units=str(units) if units is not None else None,
            estimate_ns=job.estimate_ns if priced else None,
            cost_ns=spent_ns,
            source=source,
        )
        purses = self._purses_of(job)
        self._journal.append(line, None, not purses)
        self._store.settle_job(purses, freed_ns=job.estimate_ns if job.state == OPEN else 0, spent_ns=spent_ns or 0)
        self._takings.account(job.team, job.key, job.endpoint, unit).count(units, spent_ns, source)
        return Charge(spent_ns, source, is_unreadable=is_unreadable)

    def _purses_of(self, job: Job) -> list[tuple[Budget, int]]:
        at = job.admitted_at_us / _MICROSECONDS
        budgets = (*self._budgets_of(f"key/{job.key}"), *self._budgets_of(f"team/{job.team}"))
        return [(budget, period_start(budget.period, at)) for budget in budgets]
