"""Answers as they come: events at once, slow readers hold the origin, odd statuses leave the connection in step."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, message
from tests.harness.origin import answering
from tests.harness.scene import JSON_TYPE
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import RawClient
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

PNG: Final = ("Content-Type", "image/png")
UNITS: Final = ("x-fal-billable-units", "7")
CHUNKED: Final = ("Transfer-Encoding", "chunked")
EVENTS: Final = 100
EVENT_SECONDS: Final = 0.05
STUCK_SECONDS: Final = 0.7
IDLE_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.5
LARGE: Final = bytes(range(256)) * 250_000


# -- events -----------------------------------------------------------------------------------------------------------


def test_each_event_passes_at_once(scene: Scene) -> None:
    """The head comes before the first event, and no event waits for the next: each within 50 ms (95 of 100)."""
    taken = threading.Semaphore(0)
    sent_at: list[float] = []

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", [("Content-Type", "text/event-stream"), CHUNKED]))
        for number in range(EVENTS):
            assert taken.acquire(timeout=10)  # the client has all that was sent before
            event = b"data: %d\n\n" % number
            sent_at.append(time.monotonic())
            connection.send(b"%x\r\n%b\r\n" % (len(event), event))
        connection.send(b"0\r\n\r\n")

    scene.play(script)
    delays = []
    with scene.connect() as client:
        client.send(scene.request())
        head = client.read_head()
        assert head.value(b"x-accel-buffering") == b"no"
        assert head.value(b"cache-control") == b"no-cache"
        taken.release()
        for number, event in enumerate(client.pieces(head)):
            delays.append(time.monotonic() - sent_at[number])
            assert event == b"data: %d\n\n" % number
            taken.release()
    assert len(delays) == EVENTS
    assert sorted(delays)[EVENTS * 95 // 100] < EVENT_SECONDS
    assert scene.settled()[0]["outcome"] == "ok"


def test_an_event_stream_with_a_declared_length_passes_as_it_comes(scene: Scene) -> None:
    """Also the parts of an answer with a length are not collected."""
    seen = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", [PNG, ("Content-Length", "10")], b"first"))
        assert seen.wait(10)
        connection.send(b"later")

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request())
        pieces = client.pieces(client.read_head())
        assert next(pieces) == b"first"
        seen.set()
        assert b"".join(pieces) == b"later"
    scene.settled()


# -- slow readers -----------------------------------------------------------------------------------------------------


def filling(scene: Scene, *, fields: list[tuple[str, str]]) -> Callable[[OriginConnection], None]:
    """Return a script that answers with `LARGE` and reports `blocked` where nothing was taken for a while."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", [*fields, ("Content-Length", str(len(LARGE)))]))
        left = memoryview(LARGE)
        connection.socket.settimeout(STUCK_SECONDS)
        try:
            while left:
                left = left[connection.socket.send(left) :]
        except TimeoutError:
            scene.tell(("blocked", len(LARGE) - len(left)))
        except OSError as fault:
            scene.tell((type(fault).__name__, time.monotonic()))
            return
        connection.socket.settimeout(20)
        try:
            connection.send(bytes(left))
        except OSError as fault:
            scene.tell((type(fault).__name__, time.monotonic()))
        else:
            scene.tell(("whole", 0))

    return script


def begin_to_read(scene: Scene, client: RawClient, *, free: bool) -> None:
    """Ask for the answer, read its head, and wait until the origin is held."""
    client.send(scene.poll() if free else scene.request())
    assert client.read_head().status == 200
    what, taken = scene.told()
    assert (what, taken < len(LARGE)) == ("blocked", True)


def test_a_slow_reader_holds_the_origin_and_gets_everything(scene: Scene) -> None:
    """While the client does not read, the origin's send blocks; when it does, every byte arrives."""
    scene.play(filling(scene, fields=[PNG]))
    digest = hashlib.sha256()
    with scene.connect(receive_buffer_bytes=65536) as client:
        begin_to_read(scene, client, free=False)
        for piece in client.reader.pieces(len(LARGE)):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(LARGE).digest()
    assert scene.told() == ("whole", 0)
    (event,) = scene.settled()
    assert (event["outcome"], event["response_bytes"]) == ("ok", len(LARGE))


@pytest.fixture(scope="module")
def impatient_scene(build_scene: Callable[..., Scene]) -> Scene:
    """Return a scene whose gateway waits a second for a client that does not read."""
    return build_scene(FALGW_CLIENT_IDLE_TIMEOUT=str(IDLE_SECONDS))


@pytest.fixture
def impatient(impatient_scene: Scene) -> Scene:
    """Return that scene with new books."""
    return impatient_scene.open_books()


@pytest.mark.parametrize("free", [True, False], ids=["free", "paid"])
def test_a_reader_that_takes_nothing_is_cut(impatient: Scene, *, free: bool) -> None:
    """After the time without a byte taken: reset. A free answer is cancelled, a paid one read on for its units."""
    impatient.play(filling(impatient, fields=[PNG, UNITS]))
    with impatient.connect(receive_buffer_bytes=65536) as client:
        begin_to_read(impatient, client, free=free)
        what, _ = impatient.told()
        with pytest.raises(Truncated) as cut:
            list(client.reader.pieces(len(LARGE)))
    assert cut.value.how == "reset"
    assert (what == "whole") is not free
    (event,) = impatient.settled()
    assert (event["status"], event["outcome"], event["units"]) == (200, "client_gone", "7")


