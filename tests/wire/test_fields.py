"""Which fields pass to the origin and which back to the client: compared as whole sets."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from gateway.version import VERSION
from tests.harness.gateway import FAL_KEY
from tests.harness.messages import http_response, message, proxy_head, proxy_request
from tests.wire.stage import MOST_BYTES, Stage

if TYPE_CHECKING:
    from tests.harness.origin import Received

OWN: Final = [
    ("host", "fal.run"),
    ("authorization", f"Key {FAL_KEY}"),
    ("x-fal-client-proxy", f"fal-gateway/{VERSION}"),
    ("via", "1.1 fal-gateway"),
]
PASSED: Final = [
    ("Accept", "application/json, text/event-stream;q=0.9"),
    ("Accept-Encoding", "gzip, br;q=0.5"),
    ("ACCEPT-LANGUAGE", "de, en;q=0.5"),
    ("User-Agent", "fal-client/1.0.3 (python)"),
    ("Range", "bytes=0-99"),
    ("If-Match", '"a"'),
    ("If-None-Match", '"b", W/"c"'),
    ("If-Modified-Since", "Sat, 29 Oct 1994 19:43:31 GMT"),
    ("If-Unmodified-Since", "Sat, 29 Oct 1994 19:43:31 GMT"),
    ("If-Range", '"d"'),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
    ("Idempotency-Key", '"8e03978e-40d5-43dd-bc93-6894a57f9324"'),
    ("x-fal-request-timeout", "30"),
    ("X-Fal-Queue-Priority", "low"),
    ("x-fal-runner-hint", "blue"),
    ("x-fal-object-lifecycle-preference", '{"expiration_duration_seconds": 3600}'),
    ("x-fal-no-retry", "1"),
    ("X-FAL-TAGS", "a=b,c=d"),
    ("x-fal-of-next-year", "\xe9\xff"),
    ("x-app-fal-disable-fallback", "true"),
]
DROPPED: Final = [
    ("Cookie", "session=1"),
    ("Origin", "https://elsewhere.example"),
    ("Referer", "https://elsewhere.example/page"),
    ("Forwarded", "for=192.0.2.1"),
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "elsewhere.example"),
    ("X-Real-IP", "192.0.2.1"),
    ("CF-Connecting-IP", "192.0.2.1"),
    ("Via", "1.0 somebody"),
    ("X-Fal-Client-Proxy", "somebody/1"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic eDp5"),
    ("TE", "trailers"),
    ("Trailer", "x-fal-checksum"),
    ("Upgrade-Insecure-Requests", "1"),
    ("HTTP2-Settings", "AAMAAABk"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-CH-UA", '"Chromium"'),
    ("Access-Control-Request-Method", "POST"),
    ("Cache-Control", "no-cache"),
    ("Pragma", "no-cache"),
    ("Date", "Sat, 29 Oct 1994 19:43:31 GMT"),
    ("From", "me@elsewhere.example"),
    ("Max-Forwards", "3"),
    ("Content-Language", "de"),
    ("Content-Disposition", "inline"),
    ("Digest", "sha-256=X"),
    ("baggage", "a=b"),
    ("X-Request-Id", "1"),
    ("X-Custom", "1"),
    ("X-HTTP-Method-Override", "DELETE"),
    ("x-fal", "1"),
    ("xx-fal-a", "1"),
    ("my-x-fal-a", "1"),
    ("x_fal_a", "1"),
    ("x-fal-runner_hint", "1"),
    ("x-fal_tags", "1"),
    ("if_match", "1"),
    ("Content_Type", "text/plain"),
    ("X_Gateway_Key", "1"),
    ("User_Agent", "1"),
]


def sent(received: Received) -> Counter[tuple[bytes, bytes]]:
    """Return the fields that the origin received, each as often as it came."""
    return Counter(received.head.fields)


def lines(*fields: tuple[str, str]) -> Counter[tuple[bytes, bytes]]:
    """Return fields as the origin must see them."""
    return Counter((name.lower().encode(), value.encode("latin-1")) for name, value in fields)


def test_exactly_the_listed_fields_reach_the_origin(stage: Stage) -> None:
    """Of a head with everything the origin gets what the contract lists, and the gateway's own, no more."""
    fields = [("Content-Encoding", "identity"), *PASSED, *DROPPED]
    response, received = stage.forwarded(proxy_request(key=stage.keys.full, fields=fields))
    entity = [("content-type", "application/json"), ("content-length", "2"), ("content-encoding", "identity")]
    assert response.status == 200
    assert sent(received) == lines(*OWN, *entity, *PASSED)
    assert received.head.start == b"POST /fal-ai/flux/dev HTTP/1.1"


