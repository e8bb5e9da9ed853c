"""The ledger's database, or the disk, away: calls go on, every row is there in the end, once.

Only where it cannot be written down what is held, or is not known what was spent, a caller under a budget is refused.
"""

from __future__ import annotations

import contextlib
import resource
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psutil
import pytest

from tests.harness.postgres import PostgresServer
from tests.harness.waiting import until
from tests.money.market import DOLLAR, NS, Market, budget, buyer, market_policy, request_id_of
from tests.wire.test_workers import workers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.client import Response
    from tests.harness.emulator import Emulator
    from tests.harness.policy import GatewayKey

BUDGETED: Final = buyer("budgeted", budget("1000000"))
OPEN: Final = buyer("open")
KEYS: Final = (BUDGETED, OPEN)
BACK_SECONDS: Final = 30.0
COST_NS: Final = 25_000_000


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Run one PostgreSQL server for the module."""
    with PostgresServer() as server:
        yield server


class Load:
    """Callers with and without a budget, who buy all the while; `answers` are all that they got."""

    def __init__(self, market: Market) -> None:
        self.answers: list[Response] = []
        self._market = market
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._buy, args=(key,)) for key in KEYS]

    def __enter__(self) -> Self:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Send the callers home; harmless when done twice."""
        self._over.set()
        for caller in self._callers:
            caller.join()

    def _buy(self, key: GatewayKey) -> None:
        while not self._over.wait(0.02):
            self.answers.append(self._market.ask(key))

    def goes_on(self) -> None:
        """Wait for ten answers more."""
        count = len(self.answers)
        until(lambda: len(self.answers) >= count + 10, "more answers")


def assert_all_there(market: Market, load: Load) -> None:
    """Check that each answer was a good one, and that its row is in the ledger, once and settled."""
    assert Counter(answer.status for answer in load.answers) == {200: len(load.answers)}
    bought = sorted(str(answer.field("x-gateway-request-id")) for answer in load.answers)

    def there() -> bool:
        return sorted(entry.id for entry in market.books.entries() if entry.status == "settled") == bought

    until(there, "all rows", timeout_seconds=BACK_SECONDS)
    assert market.books.spent_ns() == len(bought) * COST_NS
    assert sum(market.charged_ns(key) for key in KEYS) == len(bought) * COST_NS


