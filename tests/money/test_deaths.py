"""Workers killed right behind their answers and in the midst of all: their budgets count what the ledger does."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ledger.entry import HELD, SETTLED, UNKNOWN
from tests.harness.fault_proxy import FaultProxy
from tests.harness.redis import RedisServer
from tests.harness.waiting import until
from tests.harness.wire import Truncated
from tests.money.market import DOLLAR, NS, Market, budget, buyer, market_policy, request_id_of
from tests.money.test_outages import limit_files
from tests.wire.test_workers import workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.emulator import Emulator
    from tests.harness.policy import GatewayKey

CALLS: Final = 8
DEATHS: Final = 3
UNITS: Final = 2  # a call is estimated at one
LIMIT: Final = 100_000
SHOPPERS: Final = 4
BETWEEN: Final = 40  # answers, from one death to the next


@pytest.fixture(params=["memory", "redis"])
def env(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the settings of a gateway that keeps its budgets there."""
    if request.param == "memory":
        yield {}
        return
    with RedisServer(tmp_path / "redis") as server:
        yield {"FALGW_REDIS_URL": server.url}


def test_a_worker_killed_behind_its_answers(
    open_market: Callable[..., Market], fal: Emulator, env: dict[str, str]
) -> None:
    """Each dies in the moment of the last answer; nothing of it is lost, nor counted twice."""
    key = buyer(f"outlived-{len(env)}", budget(str(LIMIT)))
    with open_market(fal, market_policy([key]), workers=1, **env) as market, ThreadPoolExecutor(CALLS) as pool:
        for deaths in range(1, DEATHS + 1):
            (doomed,) = workers_of(market.gateway).values()
            answers = pool.map(lambda _: market.ask(key, DOLLAR, emulate=f"units={UNITS}").status, range(CALLS))
            assert Counter(answers) == {200: CALLS}
            os.kill(doomed.pid, signal.SIGKILL)
            until(lambda gone=doomed.pid: workers_of(market.gateway).keys() - {gone}, "another")  # type: ignore[misc]
            market.gateway.wait_ready()
            until(lambda count=deaths * CALLS: are_over(market, key, count), "the ends of all")  # type: ignore[misc]
            until(lambda: agree(market, key), "ledger and budget to agree", timeout_seconds=20)


def are_over(market: Market, key: GatewayKey, count: int) -> bool:
    """Return whether so many are over: settled, or unknown where the death came before the end of the turn."""
    ends = Counter((entry.status, entry.cost_ns) for entry in market.books.of(key))
    return ends[SETTLED, UNITS * NS] + ends[UNKNOWN, NS] == ends.total() == count


def spent(market: Market, key: GatewayKey) -> float:
    """Return what the budget has spent, in USD."""
    return market.gateway.metrics().value("budget_spent_usd", scope="key", id=key.id, period="month")


def agree(market: Market, key: GatewayKey) -> bool:
    """Return whether the budget counts what the ledger does: what is spent, and what open jobs hold."""
    labels = {"scope": "key", "id": key.id, "period": "month"}
    metrics = market.gateway.metrics()
    told = [metrics.value(f"budget_{name}_usd", **labels) for name in ("spent", "reserved")]
    held = [entry for entry in market.books.of(key) if entry.status == HELD]
    open_ns = sum(entry.estimate_ns or 0 for entry in held)
    is_over = all(entry.fal_request_id for entry in held)
    return is_over and told == [market.books.spent_ns(key) / NS, open_ns / NS]


