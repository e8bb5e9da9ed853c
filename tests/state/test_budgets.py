"""What is spent and held of budgets, in every home: exact across workers, and never more than there is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.budget import Budget, period_start
from gateway.policy.quota import NO_LIMITS
from gateway.state.interface import Acquire
from gateway.state.memory.store import LocalStore, Quotas
from gateway.state.memory.worker_budgets import Reservation
from tests.state.budget_homes import DAY, MONTH, NOW, Home, ask, local_home, redis_home
from tests.state.stage import judge, limit_set, requests

if TYPE_CHECKING:
    from tests.harness.redis import RedisServer

OpenHome = Callable[[], AbstractAsyncContextManager[Home]]
Scenario = Callable[[Home], Awaitable[None]]
Play = Callable[[Scenario], None]


def open_redis(request: pytest.FixtureRequest) -> OpenHome:
    """Return the home of replicas."""
    server: RedisServer = request.getfixturevalue("redis_server")
    return lambda: redis_home(server)


HOMES: Final[dict[str, Callable[[pytest.FixtureRequest], OpenHome]]] = {
    "local": lambda _request: local_home,
    "redis": open_redis,
}


@pytest.fixture(params=HOMES)
def play(request: pytest.FixtureRequest) -> Play:
    """Return `play(scenario)`: runs it over each home, both budgets filled in with nothing spent."""
    open_home = HOMES[request.param](request)

    async def run(scenario: Scenario) -> None:
        async with open_home() as home:
            for budget in (DAY, MONTH):
                assert home.fill(budget, spent_ns=0, jobs_ns=0)
            await scenario(home)

    return lambda scenario: asyncio.run(run(scenario))


async def both(home: Home) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (spent, held) of the day and of the month."""
    return await home.sums(DAY), await home.sums(MONTH)


def test_what_fits_is_held_in_every_budget(play: Play) -> None:
    """Spent + held + estimate <= limit, up to the last nanodollar."""

    async def scenario(home: Home) -> None:
        _, verdict = await ask(home, 10)
        assert verdict.granted
        assert await both(home) == ((0, 10), (0, 10))

    play(scenario)


def test_what_one_budget_refuses_takes_nothing_of_any(play: Play) -> None:
    """The verdict names the budget and what is used of it."""

    async def scenario(home: Home) -> None:
        _, verdict = await ask(home, 11, MONTH, DAY)
        assert (verdict.granted, verdict.over_budget, verdict.used_ns) == (False, 1, 0)
        assert verdict.begun_at == home.start(DAY)
        assert await both(home) == ((0, 0), (0, 0))

    play(scenario)


def test_what_a_budget_refuses_takes_nothing_of_a_limit(play: Play) -> None:
    """And what a limit refuses holds nothing of a budget."""

    async def scenario(home: Home) -> None:
        limits = limit_set(requests(1))
        refused = await judge(home.stores[0], Acquire("one", limits, "", Reservation((DAY,), 11)))
        assert (refused.granted, refused.over_budget, refused.refused_by) == (False, 0, -1)
        assert (await judge(home.stores[0], Acquire("two", limits, "", Reservation((DAY,), 1)))).granted
        refused = await judge(home.stores[0], Acquire("three", limits, "", Reservation((DAY,), 1)))
        assert (refused.granted, refused.over_budget, refused.refused_by) == (False, -1, 0)
        assert await home.sums(DAY) == (0, 1)

    play(scenario)


def test_workers_hold_of_the_same_purse(play: Play) -> None:
    """What one worker holds is not there for the other."""

    async def scenario(home: Home) -> None:
        assert (await ask(home, 6))[1].granted
        assert not (await ask(home, 5, worker=1))[1].granted
        assert (await ask(home, 4, worker=1))[1].granted
        assert await home.sums(DAY) == (0, 10)

    play(scenario)


def test_a_hold_turns_into_its_cost_or_into_nothing(play: Play) -> None:
    """Settled above or below the estimate, or released."""

    async def scenario(home: Home) -> None:
        dear, cheap, free = [(await ask(home, 3))[0] for _ in range(3)]
        home.purses[0].settle(dear, 5)
        home.purses[0].settle(cheap, 1)
        home.purses[0].settle(free, 0)
        assert await both(home) == ((6, 0), (6, 0))

    play(scenario)


def test_a_job_holds_without_its_worker(play: Play) -> None:
    """A worker's death turns what its runs hold into spent money, and leaves what jobs hold."""

    async def scenario(home: Home) -> None:
        home.purses[1].record((await ask(home, 3, worker=1))[0])
        job, _ = await ask(home, 4, worker=1)
        home.purses[1].record(job)
        home.purses[1].bind(job)
        assert await both(home) == ((0, 7), (0, 7))
        home.die(1)
        assert await both(home) == ((3, 4), (3, 4))
        purses = [(budget, home.start(budget)) for budget in (DAY, MONTH)]
        home.purses[0].settle_job(purses, freed_ns=4, spent_ns=2)
        assert await both(home) == ((5, 0), (5, 0))

    play(scenario)


