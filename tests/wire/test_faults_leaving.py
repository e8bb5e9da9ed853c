"""Clients that leave: a short body never looks whole, a free call is cancelled, a paid one is read on for its units."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.messages import http_response, message
from tests.harness.scene import JSON_TYPE
from tests.harness.waiting import until
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.client import RawClient
    from tests.harness.origin import OriginConnection
    from tests.harness.scene import Scene

RESET_SECONDS: Final = 0.5
CANCEL_SECONDS: Final = 1.0
NOTICED_SECONDS: Final = 1.3
"""Longer than the gateway takes to see that a client has left: for showing that it stays nevertheless."""

MIB: Final = 1 << 20
READ_ON_BYTES: Final = 64 * MIB
KERNEL_BYTES: Final = 16 * MIB
"""What the buffers of a connection on loopback may hold."""

UNITS: Final = ("x-fal-billable-units", "2.5")
PNG: Final = ("Content-Type", "image/png")
NEXT: Final = b"GET /api/fal/proxy HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
LEAVE: Final = {
    "fin": lambda client: client.close(),
    "reset": lambda client: client.reset(),
    "extra byte": lambda client: (client.send(b"G"), client.close()),
    "next request": lambda client: (client.send(NEXT), client.close()),
}
"""The ways to leave; what waits to be read hides the end of the connection."""

leaving = pytest.mark.parametrize("leave", LEAVE.values(), ids=list(LEAVE))


# -- in the upload ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [LEAVE["fin"], LEAVE["reset"]], ids=["fin", "reset"])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("warm", [False, True], ids=["new", "pooled"])
def test_a_client_that_leaves_in_the_upload_resets_the_origin(
    scene: Scene, leave: Callable[[RawClient], None], *, in_chunks: bool, warm: bool
) -> None:
    """The origin sees a reset within half a second, on new and pooled connections, and no body that looks whole."""
    part = threading.Event()

    def script(connection: OriginConnection) -> None:
        if warm:
            connection.read_request()
            connection.send(http_response())
        received = connection.read_head()
        assert received is not None
        connection.reader.fill()
        part.set()
        try:
            connection.read_body(received)
        except Truncated as cut:
            scene.tell((cut.how, time.monotonic()))

    scene.play(script)
    body = b"x" * 300_000
    with scene.connect() as client:
        if warm:
            assert client.ask(scene.request()).status == 200
        upload = scene.request(body=body, in_chunks=in_chunks)
        client.send(upload[:-1000])
        assert part.wait(10)
        left_at = time.monotonic()
        leave(client)
    how, ended_at = scene.told()
    assert how == "reset"
    assert ended_at - left_at < RESET_SECONDS
    assert [request.whole for request in scene.origin.requests] == [True] * warm + [False]
    event = scene.settled(1 + warm)[-1]
    assert (event["status"], event["outcome"], event["error_type"]) == (499, "client_gone", None)


def test_another_exchange_is_not_touched_by_a_reset(scene: Scene) -> None:
    """A reset hits the connection of its own request: one that is under way beside it ends whole."""
    begun, left, pooled = threading.Event(), threading.Event(), threading.Barrier(2, timeout=10)

    def script(connection: OriginConnection) -> None:
        connection.read_request()  # both are to be pooled connections
        pooled.wait()
        connection.send(http_response())
        received = connection.read_head()
        assert received is not None
        if received.head.value(b"x-fal-role") == b"stays":
            begun.set()
            connection.read_body(received)
            connection.send(http_response(b'{"stayed":true}'))
        else:
            left.set()
            connection.wait_for_leaving()

    scene.play(script)
    body = b"x" * 200_000
    with scene.connect() as stays, scene.connect() as leaves:
        stays.send(scene.request())
        leaves.send(scene.request())
        assert stays.read_response().status == leaves.read_response().status == 200
        upload = scene.request(body=body, fields=[("x-fal-role", "stays")])
        stays.send(upload[:-1000])
        assert begun.wait(10)
        leaves.send(scene.request(body=body)[:-1000])
        assert left.wait(10)
        leaves.reset()
        scene.gateway.wait_for_event("exchange", lambda event: event["outcome"] == "client_gone")
        stays.send(upload[-1000:])
        assert stays.read_response().json() == {"stayed": True}
    assert sorted(event["status"] for event in scene.settled(4)) == [200, 200, 200, 499]


def test_a_client_that_leaves_before_a_small_body_is_whole_costs_nothing(scene: Scene) -> None:
    """Small content is gathered before anything is sent: the origin hears nothing of it."""
    scene.play(lambda connection: connection.read_request())
    with scene.connect() as client:
        client.send(scene.request(body=b"x" * 1000)[:-1])
    (event,) = scene.settled()
    assert (event["status"], event["outcome"]) == (499, "client_gone")
    assert scene.origin.connections == 0


# -- before the answer ------------------------------------------------------------------------------------------------


@leaving
def test_a_free_call_is_cancelled_at_the_origin(scene: Scene, leave: Callable[[RawClient], None]) -> None:
    """A poll that nobody waits for any more is cancelled within a second."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.wait_for_leaving()
        scene.tell(time.monotonic())

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.poll())
        scene.origin.wait_for_requests(1)
        left_at = time.monotonic()
        leave(client)
    assert scene.told() - left_at < CANCEL_SECONDS
    (event,) = scene.settled()
    assert (event["status"], event["outcome"]) == (499, "client_gone")
    assert len(scene.origin.executions) == 1


