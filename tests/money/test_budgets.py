"""Budgets: hard for all calls at once, over all workers, and through the death of any process (docs/budgets.md)."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.harness.messages import http_response
from tests.harness.origin import OriginConnection, overrides_to
from tests.harness.scene import ScriptSlot
from tests.harness.waiting import until
from tests.harness.wire import Truncated
from tests.limits.ground import LOST, left, requests
from tests.money.market import (
    DOLLAR,
    FLUX,
    NS,
    Market,
    budget,
    buyer,
    market_policy,
    request_id_of,
    run_of,
)
from tests.wire.test_workers import tcp_of, workers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

    from tests.harness.client import Response
    from tests.harness.emulator import Emulator
    from tests.harness.policy import GatewayKey

CALLS: Final = 100
LIMIT: Final = 10
AT_ONCE: Final = 25
FRESH_SECONDS: Final = 5.0

SMALL: Final = buyer("small", budget("2.5", "day"), budget("100"))
HELD: Final = buyer("held", budget("2"))
TEAMED: Final = buyer("teamed", budget("10"), team="crowd")
TEAMMATE: Final = buyer("teammate", budget("10"), team="crowd")
TOLD: Final = buyer("told", budget("5", "week"))
KEYS: Final = (SMALL, HELD, TEAMED, TEAMMATE, TOLD)


@pytest.fixture(scope="module")
def market(open_market: Callable[..., Market], fal: Emulator) -> Market:
    """Return the module's market: two workers before the emulator."""
    SMALL.entry["limits"] = [requests("submits", quota=10, window=3600)]
    return open_market(fal, market_policy(KEYS, teams={"crowd": [budget("3")]}), workers=2)


