"""Answers that come before the request is whole: `Expect: 100-continue`, refused uploads, what becomes of the rest."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import CHUNK_BYTES, chunked, proxy_head, proxy_request
from tests.wire.stage import MOST_BYTES, assert_problem

if TYPE_CHECKING:
    from tests.wire.stage import Stage

EXPECT: Final = ("Expect", "100-continue")
IN_CHUNKS: Final = ("Transfer-Encoding", "chunked")
UPLOAD_BYTES: Final = 3 * 1024 * 1024
SMALL_BYTES: Final = 65_536
PACE_SECONDS: Final = 0.1
TEXT: Final = "text/plain"


def length(size: int) -> tuple[str, str]:
    """Return the field that announces so much content."""
    return ("Content-Length", str(size))


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
@pytest.mark.parametrize("size", [2, SMALL_BYTES, SMALL_BYTES + 1, MOST_BYTES])
def test_a_client_that_waits_is_told_once_to_go_on(stage: Stage, size: int, expect: str) -> None:
    """An admitted request gets exactly one 100, then its answer; the origin never learns of the expectation."""
    before = len(stage.origin.executions)
    with RawClient(stage.gateway.port) as client:
        client.send(proxy_head(key=stage.keys.full, fields=[length(size), ("Expect", expect)]))
        assert client.reader.through(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"x" * size)
        response = client.read_response()
        assert (response.status, response.interim) == (200, ())
        assert client.ask(proxy_request(key=stage.keys.full)).status == 200
    received = stage.origin.executions[before]
    assert (received.size, received.head.value(b"expect")) == (size, None)


def test_a_client_that_waits_with_chunks_is_told_too(stage: Stage) -> None:
    """The same for content of unknown length."""
    with RawClient(stage.gateway.port) as client:
        client.send(proxy_head(key=stage.keys.full, fields=[IN_CHUNKS, EXPECT]))
        assert client.reader.through(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(chunked(b"{}"))
        assert client.read_response().status == 200


def test_a_client_that_does_not_wait_after_all_is_served(stage: Stage) -> None:
    """Content that comes with the head is taken; at most one 100 is said."""
    with RawClient(stage.gateway.port) as client:
        for _ in range(2):
            response = client.ask(proxy_request(key=stage.keys.full, fields=[EXPECT]))
            assert response.status == 200
            assert response.interim in {(), (100,)}


@pytest.mark.parametrize(
    ("status", "error_type", "arguments"),
    [
        (401, "credential_missing", {"key": None}),
        (412, "target_invalid", {"target": "https://fal.run/a/../b"}),
        (415, "unsupported_media_type", {"content_type": TEXT}),
        (413, "content_too_large", {"fields": [length(MOST_BYTES + 1), EXPECT]}),
        (404, "path_unknown", {"path": "/elsewhere"}),
        (405, "method_not_allowed", {"method": "PATCH"}),
    ],
)
def test_a_refused_client_is_not_told_to_go_on(
    stage: Stage, status: int, error_type: str, arguments: dict[str, object]
) -> None:
    """All checks come first: the final status without a 100, and then the end, for its content may come or not."""
    head = proxy_head(**{"key": stage.keys.full, "fields": [length(2), EXPECT], **arguments})  # type: ignore[arg-type]
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        response = client.ask(head)
        assert_problem(response, status, error_type)
        assert (response.interim, response.field("connection")) == ((), "close")
        assert client.left_by_peer()


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize(
    ("status", "arguments"),
    [(401, {"key": None}), (412, {"target": "http://fal.run/a"}), (415, {"content_type": TEXT}), (413, {})],
)
def test_a_refused_upload_reads_its_answer(
    rough_stage: Stage, status: int, arguments: dict[str, object], framing: str
) -> None:
    """A client that sends 3 MB before it reads is not reset: it finds the answer, and then an orderly end."""
    field = length(UPLOAD_BYTES) if framing == "length" else IN_CHUNKS
    head = proxy_head(**{"key": rough_stage.keys.full, "fields": [field], **arguments})  # type: ignore[arg-type]
    content = b"x" * UPLOAD_BYTES
    with RawClient(rough_stage.gateway.port) as client:
        client.send(head)
        client.send(content if framing == "length" else chunked(content, size=CHUNK_BYTES))
        response = client.read_response()
        assert (response.status, response.field("connection")) == (status, "close")
        assert response.json()["request_id"]
        assert client.left_by_peer()


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_slow_refused_upload_reads_its_answer(stage: Stage, framing: str) -> None:
    """A client that still sends a second after it was refused is not reset either: it has two seconds."""
    field = length(UPLOAD_BYTES) if framing == "length" else IN_CHUNKS
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        client.send(proxy_head(fields=[field]))
        for _ in range(12):
            client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            time.sleep(PACE_SECONDS)  # the pace of a slow client, no wait for anything
        assert client.read_response().status == 401
        assert client.left_by_peer()


def test_many_refused_uploads_at_once_read_their_answers(stage: Stage) -> None:
    """Ten at a time see the same."""
    statuses: list[int] = []

    def upload() -> None:
        with RawClient(stage.gateway.port) as client:
            client.send(proxy_request(body=b"x" * UPLOAD_BYTES))
            statuses.append(client.read_response().status)
            assert client.left_by_peer()

    threads = [threading.Thread(target=upload) for _ in range(10)]
    with stage.untouched():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [401] * 10


@pytest.mark.parametrize("size", [0, 2, 1000, SMALL_BYTES])
def test_a_small_refused_request_keeps_the_connection(stage: Stage, size: int) -> None:
    """Up to 64 KiB of content is swallowed, and the next request on the connection is served."""
    with RawClient(stage.gateway.port) as client:
        for _ in range(3):
            response = client.ask(proxy_request(body=b"x" * size))
            assert (response.status, response.field("connection")) == (401, None)
            assert client.ask(proxy_request(key=stage.keys.full)).status == 200


def test_content_that_comes_after_the_refusal_is_swallowed(stage: Stage) -> None:
    """A client that reads before it has sent all may still send the rest, and stay."""
    with RawClient(stage.gateway.port) as client:
        assert client.ask(proxy_head(fields=[length(1000)])).status == 401
        client.send(b"x" * 400)
        client.send(b"x" * 600 + proxy_request(key=stage.keys.full))
        assert client.read_response().status == 200


def test_swallowed_content_is_no_request(stage: Stage) -> None:
    """What a refused request carries is content, even where it reads like a request."""
    inner = proxy_request("https://fal.run/inner", key=stage.keys.full)
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        assert client.ask(proxy_request(body=inner)).status == 401
        assert client.ask(proxy_request(body=inner)).status == 401


def test_a_larger_refused_request_ends_the_connection(stage: Stage) -> None:
    """One byte more than 64 KiB, and chunks of any size, are not waited for."""
    for request in (proxy_head(fields=[length(SMALL_BYTES + 1)]), proxy_head(fields=[IN_CHUNKS])):
        with stage.untouched(), RawClient(stage.gateway.port) as client:
            response = client.ask(request)
            assert (response.status, response.field("connection")) == (401, "close")
            assert client.left_by_peer()
