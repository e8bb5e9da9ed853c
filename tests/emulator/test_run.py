"""Rules of fal.run, and of what all hosts share: the key, the record, the body streamed."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.emulator.stand import AUTHORIZED, Stand
from tests.harness.client import RawClient


def test_a_run_answers_with_a_picture(fal: Stand) -> None:
    """The answer looks like fal's, tells its units and id, echoes the prompt, and knows the body that arrived."""
    answer = fal.run(content={"prompt": "a cat", "seed": 7, "image_size": {"width": 64, "height": 32}})
    body = answer.json()
    assert (answer.status, answer.field("content-type"), answer.framing) == (200, "application/json", "length")
    assert answer.field("x-fal-billable-units") == "1"
    assert (body["prompt"], body["seed"], body["images"][0]["width"]) == ("a cat", 7, 64)
    sent = json.dumps({"prompt": "a cat", "seed": 7, "image_size": {"width": 64, "height": 32}}).encode()
    assert (body["sha256"], body["bytes"]) == (hashlib.sha256(sent).hexdigest(), len(sent))


def test_the_picture_can_be_fetched(fal: Stand) -> None:
    """The image's URL leads to a PNG of that size at the emulator's own address, without a key."""
    url = fal.run(content={"image_size": {"width": 64, "height": 32}}).json()["images"][0]["url"]
    assert url.startswith(f"{fal.url}/storage/")
    answer = fal.ask(f"127.0.0.1:{fal.port}", url.removeprefix(fal.url), method="GET", fields=())
    assert (answer.status, answer.field("content-type")) == (200, "image/png")
    assert answer.body[:8] == b"\x89PNG\r\n\x1a\n"
    assert answer.body[16:24] == b"\x00\x00\x00\x40\x00\x00\x00\x20"


def test_a_run_by_get_takes_its_input_from_the_query(fal: Stand) -> None:
    """With GET the query is the input, and the run is an execution like any other."""
    answer = fal.ask("fal.run", "/fal-ai/flux/dev?prompt=a%20dog", method="GET")
    assert answer.json()["prompt"] == "a dog"
    assert [run["method"] for run in fal.executions()] == ["GET"]


def test_the_path_can_name_the_host(fal: Stand) -> None:
    """`/hosts/fal.run/…` is the same as Host `fal.run`, for people with curl."""
    answer = fal.ask(f"127.0.0.1:{fal.port}", "/hosts/fal.run/fal-ai/flux/dev", content={"prompt": "x"})
    assert answer.json()["prompt"] == "x"
    assert fal.executions()[0]["host"] == "fal.run"


@pytest.mark.parametrize(
    "fields",
    [(), (("Authorization", "Bearer abc"),), (("Authorization", "Key other:key"),), (("Authorization", "Key "),)],
)
def test_a_run_needs_the_key(fal: Stand, fields: tuple[tuple[str, str], ...]) -> None:
    """Without a key, with another scheme or an unknown key: 401 in fal's shape, and nothing is executed."""
    answer = fal.run(fields=fields)
    assert answer.status == 401
    assert isinstance(answer.json()["detail"], str)
    assert answer.field("x-fal-billable-units") is None
    assert fal.executions() == []


def test_an_unknown_path_is_404(fal: Stand) -> None:
    """What no host has is a 404 with a detail."""
    answer = fal.ask("rest.fal.ai", "/nothing/here")
    assert (answer.status, answer.json()) == (404, {"detail": "Not Found"})


def test_an_unknown_method_is_405(fal: Stand) -> None:
    """A method that an endpoint does not know is a 405 with a detail, and executes nothing."""
    answer = fal.ask("fal.run", "/fal-ai/flux/dev", method="PATCH", content={})
    assert answer.status == 405
    assert "detail" in answer.json()
    assert fal.executions() == []


def test_a_connection_carries_several_runs(fal: Stand) -> None:
    """A connection stays open after an answer and carries the next request, pipelined too."""
    request = fal.request("fal.run", "/fal-ai/flux/dev", content={"prompt": "x"})
    with RawClient(fal.port) as client:
        client.send(request + request)
        assert [client.read_response().status for _ in range(2)] == [200, 200]
        assert client.ask(request).status == 200
    assert len(fal.executions()) == 3


