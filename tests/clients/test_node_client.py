"""The real `@fal-ai/client` on Node: all that it can do through a proxy works, and its user can read what went wrong.

Where a test takes `client`, it runs twice: straight before the emulator, and through the gateway. So a failure says at
once whether the stand-in for fal or the gateway is at fault.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.clients.driver import NodeClient, Outcome
    from tests.harness.emulator import Emulator

ENDPOINT: Final = "fal-ai/flux/dev"
PROMPT: Final = {"prompt": "a cat, très drôle"}
NEVER_STARTS: Final = {"x-fal-emulate": "queued=600000"}


def value_of(outcome: Outcome) -> Any:  # noqa: ANN401 - JSON
    """Return the value of a call that must have gone well."""
    assert outcome.error is None, outcome
    return outcome.value


def error_of(outcome: Outcome) -> dict[str, Any]:
    """Return the error of a call that must have failed."""
    assert outcome.error is not None, outcome
    return outcome.error


def executed(emulator: Emulator, request_id: str) -> int:
    """Return how often fal has executed a request."""
    return len(emulator.executions(request_id=request_id))


def targets(outcome: Outcome) -> list[str]:
    """Return `METHOD host/path` of every request that the client made, queries left out."""
    parsed = [(attempt["method"], urlsplit(attempt["target"])) for attempt in outcome.attempts]
    return [f"{method} {url.hostname}{url.path}" for method, url in parsed]


def test_run_by_post(client: NodeClient, emulator: Emulator) -> None:
    """`fal.run` sends its input as JSON, and gets picture and request id of the one execution."""
    result = value_of(client.call("run", ENDPOINT, options={"input": PROMPT}))
    assert result["data"]["prompt"] == PROMPT["prompt"]
    assert result["data"]["images"][0]["url"]
    assert executed(emulator, result["requestId"]) == 1


def test_run_by_get(client: NodeClient, emulator: Emulator) -> None:
    """`fal.run` with `method: "get"` sends its input in the query, which arrives as it was written."""
    outcome = client.call("run", ENDPOINT, options={"input": PROMPT, "method": "get"})
    result = value_of(outcome)
    assert outcome.attempts[0]["method"] == "GET"
    assert result["data"]["prompt"] == PROMPT["prompt"]
    assert executed(emulator, result["requestId"]) == 1


@pytest.mark.parametrize(
    "mode", [{"mode": "polling", "pollInterval": 50}, {"mode": "streaming"}], ids=lambda m: m["mode"]
)
def test_subscribe(client: NodeClient, emulator: Emulator, mode: dict[str, Any]) -> None:
    """`fal.subscribe` submits once, follows the job to its end by polling or by an event stream, and has the result."""
    result = value_of(client.call("subscribe", ENDPOINT, options={"input": PROMPT, **mode}))
    assert result["data"]["prompt"] == PROMPT["prompt"]
    assert result["updates"][0] == "IN_QUEUE"
    assert result["updates"][-1] == "COMPLETED"
    assert executed(emulator, result["requestId"]) == 1


def test_stream(client: NodeClient) -> None:
    """`fal.stream` shows each event when it comes: the first is seen before the last was sent."""
    result = value_of(client.call("stream", ENDPOINT, options={"input": PROMPT}))
    events = result["events"]
    assert [event["index"] for event in events] == list(range(events[0]["of"]))
    assert events[0]["seen_at"] < events[-1]["emitted_at"]
    assert result["last"]["prompt"] == PROMPT["prompt"]


def test_submit_status_and_result(client: NodeClient, emulator: Emulator) -> None:
    """A job that one process submits, another can look after, and fetch its result as often as it likes."""
    submitted = value_of(client.call("submit", ENDPOINT, options={"input": PROMPT}))
    job = {"requestId": submitted["request_id"]}
    until(lambda: value_of(client.call("status", ENDPOINT, options=job))["status"] == "COMPLETED", "the end of the job")
    results = [value_of(client.call("result", ENDPOINT, options=job)) for _ in range(2)]
    assert [result["data"]["prompt"] for result in results] == [PROMPT["prompt"]] * 2
    assert executed(emulator, job["requestId"]) == 1


def test_cancel(client: NodeClient) -> None:
    """`fal.queue.cancel` (a PUT) takes a waiting job out of the queue."""
    submitted = value_of(client.call("submit", ENDPOINT, options={"input": PROMPT, "headers": NEVER_STARTS}))
    job = {"requestId": submitted["request_id"]}
    outcome = client.call("cancel", ENDPOINT, options=job)
    value_of(outcome)
    assert [(attempt["method"], attempt["status"]) for attempt in outcome.attempts] == [("PUT", 202)]
    assert value_of(client.call("status", ENDPOINT, options=job))["error_type"] == "client_cancelled"


def test_cancel_of_an_unknown_job_is_readable(client: NodeClient) -> None:
    """What fal says of a job that is not there reaches the user as fal said it."""
    job = {"requestId": "00000000-0000-0000-0000-000000000000"}
    outcome = client.call("cancel", ENDPOINT, options=job)
    assert (error_of(outcome)["status"], outcome.statuses) == (404, [404])


def test_upload_of_one_megabyte(client: NodeClient) -> None:
    """`fal.storage.upload` asks for a place, puts the file there itself, and the file comes back the same."""
    outcome = client.call("upload", bytes=1_000_000)
    uploaded = value_of(outcome)
    assert (uploaded["returned"], uploaded["returned_bytes"]) == (uploaded["sent"], 1_000_000)
    assert targets(outcome)[0] == "POST rest.fal.ai/storage/upload/initiate"
    assert len(outcome.attempts) == 2


def test_upload_of_a_hundred_megabytes(node: NodeClient) -> None:
    """Above 90 MiB the client uploads in parts of 10 MiB; the file comes back the same."""
    size = 100 * 1024 * 1024
    outcome = node.call("upload", bytes=size)
    uploaded = value_of(outcome)
    assert (uploaded["returned"], uploaded["returned_bytes"]) == (uploaded["sent"], size)
    assert targets(outcome)[0] == "POST rest.fal.ai/storage/upload/initiate-multipart"
    assert len(outcome.attempts) == 12


def test_realtime_token(client: NodeClient) -> None:
    """`fal.realtime` gets its token through the proxy, and takes it to fal's websocket."""
    outcome = client.call("realtime", ENDPOINT)
    websocket = urlsplit(value_of(outcome)["websocket"])
    assert (websocket.scheme, websocket.hostname) == ("wss", "fal.run")
    assert parse_qs(websocket.query)["fal_jwt_token"][0]
    assert targets(outcome) == ["POST rest.fal.ai/tokens/"]


