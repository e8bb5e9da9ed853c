"""A worker killed right behind its answers: its budgets count what the ledger does, wherever budgets live."""

from __future__ import annotations

import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ledger.entry import SETTLED, UNKNOWN
from tests.harness.redis import RedisServer
from tests.harness.waiting import until
from tests.money.market import DOLLAR, NS, Market, budget, buyer, market_policy
from tests.wire.test_workers import workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.emulator import Emulator
    from tests.harness.policy import GatewayKey

CALLS: Final = 8
DEATHS: Final = 3
UNITS: Final = 2  # a call is estimated at one
LIMIT: Final = 1_000


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


def agree(market: Market, key: GatewayKey) -> bool:
    """Return whether the budget counts what the ledger does, and holds nothing."""
    labels = {"scope": "key", "id": key.id, "period": "month"}
    metrics = market.gateway.metrics()
    told = [metrics.value(f"budget_{name}_usd", **labels) for name in ("spent", "reserved")]
    return told == [market.books.spent_ns(key) / NS, 0]
