"""An event stream that can't be got through by waiting: its origin sends an event once the one before has arrived.

So a proxy that holds events back stops it at the first one, on a fast machine as on a slow one, and no time needs to be
measured.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Self

from tests.harness.client import RawClient
from tests.harness.messages import http_response, message, proxy_request
from tests.harness.wire import Malformed, Truncated

if TYPE_CHECKING:
    from tests.harness.origin import OriginConnection, ScriptedOrigin, StartOrigin
    from tests.harness.policy import GatewayKey

EVENTS: Final = 5
HEAD: Final = message("HTTP/1.1 200 OK", [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])
WAIT_SECONDS: Final = 60.0


def event(number: int) -> bytes:
    """Return an event of the stream."""
    return b"data: %d\n\n" % number


def stream_request(key: GatewayKey) -> bytes:
    """Return a request for the stream."""
    return proxy_request(key=key, fields=[("Accept", "text/event-stream")])


class PacedStream:
    """The origin. A paid request is answered by a stream of `EVENTS` events, a free one at once."""

    def __init__(self, start_origin: StartOrigin) -> None:
        self._read = threading.Semaphore(0)
        self.origin: ScriptedOrigin = start_origin(self._script)

    def was_read(self) -> None:
        """Let the origin send the next event."""
        self._read.release()

    def release(self) -> None:
        """Let it send everything that is left."""
        self._read.release(EVENTS)

    def _script(self, connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if request.method == "GET":
                connection.send(http_response())
                continue
            connection.send(HEAD)
            for number in range(EVENTS):
                data = event(number)
                connection.send(b"%x\r\n%s\r\n" % (len(data), data))
                assert self._read.acquire(timeout=WAIT_SECONDS)
            connection.send(b"0\r\n\r\n")


class Reader:
    """A caller that reads the stream event by event, and tells the origin of each."""

    def __init__(self, port: int, key: GatewayKey) -> None:
        """Ask for the stream, and read the answer's head."""
        self.client = RawClient(port)
        try:
            self.client.send(stream_request(key))
            self.head = self.client.read_head()
        except (OSError, Malformed, Truncated):
            self.client.close()
            raise
        self._pieces = self.client.pieces(self.head)
        self._arrived = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def next_event(self) -> bytes:
        """Return the next event; nothing once the stream has ended whole, TimeoutError where none comes."""
        while b"\n\n" not in self._arrived:
            piece = next(self._pieces, b"")
            if not piece:
                return self._arrived
            self._arrived += piece
        found, mark, self._arrived = self._arrived.partition(b"\n\n")
        return found + mark

    def read_on(self, stream: PacedStream, *, first: int = 0) -> None:
        """Read all events from the `first` on, each before the next is sent, and the end of the stream."""
        for number in range(first, EVENTS):
            assert self.next_event() == event(number)
            stream.was_read()
        assert self.next_event() == b""
