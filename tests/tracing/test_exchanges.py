"""Traces over the real gateway: each request in its caller's trace, and its spans at a receiver of OTLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from gateway.version import VERSION
from tests.harness.gateway import FAL_KEY
from tests.harness.messages import http_response
from tests.harness.origin import answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.collector import Collector, Span
    from tests.harness.origin import OriginConnection, Received
    from tests.harness.scene import Scene

TRACE_ID: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID: Final = "b7ad6b7169203331"
CALLERS: Final = f"00-{TRACE_ID}-{PARENT_ID}-01"
STATE: Final = ("tracestate", "congo=t61rcWkgMzE")
ANSWER: Final = http_response(
    fields=[("Content-Type", "application/json"), ("x-fal-request-id", "5f0f5e0c"), ("x-fal-billable-units", "1")]
)


class Traced(NamedTuple):
    """A gateway that traces, and the receiver of its spans."""

    scene: Scene
    collector: Collector


@pytest.fixture(scope="module")
def tracing_scene(build_scene: Callable[..., Scene], collector: Collector) -> Scene:
    """Return the module's gateway, which exports each request at once."""
    return build_scene(
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=design%20team,authorization=Bearer%20otlp-canary",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_SERVICE_NAME="fal-edge",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.name=unheard",
        OTEL_BSP_SCHEDULE_DELAY="20",
    )


@pytest.fixture
def traced(tracing_scene: Scene, collector: Collector) -> Traced:
    """Return the gateway with new books and a receiver that has heard nothing yet."""
    tracing_scene.open_books()
    tracing_scene.play(answering(ANSWER))
    collector.exports.clear()
    return Traced(tracing_scene, collector)


def traceparents(received: Received) -> list[str]:
    """Return every `traceparent` that an origin was sent."""
    return [value.decode() for name, value in received.head.fields if name == b"traceparent"]


def breaking(connection: OriginConnection) -> None:
    """Read a request and break off."""
    connection.read_request()
    connection.reset()


def by_kind(spans: list[Span]) -> tuple[Span, Span]:
    """Return the server span and the client span of one exchange."""
    client, server = sorted(spans, key=lambda span: span.kind)
    assert (client.kind, server.kind) == ("CLIENT", "SERVER")
    return server, client


def test_an_exchange_is_two_spans_of_its_callers_trace(traced: Traced) -> None:
    """Caller, gateway and origin form one chain of spans, which the log names too; the caller's state passes on."""
    scene, collector = traced
    response = scene.ask(scene.request(fields=[("traceparent", CALLERS), STATE]))
    (event,) = scene.settled()
    server, client = by_kind(collector.wait_for_spans(2))
    assert {server.trace_id, client.trace_id, event["trace_id"]} == {TRACE_ID}
    assert (server.parent_id, client.parent_id, event["span_id"]) == (PARENT_ID, server.span_id, server.span_id)
    (received,) = scene.origin.executions
    assert traceparents(received) == [f"00-{TRACE_ID}-{client.span_id}-01"]
    assert [value for name, value in received.head.fields if name == b"tracestate"] == [STATE[1].encode()]
    assert response.field("x-gateway-request-id") == server.attributes["gateway.request_id"]


def test_spans_say_what_the_log_says(traced: Traced) -> None:
    """Names are OpenTelemetry's where it has one; identifiers, sizes, times and outcome are those of the log."""
    scene, collector = traced
    scene.ask(scene.request(body=b'{"prompt":"canary"}'))
    (event,) = scene.settled()
    server, client = by_kind(collector.wait_for_spans(2))
    overhead_ms = server.attributes.pop("gateway.overhead_ms")
    assert overhead_ms == pytest.approx(event["overhead_ms"], abs=0.001)
    assert (server.name, server.status, server.flags) == ("POST /api/fal/proxy", "UNSET", 0x103)
    assert server.attributes == {
        "http.request.method": "POST",
        "url.scheme": "http",
        "url.path": "/api/fal/proxy",
        "http.route": "/api/fal/proxy",
        "http.response.status_code": 200,
        "http.request.body.size": 19,
        "http.response.body.size": 11,
        "fal.endpoint": "fal-ai/flux/dev",
        "fal.request_id": "5f0f5e0c",
        "gateway.request_id": event["request_id"],
        "gateway.key": "web-test",
        "gateway.team": "design",
        "gateway.class": "paid",
        "gateway.outcome": "ok",
        "gateway.cost_source": event["cost_source"],
    }
    assert client.attributes.pop("gateway.first_byte_ms") == pytest.approx(event["first_byte_ms"], abs=0.001)
    assert (client.name, client.status, client.flags) == ("POST", "UNSET", 0x103)
    assert client.attributes == {
        "http.request.method": "POST",
        "server.address": "fal.run",
        "server.port": 443,
        "http.response.status_code": 200,
        "fal.endpoint": "fal-ai/flux/dev",
        "fal.request_id": "5f0f5e0c",
    }
    assert server.start_ns <= client.start_ns <= client.end_ns == server.end_ns
    assert (server.end_ns - server.start_ns) / 1e6 == pytest.approx(event["duration_ms"], abs=0.01)


