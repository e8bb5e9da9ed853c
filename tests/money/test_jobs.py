"""What a queue job costs: held at the submit, settled once by the first result with units, to whoever submitted it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import OriginConnection, overrides_to
from tests.harness.scene import ScriptSlot
from tests.harness.waiting import until
from tests.money.market import (
    FLUX,
    NS,
    WORKFLOW,
    Market,
    budget,
    buyer,
    emulated,
    market_policy,
    request_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.ledger.entry import Entry
    from tests.harness.client import Response
    from tests.harness.emulator import Emulator
    from tests.harness.policy import GatewayKey

READY: Final = "queued=0,running=0"
ESTIMATE_NS: Final = 25_000_000
DEADLINE_SECONDS: Final = 2

TEAM: Final = "film"
SUBMITTER: Final = buyer("submitter", budget("1000"), team=TEAM)
COLLEAGUE: Final = buyer("colleague", budget("1000"), team=TEAM)
STRANGER: Final = buyer("stranger", budget("1000"))
KEYS: Final = (SUBMITTER, COLLEAGUE, STRANGER)


@pytest.fixture(scope="module")
def market(open_market: Callable[..., Market], fal: Emulator) -> Market:
    """Return the module's market: two workers before the emulator."""
    return open_market(fal, market_policy(KEYS), workers=2)


def held(market: Market, submitted: Response, *, key: GatewayKey = SUBMITTER) -> Entry:
    """Check that a submit's estimate is held under fal's id; return the row."""

    def bound() -> Entry | None:
        found = market.entry(submitted, "held")
        return found if found.fal_request_id is not None else None

    entry = until(bound, "the hold under fal's request id")
    assert (entry.key, entry.kind, entry.fal_request_id) == (key.id, "submit", request_id_of(submitted))
    assert (entry.cost_ns, entry.source) == (None, "estimated")
    assert submitted.field("x-gateway-cost-usd") is None
    return entry


@pytest.mark.parametrize("times", [1, 5])
@pytest.mark.parametrize("fetcher", [SUBMITTER, COLLEAGUE], ids=["by the submitter", "by a colleague"])
def test_a_job_is_settled_once_to_its_submitter(market: Market, times: int, fetcher: GatewayKey) -> None:
    """By the first result with units, however often it is fetched, and by whichever key of the team."""
    before = market.charged_ns(SUBMITTER), market.charged_ns(COLLEAGUE)
    submitted = market.submit(SUBMITTER, emulate=f"{READY},units=3")
    entry = held(market, submitted)
    results = [market.job(fetcher, request_id_of(submitted)) for _ in range(times)]
    assert [result.field("x-gateway-cost-usd") for result in results] == ["0.075"] * times
    assert [market.event(result)["cost_usd"] for result in results] == ["0.075"] + [None] * (times - 1)
    settled = market.entry(submitted)
    assert settled == entry._replace(
        status="settled", units="3", cost_ns=75_000_000, source="exact", changed_at_us=settled.changed_at_us
    )
    assert market.charged_ns(SUBMITTER) - before[0] == 75_000_000
    assert market.charged_ns(COLLEAGUE) == before[1]


def test_a_job_in_progress_changes_nothing(market: Market) -> None:
    """Its status, and a result that says that it is still in progress, tell nothing of money."""
    submitted = market.submit(SUBMITTER, emulate="queued=60000,running=0")
    entry = held(market, submitted)
    job_id = request_id_of(submitted)
    assert market.job(SUBMITTER, job_id, step="/status").status == 200
    response = market.job(SUBMITTER, job_id)
    assert (response.status, response.field("x-gateway-cost-usd")) == (400, None)
    assert market.event(response)["cost_source"] is None
    assert market.books.find(entry.id) == entry


def test_a_cancelled_job_is_released(market: Market) -> None:
    """202 of the cancel gives the hold back; asked again, nothing more happens."""
    submitted = market.submit(SUBMITTER, emulate="queued=60000,running=0")
    held(market, submitted)
    for status in (202, 400):
        assert market.job(SUBMITTER, request_id_of(submitted), step="/cancel", method="PUT").status == status
    entry = market.entry(submitted)
    assert (entry.status, entry.units, entry.cost_ns) == ("released", None, 0)


def test_a_cancel_that_came_too_late_releases_nothing(market: Market) -> None:
    """400 `ALREADY_COMPLETED`: the job has run and is paid for."""
    submitted = market.submit(SUBMITTER)
    entry = held(market, submitted)
    assert market.job(SUBMITTER, request_id_of(submitted), step="/cancel", method="PUT").status == 400
    assert market.books.find(entry.id) == entry
    assert market.job(SUBMITTER, request_id_of(submitted)).status == 200
    assert market.entry(submitted).cost_ns == ESTIMATE_NS


