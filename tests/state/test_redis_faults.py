"""What becomes of callers when the store is away, slow, mad, or back again."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from gateway.state.redis import store as redis_store
from gateway.state.redis.pipeline import MOST_FAILURES, MOST_PENDING
from gateway.state.redis.store import PATIENCE_SECONDS
from tests.state.stage import (
    PATIENT_SECONDS,
    WAIT_SECONDS,
    Watched,
    ask_later,
    concurrent,
    fresh,
    judge,
    limit_set,
    requests,
    settled,
    watched,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.policy.job import Job
    from gateway.policy.quota import LimitSet
    from tests.harness.fault_proxy import FaultProxy, Mode
    from tests.harness.redis import RedisServer

LIMITS = limit_set(requests(1_000_000), concurrent(1_000))
BREAKING: tuple[Mode, ...] = ("refuse", "black_hole", "slow", "flapping", "garbage")


@asynccontextmanager
async def risen(url: str, **rest: Any) -> AsyncIterator[Watched]:  # noqa: ANN401 (RedisStore's)
    """Run a store with the patience that it has in earnest, up as soon as the machine lets it be."""
    async with watched(url, **rest) as made:
        await made.up()
        yield made


async def break_down(stage: Watched, limits: LimitSet = LIMITS) -> int:
    """Ask until the breaker is open; return how many asks that took. Each is told, once."""
    for count in itertools.count(1):
        await ask_later(stage.store, fresh(limits))
        if not stage.store.is_up:
            return count
        assert count < 10_000, "the breaker never opened"
    raise AssertionError


@pytest.mark.parametrize("mode", BREAKING)
def test_a_fault_is_told_at_once_and_mended_by_itself(proxy: FaultProxy, redis_server: RedisServer, mode: Mode) -> None:
    """Each ask is told, the breaker opens, nobody waits while it is open, and the store is back within 20 s, empty."""

    async def scenario() -> None:
        with structlog.testing.capture_logs() as events:
            async with risen(proxy.url) as stage:
                loop = asyncio.get_running_loop()
                events.clear()
                stage.changes.clear()
                proxy.mode = mode
                await break_down(stage)
                connections = proxy.connections
                began = loop.time()
                told = await asyncio.gather(*(ask_later(stage.store, fresh(LIMITS)) for _ in range(100)))
                assert told == [None] * 100
                assert loop.time() - began < PATIENCE_SECONDS, "a hundred asks waited for something"
                if mode != "flapping":  # which lets a probe through, and is up again for a moment
                    await settled(lambda: mode == "refuse" or proxy.connections > connections, "a probe that failed")
                    assert [event["event"] for event in events] == ["state_store_down"]
                    assert stage.changes == [False]
                redis_server.run("FLUSHALL")
                redis_server.run("SCRIPT", "FLUSH")
                proxy.mode = "pass"
                await stage.up()
                assert (await eventually(stage)).granted
                assert [event["event"] == "state_store_up" for event in events] == stage.changes
                if mode != "flapping":
                    assert stage.changes[:2] == [False, True]

    asyncio.run(scenario())


async def eventually(stage: Watched) -> Any:  # noqa: ANN401 (a verdict)
    """Return the first verdict that comes in time: on a busy machine one may not."""
    for _ in range(1_000):
        verdict = await ask_later(stage.store, fresh(LIMITS))
        if verdict is not None:
            return verdict
        await asyncio.sleep(0.02)
    raise AssertionError("no verdict")


def test_five_answers_that_do_not_come_open_the_breaker(proxy: FaultProxy) -> None:
    """Each of the first five is told after its patience and not before; the fifth takes along all under way."""

    async def scenario() -> None:
        async with risen(proxy.url) as stage:
            loop = asyncio.get_running_loop()
            stage.errors = 0
            proxy.mode = "black_hole"
            for count in range(1, MOST_FAILURES + 1):
                assert stage.store.is_up, "it opened too early"
                began = loop.time()
                assert await ask_later(stage.store, fresh(LIMITS)) is None
                assert PATIENCE_SECONDS - 0.002 <= loop.time() - began < WAIT_SECONDS
                assert stage.errors == count
            assert not stage.store.is_up

    asyncio.run(scenario())


def test_asks_under_way_fail_together_when_the_breaker_opens(proxy: FaultProxy) -> None:
    """A hundred that wait at once are all told by the time that the first have run out of patience."""

    async def scenario() -> None:
        async with risen(proxy.url) as stage:
            stage.errors = 0
            proxy.mode = "black_hole"
            told = await asyncio.gather(*(ask_later(stage.store, fresh(LIMITS)) for _ in range(100)))
            assert told == [None] * 100
            assert stage.errors == 100
            assert not stage.store.is_up

    asyncio.run(scenario())


def test_a_good_answer_ends_a_row_of_failures(redis_server: RedisServer) -> None:
    """The breaker counts failures in a row: four, an answer, and four more leave it closed."""

    async def scenario() -> None:
        async with watched(redis_server.url, patience_seconds=PATIENT_SECONDS) as stage:
            await stage.up()
            broken = limit_set(requests(1, name="broken"))
            redis_server.run("LPUSH", "fgw:{design|}:team/design/broken/requests", "no number")
            for limits, due in ((broken, 4), (LIMITS, 5), (broken, 4)):
                told = [await ask_later(stage.store, fresh(limits)) for _ in range(due)]
                assert [verdict is None for verdict in told] == [limits is broken] * due
            assert stage.store.is_up
            assert stage.errors == 8

    asyncio.run(scenario())


def test_a_grant_that_comes_too_late_is_undone(proxy: FaultProxy, redis_server: RedisServer) -> None:
    """Who was told nothing has taken nothing: its unit and its slot are given back when the answer comes after all."""

    async def scenario() -> None:
        limits = limit_set(requests(10), concurrent(10))
        async with (
            risen(proxy.url) as stage,
            watched(redis_server.url, replica="two", patience_seconds=PATIENT_SECONDS) as other,
        ):
            await other.up()
            proxy.mode = "slow"
            late = await asyncio.gather(*(ask_later(stage.store, fresh(limits)) for _ in range(3)))
            assert late == [None] * 3
            proxy.mode = "pass"
            left: list[list[int]] = []

            async def look() -> bool:
                ask = fresh(limits)
                left.append((await judge(other.store, ask)).remaining)
                other.store.undo(ask)
                return left[-1] == [9, 9]

            for _ in range(1_000):
                if await look():
                    return
                await asyncio.sleep(0.02)
            raise AssertionError(f"never given back: {left[-1]}")

    asyncio.run(scenario())


def test_slots_released_while_the_store_is_away_are_free_on_its_return(
    proxy: FaultProxy, redis_server: RedisServer
) -> None:
    """They are not left to run out: what is owed is paid before the breaker closes."""

    async def scenario() -> None:
        limits = limit_set(concurrent(3))
        async with watched(proxy.url, patience_seconds=PATIENT_SECONDS) as stage:
            await stage.up()
            asks = [fresh(limits) for _ in range(3)]
            assert all([(await judge(stage.store, ask)).granted for ask in asks])
            proxy.mode = "refuse"
            await stage.down()
            for ask in asks[:2]:
                stage.store.release(ask)
            key = "fgw:{design|}:team/design/parallel/concurrent-requests"
            assert redis_server.run("ZCARD", key) == 3
            proxy.mode = "pass"
            await stage.up()
            assert (await judge(stage.store, fresh(limits))).remaining == [1]

    asyncio.run(scenario())


def test_slots_whose_return_was_lost_are_given_back_later(proxy: FaultProxy) -> None:
    """A release that went out and was never answered is sent again, before the breaker closes."""

    async def scenario() -> None:
        limits = limit_set(concurrent(3))
        async with watched(proxy.url, patience_seconds=0.5) as stage:
            await stage.up()
            asks = [fresh(limits) for _ in range(3)]
            assert all([(await judge(stage.store, ask)).granted for ask in asks])
            proxy.mode = "black_hole"
            for ask in asks[:2]:
                stage.store.release(ask)
            await break_down(stage)
            proxy.mode = "pass"
            await stage.up()
            assert (await judge(stage.store, fresh(limits))).remaining == [1]

    asyncio.run(scenario())


def test_what_is_held_is_said_again_to_a_store_that_was_emptied(redis_server: RedisServer) -> None:
    """A renewal re-adds every lease, so that a flush frees nobody else's slots for long."""

    async def scenario() -> None:
        limits = limit_set(concurrent(3))
        async with watched(redis_server.url, patience_seconds=PATIENT_SECONDS) as stage:
            await stage.up()
            held = [fresh(limits) for _ in range(2)]
            for ask in held:
                assert (await judge(stage.store, ask)).granted
            redis_server.run("FLUSHALL")
            key = "fgw:{design|}:team/design/parallel/concurrent-requests"
            await settled(lambda: redis_server.run("ZCARD", key) == 2, "the leases to be said again")
            stage.store.release(held[0])
            assert (await judge(stage.store, fresh(limits))).remaining == [1]

    asyncio.run(scenario())


