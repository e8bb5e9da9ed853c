"""What the kernel keeps for a connection to an origin is bounded, until its caller has been seen to read."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Final

import pytest

from gateway.upstream import socket_buffers as buffers
from gateway.upstream.interface import Request
from gateway.upstream.pooled_sockets import OriginSocket, borrow
from gateway.upstream.socket_buffers import (
    MOST_FREE,
    MOST_WIDE,
    RECEIVE_BYTES,
    UNSENT_BYTES,
    WIDE_FROM_BYTES,
    FreeBuffers,
    WideBuffers,
)
from tests.harness.messages import http_response, message
from tests.upstream.test_curl import WAIT_SECONDS, Exchange, opened, tell

if TYPE_CHECKING:
    from gateway.upstream.curl import CurlRelay
    from tests.harness.origin import OriginConnection, StartOrigin

LARGE: Final = bytes(8 * 1024 * 1024)
SO_BUF_LOCK: Final = 72  # include/uapi/asm-generic/socket.h
RECEIVE_LOCK: Final = 2


class Reader(Exchange):
    """An exchange of which it can be waited for how much has come."""

    __slots__ = ("_more",)

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def on_answer(self, head: object, pieces: object, *, whole: bool) -> None:
        """Note a part."""
        super().on_answer(head, pieces, whole=whole)
        self._more.set()

    async def received(self, size: int) -> None:
        """Wait until so much has come."""
        while sum(map(len, self.pieces)) < size:
            self._more.clear()
            await asyncio.wait_for(self._more.wait(), WAIT_SECONDS)


def receive_buffer(fd: int) -> int:
    """Return the size of a socket's receive buffer, as the kernel counts it: twice what was asked for."""
    sock = borrow(fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    finally:
        sock.detach()


def only_socket(relay: CurlRelay) -> OriginSocket:
    """Return the one connection of a relay."""
    (found,) = relay.carrier.sockets._of_port.values()
    return found


@pytest.fixture
def _crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if as many connections as may be were left to the kernel already."""
    monkeypatch.setattr(buffers, "MOST_FREE", 0)


@pytest.mark.usefixtures("_crowded")
def test_a_receive_buffer_grows_for_an_answer_that_is_read(start_origin: StartOrigin) -> None:
    """Small at first, larger behind half a MiB, small again when the answer is over."""
    go_on, end = threading.Event(), threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", [("Content-Length", str(3 * len(LARGE) // 8))]))
        connection.send(LARGE[: WIDE_FROM_BYTES // 2])
        assert go_on.wait(10)
        connection.send(LARGE[: len(LARGE) // 4])
        assert end.wait(10)
        connection.send(LARGE[: 3 * len(LARGE) // 8 - len(LARGE) // 4 - WIDE_FROM_BYTES // 2])
        connection.read_request()

    origin = start_origin(script)

    async def story(relay: CurlRelay) -> None:
        exchange = Reader()
        relay.engine.open(Request("POST", f"http://127.0.0.1:{origin.port}/", [], 2, b"{}", repeatable=False), exchange)
        sizes = []
        for received, event in ((WIDE_FROM_BYTES // 2, go_on), (WIDE_FROM_BYTES // 2 + len(LARGE) // 4, end)):
            await exchange.received(received)
            sizes.append(receive_buffer(only_socket(relay).fd))
            event.set()
        await exchange.wait()
        sizes.append(receive_buffer(only_socket(relay).fd))
        assert sizes[0] == sizes[2] == 2 * RECEIVE_BYTES
        assert sizes[1] > 2 * RECEIVE_BYTES

    assert tell(story) == []


def test_an_origin_that_does_not_read_holds_little(start_origin: StartOrigin) -> None:
    """What an upload has in the kernel is bounded, beside what the origin's own kernel takes."""
    end = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_head()
        assert end.wait(10)

    origin = start_origin(script)

    async def story(relay: CurlRelay) -> None:
        exchange = Exchange()
        asked = Request("POST", f"http://127.0.0.1:{origin.port}/", [], len(LARGE), None, repeatable=False)
        transfer = relay.engine.open(asked, exchange)
        given = -1
        while given < transfer.given or transfer.given == 0:  # until nothing more is taken in a tenth of a second
            given = transfer.given
            transfer.feed(LARGE[: UNSENT_BYTES // 2])
            await asyncio.sleep(0.1)
        assert only_socket(relay).unsent_bytes() <= 2 * UNSENT_BYTES
        transfer.abort()
        end.set()

    assert tell(story) == []


def test_few_buffers_are_large_at_once() -> None:
    """What is beyond the bound stays small, and has its turn when another answer has ended."""
    with socket.create_server(("127.0.0.1", 0), backlog=MOST_WIDE + 1) as listener:
        socks = [socket.create_connection(listener.getsockname()) for _ in range(MOST_WIDE + 1)]
        found = [OriginSocket(sock.fileno(), sock.getsockname()[1]) for sock in socks]
        wide = WideBuffers()
        for one in found:
            one.bound_receiving(RECEIVE_BYTES)
            wide.widen(one)
        sizes = [receive_buffer(one.fd) for one in found]
        assert min(sizes[:-1]) > 2 * RECEIVE_BYTES == sizes[-1]
        wide.narrow(found[0])
        wide.widen(found[-1])
        assert receive_buffer(found[0].fd) == 2 * RECEIVE_BYTES < receive_buffer(found[-1].fd)
        for one, sock in zip(found, socks, strict=True):
            one.forget()
            sock.close()


@pytest.mark.usefixtures("_crowded")
def test_a_small_answer_leaves_the_bounds_as_they_are(start_origin: StartOrigin) -> None:
    """The bounds hold from a connection's first request on."""
    origin = start_origin(lambda connection: connection.read_request() and connection.send(http_response()))

    async def story(relay: CurlRelay) -> None:
        _, exchange = opened(relay, origin.port)
        await exchange.wait()
        assert receive_buffer(only_socket(relay).fd) == 2 * RECEIVE_BYTES

    assert tell(story) == []


def test_the_first_connections_are_left_to_the_kernel() -> None:
    """So that a worker that is not crowded is as fast at a distance as the kernel can be; a closed one makes room."""
    with socket.create_server(("127.0.0.1", 0), backlog=MOST_FREE + 2) as listener:
        socks = [socket.create_connection(listener.getsockname()) for _ in range(MOST_FREE + 2)]
        found = [OriginSocket(sock.fileno(), sock.getsockname()[1]) for sock in socks]
        own = receive_buffer(found[0].fd)
        free = FreeBuffers()
        for one in found[:-1]:
            free.bound(one)
        assert {receive_buffer(one.fd) for one in found[:MOST_FREE]} == {own}
        assert receive_buffer(found[MOST_FREE].fd) == 2 * RECEIVE_BYTES
        found[0].forget()
        socks[0].close()
        free.bound(found[-1])
        assert receive_buffer(found[-1].fd) == own
        for one, sock in zip(found[1:], socks[1:], strict=True):
            one.forget()
            sock.close()


def test_a_buffer_that_is_left_to_the_kernel_does_not_grow_for_ever(
    start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's own bound may be 32 MiB: a large one is locked while its answer is read."""
    monkeypatch.setattr(buffers, "MOST_BYTES", 1)

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(message("HTTP/1.1 200 OK", [("Content-Length", str(len(LARGE)))]))
        connection.send(LARGE)
        connection.read_request()

    origin = start_origin(script)

    async def story(relay: CurlRelay) -> None:
        exchange = Exchange()
        relay.engine.open(Request("POST", f"http://127.0.0.1:{origin.port}/", [], 2, b"{}", repeatable=False), exchange)
        await exchange.wait()
        found = only_socket(relay)
        assert found.is_free
        assert found._sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK) == RECEIVE_LOCK

    assert tell(story) == []
