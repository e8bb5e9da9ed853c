"""Heads, interim answers, trailers and chunk extensions of an origin are bounded in bytes, whatever it sends."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, message
from tests.harness.origin import answering
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

PIECE_BYTES: Final = 16_384
MOST_SENT_BYTES: Final = 64 * 1024 * 1024
PIECE_SECONDS: Final = 0.001  # 16 MB a second: the gateway looks at it once in a second
UNITS: Final = ("x-fal-billable-units", "3")
CHUNKED: Final = ("Transfer-Encoding", "chunked")
FIELD: Final = b"x-field: %s\r\n" % (b"v" * (PIECE_BYTES - 11))

ENDLESS_HEADS: Final = {
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 300),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 600),
    "fields": (b"HTTP/1.1 200 OK\r\n", FIELD),
    "a field": (b"HTTP/1.1 200 OK\r\nx-field: ", b"v" * PIECE_BYTES),
    "fields of an interim answer": (b"HTTP/1.1 103 Early Hints\r\n", FIELD),
    "a status line": (b"HTTP/1.1 200 ", b"O" * PIECE_BYTES),
    "no line end": (b"", b"x" * PIECE_BYTES),
}
ENDLESS_FRAMING: Final = {
    "a chunk extension": (b"2\r\n{}\r\n1;", b"x" * PIECE_BYTES),
    "chunk extensions with content": (b"2\r\n{}\r\n", b"1;%s\r\n \r\n" % (b"x" * PIECE_BYTES)),
    "trailers": (b"2\r\n{}\r\n0\r\n", FIELD.replace(b"v" * 8000, b"\r\nx-field: ")),
    "a trailer": (b"2\r\n{}\r\n0\r\nx-field: ", b"v" * PIECE_BYTES),
    "line ends": (b"2\r\n{}\r\n0", b"\r" * PIECE_BYTES),
}


def endless(connection: OriginConnection, beginning: bytes, piece: bytes) -> bool:
    """Answer with `beginning` and then `piece` for as long as it is read; return whether the gateway has left."""
    sent = 0
    try:
        connection.send(beginning)
        while sent < MOST_SENT_BYTES:
            connection.send(piece)
            sent += len(piece)
            time.sleep(PIECE_SECONDS)
    except OSError:
        return True
    return False


@pytest.mark.parametrize(("beginning", "piece"), ENDLESS_HEADS.values(), ids=list(ENDLESS_HEADS))
def test_an_endless_head_is_an_origin_failure(scene: Scene, beginning: bytes, piece: bytes) -> None:
    """A paid request ends as 500, and what it cost is not known; a free one as 502, after one repeat."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        scene.tell(endless(connection, beginning, piece))

    for request, status in ((scene.request(), 500), (scene.poll(), 502)):
        scene.play(script)
        answer = scene.ask(request)
        assert (answer.status, answer.json()["error_type"]) == (status, "origin_failed")
        assert scene.told() is True
    paid, _ = scene.settled(2)
    assert (paid["outcome"], paid["units"], paid["cost_source"]) == ("origin_failed", None, "unknown")


def test_endless_framing_is_an_origin_failure(scene: Scene) -> None:
    """A paid JSON answer ends as 500, any other is cut; both are settled by the units of their head."""

    def script(connection: OriginConnection) -> None:
        received = connection.read_request()
        assert received is not None
        case, content_type = bytes(received.body).decode().split("|")
        beginning, piece = ENDLESS_FRAMING[case]
        connection.send(message("HTTP/1.1 200 OK", [("Content-Type", content_type), UNITS, CHUNKED]))
        scene.tell(endless(connection, beginning, piece))

    scene.play(script)
    with ExitStack() as stack:
        clients = {}
        for case in ENDLESS_FRAMING:
            for content_type in ("application/json", "image/png"):
                client = clients[case, content_type] = stack.enter_context(scene.connect())
                client.send(scene.request(body=f"{case}|{content_type}".encode()))
        for (case, content_type), client in clients.items():
            if content_type == "image/png":
                with pytest.raises(Truncated):
                    client.read_response()
            else:
                answer = client.read_response()
                assert (answer.status, answer.json()["error_type"]) == (500, "origin_failed"), case
    assert all(scene.told() for _ in clients)
    events = scene.settled(len(clients))
    ends = Counter((event["outcome"], event["units"]) for event in events)
    assert ends == {("origin_failed", "3"): len(ENDLESS_FRAMING), ("cut", "3"): len(ENDLESS_FRAMING)}


@pytest.mark.parametrize("status", [102, 103, 104, 150, 199])
def test_every_interim_answer_is_dropped(scene: Scene, status: int) -> None:
    """Also those that nobody has given a meaning yet (RFC 9110, section 15.2)."""
    scene.play(answering(b"HTTP/1.1 %d New\r\nx: y\r\n\r\n" % status + http_response()))
    answer = scene.ask(scene.request())
    assert (answer.status, answer.interim) == (200, ())
    assert answer.field("x") is None
    scene.settled()
