"""The real client in a real browser, in a page of another origin than the gateway's: CORS as browsers practise it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.clients.driver import NodeClient, Outcome, PageServer, call_in_browser
from tests.harness.policy import GatewayKey, policy_text

if TYPE_CHECKING:
    from tests.harness.emulator import Emulator
    from tests.harness.gateway import Gateway, StartGateway

ENDPOINT: Final = "fal-ai/flux/dev"
PROMPT: Final = {"prompt": "a cat"}


@pytest.fixture
def open_gateway(start_gateway: StartGateway, emulator: Emulator, key: GatewayKey, page: PageServer) -> Gateway:
    """Start a gateway whose policy lets in the page's origin, and no other."""
    policy = policy_text(key, clients={"cors_allowed_origins": [page.origin]})
    return start_gateway(emulator, policy=policy)


def run_in(page: str, *, gateway: Gateway, credentials: str) -> Outcome:
    """Call `fal.run` in a page."""
    client = NodeClient(credentials, proxy=gateway.url)
    return call_in_browser(page, client.specification("run", ENDPOINT, options={"input": PROMPT}))


def test_run_from_a_page_of_another_origin(open_gateway: Gateway, page: PageServer, key: GatewayKey) -> None:
    """A page whose origin is allowed runs an endpoint, and reads picture and request id."""
    outcome = run_in(page.origin, gateway=open_gateway, credentials=key.secret)
    assert outcome.error is None, outcome
    assert outcome.value["data"]["prompt"] == PROMPT["prompt"]
    assert outcome.value["requestId"], "the page may not read x-fal-request-id"


def test_an_error_is_readable_in_the_page(open_gateway: Gateway, page: PageServer) -> None:
    """A wrong key is an error with status and message in the page too, not a failure without a name."""
    outcome = run_in(page.origin, gateway=open_gateway, credentials="not-a-key")
    assert outcome.error is not None
    assert (outcome.error["name"], outcome.error["status"], outcome.statuses) == ("ApiError", 401, [401])
    assert outcome.error["message"] == outcome.error["body"]["detail"]


def test_a_page_of_an_origin_that_is_not_allowed_gets_nothing(
    open_gateway: Gateway, page: PageServer, key: GatewayKey, emulator: Emulator
) -> None:
    """The browser lets a page of any other origin read nothing, and its request never reaches the origin."""
    before = emulator.requests_total()
    outcome = run_in(page.stranger, gateway=open_gateway, credentials=key.secret)
    assert outcome.error is not None
    assert outcome.error["status"] is None
    assert set(outcome.statuses) == {None}
    assert any("CORS" in line for line in outcome.console), outcome.console
    assert emulator.requests_total() == before