def next_midnight() -> str:
    """Return when a day's budget starts anew, as a refusal says it."""
    return (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")


def assert_spent(response: Response, *said: str) -> None:
    """Check that this is the refusal of a spent budget, and that its message says these things."""
    answer = response.json()
    assert (response.status, answer["error_type"]) == (402, "budget_exhausted")
    assert response.field("x-fal-error-type") == "budget_exhausted"
    assert answer["message"] == answer["detail"]
    assert [part for part in said if part not in answer["message"]] == []


def test_a_spent_budget_refuses_and_says_why(market: Market, fal: Emulator) -> None:
    """402 with what is spent, of how much, and when it starts anew; nothing is sent, no quota is consumed."""
    expected = {next_midnight()}
    granted = [market.ask(SMALL, DOLLAR) for _ in range(2)]
    executed = len(fal.executions(endpoint=DOLLAR))
    refused = [market.ask(SMALL, DOLLAR) for _ in range(3)]
    expected.add(next_midnight())
    assert [response.status for response in granted] == [200, 200]
    for response in refused:
        assert_spent(response, "key small", "day", "2 of 2.5 US dollars", "estimated at 1")
        assert any(moment in response.json()["message"] for moment in expected)
        assert market.event(response)["outcome"] == "refused"
    assert len(fal.executions(endpoint=DOLLAR)) == executed
    assert market.gateway.metrics().value("refusals_total", key="small", error_type="budget_exhausted") == 3
    assert left(market.ask(SMALL, FLUX, emulate="status=500"), "submits") == left(granted[-1], "submits") - 1
    until(lambda: len(market.books.of(SMALL)) == 3, "the rows of those that were granted")


def test_what_a_job_holds_counts(market: Market) -> None:
    """Two jobs of a dollar in the queue leave nothing of a budget of two; one that is cancelled gives its part back."""
    jobs = [market.submit(HELD, DOLLAR, emulate="queued=60000") for _ in range(2)]
    assert_spent(market.ask(HELD, DOLLAR), "2 of 2 US dollars")
    assert_spent(market.submit(HELD, DOLLAR))
    job_id = request_id_of(jobs[0])
    assert market.job(HELD, job_id, endpoint=DOLLAR, step="/cancel", method="PUT").status == 202
    assert market.ask(HELD, DOLLAR).status == 200
    assert_spent(market.ask(HELD, DOLLAR), "2 of 2 US dollars")


def test_what_a_run_holds_counts(open_market: Callable[..., Market]) -> None:
    """A run under way leaves the budget short of its estimate, and gives back what it did not cost."""
    slot = ScriptSlot()
    key = buyer("runner", budget("1"))
    market = open_market(overrides_to(slot.origin.port), market_policy([key]))

    def script(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            slot.told()
            fields = (("content-type", "application/json"), ("x-fal-billable-units", "0.5"))
            connection.send(http_response(fields=fields))
            connection.wait_for_leaving()

    slot.play(script)
    with market.connect() as client:
        client.send(run_of(key, DOLLAR))
        until(lambda: slot.origin.executions, "the run at the origin")
        assert_spent(market.ask(key, DOLLAR), "1 of 1 US dollars")
        slot.tell("go on")
        assert client.read_response().field("x-gateway-cost-usd") == "0.5"
    assert_spent(market.ask(key, DOLLAR), "0.5 of 1 US dollars")
    assert len(slot.origin.executions) == 1
    market.close()
    slot.origin.close()


def test_key_and_team_are_held_at_once(market: Market) -> None:
    """The team's budget is shared by its keys; who is refused by it consumes nothing of the key's own."""
    assert [market.ask(who, DOLLAR).status for who in (TEAMED, TEAMMATE, TEAMED)] == [200, 200, 200]
    for who in (TEAMED, TEAMMATE):
        assert_spent(market.ask(who, DOLLAR), "team crowd", "month", "3 of 3 US dollars")
    spent = {"teamed": 2.0, "teammate": 1.0}

    def gauges() -> dict[str, float]:
        metrics = market.gateway.metrics()
        return {key: metrics.value("budget_spent_usd", scope="key", id=key) for key in spent}

    until(lambda: gauges() == spent, "the spent sums", timeout_seconds=FRESH_SECONDS)


def test_gauges_tell_a_budget(market: Market) -> None:
    """Limit, spent and held of each budget, at most 5 s old."""
    assert market.ask(TOLD, DOLLAR, emulate="units=1.5").status == 200
    market.submit(TOLD, DOLLAR, emulate="queued=60000")
    labels = {"scope": "key", "id": "told", "period": "week"}

    def gauges() -> tuple[float, ...]:
        metrics = market.gateway.metrics()
        return tuple(metrics.value(f"budget_{name}_usd", **labels) for name in ("limit", "spent", "reserved"))

    until(lambda: gauges() == (5.0, 1.5, 1.0), "the gauges", timeout_seconds=FRESH_SECONDS)


# -- at once --------------------------------------------------------------------------------------------------------


def storm(market: Market, key: GatewayKey, *, calls: int = CALLS, emulate: str = "delay=50") -> Counter[int]:
    """Run so many calls of a dollar, many at once, on a connection each; return how often each status came."""

    def call(_number: int) -> int:
        try:
            return market.ask(key, DOLLAR, emulate=emulate).status
        except (Truncated, OSError):
            return LOST

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Counter(pool.map(call, range(calls)))


def executed(fal: Emulator, key: GatewayKey) -> int:
    """Return how many films of a dollar were executed for a key."""
    tag = f"gw.key={key.id}"
    runs = fal.executions(endpoint=DOLLAR)
    return sum(1 for run in runs if any(name == "x-fal-tags" and tag in value for name, value in run["fields"]))


TAGGED: Final[dict[str, Any]] = {"attribution": {"fal_tags": True}}


@pytest.mark.parametrize("workers", [1, 4])
def test_calls_at_once_never_pass_a_budget(open_market: Callable[..., Market], fal: Emulator, workers: int) -> None:
    """A hundred calls of a dollar over a budget of ten: exactly ten are admitted, ninety are refused."""
    key = buyer(f"crowded-{workers}", budget(str(LIMIT)))
    with open_market(fal, market_policy([key], **TAGGED), workers=workers) as market:
        assert storm(market, key) == {200: LIMIT, 402: CALLS - LIMIT}
        assert executed(fal, key) == LIMIT
        until(lambda: market.books.spent_ns(key) == LIMIT * NS, "the ledger's sum")
        assert market.charged_ns(key) == LIMIT * NS


def test_a_worker_killed_in_the_midst(open_market: Callable[..., Market], fal: Emulator) -> None:
    """What it held may have been executed and is charged; never more than ten are, and none is charged twice."""
    key = buyer("bereft", budget(str(LIMIT)))
    with open_market(fal, market_policy([key], **TAGGED), workers=4) as market:
        done: list[Counter[int]] = []
        caller = threading.Thread(target=lambda: done.append(storm(market, key, emulate="delay=2000")))
        caller.start()
        until(lambda: executed(fal, key) >= LIMIT // 2, "some of them under way")
        os.kill(busiest(market, fal), signal.SIGKILL)
        caller.join()
        assert executed(fal, key) <= LIMIT
        assert sum(done[0].values()) == CALLS
        assert set(done[0]) <= {200, 402, LOST}
        until(lambda: all(entry.status != "held" for entry in market.books.of(key)), "the end of all holds")
        rows = market.books.of(key)
        assert executed(fal, key) <= len(rows) <= LIMIT
        assert market.books.spent_ns(key) == market.charged_ns(key) == len(rows) * NS
        assert Counter(entry.status for entry in rows)["settled"] == done[0][200]
        assert Counter(entry.status for entry in rows)["unknown"] > 0
        left_over = LIMIT - len(rows)
        assert storm(market, key, calls=20) == Counter({200: left_over, 402: 20 - left_over})
        assert executed(fal, key) <= LIMIT


def busiest(market: Market, fal: Emulator) -> int:
    """Return the process id of the worker that has the most connections to the origin."""

    def connections(worker: psutil.Process) -> int:
        return sum(1 for it in tcp_of(worker) if it.raddr and it.raddr.port == fal.port)

    return int(max(workers_of(market.gateway).values(), key=connections).pid)


def test_the_whole_gateway_killed_and_started_again(open_market: Callable[..., Market], fal: Emulator) -> None:
    """Over the same ledger and spool: never more than ten executed, nothing lost, nothing charged twice."""
    key = buyer("razed", budget(str(LIMIT)))
    with open_market(fal, market_policy([key], **TAGGED), workers=2) as market:
        assert market.ask(key, DOLLAR).status == 200
        done: list[Counter[int]] = []
        caller = threading.Thread(target=lambda: done.append(storm(market, key, calls=5, emulate="delay=5000")))
        caller.start()
        until(lambda: executed(fal, key) == 6, "five of them under way")
        market.kill()
        caller.join()
        assert done[0] == {LOST: 5}
        market.revive()
        assert storm(market, key) == {200: LIMIT - 6, 402: CALLS - LIMIT + 6}
        assert executed(fal, key) == LIMIT
        until(lambda: market.books.spent_ns(key) == LIMIT * NS, "the ledger's sum")
        statuses = Counter(entry.status for entry in market.books.of(key))
        assert statuses == {"settled": LIMIT - 5, "unknown": 5}
        assert market.usage("--by", "key")["total_usd"] == str(LIMIT)


def test_sums_survive_a_restart_and_a_new_budget_knows_the_past(
    open_market: Callable[..., Market], fal: Emulator
) -> None:
    """Filled in from the ledger: after SIGTERM, and where a reload brings a budget that was not there before."""
    key = buyer("lasting")
    with open_market(fal, market_policy([key])) as market:
        for _ in range(3):
            assert market.ask(key, DOLLAR).status == 200
        until(lambda: market.books.spent_ns(key) == 3 * NS, "three dollars in the ledger")
        key.entry["budgets"] = [budget("4")]
        market.reload(market_policy([key]))
        assert once_known(market, key).status == 200
        assert_spent(market.ask(key, DOLLAR), "4 of 4 US dollars")
        market.restart()
        assert_spent(market.ask(key, DOLLAR), "4 of 4 US dollars")
        key.entry["budgets"] = [budget("4"), budget("3", "day")]
        market.reload(market_policy([key]))
        assert_spent(once_known(market, key), "US dollars")


def once_known(market: Market, key: GatewayKey) -> Response:
    """Ask for a dollar's film until a new budget is filled in, and no longer 503; return what comes then."""

    def answer() -> Response | None:
        response = market.ask(key, DOLLAR)
        return None if response.status == 503 else response

    return until(answer, "an answer of the budget")


def test_a_budget_that_was_away_knows_what_was_spent_meanwhile(
    open_market: Callable[..., Market], fal: Emulator
) -> None:
    """Taken out by a reload and put back by another: its sum is the ledger's."""
    key = buyer("returning", budget("3"))
    with open_market(fal, market_policy([key])) as market:
        assert market.ask(key, DOLLAR).status == 200
        with_budget, key.entry["budgets"] = market.policy, []
        market.reload(market_policy([key]))
        for _ in range(2):
            assert market.ask(key, DOLLAR).status == 200
        until(lambda: market.books.spent_ns(key) == 3 * NS, "three dollars in the ledger")
        market.reload(with_budget)
        assert_spent(once_known(market, key), "3 of 3 US dollars")