def test_a_script_that_was_forgotten_loses_no_call(redis_server: RedisServer) -> None:
    """After SCRIPT FLUSH every call under way is answered, and counted once."""

    async def scenario() -> None:
        limits = limit_set(requests(1_000))
        async with watched(redis_server.url, patience_seconds=PATIENT_SECONDS) as stage:
            await stage.up()
            redis_server.run("SCRIPT", "FLUSH")
            told = await asyncio.gather(*(ask_later(stage.store, fresh(limits)) for _ in range(50)))
            assert [verdict is not None and verdict.granted for verdict in told] == [True] * 50
            assert (await judge(stage.store, fresh(limits))).remaining == [949]
            assert stage.errors == 0

    asyncio.run(scenario())


def test_a_store_that_starts_again_empty_goes_on(start_redis: Callable[..., RedisServer]) -> None:
    """Killed and started anew without what it knew: down, then up, and it knows at once what is held."""

    async def scenario() -> None:
        server = start_redis()
        limits = limit_set(requests(10), concurrent(3))
        async with watched(server.url, patience_seconds=PATIENT_SECONDS) as stage:
            await stage.up()
            assert (await judge(stage.store, fresh(limits))).remaining == [9, 2]
            server.kill()
            await stage.down()
            server.start()
            await stage.up()
            assert (await judge(stage.store, fresh(limits))).remaining == [9, 1]
            assert stage.changes == [True, False, True]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), "OOM"),
        (("REPLICAOF", "127.0.0.1", "1"), "READONLY"),
        (("ACL", "SETUSER", "default", "-evalsha"), "NOPERM"),
    ],
)
def test_refusals_of_the_store_are_failures_and_named_once(
    start_redis: Callable[..., RedisServer], spoil: tuple[str, ...], kind: str
) -> None:
    """A store that answers and refuses is as good as away; the one event says why."""

    async def scenario() -> None:
        server = start_redis()
        with structlog.testing.capture_logs() as events:
            async with watched(server.url, patience_seconds=PATIENT_SECONDS) as stage:
                await stage.up()
                server.run(*spoil)
                # A script that has begun to write is let end, so that a set of slots would hide that memory is full.
                asks = await break_down(stage, limit_set(requests(1_000_000)))
                assert asks == (1 if kind == "OOM" else MOST_FAILURES)
                [down] = [event for event in events if event["event"] == "state_store_down"]
                assert down["reasons"] == [kind]
                assert down["log_level"] == "error"

    asyncio.run(scenario())


