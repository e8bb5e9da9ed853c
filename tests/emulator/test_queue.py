"""Rules of queue.fal.run."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.client import RawClient, Response

if TYPE_CHECKING:
    from tests.emulator.stand import Stand

APP = "/fal-ai/flux"


def submit(fal: Stand, faults: str = "", path: str = f"{APP}/dev") -> dict[str, Any]:
    """Submit a job and return the answer's content."""
    answer = fal.ask("queue.fal.run", path, content={"prompt": "a cat"}, faults=faults)
    assert answer.status == 200, answer.body
    assert answer.field("x-fal-billable-units") is None
    return dict(answer.json())


def fetch(fal: Stand, url: str, method: str = "GET") -> Response:
    """Follow one of the URLs of a submission."""
    return fal.ask("queue.fal.run", url.removeprefix("https://queue.fal.run"), method=method)


def completed(fal: Stand, status_url: str) -> dict[str, Any]:
    """Return the completed state, read at the end of the stream of states."""
    events = fetch(fal, f"{status_url}/stream").body.split(b"\n\n")
    return dict(json.loads(events[-2].removeprefix(b"data: ")))


def test_a_submission_names_its_job(fal: Stand) -> None:
    """A submission answers with id, position and URLs that carry owner and alias, and tells no units."""
    job = submit(fal, "queued=60000")
    stem = f"https://queue.fal.run{APP}/requests/{job['request_id']}"
    assert (job["status"], job["queue_position"], job["response_url"]) == ("IN_QUEUE", 0, stem)
    assert (job["status_url"], job["cancel_url"]) == (f"{stem}/status", f"{stem}/cancel")
    assert submit(fal, "queued=60000")["queue_position"] == 1


@pytest.mark.parametrize(("times", "state"), [("queued=60000", "IN_QUEUE"), ("queued=0,running=60000", "IN_PROGRESS")])
def test_a_job_has_no_result_before_its_end(fal: Stand, times: str, state: str) -> None:
    """Until a job is completed its result is a 400 that says so, and neither it nor the state tells units."""
    job = submit(fal, times)
    told = fetch(fal, f"{job['status_url']}?logs=1")
    assert (told.json()["status"], told.field("x-fal-billable-units")) == (state, None)
    early = fetch(fal, job["response_url"])
    assert (early.status, early.json()["detail"]) == (400, "Request is still in progress")
    assert early.field("x-fal-billable-units") is None


def test_a_result_tells_its_units_each_time(fal: Stand) -> None:
    """A completed job tells its inference time, and its result tells the units whenever it is fetched."""
    job = submit(fal, "queued=30,running=60")
    done = completed(fal, job["status_url"])
    assert (done["status"], done["metrics"]) == ("COMPLETED", {"inference_time": 0.06})
    for _ in range(2):
        result = fetch(fal, job["response_url"])
        assert (result.json()["prompt"], result.field("x-fal-billable-units")) == ("a cat", "1")
        assert result.field("x-fal-request-id") == job["request_id"]


def test_states_are_streamed(fal: Stand) -> None:
    """A stream of states tells each state once, each line of the log once, and ends with COMPLETED."""
    job = submit(fal, "queued=500,running=40")
    answer = fetch(fal, f"{job['status_url']}/stream?logs=1")
    assert answer.field("content-type") == "text/event-stream; charset=utf-8"
    states = [json.loads(event.removeprefix(b"data: ")) for event in answer.body.split(b"\n\n")[:-1]]
    assert [state["status"] for state in states] == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    messages = [[line["message"] for line in state.get("logs", [])] for state in states]
    assert messages == [[], ["Running inference"], ["Inference done"]]


