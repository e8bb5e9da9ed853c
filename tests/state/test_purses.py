"""What is spent and held of budgets: exact across workers, and never more than there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.budget import Budget, period_start
from gateway.policy.quota import NO_LIMITS, Verdict
from gateway.state.local import LocalStore, Quotas
from gateway.state.purses import Hold
from gateway.state.store import Ask

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW: Final = 1_795_000_000.0  # 2026-11-18T11:46:40Z
DAY: Final = Budget("key/web", "day", 10)
MONTH: Final = Budget("team/design", "month", 100)


class Clock:
    """A wall clock that is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def quotas() -> Iterator[Quotas]:
    """Return the memory of two workers, both budgets filled in with nothing spent."""
    made = Quotas(seats=2, places=8, address_places=8)
    for budget in (DAY, MONTH):
        made.purses.fill(budget.store_name, period_start(budget.period, NOW), spent_ns=0, jobs_ns=0)
    yield made
    made.close()


OpenStore = Callable[..., LocalStore]


@pytest.fixture
def worker(quotas: Quotas, clock: Clock) -> OpenStore:
    """Return `worker(seat)`: the store of one of the workers."""
    return lambda seat=0: LocalStore(quotas, seat=seat, wall=clock)


def ask(store: LocalStore, estimate: int, *budgets: Budget) -> tuple[Hold, Verdict]:
    """Ask for a hold."""
    hold = Hold(budgets or (DAY, MONTH), estimate)
    verdict = store.ask(Ask("lease", NO_LIMITS, "", hold), lambda _verdict: None)
    assert verdict is not None
    return hold, verdict


def sums(quotas: Quotas, budget: Budget, now: float = NOW) -> tuple[int, int]:
    """Return (spent, held)."""
    purse = quotas.purses.purse(budget.store_name, period_start(budget.period, now))
    return purse.spent_ns, purse.held_ns


def test_what_fits_is_held_in_every_budget(quotas: Quotas, worker: OpenStore) -> None:
    """Spent + held + estimate <= limit, up to the last nanodollar."""
    _, verdict = ask(worker(), 10)
    assert verdict.granted
    assert (sums(quotas, DAY), sums(quotas, MONTH)) == ((0, 10), (0, 10))


def test_what_one_budget_refuses_takes_nothing_of_any(quotas: Quotas, worker: OpenStore) -> None:
    """The verdict names the budget and what is used of it."""
    _, verdict = ask(worker(), 11, MONTH, DAY)
    assert (verdict.granted, verdict.over_budget, verdict.used_ns) == (False, 1, 0)
    assert (sums(quotas, DAY), sums(quotas, MONTH)) == ((0, 0), (0, 0))


def test_workers_hold_of_the_same_purse(quotas: Quotas, worker: OpenStore) -> None:
    """What one worker holds is not there for the other."""
    assert ask(worker(0), 6)[1].granted
    assert not ask(worker(1), 5)[1].granted
    assert ask(worker(1), 4)[1].granted
    assert sums(quotas, DAY) == (0, 10)


def test_a_hold_turns_into_its_cost_or_into_nothing(quotas: Quotas, worker: OpenStore) -> None:
    """Settled above or below the estimate, or released."""
    store = worker()
    dear, cheap, free = (ask(store, 3)[0] for _ in range(3))
    store.settle(dear, 5)
    store.settle(cheap, 1)
    store.settle(free, 0)
    assert (sums(quotas, DAY), sums(quotas, MONTH)) == ((6, 0), (6, 0))


def test_a_job_holds_without_its_worker(quotas: Quotas, worker: OpenStore) -> None:
    """A worker's death turns what its runs hold into spent money, and leaves what jobs hold."""
    store = worker(1)
    ask(store, 3)
    store.bind(ask(store, 4)[0])
    quotas.vacate(1)
    assert (sums(quotas, DAY), sums(quotas, MONTH)) == ((3, 4), (3, 4))
    names = [(budget.store_name, period_start(budget.period, NOW)) for budget in (DAY, MONTH)]
    worker(0).settle_job(names, freed_ns=4, spent_ns=2)
    assert (sums(quotas, DAY), sums(quotas, MONTH)) == ((5, 0), (5, 0))


