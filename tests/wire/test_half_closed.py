"""Callers that have sent all and close their sending half read on, and get their answer; one that has left does not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, message
from tests.harness.origin import answering
from tests.harness.scene import JSON_TYPE
from tests.harness.waiting import until

if TYPE_CHECKING:
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

UNITS: Final = ("x-fal-billable-units", "2.5")
THINKS_SECONDS: Final = 1.0
"""Longer than the gateway takes to ask whether its caller is still there."""

EVENTS: Final = ("Content-Type", "text/event-stream")
CHUNKED: Final = ("Transfer-Encoding", "chunked")
LARGE: Final = b"x" * (8 << 20)


def thinking(connection: OriginConnection) -> None:
    """Answer each request after a while in which nothing comes from the gateway."""
    while connection.read_request() is not None:
        connection.socket.settimeout(THINKS_SECONDS)
        with pytest.raises(TimeoutError):
            connection.reader.fill()
        connection.socket.settimeout(20)
        connection.send(http_response(fields=[JSON_TYPE, UNITS]))


@pytest.mark.parametrize("kind", ["paid", "free", "large", "chunked"])
def test_a_caller_that_still_reads_gets_its_answer(scene: Scene, kind: str) -> None:
    """Whatever it asked for, and however it sent it: 200, in the books as any other, and then the end."""
    requests = {
        "paid": scene.request(),
        "free": scene.poll(),
        "large": scene.request(body=b"x" * 200_000),
        "chunked": scene.request(body=b"x" * 200_000, in_chunks=True),
    }
    scene.play(thinking)
    with scene.connect() as client:
        client.send(requests[kind])
        client.finish_sending()
        answer = client.read_response()
        assert (answer.status, answer.json(), answer.field("connection")) == (200, {"ok": True}, "close")
        assert set(answer.interim) == {100}
        assert client.left_by_peer()
    (event,) = scene.settled()
    assert (event["outcome"], event["units"]) == ("ok", "2.5")
    assert len(scene.origin.executions) == 1


def test_an_answer_that_comes_at_once_is_the_first_that_is_said(scene: Scene) -> None:
    """Nobody is asked whether it is there before the answer could have come."""
    scene.play(answering())
    with scene.connect() as client:
        client.send(scene.request())
        client.finish_sending()
        answer = client.read_response()
    assert (answer.status, answer.interim) == (200, ())
    scene.settled()


def test_http_10_is_asked_nothing(scene: Scene) -> None:
    """An interim answer is not for HTTP/1.0 (RFC 9110, section 15.2)."""
    scene.play(thinking)
    with scene.connect() as client:
        client.send(scene.request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        client.finish_sending()
        answer = client.read_response()
    assert (answer.status, answer.interim) == (200, ())
    scene.settled()


def test_all_requests_of_a_row_are_answered(scene: Scene) -> None:
    """Pipelined requests before the end are whole: each is answered, then the connection ends."""
    scene.play(answering())
    with scene.connect() as client:
        client.send(scene.request() * 3)
        client.finish_sending()
        answers = [client.read_response() for _ in range(3)]
        assert client.left_by_peer()
    assert [answer.status for answer in answers] == [200] * 3
    scene.settled(3)


def test_a_request_that_breaks_off_behind_another_is_no_request(scene: Scene) -> None:
    """The first is answered; of the second, whose content ends early, the origin hears nothing."""
    scene.play(thinking)
    with scene.connect() as client:
        client.send(scene.request() + scene.request()[:-1])
        client.finish_sending()
        assert client.read_response().status == 200
        assert client.left_by_peer()
    events = scene.settled(2)
    assert [(event["status"], event["outcome"]) for event in events] == [(200, "ok"), (499, "client_gone")]
    assert len(scene.origin.requests) == 1


def test_a_stream_comes_to_its_end(scene: Scene) -> None:
    """Events that come after the caller has finished sending are delivered, with silence between them."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", [EVENTS, CHUNKED, UNITS]) + b"3\r\none\r\n")
        connection.socket.settimeout(THINKS_SECONDS)
        with pytest.raises(TimeoutError):
            connection.reader.fill()
        connection.send(b"3\r\ntwo\r\n0\r\n\r\n")

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request())
        client.finish_sending()
        answer = client.read_response()
    assert (answer.body, answer.interim) == (b"onetwo", ())
    scene.settled()


def test_a_large_answer_is_taken_at_the_callers_pace(scene: Scene) -> None:
    """What waits for a caller to read is not lost with the end of what it sends."""
    scene.play(answering(http_response(LARGE, fields=[UNITS])))
    with scene.connect(receive_buffer_bytes=65_536) as client:
        client.send(scene.request())
        client.finish_sending()
        head = client.read_head()
        until(lambda: scene.origin.executions, "the request at the origin")
        assert sum(map(len, client.pieces(head))) == len(LARGE)
    (event,) = scene.settled()
    assert (event["outcome"], event["response_bytes"]) == ("ok", len(LARGE))


def test_one_that_has_left_is_noticed_within_a_second(scene: Scene) -> None:
    """A full close looks the same at first; the question gets a reset, and a free call is cancelled."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.wait_for_leaving()
        scene.tell(time.monotonic())

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.poll())
        scene.origin.wait_for_requests(1)
        left_at = time.monotonic()
    assert scene.told() - left_at < THINKS_SECONDS
    (event,) = scene.settled()
    assert (event["status"], event["outcome"]) == (499, "client_gone")
