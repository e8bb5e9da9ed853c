"""What the ledger's process does to purses, beside a worker that takes no lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from gateway.policy.budget import Budget, period_start
from gateway.policy.quota import NO_LIMITS, Decision
from gateway.state.interface import Acquire
from gateway.state.memory.store import LocalStore, Quotas
from gateway.state.memory.worker_budgets import Reservation

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW: Final = 1_795_000_000.0
DAY_SECONDS: Final = 86_400
DAY: Final = Budget("key/web", "day", 10)
TODAY: Final = period_start("day", NOW)


class Scene:
    """One worker's store, and a calendar that is set."""

    def __init__(self) -> None:
        self.now = NOW
        self.quotas = Quotas(places=8, address_places=8)
        self.store = LocalStore(self.quotas, wall=lambda: self.now)

    def ask(self, estimate_ns: int) -> tuple[Reservation, Decision]:
        """Ask for a hold."""
        hold = Reservation((DAY,), estimate_ns)
        verdict = self.store.ask(Acquire("one", NO_LIMITS, "", hold), lambda _verdict: None)
        assert verdict is not None
        return hold, verdict

    def fill(self, *, spent_ns: int = 0, jobs_ns: int = 0) -> None:
        """Fill the purse in between two turns, as the ledger's process does."""
        self.store.write()
        assert self.quotas.purses.fill(DAY.store_name, TODAY, spent_ns=spent_ns, jobs_ns=jobs_ns)

    @property
    def sums(self) -> tuple[int, int]:
        """Spent and held today, at the end of the turn."""
        self.store.write()
        purse = self.quotas.purses.purse(DAY.store_name, period_start("day", self.now))
        return purse.spent_ns, purse.held_ns


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Return a scene."""
    made = Scene()
    yield made
    made.quotas.close()


def test_a_worker_makes_no_place(scene: Scene) -> None:
    """A budget that the ledger's process has not filled in yet admits nothing, and is filled in all the same."""
    _, verdict = scene.ask(1)
    assert (verdict.granted, verdict.over_budget, verdict.used_ns) == (False, 0, -1)
    scene.fill(spent_ns=3)
    assert scene.ask(7)[1].granted
    assert not scene.ask(1)[1].granted


def test_what_the_ledger_adds_counts(scene: Scene) -> None:
    """A job that it charged as overdue is freed and spent, a correction by fal's bill spent, and calls are told so."""
    scene.fill(jobs_ns=6)
    scene.quotas.purses.add(DAY.store_name, TODAY, spent_ns=6, jobs_ns=-6)
    assert scene.sums == (6, 0)
    scene.quotas.purses.add(DAY.store_name, TODAY, spent_ns=-2, jobs_ns=0)
    assert scene.sums == (4, 0)
    hold, verdict = scene.ask(6)
    assert verdict.granted
    refused = scene.ask(1)[1]
    assert (refused.granted, refused.used_ns) == (False, 10)
    scene.store.settle(hold, 1)
    assert scene.sums == (5, 0)


def test_what_the_ledger_adds_is_of_its_period(scene: Scene) -> None:
    """A new period begins at nothing, whoever notices first, and nothing is added to one that is over."""
    scene.fill()
    scene.quotas.purses.add(DAY.store_name, TODAY, spent_ns=6, jobs_ns=0)
    scene.now += DAY_SECONDS
    assert scene.sums == (0, 0)
    assert scene.ask(10)[1].granted
    scene.quotas.purses.add(DAY.store_name, TODAY, spent_ns=6, jobs_ns=0)
    assert scene.sums == (0, 10)
    scene.quotas.purses.add(DAY.store_name, TODAY + DAY_SECONDS, spent_ns=1, jobs_ns=0)
    assert scene.sums == (1, 10)


def test_a_budget_that_is_filled_in_anew_forgets_what_was_added(scene: Scene) -> None:
    """What the ledger's process added is in the sums that it fills in with after a reload."""
    scene.fill()
    scene.quotas.purses.add(DAY.store_name, TODAY, spent_ns=6, jobs_ns=0)
    scene.quotas.purses.forget(DAY.store_name)
    scene.fill(spent_ns=6)
    assert scene.sums == (6, 0)


def test_a_job_freed_twice_makes_no_room(scene: Scene) -> None:
    """Held by jobs is never below nothing."""
    scene.fill(spent_ns=5, jobs_ns=2)
    scene.quotas.purses.add(DAY.store_name, TODAY, spent_ns=0, jobs_ns=-2)
    scene.store.settle_job([(DAY, TODAY)], freed_ns=2, spent_ns=0)
    assert scene.sums == (5, 0)
    assert not scene.ask(6)[1].granted
