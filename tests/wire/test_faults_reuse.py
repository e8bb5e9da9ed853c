"""Connections that the origin closes, idle or with a request: what was bought is never bought twice."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response
from tests.harness.origin import answering
from tests.harness.scene import FREE_TARGET
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

TURNS: Final = 100
IDLE_SECONDS: Final = 0.05
LARGE: Final = b"x" * 150_000


def answer_and_close(connection: OriginConnection) -> None:
    """Answer, and say in the same segment that this was the last: no FIN can be later than the answer."""
    if connection.read_request() is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.send(http_response())
        connection.close()


def answer_and_reset(connection: OriginConnection) -> None:
    """Answer, leave the answer time to be taken, then break the idle connection."""
    if connection.read_request() is not None:
        connection.send(http_response())
        connection.socket.settimeout(IDLE_SECONDS)
        try:
            connection.reader.fill()
        except TimeoutError:
            connection.reset()


def answer_and_close_later(connection: OriginConnection) -> None:
    """Answer, and close when the connection has been idle for a while."""
    if connection.read_request() is not None:
        connection.send(http_response())
        connection.socket.settimeout(IDLE_SECONDS)
        try:
            connection.reader.fill()
        except TimeoutError:
            connection.close()


@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["small", "large"])
def test_a_connection_closed_with_its_answer_is_not_seen(scene: Scene, body: bytes) -> None:
    """100 paid requests in a row, each on a connection that the origin has just closed: 200, executed once each."""
    scene.play(answer_and_close)
    with scene.connect() as client:
        statuses = [client.ask(scene.request(body=body)).status for _ in range(TURNS)]
    assert statuses == [200] * TURNS
    assert len(scene.origin.requests) == len(scene.origin.executions) == TURNS
    assert scene.origin.connections == TURNS
    scene.settled(TURNS)


@pytest.mark.parametrize("script", [answer_and_close_later, answer_and_reset], ids=["closed", "reset"])
@pytest.mark.parametrize("body", [b"{}", LARGE], ids=["small", "large"])
def test_a_connection_closed_while_idle_is_not_seen(
    scene: Scene, script: Callable[[OriginConnection], None], body: bytes
) -> None:
    """The same where the origin closes, or resets, 50 ms after its answer."""
    ended = threading.Semaphore(0)

    def then_tell(connection: OriginConnection) -> None:
        script(connection)
        ended.release()

    scene.play(then_tell)
    poller = TURNS // 4
    with scene.connect() as client:
        for _ in range(poller):
            assert client.ask(scene.request(body=body)).status == 200
            assert ended.acquire(timeout=10)
    assert len(scene.origin.requests) == len(scene.origin.executions) == scene.origin.connections == poller
    scene.settled(poller)


def test_many_connections_closed_at_once_are_not_seen(scene: Scene) -> None:
    """An origin that restarts closes all its connections: the next requests on all of them come through."""
    callers = 20
    together = threading.Barrier(callers, timeout=10)

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        together.wait()  # so that each is answered on a connection of its own
        connection.send(http_response())
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        connection.close()

    for _ in range(3):
        scene.play(script)
        clients = [scene.connect() for _ in range(callers)]
        for client in clients:
            client.send(scene.request())
        assert [client.read_response().status for client in clients] == [200] * callers
        for client in clients:
            client.close()
        assert len(scene.origin.requests) == len(scene.origin.executions) == callers
        scene.settled(callers)


@pytest.fixture
def unused(build_scene: Callable[..., Scene]) -> Scene:
    """Return a scene of the test's own, so that no connection is left in the gateway's pool from before."""
    return build_scene()


def test_a_connection_that_dies_with_the_next_request_is_not_used_again(unused: Scene) -> None:
    """A reused connection that breaks after it took a paid request whole: 500, one execution, no silent repeat."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(http_response())
        connection.read_request()
        connection.reset()

    for body in (b"{}", LARGE, b"{}"):
        unused.play(script)
        with unused.connect() as client:
            assert client.ask(unused.request()).status == 200
            answer = client.ask(unused.request(body=body))
        assert (answer.status, answer.json()["error_type"]) == (500, "origin_failed")
        assert [request.connection for request in unused.origin.executions] == [1, 1]
        unused.settled(2)


