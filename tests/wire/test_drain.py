"""Stopping: readiness goes first, open answers run out whole, what is left at the end is cut and booked."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import http_response, message, proxy_request
from tests.harness.scene import FREE_TARGET
from tests.harness.waiting import until
from tests.harness.wire import Truncated

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from tests.harness.gateway import Gateway, StartGateway
    from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin
    from tests.harness.policy import GatewayKey
    from tests.harness.wire import Head

STREAMS: Final = 20
DELAY_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 0.6
EXIT_SECONDS: Final = 5.0
EVENT: Final = b"b\r\ndata: one\n\n\r\n"
HEAD: Final = message(
    "HTTP/1.1 200 OK", [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")], EVENT
)


class Streams:
    """Clients that each read an event stream; the origin ends them all when `end` is set."""

    def __init__(self, gateway: Gateway, key: GatewayKey, *, stack: ExitStack) -> None:
        self.clients = [stack.enter_context(RawClient(gateway.port)) for _ in range(STREAMS)]
        self._heads: list[Head] = []
        for client in self.clients:
            client.send(proxy_request(key=key))
        for client in self.clients:
            self._heads.append(client.read_head())
            client.reader.through(EVENT)

    def rest(self) -> list[bytes]:
        """Return what follows the first event in each stream; `Truncated` where one has no end."""
        return [b"".join(client.pieces(head)) for client, head in zip(self.clients, self._heads, strict=True)]


@pytest.fixture
def origin(start_origin: StartOrigin, end: threading.Event) -> ScriptedOrigin:
    """Return an origin whose paid answers are streams that go on until `end`, and whose free ones are at once."""

    def script(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.method == "GET":
                connection.send(http_response())
                continue
            connection.send(HEAD)
            assert end.wait(30)
            connection.send(b"a\r\ndata: end\n\r\n0\r\n\r\n")

    return start_origin(script)


def refused(gateway: Gateway) -> bool:
    """Say whether new connections are refused."""
    try:
        RawClient(gateway.port).close()
    except ConnectionRefusedError:
        return True
    return False


def stop(gateway: Gateway) -> float:
    """Send SIGTERM and wait until readiness is gone; return when it was sent."""
    sent_at = time.monotonic()
    gateway.process.signal(signal.SIGTERM)
    until(lambda: gateway.ask_ops("/readyz").status == 503, "readiness to go", timeout_seconds=DELAY_SECONDS / 2)
    return sent_at


def test_open_streams_end_whole_and_the_exit_is_0(
    start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey, *, end: threading.Event
) -> None:
    """20 streams: readiness goes at once, callers come in for the delay and then no more, the streams end whole."""
    gateway = start_gateway(origin, FALGW_SHUTDOWN_DELAY=str(DELAY_SECONDS), FALGW_DRAIN_TIMEOUT="30")
    poll = proxy_request(FREE_TARGET, key=key, method="GET")
    with ExitStack() as stack:
        streams = Streams(gateway, key, stack=stack)
        kept = [stack.enter_context(gateway.connect()) for _ in range(2)]
        assert [client.ask(poll).status for client in kept] == [200, 200]
        sent_at = stop(gateway)
        with gateway.connect() as late:
            assert late.ask(poll).status == 200  # within the delay all is as before
        assert kept[0].ask(poll).status == 200
        until(lambda: refused(gateway), "new connections to be refused")
        assert time.monotonic() - sent_at > DELAY_SECONDS - 0.1
        answer = kept[0].ask(poll)
        assert (answer.status, answer.json()["error_type"]) == (503, "draining")
        assert (answer.field("connection"), answer.field("retry-after")) == ("close", "1")
        assert kept[0].left_by_peer()
        assert gateway.ask_ops("/livez").status == 200
        assert gateway.metrics().value("inflight_requests") == STREAMS
        end.set()
        assert streams.rest() == [b"data: end\n"] * STREAMS
        assert kept[1].left_by_peer()
        assert gateway.process.wait(EXIT_SECONDS) == 0
    outcomes = Counter((event["status"], event["outcome"]) for event in gateway.events("exchange"))
    assert outcomes == {(200, "ok"): STREAMS + 4, (503, "refused"): 1}
    assert gateway.events("exchanges_cut") == []


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_drains_the_whole_group(
    start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey, *, end: threading.Event, workers: int
) -> None:
    """SIGINT to all processes at once, as a terminal sends it, cuts nobody."""
    gateway = start_gateway(origin, workers=workers, FALGW_DRAIN_TIMEOUT="30")
    with ExitStack() as stack:
        streams = Streams(gateway, key, stack=stack)
        os.killpg(gateway.pid, signal.SIGINT)
        until(lambda: refused(gateway), "new connections to be refused")
        end.set()
        assert streams.rest() == [b"data: end\n"] * STREAMS
    assert gateway.process.wait(EXIT_SECONDS) == 0


def cut_short(gateway: Gateway, key: GatewayKey, end_it: Callable[[], None]) -> float:
    """Open streams, end the gateway so that it cuts them; return after how many seconds it was gone."""
    with ExitStack() as stack:
        streams = Streams(gateway, key, stack=stack)
        began = time.monotonic()
        end_it()
        for client in streams.clients:
            with pytest.raises(Truncated, match="reset"):
                list(client.reader.rest())
        assert gateway.process.wait(EXIT_SECONDS) == 0
    return time.monotonic() - began


def test_at_the_drain_timeout_streams_are_cut_and_each_is_logged(
    start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey
) -> None:
    """Whoever is still there sees a reset, never a clean end; one event for each, and the exit is still 0."""
    gateway = start_gateway(origin, FALGW_DRAIN_TIMEOUT=str(DRAIN_SECONDS))
    took = cut_short(gateway, key, lambda: gateway.process.signal(signal.SIGTERM))
    assert took > DRAIN_SECONDS - 0.1
    events = gateway.events("exchange")
    assert [(event["status"], event["outcome"]) for event in events] == [(200, "cut")] * STREAMS
    (cut,) = gateway.events("exchanges_cut")
    assert (cut["level"], cut["count"]) == ("warning", STREAMS)


def test_a_second_signal_ends_at_once(start_gateway: StartGateway, origin: ScriptedOrigin, key: GatewayKey) -> None:
    """Who asks twice does not wait for the drain, nor for the delay; what is cut is still logged."""
    gateway = start_gateway(origin, FALGW_SHUTDOWN_DELAY="60", FALGW_DRAIN_TIMEOUT="60")

    def twice() -> None:
        stop(gateway)
        gateway.process.signal(signal.SIGTERM)

    assert cut_short(gateway, key, twice) < EXIT_SECONDS
    assert len(gateway.events("exchange")) == STREAMS


def test_what_is_cut_before_its_answer_is_told_once(
    start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey
) -> None:
    """At the drain timeout no request is lost from the books: unanswered, uploading, or read on behind its client.

    Who paid and has no answer yet gets the 500 that no client repeats, who did not gets 503.
    """
    large = proxy_request(key=key, body=b"x" * 200_000)
    origin = start_origin(lambda connection: connection.read_request() and connection.wait_for_leaving())
    gateway = start_gateway(origin, FALGW_DRAIN_TIMEOUT=str(DRAIN_SECONDS))
    with ExitStack() as stack:
        paid, free, uploading, gone = (stack.enter_context(gateway.connect()) for _ in range(4))
        paid.send(proxy_request(key=key))
        free.send(proxy_request(FREE_TARGET, key=key, method="GET"))
        uploading.send(large[:-1000])
        gone.send(proxy_request(key=key, body=b'"gone"'))
        origin.wait_for_requests(4)
        until(lambda: len(origin.executions) == 3, "three whole requests at the origin")
        gone.reset()
        gateway.process.signal(signal.SIGTERM)
        statuses = [client.read_response().status for client in (paid, free)]
        with pytest.raises((Truncated, AssertionError)):
            assert uploading.read_response().status == 200
        assert gateway.process.wait(EXIT_SECONDS) == 0
    assert statuses == [500, 503]
    outcomes = Counter(event["outcome"] for event in gateway.events("exchange"))
    assert outcomes.total() == 4
    assert outcomes["client_gone"] == 1


def test_an_idle_gateway_stops_at_once(start_gateway: StartGateway, origin: ScriptedOrigin) -> None:
    """Nothing open: no waiting, also with callers that keep idle connections."""
    gateway = start_gateway(origin, FALGW_DRAIN_TIMEOUT="60")
    with gateway.connect() as idle:
        began = time.monotonic()
        gateway.process.signal(signal.SIGTERM)
        assert idle.left_by_peer()
        assert gateway.process.wait(EXIT_SECONDS) == 0
    assert time.monotonic() - began < EXIT_SECONDS
