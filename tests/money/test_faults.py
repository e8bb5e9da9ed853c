"""What a request costs whose way was broken (docs/reliability.md, column "money"): nothing, its units, or its estimate.

The decision it carries: what was not sent is released, what was answered goes by its units, and what was sent and not
answered may have been executed, so it is charged as estimated and marked `unknown`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.clients.driver import NodeClient
from tests.harness.messages import http_response, proxy_head, proxy_request
from tests.harness.origin import OriginConnection, answering, overrides_to
from tests.harness.ports import refused_port
from tests.harness.scene import ScriptSlot
from tests.harness.waiting import until
from tests.harness.wire import Truncated
from tests.money.market import FLUX, NS, PRICES, Market, budget, buyer, market_policy, run_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.ledger.entry import Entry

RUN: Final = f"https://fal.run/{FLUX}"
KEY: Final = buyer("unlucky", budget("1000"))
UNITS: Final = ("x-fal-billable-units", "3")
JSON: Final = ("content-type", "application/json")
BYTES: Final = ("content-type", "application/octet-stream")
LARGE: Final = 1 << 20
CUT: Final = 0

Fate = tuple[str, str | None, int | None, str]

RELEASED: Final[Fate] = ("released", None, 0, "exact")
UNKNOWN: Final[Fate] = ("unknown", None, 25_000_000, "unknown")
ESTIMATED: Final[Fate] = ("settled", None, 25_000_000, "estimated")
EXACT: Final[Fate] = ("settled", "3", 75_000_000, "exact")


class Stall:
    """A market before an origin whose script each test sets anew."""

    def __init__(self, market: Market, slot: ScriptSlot) -> None:
        self.market = market
        self.slot = slot
        self._seen: set[str] = set()

    def ask(self, script: Callable[[OriginConnection], object], request: bytes) -> tuple[int, Fate]:
        """Play a script for one request; return the answer's status (or CUT), and what became of the purchase."""
        self.slot.play(script)
        with self.market.connect() as client:
            client.send(request)
            try:
                status = client.read_response().status
            except (Truncated, OSError):
                status = CUT
        return status, fate(self.last())

    def last(self) -> Entry:
        """Wait for the event of the latest request, and for its row to be over; return the row."""
        request_id = until(self._fresh, "one more event")
        self._seen.add(request_id)
        return self.market.books.entry(request_id)

    def _fresh(self) -> str | None:
        ids = [event["request_id"] for event in self.market.gateway.events("exchange")]
        fresh = [request_id for request_id in ids if request_id not in self._seen]
        assert len(fresh) <= 1, fresh
        return fresh[0] if fresh else None


def fate(entry: Entry) -> Fate:
    """Return what became of a purchase."""
    return entry.status, entry.units, entry.cost_ns, entry.source


@pytest.fixture(scope="module")
def stall(open_market: Callable[..., Market]) -> Iterator[Stall]:
    """Return the module's market, short of patience; two of fal's hosts cannot be reached."""
    slot = ScriptSlot()
    overrides = [
        f"fal.run=http://127.0.0.1:{slot.origin.port}",
        f"queue.fal.run=http://127.0.0.1:{slot.origin.port}",
        f"rest.fal.ai=http://127.0.0.1:{refused_port()}",
        "api.fal.ai=http://nobody.invalid",
    ]
    hosts = ("fal.run", "queue.fal.run", "rest.fal.ai", "api.fal.ai")
    policy = market_policy(
        [KEY],
        prices={**PRICES, "shop/gone": {"unit": "film", "usd": "1"}},
        targets={"allowed_url_patterns": [f"{host}/**" for host in hosts]},
    )
    market = open_market(",".join(overrides), policy, FALGW_FIRST_BYTE_TIMEOUT="1", FALGW_IDLE_TIMEOUT="1")
    yield Stall(market, slot)
    market.close()
    slot.origin.close()