def test_a_result_after_the_cancel_settles_all_the_same(market: Market) -> None:
    """Fal took the wish, but the job was running and came to its end: its units are billed."""
    submitted = market.submit(SUBMITTER, emulate="queued=0,running=1500,units=2")
    job_id = request_id_of(submitted)
    until(
        lambda: market.job(SUBMITTER, job_id, step="/status").json()["status"] == "IN_PROGRESS", "the job to be running"
    )
    assert market.job(SUBMITTER, job_id, step="/cancel", method="PUT").status == 202
    assert market.entry(submitted, "released").cost_ns == 0
    until(lambda: market.job(SUBMITTER, job_id).status == 200, "the result")
    entry = market.entry(submitted, "settled")
    assert (entry.units, entry.cost_ns, entry.source) == ("2", 50_000_000, "exact")


@pytest.mark.parametrize(
    ("emulate", "fate"),
    [
        ("status=422,on=result,units=2", ("settled", "2", 50_000_000)),
        ("status=422,on=result,units=0", ("released", None, 0)),
        ("status=422,on=result,units=none", ("released", None, 0)),
        ("status=500,on=result,units=0", ("released", None, 0)),
        ("on=result,units=0", ("released", None, 0)),
    ],
)
def test_a_failed_job_costs_the_units_of_its_result(
    market: Market, emulate: str, fate: tuple[str, str | None, int]
) -> None:
    """422 settles its units; no units, or 0 of them, release."""
    submitted = market.submit(SUBMITTER, emulate=f"{READY},{emulate}")
    held(market, submitted)
    market.job(SUBMITTER, request_id_of(submitted))
    entry = market.entry(submitted)
    assert (entry.status, entry.units, entry.cost_ns) == fate


def test_a_broken_result_says_nothing_of_its_cost(market: Market) -> None:
    """5xx without units may be a passing fault of fal's: the hold stays until a result with units comes."""
    submitted = market.submit(SUBMITTER)
    entry = held(market, submitted)
    job_id = request_id_of(submitted)
    target = f"https://queue.fal.run/fal-ai/flux/requests/{job_id}"
    with market.connect() as client:
        broken = proxy_request(target, key=SUBMITTER, method="GET", fields=emulated("status=500,units=none"))
        assert client.ask(broken).status == 500
    assert market.books.find(entry.id) == entry
    assert market.job(SUBMITTER, job_id).status == 200
    assert market.entry(submitted).cost_ns == ESTIMATE_NS


def test_a_stranger_settles_nothing(market: Market) -> None:
    """For another team the job does not exist, and its money is not moved."""
    submitted = market.submit(SUBMITTER)
    entry = held(market, submitted)
    assert market.job(STRANGER, request_id_of(submitted)).status == 404
    assert market.job(STRANGER, request_id_of(submitted), step="/cancel", method="PUT").status == 404
    assert market.books.find(entry.id) == entry


