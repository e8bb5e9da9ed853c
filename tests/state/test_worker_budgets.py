"""What a worker holds within a turn, and when others see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gateway.policy.budget import Budget
from gateway.policy.quota import NO_LIMITS, Decision
from gateway.state.interface import Acquire
from gateway.state.memory.store import LocalStore, Quotas
from gateway.state.memory.worker_budgets import Reservation

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW: Final = 1_795_000_000.0  # 2026-11-18T11:46:40Z
TODAY: Final = 1_794_960_000
DAY_SECONDS: Final = 86_400
DAY: Final = Budget("key/web", "day", 10)
WEEK: Final = Budget("team/design", "week", 100)
WEEK_START: Final = 1_794_787_200


class Gateway:
    """Workers over one memory, on a calendar that is set."""

    def __init__(self, slots: int) -> None:
        self.now = NOW
        self.quotas = Quotas(slots=slots, places=8, address_places=8)
        self.quotas.purses.fill(DAY.store_name, TODAY, spent_ns=0, jobs_ns=0)
        self.quotas.purses.fill(WEEK.store_name, WEEK_START, spent_ns=0, jobs_ns=0)
        self.stores = [LocalStore(self.quotas, slot=slot, wall=lambda: self.now) for slot in range(slots)]

    def ask(self, estimate_ns: int, *budgets: Budget, slot: int = 0) -> tuple[Reservation, Decision]:
        """Ask for a hold."""
        hold = Reservation(budgets or (DAY,), estimate_ns)
        verdict = self.stores[slot].ask(Acquire("lease", NO_LIMITS, "", hold), lambda _verdict: None)
        assert verdict is not None
        return hold, verdict

    def sums(self, budget: Budget = DAY, start: int = TODAY) -> tuple[int, int]:
        """Return spent and held as other processes see them now."""
        purse = self.quotas.purses.purse(budget.store_name, start)
        return purse.spent_ns, purse.held_ns


@pytest.fixture
def alone() -> Iterator[Gateway]:
    """Return a gateway of one worker."""
    made = Gateway(1)
    yield made
    made.quotas.close()


@pytest.fixture
def pair() -> Iterator[Gateway]:
    """Return a gateway of two workers."""
    made = Gateway(2)
    yield made
    made.quotas.close()


def test_a_turn_is_written_at_its_end(alone: Gateway) -> None:
    """Until then others see nothing of it, and the worker itself counts with all of it."""
    settled, _ = alone.ask(4)
    alone.stores[0].settle(settled, 3)
    assert alone.ask(6)[1].granted
    refused = alone.ask(2)[1]
    assert (refused.granted, refused.used_ns) == (False, 9)
    assert alone.sums() == (0, 0)
    alone.stores[0].write()
    assert alone.sums() == (3, 6)
    alone.stores[0].write()
    assert alone.sums() == (3, 6)


def test_several_workers_see_a_hold_at_once(pair: Gateway) -> None:
    """What it turned into follows at the end of the turn, and counts as held until then."""
    hold, _ = pair.ask(7)
    assert pair.sums() == (0, 7)
    assert not pair.ask(4, slot=1)[1].granted
    pair.stores[0].settle(hold, 2)
    assert not pair.ask(4, slot=1)[1].granted
    pair.stores[0].write()
    assert pair.ask(4, slot=1)[1].granted
    assert pair.sums() == (2, 4)


def test_a_worker_that_asks_tells_what_it_has_settled(pair: Gateway) -> None:
    """Its next hold is written with what it has not written yet."""
    hold, _ = pair.ask(7)
    pair.stores[0].settle(hold, 2)
    assert pair.ask(8)[1].granted
    assert pair.sums() == (2, 8)


def test_what_ended_in_a_turn_makes_room_in_it(alone: Gateway) -> None:
    """Also where nobody had asked before in that turn; what it cost takes room."""
    hold, _ = alone.ask(7)
    alone.stores[0].write()
    alone.stores[0].settle(hold, 2)
    assert not alone.ask(9)[1].granted
    assert alone.ask(8)[1].granted


def test_a_refusal_writes_nothing_of_any_budget(alone: Gateway) -> None:
    """The one with room is given back nothing, since it was never taken from."""
    assert not alone.ask(11, WEEK, DAY)[1].granted
    alone.stores[0].write()
    assert (alone.sums(), alone.sums(WEEK, WEEK_START)) == ((0, 0), (0, 0))


def test_a_job_outlives_its_worker_from_the_moment_it_is_bound(alone: Gateway) -> None:
    """The ledger is told of the job at once, so the purse is, too: a death within the turn loses neither."""
    hold, _ = alone.ask(4)
    alone.stores[0].record(hold)
    alone.stores[0].write()
    alone.stores[0].bind(hold)
    alone.quotas.vacate(0, 0)
    assert alone.sums() == (0, 4)


def test_a_death_within_a_turn_leaves_what_was_held(alone: Gateway) -> None:
    """The ledger has no word of the end either: both take the estimate as spent."""
    hold, _ = alone.ask(4)
    alone.stores[0].record(hold)
    alone.stores[0].write()
    alone.stores[0].settle(hold, 1)
    alone.quotas.vacate(0, 0)
    assert alone.sums() == (4, 0)


def test_what_was_not_written_down_is_not_spent_by_a_death(pair: Gateway) -> None:
    """Others see it as held while its worker lives; nothing of it was sent, and the ledger never hears of it."""
    hold, _ = pair.ask(4, slot=1)
    pair.stores[1].write()
    assert pair.sums() == (0, 4)
    pair.quotas.vacate(1, 0)
    assert pair.sums() == (0, 0)
    assert not hold.is_recorded


def test_what_is_given_back_without_a_line_frees_no_other(alone: Gateway) -> None:
    """A request that was granted and came to nothing: what a death makes spent is what is written down."""
    kept, _ = alone.ask(4)
    alone.stores[0].record(kept)
    undone, _ = alone.ask(5)
    alone.stores[0].settle(undone, 0)
    alone.stores[0].write()
    assert alone.sums() == (0, 4)
    alone.quotas.vacate(0, 0)
    assert alone.sums() == (4, 0)


def test_a_dead_worker_s_share_of_a_forgotten_budget_counts_once(alone: Gateway) -> None:
    """What the ledger fills in has what this worker had spent, and what it had bound to jobs."""
    for estimate in (2, 3):
        hold, _ = alone.ask(estimate)
        alone.stores[0].record(hold)
        alone.stores[0].settle(hold, estimate)
    job, _ = alone.ask(1)
    alone.stores[0].record(job)
    alone.stores[0].bind(job)
    alone.quotas.purses.forget(DAY.store_name)
    assert alone.quotas.purses.fill(DAY.store_name, TODAY, spent_ns=5, jobs_ns=1)
    assert alone.sums() == (5, 1)
    alone.quotas.vacate(0, 0)
    assert alone.sums() == (5, 1)


def test_a_job_that_nobody_counted_makes_no_room(alone: Gateway) -> None:
    """Freed all the same, it takes nothing of what later jobs hold."""
    alone.stores[0].settle_job([(DAY, TODAY)], freed_ns=5, spent_ns=1)
    hold, _ = alone.ask(4)
    alone.stores[0].bind(hold)
    assert alone.sums() == (1, 4)


def test_midnight_within_a_turn(alone: Gateway) -> None:
    """The new day begins at nothing, what ends of the old one burdens it with nothing, and the week goes on."""
    old, _ = alone.ask(9, DAY, WEEK)
    alone.now += DAY_SECONDS
    assert alone.ask(10, DAY, WEEK)[1].granted
    alone.stores[0].settle(old, 8)
    alone.stores[0].write()
    assert alone.sums(start=TODAY + DAY_SECONDS) == (0, 10)
    assert alone.sums(WEEK, WEEK_START) == (8, 10)


def test_another_worker_turns_the_day(pair: Gateway) -> None:
    """What a worker settles of a day that another has ended is not written to the new one."""
    old, _ = pair.ask(9)
    pair.now += DAY_SECONDS
    assert pair.ask(3, slot=1)[1].granted
    pair.stores[0].settle(old, 8)
    pair.stores[0].write()
    assert pair.sums(start=TODAY + DAY_SECONDS) == (0, 3)


def test_a_budget_forgotten_within_a_turn_takes_what_ended(alone: Gateway) -> None:
    """A reload took it out and brought it back: what was held meanwhile is settled into the sum that is in force."""
    hold, _ = alone.ask(4)
    alone.stores[0].write()
    alone.quotas.purses.forget(DAY.store_name)
    alone.stores[0].settle(hold, 3)
    alone.stores[0].write()
    assert alone.ask(1)[1].used_ns == -1
    alone.stores[0].write()
    assert alone.quotas.purses.fill(DAY.store_name, TODAY, spent_ns=3, jobs_ns=0)
    assert alone.sums() == (3, 0)


def test_what_a_job_frees_is_seen_at_once(pair: Gateway) -> None:
    """A job's end is written with all that its worker has changed before."""
    hold, _ = pair.ask(4)
    pair.stores[0].bind(hold)
    other, _ = pair.ask(2)
    pair.stores[0].settle(other, 1)
    pair.stores[0].settle_job([(DAY, TODAY)], freed_ns=4, spent_ns=3)
    assert pair.sums() == (4, 0)
