"""Request smuggling (RFC 9112, section 11.2) and heads beyond their bounds: one reading of every request, or none.

Each hostile request here carries a second one inside it, for whoever reads its framing in another way.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import proxy_head, proxy_request
from tests.wire.stage import assert_problem

if TYPE_CHECKING:
    from tests.wire.stage import Stage

SMUGGLED: Final = "https://fal.run/smuggled"
LENGTH: Final = b"Content-Length: 2\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
EMPTY: Final = b"0\r\n\r\n"

HEADS: Final = {
    "CL.TE": (b"Content-Length: 5\r\n" + CHUNKED, EMPTY),
    "TE.CL": (CHUNKED + b"Content-Length: 5\r\n", EMPTY),
    "TE.CL of nothing": (CHUNKED + b"Content-Length: 0\r\n", EMPTY),
    "the same length twice": (LENGTH * 2, b"{}"),
    "two lengths": (LENGTH + b"Content-Length: 3\r\n", b"{}"),
    "a list of lengths": (b"Content-Length: 2, 2\r\n", b"{}"),
    "a length with a sign": (b"Content-Length: +2\r\n", b"{}"),
    "a negative length": (b"Content-Length: -2\r\n", b"{}"),
    "a hexadecimal length": (b"Content-Length: 0x2\r\n", b"{}"),
    "a length with a point": (b"Content-Length: 2.0\r\n", b"{}"),
    "a length in quotes": (b'Content-Length: "2"\r\n', b"{}"),
    "a length with a blank inside": (b"Content-Length: 1 0\r\n", b"{}"),
    "an empty length": (b"Content-Length:\r\n", b"{}"),
    "a length beyond 64 bits": (b"Content-Length: 18446744073709551618\r\n", b"{}"),
    "a length of letters": (b"Content-Length: two\r\n", b"{}"),
    "a folded field": (b"X-A: b\r\n c\r\n" + LENGTH, b"{}"),
    "a folded coding": (b"Transfer-Encoding:\r\n chunked\r\n", EMPTY),
    "a folded length": (b"Content-Length:\r\n 2\r\n", b"{}"),
    "a folded first field": (b" X-A: b\r\n" + LENGTH, b"{}"),
    "a bare LF behind a field": (b"X-A: b\n" + LENGTH, b"{}"),
    "a bare LF at the end of the head": (LENGTH[:-2] + b"\n\n", b"{}"),
    "a bare LF as an empty line": (LENGTH + b"\n", b"{}"),
    "a bare CR in a value": (b"X-A: b\rX-B: c\r\n" + LENGTH, b"{}"),
    "a bare CR behind a field": (b"X-A: b\r" + LENGTH, b"{}"),
    "NUL in a value": (b"X-A: b\0c\r\n" + LENGTH, b"{}"),
    "NUL in a name": (b"X\0A: b\r\n" + LENGTH, b"{}"),
    "a control in a value": (b"X-A: b\x0bc\r\n" + LENGTH, b"{}"),
    "DEL in a value": (b"X-A: b\x7fc\r\n" + LENGTH, b"{}"),
    "a blank before the colon of a length": (b"Content-Length : 2\r\n", b"{}"),
    "a tab before the colon of a coding": (b"Transfer-Encoding\t: chunked\r\n", EMPTY),
    "a blank before the colon of a coding": (b"Transfer-Encoding : chunked\r\n", EMPTY),
    "a blank in a name": (b"X A: b\r\n" + LENGTH, b"{}"),
    "no colon": (b"X-A\r\n" + LENGTH, b"{}"),
    "no name": (b": b\r\n" + LENGTH, b"{}"),
    "a name beyond ASCII": (b"X-\xe9: b\r\n" + LENGTH, b"{}"),
    "a parenthesis in a name": (b"X-(A): b\r\n" + LENGTH, b"{}"),
    "gzip, chunked": (b"Transfer-Encoding: gzip, chunked\r\n", EMPTY),
    "gzip and chunked apart": (b"Transfer-Encoding: gzip\r\n" + CHUNKED, EMPTY),
    "chunked, gzip": (b"Transfer-Encoding: chunked, gzip\r\n", EMPTY),
    "gzip alone": (b"Transfer-Encoding: gzip\r\n", EMPTY),
    "identity": (b"Transfer-Encoding: identity\r\n", EMPTY),
    "nearly chunked": (b"Transfer-Encoding: xchunked\r\n", EMPTY),
    "chunked twice": (CHUNKED * 2, EMPTY),
    "chunked, chunked": (b"Transfer-Encoding: chunked, chunked\r\n", EMPTY),
    "chunked and identity": (CHUNKED + b"Transfer-Encoding: identity\r\n", EMPTY),
    "identity and chunked": (b"Transfer-Encoding: identity\r\n" + CHUNKED, EMPTY),
    "a coding behind a control": (b"Transfer-Encoding: \x0bchunked\r\n", EMPTY),
    "a coding in quotes": (b'Transfer-Encoding: "chunked"\r\n', EMPTY),
    "a coding with a parameter": (b"Transfer-Encoding: chunked;a=b\r\n", EMPTY),
    "a coding and a comma": (b"Transfer-Encoding: chunked,\r\n", EMPTY),
    "a comma and a coding": (b"Transfer-Encoding: ,chunked\r\n", EMPTY),
    "an empty coding": (b"Transfer-Encoding:\r\n", EMPTY),
    "a length and an upgrade with chunks": (b"Connection: upgrade\r\nUpgrade: h2c\r\n" + LENGTH + CHUNKED, EMPTY),
}
"""Framing fields that are refused with the head: the origin hears nothing at all."""

CHUNKS: Final = {
    "a prefix": b"0x2\r\n{}\r\n" + EMPTY,
    "a sign": b"+2\r\n{}\r\n" + EMPTY,
    "a negative size": b"-2\r\n{}\r\n" + EMPTY,
    "a blank behind the size": b"2 \r\n{}\r\n" + EMPTY,
    "a blank before the size": b" 2\r\n{}\r\n" + EMPTY,
    "an underscore": b"0_2\r\n{}\r\n" + EMPTY,
    "no size": b"\r\n{}\r\n" + EMPTY,
    "no size but an extension": b";a=b\r\n{}\r\n" + EMPTY,
    "a size beyond 64 bits": b"10000000000000002\r\n{}\r\n" + EMPTY,
    "LF behind the size": b"2\n{}\r\n" + EMPTY,
    "CR behind the size": b"2\r{}\r\n" + EMPTY,
    "LF behind the data": b"2\r\n{}\n" + EMPTY,
    "data longer than its size": b"2\r\n{}x\r\n" + EMPTY,
    "data shorter than its size": b"3\r\n{}\r\n" + EMPTY,
    "LF in an extension": b"2;a\n{}\r\n" + EMPTY,
    "CR in an extension": b"2;a\rb\r\n{}\r\n" + EMPTY,
    "LF behind the last chunk": b"2\r\n{}\r\n0\n\n",
    "LF behind the trailers": b"2\r\n{}\r\n0\r\n\n",
    "a blank in a trailer's name": b"2\r\n{}\r\n0\r\nX : y\r\n\r\n",
    "a length as a trailer": b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a coding as a trailer": b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a folded trailer": b"2\r\n{}\r\n0\r\nX: y\r\n z\r\n\r\n",
    "NUL in a trailer": b"2\r\n{}\r\n0\r\nX: \0\r\n\r\n",
}
"""Chunks that are refused as they come: the origin never has a whole request."""

VERSIONS: Final = (
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"HTTP/0.9",
    b"HTTP/1.10",
    b"HTTP/1",
    b"http/1.1",
    b"HTTPS/1.1",
    b"ICY/1.0",
)


def smuggled(stage: Stage) -> bytes:
    """Return the request that another reading would bring to light."""
    return proxy_request(SMUGGLED, key=stage.keys.full)


def head_with(stage: Stage, fields: bytes) -> bytes:
    """Return a request's head with these field lines, byte for byte, at its end."""
    return proxy_head(key=stage.keys.full).removesuffix(b"\r\n") + fields + b"\r\n"


