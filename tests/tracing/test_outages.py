"""A receiver of spans that is down, mute, or talks nonsense: requests go on, memory is bounded, losses are counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.collector import Collector
from tests.harness.messages import http_response, proxy_request
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.gateway import StartGateway
    from tests.harness.origin import OriginConnection, ScriptedOrigin
    from tests.harness.policy import GatewayKey
    from tests.harness.scene import Scene

BATCH: Final = 4
QUEUE: Final = 8
CALLS: Final = 30
SPANS_A_CALL: Final = 2


@pytest.fixture(scope="module")
def tracing_scene(build_scene: Callable[..., Scene], collector: Collector) -> Scene:
    """Return the module's gateway: little room for what waits, and little patience."""
    return build_scene(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_TIMEOUT="300",
        OTEL_BSP_SCHEDULE_DELAY="20",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE=str(BATCH),
        OTEL_BSP_MAX_QUEUE_SIZE=str(QUEUE),
    )


@pytest.fixture
def scene(tracing_scene: Scene, collector: Collector) -> Iterator[Scene]:
    """Return the gateway with new books; at the end its receiver works again, and nothing waits any more."""
    collector.exports.clear()
    yield tracing_scene.open_books()
    collector.take_all()
    tracing_scene.ask(tracing_scene.poll())
    last = tracing_scene.settled()[0]["request_id"]
    collector.wait_for_spans(1, gateway__request_id=last)


def dropped(scene: Scene) -> int:
    """Return how many spans were lost so far."""
    return int(scene.gateway.metrics().value("trace_spans_dropped_total"))


def mute(connection: OriginConnection) -> None:
    """Read everything and answer nothing."""
    while connection.read_request() is not None:
        pass


def test_a_mute_receiver_is_not_felt(scene: Scene, collector: Collector) -> None:
    """Calls are answered as ever; what finds the queue full is lost and counted, to the span; the rest comes later."""
    before = dropped(scene)
    collector.play(mute)
    for _ in range(CALLS):
        assert scene.ask(scene.request()).status == 200
    scene.settled(CALLS)
    scene.gateway.wait_for_event("trace_export_failed", lambda event: "in time" in event["reason"])
    lost = dropped(scene) - before
    assert lost >= (CALLS - QUEUE - 2 * BATCH) * SPANS_A_CALL
    collector.take_all()
    until(lambda: len(collector.spans()) + lost == CALLS * SPANS_A_CALL, "all that waited")
    scene.gateway.wait_for_event("trace_export_recovered")
    assert dropped(scene) - before == lost


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http_response(b"", status=400), "it answered 400"),
        (http_response(b"", status=301, fields=[("Location", "http://127.0.0.1:1/")]), "it answered 301"),
    ],
    ids=["400", "301"],
)
def test_what_is_refused_for_good_is_lost_and_counted(
    scene: Scene, collector: Collector, *, answer: bytes, reason: str
) -> None:
    """A status that OTLP does not call retryable costs its batch, once; the log says so when it begins."""
    before = dropped(scene)
    collector.play(collector.answering(answer, takes=False))
    scene.ask(scene.request())
    scene.settled()
    scene.gateway.wait_for_event("trace_export_failed", lambda event: event["reason"] == reason)
    until(lambda: dropped(scene) == before + SPANS_A_CALL, "the loss in the metrics")


@pytest.mark.parametrize(
    "answer",
    [
        http_response(b"", status=503, fields=[("Retry-After", "1")]),
        b"\x00\xff nonsense\r\n\r\n",
        http_response(b"x" * 100_000, fields=[("Content-Type", "application/x-protobuf")]),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    ],
    ids=["503", "nonsense", "endless", "half"],
)
def test_what_may_pass_is_tried_again(scene: Scene, collector: Collector, answer: bytes) -> None:
    """A receiver that is busy, or answers nonsense, gets the same spans again once it answers well."""
    before = dropped(scene)

    def once(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(answer)
        collector.take_all()  # ends this connection too

    collector.play(once)
    scene.ask(scene.request())
    (event,) = scene.settled()
    collector.wait_for_spans(1, gateway__request_id=event["request_id"])
    assert dropped(scene) == before


@pytest.mark.parametrize("is_mute", [True, False], ids=["mute", "working"])
def test_a_stop_is_bounded_and_sends_what_waits(
    start_gateway: StartGateway, start_origin: Callable[[], ScriptedOrigin], key: GatewayKey, *, is_mute: bool
) -> None:
    """At the end what waits is sent once; a receiver that does not take it costs the stop 2 s at the very most."""
    with Collector() as collector:
        if is_mute:
            collector.play(mute)
        gateway = start_gateway(start_origin(), OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        with gateway.connect() as client:
            assert client.ask(proxy_request(key=key)).status == 200
        began = time.monotonic()
        gateway.close()
        assert time.monotonic() - began < 2 + 3  # 3 s for all else that ends on a busy machine
        assert gateway.process.exit_code == 0
        assert len(collector.origin.requests) == 1
        assert len(collector.spans()) == (0 if is_mute else SPANS_A_CALL)
