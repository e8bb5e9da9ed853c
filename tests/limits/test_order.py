"""What is refused for other reasons is refused first, and consumes nothing; whose address counts; guesses at keys."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import answering
from tests.harness.policy import GatewayKey
from tests.limits.ground import left, limited, limits_policy, requests, slots, told
from tests.wire.stage import assert_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import Response
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import OriginConnection, StartOrigin
    from tests.harness.scene import Scene

LONG: Final = 3600
MOST_BYTES: Final = 1000
TOKENS: Final = "https://rest.fal.ai/tokens/"
NARROW: Final = {"allowed_endpoints": ["fal-ai/flux/**"], "max_body_bytes": MOST_BYTES}
ROWS: Final = (requests("calls", quota=1, window=LONG), slots(quota=1))
NARROW_KEY: Final = GatewayKey(id="narrow", team="narrow", entry={**NARROW, "limits": list(ROWS)})
TOKENS_KEY: Final = GatewayKey(id="tokens", team="tokens", entry={**NARROW, "limits": list(ROWS)})
CROWDED: Final = limited("crowded", requests("calls", quota=1, window=LONG))
OPEN: Final = GatewayKey(id="open", team="open")
GUESSES: Final = 20  # a minute, by an address (docs/policy.md, Limits)


@pytest.fixture(scope="module")
def ground(lay_out: Callable[..., Scene]) -> Scene:
    """Return the module's scene."""
    return lay_out(NARROW_KEY, limits_policy([NARROW_KEY, TOKENS_KEY]))


@pytest.fixture
def scene(ground: Scene) -> Scene:
    """Return the module's scene with new books."""
    ground.play(answering())
    return ground.open_books()


# -- order ------------------------------------------------------------------------------------------------------------


def test_other_refusals_come_before_429_and_consume_nothing(scene: Scene) -> None:
    """403, 415 and a declared 413 are the same with quota and without it, and leave it as it was."""

    def statuses() -> list[int]:
        return [
            scene.ask(scene.request(target="https://fal.run/fal-ai/other")).status,
            scene.ask(scene.request(content_type="image/png", body=b"x")).status,
            scene.ask(scene.request(body=b"x" * (MOST_BYTES + 1))).status,
        ]

    assert statuses() == [403, 415, 413]
    granted = scene.ask(scene.request())
    assert (granted.status, left(granted, "calls"), left(granted, "parallel")) == (200, 0, 0)
    assert statuses() == [403, 415, 413]
    assert_problem(scene.ask(scene.request()), 429, "quota_exceeded")


def test_a_token_request_is_judged_before_it_consumes(scene: Scene) -> None:
    """Its apps stand in its content: where they are not for this key it is 403 and nothing is taken."""

    def ask(app: str) -> Response:
        body = json.dumps({"allowed_apps": [app], "token_expiration": 60}).encode()
        return scene.ask(scene.request(key=TOKENS_KEY, target=TOKENS, body=body))

    assert_problem(ask("fal-ai/other"), 403, "endpoint_not_allowed")
    granted = ask("fal-ai/flux/dev")
    assert (granted.status, left(granted, "calls")) == (200, 0)
    assert_problem(ask("fal-ai/other"), 403, "endpoint_not_allowed")
    assert_problem(ask("fal-ai/flux/dev"), 429, "quota_exceeded")
    assert len(scene.origin.executions) == 1


def test_a_crowded_gateway_consumes_nothing(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """A 503 for want of room takes nothing of a key's limits."""
    go_on = threading.Event()

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            assert go_on.wait(30)
            connection.send(http_response())

    origin = start_origin(script)
    gateway = start_gateway(origin, policy=limits_policy([CROWDED, OPEN]), FALGW_MAX_INFLIGHT="1")
    with gateway.connect() as first:
        first.send(proxy_request(key=OPEN))
        origin.wait_for_requests(1)
        for _ in range(3):
            assert_problem(ask(gateway, key=CROWDED), 503, "capacity_reached")
        go_on.set()
        assert first.read_response().status == 200
    granted = ask(gateway, key=CROWDED)
    assert (granted.status, left(granted, "calls")) == (200, 0)


def ask(gateway: Gateway, *, address: str | None = None, key: GatewayKey | str | None = None) -> Response:
    """Ask once, as coming from an address by way of a proxy."""
    fields = [("X-Forwarded-For", address)] if address else []
    with gateway.connect() as client:
        return client.ask(proxy_request(key=key, fields=fields))


# -- addresses --------------------------------------------------------------------------------------------------------


ANONYMOUS: Final = {
    "allow_unauthorized_requests": True,
    "anonymous": {"limits": [requests("calls", quota=2, window=LONG)]},
}


def test_anonymous_callers_are_limited_by_address(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """Behind a trusted proxy each address has its own quota, an IPv6 caller one for its /64."""
    gateway = start_gateway(
        start_origin(), policy=limits_policy([OPEN], clients=ANONYMOUS), FALGW_TRUSTED_PROXIES="127.0.0.1/32"
    )
    assert [ask(gateway, address="192.0.2.7").status for _ in range(3)] == [200, 200, 429]
    assert ask(gateway, address="192.0.2.8").status == 200
    assert ask(gateway, address="198.51.100.1, 192.0.2.7").status == 429  # what stands to the left may be made up
    block = [ask(gateway, address=address) for address in ("2001:db8::1", "2001:db8::ffff", "2001:db8:0:0:1::")]
    assert [answer.status for answer in block] == [200, 200, 429]
    assert ask(gateway, address="2001:db8:0:1::1").status == 200
    assert [ask(gateway, key=OPEN, address="192.0.2.7").status for _ in range(3)] == [200] * 3
    assert told(block[2]).keys() == {"calls"}


def test_an_untrusted_peer_names_no_address(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """Without a trusted proxy X-Forwarded-For changes nothing: every request counts for its peer."""
    gateway = start_gateway(start_origin(), policy=limits_policy([OPEN], clients=ANONYMOUS))
    answers = [ask(gateway, address=f"192.0.2.{number}") for number in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]


def test_guesses_at_keys_are_limited_by_address(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """After twenty wrong keys in a minute an address gets 429; no key is no guess, and a right key always passes."""
    gateway = start_gateway(
        start_origin(), policy=limits_policy([OPEN]), workers=2, FALGW_TRUSTED_PROXIES="127.0.0.1/32"
    )
    assert {ask(gateway, address="192.0.2.7").status for _ in range(2 * GUESSES)} == {401}
    answers = [ask(gateway, address="192.0.2.7", key="wrong") for _ in range(GUESSES + 5)]
    assert [answer.status for answer in answers[:GUESSES]] == [401] * GUESSES
    refused = next(answer for answer in answers if answer.status != 401)
    assert_problem(refused, 429, "quota_exceeded")
    assert refused.field("retry-after") in {"1", "2", "3"}  # one more guess comes each three seconds
    assert [ask(gateway, address="192.0.2.7", key=OPEN).status for _ in range(3)] == [200] * 3
    assert ask(gateway, address="192.0.2.7").status == 401
    assert ask(gateway, address="192.0.2.8", key="wrong").status == 401
    assert gateway.metrics().value("refusals_total", key="unknown", error_type="quota_exceeded") >= 1
