"""Money of replicas through faults: nothing is counted twice, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from time import time
from typing import TYPE_CHECKING, Final

import pytest

from gateway.policy.budget import period_end
from gateway.policy.quota import NO_LIMITS
from gateway.state.interface import Acquire
from gateway.state.memory.worker_budgets import Reservation
from gateway.state.redis.budget_counters import BudgetCounters
from tests.state.budget_homes import DAY, MONTH, RedisHome, ask
from tests.state.stage import PATIENT_SECONDS, ask_later, settled, watched
from tests.state.test_redis_store import JOB, close_job, find

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.harness.fault_proxy import FaultProxy, Mode
    from tests.harness.redis import RedisServer

HOLDER: Final = f"one:{os.getpid()}".encode()


@asynccontextmanager
async def stood(server: RedisServer, url: str, patience_seconds: float = PATIENT_SECONDS) -> AsyncIterator[RedisHome]:
    """Run one store over a URL, both budgets filled in."""
    async with watched(url, patience_seconds=patience_seconds) as stage:
        await stage.up()
        home = RedisHome(server, [stage])
        for budget in (DAY, MONTH):
            assert home.fill(budget, spent_ns=0, jobs_ns=0)
        yield home
        home.books.close()


def lose(home: RedisHome, *, spent_ns: int, since: int) -> None:
    """Empty the store, and fill it in with what the ledger had up to a second."""
    home.server.run("FLUSHALL")
    for budget in (DAY, MONTH):
        start = home.start(budget)
        span = (start, period_end(budget.period, start))
        assert home.books.fill(budget, span, spent_ns=spent_ns, jobs_ns=0, since=since, seconds=0.0)


def held_ns(home: RedisHome) -> int:
    """Return what runs hold of the day."""
    (purse,) = home.books.purses([DAY])
    assert purse is not None
    return purse.held_ns


async def both(home: RedisHome) -> list[tuple[int, int]]:
    """Return (spent, held) of both budgets."""
    return [await home.sums(DAY), await home.sums(MONTH)]


@pytest.mark.parametrize("mode", ["refuse", "black_hole", "garbage"])
def test_what_ends_while_the_store_is_away_is_told_on_return(
    proxy: FaultProxy, redis_server: RedisServer, mode: Mode
) -> None:
    """Holds are given back and costs counted, once, whether the last statement had arrived or not."""

    async def scenario() -> None:
        async with stood(redis_server, proxy.url, 0.2) as home:
            stage = home.stage
            kept, before, after = [(await granted(home, 2)) for _ in range(3)]
            proxy.mode = mode
            stage.store.purses.settle(before, 3)
            await asyncio.sleep(0)
            for _ in range(5):
                await ask_later(stage.store, Acquire("lease", NO_LIMITS, "", Reservation((DAY,), 1)))
            await stage.down()
            stage.store.purses.settle(after, 1)
            proxy.mode = "pass"
            await stage.up()
            assert await both(home) == [(4, 2), (4, 2)]
            stage.store.purses.settle(kept, 1)
            assert await both(home) == [(5, 0), (5, 0)]

    asyncio.run(scenario())


async def granted(home: RedisHome, estimate: int) -> Reservation:
    """Return a hold, asked for until a busy machine lets the answer come in time."""
    for _ in range(100):
        hold = Reservation((DAY, MONTH), estimate)
        verdict = await ask_later(home.stores[0], Acquire("lease", NO_LIMITS, "", hold))
        if verdict is not None and verdict.granted:
            return hold
        await home.stage.up()
    raise AssertionError("no hold")


def test_a_grant_that_comes_too_late_is_given_back(proxy: FaultProxy, redis_server: RedisServer) -> None:
    """The request was decided without it."""

    async def scenario() -> None:
        async with stood(redis_server, proxy.url, 0.05) as home:
            proxy.mode = "slow"
            hold = Reservation((DAY,), 7)
            assert await ask_later(home.stores[0], Acquire("lease", NO_LIMITS, "", hold)) is None
            assert hold.starts == ()
            proxy.mode = "pass"
            await home.stage.up()

            def is_free() -> bool:
                (purse,) = home.books.purses([DAY])
                return purse is not None and HOLDER in purse.holders and purse.held_ns == 0

            await settled(is_free, "the hold to be given back")

    asyncio.run(scenario())


def test_a_store_that_was_emptied_learns_what_is_held_and_what_was_settled(redis_server: RedisServer) -> None:
    """Holds that are open, and costs from the second on that the ledger did not cover; others are in the ledger."""

    async def scenario() -> None:
        async with stood(redis_server, redis_server.url) as home:
            purses = home.purses[0]
            held, old, new = [(await ask(home, 1))[0] for _ in range(3)]
            purses.settle(old, 2)
            assert await both(home) == [(2, 2), (2, 2)]
            since = int(time()) + 1
            await settled(lambda: time() >= since, "the next second")
            purses.settle(new, 1)
            assert await both(home) == [(3, 1), (3, 1)]
            lose(home, spent_ns=2, since=since)
            assert (await ask(home, 1))[1].granted
            assert await both(home) == [(3, 2), (3, 2)]
            purses.settle(held, 1)
            assert await both(home) == [(4, 1), (4, 1)]
            lose(home, spent_ns=4, since=since + 3600)
            await settled(lambda: held_ns(home) == 1, "the hold to be said again")
            assert await both(home) == [(4, 1), (4, 1)]

    asyncio.run(scenario())


def test_who_was_given_up_and_comes_back_is_counted_once(redis_server: RedisServer) -> None:
    """What it held became spent; its next statement takes that back, for what it holds and what it cost."""

    async def scenario() -> None:
        async with stood(redis_server, redis_server.url) as home:
            first, second = [(await ask(home, 3))[0] for _ in range(2)]
            for budget in (DAY, MONTH):
                assert home.books.sweep(budget, home.start(budget), HOLDER, is_gone=False) == 6
            (purse,) = home.books.purses([DAY])
            assert purse is not None
            assert (purse.spent_ns, purse.held_ns) == (6, 0)
            home.purses[0].settle(first, 1)
            assert await both(home) == [(1, 3), (1, 3)]
            home.purses[0].settle(second, 0)
            assert await both(home) == [(1, 0), (1, 0)]

    asyncio.run(scenario())


def test_a_job_whose_process_died_before_it_told_of_it_is_counted_once(redis_server: RedisServer) -> None:
    """Its hold became spent, and whoever settles the job frees it all the same: what it cost is what counts."""

    async def scenario() -> None:
        async with stood(redis_server, redis_server.url) as home:
            await ask(home, 3)
            for budget in (DAY, MONTH):
                home.books.sweep(budget, home.start(budget), HOLDER, is_gone=True)
            assert await both(home) == [(3, 0), (3, 0)]
            jobs = [(budget, home.start(budget)) for budget in (DAY, MONTH)]
            home.purses[0].settle_job(jobs, freed_ns=3, spent_ns=2)
            assert await both(home) == [(2, 0), (2, 0)]
            _, verdict = await ask(home, DAY.limit_ns - 1)
            assert (verdict.granted, verdict.used_ns) == (False, 2)
            assert (await ask(home, DAY.limit_ns - 2))[1].granted

    asyncio.run(scenario())


def test_a_purse_that_is_being_told_admits_nothing(redis_server: RedisServer) -> None:
    """Until the processes that live have stated what they hold, it counts as not known."""

    async def scenario() -> None:
        async with stood(redis_server, redis_server.url) as home:
            redis_server.run("DEL", "fgw:{design|}:key/web/day")
            assert home.fill(DAY, spent_ns=0, jobs_ns=0, seconds=1.0)
            _, verdict = await ask(home, 1, DAY)
            assert (verdict.granted, verdict.over_budget, verdict.used_ns) == (False, 0, -1)
            while not verdict.granted:
                _, verdict = await ask(home, 1, DAY)

    asyncio.run(scenario())


def test_what_was_admitted_without_a_hold_is_spent_all_the_same(redis_server: RedisServer) -> None:
    """`on_state_loss: open` lets calls pass while the store is away; what they cost is told on its return."""

    async def scenario() -> None:
        async with stood(redis_server, redis_server.url) as home:
            home.purses[0].settle(Reservation((DAY, MONTH), 4), 3)
            assert await both(home) == [(3, 0), (3, 0)]

    asyncio.run(scenario())


def test_jobs_wait_for_the_store(proxy: FaultProxy, redis_server: RedisServer) -> None:
    """What is remembered and closed while it is away is done on its return, once."""

    async def scenario() -> None:
        async with stood(redis_server, proxy.url) as home:
            proxy.mode = "refuse"
            await home.stage.down()
            store = home.stage.store
            store.jobs.remember("a", JOB, lambda _: None)
            store.jobs.remember("b", JOB, lambda _: None)
            closed = asyncio.gather(*(close_job(store, "a", 2) for _ in range(3)))
            proxy.mode = "pass"
            await home.stage.up()
            assert sorted(await closed, key=bool) == [None, None, JOB]
            assert await find(store, "b") == (JOB, True)

    asyncio.run(scenario())


def test_a_closing_whose_answer_was_lost_is_told_to_who_asks_again(
    proxy: FaultProxy, redis_server: RedisServer
) -> None:
    """The same closing gets the job again; another does not."""

    async def scenario() -> None:
        async with stood(redis_server, proxy.url) as home:
            home.books.tell_jobs([("a", JOB)])
            proxy.mode = "garbage"
            closing = asyncio.ensure_future(close_job(home.stage.store, "a", 2, JOB))
            await settled(lambda: redis_server.run("GET", "fgw:job:a").startswith(b"2"), "the job to be closed")
            await home.stage.down()
            assert not closing.done()
            assert home.books.close_job("a", 2, JOB, closer=b"two") is None
            proxy.mode = "pass"
            assert await closing == JOB

    asyncio.run(scenario())


def test_a_closing_that_is_answered_late_is_told_once(proxy: FaultProxy, redis_server: RedisServer) -> None:
    """It was to be asked for again, and is not any more."""

    async def scenario() -> None:
        async with stood(redis_server, proxy.url, 0.05) as home:
            home.books.tell_jobs([("a", JOB)])
            told: list[object] = []
            proxy.mode = "slow"
            home.stage.store.jobs.close("a", 2, JOB, told.append)
            await settled(lambda: told, "the job")
            proxy.mode = "pass"
            home.stage.store.jobs.pay()
            await home.stage.up()
            home.stage.store.jobs.pay()
            home.stage.store.jobs.remember("b", JOB, lambda _: None)  # behind all that was owed
            await settled(lambda: redis_server.run("EXISTS", "fgw:job:b"), "what was told behind it")
            await asyncio.sleep(0)
            assert told == [JOB]

    asyncio.run(scenario())


def test_who_ends_in_order_leaves_no_register_behind(redis_server: RedisServer) -> None:
    """What it has said is in the sums; what it said last arrives, too."""

    async def scenario() -> None:
        async with stood(redis_server, redis_server.url) as home:
            hold, _ = await ask(home, 3)
            home.books.tell_jobs([("a", JOB)])
            told: list[object] = []

            def settle(job: object) -> None:
                told.append(job)
                home.purses[0].settle_job([(DAY, home.start(DAY))], freed_ns=0, spent_ns=4)

            home.stage.store.jobs.close("a", 2, JOB, settle)
            home.purses[0].settle(hold, 1)
            await home.stage.store.close()
            assert told == [JOB]
            names = redis_server.run("HKEYS", "fgw:{design|}:key/web/day")
            assert {name[:2] for name in names if b":" in name} == {b"p:"}, "until the ledger has what was stated"
            (purse,) = home.books.purses([DAY])
            assert purse is not None
            assert (purse.spent_ns, purse.held_ns) == (5, 0)

    asyncio.run(scenario())


def test_registers_of_a_period_that_is_over_say_nothing() -> None:
    """Once a later period is known, what was held in the earlier one is nobody's any more."""
    registers = BudgetCounters()
    hold = Reservation((DAY,), 5)
    hold.starts = registers.grant(hold, (86_400, 7, 0))
    later = Reservation((DAY,), 5)
    later.starts = registers.grant(later, (172_800, 7, 0))
    registers.change(DAY, 86_400, 90_000, freed=5, spent=5)
    assert [register for found in registers.changed() for register in found] == []
    (found,) = registers.all()
    assert [(register.start, register.still_held, register.spent) for register in found] == [(172_800, 5, 0)]