def test_a_server_that_is_of_a_cluster_and_not_the_right_one_is_a_failure(
    start_redis: Callable[..., RedisServer],
) -> None:
    """MOVED is not followed: it counts as a failure, by its name."""

    async def scenario() -> None:
        server = start_redis(cluster=True)
        with structlog.testing.capture_logs() as events:
            async with watched(server.url, patience_seconds=PATIENT_SECONDS) as stage:
                await stage.up()
                server.run("CLUSTER", "DELSLOTSRANGE", "0", "16383")
                await break_down(stage)
                [down] = [event for event in events if event["event"] == "state_store_down"]
                assert down["reasons"] == ["CLUSTERDOWN"]

    asyncio.run(scenario())


def test_a_gateway_starts_without_its_store(proxy: FaultProxy) -> None:
    """A start takes no longer than an attempt, tells once that it is down, and finds the store when it comes."""

    async def scenario() -> None:
        proxy.mode = "black_hole"
        with structlog.testing.capture_logs() as events:
            async with watched(proxy.url) as stage:
                assert not stage.store.is_up
                assert stage.changes == [False]
                assert await ask_later(stage.store, fresh(LIMITS)) is None
                found: list[tuple[Job | None, bool]] = []
                stage.store.jobs.find("x", lambda job, answered: found.append((job, answered)))
                await settled(lambda: found, "an answer about a job")
                assert found == [(None, False)]
                before = proxy.connections
                await settled(lambda: proxy.connections > before + 1, "probes that fail")
                proxy.mode = "pass"
                await stage.up()
                assert stage.changes[:2] == [False, True]
            assert [event["event"] for event in events][:2] == ["state_store_down", "state_store_up"]

    asyncio.run(scenario())


