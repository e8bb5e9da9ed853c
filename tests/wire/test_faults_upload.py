"""Answers that come before the request is whole, and what the origin hears of Expect."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import chunked, http_response, message
from tests.harness.origin import answering
from tests.harness.scene import JSON_TYPE, TOLD_SECONDS
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    from tests.harness.client import RawClient
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

BODY: Final = b"x" * 1_000_000
REFUSED: Final = http_response(b'{"detail":"too much"}', 413)
REPEATS: Final = 25


def refuse_early(connection: OriginConnection) -> None:
    """Refuse a request upon its head, and close."""
    if connection.read_head() is not None:
        connection.send(REFUSED)


def refuse_in_order(connection: OriginConnection) -> None:
    """Refuse a request upon its head, and wait for the other side to leave."""
    if connection.read_head() is not None:
        connection.send(REFUSED)
        connection.wait_for_leaving()


def send_without_end(client: RawClient) -> None:
    """Send chunk after chunk until the connection breaks."""
    while True:
        client.send(chunked(b"x" * 65536)[:-5])


def send_what_is_taken(client: RawClient, body: bytes) -> int:
    """Send until nothing is taken for the client's timeout; return how many bytes were."""
    sent = 0
    try:
        while sent < len(body):
            sent += client.socket.send(body[sent:])
    except TimeoutError:
        return sent
    return sent


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("stays", [True, False], ids=["keeps reading", "closes"])
def test_an_early_refusal_reaches_the_client_at_once(scene: Scene, *, stays: bool, in_chunks: bool) -> None:
    """The client reads it before its body has ended; the origin's connection is dropped, its body never whole."""

    def script(connection: OriginConnection) -> None:
        received = connection.read_head()
        assert received is not None
        connection.send(REFUSED)
        if not stays:
            connection.socket.shutdown(socket.SHUT_WR)
            scene.tell(connection.wait_for_leaving())
            return
        try:
            connection.read_body(received)
        except Truncated as cut:
            scene.tell(cut.how)

    scene.play(script)
    upload = scene.request(body=BODY, in_chunks=in_chunks)
    with scene.connect() as client:
        client.send(upload[:500_000])
        answer = client.read_response()
        assert (answer.status, answer.body) == (413, b'{"detail":"too much"}')
        assert answer.field("connection") == "close"
        client.send(upload[500_000:])  # is swallowed
        assert client.left_by_peer()
    assert scene.told() in {"fin", "reset"}
    assert [request.whole for request in scene.origin.requests] == [False]
    (event,) = scene.settled()
    assert (event["status"], event["outcome"], event["error_type"]) == (413, "ok", None)
    assert scene.ask(scene.request(body=b"{}")).status == 413
    assert scene.origin.connections == 2
    scene.settled()


def test_an_early_refusal_is_not_lost_to_the_reset_behind_it(scene: Scene) -> None:
    """An origin that refuses and closes while bytes come sends a reset behind its answer: the answer wins.

    Not always: a reset between a look for the answer and the next send cannot be told from an origin that broke, and
    ends as one. Nothing else comes of it, and nothing is sent twice.
    """
    scene.play(refuse_early)
    upload = scene.request(body=BODY)
    statuses: Counter[int] = Counter()
    for _ in range(REPEATS):
        with scene.connect() as client:
            client.send(upload)
            statuses[client.read_response().status] += 1
    scene.settled(REPEATS)
    assert statuses[413] + statuses[500] == REPEATS
    assert statuses[413] >= REPEATS * 0.8
    assert scene.origin.connections == len(scene.origin.requests) == REPEATS


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_whole_answer_is_not_lost_to_the_break_of_its_upload(scene: Scene, how: str, content_type: str) -> None:
    """What its head announced has come, and is billed: the caller gets it, though the rest was not sent any more."""
    half = len(BODY) // 2

    def script(connection: OriginConnection) -> None:
        connection.read_head()
        for _ in connection.reader.pieces(half):
            pass
        connection.send(http_response(b"{}", fields=[("Content-Type", content_type), ("x-fal-billable-units", "2")]))
        left.wait(TOLD_SECONDS)
        getattr(connection, how)()

    left = threading.Event()
    scene.play(script)
    upload = scene.request(body=BODY)
    with scene.connect() as client:
        client.send(upload[: upload.index(BODY) + half])
        response = client.read_response()  # though the upload has not ended
        assert (response.status, response.body) == (200, b"{}")
        left.set()
        with contextlib.suppress(OSError):
            client.send(upload[upload.index(BODY) + half :])
        (event,) = scene.settled()
    assert (event["status"], event["outcome"], event["units"]) == (200, "ok", "2")
    assert len(scene.origin.requests) == 1


