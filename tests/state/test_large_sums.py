"""Sums of millions of dollars are exact to the nano-dollar in both homes, also beyond what a double holds (2**53)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from gateway.policy.budget import Budget
from tests.state.budget_homes import Home, ask, local_home, redis_home

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.harness.redis import RedisServer

RICH: Final = Budget("key/web", "day", 10**18, tag="design")
MOST_NS: Final = 10**15
PURCHASES: Final = 30


async def _spend(home: Home) -> None:
    """Buy for almost a million dollars, an odd number of nano-dollars each, and let a worker die with holds open."""
    assert home.fill(RICH, spent_ns=0, jobs_ns=0)
    spent_ns = 0
    for number in range(PURCHASES):
        hold, verdict = await ask(home, MOST_NS - 2 * number - 1, RICH)
        assert verdict.granted
        home.purses[0].record(hold)
        home.purses[0].settle(hold, MOST_NS - 4 * number - 3)
        spent_ns += MOST_NS - 4 * number - 3
        assert await home.sums(RICH) == (spent_ns, 0), number
    held_ns = 0
    for number in range(PURCHASES):
        hold, verdict = await ask(home, MOST_NS - 6 * number - 5, RICH)
        assert verdict.granted
        home.purses[0].record(hold)
        held_ns += MOST_NS - 6 * number - 5
        assert await home.sums(RICH) == (spent_ns, held_ns), number
    home.die(0)
    assert await home.sums(RICH) == (spent_ns + held_ns, 0)


async def _reach(home: Home) -> None:
    """Fill a billion dollars but ten nano-dollars: eleven do not fit, ten do."""
    assert home.fill(RICH, spent_ns=RICH.limit_ns - MOST_NS - 10, jobs_ns=MOST_NS)
    assert not (await ask(home, 11, RICH))[1].granted
    assert (await ask(home, 10, RICH))[1].granted
    assert not (await ask(home, 1, RICH, worker=1))[1].granted


@pytest.mark.parametrize("scene", [_spend, _reach])
def test_memory_is_exact(scene: Callable[[Home], Awaitable[None]]) -> None:
    """Integers of 64 bits."""

    async def scenario() -> None:
        async with local_home() as home:
            await scene(home)

    asyncio.run(scenario())


@pytest.mark.parametrize("scene", [_spend, _reach])
def test_redis_is_exact(scene: Callable[[Home], Awaitable[None]], redis_server: RedisServer) -> None:
    """Its scripts reckon in doubles, and must not."""

    async def scenario() -> None:
        async with redis_home(redis_server) as home:
            await scene(home)

    asyncio.run(scenario())
