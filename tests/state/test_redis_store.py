"""The store of replicas over every kind of connection: limits, jobs, heartbeats, and what a dead process held."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway.policy.budget import Budget, period_end, period_start
from gateway.policy.job import RELEASED, SETTLED, Job
from gateway.policy.quota import LEASE_SECONDS
from gateway.state.interface import Acquire
from gateway.state.memory.worker_budgets import Reservation
from gateway.state.redis.admin import RedisBudgetAdmin
from gateway.state.redis.job_commands import JOB_SECONDS
from tests.harness.fault_proxy import FaultProxy
from tests.harness.ports import LOOPBACK
from tests.harness.process import clean_environment
from tests.harness.redis import ESCAPED_PASSWORD, USER, RedisServer
from tests.harness.waiting import until
from tests.state.conftest import has_program
from tests.state.stage import (
    PATIENT_SECONDS,
    Watched,
    ask_later,
    concurrent,
    content_bytes,
    fresh,
    judge,
    limit_set,
    requests,
    settled,
    watched,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.state.redis.store import RedisStore
    from tests.harness.fault_proxy import Mode

JOB = Job("design", "web", "fal-ai/flux/dev")
BUDGET = Budget("team/design", "month", 100, tag="design")
ROOT = Path(__file__).parents[2]
LATE_SECONDS = 0.02


async def find(store: RedisStore, job_id: str) -> tuple[Job | None, bool]:
    """Return what a store tells of a job."""
    future: asyncio.Future[tuple[Job | None, bool]] = asyncio.get_running_loop().create_future()
    store.jobs.find(job_id, lambda job, answered: future.set_result((job, answered)))
    return await future


async def use_everything(stage: Watched) -> None:
    """Let a store run each of its commands once, and see that none failed."""
    await stage.up()
    store = stage.store
    limits = limit_set(requests(10), content_bytes(1000), concurrent(5))
    for address in ("", "192.0.2.1", "2001:db8::1", "{odd}"):
        first, second = fresh(limits, address=address), fresh(limits, address=address)
        assert (await judge(store, first)).remaining == [9, 1000, 4]
        store.charge(first, 500)
        store.undo(first)
        assert (await judge(store, second)).remaining[::2] == [9, 4]
        store.release(second)
    store.jobs.remember("job-1", JOB, lambda _: None)
    assert await find(store, "job-1") == (JOB, True)
    await use_money(stage)
    assert stage.errors == 0


async def use_money(stage: Watched) -> None:
    """Hold, settle and bind, beside a ledger process that fills in, looks, sweeps and closes jobs."""
    store, books = stage.store, RedisBudgetAdmin(stage.url, "one")
    start = period_start("month", time.time())
    span = (start, period_end("month", start))
    assert len(books.show_life()) == 1
    assert books.fill(BUDGET, span, spent_ns=1, jobs_ns=0, since=int(time.time()), seconds=0.0)
    limits = limit_set(requests(10, name="paid"))
    held, bound = Reservation((BUDGET,), 2), Reservation((BUDGET,), 3)
    for name, hold in (("a", held), ("b", bound)):
        assert (await judge(store, Acquire(name, limits, "", hold))).granted
    store.purses.settle(held, 4)
    store.purses.bind(bound)
    await asyncio.sleep(0)
    assert (await close_job(store, "job-1", 2)) == JOB
    (purse,) = books.purses([BUDGET])
    assert purse is not None
    assert (purse.spent_ns, purse.jobs_ns, purse.held_ns) == (5, 3, 0)
    assert books.fence() is None
    books.write_fence(1)
    assert books.fence() == 1
    books.tell_jobs([("job-2", JOB)])
    assert books.close_job("job-2", 1, JOB, closer=b"two") == JOB
    (cut,) = books.open_cuts([BUDGET], "one")
    assert cut is not None
    assert books.close_cuts({BUDGET: cut}, "one") == [[]]
    assert books.add(BUDGET, purse, spent_ns=6, jobs_ns=0)
    assert books.now() > start
    assert books.sweep(BUDGET, start, b"gone", is_gone=True) == 0
    books.drop(BUDGET, purse.edition)
    assert books.purses([BUDGET]) == [None]
    books.close()


async def close_job(store: RedisStore, job_id: str, state: int, known: Job | None = None) -> Job | None:
    """Return what a store tells of a closing."""
    future: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
    store.jobs.close(job_id, state, known, future.set_result)
    return await future


def play(url: str) -> None:
    """Use everything over a URL."""

    async def scenario() -> None:
        async with watched(url, patience_seconds=PATIENT_SECONDS) as stage:
            await use_everything(stage)

    asyncio.run(scenario())


def test_a_password_and_the_rights_of_the_docs_suffice(start_redis: Callable[..., RedisServer]) -> None:
    """A user of an ACL who may do what docs/settings.md names, and no more, with a password of odd characters."""
    server = start_redis(acl=True)
    play(f"redis://{USER}:{ESCAPED_PASSWORD}@{LOOPBACK}:{server.port}")


def test_a_wrong_password_is_told_by_kind_and_not_shown(start_redis: Callable[..., RedisServer]) -> None:
    """A gateway that may not enter starts all the same, and is down."""
    server = start_redis(acl=True)

    async def scenario() -> None:
        async with watched(f"redis://{USER}:canary@{LOOPBACK}:{server.port}") as stage:
            assert stage.changes == [False]
            assert not stage.store.is_up

    asyncio.run(scenario())


def test_tls_with_an_authority_of_its_own(
    start_redis: Callable[..., RedisServer], certificate: tuple[Path, Path]
) -> None:
    """`rediss://` with the server's own bundle works; without it the server is a stranger, and the store down."""
    server = start_redis(tls=certificate)
    play(f"valkeys://{LOOPBACK}:{server.port}/0?ssl_ca_certs={certificate[0]}")

    async def scenario() -> None:
        async with watched(f"rediss://{LOOPBACK}:{server.port}") as stage:
            assert stage.changes == [False]

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["late", "frozen"])
def test_a_connection_within_tls_has_ended_when_the_store_is_closed(
    start_redis: Callable[..., RedisServer], certificate: tuple[Path, Path], mode: Mode
) -> None:
    """Its last record has to be answered, late or never; a transport that is left open makes a warning."""
    server = start_redis(tls=certificate)
    with FaultProxy(server.port) as way:
        way.delay_seconds = LATE_SECONDS

        async def scenario() -> None:
            url = f"rediss://{LOOPBACK}:{way.port}/0?ssl_ca_certs={certificate[0]}"
            async with watched(url, patience_seconds=PATIENT_SECONDS) as stage:
                await stage.up()
                way.mode = mode

        asyncio.run(scenario())
        gc.collect()


