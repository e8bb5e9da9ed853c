"""One team against all: it may open many requests, and leave them; the others still get theirs."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.harness.messages import http_response, proxy_head, proxy_request
from tests.harness.policy import GatewayKey, policy_text
from tests.harness.waiting import until
from tests.wire.stage import assert_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.client import RawClient
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin

PLACES: Final = 20
CONTESTED_FROM: Final = 16
SHARE: Final = 10
MOST_LEFT: Final = 5
GREEDY: Final = GatewayKey(id="greedy", team="greedy")
MODEST: Final = GatewayKey(id="modest", team="modest")
PRICES: Final = [{"endpoint": "fal-ai/flux/dev", "unit": "image", "usd": "0.5"}]


class Crowd:
    """A gateway with few places before an origin that does not answer until it is let."""

    def __init__(self, gateway: Gateway, origin: ScriptedOrigin, go_on: threading.Event, stack: ExitStack) -> None:
        self.gateway = gateway
        self.origin = origin
        self.go_on = go_on
        self._stack = stack

    def open(self, key: GatewayKey, count: int = 1) -> list[RawClient]:
        """Open so many paid requests; return when they are at the origin."""
        before = len(self.origin.executions)
        clients = [self._stack.enter_context(self.gateway.connect()) for _ in range(count)]
        for client in clients:
            client.send(proxy_request(key=key))
        until(lambda: len(self.origin.executions) == before + count, f"{count} more requests at the origin")
        return clients

    def leave(self, key: GatewayKey, count: int) -> None:
        """Open so many paid requests, one after the other, and leave each."""
        for _ in range(count):
            (client,) = self.open(key)
            client.reset()

    def refuses(self, key: GatewayKey) -> None:
        """Check that one more request gets 503, and that it says when to come again."""
        with self.gateway.connect() as client:
            response = client.ask(proxy_request(key=key))
        assert_problem(response, 503, "capacity_reached")
        assert response.field("retry-after") == "1"

    def gone(self, count: int) -> list[dict[str, Any]]:
        """Wait for the events of so many requests whose callers have left."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.gateway.events("exchange") if event["outcome"] == "client_gone"]

        until(lambda: len(found()) >= count, f"{count} requests that were left")
        return found()


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """Return what lets the origin answer; set at the end of the test in any case."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def gather(start_gateway: StartGateway, start_origin: StartOrigin, go_on: threading.Event) -> Iterator[Any]:
    """Return `gather(*keys, **sections)`: a crowd under a policy with these keys."""

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            go_on.wait(20)
            connection.send(http_response(fields=[("Content-Type", "application/json"), ("x-fal-billable-units", "1")]))

    with ExitStack() as stack:

        def gather_crowd(*keys: GatewayKey, **sections: Any) -> Crowd:  # noqa: ANN401 - any part of a policy file
            origin = start_origin(script)
            policy = policy_text(*keys, prices=PRICES, **sections)
            gateway = start_gateway(origin, policy=policy, FALGW_MAX_INFLIGHT=str(PLACES))
            return Crowd(gateway, origin, go_on, stack)

        yield gather_crowd


def test_the_last_fifth_is_for_teams_below_their_share(gather: Any) -> None:  # noqa: ANN401 - the fixture's function
    """A team may have more than its share while there is room; then it is refused, and others are not."""
    crowd = gather(GREEDY, MODEST)
    clients = crowd.open(GREEDY, CONTESTED_FROM)
    crowd.refuses(GREEDY)
    clients += crowd.open(MODEST, PLACES - CONTESTED_FROM)
    crowd.refuses(MODEST)  # full is full
    crowd.go_on.set()
    assert [client.read_response().status for client in clients] == [200] * PLACES
    with crowd.gateway.connect() as client:
        assert client.ask(proxy_request(key=GREEDY)).status == 200


def test_a_team_within_its_share_may_fill_the_last_fifth(gather: Any) -> None:  # noqa: ANN401
    """The share bounds a team, and not the number of teams: here two halves are the whole."""
    crowd = gather(GREEDY, MODEST)
    crowd.open(MODEST, SHARE)
    crowd.open(GREEDY, SHARE - 1)
    crowd.refuses(MODEST)
    crowd.open(GREEDY)


@pytest.mark.parametrize(
    ("keys", "sections"),
    [((GREEDY,), {}), ((GREEDY, MODEST), {"max_share": 1})],
    ids=["one team", "a share of all"],
)
def test_where_nothing_is_to_be_shared_one_team_has_all(gather: Any, keys: Any, sections: Any) -> None:  # noqa: ANN401
    """With one team in the policy, or `max_share: 1`, only the total bounds."""
    crowd = gather(*keys, **sections)
    crowd.open(GREEDY, PLACES)
    crowd.refuses(GREEDY)


def test_anonymous_callers_count_as_a_team(gather: Any) -> None:  # noqa: ANN401
    """Strangers that fill the gateway leave room for the one team of the policy."""
    crowd = gather(MODEST, clients={"allow_unauthorized_requests": True})
    crowd.open(None, CONTESTED_FROM)
    crowd.refuses(None)
    crowd.open(MODEST)


def test_slow_uploads_hold_places_as_runs_do(gather: Any) -> None:  # noqa: ANN401
    """What a team has begun to send counts from its head on."""
    crowd = gather(GREEDY, MODEST)
    with ExitStack() as stack:
        for _ in range(CONTESTED_FROM):
            client = stack.enter_context(crowd.gateway.connect())
            client.send(proxy_head(key=GREEDY, fields=[("Content-Length", "100000")]) + b"x" * 100)
        crowd.origin.wait_for_requests(CONTESTED_FROM)
        crowd.refuses(GREEDY)
        crowd.open(MODEST)


def test_left_runs_have_a_quarter_of_the_places(gather: Any) -> None:  # noqa: ANN401
    """A loop that opens paid runs and leaves: the oldest beyond a quarter is ended, unknown; the others are settled."""
    crowd = gather(GREEDY, MODEST)
    crowd.leave(GREEDY, MOST_LEFT + 3)
    ended = crowd.gone(3)
    assert [event["cost_source"] for event in ended] == ["unknown"] * 3
    assert [event["cost_usd"] for event in ended] == ["0.5"] * 3
    assert crowd.gateway.metrics().value("inflight_requests") == MOST_LEFT
    crowd.go_on.set()
    sources = [event["cost_source"] for event in crowd.gone(MOST_LEFT + 3)]
    assert sources == ["unknown"] * 3 + ["exact"] * MOST_LEFT
    until(lambda: crowd.gateway.metrics().value("inflight_requests") == 0, "every place is free")


def test_a_team_that_leaves_many_ends_its_own(gather: Any) -> None:  # noqa: ANN401
    """The run of another team, left before all of them, is read to its end."""
    crowd = gather(GREEDY, MODEST)
    crowd.leave(MODEST, 1)
    crowd.leave(GREEDY, MOST_LEFT + 3)
    assert {event["team"] for event in crowd.gone(4)} == {"greedy"}
    crowd.go_on.set()
    events = crowd.gone(MOST_LEFT + 4)
    assert [event["cost_source"] for event in events if event["team"] == "modest"] == ["exact"]
