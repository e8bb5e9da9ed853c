"""The one contract of every home of the state: what is granted, what is taken, what is given back.

A home is a factory in HOMES: it opens two stores over one state, as two workers or two replicas would have them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest

from gateway.policy.quota import NO_LIMITS
from gateway.state.memory.store import LocalStore, Quotas
from tests.state.stage import (
    ask_later,
    concurrent,
    content_bytes,
    fresh,
    judge,
    limit_set,
    redis_pair,
    requests,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.policy.quota import Decision
    from gateway.state.interface import Store
    from tests.harness.redis import RedisServer

OpenHome = Callable[[], AbstractAsyncContextManager["Sequence[Store]"]]
Scenario = Callable[["Store", "Store"], Awaitable[None]]
Play = Callable[[Scenario], None]

RATE: Final = 50
SECONDS: Final = 2.0
PACE_SECONDS: Final = 1 / (3 * RATE)


def redis_home(request: pytest.FixtureRequest) -> OpenHome:
    """Return the home of replicas."""
    server: RedisServer = request.getfixturevalue("redis_server")
    return lambda: redis_pair(server.url)


@asynccontextmanager
async def _local(slots: int) -> AsyncIterator[Sequence[Store]]:
    quotas = Quotas(slots=slots, places=256, address_places=256)
    stores = [LocalStore(quotas, slot=slot) for slot in range(slots)]
    yield stores[0], stores[-1]
    quotas.close()


def one_process_home(_request: pytest.FixtureRequest) -> OpenHome:
    """Return the home of a single process."""
    return lambda: _local(1)


def workers_home(_request: pytest.FixtureRequest) -> OpenHome:
    """Return the home of the workers of one machine."""
    return lambda: _local(2)


HOMES: Final[dict[str, Callable[[pytest.FixtureRequest], OpenHome]]] = {
    "one process": one_process_home,
    "workers": workers_home,
    "redis": redis_home,
}
"""Every home that has to keep the contract, by name."""


@pytest.fixture(params=HOMES)
def play(request: pytest.FixtureRequest) -> Play:
    """Return `play(scenario)`: runs `scenario(store, other)` over an empty state of each home."""
    open_home = HOMES[request.param](request)

    async def run(scenario: Scenario) -> None:
        async with open_home() as (store, other):
            await scenario(store, other)

    return lambda scenario: asyncio.run(run(scenario))


def near(seconds: float) -> object:
    """Return what equals a time within what a busy machine may add or take."""
    return pytest.approx(seconds, abs=5.0)


async def judge_many(store: Store, asks: Sequence[object]) -> list[Decision]:
    """Return the verdicts of asks that are under way at once."""
    told = await asyncio.gather(*(ask_later(store, ask) for ask in asks))  # type: ignore[arg-type]
    assert None not in told
    return [verdict for verdict in told if verdict is not None]


def test_over_time_the_rate_and_one_bucket_are_granted(play: Play) -> None:
    """Asked at three times the rate, granted = rate x t + burst, within one unit either way."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(RATE, 1.0))
        loop = asyncio.get_running_loop()
        before = loop.time()
        granted = int((await judge(store, fresh(limits))).granted)
        after_first = loop.time()
        while True:
            before_last = loop.time()
            verdict = await judge(store, fresh(limits))
            granted += verdict.granted
            if not verdict.granted and before_last - before > SECONDS:
                break  # at a refusal the bucket is known to be empty
            await asyncio.sleep(PACE_SECONDS)
        assert granted <= RATE * (loop.time() - before) + RATE + 1
        assert granted >= RATE * (before_last - after_first) + RATE - 1

    play(scenario)


def test_a_refusal_takes_nothing_of_any_limit(play: Play) -> None:
    """All or nothing: what one limit refuses, the others keep, whichever stands first."""

    async def scenario(store: Store, _: Store) -> None:
        wide, narrow, slots = requests(5, name="wide"), requests(1, name="narrow"), concurrent(3)
        both = limit_set(wide, slots, narrow)
        first, second, third = [await judge(store, fresh(both)) for _ in range(3)]
        assert (first.granted, first.refused_by, first.remaining) == (True, -1, [4, 2, 0])
        assert (second.granted, second.refused_by, second.remaining[2]) == (False, 2, 0)
        assert (third.granted, third.refused_by, third.remaining[2]) == (False, 2, 0)
        alone = await judge(store, fresh(limit_set(wide, slots)))
        assert (alone.granted, alone.remaining) == (True, [3, 1])

    play(scenario)