def test_a_reader_that_takes_a_little_is_not_cut(impatient: Scene) -> None:
    """It is the silence that is bounded, not the time in all."""
    impatient.play(filling(impatient, fields=[PNG]))
    pause = threading.Event()
    with impatient.connect(receive_buffer_bytes=65536) as client:
        begin_to_read(impatient, client, free=True)
        began = time.monotonic()
        left = len(LARGE)
        while time.monotonic() - began < 2 * (IDLE_SECONDS + LOOK_SECONDS):
            left -= sum(map(len, client.reader.pieces(1_000_000)))
            pause.wait(IDLE_SECONDS / 5)
        assert sum(map(len, client.reader.pieces(left))) == left
    assert impatient.settled()[0]["outcome"] == "ok"


def test_a_slow_reader_is_judged_by_what_it_takes(impatient: Scene) -> None:
    """The gateway's kernel takes its next portion when hundreds of kilobytes have gone: three seconds, at this pace."""
    impatient.play(filling(impatient, fields=[PNG]))
    pause = threading.Event()
    with impatient.connect(receive_buffer_bytes=16384) as client:
        begin_to_read(impatient, client, free=True)
        began = time.monotonic()
        while time.monotonic() - began < 3 * (IDLE_SECONDS + LOOK_SECONDS):
            assert sum(map(len, client.reader.pieces(20_000))) == 20_000
            pause.wait(IDLE_SECONDS / 5)
    assert impatient.settled()[0]["duration_ms"] > 3000 * (IDLE_SECONDS + LOOK_SECONDS)


# -- in step ----------------------------------------------------------------------------------------------------------

ODD: Final = {
    "interim heads": (b"".join(b"HTTP/1.1 %d What\r\nLink: </x>\r\n\r\n" % code for code in (100, 102, 103)), 200),
    "204": (message("HTTP/1.1 204 No Content", []), 204),
    "304 with the length of what it stands for": (
        message("HTTP/1.1 304 Not Modified", [("ETag", '"x"'), ("Content-Length", "5000")]),
        304,
    ),
    "trailers": (
        message("HTTP/1.1 200 OK", [CHUNKED, PNG], b"3\r\nabc\r\n0\r\nx-trailer: 1\r\nServer: x\r\n\r\n"),
        200,
    ),
    "nothing": (http_response(b"", fields=[JSON_TYPE]), 200),
    "an empty chunked answer": (http_response(b"", fields=[JSON_TYPE], in_chunks=True), 200),
    "a redirect": (message("HTTP/1.1 307 X", [("Location", "https://fal.run/other"), ("Content-Length", "0")]), 307),
}


@pytest.mark.parametrize("free", [True, False], ids=["free", "paid"])
@pytest.mark.parametrize(("data", "status"), ODD.values(), ids=list(ODD))
def test_both_connections_stay_in_step(scene: Scene, data: bytes, status: int, *, free: bool) -> None:
    """After an odd answer the next request on the same two connections gets its own answer."""
    final = data if not data.startswith(b"HTTP/1.1 100") else data + http_response(b"{}")

    def script(connection: OriginConnection) -> None:
        number = 0
        while connection.read_request() is not None:
            number += 1
            connection.send(final if number % 2 else http_response(b'{"turn":%d}' % number))

    scene.play(script)
    with scene.connect() as client:
        for turn in (2, 4):
            odd = client.ask(scene.poll() if free else scene.request())
            assert (odd.status, odd.interim) == (status, ())
            assert odd.field("x-trailer") is None
            assert client.ask(scene.request()).json() == {"turn": turn}
    assert scene.origin.connections == 1
    assert len(scene.origin.executions) == 4
    assert {event["outcome"] for event in scene.settled(4)} == {"ok"}


def test_a_redirect_is_passed_on_and_not_followed(scene: Scene) -> None:
    """The client gets the status and the place; the origin is asked once."""
    place = "https://fal.run/fal-ai/elsewhere?x=1"
    scene.play(answering(http_response(b"", 302, fields=[("Location", place)])))
    answer = scene.ask(scene.request())
    assert (answer.status, answer.field("location")) == (302, place)
    assert len(scene.origin.requests) == 1
    scene.settled()


def test_compressed_content_passes_as_it_is(scene: Scene) -> None:
    """The origin's coding stays, and the client's Accept-Encoding is what the origin sees."""
    content = gzip.compress(b'{"x":1}', mtime=0)
    answer = http_response(content, fields=[JSON_TYPE, ("Content-Encoding", "gzip")])
    scene.play(answering(answer))
    got = scene.ask(scene.request(fields=[("Accept-Encoding", "gzip;q=0.5")]))
    assert (got.body, got.field("content-encoding")) == (content, "gzip")
    assert scene.origin.executions[0].head.value(b"accept-encoding") == b"gzip;q=0.5"
    scene.settled()