@contextlib.contextmanager
def locked(market: Market) -> Iterator[None]:
    """Keep everybody else from writing to an SQLite ledger."""
    with contextlib.closing(sqlite3.connect(market.books.url.removeprefix("sqlite:///"), isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        yield
        file.execute("ROLLBACK")


def is_up(market: Market, *, up: bool) -> bool:
    """Say whether the gateway knows how its database is."""
    return market.gateway.metrics().value("ledger_up") == up


def test_a_locked_database_stops_no_call(open_market: Callable[..., Market], fal: Emulator) -> None:
    """Another process holds SQLite's file: calls go on, also under budgets, and the rows come when it lets go."""
    with open_market(fal, market_policy(KEYS), workers=2) as market, Load(market) as load:
        load.goes_on()
        with locked(market):
            until(lambda: is_up(market, up=False), "the outage to be noticed", timeout_seconds=BACK_SECONDS)
            load.goes_on()
        until(lambda: is_up(market, up=True), "the ledger's return", timeout_seconds=BACK_SECONDS)
        load.end()
        assert_all_there(market, load)


def test_a_start_without_its_database_keeps_budgets_closed(open_market: Callable[..., Market], fal: Emulator) -> None:
    """What was spent is not known: 503 for callers under a budget, and calls without one pass; then both do."""
    with open_market(fal, market_policy(KEYS)) as market:
        assert market.ask(BUDGETED).status == 200
        market.gateway.close()
        with locked(market):
            market.revive()
            refused = market.ask(BUDGETED)
            assert (refused.status, refused.json()["error_type"]) == (503, "state_unavailable")
            assert "not known yet" in refused.json()["message"]
            assert refused.field("retry-after") == "1"
            assert market.ask(OPEN).status == 200
        until(lambda: market.ask(BUDGETED).status == 200, "the budget's return", timeout_seconds=BACK_SECONDS)
        labels = {"scope": "key", "id": BUDGETED.id}
        until(
            lambda: market.gateway.metrics().value("budget_spent_usd", **labels) == 0.05, "the sum with what was before"
        )


@pytest.mark.parametrize("seconds", [10])
def test_a_postgresql_that_is_stopped_and_started_again(
    open_market: Callable[..., Market], fal: Emulator, postgres: PostgresServer, seconds: int
) -> None:
    """Under load, for ten seconds: no call is refused, and every row is there, once."""
    with open_market(fal, market_policy(KEYS), workers=2, url=postgres.new_database()) as market, Load(market) as load:
        load.goes_on()
        postgres.stop()
        stopped = time.monotonic()
        until(lambda: is_up(market, up=False), "the outage to be noticed", timeout_seconds=BACK_SECONDS)
        until(lambda: time.monotonic() - stopped >= seconds, "the end of the outage", timeout_seconds=seconds + 5)
        load.goes_on()
        postgres.start()
        until(lambda: is_up(market, up=True), "the ledger's return", timeout_seconds=BACK_SECONDS)
        load.goes_on()
        load.end()
        assert_all_there(market, load)


def limit_files(worker: psutil.Process, most_bytes: int) -> None:
    """Let no file of a process grow beyond so many bytes."""
    worker.rlimit(psutil.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))


def test_a_disk_that_is_full_closes_budgets_only(open_market: Callable[..., Market], fal: Emulator) -> None:
    """What cannot be written down is not bought under a budget: 503 that says so; with room again it passes."""
    with open_market(fal, market_policy(KEYS)) as market:
        assert market.ask(BUDGETED, DOLLAR).status == 200
        (worker,) = workers_of(market.gateway).values()
        (journal,) = Path(market.books.url.removeprefix("sqlite:///") + ".spool").glob("*/*.journal")
        limit_files(worker, journal.stat().st_size + 7)
        refused = [market.ask(BUDGETED, DOLLAR), market.ask(BUDGETED, DOLLAR, body=b" " * 100_000 + b"{}")]
        answers = [market.ask(OPEN) for _ in range(3)]
        refused.append(market.ask(BUDGETED, DOLLAR))
        assert [answer.status for answer in answers] == [200] * 3
        for answer in refused:
            assert (answer.status, answer.json()["error_type"]) == (503, "state_unavailable")
            assert "written down" in answer.json()["message"]
            assert answer.field("retry-after") == "1"
        assert len(fal.executions(endpoint=DOLLAR)) == 1
        limit_files(worker, resource.RLIM_INFINITY)
        answers.append(market.ask(BUDGETED))
        assert answers[-1].status == 200
        for answer in answers:
            assert market.entry(answer).cost_ns == COST_NS
        assert market.books.spent_ns() == NS + 4 * COST_NS
        assert market.entry(refused[0]).status == "released"
        labels = {"scope": "key", "id": BUDGETED.id}
        until(lambda: market.gateway.metrics().value("budget_spent_usd", **labels) == 1.025, "the budget's sum")
        assert market.gateway.metrics().value("budget_reserved_usd", **labels) == 0


def test_a_full_disk_and_a_killed_worker(open_market: Callable[..., Market], fal: Emulator) -> None:
    """A result whose line was lost with its worker is settled when it is fetched again; what is lost is counted."""
    with open_market(fal, market_policy(KEYS)) as market:
        job_id = request_id_of(submitted := market.submit(BUDGETED, DOLLAR))
        (worker,) = workers_of(market.gateway).values()
        (journal,) = Path(market.books.url.removeprefix("sqlite:///") + ".spool").glob("*/*.journal")
        limit_files(worker, journal.stat().st_size + 7)
        assert market.job(BUDGETED, job_id, endpoint=DOLLAR).status == 200
        lost = market.ask(OPEN)
        assert lost.status == 200
        worker.kill()
        market.gateway.wait_for_event("purchases_lost", lambda event: event["reason"] == "worker_died")
        until(market.gateway.ready, "another worker")
        assert market.gateway.metrics().value("ledger_lost_purchases_total") == 2
        assert market.books.entry(str(submitted.field("x-gateway-request-id")), "held").fal_request_id == job_id
        labels = {"scope": "key", "id": BUDGETED.id}
        until(lambda: market.gateway.metrics().value("budget_reserved_usd", **labels) == 1, "the hold of the job")
        assert market.job(BUDGETED, job_id, endpoint=DOLLAR).status == 200
        assert market.entry(submitted, "settled").cost_ns == NS
        until(lambda: market.gateway.metrics().value("budget_spent_usd", **labels) == 1, "the budget's sum")
        assert market.gateway.metrics().value("budget_reserved_usd", **labels) == 0
        assert market.books.find(str(lost.field("x-gateway-request-id"))) is None