def assert_refused(stage: Stage, data: bytes, *, status: int = 400, error_type: str = "request_invalid") -> None:
    """Check that the one answer to this is a refusal, that the connection ends, and that nothing was executed."""
    before = len(stage.origin.requests)
    with RawClient(stage.gateway.port) as client:
        with suppress(OSError):  # it may be refused before it is sent whole
            client.send(data)
        assert_problem(client.read_response(), status, error_type)
        assert client.left_by_peer()
    assert stage.ask(proxy_request("https://fal.run/barrier", key=stage.keys.full)).status == 200
    seen = [(received.target, received.whole) for received in stage.origin.requests[before:]]
    assert (b"/barrier", True) in seen
    assert not [target for target, whole in seen if target != b"/barrier" and (whole or target == b"/smuggled")]


@pytest.mark.parametrize("name", HEADS)
def test_a_head_with_two_readings_has_none(stage: Stage, name: str) -> None:
    """Doubtful framing is 400 and the end of the connection, and what hides behind it is never a request."""
    fields, content = HEADS[name]
    assert_refused(stage, head_with(stage, fields) + content + smuggled(stage))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_with_two_readings_is_refused_before_its_content(stage: Stage, name: str) -> None:
    """The head alone is enough, and the origin is not even connected to."""
    fields, _ = HEADS[name]
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        assert_problem(client.ask(head_with(stage, fields) + b"\r\n"), 400, "request_invalid")


@pytest.mark.parametrize("name", CHUNKS)
def test_odd_chunks_are_never_a_whole_request(rough_stage: Stage, name: str) -> None:
    """A chunk that two parsers could measure in two ways ends the request and the connection."""
    assert_refused(rough_stage, head_with(rough_stage, CHUNKED) + CHUNKS[name] + smuggled(rough_stage))


