"""Each refusal that needs no limiter: what the client reads, and that the origin hears nothing of it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import RUN_TARGET, http_response, message, proxy_head, proxy_request
from tests.harness.ports import LOOPBACK, refused_port
from tests.harness.waiting import until
from tests.wire.stage import MOST_BYTES, NARROW_MOST_BYTES, PAGE, assert_problem

if TYPE_CHECKING:
    from tests.harness.gateway import StartGateway
    from tests.harness.origin import OriginConnection, StartOrigin
    from tests.harness.policy import GatewayKey
    from tests.wire.stage import Stage

STATUS_TARGET: Final = "https://queue.fal.run/fal-ai/flux/requests/764cabcf/status"
TOKENS_TARGET: Final = "https://rest.fal.ai/tokens/"
ALLOWED: Final = "GET, POST, PUT, DELETE, OPTIONS"


@dataclass(frozen=True, slots=True)
class Case:
    """One mistake: the answer that it must get, the key that comes with it, and the request's arguments."""

    name: str
    status: int
    error_type: str
    key: str | None = "full"
    request: dict[str, Any] = field(default_factory=dict)


def case(status: int, error_type: str, *, name: str, key: str | None = "full", **request: Any) -> Case:  # noqa: ANN401
    """Return a case; `request` are arguments of `proxy_request`."""
    return Case(name, status, error_type, key, request)


TEXT: Final = "text/plain"
CASES: Final = (
    case(400, "target_missing", name="no target", target=None),
    case(400, "target_missing", name="empty target", target=""),
    case(412, "target_invalid", name="no URL", target="fal-ai/flux/dev"),
    case(412, "target_invalid", name="http", target="http://fal.run/fal-ai/flux/dev"),
    case(412, "target_invalid", name="userinfo", target="https://me@fal.run/fal-ai/flux/dev"),
    case(412, "target_invalid", name="port", target="https://fal.run:8443/fal-ai/flux/dev"),
    case(412, "target_invalid", name="fragment", target="https://fal.run/fal-ai/flux/dev#x"),
    case(412, "target_invalid", name="dot segment", target="https://fal.run/fal-ai/../flux/dev"),
    case(412, "target_invalid", name="encoded dots", target="https://fal.run/fal-ai/%2e%2E/flux/dev"),
    case(412, "target_not_allowed", name="other host", target="https://evil.example/fal-ai/flux/dev"),
    case(412, "target_not_allowed", name="other path", target="https://rest.fal.ai/billing"),
    *(case(405, "method_not_allowed", name=name, method=name) for name in ("PATCH", "TRACE", "PROPFIND", "BREW")),
    case(415, "unsupported_media_type", name="text", content_type=TEXT),
    case(415, "unsupported_media_type", name="untyped content", content_type=None),
    case(415, "unsupported_media_type", name="form", content_type="multipart/form-data; boundary=x"),
    case(415, "unsupported_media_type", name="nearly JSON", content_type="application/json5"),
    case(415, "unsupported_media_type", name="GET with text", method="GET", body=b"x", content_type=TEXT),
    case(413, "content_too_large", name="beyond all", body=b"x" * (MOST_BYTES + 1)),
    case(413, "content_too_large", name="beyond the key's", key="narrow", body=b"x" * (NARROW_MOST_BYTES + 1)),
    case(401, "credential_missing", name="no key", key=None),
    case(401, "credential_invalid", name="unknown key", key=None, fields=[("X-Gateway-Key", "nobody")]),
    case(401, "credential_invalid", name="expired key", key="expired"),
    case(403, "endpoint_not_allowed", name="endpoint", key="narrow", target="https://fal.run/fal-ai/other"),
    case(
        403,
        "endpoint_not_allowed",
        name="job of another endpoint",
        key="narrow",
        method="GET",
        target="https://queue.fal.run/fal-ai/other/requests/764cabcf/status",
    ),
    case(
        403,
        "endpoint_not_allowed",
        name="app in a token request",
        key="narrow",
        target=TOKENS_TARGET,
        body=b'{"allowed_apps": ["other"], "token_expiration": 120}',
    ),
    case(
        403,
        "endpoint_not_allowed",
        name="app in a chunked token request",
        key="narrow",
        target=TOKENS_TARGET,
        body=b'{"allowed_apps": ["other"], "token_expiration": 120}',
        in_chunks=True,
    ),
    case(400, "request_invalid", name="token request without apps", key="narrow", target=TOKENS_TARGET, body=b"[]"),
    *(
        case(426, "upgrade_refused", name=name, method=method, fields=fields)
        for name, method, fields in (
            ("websocket", "GET", [("Connection", "Upgrade"), ("Upgrade", "websocket")]),
            ("websocket by POST", "POST", [("Connection", "upgrade"), ("Upgrade", "WebSocket")]),
            ("upgrade unnamed by Connection", "GET", [("Upgrade", "websocket")]),
            ("one of two protocols", "POST", [("Connection", "upgrade"), ("Upgrade", "h2c, websocket")]),
            ("another protocol", "POST", [("Connection", "upgrade"), ("Upgrade", "irc/6.9")]),
            ("websocket without its Upgrade", "GET", [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]),
        )
    ),
    case(400, "request_invalid", name="two hosts", fields=[("Host", "gateway.test")]),
    case(400, "request_invalid", name="two targets", fields=[("X-Fal-Target-Url", RUN_TARGET)]),
    case(400, "request_invalid", name="two types", fields=[("Content-Type", "application/json")]),
)


