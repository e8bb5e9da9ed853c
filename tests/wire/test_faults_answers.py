"""Answers that break or make no sense: a clean 500 where it was held, else a cut that no client takes for the whole."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, message
from tests.harness.scene import JSON_TYPE
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import RawClient
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

HELD_BYTES: Final = 262_144
UNITS: Final = ("x-fal-billable-units", "3")
PNG: Final = ("Content-Type", "image/png")
EVENTS: Final = ("Content-Type", "text/event-stream")
PADDING_BYTES: Final = 2


def json_of(size: int) -> bytes:
    """Return JSON of exactly this size."""
    return b'"' + b"x" * (size - PADDING_BYTES) + b'"'


def breaking(data: bytes, how: str) -> Callable[[OriginConnection], None]:
    """Return a script that reads a request, sends these bytes, and ends the connection by `close` or `reset`."""

    def script(connection: OriginConnection) -> None:
        if connection.read_request() is not None:
            connection.send(data)
            if how == "reset":
                connection.reader.fill()  # until the gateway ends it: what was sent has been read by then
            getattr(connection, how)()

    return script


def lost(scene: Scene, request: bytes) -> Truncated:
    """Send a request whose answer is cut after its head; return how."""
    with scene.connect() as client:
        client.send(request)
        head = client.read_head()
        assert head.status == 200
        with pytest.raises(Truncated) as cut:
            list(client.pieces(head))
    return cut.value


# -- broken in the midst ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [10, 100_000, HELD_BYTES])
@pytest.mark.parametrize("missing", [1, 5, -1], ids=["last byte", "last chunk", "all content"])
def test_a_small_paid_json_answer_that_breaks_is_a_clean_500(
    scene: Scene, size: int, missing: int, *, in_chunks: bool
) -> None:
    """Up to 256 KiB it is held until whole: the caller gets a status that it does not repeat, and no cut."""
    answer = http_response(json_of(size), fields=[JSON_TYPE, UNITS], in_chunks=in_chunks)
    part = answer[:-missing] if missing > 0 else answer[: answer.index(b"\r\n\r\n") + 4]
    scene.play(breaking(part, "close"))
    with scene.connect() as client:
        broken = client.ask(scene.request())
        assert (broken.status, broken.json()["error_type"]) == (500, "origin_failed")
        assert broken.framing == "length"
        scene.play(breaking(answer, "close"))
        assert client.ask(scene.request()).body == json_of(size)  # the connection has stayed in step
    first, second = scene.settled(2)
    assert (first["status"], first["outcome"], first["units"]) == (500, "origin_failed", "3")
    assert (second["status"], second["outcome"]) == (200, "ok")


@pytest.mark.parametrize(
    ("content_type", "is_held"),
    [
        ("application/problem+json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json-seq", False),
        ("text/plain; a=+json", False),
    ],
)
def test_what_is_json_goes_by_its_type(scene: Scene, content_type: str, *, is_held: bool) -> None:
    """One JSON text, by whatever name (RFC 6839), and no sequence of them, which passes as it comes."""
    fields = [("Content-Type", content_type)]
    scene.play(breaking(http_response(json_of(1000), fields=fields)[:-5], "close"))
    if is_held:
        assert scene.ask(scene.request()).status == 500
    else:
        assert lost(scene, scene.request()).how == "reset"
    scene.settled()


PASSED_ON: Final = {
    "large json, length": ("POST", http_response(json_of(HELD_BYTES + 1), fields=[JSON_TYPE])),
    "large json, chunked": ("POST", http_response(json_of(HELD_BYTES + 1), fields=[JSON_TYPE], in_chunks=True)),
    "picture, length": ("POST", http_response(b"x" * 100_000, fields=[PNG])),
    "picture, chunked": ("POST", http_response(b"x" * 100_000, fields=[PNG], in_chunks=True)),
    "events": ("POST", http_response(b"data: 1\n\n", fields=[EVENTS], in_chunks=True)),
    "free json, length": ("GET", http_response(json_of(1000), fields=[JSON_TYPE])),
    "free json, chunked": ("GET", http_response(json_of(1000), fields=[JSON_TYPE], in_chunks=True)),
}
"""Answers that pass as they come, by the method that they are asked for with."""


@pytest.mark.parametrize("missing", [1, 6], ids=["last byte", "more"])
@pytest.mark.parametrize(("method", "answer"), PASSED_ON.values(), ids=list(PASSED_ON))
def test_any_other_answer_that_breaks_is_a_reset(scene: Scene, method: str, answer: bytes, *, missing: int) -> None:
    """Too few bytes or no last chunk, and then a reset: never a clean end; counted as cut."""
    scene.play(breaking(answer[:-missing], "close"))
    assert lost(scene, scene.poll() if method == "GET" else scene.request()).how == "reset"
    (event,) = scene.settled()
    assert (event["status"], event["outcome"], event["error_type"]) == (200, "cut", "origin_failed")
    assert len(scene.origin.executions) == 1


@pytest.mark.parametrize(
    "fields", [[PNG, ("Content-Length", "1000000")], [PNG, ("Transfer-Encoding", "chunked")], [PNG]]
)
def test_a_reset_by_the_origin_is_a_reset_to_the_client(scene: Scene, fields: list[tuple[str, str]]) -> None:
    """However the origin frames its answer, also by the end of the connection, its reset reaches the client."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", fields, b"5\r\nhello\r\n"))
        assert scene.told()
        connection.reset()

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request())
        client.read_head()
        client.reader.through(b"hello")
        scene.tell("begun")
        with pytest.raises(Truncated, match="reset"):
            list(client.reader.rest())
    (event,) = scene.settled()
    assert (event["status"], event["outcome"], event["error_type"]) == (200, "cut", "origin_failed")


