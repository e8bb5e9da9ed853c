"""Three gateways over one Redis and one PostgreSQL, as replicas run: one budget, one ledger, one sum.

The decision it carries: one set of gateways serves the module, and each rule has a key of its own. They have no folder
in common: what a killed one had not told yet waits in its own journals for its next start.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.gateway import Gateway
from tests.harness.messages import proxy_request
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.postgres import PostgresServer
from tests.harness.process import GATEWAY, clean_environment
from tests.harness.redis import RedisServer
from tests.harness.waiting import until
from tests.harness.wire import Truncated
from tests.money.market import COMMAND_SECONDS, FLUX, NS, Books
from tests.wire.test_shared_budgets import RUN, SETTLED_SECONDS, SUBMIT, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.client import Response

REPLICAS: Final = 3
BUDGET: Final = 10
KILLED_CALLS: Final = 4
DEADLINE_SECONDS: Final = 2


def buyer(name: str) -> GatewayKey:
    """Return a key with ten dollars a month."""
    return GatewayKey(name, name, entry={"budgets": [{"usd": str(BUDGET), "period": "month"}]})


CROWD: Final = buyer("crowd")
BEREFT: Final = buyer("bereft")
LATE: Final = buyer("late")
WORN: Final = GatewayKey("worn", "worn", entry={"budgets": [{"usd": "1000000", "period": "month"}]})
SPARE: Final = buyer("spare")
KEYS: Final = (CROWD, BEREFT, LATE, WORN, SPARE)
POLICY: Final = policy_text(
    *KEYS,
    prices=[{"endpoint": FLUX, "unit": "image", "usd": "1"}],
    settle_deadline=f"{DEADLINE_SECONDS}s",
)


class Replicas:
    """The gateways, what they share, and the origin behind them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.callers = stack.enter_context(ThreadPoolExecutor(120))
        self._redis = stack.enter_context(RedisServer(folder / "redis"))
        self.books = Books(stack.enter_context(PostgresServer()).new_database())
        stack.callback(self.books.close)
        self.origin = Origin()
        stack.callback(self.origin.server.close)
        self.gateways = [self._start(number) for number in range(REPLICAS)]
        for gateway in self.gateways:
            gateway.wait_ready()
        for key in KEYS:
            until(lambda key=key: self.purse(key), "the budget to be filled in")  # type: ignore[misc]

    def _start(self, number: int) -> Gateway:
        env = {
            "FALGW_ORIGIN_OVERRIDES": self.origin.server.overrides,
            "FALGW_REDIS_URL": self._redis.url,
            "FALGW_DATABASE_URL": self.books.url,
        }
        gateway = Gateway(self._folder / f"gateway-{number}", policy=POLICY, env=env)
        self._stack.callback(gateway.close, expected=None)
        return gateway

    def revive(self, number: int) -> None:
        """Start one again that was killed, in its folder."""
        self.gateways[number] = self._start(number).wait_ready()

    def ask(self, number: int, key: GatewayKey, target: str = RUN, method: str = "POST") -> Response:
        """Ask one of the gateways."""
        with RawClient(self.gateways[number % REPLICAS].port, timeout_seconds=60.0) as client:
            return client.ask(proxy_request(target, key=key, method=method))

    def status(self, number: int, key: GatewayKey) -> int:
        """Run an endpoint; return the status, 0 where the connection broke."""
        try:
            return self.ask(number, key).status
        except (Truncated, OSError):
            return 0

    def begin(self, key: GatewayKey, *numbers: int) -> list[Future[int]]:
        """Run an endpoint through these gateways, all at once."""
        return [self.callers.submit(self.status, number, key) for number in numbers]

    def shift_purse(self, key: GatewayKey, dollars: int, sum_name: str) -> None:
        """Add dollars to a sum in the store, as no process does."""
        self._redis.run("HINCRBY", f"fgw:{{{key.team}|}}:key/{key.id}/month", sum_name, dollars * NS)

    def corrections(self, key: GatewayKey) -> list[tuple[int, int]]:
        """Return by how many dollars a key's budget was corrected: what is spent, and what jobs hold."""
        found = [each for gateway in self.gateways for each in gateway.events("budget_corrected")]
        return [(each["spent_ns"] // NS, each["held_ns"] // NS) for each in found if each["id"] == key.id]

    def purse(self, key: GatewayKey) -> dict[str, int]:
        """Return what the store has of a key's budget: spent, held by runs, held by jobs; empty before it is there."""
        words = self._redis.run("HGETALL", f"fgw:{{{key.team}|}}:key/{key.id}/month")
        return {name: int(words[name.encode()]) for name in ("spent", "held", "jobs") if words}

    def wait_for_books(self, key: GatewayKey, rows: int, dollars: int) -> None:
        """Wait until the ledger has so many rows of a key, all charged, of so many dollars."""

        def told() -> list[str]:
            return [entry.status for entry in self.books.of(key) if entry.status != "held"]

        until(lambda: len(told()) == rows, f"{rows} rows of {key.id}", timeout_seconds=SETTLED_SECONDS)
        assert (len(self.books.of(key)), self.books.spent_ns(key)) == (rows, dollars * NS)

    def counted(self, key: GatewayKey) -> list[float]:
        """Return what each gateway has counted as spent by a key."""
        return [gateway.metrics().value("cost_usd_total", key=key.id) for gateway in self.gateways]

    def totals(self) -> list[dict[tuple[str, ...], float]]:
        """Return what each gateway shows of the whole ledger."""
        scrapes = [gateway.metrics() for gateway in self.gateways]
        return [
            scrape.table("ledger_cost_usd", "key", "source") if "ledger_cost_usd{" in scrape.text else {}
            for scrape in scrapes
        ]

    def usage(self) -> list[Any]:
        """Return what `fal-gateway usage` says, run where the first two gateways run."""
        command = [sys.executable, *GATEWAY, "usage", "--by", "key", "--format", "json"]
        env = clean_environment({"FALGW_DATABASE_URL": self.books.url})

        def said(gateway: Gateway) -> Any:  # noqa: ANN401 - JSON
            folder = gateway.process.folder
            done = subprocess.run(
                command, env=env, cwd=folder, capture_output=True, timeout=COMMAND_SECONDS, check=False
            )
            assert done.returncode == 0, (done.stdout, done.stderr)
            told = json.loads(done.stdout)
            del told["until"]  # the moment of asking
            return told

        return [said(gateway) for gateway in self.gateways[:2]]


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Run the module's gateways."""
    with ExitStack() as stack:
        yield Replicas(tmp_path_factory.mktemp("replicas"), stack)


def results(calls: list[Future[int]]) -> list[int]:
    """Wait for calls to be over; return their statuses."""
    return [call.result() for call in calls]


def wait_for_one_sum(replicas: Replicas, key: GatewayKey, told: dict[str, int]) -> None:
    """Wait until each gateway shows these dollars of a key, by source, and the same whole of all keys."""

    def shown() -> bool:
        first, *others = replicas.totals()
        mine = {source: value for (name, source), value in first.items() if name == key.id}
        return mine == told and all(other == first for other in others)

    until(shown, f"one sum in all gateways, not {replicas.totals()}")


def test_replicas_over_postgresql_admit_exactly_the_budget(replicas: Replicas) -> None:
    """A hundred calls of a dollar at once: ten pass, ninety get 402; ten rows, and every replica tells the same."""
    statuses = results(replicas.begin(CROWD, *range(100)))
    assert (statuses.count(200), statuses.count(402)) == (BUDGET, 100 - BUDGET)
    assert replicas.origin.runs == BUDGET
    replicas.wait_for_books(CROWD, BUDGET, BUDGET)
    assert {entry.status for entry in replicas.books.of(CROWD)} == {"settled"}
    until(lambda: replicas.purse(CROWD) == {"spent": BUDGET * NS, "held": 0, "jobs": 0}, "the sums in the store")
    assert sum(replicas.counted(CROWD)) == BUDGET
    wait_for_one_sum(replicas, CROWD, {"exact": BUDGET})


def test_a_job_past_its_deadline_is_charged_once_by_one_of_them(replicas: Replicas) -> None:
    """As estimated; its hold is freed in the store; results that come after it change nothing, in any replica."""
    submitted = replicas.ask(0, LATE, SUBMIT)
    job_id = str(submitted.json()["request_id"])
    entry = replicas.books.entry(str(submitted.field("x-gateway-request-id")))
    assert (entry.status, entry.source, entry.cost_ns, entry.fal_request_id) == ("settled", "estimated", NS, job_id)
    assert entry.changed_at_us - entry.admitted_at_us >= DEADLINE_SECONDS * 10**6
    until(lambda: replicas.purse(LATE) == {"spent": NS, "held": 0, "jobs": 0}, "the freed hold")
    until(lambda: sorted(replicas.counted(LATE)) == [0, 0, 1], "one replica to have counted it")
    result = f"{SUBMIT.removesuffix('/dev')}/requests/{job_id}"
    assert [replicas.ask(number, LATE, result, "GET").status for number in range(REPLICAS)] == [200] * REPLICAS
    assert results(replicas.begin(LATE, *range(REPLICAS))) == [200] * REPLICAS  # told behind the results
    replicas.wait_for_books(LATE, 1 + REPLICAS, 1 + REPLICAS)
    assert replicas.books.find(entry.id) == entry
    spent = {"spent": (1 + REPLICAS) * NS, "held": 0, "jobs": 0}
    until(lambda: replicas.purse(LATE) == spent, "the sums in the store")
    assert sorted(replicas.counted(LATE)) == [1, 1, 2]


def test_a_replica_killed_in_the_midst_and_started_again(replicas: Replicas) -> None:
    """Never more than ten are executed; what it held is charged once, by the rows that its journals kept."""
    before = replicas.origin.runs
    replicas.origin.let.clear()
    calls = replicas.begin(BEREFT, *[0] * KILLED_CALLS)
    until(lambda: replicas.origin.runs - before == KILLED_CALLS, "the runs of the one to be killed")
    calls += replicas.begin(BEREFT, *range(100 - KILLED_CALLS))
    until(lambda: replicas.origin.runs - before == BUDGET, "ten runs at the origin")
    until(lambda: sum(call.done() for call in calls) == 100 - BUDGET, "ninety refusals")
    replicas.gateways[0].process.kill()
    lost = [status for status in results(calls[:KILLED_CALLS]) if status == 0]
    assert len(lost) == KILLED_CALLS
    replicas.revive(0)
    assert results(replicas.begin(BEREFT, *range(30))) == [402] * 30
    replicas.origin.let.set()
    statuses = results(calls)
    assert statuses.count(402) == 100 - BUDGET
    assert statuses.count(200) + statuses.count(0) == BUDGET
    assert results(replicas.begin(BEREFT, *range(30))) == [402] * 30
    assert replicas.origin.runs - before == BUDGET
    replicas.wait_for_books(BEREFT, BUDGET, BUDGET)
    ends = [entry.status for entry in replicas.books.of(BEREFT)]
    assert (ends.count("settled"), ends.count("unknown")) == (statuses.count(200), statuses.count(0))
    told = {"exact": statuses.count(200), "unknown": statuses.count(0)}
    wait_for_one_sum(replicas, BEREFT, told)
    first, other = replicas.usage()
    assert other == first
    assert {row["source"]: Decimal(row["cost_usd"]) for row in first["rows"] if row["key"] == BEREFT.id} == told
    assert Decimal(first["total_usd"]) * NS == replicas.books.spent_ns()


def test_a_budget_that_is_spent_from_without_a_pause_equals_the_ledger(replicas: Replicas) -> None:
    """Runs and jobs go on through all gateways while it is corrected, to the nanodollar."""
    is_over = Event()

    def call(number: int) -> int:
        calls = 0
        while not is_over.is_set():
            assert replicas.ask(number, WORN).status == 200
            job_id = replicas.ask(number, WORN, SUBMIT).json()["request_id"]
            result = f"{SUBMIT.removesuffix('/dev')}/requests/{job_id}"
            assert replicas.ask(number, WORN, result, "GET").status == 200
            calls += 1
        return calls

    callers = [replicas.callers.submit(call, number) for number in range(REPLICAS)]
    try:
        replicas.shift_purse(WORN, 7_000, "spent")
        replicas.shift_purse(WORN, 3_000, "jobs")
        replicas.ask(0, SPARE, SUBMIT)  # overdue in two seconds; its charge asks for a comparison
        until(lambda: replicas.corrections(WORN), "the correction", timeout_seconds=20)
    finally:
        is_over.set()
    calls = sum(caller.result() for caller in callers)
    assert calls > 10 * REPLICAS

    def ends() -> list[str]:
        return [row.status for row in replicas.books.of(WORN) if row.status != "held"]

    until(lambda: len(ends()) == 2 * calls, "the last ends")
    spent_ns = replicas.books.spent_ns(WORN)
    until(lambda: replicas.purse(WORN) == {"spent": spent_ns, "held": 0, "jobs": 0}, "the sums in the store")
    assert replicas.corrections(WORN) == [(-7_000, -3_000)], "nothing else was different"