def test_a_pooled_connection_that_dies_under_a_free_get_is_not_seen(unused: Scene) -> None:
    """A poll whose reused connection breaks is tried once more on a new one: libcurl's own repeat is not needed."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(http_response())
        if len(unused.origin.executions) < 3:
            connection.read_request()
            connection.reset()

    unused.play(script)
    with unused.connect() as client:
        assert client.ask(unused.poll()).status == 200
        assert client.ask(unused.poll()).status == 200
    first, second, repeat = (request.connection for request in unused.origin.executions)
    assert first == second != repeat
    unused.settled(2)


def test_sound_connections_are_reused(unused: Scene) -> None:
    """All this care does not cost a connection for each request."""

    def script(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            connection.send(http_response())

    unused.play(script)
    with unused.connect() as client:
        for turn in range(TURNS):
            assert client.ask(unused.poll() if turn % 2 else unused.request()).status == 200
    assert unused.origin.connections == 1
    unused.settled(TURNS)


def test_the_connection_of_a_streamed_upload_is_not_used_again(unused: Scene) -> None:
    """An origin that answers early closes behind its answer: what followed there could not be told from lost."""
    unused.play(answering())
    with unused.connect() as client:
        for body in (b"{}", LARGE, b"{}", LARGE):
            assert client.ask(unused.request(body=body)).status == 200
    assert [request.connection for request in unused.origin.executions] == [1, 1, 2, 2]
    unused.settled(4)


def test_a_connection_of_a_failed_exchange_is_closed(unused: Scene) -> None:
    """A connection on which an answer was given up is closed at the origin too, and not pooled."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        unused.tell(connection.wait_for_leaving())

    unused.play(script)
    with unused.connect() as client:
        client.send(unused.poll())
        until(lambda: unused.origin.executions, "the poll at the origin")
    assert unused.told() in {"fin", "reset"}
    unused.settled()


# -- the connection breaks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_paid_request_that_was_received_and_lost_is_500_and_is_not_repeated(scene: Scene, how: str) -> None:
    """What may have been executed is paid for: exactly one execution, and a status that no client repeats."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        getattr(connection, how)()

    for large in (False, True):
        scene.play(script)
        answer = scene.ask(scene.request(body=b'"' + b"x" * (200_000 if large else 10) + b'"'))
        assert (answer.status, answer.json()["error_type"]) == (500, "origin_failed")
        (event,) = scene.settled()
        assert (event["status"], event["outcome"], event["error_type"]) == (500, "origin_failed", "origin_failed")
        assert len(scene.origin.executions) == scene.origin.connections == 1


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_free_get_that_was_lost_is_tried_once_more(scene: Scene, how: str) -> None:
    """A poll costs nothing: it is tried once more, on a connection of its own, and then the loss is told as 502."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        getattr(connection, how)()

    scene.play(script)
    answer = scene.ask(scene.poll())
    assert (answer.status, answer.json()["error_type"]) == (502, "origin_failed")
    assert len(scene.origin.executions) == scene.origin.connections == 2
    scene.settled()


def test_a_free_get_that_succeeds_the_second_time_shows_nothing(scene: Scene) -> None:
    """The caller gets the second attempt's answer; it is one request in the books."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        if connection.number == 2:
            connection.send(http_response(b'{"status":"COMPLETED"}'))

    scene.play(script)
    answer = scene.ask(scene.poll())
    assert (answer.status, answer.json()) == (200, {"status": "COMPLETED"})
    (event,) = scene.settled()
    assert (event["outcome"], event["error_type"]) == ("ok", None)
    assert len(scene.origin.executions) == 2


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_free_request_that_changes_something_is_not_repeated(scene: Scene, method: str) -> None:
    """Only a GET is safe to send twice: a cancel or an upload's start is not, and is lost as 502."""
    scene.play(lambda connection: connection.read_request())
    target = FREE_TARGET.replace("/status", "/cancel") if method == "PUT" else "https://rest.fal.ai/storage/upload/x"
    answer = scene.ask(scene.request(target=target, method=method))
    assert (answer.status, answer.json()["error_type"]) == (502, "origin_failed")
    assert len(scene.origin.executions) == 1
    scene.settled()