def test_a_client_of_http_1_0_sees_a_reset_too(scene: Scene) -> None:
    """Where the end of the connection is the end of the answer, only a reset tells a part from the whole."""
    answer = http_response(b"x" * 1000, fields=[PNG], in_chunks=True)
    request = scene.request().replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    scene.play(breaking(answer, "close"))
    whole = scene.ask(request)
    assert (whole.framing, whole.body) == ("close", b"x" * 1000)
    scene.play(breaking(answer[:-1], "close"))
    assert lost(scene, request).how == "reset"
    assert [event["outcome"] for event in scene.settled(2)] == ["ok", "cut"]


# -- nonsense ---------------------------------------------------------------------------------------------------------

NONSENSE: Final = {
    "no HTTP": b"220 mail.origin.test ESMTP\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "a request": b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "status 999": message("HTTP/1.1 999 What", [("Content-Length", "0")]),
    "status 600": message("HTTP/1.1 600 What", [("Content-Length", "0")]),
    "status 99": message("HTTP/1.1 99 What", [("Content-Length", "0")]),
    "status 2000": message("HTTP/1.1 2000 What", [("Content-Length", "0")]),
    "status 101": message("HTTP/1.1 101 Switching Protocols", [("Upgrade", "what"), ("Connection", "upgrade")]),
    "no status": b"HTTP/1.1 \r\nContent-Length: 0\r\n\r\n",
    "huge head": message("HTTP/1.1 200 OK", [(f"x-{number}", "x" * 8000) for number in range(100)]),
    "huge line": b"HTTP/1.1 200 OK\r\nx-endless: " + b"x" * 1_000_000,
    "NUL in a value": b"HTTP/1.1 200 OK\r\nx-bad: a\0b\r\nContent-Length: 0\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "only an interim head": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "a length that is none": message("HTTP/1.1 200 OK", [JSON_TYPE, ("Content-Length", "-5")], b"{}"),
    "a bad chunk": message("HTTP/1.1 200 OK", [JSON_TYPE, ("Transfer-Encoding", "chunked")], b"zz\r\n{}"),
    "a length too long": message("HTTP/1.1 200 OK", [JSON_TYPE, ("Content-Length", "3")], b"{}"),
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=list(NONSENSE))
def test_nonsense_is_a_failure_of_the_origin(scene: Scene, data: bytes) -> None:
    """What is no answer is told as one that was lost: 500, executed once, its connection not used again."""
    scene.play(breaking(data, "close"))
    answer = scene.ask(scene.request())
    assert (answer.status, answer.json()["error_type"]) == (500, "origin_failed")
    assert len(scene.origin.executions) == 1
    assert scene.ask(scene.request()).status == 500
    assert scene.origin.connections == 2
    assert [event["error_type"] for event in scene.settled(2)] == ["origin_failed"] * 2


def test_what_follows_an_answer_is_not_the_next_one(scene: Scene) -> None:
    """Bytes beyond the declared length reach nobody, and the connection is not used again."""
    smuggled = http_response(b'{"whose":"not yours"}')

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(http_response(b'{"whose":"yours"}') + smuggled)

    scene.play(script)
    with scene.connect() as client:
        answers = [client.ask(scene.request()) for _ in range(3)]
    assert [answer.json() for answer in answers] == [{"whose": "yours"}] * 3
    assert scene.origin.connections == 3
    scene.settled(3)


@pytest.mark.parametrize("fields", [[JSON_TYPE], [PNG]], ids=["held", "passed on"])
@pytest.mark.parametrize(
    "framing",
    [
        [("Content-Length", "2"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "2")],
        [("Content-Length", "4"), ("Content-Length", "400")],
        [("Content-Length", "400"), ("Content-Length", "4")],
        [("Content-Length", "4, 4")],
        [("Content-Length", "+4")],
    ],
)
def test_two_framings_never_make_two_answers(
    scene: Scene, fields: list[tuple[str, str]], *, framing: list[tuple[str, str]]
) -> None:
    """Whatever an origin says twice about its length, the client reads one whole answer, a 500, or a cut."""
    scene.play(breaking(message("HTTP/1.1 200 OK", [*framing, *fields], b"4\r\nabcd\r\n0\r\n\r\n"), "close"))
    with scene.connect() as client:
        client.send(scene.request())
        answer = None
        with contextlib.suppress(Truncated):
            answer = client.read_response()
        if answer is not None:
            assert answer.status == 500 or answer.body in {b"abcd", b"4\r\na", b"4\r\nabcd\r\n0\r\n\r\n"}
            assert client.reader.ended() if answer.field("connection") == "close" else stays_silent(client)
    (event,) = scene.settled()
    assert event["outcome"] == ("cut" if answer is None else "ok" if answer.status == 200 else "origin_failed")


def stays_silent(client: RawClient) -> bool:
    """Say whether nothing has come on a connection that stays open."""
    client.socket.settimeout(0)
    try:
        return client.reader.fill() is None
    except BlockingIOError:
        return True