def test_a_new_period_starts_at_nothing(play: Play) -> None:
    """What was held in the old period is settled there, and burdens the new one with nothing."""

    async def scenario(home: Home) -> None:
        held, _ = await ask(home, 10)
        await both(home)
        home.pass_midnight()
        assert (await ask(home, 10))[1].granted
        if home.start(DAY) != held.starts[0]:  # else the purse was moved and not the clock
            home.purses[0].settle(held, 9)
            assert await both(home) == ((0, 10), (9, 10))
        assert await home.sums(DAY) == (0, 10)

    play(scenario)


def test_a_clock_that_is_set_back_brings_no_old_period_back(play: Play) -> None:
    """Over midnight and back: the sums of the later day stay in force."""

    async def scenario(home: Home) -> None:
        home.pass_midnight()
        assert (await ask(home, 10))[1].granted
        await both(home)
        home.turn_back()
        _, verdict = await ask(home, 1)
        assert (verdict.granted, verdict.used_ns) == (False, 10)

    play(scenario)


def test_a_budget_that_was_never_filled_in_admits_nothing(play: Play) -> None:
    """What was spent before this gateway started is not known before the ledger has said it; it says it once."""

    async def scenario(home: Home) -> None:
        new = Budget("key/new", "week", 100, tag="design")
        _, verdict = await ask(home, 1, new)
        assert (verdict.granted, verdict.over_budget, verdict.used_ns) == (False, 0, -1)
        assert home.fill(new, spent_ns=60, jobs_ns=30)
        assert not home.fill(new, spent_ns=0, jobs_ns=0)
        assert not (await ask(home, 11, new))[1].granted
        assert (await ask(home, 10, new))[1].granted

    play(scenario)


def test_an_ask_that_came_to_nothing_gives_its_hold_back(play: Play) -> None:
    """`undo` frees the hold with all the rest."""

    async def scenario(home: Home) -> None:
        granted = Acquire("lease", NO_LIMITS, "", Reservation((DAY,), 7))
        assert (await judge(home.stores[0], granted)).granted
        home.stores[0].undo(granted)
        assert await home.sums(DAY) == (0, 0)

    play(scenario)


def test_many_at_once_never_hold_more_than_there_is(play: Play) -> None:
    """Two workers that ask for a nanodollar a hundred times each get exactly the budget between them."""

    async def scenario(home: Home) -> None:
        asked = await asyncio.gather(*(ask(home, 1, worker=number % 2) for number in range(200)))
        assert sum(verdict.granted for _, verdict in asked) == DAY.limit_ns
        assert await both(home) == ((0, 10), (0, 10))

    play(scenario)


def test_processes_never_hold_more_than_there_is() -> None:
    """Two processes over one memory that take one nanodollar at a time get exactly the budget between them."""
    quotas = Quotas(slots=2, places=8, address_places=8)
    quotas.purses.fill(DAY.store_name, period_start("day", NOW), spent_ns=0, jobs_ns=0)
    reader, writer = os.pipe()
    pids = []
    for slot in (0, 1):
        pid = os.fork()
        if pid == 0:
            store = LocalStore(quotas, slot=slot, wall=lambda: NOW)
            won = sum(is_granted(store, 1) for _ in range(200))
            os.write(writer, bytes([won]))
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sum(os.read(reader, 2)) == 10
    quotas.close()
    os.close(reader)
    os.close(writer)


def is_granted(store: LocalStore, estimate: int) -> bool:
    """Ask for a hold at once."""
    verdict = store.ask(Acquire("lease", NO_LIMITS, "", Reservation((DAY,), estimate)), lambda _verdict: None)
    assert verdict is not None
    return verdict.granted


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 12), st.sampled_from(["settle", "bind", "keep"]))))
def test_sums_are_those_of_what_happened(steps: list[tuple[int, int, str]]) -> None:
    """Whatever is asked, settled and bound: spent and held are what a list of it adds up to."""
    quotas = Quotas(slots=1, places=8, address_places=8)
    quotas.purses.fill(DAY.store_name, period_start("day", NOW), spent_ns=0, jobs_ns=0)
    store = LocalStore(quotas, wall=lambda: NOW)
    spent = held = 0
    for estimate, cost, then in steps:
        hold = Reservation((DAY,), estimate)
        verdict = store.ask(Acquire("lease", NO_LIMITS, "", hold), lambda _verdict: None)
        assert verdict is not None
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
        store.write()
        purse = quotas.purses.purse(DAY.store_name, period_start("day", NOW))
        assert (purse.spent_ns, purse.held_ns) == (spent, held)
    quotas.close()