def test_an_execution_tells_what_was_received(fal: Stand) -> None:
    """An execution holds endpoint, id, digest, length and every received field in lower case, duplicates apart."""
    answer = fal.run(content=b"{}", fields=(AUTHORIZED, ("X-Fal-Tags", "a=b"), ("X-Fal-Tags", "c=d")))
    (run,) = fal.executions()
    assert run["request_id"] == answer.field("x-fal-request-id")
    assert (run["endpoint"], run["kind"], run["bytes"], run["units"]) == ("fal-ai/flux/dev", "run", 2, "1")
    assert run["sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert [value for name, value in run["fields"] if name == "x-fal-tags"] == ["a=b", "c=d"]


def test_half_a_body_is_not_an_execution(fal: Stand) -> None:
    """A request whose body never became whole is seen, marked incomplete, and not executed."""
    with RawClient(fal.port) as client:
        client.send(fal.head("fal.run", "/fal-ai/flux/dev", fields=[AUTHORIZED, ("Content-Length", "10")]) + b"12345")
    seen = fal.outcome("incomplete")
    assert (seen["bytes"], seen["whole"], seen["executed"]) == (5, False, False)
    assert fal.executions() == []


def test_a_large_body_is_not_collected(fal: Stand) -> None:
    """A chunked body of 256 MB is counted and hashed, and the process does not grow by more than 16 MB."""
    piece, count = b"0123456789abcdef" * 65536, 256
    digest = hashlib.sha256()
    with RawClient(fal.port) as client, fal.level(16 * 2**20) as look:
        client.send(fal.head("fal.run", "/fal-ai/flux/dev", fields=[AUTHORIZED, ("Transfer-Encoding", "chunked")]))
        for _ in range(count):
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            digest.update(piece)
            look()
        client.send(b"0\r\n\r\n")
        body = client.read_response().json()
    assert (body["bytes"], body["sha256"]) == (len(piece) * count, digest.hexdigest())


def test_a_stream_sends_each_event_as_it_happens(fal: Stand) -> None:
    """The head comes at once, then each event by itself; the last one holds the output."""
    fal.control("settings", {"event_ms": 50})
    with RawClient(fal.port) as client:
        client.send(fal.request("fal.run", "/fal-ai/flux/dev/stream", content={"prompt": "x"}, faults="events=3"))
        head = client.read_head()
        pieces = list(client.pieces(head))
    assert head.value(b"content-type") == b"text/event-stream; charset=utf-8"
    assert head.value(b"x-fal-billable-units") is None
    events = [json.loads(piece.removeprefix(b"data: ")) for piece in pieces]
    assert [event["index"] for event in events] == [0, 1, 2]
    assert events[1]["emitted_at"] - events[0]["emitted_at"] >= 0.045
    assert events[2]["prompt"] == "x"
    assert fal.executions()[0]["kind"] == "stream"
    assert fal.executions()[0]["endpoint"] == "fal-ai/flux/dev"


def test_a_missing_input_is_422(fal: Stand) -> None:
    """With `require`, a missing input is a 422 in the shape of FastAPI, with 0 units."""
    answer = fal.run("require=prompt", content={"other": 1})
    assert (answer.status, answer.field("x-fal-billable-units")) == (422, "0")
    assert answer.json() == {"detail": [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]}
    assert fal.executions()[0]["units"] == "0"
    assert fal.run("require=prompt").status == 200


def test_a_locked_account_runs_nothing(fal: Stand) -> None:
    """A locked account gets fal's 403 for every run and submission, and nothing is executed."""
    fal.control("settings", {"locked": True})
    for host in ("fal.run", "queue.fal.run"):
        answer = fal.ask(host, "/fal-ai/flux/dev", content={})
        assert answer.status == 403
        assert answer.json()["detail"].startswith("User is locked. Reason: Exhausted balance.")
    assert fal.executions() == []