def request_of(stage: Stage, wrong: Case, *, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return the request that a case describes."""
    arguments = {**wrong.request, "fields": [*wrong.request.get("fields", ()), *extra]}
    return proxy_request(key=getattr(stage.keys, wrong.key) if wrong.key else None, **arguments)


@pytest.mark.parametrize("wrong", CASES, ids=lambda wrong: wrong.name)
def test_a_refusal_reads_as_the_contract_says(stage: Stage, wrong: Case) -> None:
    """Status, error type, the four JSON names and the fields are as documented, and the origin hears nothing."""
    with stage.untouched():
        response = stage.ask(request_of(stage, wrong))
    assert_problem(response, wrong.status, wrong.error_type)
    assert response.field("access-control-allow-origin") is None
    assert response.field("vary") == "Origin"


def test_a_websocket_to_realtime_is_not_bought_as_a_get(stage: Stage) -> None:
    """The whole handshake gets a 426 that names what is served, and the end of the connection."""
    handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
    target = "https://fal.run/fal-ai/flux/realtime"
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        client.send(proxy_request(target, key=stage.keys.full, method="GET", fields=handshake) + b"\x81\x85frame")
        response = client.read_response("GET")
        assert client.left_by_peer()
    assert_problem(response, 426, "upgrade_refused")
    assert (response.field("upgrade"), response.field("connection")) == ("HTTP/1.1", "upgrade, close")
    assert stage.event_of(response)["outcome"] == "refused"


@pytest.mark.parametrize("wrong", [c for c in CASES if c.name != "BREW"], ids=lambda wrong: wrong.name)
def test_a_page_may_read_each_refusal(stage: Stage, wrong: Case) -> None:
    """A refusal carries the CORS fields of the page's origin, so that the page can show why."""
    response = stage.ask(request_of(stage, wrong, extra=(("Origin", PAGE),)))
    assert response.status == wrong.status
    assert response.field("access-control-allow-origin") == PAGE
    exposed = (response.field("access-control-expose-headers") or "").split(", ")
    assert {"x-fal-error-type", "x-gateway-request-id"} <= set(exposed)


def test_each_refusal_is_counted_and_logged_once(stage: Stage) -> None:
    """Every refused request to the proxy makes one count, one refusal, and one log event with the same id."""
    wrongs = [c for c in CASES if c.name != "BREW"]
    before = stage.gateway.metrics()
    ids = {stage.ask(request_of(stage, wrong)).json()["request_id"]: wrong for wrong in wrongs}
    last = next(reversed(ids))
    stage.gateway.wait_for_event("exchange", lambda event: event["request_id"] == last)
    after = stage.gateway.metrics()
    events = [event for event in stage.gateway.events("exchange") if event["request_id"] in ids]
    assert sorted(event["request_id"] for event in events) == sorted(ids)
    for event in events:
        wrong = ids[event["request_id"]]
        assert (event["outcome"], event["status"], event["error_type"]) == ("refused", wrong.status, wrong.error_type)
    assert after.value("requests_total") - before.value("requests_total") == len(wrongs)
    assert after.value("refusals_total") - before.value("refusals_total") == len(wrongs)


def test_allow_names_every_method_that_is_served(stage: Stage) -> None:
    """A 405 says which methods there are, for known and unknown ones alike."""
    for method in ("PATCH", "BREW"):
        assert stage.ask(proxy_request(key=stage.keys.full, method=method)).field("allow") == ALLOWED


def test_head_is_refused_without_content(stage: Stage) -> None:
    """HEAD gets 405 with no content behind the head, and the connection stays in step."""
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        client.send(proxy_request(key=stage.keys.full, method="HEAD", content_type=None))
        assert client.read_response("HEAD").status == 405
        client.send(proxy_request(method="POST"))
        assert_problem(client.read_response(), 401, "credential_missing")


@pytest.mark.parametrize("text", ["text/plain", "image/png", "application/octet-stream", None])
def test_targets_listed_as_binary_take_any_type(stage: Stage, text: str | None) -> None:
    """The content type is free where the policy lists the target."""
    request = proxy_request("https://fal.run/binary/x", key=stage.keys.full, body=b"\0\xff", content_type=text)
    response, received = stage.forwarded(request)
    assert (response.status, bytes(received.body)) == (200, b"\0\xff")


@pytest.mark.parametrize("text", ["application/json", "Application/JSON", "application/json ; charset=utf-8"])
def test_json_is_known_in_every_spelling(stage: Stage, text: str) -> None:
    """Case and parameters of the media type do not matter (RFC 9110, section 8.3.1)."""
    response, received = stage.forwarded(proxy_request(key=stage.keys.full, content_type=text))
    assert (response.status, received.head.value(b"content-type")) == (200, text.encode())


def test_chunked_content_over_the_limit_is_refused_before_it_is_whole(rough_stage: Stage) -> None:
    """Content of unknown length is counted: 413 at the limit, and the origin never has a whole request."""
    before = len(rough_stage.origin.executions)
    response = rough_stage.ask(proxy_request(key=rough_stage.keys.full, body=b"x" * (MOST_BYTES + 1), in_chunks=True))
    assert_problem(response, 413, "content_too_large")
    assert response.field("connection") == "close"
    assert len(rough_stage.origin.executions) == before


def test_content_of_exactly_the_limit_passes(stage: Stage) -> None:
    """The limit itself is allowed, declared or in chunks."""
    for in_chunks in (False, True):
        request = proxy_request(key=stage.keys.full, body=b"x" * MOST_BYTES, in_chunks=in_chunks)
        response, received = stage.forwarded(request)
        assert (response.status, received.size) == (200, MOST_BYTES)


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/livez", "/readyz", "/api/fal", "/api/fal/proxyx", "/api/fal/prox", "/API/fal/proxy", "*"],
)
def test_there_is_nothing_elsewhere(stage: Stage, path: str) -> None:
    """Outside of the proxy's path everything is 404, with a valid key too; logged, not counted as a request to it."""
    stage.event_of(stage.ask(proxy_request(key=stage.keys.full)))  # all that came before is counted by now
    before = stage.gateway.metrics().value("requests_total")
    with stage.untouched():
        response = stage.ask(proxy_request(key=stage.keys.full, path=path))
        assert_problem(response, 404, "path_unknown")
        page = stage.ask(proxy_request(path=path, method="GET", fields=[("Origin", PAGE)]))
    assert page.field("access-control-allow-origin") == PAGE
    assert stage.gateway.metrics().value("requests_total") == before
    event = stage.event_of(response)
    assert (event["status"], event["outcome"], event["error_type"]) == (404, "refused", "path_unknown")
    assert event["response_bytes"] == len(response.body)