def test_the_first_limit_that_refuses_is_named_and_the_longest_wait_told(play: Play) -> None:
    """`refused_by` is the first in order, `retry_after` the time until all of them would say yes."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(
            requests(1, 100.0, name="short"), requests(1, 900.0, name="long"), requests(9, 90.0, name="free")
        )
        assert (await judge(store, fresh(limits))).granted
        refused = await judge(store, fresh(limits))
        assert (refused.granted, refused.refused_by, refused.delay) == (False, 0, 0.0)
        assert refused.retry_after == near(900.0)
        assert refused.remaining[:2] == [0, 0]

    play(scenario)


def test_slots_are_freed_once(play: Play) -> None:
    """A release frees what its ask held; a second one, or one of an ask that was refused, frees nothing."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(concurrent(2))
        first, second, third = (fresh(limits) for _ in range(3))
        assert [(await judge(store, ask)).granted for ask in (first, second, third)] == [True, True, False]
        store.release(third)
        refused = await judge(store, third)
        assert (refused.granted, refused.retry_after, refused.remaining, refused.waits) == (False, 1.0, [0], [-1.0])
        store.release(first)
        store.release(first)
        again = await judge(store, fresh(limits))
        assert (again.granted, again.remaining, again.waits) == (True, [0], [-1.0])
        assert not (await judge(store, fresh(limits))).granted

    play(scenario)


def test_undo_gives_back_all_that_was_taken(play: Play) -> None:
    """A call of which nothing came costs neither a slot nor a unit, and no bucket gets fuller than full."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(2), concurrent(2))
        first, second = fresh(limits), fresh(limits)
        assert (await judge(store, first)).remaining == [1, 1]
        store.undo(first)
        assert (await judge(store, second)).remaining == [1, 1]
        store.undo(second)
        assert [(await judge(store, fresh(limits))).remaining for _ in range(2)] == [[1, 1], [0, 0]]

    play(scenario)


def test_bytes_are_charged_afterwards_and_may_overdraw(play: Play) -> None:
    """An ask takes no bytes; what is charged later may pass the bucket, by at most one window."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(content_bytes(1000, 1000.0, burst=500))
        ask = fresh(limits)
        before = await judge(store, ask)
        assert (before.granted, before.remaining, before.waits) == (True, [500], [0.0])
        store.charge(ask, 0)
        store.charge(ask, 400)
        part = await judge(store, fresh(limits))
        assert part.granted
        assert 100 <= part.remaining[0] <= 105
        assert part.waits == [near(400.0)]
        store.charge(ask, 1_000_000)
        refused = await judge(store, fresh(limits))
        assert (refused.granted, refused.refused_by, refused.remaining) == (False, 0, [0])
        assert refused.retry_after == near(1000.0)

    play(scenario)


def test_a_call_waits_for_its_turn_within_the_longest_wait(play: Play) -> None:
    """Each later call waits one interval longer; one that would wait too long is refused and takes nothing.

    `retry_after` is when it would be granted without a wait.
    """

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(1, 100.0, max_wait=350.0))
        verdicts = await judge_many(store, [fresh(limits) for _ in range(6)])
        assert [verdict.granted for verdict in verdicts] == [True, True, True, True, False, False]
        assert [verdict.delay for verdict in verdicts[:4]] == [near(100.0 * place) for place in range(4)]
        assert verdicts[0].delay == 0.0
        assert [verdict.retry_after for verdict in verdicts[4:]] == [near(400.0), near(400.0)]
        assert [verdict.remaining for verdict in verdicts] == [[0]] * 6

    play(scenario)


def test_a_shadow_limit_counts_and_never_refuses(play: Play) -> None:
    """What it would refuse is named and granted; it takes nothing then, and makes nobody wait."""

    async def scenario(store: Store, _: Store) -> None:
        shadows = [requests(1, name="tried", shadow=True, max_wait=0.0), concurrent(1, shadow=True)]
        limits = limit_set(requests(9), *shadows)
        first = fresh(limits)
        told = [await judge(store, first), await judge(store, fresh(limits))]
        assert [verdict.granted for verdict in told] == [True, True]
        assert [verdict.shadowed for verdict in told] == [[], [1, 2]]
        assert [verdict.remaining for verdict in told] == [[8, 0, 0], [7, 0, 0]]
        store.release(first)
        assert (await judge(store, fresh(limits))).shadowed == [1]

    play(scenario)


