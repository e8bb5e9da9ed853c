"""Several gateways over one Redis: exact together, one about jobs, and neither slow nor wrong while it is away."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.harness.fault_proxy import FaultProxy, Mode
from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import answering
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.redis import RedisServer
from tests.harness.waiting import until
from tests.limits.ground import Barrage, assert_exact, counted, limited, limits_policy, requests, slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.client import RawClient, Response
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import Received, ScriptedOrigin, StartOrigin

GATEWAYS: Final = 3
SECONDS: Final = 3.0
WINDOW: Final = 2
QUOTA: Final = 12
BURST: Final = 5
RATE: Final = QUOTA / WINDOW
LONG: Final = 3600
BACK_SECONDS: Final = 20.0
JOB: Final = "5f0f5e0c-6d3f-4f2f-9a53-c7b3a8f7f1aa"
SUBMIT: Final = "https://queue.fal.run/fal-ai/flux/dev"
STATUS: Final = f"https://queue.fal.run/fal-ai/flux/requests/{JOB}/status"


class Fleet:
    """Gateways that stand for one: each connection goes to the next."""

    def __init__(self, gateways: list[Gateway]) -> None:
        self.gateways = gateways
        self._turn = itertools.cycle(gateways)

    def connect(self) -> RawClient:
        """Open a connection to the next gateway."""
        return next(self._turn).connect()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a Redis of the test's own."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def proxy(store: RedisServer) -> Iterator[FaultProxy]:
    """Stand between gateways and the store."""
    with FaultProxy(store.port) as standing:
        yield standing


@pytest.fixture
def fleet(start_gateway: StartGateway, store: RedisServer) -> Callable[..., Fleet]:
    """Return `fleet(origin, policy)`: three gateways over the store."""

    def start(origin: ScriptedOrigin, policy: str) -> Fleet:
        return Fleet([start_gateway(origin, policy=policy, FALGW_REDIS_URL=store.url) for _ in range(GATEWAYS)])

    return start


def ask(gateway: Gateway, key: GatewayKey, target: str | None = None, method: str = "POST") -> Response:
    """Ask once, on a connection of its own."""
    with gateway.connect() as client:
        request = proxy_request(target, key=key, method=method) if target else proxy_request(key=key)
        return client.ask(request)


def test_what_gateways_grant_together_is_the_rate_and_the_burst(
    fleet: Callable[..., Fleet], start_origin: StartOrigin
) -> None:
    """At three times the quota over three gateways, quota / window x t + burst calls pass, give or take one."""
    key = limited("pace", requests(quota=QUOTA, window=WINDOW, burst=BURST))
    origin = start_origin()
    gateways = fleet(origin, limits_policy([key]))
    decisions = Barrage(gateways, proxy_request(key=key), per_second=3 * RATE, seconds=SECONDS).decisions()
    statuses = counted(decisions)
    assert statuses.keys() == {200, 429}
    assert_exact(decisions, rate=RATE, burst=BURST, granted=statuses[200])
    assert len(origin.executions) == statuses[200]


def test_slots_are_shared_and_freed_at_the_last_byte(fleet: Callable[..., Fleet], start_origin: StartOrigin) -> None:
    """What one gateway holds another one misses, until the answer is whole."""
    key = limited("pair", slots(quota=2))
    origin = start_origin(lambda connection: connection.read_request() and connection.wait_for_leaving())
    one, other, _ = fleet(origin, limits_policy([key])).gateways
    with ExitStack() as stack:
        for gateway in (one, other):
            client = stack.enter_context(gateway.connect())
            client.send(proxy_request(STATUS, key=key, method="GET"))
        until(lambda: len(origin.requests) == 2, "both slots to be held")
        assert ask(one, key).status == 429
        assert ask(other, key).status == 429
    until(lambda: ask_at_once(other, key, origin), "the slots of callers who have left")


def ask_at_once(gateway: Gateway, key: GatewayKey, origin: ScriptedOrigin) -> bool:
    """Say whether a call is let in: it reaches the origin, and its caller leaves."""
    before = len(origin.requests)
    with gateway.connect() as client:
        client.send(proxy_request(STATUS, key=key, method="GET"))
        client.socket.settimeout(0.2)
        try:
            assert client.read_head().status == 429
        except TimeoutError:
            return len(origin.requests) > before
    return False


def queue(request: Received) -> bytes:
    """Answer a submit with the id, and all else with an empty object."""
    return http_response(f'{{"request_id": "{JOB}"}}'.encode() if request.method == "POST" else b"{}")


def test_a_job_belongs_to_its_submitter_at_every_gateway(
    fleet: Callable[..., Fleet], start_origin: StartOrigin
) -> None:
    """`isolate_jobs` holds where another gateway took the submit."""
    web, mate = GatewayKey("web", "design"), GatewayKey("mate", "design")
    other = GatewayKey("other", "research")
    gateways = fleet(start_origin(answering(queue)), policy_text(web, mate, other)).gateways
    assert ask(gateways[0], web, SUBMIT).status == 200
    for gateway in gateways:
        assert ask(gateway, web, STATUS, "GET").status == 200
        assert ask(gateway, mate, STATUS, "GET").status == 200
        refused = ask(gateway, other, STATUS, "GET")
        assert (refused.status, refused.field("x-fal-error-type")) == (404, "job_unknown")
        assert ask(gateway, other, STATUS.replace(JOB, "elsewhere"), "GET").status == 200


def start_before(
    proxy: FaultProxy,
    start_gateway: StartGateway,
    origin: ScriptedOrigin,
    **sections: Any,  # noqa: ANN401 - policy
) -> tuple[Gateway, GatewayKey]:
    """Start a gateway whose store is behind the proxy, with a key under limits that nobody reaches."""
    key = limited("calm", requests(quota=100_000, window=LONG), slots(quota=1000))
    policy = limits_policy([key], **sections)
    return start_gateway(origin, policy=policy, FALGW_REDIS_URL=proxy.url), key


MODES: Final[tuple[Mode, ...]] = ("refuse", "black_hole", "slow", "flapping", "garbage")


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_fails_is_stood_in_for(
    proxy: FaultProxy, start_gateway: StartGateway, start_origin: StartOrigin, mode: Mode
) -> None:
    """Limits go by the local share, counted as degraded; nothing is a 500, and the log says it at transitions only.

    The store is used again within 20 s of its return.
    """
    gateway, key = start_before(proxy, start_gateway, start_origin())
    assert gateway.metrics().value("state_store_up") == 1
    proxy.mode = mode
    until(lambda: ask_until_away(gateway, key), "the breaker to open")
    for _ in range(20):
        assert ask(gateway, key).status == 200
    metrics = gateway.metrics()
    assert metrics.value("degraded_requests_total") >= 1
    assert metrics.value("state_store_errors_total") >= 1
    proxy.mode = "pass"
    until(lambda: gateway.metrics().value("state_store_up") == 1, "the store's return", timeout_seconds=BACK_SECONDS)
    degraded = gateway.metrics().value("degraded_requests_total")
    answer = ask(gateway, key)
    assert (answer.status, gateway.metrics().value("degraded_requests_total")) == (200, degraded)
    assert 1 <= len(gateway.events("state_store_down")) <= 1 + proxy.connections


def ask_until_away(gateway: Gateway, key: GatewayKey) -> bool:
    """Ask, successfully; say whether the gateway does without its store now, or did."""
    assert ask(gateway, key).status == 200
    return gateway.metrics().value("degraded_requests_total") > 0


@pytest.mark.parametrize(("rule", "status"), [("closed", 503), ("open", 200)])
def test_the_policy_says_what_stands_in(
    proxy: FaultProxy, start_gateway: StartGateway, start_origin: StartOrigin, rule: str, status: int
) -> None:
    """`on_state_loss`: closed refuses with 503 and Retry-After, open lets everything pass."""
    gateway, key = start_before(proxy, start_gateway, start_origin(), on_state_loss=rule)
    proxy.mode = "refuse"
    until(lambda: gateway.metrics().value("state_store_up") == 0, "the store's loss to be noticed")
    answer = ask(gateway, key)
    assert answer.status == status
    if status == 503:
        assert (answer.field("x-fal-error-type"), answer.field("retry-after")) == ("state_unavailable", "1")


def test_a_gateway_starts_without_its_store(
    proxy: FaultProxy, start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """It is ready within its usual time, and finds the store when that comes."""
    proxy.mode = "refuse"
    gateway, key = start_before(proxy, start_gateway, start_origin())
    assert gateway.metrics().value("state_store_up") == 0
    assert ask(gateway, key).status == 200
    proxy.mode = "pass"
    until(lambda: gateway.metrics().value("state_store_up") == 1, "the store", timeout_seconds=BACK_SECONDS)


def test_gateways_share_out_what_they_cannot_count_together(
    proxy: FaultProxy, start_gateway: StartGateway, start_origin: StartOrigin, store: RedisServer
) -> None:
    """While the store is away each of two gateways grants half of the quota, at least one call."""
    key = limited("halved", requests(quota=10, window=LONG))
    origin = start_origin()
    policy = limits_policy([key])
    gateways = [start_gateway(origin, policy=policy, FALGW_REDIS_URL=proxy.url) for _ in range(2)]
    until(lambda: store.run("ZCARD", "fgw:{replicas}") == 2, "both gateways to be registered")
    until(lambda: all(knows_both(gateway) for gateway in gateways), "both to have heard of the other")
    proxy.mode = "refuse"
    for gateway in gateways:
        until(lambda one=gateway: one.metrics().value("state_store_up") == 0, "the store's loss")  # type: ignore[misc]
        statuses = [ask(gateway, key).status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2


def knows_both(gateway: Gateway) -> bool:
    """Say whether a gateway has heard of another one in its last heartbeat."""
    return gateway.metrics().value("replicas") == 2
