"""Who submitted a job is known or asked: never does a stranger get it because a store forgot (`isolate_jobs`).

Two gateways with a Redis and a PostgreSQL in common, and no folder: what the second knows of a job that was submitted
through the first, it has from there.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from gateway.ledger.ledger import Ledger
from gateway.state.job_search import CONFIRM_PAUSE_SECONDS, ROW_SECONDS
from tests.harness.fault_proxy import FaultProxy
from tests.harness.gateway import Gateway
from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import ScriptedOrigin, answering
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.ports import LOOPBACK, refused_port
from tests.harness.postgres import PostgresServer
from tests.harness.redis import RedisServer
from tests.harness.waiting import until
from tests.ledger.rows import bound, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.client import Response
    from tests.harness.fault_proxy import Mode
    from tests.harness.origin import Received

OWNER: Final = GatewayKey("owner", "design")
STRANGER: Final = GatewayKey("stranger", "research")
SUBMIT: Final = "https://queue.fal.run/fal-ai/flux/dev"
POLLS_SECONDS: Final = 0.3
LATE_SECONDS: Final = 0.02
REFUSED: Final = frozenset({(404, "job_unknown"), (503, "state_unavailable")})
BACK_SECONDS: Final = 20.0
DAY_US: Final = 86_400 * 10**6


def queue(request: Received) -> bytes:
    """Answer each submit with an id of its own, and all else with an empty object."""
    return http_response(f'{{"request_id": "{uuid.uuid4()}"}}'.encode() if request.method == "POST" else b"{}")


class Pair:
    """The gateways and what they share."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.redis = stack.enter_context(RedisServer(folder / "redis"))
        self.way = stack.enter_context(FaultProxy(self.redis.port))
        self.postgres = stack.enter_context(PostgresServer())
        self.url = self.postgres.new_database()
        self.ledger = Ledger(self.url)
        stack.callback(self.ledger.close)
        self.origin = stack.enter_context(ScriptedOrigin(answering(queue)))
        self.first = self.start(stack, folder / "first", self.way.url, self.url)
        self.second = self.start(stack, folder / "second", self.redis.url, self.url)
        for gateway in (self.first, self.second):
            gateway.wait_ready()

    def start(self, stack: ExitStack, folder: Path, redis_url: str, database_url: str) -> Gateway:
        """Start a gateway over the origin."""
        env = {
            "FALGW_ORIGIN_OVERRIDES": self.origin.overrides,
            "FALGW_REDIS_URL": redis_url,
            "FALGW_DATABASE_URL": database_url,
        }
        return stack.enter_context(Gateway(folder, policy=policy_text(OWNER, STRANGER), env=env))

    def submit(self) -> str:
        """Submit through the first gateway; return the job's id."""
        with self.first.connect() as client:
            response = client.ask(proxy_request(SUBMIT, key=OWNER))
        assert response.status == 200
        return str(response.json()["request_id"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Run the pair for the module; each test leaves it whole."""
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("pair"), stack)


def poll(gateway: Gateway, key: GatewayKey, job_id: str) -> Response:
    """Ask for a job's status once."""
    with gateway.connect() as client:
        target = f"https://queue.fal.run/fal-ai/flux/requests/{job_id}/status"
        return client.ask(proxy_request(target, key=key, method="GET"))


def answer(gateway: Gateway, key: GatewayKey, job_id: str) -> tuple[int, str | None]:
    """Return (status, error type) of one poll."""
    response = poll(gateway, key, job_id)
    return response.status, response.field("x-fal-error-type")


def assert_hidden(gateway: Gateway, job_id: str) -> None:
    """A stranger's polls are refused from the first one on, and soon with certainty."""
    seen = set()
    deadline = time.monotonic() + POLLS_SECONDS
    while time.monotonic() < deadline:
        seen.add(answer(gateway, STRANGER, job_id))
    assert seen <= REFUSED
    until(lambda: answer(gateway, STRANGER, job_id) == (404, "job_unknown"), "the owner to be found")


def test_a_job_stays_its_owners_when_the_store_is_emptied(pair: Pair) -> None:
    """FLUSHALL straight behind the submit: the other gateway asks the ledger, also before that has the row."""
    for _ in range(2):
        job_id = pair.submit()
        pair.redis.run("FLUSHALL")
        assert_hidden(pair.second, job_id)
        assert answer(pair.second, OWNER, job_id) == (200, None)


def test_a_job_stays_its_owners_while_the_store_is_down(pair: Pair) -> None:
    """The store is killed behind the submit; then it comes back with nothing of what it knew."""
    before = pair.submit()
    pair.redis.kill()
    try:
        job_id = pair.submit()
        assert_hidden(pair.second, job_id)
        assert_hidden(pair.second, before)
        assert answer(pair.second, OWNER, job_id) == (200, None)
    finally:
        pair.redis.start()
    assert_hidden(pair.second, before)
    for gateway in (pair.first, pair.second):
        until(lambda gateway=gateway: gateway.metrics().value("state_store_up") == 1, "the store")  # type: ignore[misc]


@pytest.mark.parametrize("mode", ["late", "black_hole", "refuse"])
def test_a_job_is_known_to_all_once_its_submitter_has_its_id(pair: Pair, mode: Mode) -> None:
    """The store hears of it a moment late, or not at all from that gateway: no stranger is quicker elsewhere."""
    pair.way.delay_seconds = LATE_SECONDS
    with pair.first.connect() as client:
        client.ask(proxy_request(SUBMIT, key=OWNER))  # the connection, the scripts
        pair.way.mode = mode
        try:
            for _ in range(5):
                job_id = str(client.ask(proxy_request(SUBMIT, key=OWNER)).json()["request_id"])
                assert answer(pair.second, STRANGER, job_id) in REFUSED
        finally:
            pair.way.mode = "pass"
    until(lambda: pair.first.metrics().value("state_store_up") == 1, "the store")


def test_no_submit_waits_where_jobs_are_not_isolated(tmp_path: Path) -> None:
    """Neither store nor ledger can take the job, and no gateway will ask: the answer passes through at once."""
    policy = policy_text(OWNER, targets={"isolate_jobs": "none"})
    with ExitStack() as stack:
        origin = stack.enter_context(ScriptedOrigin(answering(queue)))
        redis_url = f"redis://{LOOPBACK}:{refused_port()}/0"
        env = {"FALGW_ORIGIN_OVERRIDES": origin.overrides, "FALGW_REDIS_URL": redis_url}
        gateway = stack.enter_context(Gateway(tmp_path / "open", policy=policy, env=env))
        gateway.wait_ready()
        (ledger,) = [event["pid"] for event in gateway.events("process_started") if event["role"] == "ledger"]
        os.kill(ledger, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            with gateway.connect() as client:
                assert client.ask(proxy_request(SUBMIT, key=OWNER)).status == 200
            assert time.monotonic() - begun < ROW_SECONDS
        finally:
            os.kill(ledger, signal.SIGCONT)


def test_a_gateway_whose_ledger_process_hangs_keeps_its_jobs_from_strangers(pair: Pair) -> None:
    """Its journals are not in the ledger, and the store is emptied: the other cannot know, and says so."""
    (ledger,) = [event["pid"] for event in pair.first.events("process_started") if event["role"] == "ledger"]
    os.kill(ledger, signal.SIGSTOP)
    try:
        job_id = pair.submit()
        pair.redis.run("FLUSHALL")
        assert answer(pair.second, STRANGER, job_id) == (503, "state_unavailable")
        assert answer(pair.second, STRANGER, job_id) == (503, "state_unavailable")
        assert answer(pair.first, OWNER, job_id) == (200, None)
    finally:
        os.kill(ledger, signal.SIGCONT)
    assert_hidden(pair.second, job_id)
    assert answer(pair.second, OWNER, job_id) == (200, None)


def test_a_gateway_that_never_reached_the_database_keeps_its_jobs_from_strangers(pair: Pair, tmp_path: Path) -> None:
    """It has shown life in Redis, and no journal of its own is in the ledger: the others cannot know, and say so."""
    socket = next(Path(pair.url.partition("host=")[2]).glob(".s.PGSQL.*[0-9]"))
    with ExitStack() as stack:
        way = stack.enter_context(FaultProxy(socket))
        way.mode = "refuse"
        url = pair.url.partition("?")[0].replace("@/", f"@127.0.0.1:{way.port}/")
        cut_off = pair.start(stack, tmp_path / "cut-off", pair.redis.url, url)
        cut_off.wait_ready()
        with cut_off.connect() as client:
            job_id = str(client.ask(proxy_request(SUBMIT, key=OWNER)).json()["request_id"])
        pair.redis.run("FLUSHALL")
        assert answer(pair.second, STRANGER, job_id) == (503, "state_unavailable")
        way.mode = "pass"
        until(lambda: answer(pair.second, STRANGER, job_id) == (404, "job_unknown"), "the row", timeout_seconds=20)
    until(lambda: answer(pair.second, STRANGER, str(uuid.uuid4())) == (200, None), "its leaving", timeout_seconds=20)


def passes_at_once(gateway: Gateway) -> bool:
    """Poll for a job that did not come through here; return whether it is passed on, and nobody was asked twice."""
    begun = time.monotonic()
    passed = answer(gateway, STRANGER, str(uuid.uuid4())) == (200, None)
    return passed and time.monotonic() - begun < CONFIRM_PAUSE_SECONDS


def test_a_job_that_is_known_to_nobody_may_be_polled(pair: Pair) -> None:
    """It did not come through here: any key may ask, once the ledger has said so; at once where the store is sound."""
    until(lambda: passes_at_once(pair.second), "a store that has remembered for a while")
    pair.redis.run("FLUSHALL")
    assert answer(pair.second, STRANGER, str(uuid.uuid4())) == (200, None)


def test_a_job_whose_owner_cannot_be_looked_up_is_refused_to_all(pair: Pair) -> None:
    """Store emptied, database down: 503 with Retry-After, also for the owner; the gateway of the submit still knows."""
    job_id = pair.submit()
    until(lambda: pair.ledger.find_job(job_id), "the row")
    pair.postgres.stop()
    pair.redis.run("FLUSHALL")  # behind it: jobs are written to an emptied store again from the database
    try:
        sent = len(pair.origin.requests)
        for key in (STRANGER, OWNER):
            refused = poll(pair.second, key, job_id)
            assert (refused.status, refused.field("x-fal-error-type")) == (503, "state_unavailable")
            assert refused.field("retry-after") == "1"
        assert answer(pair.second, STRANGER, str(uuid.uuid4())) == (503, "state_unavailable")
        assert len(pair.origin.requests) == sent
        assert answer(pair.first, OWNER, job_id) == (200, None)
        assert answer(pair.first, STRANGER, job_id) == (404, "job_unknown")
    finally:
        pair.postgres.start()
    for gateway in (pair.first, pair.second):
        until(lambda at=gateway: answer(at, OWNER, job_id) == (200, None), "the database", timeout_seconds=BACK_SECONDS)  # type: ignore[misc]
        until(lambda at=gateway: passes_at_once(at), "the ledger", timeout_seconds=BACK_SECONDS)  # type: ignore[misc]
    assert answer(pair.second, STRANGER, job_id) == (404, "job_unknown")


def test_a_job_of_last_month_is_its_owners(pair: Pair) -> None:
    """No store remembers it; the ledger does, for as long as it keeps rows. The first submit of an id owns it."""
    old, now_us = str(uuid.uuid4()), time.time_ns() // 1_000
    mine = {"team": "design", "key": "owner", "fal_request_id": old}
    theirs = {"team": "research", "key": "stranger", "fal_request_id": old}
    at_us = now_us - 30 * DAY_US
    rows = [
        bound(901, **mine, admitted_at_us=at_us, changed_at_us=at_us),
        bound(902, **theirs, admitted_at_us=now_us, changed_at_us=now_us),
        settled(903, **theirs, admitted_at_us=at_us - DAY_US, changed_at_us=at_us),
    ]
    pair.ledger.apply(rows)
    for gateway in (pair.first, pair.second):
        assert answer(gateway, OWNER, old) == (200, None)
        assert answer(gateway, STRANGER, old) == (404, "job_unknown")
