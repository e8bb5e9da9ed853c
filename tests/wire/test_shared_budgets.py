"""Budgets of three gateways over one Redis and one ledger: never more than there is, whatever dies."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from gateway.ledger.entry import CHARGED
from gateway.ledger.ledger import Ledger
from tests.harness.client import RawClient
from tests.harness.gateway import Gateway
from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import OriginConnection, ScriptedOrigin
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.redis import RedisServer
from tests.harness.waiting import until
from tests.wire.test_workers import workers_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.origin import Received

RUN: Final = "https://fal.run/fal-ai/flux/dev"
SUBMIT: Final = "https://queue.fal.run/fal-ai/flux/dev"
DOLLAR: Final = 10**9
BUDGET: Final = 10
BACK_SECONDS: Final = 20.0
SETTLED_SECONDS: Final = 30.0
KEY: Final = GatewayKey("web", "design", entry={"budgets": [{"usd": str(BUDGET), "period": "month"}]})
PRICES: Final = [{"endpoint": "fal-ai/flux/dev", "unit": "image", "usd": "1"}]
POLICY: Final = policy_text(KEY, prices=PRICES)
OPEN_POLICY: Final = policy_text(KEY, prices=PRICES, on_state_loss="open")
JSON_TYPE: Final = ("Content-Type", "application/json")


class Origin:
    """An origin that answers runs with a unit when it is let, submits with an id, and results with two units."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.let.set()
        self.jobs = 0
        self.server = ScriptedOrigin(self._serve)

    def _serve(self, connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            connection.send(self._answer(request))

    def _answer(self, request: Received) -> bytes:
        if b"/requests/" in request.target:
            return http_response(fields=[JSON_TYPE, ("x-fal-billable-units", "2")])
        if request.head.value(b"host") == b"queue.fal.run":
            self.jobs += 1
            return http_response(b'{"request_id": "job-%d"}' % self.jobs)
        self.let.wait(SETTLED_SECONDS)
        return http_response(fields=[JSON_TYPE, ("x-fal-billable-units", "1")])

    @property
    def runs(self) -> int:
        """How many runs were executed."""
        return sum(request.method == "POST" for request in self.server.executions)


class Scene:
    """Three gateways, a Redis, a ledger, an origin."""

    def __init__(self, folder: Path, stack: ExitStack, *, policy: str = POLICY, gateways: int = 3) -> None:
        self._policy = policy
        self._folder = folder
        self._stack = stack
        self._callers = stack.enter_context(ThreadPoolExecutor(120))
        self.redis = stack.enter_context(RedisServer(folder / "redis"))
        self.origin = Origin()
        stack.callback(self.origin.server.close)
        self.database = f"sqlite:///{folder / 'ledger.db'}"
        self.gateways: list[Gateway] = []
        for _ in range(gateways):
            self.start()
        for gateway in self.gateways:
            gateway.wait_ready()
        until(lambda: self.purse().get("start"), "the budget to be filled in")

    def start(self) -> Gateway:
        """Start one more gateway."""
        env = {
            "FALGW_ORIGIN_OVERRIDES": self.origin.server.overrides,
            "FALGW_REDIS_URL": self.redis.url,
            "FALGW_DATABASE_URL": self.database,
        }
        folder = self._folder / f"gateway-{len(self.gateways)}"
        gateway = Gateway(folder, policy=self._policy, env=env)
        self._stack.callback(gateway.close, expected=None)
        self.gateways.append(gateway)
        return gateway

    def call(self, number: int, target: str = RUN, method: str = "POST") -> int:
        """Call one of the gateways; return the status, 0 where the connection broke."""
        gateway = self.gateways[number % len(self.gateways)]
        try:
            with RawClient(gateway.port, timeout_seconds=60.0) as client:
                return client.ask(proxy_request(target, key=KEY, method=method)).status
        except Exception:  # noqa: BLE001 (a gateway that was killed breaks off anywhere)
            return 0

    def call_many(self, count: int, *, first: int = 0) -> list[Any]:
        """Call so many times at once; return what will be their statuses."""
        return [self._callers.submit(self.call, number) for number in range(first, first + count)]

    def purse(self) -> dict[str, int]:
        """Return the sums in the store."""
        words = self.redis.run("HGETALL", "fgw:{design|}:key/web/month")
        return {name.decode(): int(value) for name, value in words.items() if name in (b"start", *SUMS)}

    def spent(self) -> int:
        """Return the sum of the ledger in nanodollars."""
        ledger = Ledger(self.database)
        try:
            return ledger.spent_since(0).keys.get("web", 0)
        finally:
            ledger.close()

    def wait_for_sums(self, spent: int, held: int, jobs: int = 0) -> None:
        """Wait until the store's sums are these, in dollars."""
        due = {"spent": spent * DOLLAR, "held": held * DOLLAR, "jobs": jobs * DOLLAR}

        def found() -> bool:
            purse = self.purse()
            return {name: purse.get(name) for name in due} == due

        until(found, f"{due}, not {self.purse()}", timeout_seconds=SETTLED_SECONDS)

    def wait_for_ledger(self, dollars: int) -> None:
        """Wait until the ledger says the same."""
        until(lambda: self.spent() == dollars * DOLLAR, f"{dollars} USD in the ledger", timeout_seconds=SETTLED_SECONDS)


SUMS: Final = (b"spent", b"held", b"jobs")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Run the scene."""
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


def gauge(gateway: Gateway, name: str) -> float:
    """Return a gauge of the budget."""
    return gateway.metrics().value(name, scope="key", id="web", period="month")


def shows(gateway: Gateway, spent: int) -> bool:
    """Say whether a gateway shows so many dollars as spent."""
    return gauge(gateway, "budget_spent_usd") == spent


def test_replicas_admit_exactly_the_budget(scene: Scene) -> None:
    """A hundred calls of a dollar at once, over three gateways: ten pass, ninety get 402, and all books agree."""
    statuses = [call.result() for call in scene.call_many(100)]
    assert (statuses.count(200), statuses.count(402)) == (BUDGET, 100 - BUDGET)
    assert scene.origin.runs == BUDGET
    scene.wait_for_sums(BUDGET, 0)
    scene.wait_for_ledger(BUDGET)
    for gateway in scene.gateways:
        until(partial(shows, gateway, BUDGET), "the gauge of what is spent")
        assert gauge(gateway, "budget_reserved_usd") == 0
        assert gauge(gateway, "budget_limit_usd") == BUDGET


def test_a_gateway_killed_in_the_midst_frees_nothing(scene: Scene) -> None:
    """Its holds stay held, and become spent when it is given up; what started in its place adds nothing."""
    scene.origin.let.clear()
    calls = scene.call_many(100)
    until(lambda: scene.origin.runs == BUDGET, "ten runs at the origin")
    until(lambda: sum(call.done() for call in calls) == 100 - BUDGET, "ninety refusals")
    scene.gateways[0].process.kill()
    scene.start().wait_ready()
    scene.gateways.pop(0)
    assert {call.result() for call in scene.call_many(30)} == {402}
    scene.origin.let.set()
    statuses = [call.result() for call in calls]
    assert statuses.count(402) == 100 - BUDGET
    assert statuses.count(200) + statuses.count(0) == BUDGET
    assert {call.result() for call in scene.call_many(30)} == {402}
    assert scene.origin.runs == BUDGET
    scene.wait_for_ledger(BUDGET)
    scene.redis.run("DEL", "fgw:{replicas}:seen")  # ten minutes go by: who lives shows it again
    scene.wait_for_sums(BUDGET, 0)
    assert {call.result() for call in scene.call_many(6)} == {402}


def test_what_a_killed_worker_held_is_spent(tmp_path: Path) -> None:
    """At once, and what comes in its place serves on; the ledger says the same."""
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, gateways=1)
        scene.origin.let.clear()
        calls = scene.call_many(4)
        scene.wait_for_sums(0, 4)
        for worker in workers_of(scene.gateways[0]).values():
            worker.kill()
        assert [call.result() for call in calls] == [0] * 4
        scene.wait_for_sums(4, 0)
        scene.wait_for_ledger(4)
        scene.origin.let.set()
        until(lambda: scene.call(0) == 200, "a new worker")
        scene.wait_for_sums(5, 0)


def test_a_result_is_settled_once_whoever_fetches_it(scene: Scene) -> None:
    """Submitted here, fetched there, several times at once: the submitter pays, once."""
    assert scene.call(0, SUBMIT) == 200
    scene.wait_for_sums(0, 0, jobs=1)
    result = f"{SUBMIT.replace('/dev', '')}/requests/job-1"
    with ThreadPoolExecutor(20) as callers:
        assert set(callers.map(lambda number: scene.call(number + 1, result, "GET"), range(20))) == {200}
    scene.wait_for_sums(2, 0)
    scene.wait_for_ledger(2)
    counted = sum(gateway.metrics().value("cost_usd_total", key="web") for gateway in scene.gateways)
    assert counted == 2
    ledger = Ledger(scene.database)
    entry = ledger.find_job("job-1")
    ledger.close()
    assert entry is not None
    assert (entry.key, entry.status, entry.cost_ns) == ("web", CHARGED[1], 2 * DOLLAR)


def test_a_store_that_was_emptied_is_filled_in_again(scene: Scene) -> None:
    """Closed until it is known again what is spent and held; then right, to the dollar."""
    assert [call.result() for call in scene.call_many(3)] == [200] * 3
    assert scene.call(0, SUBMIT) == 200
    scene.origin.let.clear()
    held = scene.call_many(2, first=1)
    scene.wait_for_sums(3, 2, jobs=1)
    scene.wait_for_ledger(3)
    scene.redis.run("FLUSHALL")
    emptied_at = time.monotonic()
    statuses: list[int] = []
    while (status := scene.call(len(statuses), SUBMIT)) != 200:
        statuses.append(status)
        assert time.monotonic() - emptied_at < BACK_SECONDS
        time.sleep(0.05)
    assert statuses[0] == 503
    assert set(statuses) <= {402, 503}, "what was settled just before may count twice until the first comparison"
    scene.wait_for_sums(3, 2, jobs=2)
    scene.origin.let.set()
    assert [call.result() for call in held] == [200] * 2
    scene.wait_for_sums(5, 0, jobs=2)
    assert sorted(call.result() for call in scene.call_many(9)) == [200] * 3 + [402] * 6
    result = f"{SUBMIT.replace('/dev', '')}/requests/job-1"
    assert [scene.call(number, result, "GET") for number in range(3)] == [200] * 3
    scene.wait_for_sums(10, 0, jobs=1)
    scene.wait_for_ledger(10)


def test_budgets_are_closed_while_the_store_is_away(tmp_path: Path) -> None:
    """503 while it is away, and right again within 20 s of its return, empty as it is."""
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, gateways=1)
        assert [scene.call(0) for _ in range(4)] == [200] * 4
        scene.wait_for_ledger(4)
        scene.redis.kill()
        until(lambda: scene.call(0) == 503, "the breaker to open")
        assert {scene.call(0) for _ in range(5)} == {503}
        scene.redis.start()
        until(lambda: scene.call(0) == 200, "the budget to be open again", timeout_seconds=BACK_SECONDS)
        scene.wait_for_sums(5, 0)
        assert [scene.call(0) for _ in range(6)] == [200] * 5 + [402]


def test_an_open_budget_counts_what_passed_while_the_store_was_away(tmp_path: Path) -> None:
    """`on_state_loss: open`: calls pass without a hold, are in the ledger, and count when the store is back."""
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, policy=OPEN_POLICY, gateways=1)
        assert scene.call(0) == 200
        scene.wait_for_sums(1, 0)
        scene.redis.kill()
        assert {scene.call(0) for _ in range(12)} == {200}
        scene.wait_for_ledger(13)
        scene.redis.start()
        scene.wait_for_sums(13, 0)
        until(lambda: scene.call(0) == 402, "the budget to be spent", timeout_seconds=BACK_SECONDS)