@pytest.mark.parametrize("way", ["Authorization: Bearer", "X-Gateway-Key:"])
def test_the_gateway_key_stays_here_however_it_came(stage: Stage, way: str) -> None:
    """Whatever field brought the gateway key, the origin gets fal's key alone."""
    name, _, scheme = way.partition(":")
    fields = [(name, f"{scheme.strip()} {stage.keys.full.secret}".strip())]
    _, received = stage.forwarded(proxy_request(fields=fields))
    assert sent(received) == lines(*OWN, ("content-type", "application/json"), ("content-length", "2"))


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_nothing_is_invented_where_there_is_no_content(stage: Stage, method: str) -> None:
    """No Accept, User-Agent, Content-Type or length is made up."""
    _, received = stage.forwarded(proxy_request(key=stage.keys.full, method=method, content_type=None))
    assert sent(received) == lines(*OWN)
    assert received.method == method


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_an_empty_post_says_its_length_and_no_more(stage: Stage, method: str) -> None:
    """POST and PUT without content say so (RFC 9110, section 8.6), and get no type."""
    head = proxy_head(key=stage.keys.full, method=method, content_type=None)
    _, received = stage.forwarded(head)
    assert sent(received) == lines(*OWN, ("content-length", "0"))


@pytest.mark.parametrize("size", [1, 65_536, 65_537, MOST_BYTES])
def test_nothing_is_invented_beside_content_of_known_length(stage: Stage, size: int) -> None:
    """Small and streamed content has its own length, and neither type nor Expect."""
    request = proxy_request("https://fal.run/binary/x", key=stage.keys.full, body=b"x" * size, content_type=None)
    _, received = stage.forwarded(request)
    assert sent(received) == lines(*OWN, ("content-length", str(size)))
    assert received.size == size


def test_nothing_is_invented_beside_chunked_content(stage: Stage) -> None:
    """Content without a length goes on in chunks, and gets no length, type or Expect."""
    request = proxy_request(
        "https://fal.run/binary/x", key=stage.keys.full, body=b"x" * 100_000, content_type=None, in_chunks=True
    )
    _, received = stage.forwarded(request)
    assert sent(received) == lines(*OWN, ("transfer-encoding", "chunked"))
    assert received.size == 100_000


@pytest.mark.parametrize(
    "connection",
    [
        ["x-fal-runner-hint"],
        ["close, X-Fal-Runner-Hint"],
        ["keep-alive,x-fal-runner-hint ,,"],
        ["keep-alive", "x-fal-runner-hint"],
        ["x-fal-runner-hint", "close"],
    ],
)
def test_fields_that_connection_names_end_here(stage: Stage, connection: list[str]) -> None:
    """What `Connection` names is meant for this hop (RFC 9110, section 7.6.1), in any case and place."""
    fields = [("X-Fal-Runner-Hint", "a"), ("x-fal-tags", "b=c"), *(("Connection", value) for value in connection)]
    _, received = stage.forwarded(proxy_request(key=stage.keys.full, fields=fields))
    entity = [("content-type", "application/json"), ("content-length", "2")]
    assert sent(received) == lines(*OWN, *entity, ("x-fal-tags", "b=c"))


def test_a_named_field_is_not_replaced_by_an_invention(stage: Stage) -> None:
    """Accept and Content-Type that end here leave a gap, not a default; the gateway's own stay, whoever names them."""
    named = "accept, content-type, user-agent, host, authorization, via, x-fal-client-proxy, content-length"
    fields = [("Accept", "a/b"), ("User-Agent", "c"), ("Connection", named)]
    _, received = stage.forwarded(proxy_request(key=stage.keys.full, fields=fields))
    assert sent(received) == lines(*OWN, ("content-length", "2"))