@pytest.mark.parametrize(
    "path", ["/api/fal/proxy/", "/api/fal/proxy/fal-ai/flux", "/api/fal/proxy?a=b", "/api/fal/proxy/?"]
)
def test_paths_under_the_proxy_are_the_proxy(stage: Stage, path: str) -> None:
    """Any path below, and any query, serves the target in the field, of which they change nothing."""
    response, received = stage.forwarded(proxy_request(key=stage.keys.full, path=path))
    assert (response.status, received.target) == (200, b"/fal-ai/flux/dev")


def test_over_the_in_flight_bound_there_is_503(
    start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey
) -> None:
    """One request more than MAX_INFLIGHT gets 503 with Retry-After; afterwards there is room again."""
    go_on = threading.Event()

    def hesitate(connection: OriginConnection) -> None:
        while connection.read_request() is not None:
            go_on.wait(10)
            connection.send(http_response())

    origin = start_origin(hesitate)
    gateway = start_gateway(origin, FALGW_MAX_INFLIGHT="1")
    with RawClient(gateway.port) as first, RawClient(gateway.port) as second:
        first.send(proxy_request(key=key))
        origin.wait_for_requests(1)
        refused = second.ask(proxy_request(key=key))
        go_on.set()
        assert first.read_response().status == 200
        assert second.ask(proxy_request(key=key)).status == 200
    assert_problem(refused, 503, "capacity_reached")
    assert int(refused.field("retry-after") or 0) >= 1
    assert len(origin.requests) == 2