def test_workers_killed_in_the_midst_of_all(
    open_market: Callable[..., Market], fal: Emulator, env: dict[str, str]
) -> None:
    """Runs of several costs and jobs, fetched or not, go on while one worker after another dies."""
    key = buyer(f"stormy-{len(env)}", budget(str(LIMIT)))
    is_over = Event()
    with open_market(fal, market_policy([key]), workers=2, **env) as market, ThreadPoolExecutor(SHOPPERS) as pool:
        answered: list[int] = []
        shoppers = [pool.submit(shop, market, key, answered, is_over) for _ in range(SHOPPERS)]
        try:
            for deaths in range(1, 2 * DEATHS + 1):
                until(lambda most=deaths * BETWEEN: len(answered) >= most, "answers", timeout_seconds=30)  # type: ignore[misc]
                doomed = until(lambda: list(workers_of(market.gateway).values()), "a worker")
                os.kill(doomed[deaths % len(doomed)].pid, signal.SIGKILL)
        finally:
            is_over.set()
        for shopper in shoppers:
            shopper.result()
        market.gateway.wait_ready()
        until(lambda: agree(market, key), "ledger and budget to agree", timeout_seconds=20)
        assert market.books.spent_ns(key) > 2 * DEATHS * BETWEEN * NS // 2


def test_what_a_full_disk_kept_from_the_journal_dies_with_its_worker(
    open_market: Callable[..., Market], fal: Emulator, env: dict[str, str]
) -> None:
    """The call was answered, and dearer than its estimate: neither the ledger nor the budget ever hears of it."""
    key = buyer(f"unheard-{len(env)}", budget(str(LIMIT)))
    with open_market(fal, market_policy([key]), workers=1, **env) as market, ThreadPoolExecutor(1) as pool:
        assert market.ask(key, DOLLAR, emulate=f"units={UNITS}").status == 200
        (doomed,) = workers_of(market.gateway).values()
        (journal,) = Path(market.books.url.removeprefix("sqlite:///") + ".spool").glob("*/*.journal")
        slow = pool.submit(market.ask, key, DOLLAR, emulate=f"units={UNITS},delay=1000")
        until(lambda: journal.read_bytes().count(b"\n") == 3, "the second hold to be written down")
        limit_files(doomed, journal.stat().st_size + 7)
        assert slow.result().status == 200
        until(lambda: spent(market, key) == 2 * UNITS, "the budget to count it")
        doomed.kill()
        until(lambda: are_over(market, key, 2), "the ends of both")
        until(lambda: agree(market, key), "ledger and budget to agree", timeout_seconds=20)
        assert spent(market, key) == UNITS + 1


def test_a_gateway_that_stops_while_redis_is_unavailable(
    open_market: Callable[..., Market], fal: Emulator, tmp_path: Path
) -> None:
    """What it could not tell Redis is told by the next gateway over the same journals, and not after ten minutes."""
    key = buyer("unsaid", budget(str(LIMIT)))
    with (
        RedisServer(tmp_path / "redis") as server,
        FaultProxy(server.port) as proxy,
        open_market(fal, market_policy([key]), FALGW_REDIS_URL=proxy.url) as market,
        ThreadPoolExecutor(1) as pool,
    ):
        executed = len(fal.executions())
        slow = pool.submit(market.ask, key, DOLLAR, emulate=f"units={UNITS},delay=1000")
        until(lambda: len(fal.executions()) > executed, "the run at fal")
        proxy.mode = "refuse"
        market.gateway.process.signal(signal.SIGTERM)
        assert slow.result().status == 200
        market.gateway.close()
        proxy.mode = "pass"
        market.revive()
        until(lambda: agree(market, key), "ledger and budget to agree", timeout_seconds=30)
        assert spent(market, key) == UNITS


def shop(market: Market, key: GatewayKey, answered: list[int], is_over: Event) -> None:
    """Buy until it is over; a worker's death costs an answer."""
    for number in itertools.count():
        if is_over.is_set():
            return
        try:
            buy(market, key, number, answered)
        except (OSError, Truncated):
            is_over.wait(0.01)  # so that nobody knocks all the time while no worker is there


def buy(market: Market, key: GatewayKey, number: int, answered: list[int]) -> None:
    """Buy a run, or each fourth time a job, of which half are fetched."""
    if number % 4:
        answered.append(market.ask(key, DOLLAR, emulate=f"units={number % 3}.5").status)
        return
    submitted = market.submit(key, DOLLAR)
    answered.append(submitted.status)
    if number % 8:
        market.job(key, request_id_of(submitted), endpoint=DOLLAR)
