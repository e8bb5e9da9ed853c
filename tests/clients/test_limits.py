"""The real `@fal-ai/client` under a limit: its own retries outlast a refusal, and its user notices nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tests.clients.driver import NodeClient
from tests.harness.policy import GatewayKey, policy_text

if TYPE_CHECKING:
    from tests.harness.emulator import Emulator
    from tests.harness.gateway import StartGateway

ENDPOINT: Final = "fal-ai/flux/dev"
PROMPT: Final = {"prompt": "a cat"}


def limited(**row: Any) -> GatewayKey:  # noqa: ANN401 - a limit as the policy file has it
    """Return a key under one limit of paid requests."""
    return GatewayKey(id="limited", entry={"limits": [{"name": "submits", "unit": "requests", "class": "paid", **row}]})


def test_a_refused_call_is_retried_until_it_is_granted(start_gateway: StartGateway, emulator: Emulator) -> None:
    """A second call within the window gets 429 and is granted by the client's own retries, within their few seconds."""
    key = limited(quota=1, window=2)
    client = NodeClient(key.secret, proxy=start_gateway(emulator, policy=policy_text(key)).url)
    emulator.reset()
    first = client.call("twice", ENDPOINT, options={"input": PROMPT})
    assert first.error is None, first
    assert first.statuses[0] == 200
    assert first.statuses[-1] == 200
    assert set(first.statuses[1:-1]) == {429}
    assert len(emulator.executions()) == 2


def test_polls_do_not_wait_for_submits(start_gateway: StartGateway, emulator: Emulator) -> None:
    """A job whose submit has spent the whole quota is followed to its end: polls are of another class."""
    key = limited(quota=1, window=3600)
    client = NodeClient(key.secret, proxy=start_gateway(emulator, policy=policy_text(key)).url)
    outcome = client.call("subscribe", ENDPOINT, options={"input": PROMPT, "mode": "polling", "pollInterval": 50})
    assert outcome.error is None, outcome
    assert set(outcome.statuses) == {200}