def saying(said: bytes, *, then: str) -> Callable[[OriginConnection], None]:
    """Return a script that takes a request whole, says this much, and goes by `reset` or `close`, or stays silent."""

    def script(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            connection.send(said)
            if then == "silence":
                connection.wait_for_leaving()
            else:
                getattr(connection, then)()

    return script


@pytest.mark.parametrize("then", ["reset", "close", "silence"])
def test_an_origin_lost_before_its_answer_is_charged_as_estimated(stall: Stall, then: str) -> None:
    """It has the whole request and may have executed it: 500, once, and the estimate, marked as unknown."""
    assert stall.ask(saying(b"", then=then), run_of(KEY)) == (500, UNKNOWN)
    assert len(stall.slot.origin.executions) == 1


@pytest.mark.parametrize("then", ["reset", "close", "silence"])
@pytest.mark.parametrize(("content_type", "status"), [(JSON, 500), (BYTES, CUT)], ids=["held", "passed on"])
@pytest.mark.parametrize(("told", "expected"), [((UNITS,), EXACT), ((), UNKNOWN)], ids=["with units", "without units"])
def test_an_answer_that_breaks_off_is_settled_by_its_head(  # noqa: PLR0913 - what the rule speaks of, each once
    stall: Stall,
    then: str,
    content_type: tuple[str, str],
    status: int,
    told: tuple[tuple[str, str], ...],
    expected: Fate,
) -> None:
    """Settled if the units were in the head, else unknown. JSON was held and ends as a clean 500, the rest is cut."""
    answer = http_response(b"x" * 3000, fields=(content_type, *told))
    assert stall.ask(saying(answer[:-1000], then=then), run_of(KEY)) == (status, expected)


@pytest.mark.parametrize(
    ("target", "error_type"),
    [("https://rest.fal.ai/shop/gone", "connection_refused"), ("https://api.fal.ai/shop/gone", "dns_error")],
)
def test_an_origin_that_was_not_reached_costs_nothing(stall: Stall, target: str, error_type: str) -> None:
    """Nothing was sent: 502, and what was held is released."""
    with stall.market.connect() as client:
        response = client.ask(proxy_request(target, key=KEY))
    assert (response.status, response.json()["error_type"]) == (502, error_type)
    assert fate(stall.last()) == RELEASED


def test_an_origin_that_refuses_in_the_middle_of_the_upload_costs_nothing(stall: Stall) -> None:
    """An early 4xx goes to the caller at once; fal never had the whole request."""

    def refuse(connection: OriginConnection) -> None:
        if connection.read_head() is not None:
            connection.send(http_response(status=413, fields=(JSON, ("connection", "close"))))
            connection.wait_for_leaving()

    stall.slot.play(refuse)
    with stall.market.connect() as client:
        client.send(proxy_head(RUN, key=KEY, fields=[("content-length", str(LARGE))]) + b"x" * 100_000)
        assert client.read_response().status == 413
    assert fate(stall.last()) == RELEASED


@pytest.mark.parametrize("sent", [100_000, 1_000], ids=["streamed", "gathered"])
def test_a_caller_who_leaves_in_the_upload_pays_nothing(stall: Stall, sent: int) -> None:
    """Never a whole request at fal: what was held is given back, whether or not any of it was sent."""
    stall.slot.play(lambda connection: connection.read_request())
    length = LARGE if sent > 65_536 else 2 * sent
    with stall.market.connect() as client:
        client.send(proxy_head(RUN, key=KEY, fields=[("content-length", str(length))]) + b"x" * sent)
        if sent > 65_536:
            stall.slot.origin.wait_for_requests(1)
        client.reset()
    until(lambda: stall.market.gateway.metrics().value("inflight_requests") == 0, "the end of the request")
    if sent > 65_536:
        assert fate(stall.last()) == RELEASED
    else:
        request_id = until(stall._fresh, "its event")
        stall._seen.add(request_id)
        assert stall.market.books.find(request_id) is None
    assert stall.slot.origin.executions == []


@pytest.mark.parametrize(("told", "expected"), [((UNITS,), EXACT), ((), ESTIMATED)], ids=["with units", "without"])
@pytest.mark.parametrize("content_type", [JSON, BYTES], ids=["held", "passed on"])
def test_a_caller_who_leaves_before_the_answer_pays_for_it(
    stall: Stall, content_type: tuple[str, str], told: tuple[tuple[str, str], ...], expected: Fate
) -> None:
    """A run that nobody waits for is billed all the same, so its answer is read to the end for its units."""

    def answer_late(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            stall.slot.told()
            connection.send(http_response(b"x" * 3000, fields=(content_type, *told)))
            connection.wait_for_leaving()

    stall.slot.play(answer_late)
    with stall.market.connect() as client:
        client.send(run_of(KEY))
        until(lambda: stall.slot.origin.executions, "the execution")
        client.reset()
    stall.slot.tell("left")
    assert fate(stall.last()) == expected


@pytest.mark.parametrize(("told", "expected"), [((UNITS,), EXACT), ((), ESTIMATED)], ids=["with units", "without"])
def test_a_caller_who_leaves_in_the_download_pays_for_it(
    stall: Stall, told: tuple[tuple[str, str], ...], expected: Fate
) -> None:
    """The same once the answer has begun: read on, and settled."""

    def answer_slowly(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            answer = http_response(b"x" * 3000, fields=(BYTES, *told))
            connection.send(answer[:-1000])
            stall.slot.told()
            connection.send(answer[-1000:])
            connection.wait_for_leaving()

    stall.slot.play(answer_slowly)
    with stall.market.connect() as client:
        client.send(run_of(KEY))
        assert client.read_head().status == 200
        client.reset()
    stall.slot.tell("left")
    assert fate(stall.last()) == expected


@pytest.mark.parametrize(
    ("status", "detail"),
    [(429, "Too many concurrent requests"), (403, "User is locked. Reason: Exhausted balance.")],
)
def test_fals_own_refusals_pass_once_and_cost_nothing(stall: Stall, status: int, detail: str) -> None:
    """Passed on unchanged, sent once, released, and no refusal of ours in the metrics."""
    body = b'{"detail": "%b"}' % detail.encode()
    stall.slot.play(answering(http_response(body, status, fields=(JSON,))))
    with stall.market.connect() as client:
        response = client.ask(run_of(KEY))
    assert (response.status, response.body) == (status, body)
    assert fate(stall.last()) == RELEASED
    assert len(stall.slot.origin.executions) == 1
    metrics = stall.market.gateway.metrics()
    assert metrics.value("requests_total", key=KEY.id, status=str(status)) == 1
    assert metrics.value("refusals_total", key=KEY.id) == 0


def test_the_real_client_buys_once_where_the_origin_is_lost(stall: Stall) -> None:
    """One attempt, one execution, one row, marked as unknown."""
    stall.slot.play(saying(b"", then="reset"))
    client = NodeClient(KEY.secret, proxy=stall.market.gateway.url)
    outcome = client.call("run", FLUX, options={"input": {"prompt": "a cat"}})
    assert outcome.statuses == [500]
    assert len(stall.slot.origin.executions) == 1
    assert fate(stall.last()) == UNKNOWN


def test_what_was_charged_is_in_the_sums_and_nothing_is_held(stall: Stall) -> None:
    """After all of these the budget's sums, the metrics and the ledger agree, and no hold is left behind."""
    spent_ns = stall.market.books.spent_ns(KEY)

    def gauges() -> tuple[int, float]:
        metrics = stall.market.gateway.metrics()
        labels = {"scope": "key", "id": KEY.id}
        return round(metrics.value("budget_spent_usd", **labels) * NS), metrics.value("budget_reserved_usd", **labels)

    until(lambda: gauges() == (spent_ns, 0.0), f"{spent_ns} spent and nothing held")
    assert stall.market.charged_ns(KEY) == spent_ns


def test_a_run_that_outlasts_the_drain_is_charged_as_estimated(open_market: Callable[..., Market]) -> None:
    """At the limit of the drain it is cut; it may be executed, and its row is there when the gateway has ended."""
    slot = ScriptSlot()
    market = open_market(overrides_to(slot.origin.port), market_policy([KEY]), FALGW_DRAIN_TIMEOUT="0.2")
    slot.play(saying(b"", then="silence"))
    with market.connect() as client:
        client.send(run_of(KEY))
        until(lambda: slot.origin.executions, "the execution")
        market.gateway.close()
        assert client.read_response().status == 500
    assert [fate(entry) for entry in market.books.entries()] == [UNKNOWN]
    slot.origin.close()
