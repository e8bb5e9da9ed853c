"""HTTP/1.1 as a good client speaks it (RFC 9112): kept connections, pipelining, every framing, pieces of any size."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

from tests.harness.client import RawClient
from tests.harness.messages import chunked, http_response, message, proxy_head, proxy_request
from tests.harness.waiting import until
from tests.wire.stage import MOST_BYTES, assert_problem

if TYPE_CHECKING:
    from tests.harness.origin import Received
    from tests.wire.stage import Stage

PIPELINED: Final = 50
FLOOD_ANSWERS: Final = 600
FLOOD_BOUND_BYTES: Final = 16 * 1024 * 1024


def echo(request: Received) -> bytes:
    """Answer with the target, and with the digest of the content."""
    return http_response(request.target + b" " + request.sha256[:8].encode(), fields=[("Content-Type", "text/plain")])


def numbered(stage: Stage, number: int) -> tuple[bytes, str, int]:
    """Return the request of this number in a mixed row, its method, and the status that it must get."""
    target, key = f"https://fal.run/a/n{number}", stage.keys.full
    kinds = (
        (proxy_request(target, key=key), "POST", 200),
        (proxy_request(target, key=key, method="GET", content_type=None), "GET", 200),
        (proxy_request(target, key=None, body=b"x" * 300), "POST", 401),
        (proxy_request(target, key=key, body=b"y" * 1000, in_chunks=True), "POST", 200),
        (message("OPTIONS /api/fal/proxy HTTP/1.1", [("Host", "gateway.test")]), "OPTIONS", 204),
        (proxy_request(target, key=key, method="HEAD", content_type=None), "HEAD", 405),
        (proxy_request(target, key=key, path="/nowhere"), "POST", 404),
        (b"\r\n" + proxy_request(target, key=key, method="PUT", body=b"z" * 70_000), "PUT", 200),
        (proxy_request("https://fal.run/a/../b", key=key), "POST", 412),
        (proxy_request(target, key=key, method="DELETE"), "DELETE", 200),
    )
    return kinds[number % len(kinds)]


def test_a_row_of_pipelined_requests_is_answered_in_order(stage: Stage) -> None:
    """Fifty requests of all kinds, sent at once, get their own answers in their own order, and are sent on in order."""
    stage.answer(echo)
    row = [numbered(stage, number) for number in range(PIPELINED)]
    before = len(stage.origin.executions)
    with RawClient(stage.gateway.port) as client:
        sender = threading.Thread(target=client.send, args=(b"".join(request for request, _, _ in row),))
        sender.start()
        for number, (_, method, status) in enumerate(row):
            response = client.read_response(method)
            assert response.status == status, number
            if status == 200:
                assert response.body.startswith(b"/a/n%d " % number)
        sender.join()
    targets = [received.target for received in stage.origin.executions[before:]]
    assert targets == [b"/a/n%d" % number for number, (_, _, status) in enumerate(row) if status == 200]


def test_a_kept_connection_serves_one_after_the_other(stage: Stage) -> None:
    """The same row, each request after the answer before it, on one connection."""
    stage.answer(echo)
    with RawClient(stage.gateway.port) as client:
        for number in range(20):
            request, method, status = numbered(stage, number)
            client.send(request)
            assert client.read_response(method).status == status, number


def test_pipelining_holds_the_client_and_not_the_memory(stage: Stage) -> None:
    """A client that sends without end is read no faster than it is answered, whatever mix of answers it gets."""
    pair = proxy_request() + proxy_request("https://fal.run/a/b", key=stage.keys.full)
    sent = 0
    with RawClient(stage.gateway.port) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)

        def flood() -> None:
            nonlocal sent
            with suppress(OSError):  # ends when the test has seen enough
                while True:
                    client.send(pair * 50)
                    sent += len(pair * 50)

        sender = threading.Thread(target=flood)
        sender.start()
        for _ in range(FLOOD_ANSWERS):
            assert [client.read_response().status for _ in range(2)] == [401, 200]
        ahead = sent - FLOOD_ANSWERS * len(pair)
        client.socket.shutdown(socket.SHUT_RDWR)
        sender.join()
    until(lambda: stage.gateway.metrics().value("inflight_requests") == 0, "the last of the flood")
    assert ahead < FLOOD_BOUND_BYTES


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
def test_requests_may_come_byte_by_byte(stage: Stage, in_chunks: bool) -> None:  # noqa: FBT001
    """However a request is cut into segments, it is one request."""
    request = proxy_request(key=stage.keys.full, body=b'{"prompt": "a cat"}', in_chunks=in_chunks)
    with RawClient(stage.gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            before = len(stage.origin.executions)
            for byte in request:
                client.send(bytes((byte,)))
            assert client.read_response().status == 200
            (received,) = stage.origin.executions[before:]
            assert bytes(received.body) == b'{"prompt": "a cat"}'


def test_a_request_may_be_cut_anywhere(stage: Stage) -> None:
    """Each place to cut a chunked request in two, a second one behind it, gives the same two answers."""
    body = b"1\r\n{\r\n1;a=b\r\n}\r\n0\r\nx-late: 1\r\n\r\n"
    first = proxy_head(key=stage.keys.full, fields=[("Transfer-Encoding", "chunked")]) + body
    row = first + proxy_request("https://fal.run/second", key=stage.keys.full)
    with RawClient(stage.gateway.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        before = len(stage.origin.executions)
        for at in range(1, len(row)):
            client.send(row[:at])
            client.send(row[at:])
            assert [client.read_response().status for _ in range(2)] == [200, 200], row[:at]
    assert {bytes(received.body) for received in stage.origin.executions[before:]} == {b"{}"}


def test_a_head_in_two_reads_may_have_its_content_behind_it(stage: Stage) -> None:
    """The bound on a head counts the head: content that comes in the same read as the head's end is not part of it."""
    request = proxy_request(key=stage.keys.full, body=b"x" * 50_000)
    with RawClient(stage.gateway.port) as client:
        for at in (5, 100, 200):
            client.send(request[:at])
            until(lambda: not unread(client), "the first part is read")
            client.send(request[at:])
            assert client.read_response().status == 200
            assert client.ask(proxy_request(key=stage.keys.full)).status == 200