def test_a_workflow_is_settled_by_its_full_name(market: Market) -> None:
    """`workflows/` stands before owner and alias; price and row go by the endpoint that was submitted."""
    submitted = market.submit(SUBMITTER, WORKFLOW)
    held(market, submitted)
    result = market.job(SUBMITTER, request_id_of(submitted), endpoint=WORKFLOW)
    assert result.field("x-gateway-cost-usd") == "0.5"
    entry = market.entry(submitted)
    assert (entry.endpoint, entry.cost_ns) == (WORKFLOW, NS // 2)


@pytest.mark.parametrize("status", [429, 403, 500])
def test_a_refused_submit_costs_nothing(market: Market, status: int) -> None:
    """There is no job: what was held is given back."""
    submitted = market.submit(SUBMITTER, emulate=f"status={status}")
    assert submitted.status == status
    assert market.entry(submitted).cost_ns == 0


def test_a_submitter_who_left_is_bound_all_the_same(open_market: Callable[..., Market]) -> None:
    """The submit's answer is read on: the job's result, fetched by a colleague, settles to the submitter."""
    slot = ScriptSlot()
    market = open_market(overrides_to(slot.origin.port), market_policy(KEYS))

    def fal(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.method == "POST":
                slot.told()
                connection.send(http_response(b'{"request_id": "job-of-nobody"}'))
            else:
                fields = (("content-type", "application/json"), ("x-fal-billable-units", "4"))
                connection.send(http_response(fields=fields))

    slot.play(fal)
    with market.connect() as client:
        client.send(proxy_request(f"https://queue.fal.run/{FLUX}", key=SUBMITTER))
        until(lambda: slot.origin.executions, "the submit at the origin")
        client.reset()
    slot.tell("the submitter has left")
    until(lambda: [entry.fal_request_id for entry in market.books.entries()] == ["job-of-nobody"], "the bound job")
    assert market.job(COLLEAGUE, "job-of-nobody").field("x-gateway-cost-usd") == "0.1"
    entry = until(lambda: next((row for row in market.books.entries() if row.status != "held"), None), "its end")
    assert (entry.key, entry.status, entry.cost_ns) == (SUBMITTER.id, "settled", 100_000_000)
    market.close()
    slot.origin.close()


@pytest.mark.parametrize("way", ["restart", "kill"])
def test_a_result_after_a_restart_settles_to_the_submitter(
    open_market: Callable[..., Market], fal: Emulator, way: str
) -> None:
    """Open jobs come back out of the ledger, and with them what budgets hold; also after kill -9 of all processes.

    So do those that a cancel gave back: one that ran to its end all the same is charged.
    """
    market = open_market(fal, market_policy(KEYS))
    jobs = [market.submit(SUBMITTER, emulate=f"{READY},units={units}") for units in (2, 3)]
    cancelled = market.submit(SUBMITTER, emulate="queued=0,running=2000,units=4")
    until(
        lambda: market.job(SUBMITTER, request_id_of(cancelled), step="/cancel", method="PUT").status == 202,
        "the cancel of a job that runs",
    )
    market.entry(cancelled, "released")
    if way == "restart":
        market.restart()
    else:
        market.kill()
        market.revive()
    reserved = {"scope": "key", "id": SUBMITTER.id}
    until(lambda: market.gateway.metrics().value("budget_reserved_usd", **reserved) == 0.05, "the holds of both jobs")
    for job in jobs:
        assert market.job(COLLEAGUE, request_id_of(job)).status == 200
        assert market.job(STRANGER, request_id_of(job)).status == 404
    assert [market.entry(job).cost_ns for job in jobs] == [50_000_000, 75_000_000]
    assert [market.entry(job).key for job in jobs] == [SUBMITTER.id] * 2
    assert market.job(STRANGER, request_id_of(cancelled)).status == 404
    until(lambda: market.job(COLLEAGUE, request_id_of(cancelled)).status == 200, "the result in spite of the cancel")
    assert market.entry(cancelled, "settled").cost_ns == 100_000_000
    assert market.charged_ns(SUBMITTER) == 225_000_000
    until(lambda: market.gateway.metrics().value("budget_reserved_usd", **reserved) == 0, "nothing held")


def test_a_job_that_was_paid_is_still_its_submitters_after_a_restart(
    open_market: Callable[..., Market], fal: Emulator
) -> None:
    """A stranger must not read it because the gateway was started anew, and fetching it again charges nobody."""
    market = open_market(fal, market_policy(KEYS))
    submitted = market.submit(SUBMITTER, emulate=f"{READY},units=2")
    assert market.job(SUBMITTER, request_id_of(submitted)).status == 200
    market.entry(submitted, "settled")
    market.restart()
    assert market.job(STRANGER, request_id_of(submitted)).status == 404
    fetched = market.job(COLLEAGUE, request_id_of(submitted))
    assert (fetched.status, fetched.field("x-gateway-cost-usd")) == (200, "0.05")
    assert market.entry(submitted).cost_ns == 50_000_000


def test_a_job_that_nobody_fetches_is_charged_as_estimated(open_market: Callable[..., Market], fal: Emulator) -> None:
    """Its answer goes to a webhook and never passes here; after `settle_deadline` its estimate is its cost."""
    market = open_market(fal, market_policy(KEYS, settle_deadline=f"{DEADLINE_SECONDS}s"))
    target = f"https://queue.fal.run/{FLUX}?fal_webhook=https%3A%2F%2Fexample.test%2Fdone"
    with market.connect() as client:
        submitted = client.ask(proxy_request(target, key=SUBMITTER, fields=emulated(f"{READY},units=7")))
    entry = market.entry(submitted)
    assert (entry.status, entry.units, entry.cost_ns, entry.source) == ("settled", None, ESTIMATE_NS, "estimated")
    assert entry.changed_at_us - entry.admitted_at_us >= DEADLINE_SECONDS * 10**6
    labels = {"scope": "key", "id": SUBMITTER.id}
    until(lambda: market.gateway.metrics().value("budget_spent_usd", **labels) == 0.025, "the budget's sum")
    assert market.job(SUBMITTER, request_id_of(submitted)).status == 200
    assert market.gateway.metrics().value("budget_reserved_usd", **labels) == 0
    assert market.charged_ns(SUBMITTER) == ESTIMATE_NS


def test_a_run_that_outlasts_the_deadline_is_no_job(open_market: Callable[..., Market], fal: Emulator) -> None:
    """The deadline is for jobs: a run that is still under way is settled by its answer, once."""
    market = open_market(fal, market_policy(KEYS, settle_deadline="1s"))
    response = market.ask(SUBMITTER, emulate="delay=4000,units=4")
    entry = market.entry(response)
    assert (entry.units, entry.cost_ns, entry.source) == ("4", 100_000_000, "exact")
    assert market.charged_ns(SUBMITTER) == 100_000_000