@pytest.mark.parametrize(
    ("leave", "large"),
    [(LEAVE["fin"], False), (LEAVE["fin"], True), (LEAVE["reset"], False), (LEAVE["next request"], False)],
    ids=["fin", "fin, large", "reset", "next request"],
)
def test_a_paid_call_is_read_on_for_its_units(scene: Scene, leave: Callable[[RawClient], None], *, large: bool) -> None:
    """The origin is not disturbed, its whole answer is taken, and its units are in the books."""
    answer = http_response(b"[" + b"1," * 500_000 + b"1]", fields=[JSON_TYPE, UNITS])

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.socket.settimeout(NOTICED_SECONDS)
        with pytest.raises(TimeoutError):  # still there, long after its client has left
            connection.reader.fill()
        connection.socket.settimeout(20)
        connection.send(answer)
        scene.tell("taken")

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request(body=b"x" * (200_000 if large else 2)))
        until(lambda: scene.origin.executions, "the whole request at the origin")
        leave(client)
    assert scene.told() == "taken"
    (event,) = scene.settled()
    assert (event["status"], event["outcome"], event["units"]) == (499, "client_gone", "2.5")
    assert event["response_bytes"] == 1_000_003
    assert len(scene.origin.executions) == 1


def test_a_paid_call_whose_answer_breaks_behind_its_client_is_booked_once(scene: Scene) -> None:
    """Client gone, then the origin too: one event that names both."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.socket.settimeout(NOTICED_SECONDS)
        with pytest.raises(TimeoutError):
            connection.reader.fill()
        connection.send(http_response(b"x" * 100, fields=[JSON_TYPE, UNITS])[:-1])
        connection.reset()

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request())
        until(lambda: scene.origin.executions, "the whole request at the origin")
    (event,) = scene.settled()
    assert (event["status"], event["outcome"], event["error_type"]) == (499, "client_gone", "origin_failed")
    assert len(scene.origin.executions) == 1


# -- in the download --------------------------------------------------------------------------------------------------


def endless(scene: Scene) -> Callable[[OriginConnection], None]:
    """Return a script that answers without end, and reports how much was taken until it was left, and when."""
    fields = [PNG, UNITS, ("Transfer-Encoding", "chunked")]

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", fields))
        taken = 0
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        try:
            while True:
                connection.send(chunk)
                taken += 65536
        except OSError:
            scene.tell((taken, time.monotonic()))

    return script


@leaving
def test_a_free_download_is_cancelled_at_the_origin(scene: Scene, leave: Callable[[RawClient], None]) -> None:
    """A client that leaves a free answer half-way ends it at the origin within a second."""
    scene.play(endless(scene))
    with scene.connect() as client:
        client.send(scene.poll())
        assert client.read_head().status == 200
        left_at = time.monotonic()
        leave(client)
    _, ended_at = scene.told()
    assert ended_at - left_at < CANCEL_SECONDS
    (event,) = scene.settled()
    assert (event["status"], event["outcome"]) == (200, "client_gone")


@leaving
def test_an_endless_paid_answer_is_stopped(scene: Scene, leave: Callable[[RawClient], None]) -> None:
    """A paid answer is read on behind its client for 64 MiB and not without end."""
    scene.play(endless(scene))
    with scene.connect() as client:
        client.send(scene.request())
        assert client.read_head().status == 200
        leave(client)
    taken, _ = scene.told()
    assert READ_ON_BYTES <= taken <= READ_ON_BYTES + KERNEL_BYTES
    (event,) = scene.settled()
    assert (event["status"], event["outcome"], event["units"]) == (200, "client_gone", "2.5")
    assert event["response_bytes"] >= READ_ON_BYTES


def test_a_paid_download_is_read_to_its_end(scene: Scene) -> None:
    """A client that leaves in the midst of a paid answer of 8 MiB does not break it off at the origin."""
    answer = http_response(b"x" * (8 * MIB), fields=[PNG, UNITS])

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(answer)
        connection.read_request()  # the connection has stayed in step
        connection.send(http_response())
        scene.tell("reused")

    scene.play(script)
    with scene.connect() as client:
        client.send(scene.request())
        assert client.read_head().status == 200
        client.reset()
    (event,) = scene.settled()
    assert (event["outcome"], event["response_bytes"], event["units"]) == ("client_gone", 8 * MIB, "2.5")
    assert scene.ask(scene.request()).status == 200
    assert scene.told() == "reused"
    scene.settled()
