"""A budget that a reload takes out and another brings back: this gateway's memory asks the ledger anew."""

from __future__ import annotations

from typing import Final

from gateway.policy.budget import Budget, period_start
from gateway.policy.quota import NO_LIMITS, Decision
from gateway.state.interface import Acquire
from gateway.state.memory.store import LocalStore, Quotas
from gateway.state.memory.worker_budgets import Reservation

NOW: Final = 1_793_880_000.0
START: Final = period_start("day", NOW)
DAY: Final = Budget("key/web", "day", 100)


def ask(store: LocalStore, estimate_ns: int) -> tuple[Reservation, Decision]:
    """Ask for a hold of the day's budget."""
    hold = Reservation((DAY,), estimate_ns)
    verdict = store.ask(Acquire("lease", NO_LIMITS, "", hold), lambda _verdict: None)
    assert verdict is not None
    return hold, verdict


def sums(quotas: Quotas, store: LocalStore) -> tuple[int, int]:
    """Return what is spent and held, at the end of the turn."""
    store.write()
    purse = quotas.purses.purse(DAY.store_name, START)
    return purse.spent_ns, purse.held_ns


def test_a_budget_that_was_forgotten_is_filled_in_anew() -> None:
    """Meanwhile it admits nothing; a run that is under way all the time still holds, and settles into the new sum."""
    quotas = Quotas(places=8, address_places=8)
    store = LocalStore(quotas, wall=lambda: NOW)
    assert quotas.purses.fill(DAY.store_name, START, spent_ns=1, jobs_ns=0)
    hold, _ = ask(store, 3)
    store.write()
    quotas.purses.forget(DAY.store_name)
    assert ask(store, 1)[1].used_ns == -1
    store.write()
    assert quotas.purses.fill(DAY.store_name, START, spent_ns=5, jobs_ns=0)
    assert sums(quotas, store) == (5, 3)
    store.settle(hold, 2)
    assert sums(quotas, store) == (7, 0)
    quotas.close()


def test_a_run_of_a_forgotten_budget_burdens_no_later_period() -> None:
    """It ends while nobody counts, or in another period than it began in: nothing is left of what it held."""
    quotas = Quotas(places=8, address_places=8)
    store = LocalStore(quotas, wall=lambda: NOW)
    assert quotas.purses.fill(DAY.store_name, START, spent_ns=1, jobs_ns=0)
    ended, _ = ask(store, 3)
    ask(store, 4)
    store.write()
    quotas.purses.forget(DAY.store_name)
    store.settle(ended, 2)
    store.write()
    later = START + 86_400
    assert quotas.purses.fill(DAY.store_name, later, spent_ns=6, jobs_ns=0)
    purse = quotas.purses.purse(DAY.store_name, later)
    assert (purse.spent_ns, purse.held_ns) == (6, 0)
    quotas.close()
