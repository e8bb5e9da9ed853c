"""Queue jobs belong to who submitted them, whichever worker is asked (CONTRACT 3, `isolate_jobs`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.harness.messages import http_response, proxy_request
from tests.harness.origin import answering
from tests.harness.policy import GatewayKey, policy_text

if TYPE_CHECKING:
    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import Received, StartOrigin

WEB = GatewayKey("web", "design")
MOBILE = GatewayKey("mobile", "design")
OTHER = GatewayKey("other", "research")
NARROW = GatewayKey("narrow", "design", entry={"allowed_endpoints": ["fal-ai/flux/schnell"]})
ID = "5f0f5e0c-6d3f-4f2f-9a53-c7b3a8f7f1aa"
SUBMIT = "https://queue.fal.run/fal-ai/flux/dev"
STATUS = f"https://queue.fal.run/fal-ai/flux/requests/{ID}/status"


def queue(request: Received) -> bytes:
    """Answer a submit with the id, and all else with an empty object."""
    return http_response(f'{{"request_id": "{ID}"}}'.encode() if request.method == "POST" else b"{}")


def status_of(gateway: Gateway, key: GatewayKey, target: str = STATUS, method: str = "GET") -> tuple[int, str | None]:
    """Return (status, error type) of one request on a connection of its own."""
    with gateway.connect() as client:
        response = client.ask(proxy_request(target, key=key, method=method))
        return response.status, response.field("x-fal-error-type")


@pytest.mark.parametrize(("isolation", "mate"), [("team", 200), ("key", 404), ("none", 200)])
def test_a_job_is_hidden_from_others_in_every_worker(
    start_gateway: StartGateway, start_origin: StartOrigin, isolation: str, mate: int
) -> None:
    """The submitter polls, fetches and cancels; a mate as isolation says; another team gets 404 and no hint."""
    origin = start_origin(answering(queue))
    policy = policy_text(WEB, MOBILE, OTHER, targets={"isolate_jobs": isolation})
    gateway = start_gateway(origin, policy=policy, workers=2)
    assert status_of(gateway, WEB, SUBMIT, "POST") == (200, None)
    stranger = (200, None) if isolation == "none" else (404, "job_unknown")
    for _ in range(8):  # both workers are asked, as the kernel deals connections out
        assert status_of(gateway, WEB)[0] == 200
        assert status_of(gateway, MOBILE)[0] == mate
        assert status_of(gateway, OTHER) == stranger
    cancel = STATUS.replace("/status", "/cancel")
    assert status_of(gateway, OTHER, cancel, "PUT") == stranger


def test_the_default_isolates_teams(start_gateway: StartGateway, start_origin: StartOrigin) -> None:
    """Without a word in the policy another team's job is not there."""
    gateway = start_gateway(start_origin(answering(queue)), policy=policy_text(WEB, OTHER))
    assert status_of(gateway, OTHER)[0] == 200, "a job that did not come through here may be polled by any key"
    assert status_of(gateway, WEB, SUBMIT, "POST")[0] == 200
    assert status_of(gateway, OTHER) == (404, "job_unknown")


def test_a_known_job_counts_for_the_endpoint_that_was_submitted(
    start_gateway: StartGateway, start_origin: StartOrigin
) -> None:
    """A poll's URL has owner and alias only; label, log and endpoint globs go by the submitted endpoint."""
    gateway = start_gateway(start_origin(answering(queue)), policy=policy_text(WEB, NARROW))
    assert status_of(gateway, NARROW)[0] == 200, "unknown jobs are admitted by owner and alias"
    assert status_of(gateway, WEB, SUBMIT, "POST")[0] == 200
    assert status_of(gateway, WEB)[0] == 200
    assert status_of(gateway, NARROW) == (403, "endpoint_not_allowed")
    event = gateway.wait_for_event("exchange", lambda event: event["class"] == "free" and event["key"] == "web")
    assert event["endpoint"] == "fal-ai/flux/dev"
    assert gateway.metrics().value("requests_total", endpoint="fal-ai/flux/dev", **{"class": "free"}) == 2