def test_an_early_refusal_to_a_client_that_does_not_stop_ends_its_connection(scene: Scene) -> None:
    """What still comes is thrown away for two seconds and within a bound, and then the client is left."""
    scene.play(refuse_in_order)
    with scene.connect() as client:
        client.send(scene.head(("Transfer-Encoding", "chunked")) + chunked(BODY)[:-5])
        assert client.read_response().status == 413
        client.socket.settimeout(10)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_without_end(client)
    scene.settled()


def test_an_answer_that_begins_early_does_not_stop_the_upload(scene: Scene) -> None:
    """An origin may answer while it reads: head and content pass before the request has ended, which arrives whole."""

    def script(connection: OriginConnection) -> None:
        received = connection.read_head()
        assert received is not None
        fields = [("Content-Type", "image/png"), ("Transfer-Encoding", "chunked")]
        connection.send(message("HTTP/1.1 200 OK", fields, b"5\r\nfirst\r\n"))
        connection.read_body(received)
        connection.send(b"4\r\nlast\r\n0\r\n\r\n")

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.head(("Content-Length", str(len(BODY)))) + BODY[:500_000])
        head = client.read_head()
        pieces = client.pieces(head)
        assert (head.status, next(pieces)) == (200, b"first")
        client.send(BODY[500_000:])
        assert b"".join(pieces) == b"last"
    assert [request.size for request in scene.origin.executions] == [len(BODY)]
    assert scene.settled()[0]["outcome"] == "ok"


def test_a_break_within_the_upload_is_500(scene: Scene) -> None:
    """An origin that resets a paid request half-way may have begun it: 500, nothing repeated, the rest swallowed."""
    for how in ("close", "reset"):

        def script(connection: OriginConnection, how: str = how) -> None:
            connection.read_head()
            connection.reader.fill()
            getattr(connection, how)()

        scene.play(script)
        upload = scene.request(body=BODY)
        with scene.connect() as client:
            client.send(upload)
            answer = client.read_response()
        assert (answer.status, answer.json()["error_type"]) == (500, "origin_failed")
        assert scene.origin.connections == 1
        assert scene.settled()[0]["outcome"] == "origin_failed"


@pytest.mark.parametrize("size", [10, len(BODY)])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
def test_expect_is_answered_here_and_never_forwarded(scene: Scene, size: int, *, in_chunks: bool) -> None:
    """The gateway itself says 100 once all checks have passed; the origin gets the request without Expect."""
    scene.play(answering())
    framing = ("Transfer-Encoding", "chunked") if in_chunks else ("Content-Length", str(size))
    with scene.connect() as client:
        client.send(scene.head(("Expect", "100-continue"), framing))
        assert client.reader.through(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert scene.origin.executions == []
        client.send(chunked(BODY[:size]) if in_chunks else BODY[:size])
        answer = client.read_response()
    assert (answer.status, answer.interim) == (200, ())
    (request,) = scene.origin.executions
    assert (request.size, request.head.value(b"expect")) == (size, None)
    scene.settled()


def test_an_origin_that_says_continue_unasked_changes_nothing(scene: Scene) -> None:
    """100 Continue of the origin's stays here; the answer behind it is the answer."""

    def script(connection: OriginConnection) -> None:
        received = connection.read_head()
        assert received is not None
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body(received)
        connection.send(http_response(fields=[JSON_TYPE]))

    for body in (b"{}", BODY):
        scene.play(script)
        answer = scene.ask(scene.request(body=body))
        assert (answer.status, answer.interim) == (200, ())
    scene.settled(2)


def test_a_client_is_held_while_the_origin_takes_nothing(scene: Scene) -> None:
    """Content is not collected: a client sends no faster than its origin reads, and then all of it arrives."""
    body = b"x" * 40_000_000
    blocked = threading.Event()

    def script(connection: OriginConnection) -> None:
        received = connection.read_head()
        assert received is not None
        assert blocked.wait(10)
        connection.read_body(received)
        connection.send(http_response())

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.head(("Content-Length", str(len(body)))))
        client.socket.settimeout(1)
        sent = send_what_is_taken(client, body)
        assert sent < len(body)
        blocked.set()
        client.socket.settimeout(20)
        client.send(body[sent:])
        assert client.read_response().status == 200
    assert [request.size for request in scene.origin.executions] == [len(body)]
    scene.settled()
