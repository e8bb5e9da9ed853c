"""The private parts of Tornado that the gateway leans on, as they are in the pinned release: red when they change.

Their list: gateway/ingress/stream.py and server.py (`_handle_events`, `_state`, `_handle_connection`), gateway/relay/
curl.py (`_multi`, and what Tornado's `close` does with it).
"""

from __future__ import annotations

import asyncio
import inspect
import socket

import tornado
from tornado.curl_httpclient import CurlAsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.iostream import BaseIOStream, IOStream
from tornado.tcpserver import TCPServer

from gateway.ingress.server import CallerServer
from gateway.ingress.stream import CallerStream

PINNED = "6.6.1"


def parameters(function: object) -> list[str]:
    """Return a function's parameter names."""
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_release_is_the_one_that_was_read() -> None:
    """Another release may have moved what is private: read it again, then change the number here."""
    assert tornado.version == PINNED


def test_the_stream_is_handled_by_the_method_that_is_replaced() -> None:
    """Events come to `_handle_events(fd, events)`, and closing removes the handler where `_state` is set."""
    assert parameters(BaseIOStream._handle_events) == ["self", "fd", "events"]
    source = inspect.getsource(BaseIOStream.close)  # the handler goes where `_state` says that there is one
    assert "if self._state is not None:" in source
    assert "self.io_loop.remove_handler(self.fileno())" in source
    assert CallerStream._handle_events is not IOStream._handle_events


def test_a_stream_begins_without_a_handler() -> None:
    """`_state` is None until the first registration, which `CallerStream.start` does in its place."""

    async def states() -> tuple[object, int]:
        ours, theirs = socket.socketpair()
        with theirs:
            stream = IOStream(ours)
            state = stream._state
            stream.close()
        return state, IOLoop.READ | IOLoop.WRITE | IOLoop.ERROR

    state, mask = asyncio.run(states())
    assert state is None
    assert mask == 0x1D


def test_accepted_connections_come_to_the_method_that_is_replaced() -> None:
    """`TCPServer._handle_connection(connection, address)` is what an accepted socket is given to."""
    assert parameters(TCPServer._handle_connection) == ["self", "connection", "address"]
    assert CallerServer._handle_connection is not TCPServer._handle_connection


def test_the_curl_client_keeps_its_multi_handle_where_it_is_looked_for() -> None:
    """`initialize` makes `_multi` once, without handles of its own when it is asked for none; `close` ends it."""
    made = inspect.getsource(CurlAsyncHTTPClient.initialize)
    assert "self._multi = pycurl.CurlMulti()" in made
    assert "for i in range(max_clients)" in made
    assert "self._multi.close()" in inspect.getsource(CurlAsyncHTTPClient.close)