def test_spans_come_under_the_resource_of_the_settings(traced: Traced) -> None:
    """The service's name goes before the one among the attributes; the process is named; fields are sent along."""
    scene, collector = traced
    scene.ask(scene.request())
    scene.settled()
    resource = collector.wait_for_spans(2)[0].resource
    assert resource.pop("service.instance.id")
    assert resource == {
        "service.name": "fal-edge",
        "service.version": VERSION,
        "deployment.environment.name": "test",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "fal-gateway",
        "telemetry.sdk.version": VERSION,
    }
    fields = dict(collector.heads[-1].head.fields)
    assert (fields[b"x-tenant"], fields[b"authorization"]) == (b"design team", b"Bearer otlp-canary")
    assert "otlp-canary" not in scene.gateway.process.stderr()


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("traceparent", CALLERS.upper())],
        [("traceparent", CALLERS), ("traceparent", CALLERS)],
        [("traceparent", f"ff{CALLERS[2:]}")],
    ],
    ids=["none", "upper case", "two", "version ff"],
)
def test_a_trace_begins_here_where_none_came_that_is_valid(traced: Traced, fields: list[tuple[str, str]]) -> None:
    """Then it goes by the request's own id, drawn at random, and a state that came with a broken trace is dropped."""
    scene, collector = traced
    scene.ask(scene.request(fields=[*fields, STATE]))
    (event,) = scene.settled()
    server, client = by_kind(collector.wait_for_spans(2))
    assert {server.trace_id, event["trace_id"]} == {event["request_id"]}
    assert server.parent_id == ""
    (received,) = scene.origin.executions
    assert traceparents(received) == [f"00-{server.trace_id}-{client.span_id}-03"]
    assert b"tracestate" not in dict(received.head.fields)


def test_what_the_caller_does_not_sample_is_not_exported(traced: Traced) -> None:
    """The caller's decision holds, and goes on to the origin; the log names the trace all the same."""
    scene, collector = traced
    scene.ask(scene.request(fields=[("traceparent", f"{CALLERS[:-2]}00")]))
    scene.ask(scene.request(fields=[("traceparent", CALLERS)]))
    unsampled, _ = scene.settled(2)
    assert unsampled["trace_id"] == TRACE_ID
    assert len(collector.wait_for_spans(2)) == 2
    assert {span.attributes.get("gateway.request_id") for span in collector.spans()}.isdisjoint(
        {unsampled["request_id"]}
    )
    (sent,) = traceparents(scene.origin.executions[0])
    assert sent == f"00-{TRACE_ID}-{sent[36:52]}-00"


def test_no_secret_and_no_content_is_in_a_span(traced: Traced) -> None:
    """Keys, content, queries and fields of the caller's are nowhere in what is exported."""
    scene, collector = traced
    fields = [("User-Agent", "canary-agent"), ("traceparent", CALLERS), ("tracestate", "a=canary-state")]
    target = "https://fal.run/fal-ai/flux/dev?token=canary-query"
    path = "/api/fal/proxy/canary-path?canary-query"
    scene.ask(scene.request(target=target, path=path, fields=fields, body=b'{"prompt":"canary-content"}'))
    scene.settled()
    collector.wait_for_spans(2)
    exported = b"".join(export.SerializeToString() for export in collector.exports)
    assert TRACE_ID.encode() not in exported  # ids are bytes there, so that the search below sees texts
    assert bytes.fromhex(TRACE_ID) in exported
    secrets = [scene.key.secret.encode(), *FAL_KEY.encode().split(b":"), b"canary"]
    assert [secret for secret in secrets if secret in exported] == []


def test_a_refusal_is_one_span(traced: Traced) -> None:
    """What never went to the origin has no span there; a refusal is no error of the server's."""
    scene, collector = traced
    scene.ask(scene.request(target="https://elsewhere.example/x", fields=[("traceparent", CALLERS)]))
    (event,) = scene.settled()
    (server,) = collector.wait_for_spans(1)
    assert (server.trace_id, server.parent_id, server.status) == (TRACE_ID, PARENT_ID, "UNSET")
    assert server.attributes["error.type"] == event["error_type"] == "target_not_allowed"
    assert server.attributes["http.response.status_code"] == 412


def test_bytes_that_are_no_request_are_a_span_too(traced: Traced) -> None:
    """Each event of the log has its span: also that of what could not be read, whose method is none."""
    scene, collector = traced
    with scene.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        client.read_response()
    (event,) = scene.settled()
    (server,) = collector.wait_for_spans(1)
    assert (server.name, server.trace_id) == ("HTTP /api/fal/proxy", event["request_id"])
    assert server.attributes["http.request.method"] == "_OTHER"


def test_an_origins_fault_is_an_error_of_both_spans(traced: Traced) -> None:
    """The origin breaks off before its answer: 500 for the caller, and no status of the origin's."""
    scene, collector = traced
    scene.play(breaking)
    scene.ask(scene.request())
    (event,) = scene.settled()
    server, client = by_kind(collector.wait_for_spans(2))
    assert (server.status, client.status) == ("ERROR", "ERROR")
    assert server.attributes["error.type"] == client.attributes["error.type"] == event["error_type"] == "origin_failed"
    assert server.attributes["http.response.status_code"] == 500
    assert "http.response.status_code" not in client.attributes


def test_an_origins_refusal_is_an_error_of_its_span_alone(traced: Traced) -> None:
    """A 422 that is passed on: the client's side of HTTP calls it an error, the server's side does not."""
    scene, collector = traced
    scene.play(answering(http_response(status=422)))
    scene.ask(scene.request())
    scene.settled()
    server, client = by_kind(collector.wait_for_spans(2))
    assert (server.status, client.status, client.attributes["error.type"]) == ("UNSET", "ERROR", "422")
