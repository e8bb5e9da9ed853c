"""Random sequences over a real Redis that loses data and goes back: in the end every budget is what the ledger has.

The decision it carries: the stores of two gateways' workers and their budget syncs are real and run in one process, so
that a sequence takes seconds; a seed that fails names its sequence.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack
from time import time
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ledger.entry import RECONCILED, Entry
from gateway.ledger.ledger import Ledger
from gateway.money.redis_budget_sync import Journals, RedisBudgetSync
from gateway.policy.budget import Budget, period_start
from gateway.policy.quota import NO_LIMITS
from gateway.state.interface import Acquire
from gateway.state.memory.worker_budgets import Reservation
from gateway.state.redis.admin import RedisBudgetAdmin
from tests.harness.redis import RedisServer
from tests.ledger.rows import bound, settled
from tests.state.stage import PATIENT_SECONDS, ask_later, watched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.state.stage import Watched

BUDGETS: Final = (Budget("key/web", "day", 10**6, tag="design"), Budget("team/design", "month", 10**6, tag="design"))
REPLICAS: Final = ("one", "two")
STEPS: Final = 25
EQUAL_SECONDS: Final = 60.0
Sums = list[tuple[int, int, int]]


class Fleet:
    """Two gateways over one store and one ledger, to which everything that happens is told at once."""

    def __init__(self, redis: RedisServer, ledger: Ledger, stages: list[Watched], chance: random.Random) -> None:
        self.redis, self.ledger, self.stages, self.chance = redis, ledger, stages, chance
        self.books = [RedisBudgetAdmin(redis.url, name) for name in REPLICAS]
        self.treasuries = [
            RedisBudgetSync(
                books,
                ledger,
                replica=name,
                workers=lambda: [os.getpid()],
                journals=lambda: Journals({os.getpid(): 0}),
            )
            for name, books in zip(REPLICAS, self.books, strict=True)
        ]
        self.jobs: list[Entry] = []
        self.rows: list[Entry] = []
        self.snapshot = redis.snapshot()
        self.done: list[str] = []

    async def step(self) -> None:
        """Do one thing."""
        what = self.chance.choice(
            ["buy"] * 6 + ["submit"] * 3 + ["fetch"] * 2 + ["bill", "keep", "lose", "evict", "restore", "look"]
        )
        self.done.append(what)
        await getattr(self, what)()

    async def _granted(self, estimate: int) -> tuple[Watched, Reservation] | None:
        stage, hold = self.chance.choice(self.stages), Reservation(BUDGETS, estimate)
        verdict = await ask_later(stage.store, Acquire(f"lease-{len(self.done)}", NO_LIMITS, "", hold))
        return (stage, hold) if verdict is not None and verdict.granted else None

    def _row(self, row: Entry) -> Entry:
        now_us = int(time() * 10**6)
        return row._replace(key="web", admitted_at_us=now_us, changed_at_us=now_us)

    async def buy(self) -> None:
        """Run something."""
        estimate, cost = self.chance.randrange(1, 50), self.chance.randrange(50)
        if (granted := await self._granted(estimate)) is not None:
            stage, hold = granted
            stage.store.purses.settle(hold, cost)
            self.rows.append(self._row(settled(len(self.done), cost_ns=cost, fal_request_id=f"run-{len(self.done)}")))
            self.ledger.apply(self.rows[-1:])

    async def submit(self) -> None:
        """Submit a job."""
        estimate = self.chance.randrange(1, 50)
        if (granted := await self._granted(estimate)) is not None:
            stage, hold = granted
            stage.store.purses.bind(hold)
            self.jobs.append(self._row(bound(len(self.done), estimate_ns=estimate)))
            self.ledger.apply(self.jobs[-1:])

    async def fetch(self) -> None:
        """Fetch a job's result, through any gateway."""
        if self.jobs:
            job, cost = self.jobs.pop(), self.chance.randrange(1, 50)
            starts = [(budget, period_start(budget.period, time())) for budget in BUDGETS]
            stage = self.chance.choice(self.stages)
            stage.store.purses.settle_job(starts, freed_ns=job.estimate_ns or 0, spent_ns=cost)
            self.ledger.apply([job._replace(status="settled", cost_ns=cost, changed_at_us=int(time() * 10**6))])

    async def bill(self) -> None:
        """Correct a row, as the command does beside running gateways."""
        if self.rows:
            cost = self.chance.randrange(50)
            self.ledger.apply([self.rows.pop()._replace(status=RECONCILED, source="reconciled", cost_ns=cost)])

    async def keep(self) -> None:
        """Take a snapshot, for later."""
        self.snapshot = self.redis.snapshot()

    async def lose(self) -> None:
        """Lose everything."""
        self.redis.run("FLUSHALL")

    async def evict(self) -> None:
        """Lose one budget."""
        self.redis.run("DEL", f"fgw:{{design|}}:{self.chance.choice(BUDGETS).store_name}")

    async def restore(self) -> None:
        """Start again from the snapshot."""
        self.redis.kill()
        self.redis.start(snapshot=self.snapshot)
        await asyncio.gather(*(stage.down() for stage in self.stages))
        await asyncio.gather(*(stage.up() for stage in self.stages))

    async def look(self) -> None:
        """Let the gateways' ledger processes look."""
        for budget_sync in self.treasuries:
            budget_sync._look_at = 0.0
            budget_sync.keep(BUDGETS, is_ledger_up=True)
        await asyncio.sleep(0.1)

    def sums(self) -> Sums:
        """Return what is spent, held by jobs, and held by runs, in the store."""
        keys = [f"fgw:{{design|}}:{budget.store_name}" for budget in BUDGETS]
        rows = [self.redis.run("HMGET", key, "spent", "jobs", "held") for key in keys]
        return [(int(spent), int(jobs), int(held)) for spent, jobs, held in rows if spent is not None]

    def expected(self) -> Sums:
        """Return what the ledger has."""
        found: Sums = []
        for budget in BUDGETS:
            sums = self.ledger.sums_since(period_start(budget.period, time()) * 10**6)
            found.append((sums.spent.of(budget.owner), sums.jobs.of(budget.owner), 0))
        return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_budgets_equal_the_ledger_after_whatever_the_store_lost(tmp_path: Path, seed: int) -> None:
    """Lost whole or in part, restored to any moment before, with purchases and bills in between."""

    async def scenario(redis: RedisServer, ledger: Ledger) -> None:
        async with AsyncExitStack() as stack:
            opened = [watched(redis.url, replica=name, patience_seconds=PATIENT_SECONDS) for name in REPLICAS]
            stages = [await stack.enter_async_context(each) for each in opened]
            for stage in stages:
                await stage.up()
            fleet = Fleet(redis, ledger, stages, random.Random(seed))  # noqa: S311 (a test's own)
            for _ in range(STEPS):
                await fleet.step()
            ends = asyncio.get_running_loop().time() + EQUAL_SECONDS
            while fleet.sums() != fleet.expected():
                assert asyncio.get_running_loop().time() < ends, (fleet.done, fleet.sums(), fleet.expected())
                for budget_sync in fleet.treasuries:
                    budget_sync.keep(BUDGETS, is_ledger_up=True)
                await asyncio.sleep(0.1)
            for books in fleet.books:
                books.close()

    with RedisServer(tmp_path / "redis") as redis:
        ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
        ledger.migrate()
        asyncio.run(scenario(redis, ledger))
        ledger.close()
