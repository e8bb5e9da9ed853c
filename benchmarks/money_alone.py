"""`python -m benchmarks.money_alone`: what the money of one request takes by itself, in microseconds.

Decided here: the best of several rounds, with the classes that a worker reckons with and its state in memory: the
estimate, its hold in two budgets, its settling at a price, and the counting; what a turn of six requests changes is
written to the memory that workers share. The ledger's two lines are made, and go nowhere. What a cold cache adds on the
way of a real request is not in it.
"""

from __future__ import annotations

import sys
import time
import timeit
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from benchmarks.limits_alone import NotCounted
from gateway.fal.calls import Call
from gateway.limits.limiter import Limiter
from gateway.limits.wait_queue import WaitQueue
from gateway.money.accounting import Accounting
from gateway.money.purchase import Purchase, RequestResult
from gateway.policy.budget import Budget, period_start
from gateway.policy.credential import Principal
from gateway.policy.price import Estimates, Price
from gateway.policy.quota import NO_LIMITS
from gateway.state.memory.jobs import JobTable, LocalJobs
from gateway.state.memory.store import LocalStore, Quotas
from gateway.telemetry.metrics.counters import Region
from gateway.telemetry.metrics.endpoint_labels import EndpointLabels
from gateway.telemetry.metrics.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

_TURN: Final = 6  # requests, as many as write one piece of the journal at 64 connections
_TURNS: Final = 3_500
_ROUNDS: Final = 7
_LIMIT_NS: Final = 10**17
_ENDPOINT: Final = "bench/post"
_CALL: Final = Call("run", "paid", _ENDPOINT, None, "run")
_ID: Final = "0123456789abcdef0123456789abcdef"


class Nowhere:
    """A journal that keeps nothing."""

    def is_full_for(self, key: str) -> bool:  # noqa: ARG002 (for everybody)
        """Say that there is room (`Journal`)."""
        return False

    def append(self, line: bytes, refused: Callable[[], None] | None = None, optional: bool = False) -> None:  # noqa: FBT001, FBT002
        """Let it go."""

    def flush(self) -> bool:
        """Say that it is written."""
        return True


def microseconds() -> float:
    """Return the time of one request's money: estimated, held in two budgets, settled, counted."""
    budgets = (Budget("key/bench", "day", _LIMIT_NS), Budget("team/bench", "month", _LIMIT_NS))
    quotas = Quotas()
    for budget in budgets:
        quotas.purses.fill(budget.store_name, period_start(budget.period, time.time()), spent_ns=0, jobs_ns=0)
    store, room = LocalStore(quotas), WaitQueue(_later)
    limiter = Limiter(local=store, shared=None, on_loss="local", counts=NotCounted(), room=room, later=_later)
    accounting = Accounting(
        prices={_ENDPOINT: Price("image", 10**8)},
        budgets_of=lambda _owner: budgets,
        refuses_unpriced=True,
        store=store,
        jobs=LocalJobs(JobTable(sets=1)),
        journal=Nowhere(),
        takings=Meter(Region(), EndpointLabels(), emit=lambda _record: None),
        estimates=Estimates(),
        wall=time.time,
    )
    principal = Principal("bench", "bench", None, None, None, budgets=budgets)
    fate = RequestResult(was_sent=True, status=200, units=Decimal("1.5"), is_answered=True, fal_id="9f1c2d3e")

    begin, enter, record, close = (
        accounting.open,
        limiter.enter,
        accounting.record,
        accounting.close,
    )  # a worker looks nothing up here

    def buy() -> None:
        purchase = begin(principal, _CALL, _ID)
        if not isinstance(purchase, Purchase):
            raise SystemExit(purchase.detail)
        permit = enter(principal, NO_LIMITS, lease=_ID, address="", hold=purchase.hold, told=_told)
        record(purchase, _refused)
        close(purchase, fate)
        permit.end(used=True)

    def turn() -> None:
        for _ in range(_TURN):
            buy()
        store.write()

    return 1e6 * min(timeit.repeat(turn, number=_TURNS, repeat=_ROUNDS)) / (_TURNS * _TURN)


def _later(_seconds: float, _call: Callable[[], None]) -> None:
    """Stand where a loop would call back: nobody waits here."""


def _told() -> None:
    """Stand where an exchange would go on: nobody waits here."""


def _refused() -> None:
    """Stand where an exchange would be given up: this journal takes all."""


if __name__ == "__main__":
    sys.stdout.write(f"{microseconds():.3f}\n")