def test_a_shadow_limit_makes_nobody_wait(play: Play) -> None:
    """The wait that it would ask for is not asked, and what it gave out of turn is counted."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(1, 100.0, shadow=True, max_wait=150.0))
        told = await judge_many(store, [fresh(limits) for _ in range(3)])
        assert [(verdict.granted, verdict.delay) for verdict in told] == [(True, 0.0)] * 3
        assert [verdict.shadowed for verdict in told] == [[], [], [0]]

    play(scenario)


def test_an_undo_gives_a_shadow_limit_back_what_it_gave_and_no_more(play: Play) -> None:
    """Where it took nothing, an undo returns nothing to it."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(9), requests(1, name="tried", shadow=True))
        assert (await judge(store, fresh(limits))).shadowed == []
        spared = fresh(limits)
        assert (await judge(store, spared)).shadowed == [1]
        store.undo(spared)
        after = await judge(store, fresh(limits))
        assert (after.shadowed, after.remaining) == ([1], [7, 0])

    play(scenario)


def test_what_is_left_and_when_there_is_more(play: Play) -> None:
    """Requests: whole units and the time to the next; bytes: units and the time to all; slots: after this call."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(6, 600.0, burst=3), content_bytes(1000), concurrent(4))
        told = [await judge(store, fresh(limits)) for _ in range(3)]
        assert [verdict.remaining for verdict in told] == [[2, 1000, 3], [1, 1000, 2], [0, 1000, 1]]
        assert [verdict.waits for verdict in told] == [[near(100.0), 0.0, -1.0]] * 3

    play(scenario)


def test_a_unit_that_comes_back_is_granted(play: Play) -> None:
    """After as long as the refusal says, and no earlier, there is a unit again."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(2, 1.0, burst=1))
        loop = asyncio.get_running_loop()
        assert (await judge(store, fresh(limits))).granted
        since = loop.time()
        refused = await judge(store, fresh(limits))
        while not (again := await judge(store, fresh(limits))).granted:
            assert loop.time() - since < 5.0
            await asyncio.sleep(0.01)
        assert loop.time() - since >= 0.5 - 0.1
        assert 0.0 < refused.retry_after <= 0.5 + 0.01
        assert again.remaining == [0]

    play(scenario)


def test_two_stores_over_one_state_are_exact_together(play: Play) -> None:
    """However the calls fall, both together grant one bucket, and one set of slots."""

    async def scenario(store: Store, other: Store) -> None:
        limits = limit_set(requests(100), concurrent(70, name="wide"))
        halves = await asyncio.gather(
            *(judge_many(each, [fresh(limits) for _ in range(60)]) for each in (store, other))
        )
        assert sum(verdict.granted for half in halves for verdict in half) == 70
        rates = limit_set(requests(100, name="other"))
        halves = await asyncio.gather(*(judge_many(each, [fresh(rates) for _ in range(80)]) for each in (store, other)))
        assert sum(verdict.granted for half in halves for verdict in half) == 100

    play(scenario)


def test_each_address_has_buckets_of_its_own(play: Play) -> None:
    """Callers without a key meet the limits each for himself."""

    async def scenario(store: Store, _: Store) -> None:
        limits = limit_set(requests(1), concurrent(1))
        first, second = fresh(limits, address="192.0.2.1"), fresh(limits, address="192.0.2.2")
        assert [(await judge(store, ask)).granted for ask in (first, second, fresh(limits))] == [True] * 3
        store.undo(first)
        assert (await judge(store, fresh(limits, address="192.0.2.1"))).granted
        assert not (await judge(store, fresh(limits, address="192.0.2.2"))).granted

    play(scenario)


def test_a_changed_quota_keeps_what_was_consumed(play: Play) -> None:
    """After a reload the same owner, name and unit go on where they were; a narrower bucket is not locked for long."""

    async def scenario(store: Store, _: Store) -> None:
        wide, narrow = limit_set(requests(100, 1000.0)), limit_set(requests(100, 100.0, burst=10))
        for number in range(60):
            assert (await judge(store, fresh(wide))).granted, number
        refused = await judge(store, fresh(narrow))
        assert not refused.granted
        assert refused.retry_after <= 1.0 + 0.1

    play(scenario)


def test_no_limits_are_granted(play: Play) -> None:
    """Who has no limits is never refused, and nothing is remembered of it."""

    async def scenario(store: Store, _: Store) -> None:
        ask = fresh(NO_LIMITS)
        verdict = await judge(store, ask)
        assert (verdict.granted, verdict.remaining) == (True, [])
        store.charge(ask, 5)
        store.undo(ask)
        store.release(ask)

    play(scenario)