def test_a_waiting_job_can_be_cancelled(fal: Stand) -> None:
    """A waiting job is cancelled with 202; then it has no result, no units and no bill, and a second wish is 400."""
    job = submit(fal, "queued=60000")
    cancelled = fetch(fal, job["cancel_url"], "PUT")
    assert (cancelled.status, cancelled.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    again = fetch(fal, job["cancel_url"], "PUT")
    assert (again.status, again.json()) == (400, {"status": "ALREADY_COMPLETED"})
    result = fetch(fal, job["response_url"])
    assert (result.status, result.field("x-fal-billable-units")) == (499, None)
    assert fal.ask("api.fal.ai", "/v1/models/billing-events", method="GET").json()["billing_events"] == []


def test_a_cancellation_ends_the_stream_of_states(fal: Stand) -> None:
    """Who watches a job learns of its cancellation at once."""
    job = submit(fal, "queued=60000")
    with RawClient(fal.port) as client:
        client.send(fal.request("queue.fal.run", f"{APP}/requests/{job['request_id']}/status/stream", method="GET"))
        pieces = client.pieces(client.read_head())
        assert b"IN_QUEUE" in next(pieces)
        began = time.monotonic()
        fetch(fal, job["cancel_url"], "PUT")
        assert b'"error_type": "client_cancelled"' in b"".join(pieces)
        assert time.monotonic() - began < 5


def test_a_running_job_may_finish_all_the_same(fal: Stand) -> None:
    """A cancellation of a running job is accepted, and the job runs on and is billed."""
    job = submit(fal, "queued=0,running=800")
    assert fetch(fal, job["cancel_url"], "PUT").status == 202
    assert "error" not in completed(fal, job["status_url"])
    assert fetch(fal, job["response_url"]).field("x-fal-billable-units") == "1"


@pytest.mark.parametrize("path", ["", "/status", "/status/stream"])
def test_an_unknown_job_is_404(fal: Stand, path: str) -> None:
    """An id that was never submitted, or one under another app, is a 404."""
    job = submit(fal)
    assert fetch(fal, f"{APP}/requests/unknown{path}").status == 404
    assert fetch(fal, f"/other/app/requests/{job['request_id']}{path}").status == 404


def test_cancelling_an_unknown_job_is_404(fal: Stand) -> None:
    """A cancellation of what is not known says NOT_FOUND."""
    answer = fetch(fal, f"{APP}/requests/unknown/cancel", "PUT")
    assert (answer.status, answer.json()) == (404, {"status": "NOT_FOUND"})


def test_a_workflow_has_one_more_segment(fal: Stand) -> None:
    """In a namespace the URLs carry it before owner and alias."""
    job = submit(fal, "queued=0,running=0", path="/workflows/me/flow/deep")
    assert job["response_url"].startswith("https://queue.fal.run/workflows/me/flow/requests/")
    assert fetch(fal, job["response_url"]).status == 200


def test_a_fault_can_wait_for_the_result(fal: Stand) -> None:
    """`on=result` lets submission and status pass and strikes the result: a job that failed, with 0 units."""
    job = submit(fal, "status=422,on=result,queued=0,running=0")
    state = fetch(fal, job["status_url"]).json()
    assert (state["status"], state["error_type"]) == ("COMPLETED", "bad_request")
    result = fetch(fal, job["response_url"])
    assert (result.status, result.field("x-fal-billable-units")) == (422, "0")
    assert fal.executions()[0]["units"] == "0"


def test_a_path_can_ask_for_faults_of_a_job(fal: Stand) -> None:
    """A client that cuts owner/alias out of an endpoint with faults in it still finds its job."""
    job = submit(fal, path="/emulate/queued=0,running=0,units=2.5/fal-ai/flux/dev")
    result = fetch(fal, f"/emulate/queued=0,running=0,units=2.5/requests/{job['request_id']}")
    assert result.field("x-fal-billable-units") == "2.5"
    assert fal.executions()[0]["endpoint"] == "fal-ai/flux/dev"


def test_a_refused_submission_is_no_execution(fal: Stand) -> None:
    """A submission that is answered with an error has made no job."""
    assert fal.ask("queue.fal.run", f"{APP}/dev", content={}, faults="status=500").status == 500
    assert fal.executions() == []


def test_a_webhook_is_recorded(fal: Stand) -> None:
    """A `fal_webhook` is taken and can be seen in the record; nobody is called."""
    submit(fal, path=f"{APP}/dev?fal_webhook=https%3A%2F%2Fexample.com%2Fhook")
    assert "fal_webhook=https%3A%2F%2Fexample.com%2Fhook" in fal.executions()[0]["target"]
