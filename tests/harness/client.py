"""A client as raw as a socket: it sends any bytes, and reads answers strictly enough to know whole from truncated."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from tests.harness.ports import LOOPBACK
from tests.harness.wire import Head, WireReader, framed_pieces, read_head

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_SECONDS: Final = 20.0
WITHOUT_CONTENT: Final = frozenset({204, 304})
LINGER_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Response:
    """One whole answer. `framing` is `length`, `chunked`, `none` (no content) or `close` (ends with the connection)."""

    head: Head
    body: bytes
    framing: str
    interim: tuple[int, ...]

    @property
    def status(self) -> int:
        """Status code."""
        return self.head.status

    def field(self, name: str) -> str | None:
        """Return the one value of a field, None without it."""
        value = self.head.value(name.lower().encode())
        return None if value is None else value.decode("latin-1")

    def json(self) -> Any:  # noqa: ANN401 - whatever the answer holds
        """Return the content, read as JSON."""
        return json.loads(self.body)


class RawClient:
    """One connection to a port on loopback. Every wait is bounded by `timeout_seconds`."""

    def __init__(
        self,
        port: int,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        receive_buffer_bytes: int | None = None,
        address: str | None = None,
    ) -> None:
        """Connect; from an `address` on loopback, where it matters who calls."""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_seconds)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            if address is not None:
                self.socket.bind((address, 0))
            self.socket.connect((LOOPBACK, port))
        except OSError:
            self.socket.close()
            raise
        self.reader = WireReader(self.socket)
        self.interim: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self.socket.sendall(data)

    def ask(self, request: bytes) -> Response:
        """Send a request (of a method other than HEAD) and return its whole answer."""
        self.send(request)
        return self.read_response()

    def read_head(self) -> Head:
        """Read the next final head; interim ones (1xx) before it are kept in `interim`."""
        self.interim = []
        while (head := read_head(self.reader)).status < 200:
            self.interim.append(head.status)
        return head

    def pieces(self, head: Head, *, method: str = "POST") -> Iterator[bytes]:
        """Yield the content behind `head` as it comes; `Truncated` where the connection ends before the content."""
        framing = framing_of(head, method)
        if framing == "close":
            yield from self.reader.rest()
        elif framing != "none":
            yield from framed_pieces(self.reader, head)

    def read_response(self, method: str = "POST") -> Response:
        """Read one whole answer; `Truncated`, `Malformed`, or TimeoutError where none comes whole."""
        head = self.read_head()
        body = b"".join(self.pieces(head, method=method))
        return Response(head, body, framing_of(head, method), tuple(self.interim))

    def left_by_peer(self) -> bool:
        """Wait for the peer's next move: True where it ends the connection in order, False where more comes."""
        return self.reader.ended()

    def finish_sending(self) -> None:
        """Close the sending half; answers can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave at once, by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        self.socket.close()

    def close(self) -> None:
        """Leave in order; harmless when done twice."""
        self.socket.close()


def framing_of(head: Head, method: str) -> str:
    """Return how the content of an answer ends (RFC 9112, section 6.3)."""
    if method == "HEAD" or head.status in WITHOUT_CONTENT:
        return "none"
    return "close" if head.framing == "none" else head.framing
