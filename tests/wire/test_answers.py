"""How an origin's answer reaches the client: its fields by the contract's list, its content byte for byte."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import chunked, http_response, message, proxy_request

if TYPE_CHECKING:
    from tests.harness.client import Response
    from tests.wire.stage import Stage

JSON: Final = ("Content-Type", "application/json")
PASSED: Final = [
    ("Date", "Sat, 29 Oct 1994 19:43:31 GMT"),
    ("Cache-Control", "private"),
    ("ETag", 'W/"a"'),
    ("Last-Modified", "Sat, 29 Oct 1994 19:43:31 GMT"),
    ("Content-Disposition", "inline"),
    ("Content-Language", "de"),
    ("Content-Range", "bytes 0-1/9"),
    ("Accept-Ranges", "bytes"),
    ("Location", "/elsewhere"),
    ("Retry-After", "7"),
    ("Link", "</a>; rel=next"),
    ("Link", "</b>; rel=prev"),
    ("Vary", "Accept"),
    ("Via", "1.1 fal"),
    ("WWW-Authenticate", "Key"),
    ("X-Fal-Request-Id", "764cabcf"),
    ("x-fal-billable-units", "1.5"),
    ("x-fal-served-from", "a"),
    ("x-fal-served-from", "b"),
    ("X-Custom", "\xe9\xff"),
    ("X-Empty", ""),
    ("x_under_score", "1"),
]
DROPPED: Final = [
    ("Connection", "keep-alive, x-named"),
    ("X-Named", "1"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authenticate", "Basic"),
    ("TE", "gzip"),
    ("Trailer", "x-late"),
    ("Upgrade", "h2c"),
    ("Set-Cookie", "a=1"),
    ("Set-Cookie", "b=2"),
    ("set-cookie2", "c=3"),
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"),
    ("access-control-of-next-year", "1"),
    ("Alt-Svc", 'h3=":443"'),
    ("Strict-Transport-Security", "max-age=31536000"),
    ("Server", "uvicorn"),
    ("X-Gateway-Request-Id", "theirs"),
    ("X-Gateway-Cost-Usd", "0"),
    ("x-gateway-cost-source", "exact"),
    ("X-Gateway-Of-Next-Year", "1"),
]


def answer_to(stage: Stage, answer: bytes, *, method: str = "POST") -> Response:
    """Return what the client reads where the origin says `answer`."""
    stage.answer(answer)
    return stage.ask(proxy_request(key=stage.keys.full, method=method), method=method)


def fields_of(response: Response) -> Counter[tuple[bytes, bytes]]:
    """Return the fields of an answer, less the request id, which it must have once."""
    assert len(response.field("x-gateway-request-id") or "") == 32
    return Counter(field for field in response.head.fields if field[0] != b"x-gateway-request-id")


def lines(*fields: tuple[str, str]) -> Counter[tuple[bytes, bytes]]:
    """Return fields as the client must see them."""
    return Counter((name.lower().encode(), value.encode("latin-1")) for name, value in fields)


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
def test_all_but_the_listed_fields_reach_the_client(stage: Stage, content_type: str) -> None:
    """Connection fields, cookies and what speaks for the origin's host stay behind; all else passes, repeats too."""
    kind = ("Content-Type", content_type)
    response = answer_to(stage, http_response(b"{}", fields=[kind, *PASSED, *DROPPED]))
    assert fields_of(response) == lines(kind, ("Content-Length", "2"), ("Vary", "Origin"), *PASSED)
    served = [value for name, value in response.head.fields if name == b"x-fal-served-from"]
    assert served == [b"a", b"b"]


def test_answers_of_its_own_are_dated(stage: Stage) -> None:
    """RFC 9110, section 6.6.1."""
    own = [stage.ask(proxy_request()), stage.ask(proxy_request(key=stage.keys.full, path="/elsewhere"))]
    for response in (*own, stage.ask(proxy_request(method="OPTIONS"), method="OPTIONS")):
        told = parsedate_to_datetime(response.field("date") or "")
        assert abs((datetime.now(UTC) - told).total_seconds()) < 60


def test_each_answer_has_an_id_of_its_own(stage: Stage) -> None:
    """No two answers share `x-gateway-request-id`, and the log knows each."""
    answers = [answer_to(stage, http_response()) for _ in range(5)]
    assert len({answer.field("x-gateway-request-id") for answer in answers}) == 5
    assert {stage.event_of(answer)["outcome"] for answer in answers} == {"ok"}


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "made-up"])
def test_encoded_content_passes_byte_for_byte(stage: Stage, encoding: str, content_type: str) -> None:
    """Nothing is decoded: encoding, length and bytes are the origin's, also where they are no gzip at all."""
    body = bytes(range(256)) * 9
    fields = [("Content-Type", content_type), ("Content-Encoding", encoding)]
    response = answer_to(stage, http_response(body, fields=fields))
    assert (response.field("content-encoding"), response.field("content-length")) == (encoding, str(len(body)))
    assert (response.body, response.framing) == (body, "length")


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_redirects_are_passed_on_and_not_followed(stage: Stage, status: int, method: str) -> None:
    """Status and Location reach the client, and the origin is asked once."""
    stage.answer(http_response(b"moved", status, fields=[("Location", "https://fal.run/elsewhere")]))
    response, received = stage.forwarded(proxy_request(key=stage.keys.full, method=method), method=method)
    assert (response.status, response.field("location")) == (status, "https://fal.run/elsewhere")
    assert (response.body, received.target) == (b"moved", b"/fal-ai/flux/dev")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nx-fal-a: 1\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\nx-fal-a: 1\r\n\r\n",
        b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nx-fal-a: 1\r\n\r\n',
        b"HTTP/1.1 304 Not Modified\r\nContent-Type: application/json\r\nContent-Length: 99\r\nx-fal-a: 1\r\n\r\n",
    ],
)
def test_answers_without_content_keep_the_connections_in_step(stage: Stage, answer: bytes) -> None:
    """204 and 304 end with their head, whatever it says; the next answer on both connections is the next one."""
    with RawClient(stage.gateway.port) as client:
        for _ in range(3):
            stage.answer(answer)
            client.send(proxy_request(key=stage.keys.full))
            response = client.read_response()
            assert (response.status, response.framing) == (int(answer[9:12]), "none")
            assert response.field("x-fal-a") == "1"
            stage.answer(http_response(b'"next"'))
            assert client.ask(proxy_request(key=stage.keys.full)).body == b'"next"'


