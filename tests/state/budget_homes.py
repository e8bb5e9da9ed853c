"""The homes of budgets, for tests of the rules that all of them keep: stores of two workers over one set of purses."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from time import time
from typing import TYPE_CHECKING, Final, Protocol

from gateway.policy.budget import Budget, period_end, period_start
from gateway.policy.quota import NO_LIMITS
from gateway.state.interface import Acquire
from gateway.state.memory.store import LocalStore, Quotas
from gateway.state.memory.worker_budgets import Reservation
from gateway.state.redis.admin import RedisBudgetAdmin
from tests.state.stage import PATIENT_SECONDS, judge, watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.policy.quota import Decision
    from gateway.state.interface import BudgetStore, Store
    from gateway.state.redis.store import RedisStore
    from tests.harness.redis import RedisServer
    from tests.state.stage import Watched

NOW: Final = 1_795_000_000.0  # 2026-11-18T11:46:40Z
DAY_SECONDS: Final = 86_400
DAY: Final = Budget("key/web", "day", 10, tag="design")
MONTH: Final = Budget("team/design", "month", 100, tag="design")


class Home(Protocol):
    """What a test does to a home. `stores` are asked, `purses` are told what became of holds: one for each worker."""

    @property
    def stores(self) -> Sequence[Store]:
        """Return what is asked."""

    @property
    def purses(self) -> Sequence[BudgetStore]:
        """Return what is told."""

    def fill(self, budget: Budget, *, spent_ns: int, jobs_ns: int) -> bool:
        """Fill a budget in; False where that was done before."""

    async def sums(self, budget: Budget) -> tuple[int, int]:
        """Return (spent, held by runs and jobs), once all that was told has arrived."""

    def start(self, budget: Budget) -> int:
        """Return when the present period began."""

    def die(self, worker: int) -> None:
        """Let it be known that a worker is gone."""

    def pass_midnight(self) -> None:
        """Let the clock pass into the day after the one of DAY's purse."""

    def turn_back(self) -> None:
        """Set the clock back by a day."""


class LocalHome:
    """Memory that workers share, on a clock that is set."""

    def __init__(self) -> None:
        self.now = NOW
        self.quotas = Quotas(slots=2, places=8, address_places=8)
        self.stores = [LocalStore(self.quotas, slot=slot, wall=lambda: self.now) for slot in (0, 1)]
        self.purses = self.stores

    def fill(self, budget: Budget, *, spent_ns: int, jobs_ns: int) -> bool:
        """Fill in, as the ledger's process does."""
        start = period_start(budget.period, self.now)
        return self.quotas.purses.fill(budget.store_name, start, spent_ns=spent_ns, jobs_ns=jobs_ns)

    async def sums(self, budget: Budget) -> tuple[int, int]:
        """Look into the purse, behind what the turn has changed."""
        for store in self.stores:
            store.write()
        purse = self.quotas.purses.purse(budget.store_name, period_start(budget.period, self.now))
        return purse.spent_ns, purse.held_ns

    def start(self, budget: Budget) -> int:
        """Ask the calendar."""
        return period_start(budget.period, self.now)

    def die(self, worker: int) -> None:
        """Vacate its slot, as the supervisor does."""
        self.quotas.vacate(worker, 0)

    def pass_midnight(self) -> None:
        """Set the clock."""
        self.now += DAY_SECONDS

    def turn_back(self) -> None:
        """Set the clock."""
        self.now -= DAY_SECONDS


class RedisHome:
    """A real server, whose clock cannot be set: instead, DAY's purse is moved to the day before or after."""

    def __init__(self, server: RedisServer, stages: Sequence[Watched]) -> None:
        self.server = server
        self.books = RedisBudgetAdmin(server.url, "one")
        self.stage = stages[0]
        self.stores = [stage.store for stage in stages]
        self.purses = [store.purses for store in self.stores]

    def fill(self, budget: Budget, *, spent_ns: int, jobs_ns: int, seconds: float = 0.0) -> bool:
        """Fill in, as the ledger's process of a young gateway does."""
        start = self.start(budget)
        span = (start, period_end(budget.period, start))
        since = int(time())
        return self.books.fill(budget, span, spent_ns=spent_ns, jobs_ns=jobs_ns, since=since, seconds=seconds)

    async def sums(self, budget: Budget) -> tuple[int, int]:
        """Look into the purse, behind all that was told."""
        await self.settle()
        purse = self.books.purses([budget])[0]
        assert purse is not None
        return purse.spent_ns, purse.held_ns + purse.jobs_ns

    async def settle(self) -> None:
        """Wait until all that was told so far has arrived."""
        for _ in range(3):  # what comes of an answer may be told anew
            await asyncio.sleep(0)  # what changed in this turn is told with the next
            for store in self.stores:
                assert await _answers(store)

    def start(self, budget: Budget) -> int:
        """Ask the calendar."""
        return period_start(budget.period, time())

    def die(self, worker: int) -> None:
        """Sweep up, as the ledger's process of its gateway does."""
        name = f"{('one', 'two')[worker]}:{os.getpid()}".encode()
        for budget in (DAY, MONTH):
            self.books.sweep(budget, self.start(budget), name, is_gone=True)

    def pass_midnight(self) -> None:
        """Move the purse."""
        self.server.run("HINCRBY", "fgw:{design|}:key/web/day", "start", -DAY_SECONDS)

    def turn_back(self) -> None:
        """Move the purse."""
        self.server.run("HINCRBY", "fgw:{design|}:key/web/day", "start", DAY_SECONDS)


async def _answers(store: RedisStore) -> bool:
    """Ask something behind all that was told."""
    answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    store.jobs.find("none", lambda _job, is_told: answered.set_result(is_told))
    return await answered


@asynccontextmanager
async def local_home() -> AsyncIterator[LocalHome]:
    """Make the memory, and give it back."""
    home = LocalHome()
    try:
        yield home
    finally:
        home.quotas.close()


@asynccontextmanager
async def redis_home(server: RedisServer) -> AsyncIterator[RedisHome]:
    """Run the stores of two gateways over one server."""
    async with AsyncExitStack() as stack:
        stages = [
            await stack.enter_async_context(watched(server.url, replica=name, patience_seconds=PATIENT_SECONDS))
            for name in ("one", "two")
        ]
        for stage in stages:
            await stage.up()
        home = RedisHome(server, stages)
        yield home
        home.books.close()


async def ask(home: Home, estimate: int, *budgets: Budget, worker: int = 0) -> tuple[Reservation, Decision]:
    """Ask for a hold."""
    hold = Reservation(budgets or (DAY, MONTH), estimate)
    return hold, await judge(home.stores[worker], Acquire("lease", NO_LIMITS, "", hold))