def test_calls_under_way_are_bounded(proxy: FaultProxy) -> None:
    """Beyond the bound a call fails at once: memory is not what patience is paid with."""

    async def scenario() -> None:
        async with watched(proxy.url, patience_seconds=WAIT_SECONDS) as stage:
            await stage.up()
            proxy.mode = "black_hole"
            under_way = [ask_later(stage.store, fresh(LIMITS)) for _ in range(MOST_PENDING)]
            assert await ask_later(stage.store, fresh(LIMITS)) is None
            assert not any(future.done() for future in under_way)
            assert stage.errors == 1

    asyncio.run(scenario())


def test_an_idle_gateway_notices_a_store_without_memory(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks anything: the next heartbeat finds it, though the store takes the heartbeat itself."""
    monkeypatch.setattr(redis_store, "BEAT_SECONDS", (0.01, 0.02))

    async def scenario() -> None:
        with structlog.testing.capture_logs() as events:
            async with risen(redis_server.url) as stage:
                redis_server.run("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 1)
                await settled(lambda: not stage.store.is_up, "a loss that is noticed")
                (down,) = [event for event in events if event["event"] == "state_store_down"]
                assert down["reasons"] == ["OOM"]
                redis_server.run("CONFIG", "SET", "maxmemory", 0)
                await stage.up()

    asyncio.run(scenario())


def test_a_store_without_memory_is_down_and_says_why(redis_server: RedisServer) -> None:
    """`noeviction` and no room: it refuses writes, and loses nothing; the log says why, and room brings it back."""

    async def scenario() -> None:
        with structlog.testing.capture_logs() as events:
            async with risen(redis_server.url) as stage:
                redis_server.run("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", 1)
                assert await break_down(stage, limit_set(requests(1_000_000))) == 1
                assert not await ask_later(stage.store, fresh(LIMITS)), "a probe finds it down, too"
                (down,) = [event for event in events if event["event"] == "state_store_down"]
                assert down["reasons"] == ["OOM"]
                redis_server.run("CONFIG", "SET", "maxmemory", 0)
                await stage.up()
        assert stage.changes == [True, False, True]

    asyncio.run(scenario())