def test_interim_answers_are_dropped(stage: Stage) -> None:
    """100, 102 and 103 of the origin are between it and the gateway; what they carry does not mix with the answer."""
    interim = b"".join(
        message(f"HTTP/1.1 {status} Soon", [("Link", "</early>"), ("x-fal-early", "1")])
        for status in (100, 102, 103, 103)
    )
    response = answer_to(stage, interim + http_response(b"{}"))
    assert (response.status, response.interim, response.json()) == (200, (), {})
    assert fields_of(response) == lines(JSON, ("Content-Length", "2"), ("Vary", "Origin"))


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
def test_trailers_are_dropped(stage: Stage, content_type: str) -> None:
    """What the origin says behind its last chunk ends here, and the connection stays in step."""
    late = b"x-fal-late: 1\r\nSet-Cookie: a=1\r\n\r\n"
    whole = message(
        "HTTP/1.1 200 OK",
        [("Transfer-Encoding", "chunked"), ("Content-Type", content_type)],
        chunked(b"{}")[: -len(b"\r\n")] + late,
    )
    stage.answer(whole)
    with RawClient(stage.gateway.port) as client:
        for _ in range(2):
            response = client.ask(proxy_request(key=stage.keys.full))
            assert response.body == b"{}"
            assert response.field("x-fal-late") is None


def test_a_held_answer_gets_a_true_length(stage: Stage) -> None:
    """A paid JSON answer that came in chunks is sent whole, with its length; other content goes on in chunks."""
    held = answer_to(stage, http_response(b'{"a":1}', fields=[JSON], in_chunks=True))
    assert (held.framing, held.field("content-length"), held.body) == ("length", "7", b'{"a":1}')
    passing = answer_to(stage, http_response(b"abc", fields=[("Content-Type", "image/png")], in_chunks=True))
    assert (passing.framing, passing.field("content-length"), passing.body) == ("chunked", None, b"abc")


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
def test_an_answer_that_ends_with_its_connection_is_framed_anew(stage: Stage, content_type: str) -> None:
    """Where the origin's end is its close, the client still gets content whose end it can see."""
    answer = message("HTTP/1.1 200 OK", [("Connection", "close"), ("Content-Type", content_type)], b"[1]")
    response = answer_to(stage, answer)
    assert response.body == b"[1]"
    assert response.framing == ("length" if content_type == JSON[1] else "chunked")


@pytest.mark.parametrize(
    "own",
    [[], [("Cache-Control", "public, max-age=60"), ("X-Accel-Buffering", "yes"), ("CACHE-CONTROL", "x")]],
    ids=["bare", "with its own"],
)
@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_event_streams_are_not_to_be_held_back(stage: Stage, content_type: str, own: list[tuple[str, str]]) -> None:
    """Event streams say so to every proxy on their way, once, whatever the origin said."""
    fields = [("Content-Type", content_type), *own]
    response = answer_to(stage, http_response(b"data: 1\n\n", fields=fields, in_chunks=True))
    said = [("X-Accel-Buffering", "no"), ("Cache-Control", "no-cache")]
    framing = ("Transfer-Encoding", "chunked")
    assert fields_of(response) == lines(("Content-Type", content_type), framing, ("Vary", "Origin"), *said)
    assert response.body == b"data: 1\n\n"


def test_other_answers_keep_their_caching(stage: Stage) -> None:
    """Only event streams are given these fields."""
    response = answer_to(stage, http_response(fields=[JSON, ("Cache-Control", "max-age=60")]))
    assert (response.field("cache-control"), response.field("x-accel-buffering")) == ("max-age=60", None)


@pytest.mark.parametrize(
    "line", [b"x fal: 1", b": nameless", b"x-fal(a): 1", b"x-fal-a\t: 1", b"x-fal-\xe9: 1", b"x-fal-a : 1"], ids=ascii
)
def test_what_is_no_field_does_not_reach_the_client(stage: Stage, line: bytes) -> None:
    """A line that a strict parser refuses is dropped; the rest of the head is whole."""
    response = answer_to(stage, http_response(fields=[JSON]).replace(b"Content-T", line + b"\r\nContent-T"))
    assert (response.status, response.body) == (200, b'{"ok":true}')
    assert fields_of(response) == lines(JSON, ("Content-Length", "11"), ("Vary", "Origin"))


def test_a_folded_field_does_not_reach_the_client_folded(stage: Stage) -> None:
    """A field over two lines is one line or none for the client (RFC 9112, section 5.2)."""
    response = answer_to(stage, http_response(fields=[("x-fal-a", "1\r\n folded"), ("x-fal-b", "2"), JSON]))
    assert (response.status, response.field("x-fal-a"), response.field("x-fal-b")) == (200, "1 folded", "2")
    assert (
        fields_of(response).keys()
        <= lines(JSON, ("Content-Length", "11"), ("Vary", "Origin"), ("x-fal-a", "1 folded"), ("x-fal-b", "2")).keys()
    )