def test_an_origin_out_of_reach_is_502(start_gateway: StartGateway, start_origin: StartOrigin, key: GatewayKey) -> None:
    """Where nothing was sent the answer is 502, for a paid request too: it may be repeated."""

    def speak_plainly(connection: OriginConnection) -> None:
        connection.reader.fill()
        connection.send(http_response(status=400))

    plain = start_origin(speak_plainly)
    overrides = f"fal.run=http://{LOOPBACK}:{refused_port()},queue.fal.run=https://{LOOPBACK}:{plain.port}"
    gateway = start_gateway(overrides)
    with RawClient(gateway.port) as client:
        assert_problem(client.ask(proxy_request(key=key)), 502, "connection_refused")
        assert_problem(client.ask(proxy_request("https://queue.fal.run/a/b", key=key)), 502, "tls_error")
    assert plain.requests == []
    until(lambda: len(gateway.events("exchange")) == 2, "one event for each")
    assert {event["outcome"] for event in gateway.events("exchange")} == {"origin_failed"}


@pytest.mark.parametrize(("method", "target", "status"), [("POST", RUN_TARGET, 500), ("GET", STATUS_TARGET, 502)])
def test_an_origin_that_is_lost_after_the_request_is_500_where_it_was_paid(
    stage: Stage, method: str, target: str, status: int
) -> None:
    """A paid request that may have been executed ends as 500, which no client repeats; a free one as 502."""
    stage.answer(b"")
    response = stage.ask(proxy_request(target, key=stage.keys.full, method=method, fields=[("Origin", PAGE)]))
    assert_problem(response, status, "origin_failed")
    assert response.field("access-control-allow-origin") == PAGE


def test_a_request_without_host_is_refused(stage: Stage) -> None:
    """HTTP/1.1 needs one Host (RFC 9112, section 3.2)."""
    head = proxy_head(key=stage.keys.full).replace(b"Host: gateway.test\r\n", b"Content-Length: 0\r\n")
    with stage.untouched():
        assert_problem(stage.ask(head), 400, "request_invalid")


def test_what_is_no_request_is_400(stage: Stage) -> None:
    """Bytes of another protocol get a readable answer and the end of the connection."""
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", message("HELLO", [])):
        with stage.untouched(), RawClient(stage.gateway.port) as client:
            assert_problem(client.ask(data), 400, "request_invalid")
            assert client.left_by_peer()