@pytest.mark.parametrize("name", CHUNKS)
def test_odd_chunks_byte_by_byte(rough_stage: Stage, name: str) -> None:
    """The same, in segments of a byte each, when the request is on its way to the origin already."""
    data = CHUNKS[name] + smuggled(rough_stage)
    before = len(rough_stage.origin.requests)
    with RawClient(rough_stage.gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(head_with(rough_stage, CHUNKED))
        for byte in data:
            client.send(bytes((byte,)))
        assert_problem(client.read_response(), 400, "request_invalid")
        assert client.left_by_peer()
    assert not [received for received in rough_stage.origin.requests[before:] if received.whole]


def test_http_10_knows_no_chunks(stage: Stage) -> None:
    """Transfer-Encoding in HTTP/1.0 is faulty framing (RFC 9112, section 6.1)."""
    request = head_with(stage, CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    assert_refused(stage, request + EMPTY + smuggled(stage))


@pytest.mark.parametrize("version", VERSIONS)
def test_other_versions_are_refused(stage: Stage, version: bytes) -> None:
    """HTTP/1.1 and HTTP/1.0 are all that is spoken."""
    assert_refused(stage, proxy_request(key=stage.keys.full).replace(b"HTTP/1.1", version, 1) + smuggled(stage))


@pytest.mark.parametrize(
    "start", [b"GET /api/fal/proxy", b"POST\t/api/fal/proxy HTTP/1.1", b"POST /api/fal/proxy\tHTTP/1.1"]
)
def test_odd_request_lines_are_refused(stage: Stage, start: bytes) -> None:
    """HTTP/0.9, and tabs for blanks."""
    request = proxy_request(key=stage.keys.full).replace(b"POST /api/fal/proxy HTTP/1.1", start, 1)
    assert_refused(stage, request + smuggled(stage))


def test_bare_line_feeds_throughout_are_refused(stage: Stage) -> None:
    """A head in LF alone is none."""
    assert_refused(stage, head_with(stage, LENGTH).replace(b"\r\n", b"\n") + b"{}" + smuggled(stage))


def test_the_preface_of_http_2_is_refused(stage: Stage) -> None:
    """A client with prior knowledge of HTTP/2 learns that this is not it."""
    assert_refused(stage, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


@pytest.mark.parametrize(
    "garbage",
    [b"\0\1\2", b"BREW / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"POST /api/fal/proxy HTTP/3.0\r\n\r\n"],
    ids=ascii,
)
def test_garbage_behind_a_good_request_harms_only_itself(stage: Stage, garbage: bytes) -> None:
    """The good one is executed and answered, then the rest is refused and the connection ends."""
    before = len(stage.origin.executions)
    with RawClient(stage.gateway.port) as client:
        client.send(proxy_request(key=stage.keys.full) + garbage + smuggled(stage))
        assert client.read_response().status == 200
        assert_problem(client.read_response(), 400, "request_invalid")
        assert client.left_by_peer()
    assert [received.target for received in stage.origin.executions[before:]] == [b"/fal-ai/flux/dev"]


@pytest.mark.parametrize(
    "fields",
    [
        b"X-A: " + b"a" * 16_400 + b"\r\n",
        b"X-" + b"a" * 16_400 + b": a\r\n",
        b"X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 99 + b"X-A: " + b"a" * 16_000 + b"\r\n",
        b"X-A:\r\n" * 101,
        b"X-A: " + b"a" * 400_000 + b"\r\n",
        b"A:\r\n" * 15_000,
    ],
    ids=["value", "name", "sum", "many", "huge", "a flood"],
)
def test_a_head_beyond_its_bounds_is_431(stage: Stage, fields: bytes) -> None:
    """16 KiB and 100 fields are the most, with a valid key too."""
    data = head_with(stage, fields + LENGTH) + b"{}" + smuggled(stage)
    assert_refused(stage, data, status=431, error_type="head_too_large")


def test_a_head_within_its_bounds_passes(stage: Stage) -> None:
    """Just under both bounds a request is served."""
    for fields in (b"X-A: " + b"a" * 15_900 + b"\r\n", b"X-A:\r\n" * 94):
        assert stage.ask(head_with(stage, fields + LENGTH) + b"{}").status == 200


@pytest.mark.parametrize("head", [b"GET /" + b"a" * 20_000, b"GET / HTTP/1.1\r\nX-A: " + b"a" * 90_000])
def test_a_head_without_an_end_is_refused_on_the_way(stage: Stage, head: bytes) -> None:
    """What grows beyond the bound is refused before it ends, in whatever pieces it comes."""
    with stage.untouched(), RawClient(stage.gateway.port) as client:
        for at in range(0, len(head), 5000):
            client.send(head[at : at + 5000])
        assert_problem(client.read_response(), 431, "head_too_large")
        assert client.left_by_peer()


def test_trailers_count_as_head(rough_stage: Stage) -> None:
    """Fields behind the last chunk are bounded like those before the first."""
    body = b"2\r\n{}\r\n0\r\n" + b"X-A: aaaaaaaaaaaaaaaa\r\n" * 1000 + b"\r\n"
    assert_refused(rough_stage, head_with(rough_stage, CHUNKED) + body, status=431, error_type="head_too_large")