def unread(client: RawClient) -> int:
    """Return how many bytes that were sent the peer's kernel has not acknowledged yet."""
    return int.from_bytes(fcntl.ioctl(client.socket, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 262_145, MOST_BYTES])
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
def test_content_of_any_size_arrives_whole(stage: Stage, size: int, in_chunks: bool) -> None:  # noqa: FBT001
    """Around every bound on the way (gathered, streamed, held back) not a byte is lost."""
    body = bytes(range(251)) * (size // 251 + 1)
    request = proxy_request(key=stage.keys.full, body=body[:size], in_chunks=in_chunks)
    response, received = stage.forwarded(request)
    assert (response.status, received.size) == (200, size)
    assert bytes(received.body) == body[: min(size, 1 << 20)]


@pytest.mark.parametrize("piece", [1, 7, 65_536])
def test_chunks_of_any_size_are_content(stage: Stage, piece: int) -> None:
    """Sizes, their case and leading zeros, and extensions do not matter."""
    body = b"0123456789abcdef" * 5
    coded = chunked(body, size=piece).replace(b"\r\n", b";a=b\r\n", 1)
    head = proxy_head(key=stage.keys.full, fields=[("transfer-encoding", "Chunked")])
    response, received = stage.forwarded(head + b"000" + coded.replace(b"50;", b"0050;"))
    assert (response.status, bytes(received.body)) == (200, body)


def test_close_is_honoured(stage: Stage) -> None:
    """A client that says it leaves is told so too, and the connection ends behind its answer, refused or not."""
    for key, status in ((stage.keys.full, 200), (None, 401)):
        with RawClient(stage.gateway.port) as client:
            response = client.ask(proxy_request(key=key, fields=[("Connection", "close")]))
            assert (response.status, response.field("connection")) == (status, "close")
            assert client.left_by_peer()


def test_what_follows_close_is_not_read(stage: Stage) -> None:
    """A request behind one that said `Connection: close` is not executed."""
    before = len(stage.origin.requests)
    with RawClient(stage.gateway.port) as client:
        last = proxy_request(key=stage.keys.full, fields=[("Connection", "close")])
        client.send(last + proxy_request("https://fal.run/more", key=stage.keys.full))
        assert client.read_response().status == 200
        assert client.left_by_peer()
    assert [received.target for received in stage.origin.requests[before:]] == [b"/fal-ai/flux/dev"]


def http_10(request: bytes) -> bytes:
    """Return the request in the older version."""
    return request.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


def test_an_http_10_client_is_answered_and_left(stage: Stage) -> None:
    """Without a word on it, HTTP/1.0 ends with the answer; it needs no Host."""
    with RawClient(stage.gateway.port) as client:
        response = client.ask(http_10(proxy_request(key=stage.keys.full)).replace(b"Host: gateway.test\r\n", b""))
        assert (response.status, response.framing, response.field("connection")) == (200, "length", "close")
        assert client.left_by_peer()


def test_an_http_10_client_may_stay(stage: Stage) -> None:
    """With keep-alive it is told that it may stay, and may."""
    with RawClient(stage.gateway.port) as client:
        for key, status in ((stage.keys.full, 200), (None, 401), (stage.keys.full, 200)):
            response = client.ask(http_10(proxy_request(key=key, fields=[("Connection", "keep-alive")])))
            assert (response.status, response.field("connection")) == (status, "keep-alive")


def test_an_http_10_client_gets_content_of_unknown_length_up_to_the_close(stage: Stage) -> None:
    """Chunks are not HTTP/1.0's: the end is the connection's, also for one that wanted to stay."""
    stage.answer(http_response(b"abc" * 1000, fields=[("Content-Type", "image/png")], in_chunks=True))
    with RawClient(stage.gateway.port) as client:
        response = client.ask(http_10(proxy_request(key=stage.keys.full, fields=[("Connection", "keep-alive")])))
        assert (response.framing, response.body, response.field("connection")) == ("close", b"abc" * 1000, "close")


@pytest.mark.parametrize(
    "front",
    [
        "http://gateway.test",
        "http://127.0.0.1:8080",
        "http://other.example",
        "HTTP://GATEWAY.test",
        "https://gateway.test",
        "Https://Gateway.Test:443",
    ],
)
def test_the_absolute_form_is_understood(stage: Stage, front: str) -> None:
    """A request target with scheme and host, in any case, is served by its path (RFC 9112, section 3.2.2)."""
    path = f"{front}/api/fal/proxy"
    assert stage.ask(proxy_request(key=stage.keys.full, path=f"{path}/sub?a=b")).status == 200
    with stage.untouched():
        assert_problem(stage.ask(proxy_request(key=stage.keys.full, path=f"{path}x")), 404, "path_unknown")


def test_an_account_is_found_by_the_absolute_form(stage: Stage) -> None:
    """What holds for the proxy's path holds for all paths."""
    request = proxy_request(key=stage.keys.full, method="GET", path="HTTP://Gateway.test/api/fal/usage")
    assert stage.ask(request, method="GET").json()["key"] == stage.keys.full.id


@pytest.mark.parametrize("framing", ["length", "chunks", "none"])
def test_an_offer_of_another_protocol_is_passed_over(stage: Stage, framing: str) -> None:
    """`Upgrade: h2c` is served in HTTP/1.1, content and all, and so is what is pipelined behind it."""
    offer = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAA")]
    method = "GET" if framing == "none" else "POST"
    request = proxy_request(key=stage.keys.full, method=method, fields=offer, in_chunks=framing == "chunks")
    stage.answer(echo)
    before = len(stage.origin.executions)
    with RawClient(stage.gateway.port) as client:
        client.send(request + proxy_request("https://fal.run/second", key=stage.keys.full) + request)
        answers = [client.read_response(method) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    seen = [(received.target, received.size) for received in stage.origin.executions[before:]]
    size = 0 if framing == "none" else 2
    assert seen == [(b"/fal-ai/flux/dev", size), (b"/second", 2), (b"/fal-ai/flux/dev", size)]


def test_an_unknown_expectation_is_no_reason_to_wait(stage: Stage) -> None:
    """Only 100-continue is known; others are ignored, as HTTP/1.0's are, and none goes to the origin."""
    for request in (
        proxy_request(key=stage.keys.full, fields=[("Expect", "the-unexpected")]),
        http_10(proxy_request(key=stage.keys.full, fields=[("Expect", "100-continue")])),
    ):
        response, received = stage.forwarded(request)
        assert (response.status, response.interim, received.head.value(b"expect")) == (200, (), None)


def test_the_log_knows_each_pipelined_request(stage: Stage) -> None:
    """Every request of a row has one event of its own."""
    row = proxy_request(key=stage.keys.full) * 5
    with RawClient(stage.gateway.port) as client:
        client.send(row)
        ids = [client.read_response().field("x-gateway-request-id") for _ in range(5)]
    events = stage.gateway.events
    until(lambda: {event["request_id"] for event in events("exchange")} >= set(ids), "all five events")
    assert [event["request_id"] for event in events("exchange") if event["request_id"] in ids] == ids