def test_a_new_period_starts_at_nothing(quotas: Quotas, worker: OpenStore, clock: Clock) -> None:
    """What was held in the old period is settled there, and burdens the new one with nothing."""
    store = worker()
    held, _ = ask(store, 10)
    clock.now += 86_400
    assert ask(store, 10)[1].granted
    store.settle(held, 9)
    assert sums(quotas, DAY, clock.now) == (0, 10)
    assert sums(quotas, MONTH) == (9, 10)


def test_a_clock_that_is_set_back_brings_no_old_period_back(quotas: Quotas, worker: OpenStore, clock: Clock) -> None:
    """Over midnight and back: the sums of the later day stay in force."""
    store = worker()
    clock.now += 86_400
    assert ask(store, 10)[1].granted
    clock.now -= 86_400
    _, verdict = ask(store, 1)
    assert (verdict.granted, verdict.used_ns) == (False, 10)
    assert sums(quotas, DAY, clock.now + 86_400) == (0, 10)


def test_a_budget_that_was_never_filled_in_admits_nothing(quotas: Quotas, worker: OpenStore) -> None:
    """What was spent before this gateway started is not known before the ledger has said it; it says it once."""
    new = Budget("key/new", "week", 100)
    _, verdict = ask(worker(), 1, new)
    assert (verdict.granted, verdict.used_ns) == (False, -1)
    start = period_start("week", NOW)
    assert quotas.purses.fill(new.store_name, start, spent_ns=60, jobs_ns=30)
    assert not quotas.purses.fill(new.store_name, start, spent_ns=0, jobs_ns=0)
    assert not ask(worker(), 11, new)[1].granted
    assert ask(worker(), 10, new)[1].granted


def test_an_ask_that_came_to_nothing_gives_its_hold_back(quotas: Quotas, worker: OpenStore) -> None:
    """`undo` frees the hold with all the rest."""
    store, hold = worker(), Hold((DAY,), 7)
    granted = Ask("lease", NO_LIMITS, "", hold)
    verdict = store.ask(granted, lambda _verdict: None)
    assert verdict is not None
    assert verdict.granted
    store.undo(granted)
    assert sums(quotas, DAY) == (0, 0)


def test_processes_never_hold_more_than_there_is(quotas: Quotas, clock: Clock) -> None:
    """Two processes that take one nanodollar at a time get exactly the budget between them."""
    reader, writer = os.pipe()
    pids = []
    for seat in (0, 1):
        pid = os.fork()
        if pid == 0:
            store = LocalStore(quotas, seat=seat, wall=clock)
            won = sum(ask(store, 1)[1].granted for _ in range(200))
            os.write(writer, bytes([won]))
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sum(os.read(reader, 2)) == 10
    assert sums(quotas, DAY) == (0, 10)
    os.close(reader)
    os.close(writer)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 12), st.sampled_from(["settle", "bind", "keep"]))))
def test_sums_are_those_of_what_happened(steps: list[tuple[int, int, str]]) -> None:
    """Whatever is asked, settled and bound: spent and held are what a list of it adds up to."""
    quotas = Quotas(seats=1, places=8, address_places=8)
    quotas.purses.fill(DAY.store_name, period_start("day", NOW), spent_ns=0, jobs_ns=0)
    store = LocalStore(quotas, wall=lambda: NOW)
    spent = held = 0
    for estimate, cost, then in steps:
        hold, verdict = ask(store, estimate, DAY)
        assert verdict.granted == (spent + held + estimate <= DAY.limit_ns)
        if not verdict.granted:
            continue
        if then == "settle":
            store.settle(hold, cost)
            spent += cost
        else:
            held += estimate
        if then == "bind":
            store.bind(hold)
        assert sums(quotas, DAY) == (spent, held)
    quotas.close()