def test_a_unix_socket_and_a_database_of_its_own(start_redis: Callable[..., RedisServer]) -> None:
    """The socket's path and the database come out of the URL."""
    server = start_redis()
    play(f"unix://{server.socket_path}?db=3")
    assert server.key_names() == []
    assert list(server.run("INFO", "keyspace")) == ["db3"]


def test_no_call_crosses_the_slots_of_a_cluster(start_redis: Callable[..., RedisServer]) -> None:
    """All keys of each call have one hash tag, whatever the team or the address is called."""
    server = start_redis(cluster=True)
    play(server.url)


@pytest.mark.skipif(not has_program("valkey-server"), reason="valkey-server is not installed")
def test_valkey_is_as_good(start_redis: Callable[..., RedisServer]) -> None:
    """The other server of the same protocol runs the same scripts."""
    server = start_redis(program="valkey-server")
    play(f"valkey://{LOOPBACK}:{server.port}")


def test_a_job_is_found_by_every_replica(redis_server: RedisServer) -> None:
    """What one gateway remembers another finds, for seven days; an id that was not remembered is nobody's."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            one, two = [
                await stack.enter_async_context(
                    watched(redis_server.url, replica=name, patience_seconds=PATIENT_SECONDS)
                )
                for name in ("one", "two")
            ]
            await one.up()
            await two.up()
            for odd in ("a", "ü {x}\r\n", "\ud800"):
                one.store.jobs.remember(odd, JOB, lambda _: None)
                assert await find(one.store, odd) == (JOB, True)
                assert await find(two.store, odd) == (JOB, True)
            assert await find(two.store, "b") == (None, True)
            assert JOB_SECONDS - 60 < redis_server.run("TTL", "fgw:job:a") <= JOB_SECONDS
            redis_server.run("SET", "fgw:job:c", "something else")
            assert await find(two.store, "c") == (None, True)

    asyncio.run(scenario())


def test_a_job_is_closed_once(redis_server: RedisServer) -> None:
    """By whoever the store says so to; up only, also where the store has lost it and a gateway still knows it."""

    async def scenario() -> None:
        async with (
            watched(redis_server.url, patience_seconds=PATIENT_SECONDS) as one,
            watched(redis_server.url, replica="two", patience_seconds=PATIENT_SECONDS) as two,
        ):
            await one.up()
            await two.up()
            one.store.jobs.remember("a", JOB, lambda _: None)
            assert await find(one.store, "a") == (JOB, True)
            told = await asyncio.gather(*(close_job(each.store, "a", RELEASED) for each in (one, two, one, two)))
            assert sorted(told, key=bool) == [None, None, None, JOB]
            one.store.jobs.remember("a", JOB, lambda _: None)
            assert await close_job(two.store, "a", SETTLED) == replace(JOB, state=RELEASED)
            assert await close_job(one.store, "a", RELEASED) is None
            assert await find(one.store, "a") == (replace(JOB, state=SETTLED), True)
            assert await close_job(one.store, "b", SETTLED) is None
            assert await close_job(one.store, "b", SETTLED, JOB) == JOB
            assert await close_job(two.store, "b", SETTLED, JOB) is None

    asyncio.run(scenario())


def test_gateways_are_counted_and_workers_are_not(redis_server: RedisServer) -> None:
    """Workers of one gateway share its id; a gateway that is gone is not counted for longer than 15 s."""

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            stages = [
                await stack.enter_async_context(
                    watched(redis_server.url, replica=name, patience_seconds=PATIENT_SECONDS)
                )
                for name in ("one", "one", "two")
            ]
            for stage in stages:
                await stage.up()
            await settled(lambda: [stage.store.replicas for stage in stages] == [2, 2, 2], "heartbeats")
            redis_server.run("ZADD", "fgw:{replicas}", "XX", 0, "two")
            assert stages[0].store.replicas == 2
            await stages.pop().store.close()
            redis_server.run("ZREM", "fgw:{replicas}", "two")
            await settled(lambda: [stage.store.replicas for stage in stages] == [1, 1], "heartbeats")

    asyncio.run(scenario())


def test_what_one_store_holds_another_cannot_free(redis_server: RedisServer) -> None:
    """A release is for what was granted here, so that a second one of the same lease frees nothing."""

    async def scenario() -> None:
        limits = limit_set(concurrent(1))
        async with (
            watched(redis_server.url, patience_seconds=PATIENT_SECONDS) as one,
            watched(redis_server.url, replica="two", patience_seconds=PATIENT_SECONDS) as two,
        ):
            held = fresh(limits)
            assert (await judge(one.store, held)).granted
            two.store.release(held)
            assert not (await judge(two.store, fresh(limits))).granted

    asyncio.run(scenario())


def test_closing_gives_back_what_is_held(redis_server: RedisServer) -> None:
    """A gateway that ends in order leaves no slot behind; closing twice does no harm."""

    async def scenario() -> None:
        limits = limit_set(concurrent(3))
        stage = Watched(redis_server.url, patience_seconds=PATIENT_SECONDS)
        await stage.store.start()
        for _ in range(3):
            assert (await judge(stage.store, fresh(limits))).granted
        await stage.store.close()
        await stage.store.close()
        assert redis_server.run("ZCARD", "fgw:{design|}:team/design/parallel/concurrent-requests") == 0
        assert await ask_later(stage.store, fresh(limits)) is None

    asyncio.run(scenario())


def test_asks_of_one_turn_go_out_together(redis_server: RedisServer) -> None:
    """A hundred asks of one step of the loop reach the server in a handful of reads, and come back in order."""

    async def scenario() -> None:
        limits = limit_set(requests(1_000))
        async with watched(redis_server.url, patience_seconds=PATIENT_SECONDS) as stage:
            await stage.up()
            await judge(stage.store, fresh(limits))
            before = reads_of(redis_server)
            told = await asyncio.gather(*(judge(stage.store, fresh(limits)) for _ in range(100)))
            assert [verdict.remaining for verdict in told] == [[998 - place] for place in range(100)]
            assert reads_of(redis_server) - before < 50

    asyncio.run(scenario())


def reads_of(server: RedisServer) -> int:
    """Return how many reads the server has done so far."""
    return int(server.run("INFO", "stats")["total_reads_processed"])


HOLDER = """
import asyncio, sys
from tests.state.stage import concurrent, fresh, judge, limit_set, watched