def test_empty_values_pass_as_they_are(stage: Stage) -> None:
    """A field with nothing in it is not the same as none."""
    fields = [("Accept", ""), ("User-Agent", ""), ("x-fal-runner-hint", ""), ("x-fal-tags", " \t ")]
    _, received = stage.forwarded(proxy_request(key=stage.keys.full, fields=fields))
    entity = [("content-type", "application/json"), ("content-length", "2")]
    empty = [("accept", ""), ("user-agent", ""), ("x-fal-runner-hint", ""), ("x-fal-tags", "")]
    assert sent(received) == lines(*OWN, *entity, *empty)


def test_repeated_fields_stay_apart_and_in_order(stage: Stage) -> None:
    """A field that came twice goes on twice, in the order in which it came."""
    fields = [("x-fal-tags", "a=1"), ("If-None-Match", '"1"'), ("x-fal-tags", "b=2"), ("x-fal-tags", "a=1")]
    _, received = stage.forwarded(proxy_request(key=stage.keys.full, fields=fields))
    assert received.head.values(b"x-fal-tags") == [b"a=1", b"b=2", b"a=1"]


def test_compressed_content_passes_undecoded(stage: Stage) -> None:
    """The request's content encoding is the client's and the origin's matter."""
    request = proxy_request(key=stage.keys.full, body=b"\x1f\x8b\x08 not gzip", fields=[("Content-Encoding", "gzip")])
    _, received = stage.forwarded(request)
    assert bytes(received.body) == b"\x1f\x8b\x08 not gzip"
    assert received.head.value(b"content-encoding") == b"gzip"


@pytest.mark.parametrize("host", ["fal.run", "queue.fal.run", "rest.fal.ai"])
def test_the_origin_sees_its_own_host(stage: Stage, host: str) -> None:
    """An override changes where the connection goes, and not the Host."""
    path = "storage/upload/initiate" if host.startswith("rest") else "a/b"
    _, received = stage.forwarded(proxy_request(f"https://{host}/{path}?x=1", key=stage.keys.full))
    assert received.head.value(b"host") == host.encode()
    assert received.target == f"/{path}?x=1".encode()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_the_method_passes_with_and_without_content(stage: Stage, method: str) -> None:
    """The four methods go on as they are, and so does what they carry; handles kept for reuse mix nothing up."""
    for body in (b'{"a":1}', b"", b'{"b":22}'):
        framing = ("Content-Length", str(len(body)))
        head = proxy_head(key=stage.keys.full, method=method, fields=[framing])
        response, received = stage.forwarded(head + body, method=method)
        assert (response.status, received.method, bytes(received.body)) == (200, method, body)


def test_trailers_of_a_request_are_dropped(stage: Stage) -> None:
    """What follows the last chunk does not reach the origin."""
    body = b"2\r\n{}\r\n0\r\nx-fal-late: 1\r\nAuthorization: Key other\r\n\r\n"
    head = proxy_head(key=stage.keys.full, fields=[("Transfer-Encoding", "chunked")])
    _, received = stage.forwarded(head + body)
    assert sent(received) == lines(*OWN, ("content-type", "application/json"), ("transfer-encoding", "chunked"))
    assert bytes(received.body) == b"{}"


def test_the_target_and_the_method_are_not_taken_from_elsewhere(stage: Stage) -> None:
    """Path and query of the gateway's own URL do not leak into the target."""
    request = proxy_request("https://fal.run/a/b", key=stage.keys.full, path="/api/fal/proxy/x/y?secret=1")
    assert stage.forwarded(request)[1].target == b"/a/b"


def test_the_answer_is_what_the_origin_said(stage: Stage) -> None:
    """A status outside of the usual, and its content, pass as they are."""
    for status in (200, 201, 202, 206, 400, 402, 403, 404, 409, 422, 429, 451, 500, 502, 503, 504, 599):
        stage.answer(message(f"HTTP/1.1 {status} As I Like It", [("Content-Length", "3")], b"abc"))
        response = stage.ask(proxy_request(key=stage.keys.full))
        assert (response.status, response.body, response.framing) == (status, b"abc", "length")
    stage.answer(http_response())
