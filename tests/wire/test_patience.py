"""Clients that are slow or silent: 408 where that can still be said, an end in order where nobody waits for more."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import RawClient, Response
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

BOUND_SECONDS: Final = 1.0
SLACK_SECONDS: Final = 1.5
"""The gateway looks twice a second, on a machine that has other things to do."""

REST_SECONDS: Final = 2.0
STEP_SECONDS: Final = 0.2
LARGE: Final = b"x" * 200_000


@pytest.fixture(scope="module")
def strict_scene(build_scene: Callable[..., Scene]) -> Scene:
    """Return a scene whose gateway gives a client a second for a head, and for the next byte."""
    return build_scene(
        FALGW_CLIENT_HEADER_TIMEOUT=str(BOUND_SECONDS),
        FALGW_CLIENT_IDLE_TIMEOUT=str(BOUND_SECONDS),
        FALGW_CLIENT_LEAST_RATE="0",
        FALGW_KEEPALIVE_TIMEOUT=str(REST_SECONDS),
    )


@pytest.fixture
def strict(strict_scene: Scene) -> Scene:
    """Return that scene with new books."""
    return strict_scene.open_books()


def late_answer(client: RawClient) -> Response:
    """Read the 408 that comes after the bound, and the end of the connection."""
    began = time.monotonic()
    answer = client.read_response()
    assert (answer.status, answer.json()["error_type"]) == (408, "client_timeout")
    assert answer.field("connection") == "close"
    assert BOUND_SECONDS - 0.5 < time.monotonic() - began < BOUND_SECONDS + SLACK_SECONDS
    assert client.left_by_peer()
    return answer


def test_a_head_that_stops_is_408(strict: Scene) -> None:
    """Half a head and then silence."""
    with strict.connect() as client:
        client.send(strict.request()[:40])
        late_answer(client)


def test_a_head_that_drips_is_408(strict: Scene) -> None:
    """The bound for a head is one in all: a byte now and then does not move it."""
    pause = threading.Event()
    head = b"POST /api/fal/proxy HTTP/1.1\r\n" + b"X-Slow: " + b"x" * 1000
    began = time.monotonic()
    with strict.connect() as client:
        client.socket.settimeout(STEP_SECONDS)
        said = None
        for at in range(len(head)):
            client.send(head[at : at + 1])
            pause.wait(STEP_SECONDS / 2)
            said = said_by_now(client)
            if said is not None:
                break
        assert said is not None
        assert said.status == 408
    assert BOUND_SECONDS - 0.1 < time.monotonic() - began < BOUND_SECONDS + SLACK_SECONDS


def said_by_now(client: RawClient) -> Response | None:
    """Return an answer where one is there in a moment."""
    client.socket.settimeout(STEP_SECONDS / 2)
    try:
        client.reader.fill()
    except TimeoutError:
        return None
    client.socket.settimeout(5)
    return client.read_response()


def test_the_second_head_on_a_connection_has_its_own_time(strict: Scene) -> None:
    """The bound runs from a head's first byte, not from the end of the answer before."""
    with strict.connect() as client:
        assert client.ask(strict.request()).status == 200
        client.socket.settimeout(BOUND_SECONDS * 0.6)
        with pytest.raises(TimeoutError):  # rest a while, and see that nothing is said
            client.reader.fill()
        client.socket.settimeout(5)
        client.send(strict.request()[:40])
        late_answer(client)
    strict.settled(2)


@pytest.mark.parametrize(("used", "seconds"), [(False, BOUND_SECONDS), (True, REST_SECONDS)], ids=["new", "kept alive"])
def test_an_idle_connection_is_closed_in_order(strict: Scene, *, used: bool, seconds: float) -> None:
    """Between requests the end, and not a byte before it; a used connection rests by a bound of its own."""
    with strict.connect() as client:
        if used:
            assert client.ask(strict.request()).status == 200
        began = time.monotonic()
        assert client.left_by_peer()
        assert seconds - 0.1 < time.monotonic() - began < seconds + SLACK_SECONDS
    if used:
        strict.settled()


def test_silence_within_small_content_is_408_and_costs_nothing(strict: Scene) -> None:
    """Small content is gathered first, so the origin hears nothing of a request that does not come."""
    strict.play(lambda connection: connection.read_request())
    with strict.connect() as client:
        client.send(strict.request(body=b"x" * 100)[:-1])
        late_answer(client)
    assert strict.origin.connections == 0
    (event,) = strict.settled()
    assert (event["status"], event["outcome"], event["error_type"]) == (408, "refused", "client_timeout")


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
def test_silence_within_large_content_is_408_and_resets_the_origin(strict: Scene, *, in_chunks: bool) -> None:
    """What had been begun never looks whole at the origin."""

    def script(connection: OriginConnection) -> None:
        connection.read_head()
        strict.tell(connection.wait_for_leaving())

    strict.play(script)
    with strict.connect() as client:
        client.send(strict.request(body=LARGE, in_chunks=in_chunks)[:-1000])
        late_answer(client)
    assert strict.told() == "reset"
    (event,) = strict.settled()
    assert (event["status"], event["outcome"]) == (408, "refused")


def test_a_slow_upload_is_not_cut(strict: Scene) -> None:
    """It is the silence that is bounded: content may take longer than the bound in all."""
    pause = threading.Event()
    body = b"x" * 100_000
    strict.play(answer_with_size)
    began = time.monotonic()
    with strict.connect() as client:
        client.send(strict.head(("Content-Length", str(len(body)))))
        sent = 0
        while time.monotonic() - began < BOUND_SECONDS * 2.5:
            client.send(body[sent : sent + 1000])
            sent += 1000
            pause.wait(STEP_SECONDS)
        client.send(body[sent:])
        assert client.read_response().json() == {"size": len(body)}
    strict.settled()


def answer_with_size(connection: OriginConnection) -> None:
    """Answer a request with the size of its content."""
    request = connection.read_request()
    if request is not None:
        content = b'{"size":%d}' % request.size
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))


def test_a_client_that_waits_for_its_answer_is_not_late(strict: Scene) -> None:
    """Once its request is whole, the time is the origin's."""
    pause = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        pause.wait(BOUND_SECONDS * 2)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    strict.play(script)
    assert strict.ask(strict.request()).status == 200
    strict.settled()