async def hold() -> None:
    async with watched(sys.argv[1], replica="killed", patience_seconds=5.0) as stage:
        await stage.up()
        for _ in range(50):
            assert (await judge(stage.store, fresh(limit_set(concurrent(50))))).granted
        print("held", file=sys.stderr, flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


def test_slots_of_a_killed_process_are_free_within_the_lease(redis_server: RedisServer) -> None:
    """Killed with 50 slots in hand: none is free at once, all are free when the lease has run out."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, redis_server.url], cwd=ROOT, env=clean_environment({}), stderr=subprocess.PIPE
    )
    try:
        assert holder.stderr is not None
        assert holder.stderr.readline() == b"held\n"
    finally:
        holder.kill()
        killed_at = time.monotonic()
        holder.communicate()

    async def scenario() -> None:
        limits = limit_set(concurrent(50))
        async with watched(redis_server.url, patience_seconds=PATIENT_SECONDS) as stage:
            await stage.up()
            ask = fresh(limits)
            assert not (await judge(stage.store, ask)).granted
            while not (verdict := await judge(stage.store, ask)).granted:
                assert time.monotonic() - killed_at < LEASE_SECONDS + 10.0
                await asyncio.sleep(0.1)
            while (verdict := await judge(stage.store, fresh(limits))).granted:
                pass
            assert verdict.remaining == [0]
            key = "fgw:{design|}:team/design/parallel/concurrent-requests"
            assert redis_server.run("ZCARD", key) == 50

    asyncio.run(scenario())
    until(lambda: holder.returncode is not None, "the killed process to be gone")