def test_a_refused_input_is_readable(client: NodeClient) -> None:
    """A 422 of the model reaches the user as a ValidationError that names the field, after one attempt."""
    outcome = client.call("run", f"emulate/require=prompt/{ENDPOINT}", options={"input": {"seed": 1}})
    error = error_of(outcome)
    assert (error["name"], error["status"], outcome.statuses) == ("ValidationError", 422, [422])
    assert error["fieldErrors"][0]["loc"][-1] == "prompt"


@pytest.mark.parametrize("call", ["run", "submit", "subscribe"])
def test_a_wrong_key_is_readable(node: NodeClient, call: str) -> None:
    """A wrong gateway key is an ApiError 401 with a message, after one attempt: nobody retries in vain."""
    outcome = replace(node, credentials="not-a-key").call(call, ENDPOINT, options={"input": PROMPT})
    error = error_of(outcome)
    assert (error["name"], error["status"], outcome.statuses) == ("ApiError", 401, [401])
    assert error["body"]["error_type"] == "credential_invalid"
    assert error["message"] == error["body"]["detail"] != "Unauthorized"


def test_a_target_outside_the_patterns_is_readable(node: NodeClient) -> None:
    """A target that the policy does not allow is an ApiError 412 with a message, after one attempt."""
    outcome = node.call("run", "https://rest.fal.ai/billing", options={"input": PROMPT})
    error = error_of(outcome)
    assert (error["status"], error["body"]["error_type"], outcome.statuses) == (412, "target_not_allowed", [412])
